"""One host followed: its two streams, the samples that settle what they heard, and whom to listen to."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.alerts.kills import FINAL_S
from bot.alerts.tally import Tally
from bot.follow.stream import ProgramsStream, SystemStream, ended
from bot.follow.watched import ASK_S, Watched
from remote.errors import HostError
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS

if TYPE_CHECKING:
    from bot.alerts.kills import KillRule
    from bot.parts import App
    from remote.facts.memory import Memory


class Follower:
    """One host's two streams."""

    def __init__(self, name: str, app: App, rule: KillRule) -> None:
        """`rule` keeps what is found."""
        self.watched = Watched(name, app, rule)
        self.system = SystemStream(self.watched)
        self.programs = ProgramsStream(self.watched)
        self._tally = Tally(name, app.store, rule, app.clock)

    async def run(self) -> None:
        """For ever."""
        name = self.watched.name
        system = asyncio.create_task(self.system.follow(), name=f"journal {name}")
        programs: asyncio.Task[None] | None = None
        try:
            await self.system.seen.wait()
            while True:
                changed = await self._who_speaks()
                if changed or programs is None:
                    await ended(programs)
                    programs = asyncio.create_task(self.programs.follow(), name=f"programs {name}")
                await self.watched.voices.until_stale()
        finally:
            await ended(system, programs)

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
