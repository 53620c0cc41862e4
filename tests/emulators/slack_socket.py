"""Slack's Socket Mode: sockets, envelopes, acks and their deadline, retries of events, disconnects."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import WSMsgType, web

from tests.emulators.slack_blocks import Json
from tests.emulators.slack_world import APP_ID, World

ACK_DEADLINE_S = 3.0
SOCKETS_MAX = 10
#: At once, after a minute, after five more: docs.slack.dev/apis/events-api#retries
RETRY_DELAYS_S = (0.0, 60.0, 300.0)
#: How long a socket that was told to go stays, for acks under way.
GRACE_S = 1.0


@dataclass
class Attempt:
    """One envelope as it was sent; `socket` is None where nobody listened."""

    envelope_id: str
    socket: int | None
    sent_at: float
    retry: int = 0
    acked_ms: float | None = None
    late: bool = False
    acks: int = 0


@dataclass
class Delivery:
    """Something that people did, on its way to the app."""

    kind: str
    payload: dict[str, Any]
    label: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    ack_payload: Json | None = None
    failure: str | None = None
    on_ack: Callable[[Json], None] | None = None
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acked(self) -> bool:
        """Whether any attempt was acked in time."""
        return any(attempt.acked_ms is not None and not attempt.late for attempt in self.attempts)

    @property
    def acked_ms(self) -> float | None:
        """How long the first ack took, milliseconds."""
        return next((attempt.acked_ms for attempt in self.attempts if attempt.acked_ms is not None), None)

    @property
    def is_event(self) -> bool:
        """Whether Slack retries it; commands and presses are lost instead."""
        return self.kind == "events_api"

    @property
    def shown_to_user(self) -> str | None:
        """What the person reads when the app did not answer."""
        if self.failure is None or self.is_event:
            return None
        if self.kind == "slash_commands":
            return f'{self.label} failed with the error "{self.failure}"'
        return "This app is not responding."

    async def settled(self, timeout_s: float = 10) -> "Delivery":
        """Itself, once acked or given up.

        Raises:
            TimeoutError: Neither came in time.
        """
        async with asyncio.timeout(timeout_s):
            await self._settled.wait()
        return self

    def settle(self, failure: str | None = None) -> None:
        """Note the end; a failure stands only where no ack came."""
        self.failure = None if self.acked else failure
        self._settled.set()


@dataclass
class Socket:
    """A client's connection; a retired one gets nothing new."""

    number: int
    ws: web.WebSocketResponse
    request: web.Request
    retired: bool = False


