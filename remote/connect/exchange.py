"""One question under way: its answer is received, its clock kept, a section over its deadline or cap ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from remote.connect.frames import Desync, Receiver
from remote.connect.pipe import Pipe
from remote.connect.supervise import end_section
from remote.errors import HostError
from remote.text import T, Text

Reason = Literal["timeout", "flood"]


@dataclass(frozen=True, slots=True)
class Section:
    """One script of a question. `merged` keeps stderr in the output; `shorten` cuts an output over its cap instead
    of ending the script."""

    script: str
    deadline_s: float
    cap_bytes: int
    merged: bool = False
    shorten: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a section: its exit status and output, or why it was ended (the output is then a part)."""

    status: int
    output: bytes = field(repr=False)
    ended: Reason | None = None


class LinkCut(HostError):  # noqa: N818 - what happened, in the words of the design
    """The link ended before the answer was whole; `started` tells whether anything of the answer had come."""

    def __init__(self, host: str, *, started: bool) -> None:
        """Name the host."""
        super().__init__("cut", T("The link to {host} ended in the middle of the answer. Ask again.", host=host))
        self.started = started


class Unresponsive(HostError):  # noqa: N818 - as above
    """The shell did not do what it was told in time: its connection is not to be used again."""


@dataclass(frozen=True, slots=True)
class _Order:
    """The shell was told to end what runs; `victim` was running as far as we knew."""

    victim: int
    reason: Reason


class Exchange:
    """One question from its sending to its last frame. Memory is bounded by the sections' caps."""

    def __init__(self, pipe: Pipe, host: str, nonce: str, sections: Sequence[Section], grace_s: float) -> None:
        """The clock of the first section starts now, and again when its shell says that it has started."""
        self._pipe = pipe
        self._host = host
        self._nonce = nonce
        self._sections = sections
        self._grace_s = grace_s
        self._receiver = Receiver(nonce, [section.cap_bytes for section in sections])
        self._order: _Order | None = None
        self._reasons: dict[int, Reason] = {}
        self._again: set[int] = set()
        self._loop = asyncio.get_running_loop()
        self._running = (False, 0)
        self._expires_at = self._loop.time() + max(sections[0].deadline_s, grace_s)
        self.abandoned = False
        """A section would not die (it hangs in the kernel): the shell is of no more use, though it obeys."""

    async def outcomes(self) -> list[Outcome | None]:
        """One outcome a section, None for one to ask again: it was hit or kept from running by another's end.

        Raises LinkCut and Unresponsive.
        """
        while not self._receiver.complete and not self.abandoned:
            data = await self._read()
            if data is None:
                self._expire()
            elif data:
                self._take(data)
            else:
                raise LinkCut(self._host, started=self._receiver.started)
        return [self._outcome(k) for k in range(len(self._sections))]

    async def _read(self) -> bytes | None:
        """What came, empty at the end, None when the time is over first."""
        try:
            async with asyncio.timeout_at(self._expires_at):
                return await self._pipe.read()
        except TimeoutError:
            return None

    def _take(self, data: bytes) -> None:
        try:
            self._receiver.feed(data)
        except Desync as desync:
            raise LinkCut(self._host, started=True) from desync
        self._settle()
        if self._receiver.complete or self._order is not None:
            return
        self._restart_clock()
        k = self._receiver.current
        if self._receiver.parts[k].over and not self._sections[k].shorten:
            self._end_running("flood")

    def _settle(self) -> None:
        """See whether an order was carried out, and whom it hit."""
        if self._order is None or self._receiver.cleared is None:
            return
        hit, _ = self._receiver.cleared
        if hit != self._order.victim:
            # The section due had just ended by itself: the order hit the next one, which is not to blame.
            self._again.add(hit)
        if self._receiver.current > hit:
            self._order = None

    def _restart_clock(self) -> None:
        running = (self._receiver.started, self._receiver.current)
        if running != self._running:
            self._running = running
            self._expires_at = self._loop.time() + self._sections[self._receiver.current].deadline_s

    def _expire(self) -> None:
        if not self._receiver.started or (self._order is not None and self._receiver.cleared is None):
            kind = self._order.reason if self._order is not None else "timeout"
            raise Unresponsive(kind, _unresponsive(self._host, kind))
        if self._order is not None:
            self.abandoned = True
        else:
            self._end_running("timeout")

    def _end_running(self, reason: Reason) -> None:
        k = self._receiver.current
        self._reasons[k] = reason
        self._order = _Order(k, reason)
        self._receiver.cleared = None
        self._expires_at = self._loop.time() + self._grace_s
        self._pipe.write(end_section(self._nonce).encode())

    def _outcome(self, k: int) -> Outcome | None:
        part = self._receiver.parts[k]
        reason = self._reasons.get(k)
        if reason is None and part.over and not self._sections[k].shorten:
            reason = "flood"
        if reason is not None:
            return Outcome(-1, bytes(part.output), reason)
        if k in self._again or part.status is None:
            return None
        return Outcome(part.status, bytes(part.output))


def _unresponsive(host: str, kind: Reason) -> Text:
    if kind == "flood":
        return T("{host} prints without end; the connection was dropped.", host=host)
    return T("{host} did not answer in time; the connection was dropped. Ask again in a moment.", host=host)
