"""Alerts: one message an incident, one telling a kill, over restarts, in the chats that see the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from bot.alerts.kills import STORM_S, KillRule
from bot.alerts.memory import REFRESH_S, MemoryRule
from bot.alerts.routing import told_about
from bot.app import build
from bot.chat.base import Address
from bot.i18n import render
from bot.outbox import Outbox
from bot.settings import ChatSettings, HostSettings, Settings, TelegramSettings
from bot.store import Store
from bot.store.tables import cursors, incidents, kills
from bot.watch import Stream
from handlers.cards.host import Use
from handlers.reply import Line, Reply, Title
from remote.connect import Conversation, Target
from remote.errors import HostError
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.journal import Journal, parse_entry
from remote.facts.memory import Memory
from remote.findings.death import Kill
from remote.policy import GIB, MIB
from remote.text import T
from tests.bot.chats import MemoryChat, Shown
from tests.bot.waiting import until
from tests.clock import NOW, StandingClock

RECORDED = Path(__file__).parents[1] / "recorded" / "debian12" / "journal"
BOOT = "0e2e5a4e7a1c4b8e9d0e6d9c1f0a1b2c"
TELEGRAM = TelegramSettings.model_validate({"token": "1:a"})
SETTINGS = Settings(hosts={"prod": HostSettings(address="203.0.113.7"), "web": HostSettings(address="203.0.113.8")})


def memory(used_percent: float) -> Memory:
    total = 2 * GIB
    return Memory(total, int(total * (1 - used_percent / 100)), 2 * GIB, 2 * GIB, None, 0, 1000.0)


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
        self.clock.go(after_s)
        before = len(self.chat.calls)
        await self.rule.sample(host, memory(percent))
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
    assert await watcher.see(97) == ["edit"]
    assert title(watcher.chat.shown[0]) == "prod: memory is critical, 97% used, 61 MiB free"
    assert await watcher.see(86, after_s=1) == []  # not over before it is below 85
    assert await watcher.see(84) == ["edit"]
    assert title(watcher.chat.shown[0]) == "prod: memory is fine again, 84% used, 328 MiB free"
    assert not is_loud(watcher.chat)
    assert len(watcher.chat.shown) == 1


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


def kill(pid: int | None = 100, after_s: float = 0, **more: Any) -> Kill:  # noqa: ANN401
    values: dict[str, Any] = {
        "pid": pid, "name": "gunicorn", "unit": "site.service", "at": NOW + timedelta(seconds=after_s), "boot_id": BOOT,
        "monotonic_us": 10**9 + int(after_s * 1e6), "signal": 9, "cause": "unknown", "confidence": "guess", "limit_bytes": None,
        "rss_bytes": None, "evidence": (f"line {pid} {after_s}",), "advice": T("Nothing to do."),
    }  # fmt: skip
    return Kill(**{**values, **more})


@dataclass
class Coroner:
    """A kill rule with its chat."""

    rule: KillRule
    store: Store
    chat: MemoryChat
    outbox: Outbox
    clock: StandingClock
    told: list[str] = field(default_factory=list)

    async def keep(self, *found: Kill, host: str = "prod", batch: str = "") -> None:
        await self.rule.keep(host, found, f"cursor {len(self.told)}", BOOT, batch=batch)
        self.told.append(host)
        await self.outbox.drained()

    async def rows(self) -> list[Any]:
        async with self.store.connect() as tx:
            return list((await tx.execute(select(kills).order_by(kills.c.id))).all())

    def titles(self) -> list[str]:
        return [title(one) for one in self.chat.shown]


@pytest_asyncio.fixture
async def coroner(store: Store, clock: StandingClock) -> AsyncIterator[Coroner]:
    async with watching(store, clock, SETTINGS) as one:
        yield Coroner(KillRule(SETTINGS, store, one.outbox, clock), store, one.chat, one.outbox, clock)


async def test_a_kill_is_told_once_with_its_pid(coroner: Coroner) -> None:
    await coroner.keep(kill(689792))
    await coroner.keep(kill(689792))

    assert coroner.titles() == ["prod: gunicorn of site.service was killed"]
    assert len(coroner.chat.calls) == 1
    assert any(
        "689792" in render(block.text, "en", NOW) for block in coroner.chat.shown[0].reply.blocks if isinstance(block, Line)
    )
    assert coroner.chat.shown[0].reply.loud


async def test_two_sights_of_a_kill_are_one_row_with_the_surer_verdict(coroner: Coroner) -> None:
    await coroner.keep(kill(100, evidence=("Worker was sent SIGKILL! Perhaps out of memory?",)))
    kernel = kill(
        100, -1, cause="cgroup-limit", confidence="certain", limit_bytes=512 * MIB, rss_bytes=300 * MIB, evidence=("oom-kill:",)
    )
    await coroner.keep(kernel)

    (row,) = await coroner.rows()
    assert (row.data["cause"], row.data["limit_bytes"]) == ("cgroup-limit", 512 * MIB)
    assert row.data["evidence"] == ["Worker was sent SIGKILL! Perhaps out of memory?", "oom-kill:"]
    assert [call.split()[0] for call in coroner.chat.calls] == ["send", "edit"]


async def test_a_weaker_sight_that_comes_later_does_not_take_the_verdict_back(coroner: Coroner) -> None:
    await coroner.keep(kill(100, cause="cgroup-limit", confidence="certain", limit_bytes=512 * MIB))
    await coroner.keep(kill(100, 1))

    (row,) = await coroner.rows()
    assert (row.data["cause"], row.data["limit_bytes"]) == ("cgroup-limit", 512 * MIB)


@pytest.mark.parametrize("first", ["counter", "line"])
async def test_what_only_a_counter_knew_is_absorbed_by_the_line_that_names_a_pid(first: str, coroner: Coroner) -> None:
    sights = [kill(None, name="", final=False), kill(100, 2, cause="cgroup-limit", confidence="certain")]
    for sight in sights if first == "counter" else sights[::-1]:
        await coroner.keep(sight)

    (row,) = await coroner.rows()
    assert (row.pid, row.data["pid"], row.data["cause"]) == (100, 100, "cgroup-limit")
    assert coroner.titles() == ["prod: gunicorn of site.service was killed"]


async def test_a_group_that_was_killed_is_told_once_though_it_is_read_twice(coroner: Coroner) -> None:
    for _ in range(2):
        await coroner.keep(kill(None, cause="systemd-oomd", confidence="certain", name="site.service", signal=9))

    assert len(await coroner.rows()) == 1
    assert len(coroner.chat.calls) == 1


async def test_the_same_pid_later_or_after_a_boot_or_elsewhere_is_another_kill(coroner: Coroner) -> None:
    await coroner.keep(kill(100))
    await coroner.keep(kill(100, 7200))
    await coroner.keep(kill(100, boot_id="f" * 32))
    await coroner.keep(kill(100), host="web")

    assert len(await coroner.rows()) == 4


async def test_a_storm_shares_a_message_that_names_each_pid(coroner: Coroner) -> None:
    for n in range(5):
        await coroner.keep(kill(100 + n, n * STORM_S / 2))
    await coroner.keep(kill(200, 2 * STORM_S + STORM_S + 1))
    await coroner.keep(kill(300), host="web")

    assert coroner.titles() == [
        "prod: 5 gunicorn of site.service were killed",
        "prod: gunicorn of site.service was killed",
        "web: gunicorn of site.service was killed",
    ]
    text = " ".join(render(block.text, "en", NOW) for block in coroner.chat.shown[0].reply.blocks if isinstance(block, Line))
    assert all(str(100 + n) in text for n in range(5))


async def test_a_storm_that_lasts_is_told_anew_now_and_then(coroner: Coroner) -> None:
    for n in range(int(4 * 3600 / STORM_S) + 2):
        await coroner.keep(kill(100 + n, n * STORM_S))

    assert coroner.titles() == [
        "prod: 120 gunicorn of site.service were killed",
        "prod: 2 gunicorn of site.service were killed",
    ]


async def test_what_was_missed_is_one_message(coroner: Coroner) -> None:
    await coroner.keep(*(kill(n, n * 3600) for n in range(-10, -2)), batch="first:prod")

    assert coroner.titles() == ["prod: 8 gunicorn of site.service were killed"]
    assert len(coroner.chat.calls) == 1


async def test_nothing_found_only_moves_the_cursor(coroner: Coroner) -> None:
    assert await coroner.rule.cursor("prod") is None
    await coroner.keep()
    await coroner.keep()

    assert await coroner.rule.cursor("prod") == "cursor 1"
    assert coroner.chat.calls == []
    async with coroner.store.connect() as tx:
        assert len((await tx.execute(select(cursors))).all()) == 1


async def test_a_kill_without_a_place_to_tell_it_is_kept(store: Store, clock: StandingClock) -> None:
    quiet = Settings(telegram=TELEGRAM, hosts=SETTINGS.hosts, chats={"quiet": CHATS["quiet"]})
    async with watching(store, clock, quiet) as one:
        coroner = Coroner(KillRule(quiet, store, one.outbox, clock), store, one.chat, one.outbox, clock)
        await coroner.keep(kill(100))

        assert len(await coroner.rows()) == 1
        assert coroner.chat.calls == []


def recorded(name: str) -> list[bytes]:
    return (RECORDED / f"{name}.jsonl").read_bytes().splitlines()


@dataclass
class JournalHost:
    """A host whose journal was recorded: `past` is there at the first sight, `coming` is streamed, a list a connection."""

    past: Sequence[bytes] = ()
    coming: list[Sequence[bytes]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    target: Target = field(default_factory=lambda: Target("prod", "203.0.113.7"))
    read: int = 0
    host_key: str = "SHA256:test"

    async def ask(self, *facts: Fact[Any]) -> Answers:
        entries = tuple(entry for entry in map(parse_entry, self.past) if entry is not None)
        journal = Journal(entries, last_cursor=entries[-1].cursor if entries else "s=0;i=1")
        values = {fact: journal if fact.name == "kills" else Unreadable("unsupported", T("not here")) for fact in facts}
        return Answers(values)

    async def sample(self, *facts: Fact[Any]) -> Answers:
        return await self.ask(*facts)

    @asynccontextmanager
    async def stream(self, script: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.scripts.append(script)
        if not self.coming:
            raise HostError("unreachable", T("It does not answer."))

        async def lines() -> AsyncIterator[bytes]:
            for line in self.coming.pop(0):
                yield line
            self.read += 1

        yield lines()

    @asynccontextmanager
    async def converse(self) -> AsyncIterator[Conversation]:
        if self.read >= 0:
            raise HostError("refused", T("Nothing to change here."))
        yield  # type: ignore[misc]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Followed:
    """What came of following a host's journal."""

    calls: list[str]
    titles: list[str]
    pids: list[int | None]
    causes: set[str]
    cursor: str
    scripts: list[str]


