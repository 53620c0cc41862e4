"""Rounds of everything at once, at random: deaths of the bot, cut links, journals rotated and vacuumed, reboots, Telegram's faults.

`MEMWARDEN_SEED=… MEMWARDEN_ROUND=… make chaos ARGS="-k random_rounds"` replays one round; `MEMWARDEN_ROUNDS` says how many.
The oracle: tests/chaos/kills.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.kills import World, world
from tests.chaos.nursery import Nursery
from tests.chaos.recording import KINDS
from tests.chaos.story import STAGES
from tests.emulators.telegram import FaultKind, Hold

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

SEED: Final = int(os.environ.get("MEMWARDEN_SEED") or random.SystemRandom().randrange(1 << 32))
ROUNDS: Final = int(os.environ.get("MEMWARDEN_ROUNDS") or 200)
ONLY: Final = os.environ.get("MEMWARDEN_ROUND")
AT_A_TIME: Final = 2
STEPS: Final = 5
SHORTLY_S: Final = 0.4
FOREVER_S: Final = 3600.0
SHOWING: Final = frozenset({"sendMessage", "editMessageText"})


class Round:
    """One round: what happens, and what goes wrong meanwhile."""

    def __init__(self, one: World, chance: random.Random) -> None:
        self._one = one
        self._chance = chance
        self._killers: list[asyncio.Task[None]] = []
        self._holds: list[Hold] = []
        self.story: list[str] = []
        self.trouble: tuple[Callable[[], object], ...] = (
            self.die_at_telegram, self.die_at_the_machine, self.die_at_a_commit, self.die, self.cut, self.cut_soon, self.rotate,
            self.vacuum, self.restart_journald, self.reboot, self.be_offline, self.telegram_fails, self.telegram_fails,
        )  # fmt: skip

    async def play(self) -> None:
        """All steps; at the end all is well again and every kill must be told."""
        one, chance = self._one, self._chance
        self._happen()
        one.clock.go(hours=chance.choice((0.1, 2)))  # all of a round is less than the 24 hours of a first sight
        one.machine.journal.noise(3)
        await one.begin()
        try:
            for _ in range(STEPS):
                await self._step()
        finally:
            for killer in self._killers:
                killer.cancel()
            await asyncio.gather(*self._killers, return_exceptions=True)
            for hold in self._holds:
                hold.release()
        one.recover()
        await one.all_told()
        await one.end()
        one.judge()

    async def _step(self) -> None:
        parts = [self._chance.choice(self.trouble), *self._chance.choices((self._happen, self._storm, self._later), (5, 2, 2))]
        self._chance.shuffle(parts)
        for part in parts:
            done = part()
            if asyncio.iscoroutine(done):
                await done
        match self._chance.randrange(3):
            case 0:
                self.story.append("all told")
                await self._one.all_told()
            case 1:
                await self._something()

    async def _something(self) -> None:
        """Until something is called, but not for long."""
        before = len(self._one.telegram.calls)
        with contextlib.suppress(TimeoutError):
            await self._one.telegram.wait_for(lambda: len(self._one.telegram.calls) > before, SHORTLY_S)

    def _happen(self) -> None:
        kind = self._chance.choice(KINDS)
        self.story.append(f"{kind} {self._one.machine.happen(kind)}")

    def _storm(self) -> None:
        # A message names sixty of its kills and counts the rest: all that a round may tell in one has to fit.
        pids = self._one.machine.storm(self._chance.randint(2, 9))
        self.story.append(f"storm {pids[0]}-{pids[-1]}")

    def _later(self) -> None:
        minutes = self._chance.choice((1, 10, 100))
        self.story.append(f"{minutes} minutes later")
        self._one.clock.go(minutes=minutes)

    def die_at_telegram(self) -> None:
        calls = sum(not call.is_poll for call in self._one.telegram.calls)
        ordinal, moment = calls + self._chance.randint(1, 5), self._chance.choice(STAGES)
        self.story.append(f"dies at Telegram's call {ordinal} {moment}")
        hold = self._one.telegram.hold(ordinal, moment)  # type: ignore[arg-type]
        self._holds.append(hold)
        self._kill_at(lambda: hold.reached(FOREVER_S), hold.drop if moment == "before" else hold.release)

    def die_at_the_machine(self) -> None:
        ordinal = len(self._one.machine.gate.calls) + self._chance.randint(1, 8)
        moment = self._chance.choice(STAGES)
        self.story.append(f"dies at the machine's call {ordinal} {moment}")
        stop = self._one.machine.gate.stop(ordinal, moment)
        self._kill_at(stop.reached.wait, stop.released.set)

    def _kill_at(self, reached: Callable[[], Awaitable[object]], release: Callable[[], None]) -> None:
        async def kill() -> None:
            await reached()
            await self._one.kill()
            release()

        self._killers.append(asyncio.create_task(kill()))

    def die_at_a_commit(self) -> None:
        ordinal, after = self._one.clock.commits + self._chance.randint(1, 10), self._chance.random() < 0.5
        self.story.append(f"dies {'after' if after else 'before'} commit {ordinal}")
        self._one.clock.die_at_commit(ordinal, after=after)

    async def die(self) -> None:
        self.story.append("dies")
        await self._one.kill()

    def cut(self) -> None:
        self.story.append("link cut")
        self._one.proxy.cut()

    def cut_soon(self) -> None:
        self._one.proxy.heals = True
        chunks = self._chance.randint(1, 40)
        self.story.append(f"link cut {chunks} chunks later")
        self._one.proxy.cut_after_chunks = chunks

    def rotate(self) -> None:
        crashed = self._chance.random() < 0.3
        self.story.append("rotated after a crash" if crashed else "rotated")
        (self._one.machine.journal.crash if crashed else self._one.machine.journal.rotate)()

    def vacuum(self) -> None:
        """All that was told of is forgotten, the place that was read to as well."""
        self.story.append("vacuumed")
        self._one.machine.journal.noise(2)
        self._one.machine.journal.vacuum(self._one.untold())

    def restart_journald(self) -> None:
        self.story.append("journald restarted")
        self._one.machine.restart_journald()

    def reboot(self) -> None:
        self.story.append("rebooted")
        self._one.machine.reboot()

    async def be_offline(self) -> None:
        """The bot is away for an hour in which there are kills."""
        self.story.append("an hour offline: ")
        await self._one.end()
        for _ in range(self._chance.randint(0, 3)):
            self._one.clock.go(minutes=self._chance.randint(1, 20))
            self._happen()
            if self._chance.random() < 0.2:
                self.reboot()
        self._one.clock.go(hours=1)
        await self._one.begin()

    def telegram_fails(self) -> None:
        kind = self._chance.choice([kind for kind in FaultKind if "delay" not in kind])
        self.story.append(f"Telegram: {kind}")
        self._one.telegram.faults.on(lambda call: call.method in SHOWING, kind, retry_after_s=1)


async def _one_round(number: int, folder: Path, lives: Nursery, template: Path) -> str:
    chance = random.Random(f"{SEED}/{number}")
    async with world(folder, lives, template, chance) as one:
        played = Round(one, chance)
        try:
            await played.play()
        except AssertionError as wrong:
            raise AssertionError(f"MEMWARDEN_SEED={SEED} MEMWARDEN_ROUND={number}\n{'; '.join(played.story)}\n{wrong}") from wrong
        said = f"MEMWARDEN_SEED={SEED} MEMWARDEN_ROUND={number}: {len(one.machine.victims)} kills told, the bot killed {one.died} times,"
        said = f"{said} answers lost: {len(one.lost)}, told again for that: {len(one.again())}"
    shutil.rmtree(folder)
    return said


@pytest.mark.parametrize("first", [int(ONLY)] if ONLY else range(0, ROUNDS, AT_A_TIME))
async def test_random_rounds(first: int, tmp_path: Path, lives: Nursery, template: Path, say: Callable[[str], None]) -> None:
    numbers = [first] if ONLY else range(first, min(ROUNDS, first + AT_A_TIME))
    rounds = [_one_round(number, tmp_path / str(number), lives, template) for number in numbers]
    ended = await asyncio.gather(*rounds, return_exceptions=True)
    say("\n".join(one if isinstance(one, str) else f"MEMWARDEN_SEED={SEED}: failed" for one in ended))
    wrong = [one for one in ended if isinstance(one, BaseException)]
    if wrong:
        raise wrong[0]
