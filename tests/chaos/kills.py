"""Kills told over Telegram while the bot is killed and its links break; the oracle asks the journal's file and the emulator.

Every victim that the kernel names in the journal is told, and told in one message, but for messages whose send may have been
shown without the bot's knowing: the answer was lost, or the bot was killed while it was under way. Those are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from tests.chaos.control import Control
from tests.chaos.machine import Machine, machine
from tests.chaos.nursery import Life, Nursery, new_store
from tests.chaos.recording import victims
from tests.emulators.proxy import Proxy, proxied
from tests.emulators.telegram import Call, Message, TelegramEmulator

GROUP: Final = -1_001_234_567_890
BEGIN: Final = datetime(2026, 11, 23, 23, 50, tzinfo=UTC)  # when the lab recorded
AGAIN: Final = "This may have been shown before."
LOSING: Final = frozenset({"fault: cut-after", "fault: garbage", "fault: server-error-after"})
TOLD_S: Final = 60.0
SETTLED_S: Final = 2.0
"""So long after its answer a send is surely in the store."""
SETTINGS: Final = """\
store = "sqlite:///{folder}/memwarden.db"
[telegram]
token = "{token}"
api_base = "{base_url}"
[chats.ops]
telegram = {chat}
[hosts.prod]
address = "127.0.0.1"
port = {port}
key = "{key}"
host_key = "{host_key}"
[people.owner]
telegram = 111111
role = "admin"
[alerts]
memory_percent = 99.9
clear_percent = 99.8
critical_percent = 100
critical_available = 1
every = "{every_s}s"
"""


@dataclass
class World:
    """A chat, a machine, the link between it and the bot, and the bot's lives."""

    telegram: TelegramEmulator
    machine: Machine
    proxy: Proxy
    clock: Control
    folder: Path
    nursery: Nursery
    died: int = 0
    sends_at_death: list[Call] = field(default_factory=list)
    """Sends that were shown and may not be in the store of the life that made them."""
    _life: Life | None = None
    _keeper: asyncio.Task[None] | None = None
    _wanted: bool = False
    _since: int = 0
    _answered_at: dict[int, float] = field(default_factory=dict)

    async def begin(self) -> None:
        """The bot lives, and begins anew whenever it is killed, until `end`."""
        self._wanted = True
        await self._be_born()
        self._keeper = asyncio.create_task(self._keep())

    async def _be_born(self) -> None:
        self._since = len(self.telegram.calls)
        self._life = await self.nursery.begin(self.folder / "memwarden.toml", self.folder / "bot.log", self.clock)

    async def _keep(self) -> None:
        while True:
            assert self._life is not None
            status = await asyncio.shield(self._life.ended)
            if not self._wanted:
                return
            assert status == -9, f"the bot ended with {status}\n{self.log()}"
            self.died += 1
            self.sends_at_death += self._unsettled()
            await self._be_born()

    def _unsettled(self) -> list[Call]:
        """Sends of the life that ended whose answer it may not have kept: shown, and nothing came after them."""
        mine = [call for call in self.telegram.calls[self._since :] if call.method in {"sendMessage", "editMessageText"}]
        last = mine[-1] if mine else None
        if last is None or last.method != "sendMessage" or not last.taken:
            return []
        answered_at = self._answered_at.get(last.n)
        return [] if answered_at is not None and time.monotonic() - answered_at > SETTLED_S else [last]

    def answered(self, call: Call) -> None:
        """The emulator tells when an answer has left."""
        if not call.is_poll:
            self._answered_at[call.n] = time.monotonic()

    def told_at(self, pid: int) -> float:
        """When the first request that names this pid came, by CLOCK_MONOTONIC. Raises StopIteration when none did."""
        calls = [call for call in self.telegram.calls if not call.is_poll]
        first = next(call for call in calls if pid in pids(str(call.params.get("text", ""))))
        return first.at.timestamp() - (time.time() - time.monotonic())

    def ever_told(self) -> set[int]:
        """The pids that stood in the chat once: a message names sixty of its kills, and counts the rest."""
        return {pid for message in self.shown() for text in message.texts for pid in pids(text)}

    async def kill(self) -> None:
        """SIGKILL, and its end; another life follows."""
        assert self._life is not None
        await self._life.kill()

    async def end(self) -> None:
        """SIGTERM, which loses nothing; a life that is killed meanwhile is followed by another, which is ended then."""
        while True:
            assert self._life is not None
            life = self._life
            with contextlib.suppress(Life.Gone):
                await life.ready()
                if self._life is life and not life.ended.done():  # else another is on its way
                    self._wanted = False
                    status = await life.stop()
                    await self._stop_keeping()
                    if status == 0:
                        return
                    assert status == -9, f"the bot ended with {status}\n{self.log()}"
                    self.died += 1
                    self.sends_at_death += self._unsettled()
                    await self.begin()
                    continue
            await asyncio.sleep(0.01)

    async def _stop_keeping(self) -> None:
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            await keeper

    async def abandon(self) -> None:
        """Whatever it does, it ends."""
        self._wanted = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._life is not None:
            await self._life.kill()

    def log(self) -> str:
        """The newest that all lives have logged."""
        return (self.folder / "bot.log").read_text(encoding="utf-8", errors="replace")[-8000:]

    # What was told

    def shown(self) -> list[Message]:
        """The bot's messages as they stand."""
        return self.telegram.shown(GROUP)

    def told(self) -> set[int]:
        """The pids that stand in the chat."""
        return {pid for message in self.shown() for pid in pids(message.text)}

    def untold(self) -> set[int]:
        """Victims that nobody was told of."""
        return set(self.machine.victims) - self.told()

    @property
    def pid(self) -> int:
        """The living bot's."""
        assert self._life is not None
        return self._life.pid

    async def listens(self, streams: int = 1) -> None:
        """Wait until the machine's journal is followed by so many streams."""
        async with asyncio.timeout(TOLD_S):
            while len(self.machine.gate.followers) < streams:  # noqa: ASYNC110 - who calls comes over a socket
                await asyncio.sleep(0.01)

    async def quiet(self, for_s: float) -> None:
        """Wait until nothing was called for so long."""
        seen: tuple[int, ...] = ()
        since = time.monotonic()
        while time.monotonic() - since < for_s:
            now = (sum(not call.is_poll for call in self.telegram.calls), len(self.machine.gate.calls))
            if now != seen:
                seen, since = now, time.monotonic()
            await asyncio.sleep(for_s / 20)

    async def all_told(self, within_s: float = TOLD_S) -> None:
        """Wait until every victim is told; the keeper's failure is the test's."""
        waiting = asyncio.create_task(self.telegram.wait_for(lambda: not self.untold(), within_s))
        try:
            await asyncio.wait([waiting, *([self._keeper] if self._keeper else [])], return_when=asyncio.FIRST_COMPLETED)
            if self._keeper is not None and self._keeper.done():
                self._keeper.result()
            await waiting
        except TimeoutError:
            raise AssertionError(f"not told within {within_s} s: {sorted(self.untold())}\n{self.describe()}") from None
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    @property
    def lost(self) -> list[Call]:
        """Sends that were shown while the bot cannot know it."""
        spoilt = [call for call in self.telegram.calls_of("sendMessage") if call.taken and call.outcome in LOSING]
        return [*spoilt, *(call for call in self.sends_at_death if call not in spoilt)]

    def judge(self) -> None:
        """Every victim of the journal told, in one message, or in one more for each answer that was lost, which says so."""
        history = self.machine.journal.history.read_bytes().splitlines()
        truth = victims(history)
        assert sorted(truth) == sorted(self.machine.victims)
        assert not self.untold(), f"never told: {sorted(self.untold())}\n{self.describe()}"
        extras = self.again()
        for message in extras:
            assert any(AGAIN in text for text in message.texts), f"told again without a word\n{self.describe()}"
        assert len(extras) <= len(self.lost), f"{len(extras)} more than once, {len(self.lost)} answers lost\n{self.describe()}"

    def again(self) -> list[Message]:
        """Messages that tell of a victim that an older one tells of too."""
        found, before = [], set[int]()
        for message in self.shown():
            mine = pids(message.text) & set(self.machine.victims)
            found += [message] if mine & before else []
            before |= mine
        return found

    def recover(self) -> None:
        """No fault waits any more."""
        self.telegram.faults.clear()
        self.machine.gate.open()
        self.proxy.cut_after_chunks = self.proxy.cut_after_chunks_up = None
        self.clock.die_at_commit(0, after=False)

    def describe(self) -> str:
        """What was shown, what may have been lost, what was called, and the log."""
        lines = [f"#{m.id} {sorted(pids(m.text))} {' => '.join(text.replace(chr(10), ' | ')[:400] for text in m.texts)}"
                 for m in self.shown()]  # fmt: skip
        lost = [f"{call.n} {call.method} {call.outcome}" for call in self.lost]
        calls = [f"{call.n} {call.method} {call.outcome}" for call in self.telegram.calls if not call.is_poll][-30:]
        asked = [f"{call.ordinal} {' '.join(call.words)[-330:]}" for call in self.machine.gate.calls][-30:]
        parts = {"shown": lines, "lost": lost, "calls": calls, "asked of the machine": asked, "log": [self.log()]}
        return "\n".join(f"--- {name}\n" + "\n".join(part) for name, part in parts.items())