async def follow(store_url: str, host: JournalHost, clock: StandingClock) -> Followed:
    """One life of the process: it follows the journal until there is no more of it."""
    chat = MemoryChat()
    settings = Settings(store=store_url, hosts={"prod": HostSettings(address="203.0.113.7")})
    async with build(settings, {"console": chat}, clock) as app:
        app.fleet._open["prod"] = host
        rule = KillRule(settings, app.store, app.outbox, clock)
        work = [asyncio.create_task(app.outbox.run()), asyncio.create_task(Stream("prod", app, rule).follow())]
        streams = len(host.coming)
        await until(lambda: host.read == streams, 20)
        cursor = await rule.cursor("prod") or ""
        await app.outbox.drained()
        async with app.store.connect() as tx:
            rows = (await tx.execute(select(kills).order_by(kills.c.at, kills.c.id))).all()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    return Followed(
        chat.calls,
        [title(one) for one in chat.shown],
        [row.pid for row in rows],
        {row.data["cause"] for row in rows},
        cursor,
        host.scripts,
    )


@pytest.fixture
def then() -> StandingClock:
    """A moment before everything that was recorded."""
    entries = [parse_entry(line) for path in RECORDED.glob("*.jsonl") for line in path.read_bytes().splitlines()[:1]]
    return StandingClock(min(entry.at for entry in entries if entry is not None) - timedelta(seconds=5))


