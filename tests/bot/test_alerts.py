"""Alerts: one message an incident, one telling a kill, over restarts, in the chats that see the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import select

from bot.alerts.memory import REFRESH_S, MemoryRule
from bot.alerts.routing import told_about
from bot.chat.base import Address
from bot.i18n import render
from bot.outbox import Outbox
from bot.settings import ChatSettings, HostSettings, Settings, TelegramSettings
from bot.store import Store
from bot.store.tables import incidents
from handlers.cards.host import Use
from handlers.reply import Line, Reply, Title
from remote.facts.memory import Memory
from remote.policy import GIB, MIB
from tests.bot.chats import MemoryChat, Shown
from tests.clock import NOW, StandingClock

RECORDED = Path(__file__).parents[1] / "recorded" / "debian12" / "journal"
BOOT = "0e2e5a4e7a1c4b8e9d0e6d9c1f0a1b2c"
TELEGRAM = TelegramSettings.model_validate({"token": "1:a"})
SETTINGS = Settings(hosts={"prod": HostSettings(address="203.0.113.7"), "web": HostSettings(address="203.0.113.8")})


def memory(used_percent: float) -> Memory:
    return available(2 * GIB * (1 - used_percent / 100))


def available(left_bytes: float, total_bytes: int = 2 * GIB) -> Memory:
    return Memory(total_bytes, int(left_bytes), 2 * GIB, 2 * GIB, None, 0, 1000.0)


@dataclass
class Watcher:
    """A memory rule with its chat; `restart` gives it another life on the same store."""

    store: Store
    clock: StandingClock
    settings: Settings
    chat: MemoryChat
    outbox: Outbox
    rule: MemoryRule
    slow: asyncio.Event | None = None

    async def see(self, percent: float, *, after_s: float = 15, host: str = "prod") -> list[str]:
        """A sample some seconds later; gives what the chat was told by it."""
        return await self.sample(memory(percent), after_s=after_s, host=host)

    async def sample(self, one: Memory, *, after_s: float = 15, host: str = "prod") -> list[str]:
        """As `see`."""
        self.clock.go(after_s)
        before = len(self.chat.calls)
        await self.rule.sample(host, one)
        await self.outbox.drained()
        return [call.split()[0] for call in self.chat.calls[before:]]

    async def restart(self) -> None:
        self.rule = MemoryRule(self.settings, self.store, self.outbox, self.clock, nobody)
        await self.rule.load()


async def nobody(host: str) -> tuple[Use, ...]:
    return ()


@pytest_asyncio.fixture
async def watcher(store: Store, clock: StandingClock) -> AsyncIterator[Watcher]:
    async with watching(store, clock, SETTINGS) as one:
        yield one


@asynccontextmanager
async def watching(store: Store, clock: StandingClock, settings: Settings) -> AsyncIterator[Watcher]:
    chat = MemoryChat()
    outbox = Outbox(store, {"console": chat, "telegram": chat}, clock)
    work = asyncio.create_task(outbox.run())
    yield Watcher(store, clock, settings, chat, outbox, MemoryRule(settings, store, outbox, clock, nobody))
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def title(one: Shown) -> str:
    return headline(one.reply)


def is_loud(chat: MemoryChat) -> bool:
    return chat.shown[0].reply.loud


def headline(reply: Reply) -> str:
    first = reply.blocks[0]
    assert isinstance(first, Title | Line)
    return render(first.text, "en", NOW)


# Samples every 15 s, and the number of the one at which a chat is told (from 0); no number: it is never told.
TABLE: tuple[tuple[str, list[float], int | None], ...] = (
    ("below", [89.9] * 20, None),
    ("a minute above", [91] * 5, 4),
    ("not yet a minute", [91] * 4, None),
    ("a dip starts the minute again", [91, 91, 91, 89, 91, 91, 91, 91], None),
    ("a dip starts the minute again, then it is over", [91, 91, 89, 91, 91, 91, 91, 91], 7),
    ("exactly at the threshold", [90] * 5, 4),
    ("critical at once", [50, 96], 1),
    ("critical by what is available", [50, 95.2], 1),
    ("critical in the middle of the hold", [91, 91, 97], 2),
)


@pytest.mark.parametrize(("samples", "told_at"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
async def test_when_a_chat_is_told(samples: list[float], told_at: int | None, watcher: Watcher) -> None:
    told = [await watcher.see(percent) for percent in samples]

    assert [n for n, calls in enumerate(told) if calls] == ([] if told_at is None else [told_at])


async def test_one_message_through_an_incident_s_life(watcher: Watcher) -> None:
    for _ in range(5):
        await watcher.see(91)
    assert [title(one) for one in watcher.chat.shown] == ["prod: memory is high, 91% used, 184 MiB free"]
    assert is_loud(watcher.chat)

    assert await watcher.see(93) == []  # what merely moves does not cost an edit each time …
    assert await watcher.see(94, after_s=REFRESH_S) == ["edit"]  # … but now and then
    assert await watcher.see(86, after_s=1) == []  # not over before it is below 85
    assert await watcher.see(84) == ["edit"]
    assert title(watcher.chat.shown[0]) == "prod: memory is fine again, 84% used, 328 MiB free"
    assert not is_loud(watcher.chat)
    assert len(watcher.chat.shown) == 1


async def test_that_it_becomes_critical_is_heard_and_that_it_is_high_again_is_not(watcher: Watcher) -> None:
    for _ in range(5):
        await watcher.see(91)

    assert await watcher.see(97) == ["send"], "an edit makes no sound"
    assert title(watcher.chat.shown[-1]) == "prod: memory is critical, 97% used, 61 MiB free"
    assert watcher.chat.shown[-1].reply.loud
    assert await watcher.see(91, after_s=REFRESH_S) == ["edit"]
    assert await watcher.see(97, after_s=REFRESH_S) == ["edit"], "it was critical before"
    assert await watcher.see(84) == ["edit"]
    assert title(watcher.chat.shown[-1]) == "prod: memory is fine again, 84% used, 328 MiB free"
    assert len(watcher.chat.shown) == 2


async def test_what_got_worse_is_said_again_so_long_after_that(watcher: Watcher) -> None:
    for _ in range(5):
        await watcher.see(91)

    assert await watcher.see(97, after_s=4 * 3600 - 60) == ["send"]
    assert await watcher.see(97, after_s=60) == ["edit"]
    assert await watcher.see(97, after_s=4 * 3600 - 61) == ["edit"]
    assert await watcher.see(97, after_s=1) == ["send"]


async def test_a_small_server_with_a_fifth_of_its_memory_is_fine(watcher: Watcher) -> None:
    for left_mib in (102, 99, 102, 99, 73):
        assert await watcher.sample(available(left_mib * MIB, 480 * MIB)) == []

    assert await watcher.sample(available(48 * MIB, 480 * MIB)) == ["send"]


async def test_a_server_smaller_than_what_shall_be_available_recovers_too(watcher: Watcher) -> None:
    assert await watcher.sample(available(5 * MIB, 96 * MIB)) == ["send"]
    assert await watcher.sample(available(50 * MIB, 96 * MIB)) == ["edit"]

    assert [title(one) for one in watcher.chat.shown] == ["prod: memory is fine again, 48% used, 50 MiB free"]


async def test_what_sways_around_the_limit_of_what_is_available_is_one_incident(store: Store, clock: StandingClock) -> None:
    narrow = {"memory_percent": 95, "clear_percent": 94, "critical_available": "200M"}
    async with watching(store, clock, Settings(hosts={"prod": HostSettings(address="x", alerts=narrow)})) as watcher:
        told = [await watcher.sample(available(left_mib * MIB)) for left_mib in (199, 201, 199, 250)]

        assert told == [["send"], [], [], []]
        assert await watcher.sample(available(251 * MIB)) == ["edit"]
        assert [title(one).split(",")[0] for one in watcher.chat.shown] == ["prod: memory is fine again"]


async def test_an_incident_of_a_host_that_is_no_longer_known_ends(watcher: Watcher) -> None:
    await watcher.see(97)
    await watcher.see(97, host="web")
    watcher.settings = Settings(hosts={"web": SETTINGS.hosts["web"]})
    for _ in range(2):
        await watcher.restart()
        await watcher.outbox.drained()

    assert [title(one) for one in watcher.chat.shown] == [
        "prod is not watched any more",
        "web: memory is critical, 97% used, 61 MiB free",
    ]
    assert [one.reply.loud for one in watcher.chat.shown] == [False, True]
    assert [call.split()[0] for call in watcher.chat.calls] == ["send", "send", "edit"]
    async with watcher.store.connect() as tx:
        rows = (await tx.execute(select(incidents).where(incidents.c.closed_at.is_(None)))).all()
    assert [row.host for row in rows] == ["web"]
    watcher.settings = SETTINGS
    await watcher.restart()
    assert await watcher.see(97) == ["send"], "known again, it is watched as before"


async def test_the_worst_is_remembered(watcher: Watcher) -> None:
    for percent in (97, 98.5, 97, 80):
        await watcher.see(percent)

    lines = [render(block.text, "en") for block in watcher.chat.shown[0].reply.blocks if isinstance(block, Line)]
    assert "Worst: 98.5%" in lines


async def test_after_its_end_the_next_one_is_a_new_message(watcher: Watcher) -> None:
    for percent in (97, 80, 97):
        await watcher.see(percent)

    assert [title(one).split(",")[0] for one in watcher.chat.shown] == ["prod: memory is fine again", "prod: memory is critical"]


async def test_what_lasts_is_said_again_now_and_then(watcher: Watcher) -> None:
    await watcher.see(97)
    assert await watcher.see(97, after_s=4 * 3600 - 1) == ["edit"]
    assert await watcher.see(97, after_s=1) == ["send"]
    assert await watcher.see(97, after_s=15) == []
    assert await watcher.see(80) == ["edit"]
    assert title(watcher.chat.shown[-1]) == "prod: memory is fine again, 80% used, 410 MiB free"


@pytest.mark.parametrize("at", range(1, 13))
async def test_a_restart_forgets_nothing_and_repeats_nothing(at: int, watcher: Watcher) -> None:
    samples = [97, 97, 92, 91, 92, 91, 93, 86, 86, 84, 50, 50]
    for n, percent in enumerate(samples):
        if n == at:
            await watcher.restart()
        await watcher.see(percent)

    assert [title(one) for one in watcher.chat.shown] == ["prod: memory is fine again, 84% used, 328 MiB free"]
    assert [call for call in watcher.chat.calls if call.startswith("send")] == [watcher.chat.calls[0]]
    async with watcher.store.connect() as tx:
        rows = (await tx.execute(select(incidents))).all()
    assert [(row.key, row.level, row.closed_at is not None) for row in rows] == [("memory:prod", "critical", True)]


async def test_hosts_are_judged_apart_and_by_their_own_rules(store: Store, clock: StandingClock) -> None:
    hosts = {
        "prod": HostSettings(address="x", alerts={"memory_percent": 70, "clear_percent": 60, "hold": "1s"}),
        "web": HostSettings(address="y"),
    }
    async with watching(store, clock, Settings(hosts=hosts)) as watcher:
        for _ in range(3):
            for host in hosts:
                await watcher.see(75, host=host)

        assert [title(one).split(",")[0] for one in watcher.chat.shown] == ["prod: memory is high"]


CHATS = {
    "ops": ChatSettings(telegram="-1", hosts=("prod",)),
    "all": ChatSettings(telegram="-2", topic="7", language="ru"),
    "quiet": ChatSettings(telegram="-3", alerts=False),
}


def test_routing() -> None:
    settings = Settings(telegram=TELEGRAM, hosts=SETTINGS.hosts, chats=CHATS)

    everywhere = Address("telegram", "-2", "7", "ru")
    assert told_about(settings, "prod") == (Address("telegram", "-1", "", "en"), everywhere)
    assert told_about(settings, "web") == (everywhere,)
    assert told_about(SETTINGS, "prod") == (Address("console", "console", language="en"),)
    nobody_told = Settings(telegram=TELEGRAM, hosts=SETTINGS.hosts, chats={"quiet": CHATS["quiet"]})
    assert told_about(nobody_told, "prod") == ()


async def test_each_chat_has_its_message(store: Store, clock: StandingClock) -> None:
    async with watching(store, clock, Settings(telegram=TELEGRAM, hosts=SETTINGS.hosts, chats=CHATS)) as watcher:
        await watcher.see(97)
        await watcher.see(80)

        assert sorted((one.to.chat, one.to.thread, one.to.language) for one in watcher.chat.shown) == [
            ("-1", "", "en"),
            ("-2", "7", "ru"),
        ]
        assert all(title(one).startswith("prod: memory is fine again") for one in watcher.chat.shown)


def test_the_table_of_samples_is_of_one_host() -> None:
    assert replace(memory(50), oom_kills=1).used_percent == pytest.approx(50)