@lru_cache(maxsize=4096)
def pids(text: str) -> frozenset[int]:
    """All that may be a pid of a victim."""
    return frozenset(int(found) for found in re.findall(r"\b5\d{5}\b", text))


@contextlib.asynccontextmanager
async def world(
    folder: Path, nursery: Nursery, template: Path, chance: random.Random, *, every_s: int = 1, direct: bool = False
) -> AsyncIterator[World]:
    """A world until the block ends; its clock stands where the lab recorded and goes on. Memory is sampled every so often.

    `direct` leaves the proxy out of the link to the machine.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a test's own folder
    clock = Control(folder / "control")
    clock.set_now(BEGIN)
    new_store(template, folder)
    async with (
        TelegramEmulator() as telegram,
        machine(folder / "machine", clock, chance) as prod,
        proxied(prod.target.port) as proxy,
    ):
        telegram.add_group(GROUP)
        text = SETTINGS.format(
            folder=folder, token=telegram.token, base_url=telegram.base_url, chat=GROUP, port=prod.target.port if direct else proxy.port,
            key=prod.target.key, host_key=prod.target.host_key, every_s=every_s,
        )  # fmt: skip
        (folder / "memwarden.toml").write_text(text, encoding="utf-8")
        one = World(telegram, prod, proxy, clock, folder, nursery)
        telegram.answered = one.answered
        try:
            yield one
        finally:
            await one.abandon()


async def story(one: World) -> None:
    """A kill of before; one as it happens; a storm and another ten minutes later; and one while the bot is away."""
    one.machine.happen("cgroup-oom")
    one.clock.go(hours=2)
    one.machine.journal.noise(3)
    await one.begin()
    await one.all_told()
    one.machine.happen("gunicorn-oom")
    await one.all_told()
    one.clock.go(minutes=10)
    one.machine.happen("celery-oom")
    one.machine.storm(3)
    await one.all_told()
    await one.end()
    one.clock.go(minutes=10)
    one.machine.happen("cgroup-oom-swap")
    one.clock.go(minutes=1)
    await one.begin()
    await one.all_told()
    await one.end()
    one.judge()
