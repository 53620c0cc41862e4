"""The listening end: small, and with a limit to everything that a stranger may cost.

One request a connection, at most so many connections, so many bytes, so many seconds; no answer says more than its status.
The body is read raw, proven, and only then parsed; it is never logged. https://docs.aiohttp.org/en/stable/web_lowlevel.html
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from bot.hooks.base import NotUnderstood, Question, Source

if TYPE_CHECKING:
    from handlers.ports.clock import Clock

log = structlog.get_logger(__name__)

BODY = 256 << 10  # bytes of a body; Sentry's with a long stack trace have some ten thousand
CONNECTION = 8 * BODY  # bytes of a connection: who sends a little too much still hears 413
CONNECTIONS = 64
PATIENCE_S = 10.0  # of a connection, from its first byte to its last
QUIET_S = 60.0  # the same trouble is logged once in this time
PATH = "/hooks/"
SIGN = "memwarden"

# aiohttp's own would print what a stranger sent.
_SILENT = logging.getLogger("bot.hooks.http")
_SILENT.setLevel(logging.CRITICAL + 1)

Take = Callable[[Source, tuple[Question, ...]], Awaitable[None]]


class Server:
    """Listens, proves, parses, and hands questions to `take`, which keeps them; then the answer leaves."""

    def __init__(self, sources: Mapping[str, Source], take: Take, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing listens before `open`."""
        self._sources = sources
        self._take = take
        self._clock = clock
        self._patience_s = patience_s
        self._said: dict[str, float] = {}
        self._http: _Http | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else 0

    async def open(self, address: tuple[str, int]) -> None:
        """Listen. Raises OSError."""
        self._http = _Http(self._answer, self._patience_s)
        self._server = await asyncio.get_running_loop().create_server(self._http, *address)

    async def close(self) -> None:
        """Stop listening; who is being answered is."""
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            self._http.pre_shutdown()
            await self._http.shutdown(2.0)
        self._server = self._http = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            status = await self._status(request)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("a hook was not kept")
            status = 503
        return _bare(status)

    async def _status(self, request: web.BaseRequest) -> int:
        source = self._sources.get(request.path.removeprefix(PATH)) if request.path.startswith(PATH) else None
        if source is None:
            return 404
        if request.method != "POST":
            return 405
        try:
            body = await _body(request)
        except web.RequestPayloadError:
            return 400
        if body is None:
            return 413
        if not source.proven(request.headers, body):
            self._say("a hook was refused: wrong signature or token", source=source.name)
            return 401
        try:
            questions = source.questions(body)
        except NotUnderstood:
            self._say("a hook was not understood", source=source.name)
            return 400
        await self._keep(source, questions)
        return 200

    async def _keep(self, source: Source, questions: tuple[Question, ...]) -> None:
        known = tuple(question for question in questions if question.host is not None)
        if len(known) < len(questions):
            self._say("a hook is about nothing that the settings map to a host", source=source.name)
        if known:
            await self._take(source, known)

    def _say(self, what: str, **more: str) -> None:
        """Once in a while: whoever can send can send without end."""
        now = self._clock.now().timestamp()
        if now - self._said.get(what, -QUIET_S) >= QUIET_S:
            self._said[what] = now
            log.warning(what, **more)


async def _body(request: web.BaseRequest) -> bytes | None:
    """The body as it was sent; None when it is too long."""
    if (request.content_length or 0) > BODY:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY:
            return None
    return bytes(body)


def _bare(status: int) -> web.Response:
    response = web.Response(status=status, headers={"Server": SIGN})
    response.force_close()
    return response


class _Http(web.Server):
    """aiohttp's server of plain requests, with guarded connections."""

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], patience_s: float) -> None:
        super().__init__(answer)
        self._patience_s = patience_s

    def __call__(self) -> web.RequestHandler:
        return _Guarded(self, self._patience_s)


class _Guarded(web.RequestHandler):
    """One connection: it ends when its time or its bytes are used up, whatever it is doing. aiohttp alone waits for ever for the
    end of a request that has begun."""

    def __init__(self, server: _Http, patience_s: float) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            logger=_SILENT,
            keepalive_timeout=0,
            lingering_time=patience_s,
            auto_decompress=False,
        )
        self._server = server
        self._patience_s = patience_s
        self._left = CONNECTION
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._server.connections) >= CONNECTIONS and isinstance(transport, asyncio.Transport):
            transport.abort()
            return
        super().connection_made(transport)
        self._end = asyncio.get_running_loop().call_later(self._patience_s, self._abort)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._abort()
        else:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._end is not None:
            self._end.cancel()
            super().connection_lost(exc)

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: Any = None, message: str | None = None) -> Any:  # noqa: ANN401 - as its parent
        """What is no HTTP gets a bare status, not its own words back."""
        del request, exc, message
        return _bare(status)

    def _abort(self) -> None:
        transport = self.transport
        self.force_close()
        if isinstance(transport, asyncio.Transport):
            transport.abort()


async def listens(address: tuple[str, int]) -> str:
    """Who has this address: `free`, `ours` (a memwarden listens there) or `taken`; `no` when it is not this machine's."""
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, *address)
    except OSError as trouble:
        if trouble.errno != errno.EADDRINUSE:
            return "no"
        return "ours" if await _is_ours(address) else "taken"
    server.close()
    return "free"


async def _is_ours(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.read(4096)
            writer.close()
            return f"Server: {SIGN}".encode() in answer
    return False