class SocketMode:
    """Sends envelopes to whoever is connected, each to one socket, in turn."""

    def __init__(self, world: World, *, ack_deadline_s: float, retry_delays_s: Sequence[float]) -> None:
        self.world = world
        self.ack_deadline_s = ack_deadline_s
        self.retry_delays_s = tuple(retry_delays_s)
        self.sockets: list[Socket] = []
        self.connections = 0
        self.deliveries: list[Delivery] = []
        self.base = ""
        self._tickets: set[str] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0

    # Connections

    def new_link(self) -> str:
        """A WebSocket URL, good for one connection."""
        ticket = f"t{self.world.number()}"
        self._tickets.add(ticket)
        return f"{self.base.replace('http', 'ws', 1)}/link/?ticket={ticket}&app_id={APP_ID}"

    @property
    def live(self) -> list[Socket]:
        """The sockets that get envelopes."""
        return [socket for socket in self.sockets if not socket.retired]

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket until it ends."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=HTTPStatus.FORBIDDEN)
        self._tickets.remove(ticket)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        if len(self.sockets) >= SOCKETS_MAX:
            await ws.send_json({"type": "disconnect", "reason": "too_many_websockets"})
            await ws.close()
            return ws
        self.connections += 1
        socket = Socket(self.connections, ws, request)
        await ws.send_json(self._hello())
        self.sockets.append(socket)
        self.world.changed()
        try:
            await self._listen(socket)
        finally:
            self.sockets.remove(socket)
            self.world.changed()
        return ws

    def _hello(self) -> Json:
        return {
            "type": "hello",
            "num_connections": len(self.live) + 1,
            "connection_info": {"app_id": APP_ID},
            "debug_info": {"host": "applink-1", "build_number": 1, "approximate_connection_time": 18060},
        }

    async def _listen(self, socket: Socket) -> None:
        async for message in socket.ws:
            if message.type is WSMsgType.TEXT:
                self._acked(json.loads(message.data))

    async def connected(self, count: int = 1, timeout_s: float = 5) -> None:
        """Wait for at least so many live sockets."""
        await self.world.wait_for(lambda: len(self.live) >= count, timeout_s)

    async def disconnect(self, reason: str = "refresh_requested", *, socket: Socket | None = None) -> None:
        """Tell one socket, or all, to connect anew; but for a `warning` they are closed soon after."""
        for told in [socket] if socket else self.live:
            told.retired = reason != "warning"
            await told.ws.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-1"}})
            if told.retired:
                self._later(GRACE_S, self._close, told)
        self.world.changed()

    def _close(self, socket: Socket) -> None:
        self._spawn(socket.ws)

    def _spawn(self, ws: web.WebSocketResponse) -> None:
        async def close() -> None:
            await ws.close()

        task = asyncio.create_task(close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self, socket: Socket | None = None) -> None:
        """Let one socket, or all, die without a word, as when a network breaks."""
        for dropped in [socket] if socket else list(self.sockets):
            dropped.retired = True
            if dropped.request.transport is not None:
                dropped.request.transport.abort()
        self.world.changed()

    async def stop(self) -> None:
        """Close the sockets and forget the timers."""
        for timer in self._timers:
            timer.cancel()
        for socket in list(self.sockets):
            await socket.ws.close()
        await asyncio.gather(*self._tasks)

    # Envelopes

    async def deliver(
        self, kind: str, payload: dict[str, Any], *, label: str = "", on_ack: Callable[[Json], None] | None = None
    ) -> Delivery:
        """Send something new; what nobody acks is lost or retried, by its kind."""
        delivery = Delivery(kind, payload, label, on_ack=on_ack)
        self.deliveries.append(delivery)
        await self._attempt(delivery, retry=0)
        return delivery

    async def resend(self, delivery: Delivery) -> None:
        """Send the very same envelope once more."""
        attempt = delivery.attempts[-1]
        await self._send(self._envelope(delivery, attempt), self._next_socket())

    async def redeliver(self, delivery: Delivery) -> None:
        """Send the same event in a new envelope, as a retry does."""
        await self._attempt(delivery, retry=len(delivery.attempts))

    async def _attempt(self, delivery: Delivery, *, retry: int) -> None:
        socket = self._next_socket()
        attempt = Attempt(f"e{self.world.number()}", socket.number if socket else None, time.monotonic(), retry)
        delivery.attempts.append(attempt)
        if await self._send(self._envelope(delivery, attempt), socket):
            self._later(self.ack_deadline_s, self._overdue, delivery, attempt)
        else:
            attempt.socket = None
            self._overdue(delivery, attempt)
        self.world.changed()

    def _next_socket(self) -> Socket | None:
        live = self.live
        self._turn += 1
        return live[self._turn % len(live)] if live else None

    async def _send(self, envelope: Json, socket: Socket | None) -> bool:
        if socket is None:
            return False
        try:
            await socket.ws.send_json(envelope)
        except ConnectionError:
            return False
        return True

    def _envelope(self, delivery: Delivery, attempt: Attempt) -> Json:
        envelope: dict[str, Any] = {
            "envelope_id": attempt.envelope_id,
            "type": delivery.kind,
            "payload": delivery.payload,
            "accepts_response_payload": delivery.kind == "slash_commands",
        }
        if delivery.is_event:
            envelope |= {"retry_attempt": attempt.retry, "retry_reason": "timeout" if attempt.retry else ""}
        return envelope

    def _acked(self, answer: Json) -> None:
        for delivery in reversed(self.deliveries):
            for attempt in delivery.attempts:
                if attempt.envelope_id == answer.get("envelope_id"):
                    self._take_ack(delivery, attempt, answer.get("payload"))
                    return

    def _take_ack(self, delivery: Delivery, attempt: Attempt, payload: Json | None) -> None:
        attempt.acks += 1
        if attempt.acked_ms is None:
            attempt.acked_ms = (time.monotonic() - attempt.sent_at) * 1000
            attempt.late = attempt.acked_ms > self.ack_deadline_s * 1000
            if not attempt.late:
                delivery.ack_payload = payload
                if payload and delivery.on_ack:
                    delivery.on_ack(payload)
                delivery.settle()
        self.world.changed()

    def _overdue(self, delivery: Delivery, attempt: Attempt) -> None:
        if delivery.acked:
            return
        if delivery.is_event and attempt.retry < len(self.retry_delays_s):
            self._later(self.retry_delays_s[attempt.retry], self._retry, delivery, attempt.retry + 1)
            return
        delivery.settle("event_dropped" if delivery.is_event else "dispatch_failed")
        self.world.changed()

    def _retry(self, delivery: Delivery, retry: int) -> None:
        if delivery.acked:
            return
        task = asyncio.create_task(self._attempt(delivery, retry=retry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _later(self, seconds: float, call: Callable[..., None], *args: object) -> None:
        self._timers = {timer for timer in self._timers if not timer.cancelled() and timer.when() > time.monotonic() - 1}
        self._timers.add(asyncio.get_running_loop().call_later(seconds, call, *args))
