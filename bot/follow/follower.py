"""One host followed: its two streams, the samples that settle what they heard, and whom to listen to."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from bot.alerts.kills import FINAL_S
from bot.alerts.tally import Tally
from bot.follow.stream import Pauses, ProgramsStream, SystemStream, ended
from bot.follow.watched import ASK_S, Watched
from remote.errors import HostError
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS

if TYPE_CHECKING:
    from bot.alerts.kills import KillRule
    from bot.parts import App
    from remote.facts.memory import Memory

log = structlog.get_logger(__name__)


class Follower:
    """One host's two streams."""

    def __init__(self, name: str, app: App, rule: KillRule) -> None:
        """`rule` keeps what is found."""
        self.watched = Watched(name, app, rule)
        self.system = SystemStream(self.watched)
        self.programs = ProgramsStream(self.watched)
        self._tally = Tally(name, app.store, rule, app.clock)
        self._hearing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """For ever."""
        system = asyncio.create_task(self.system.follow(), name=f"journal {self.watched.name}")
        try:
            await self.system.seen.wait()
            await self._attend()
        finally:
            await ended(system, self._hearing)

    async def sampled(self, memory: Memory) -> None:
        """The kernel's counter came with a sample: hold it against what is known, and ask for claims that still wait."""
        if not self.system.seen.is_set():
            return
        watched = self.watched
        watched.ledger.owe(self.system.sighted(watched.autopsy.settle(watched.clock.now() - timedelta(seconds=FINAL_S))))
        await watched.ledger.pay()
        with contextlib.suppress(HostError):
            watched.ledger.owe(self.programs.sighted(await watched.ask_for_claims()))
            await watched.ledger.pay()
        with contextlib.suppress(HostError):
            await self._tally.look(watched.host, memory, listening=self.system.listening)

    async def _attend(self) -> None:
        """Listen to whoever speaks, for ever. Whatever breaks is said once, until it goes well again."""
        pauses: Pauses | None = None
        while True:
            try:
                await self._hear()
                await self.watched.voices.until_stale()
                pauses = None
            except Exception:
                if pauses is None:
                    log.exception("it was not found out whom to listen to", host=self.watched.name)
                    pauses = Pauses()
                await pauses.next()

    async def _hear(self) -> None:
        """Open the programs' stream, or open it anew where somebody else speaks now."""
        changed = await self._who_speaks()
        if changed or self._hearing is None:
            await ended(self._hearing)
            self._hearing = asyncio.create_task(self.programs.follow(), name=f"programs {self.watched.name}")

    async def _who_speaks(self) -> bool:
        """Ask who the main processes are; whether that changed whom to listen to."""
        try:
            answers = await self.watched.ask(UNITS, PROCESSES, within_s=6 * ASK_S)
        except HostError:
            return False
        units, processes = answers.readable(UNITS), answers.readable(PROCESSES)
        if units is None:
            return False
        self.watched.autopsy.learn(units, processes)
        return self.watched.voices.learn(units, processes)