NAMES = sorted(path.stem for path in RECORDED.glob("*.jsonl"))


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_journal_tells_the_same_whether_it_is_watched_or_was_missed(
    name: str, migrated: Path, tmp_path: Path, then: StandingClock
) -> None:
    watched = await follow(copy(migrated, tmp_path / "watched.db"), JournalHost(coming=[recorded(name)]), then)
    missed = await follow(copy(migrated, tmp_path / "missed.db"), JournalHost(past=recorded(name), coming=[[]]), then)

    assert sorted(watched.pids, key=str) == sorted(missed.pids, key=str)
    assert watched.causes == missed.causes
    assert bool(watched.titles) == bool(watched.pids)
    assert len(missed.titles) == (1 if missed.pids else 0)


@pytest.mark.parametrize("name", ["gunicorn-oom", "celery-oom", "global-oom"])
async def test_a_journal_that_is_read_again_after_a_restart_tells_nothing_again(
    name: str, store_url: str, then: StandingClock
) -> None:
    lines = recorded(name)
    first = await follow(store_url, JournalHost(coming=[lines]), then)
    again = await follow(store_url, JournalHost(coming=[lines[-5:]]), then)

    assert first.pids
    assert again.pids == first.pids
    assert again.titles == []
    assert f"--cursor={first.cursor}" in again.scripts[0] or f"cursor='{first.cursor}'" in again.scripts[0]


@pytest.mark.parametrize("at", range(0, 61, 6))
async def test_wherever_the_link_is_cut_each_kill_is_told_once(
    at: int, migrated: Path, tmp_path: Path, then: StandingClock
) -> None:
    lines = recorded("gunicorn-oom")
    whole = await follow(copy(migrated, tmp_path / "whole.db"), JournalHost(coming=[lines]), then)
    host = JournalHost(coming=[lines[:at], lines[max(0, at - 1) :]])
    cut = await follow(copy(migrated, tmp_path / "cut.db"), host, then)

    assert cut.pids == whole.pids
    assert len(cut.titles) == len(whole.titles)


def copy(source: Path, target: Path) -> str:
    import shutil

    shutil.copy(source, target)
    return f"sqlite:///{target}"


def test_the_table_of_samples_is_of_one_host() -> None:
    assert replace(memory(50), oom_kills=1).used_percent == pytest.approx(50)
