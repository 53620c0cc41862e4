"""The listening end: what strangers get, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.hooks import sources
from bot.hooks.base import Question, Source
from bot.hooks.server import BODY, CONNECTION, CONNECTIONS, Server, listens
from tests.bot.hooks.test_sources import ALERT
from tests.bot.hooks.world import ALERT_TOKEN, World, settings
from tests.bot.waiting import until
from tests.clock import StandingClock
from tests.emulators.sentry import Sentry


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("sentry", "GET", 405),
        ("sentry", "PUT", 405),
        ("alertmanager", "DELETE", 405),
        ("nobody", "POST", 404),
        ("", "POST", 404),
        ("sentry/", "POST", 404),
        ("../sentry", "POST", 404),
    ],
)
async def test_what_is_not_there(path: str, method: str, status: int, world: World) -> None:
    assert await world.post(path, b"", method=method) == (status, b"")


async def test_who_cannot_prove_it_is_refused_without_a_word(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    body = b"secret of a body"
    for path in ("sentry", "alertmanager"):
        for headers in ({}, {"Sentry-Hook-Signature": "0" * 64}, {"Authorization": "Bearer wrong"}):
            assert await world.post(path, body, headers) == (401, b"")

    said = capsys.readouterr().err + capsys.readouterr().out
    assert "secret of a body" not in said
    assert await world.rows() == {"events": 0, "hooks": 0, "kills": 0, "messages": 0}
    assert world.host.asked == 0


async def test_a_forged_body_is_refused_before_it_is_parsed(world: World) -> None:
    body = world.sentry.issue()
    headers = world.sentry.headers(body)

    assert await world.post("sentry", body.replace(b"415", b"414"), headers) == (401, b"")
    assert await world.post("sentry", b"not even JSON", headers) == (401, b"")
    assert await world.post("sentry", body, headers) == (200, b"")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b'{"action": "created"}'])
async def test_what_is_proven_but_not_understood(body: bytes, world: World) -> None:
    assert await world.post("sentry", body, world.sentry.headers(body)) == (400, b"")
    assert await world.post("alertmanager", body, {"Authorization": f"Bearer {ALERT_TOKEN}"}) == (400, b"")


@pytest.mark.parametrize("chunked", [True, False])
async def test_what_is_too_large_is_refused_by_whomever_it_is_sent(chunked: bool, world: World) -> None:  # noqa: FBT001
    body = world.sentry.issue(culprit="x" * BODY)
    headers = world.sentry.headers(body) | {"Content-Type": "application/json"}
    head = f"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nSentry-Hook-Signature: {headers['Sentry-Hook-Signature']}\r\n"
    if chunked:
        sent = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    else:
        sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    assert (await spoken(world.hooks.port, sent)).startswith(b"HTTP/1.1 413")
    assert (await world.rows())["events"] == 0


async def test_a_body_that_is_just_not_too_large_is_taken(world: World) -> None:
    empty = len(world.sentry.issue(culprit=""))
    body = world.sentry.issue(culprit="x" * (BODY - empty))
    assert len(body) == BODY

    assert await world.from_sentry(body) == 200


async def test_a_packed_body_is_read_as_the_bytes_that_it_is(world: World) -> None:
    import gzip

    packed = gzip.compress(world.sentry.issue())
    headers = world.sentry.headers(packed) | {"Content-Encoding": "gzip"}

    assert await world.post("sentry", packed, headers) == (400, b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00 a TLS hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /hooks/sentry HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /hooks/sentry HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /hooks/sentry HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_gets_a_bare_status(sent: bytes, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    answer = await spoken(world.hooks.port, sent)

    assert answer.partition(b"\r\n")[0].endswith(b"400 Bad Request")
    assert answer.endswith(b"\r\n\r\n")
    assert "Traceback" not in capsys.readouterr().err
    assert await world.from_sentry(world.sentry.issue()) == 200


async def test_ten_thousand_requests_of_a_stranger_cost_no_write_and_one_line_of_log(
    world: World, writes: Writes, capsys: pytest.CaptureFixture[str]
) -> None:
    body = world.sentry.issue()
    sent = f"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nSentry-Hook-Signature: {'0' * 64}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def knock(times: int) -> set[bytes]:
        return {(await spoken(world.hooks.port, sent + body))[:12] for _ in range(times)}

    answers = set().union(*await asyncio.gather(*(knock(1_250) for _ in range(8))))
    assert answers == {b"HTTP/1.1 401"}
    assert not writes.any()
    assert world.host.asked == 0
    assert capsys.readouterr().out.count("refused") == 1
    assert await world.from_sentry(body) == 200
    assert writes.any()


async def test_a_replay_costs_no_write(world: World, writes: Writes) -> None:
    body = world.sentry.issue()
    assert await world.from_sentry(body) == 200
    await world.settle()
    assert writes.any()

    assert [await world.from_sentry(body) for _ in range(20)] == [200] * 20
    assert await world.settle() == world.texts()
    assert not writes.any()
    assert world.host.asked == 1


async def test_a_flood_of_what_is_asked_already_costs_one_question(world: World) -> None:
    world.host.gate.clear()
    statuses = [await world.from_sentry(world.sentry.event(f"{n:032x}")) for n in range(30)]
    world.host.gate.set()
    await world.settle()

    assert statuses == [200] * 30
    assert world.host.asked == 1
    assert (await world.rows())["hooks"] == 1


class Listening:
    """A server alone, with little patience."""

    def __init__(self, patience_s: float) -> None:
        self.taken: list[Question] = []
        hooks = settings("sqlite:///x.db", Sentry()).hooks
        assert hooks is not None
        self.server = Server(sources(hooks), self.take, StandingClock(), patience_s=patience_s)

    async def take(self, source: Source, questions: tuple[Question, ...]) -> None:
        assert source.name in {"sentry", "alertmanager"}
        self.taken += questions


@pytest.fixture
def hasty() -> Listening:
    return Listening(0.2)


@pytest.fixture
def patient() -> Listening:
    return Listening(60)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /hooks/sen",
        b"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
        b"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly this",
        b"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
async def test_who_is_slow_is_cut_off(sent: bytes, hasty: Listening) -> None:
    await hasty.server.open(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.server.port)
    writer.write(sent)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    await hasty.server.close()


async def test_who_drips_is_cut_off_too(hasty: Listening) -> None:
    await hasty.server.open(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.server.port)
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(5):
        while not ended.done():
            writer.write(b"X")
            await asyncio.wait([ended], timeout=0.02)
    await asyncio.gather(ended, return_exceptions=True)
    writer.close()
    await hasty.server.close()


async def test_who_sends_without_end_is_cut_off(patient: Listening) -> None:
    await patient.server.open(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection("127.0.0.1", patient.server.port)
    writer.write(b"POST /hooks/sentry HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                sent += 65536
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
    assert sent < CONNECTION + (8 << 20)  # what the kernel's buffers hold
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    await patient.server.close()


async def test_there_are_only_so_many_connections_and_then_there_is_room_again(patient: Listening) -> None:
    await patient.server.open(("127.0.0.1", 0))
    waiting = [await asyncio.open_connection("127.0.0.1", patient.server.port) for _ in range(CONNECTIONS)]
    assert patient.server._http is not None
    http = patient.server._http
    await until(lambda: len(http.connections) == CONNECTIONS)
    request = b"GET /hooks/sentry HTTP/1.1\r\nHost: x\r\n\r\n"
    assert await spoken(patient.server.port, request) == b""

    for _, writer in waiting:
        writer.close()
    await until(lambda: not http.connections)
    assert (await spoken(patient.server.port, request)).startswith(b"HTTP/1.1 405")
    await patient.server.close()


async def test_one_connection_is_one_request(patient: Listening) -> None:
    await patient.server.open(("127.0.0.1", 0))
    answer = await spoken(patient.server.port, b"GET /hooks/sentry HTTP/1.1\r\nHost: x\r\n\r\n" * 5)

    assert answer.count(b"HTTP/1.1 405") == 1
    await patient.server.close()


async def test_a_store_that_fails_is_a_bare_503_and_the_sender_may_try_again(patient: Listening) -> None:
    async def fail(source: Source, questions: tuple[Question, ...]) -> None:
        raise OSError("disk full")

    patient.server._take = fail
    await patient.server.open(("127.0.0.1", 0))
    body = json.dumps({"alerts": [ALERT]}).encode()
    head = f"POST /hooks/alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALERT_TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await spoken(patient.server.port, head.encode() + body)

    assert answer.startswith(b"HTTP/1.1 503")
    assert b"disk" not in answer
    await patient.server.close()


async def test_who_has_an_address(patient: Listening) -> None:
    await patient.server.open(("127.0.0.1", 0))
    port = patient.server.port
    assert await listens(("127.0.0.1", port)) == "ours"
    await patient.server.close()
    assert await listens(("127.0.0.1", port)) == "free"
    assert await listens(("203.0.113.99", port)) == "no"

    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    assert await listens(("127.0.0.1", other.sockets[0].getsockname()[1])) == "taken"
    other.close()


class Writes:
    """Whether anybody wrote to the store since it was last asked, by SQLite's own word."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self.any()

    def any(self) -> bool:
        """https://sqlite.org/pragma.html#pragma_data_version: it changes when another connection commits."""
        before = getattr(self, "_version", None)
        (self._version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return bool(before != self._version)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def writes(world: World, tmp_path: Path) -> Iterator[Writes]:
    one = Writes(tmp_path / "test.db")
    yield one
    one.close()


async def spoken(port: int, sent: bytes) -> bytes:
    """What the server answers until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        async with asyncio.timeout(10):
            answer = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer
