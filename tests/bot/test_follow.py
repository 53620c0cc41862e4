"""Following a host's journal: two streams, claims that wait for the host's own word, cuts, restarts and floods."""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from bot.alerts.kills import KillRule, Mark, Sighted
from bot.alerts.tally import GRACE
from bot.app import build
from bot.follow import Follower, stream, voices
from bot.follow.ledger import Ledger
from bot.follow.stream import MOST_LINES, ProgramsStream, SystemStream
from bot.follow.voices import Patience, Voices
from bot.follow.watched import Since
from bot.i18n import render
from bot.settings import HostSettings, Settings
from bot.store.tables import journals, kills, staged, tallies
from handlers.reply import Line, Title
from remote.connect import Conversation, Target
from remote.errors import HostError
from remote.facts._journal_place import text_cursor
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.counters import Counters
from remote.facts.journal import Entry, Journal, parse_entry
from remote.facts.memory import Memory
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.facts.witness import Living, Main, Witness
from remote.findings.kill import Kill
from remote.policy import GIB
from remote.text import T
from tests.bot.chats import MemoryChat
from tests.bot.waiting import until
from tests.clock import NOW, StandingClock
from tests.remote.findings.journal_scene import first_writers, systemd
from tests.remote.findings.scene import process, unit

RECORDED = Path(__file__).parents[1] / "recorded" / "debian12" / "journal"
SYSTEM, PROGRAMS = SystemStream.name, ProgramsStream.name
NAMES = sorted(path.stem for path in RECORDED.glob("*.jsonl"))


def recorded(name: str) -> list[bytes]:
    return (RECORDED / f"{name}.jsonl").read_bytes().splitlines()


def entries(lines: Sequence[bytes]) -> list[Entry]:
    return [entry for line in lines if (entry := parse_entry(line)) is not None]


def services(lines: Sequence[bytes]) -> Units:
    """The services that wrote, each with the main process of its last invocation."""
    writers = first_writers(entries(lines))
    last = {entry.system_unit: entry.invocation for entry in entries(lines) if entry.invocation in writers}
    programs = {"teaching_panel.service": "gunicorn app.wsgi", "celery.service": "celery -A app worker"}
    return Units(
        tuple(
            unit(name, program, main_pid=writers[last[name]], invocation_id=last[name])
            for name, program in programs.items()
            if name in last
        )
    )


@dataclass
class JournalHost:
    """A host whose journal was recorded: `past` is there at the first sight, `coming` is streamed, a list a connection (to each of
    the two streams its own lines)."""

    past: Sequence[bytes] = ()
    coming: list[Sequence[bytes]] = field(default_factory=list)
    units: Units = field(default_factory=lambda: Units(()))
    living: dict[int, Living] = field(default_factory=dict)
    counters: Counters | None = None
    deaf: bool = False
    """Whether questions about claims go unanswered."""
    uptime_s: float = 1e6
    oom_kills: int | None = None
    """The kernel's own count, as a witness tells it."""
    boot_id: str = ""
    target: Target = field(default_factory=lambda: Target("prod", "203.0.113.7"))
    host_key: str = "SHA256:test"
    scripts: list[str] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=lambda: {SYSTEM: 0, PROGRAMS: 0})
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, *facts: Fact[Any]) -> Answers:
        return Answers({fact: self._answer(fact) for fact in facts})

    def _answer(self, fact: Fact[Any]) -> Any:  # noqa: ANN401 - the fact's own type
        match fact.name:
            case "kills":
                found = entries(self.past)
                last = found[-1].cursor if found else "s=0;i=1"
                return Journal(tuple(found), last_cursor=last, first_writers=first_writers(found))
            case "units":
                return self.units
            case "processes":
                return Processes((), self.boot_id)
            case "witness" if not self.deaf:
                mains = {one.id: Main(one.id, one.invocation_id, one.main_pid, "") for one in self.units.all}
                return Witness(self.boot_id, self.uptime_s, mains, self.living, self.oom_kills, {})
            case "counters" if self.counters is not None:
                return self.counters
        return Unreadable("unsupported", T("not here"))

    async def sample(self, *facts: Fact[Any]) -> Answers:
        return await self.ask(*facts)

    @asynccontextmanager
    async def stream(self, script: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.scripts.append(script)
        name = SYSTEM if "_TRANSPORT=kernel" in script else PROGRAMS
        n = self.read[name]
        if n >= len(self.coming):
            raise HostError("unreachable", T("It does not answer."))

        async def lines() -> AsyncIterator[bytes]:
            for line in self.coming[n]:
                if (self._stream_of(line) == name) or self._stream_of(line) == "":
                    yield line
            self.read[name] += 1
            if n + 1 == len(self.coming):
                await self.gate.wait()

        yield lines()

    def _stream_of(self, line: bytes) -> str:
        """What the target's matches let through to which stream."""
        entry = parse_entry(line)
        if entry is None:
            return ""
        main = entry.pid == self._writers.get(entry.invocation) or (entry.system_unit, entry.pid) in self._mains()
        return PROGRAMS if main else SYSTEM

    def _mains(self) -> set[tuple[str, int]]:
        return {(one.id, one.main_pid) for one in self.units.all}

    @functools.cached_property
    def _writers(self) -> dict[str, int]:
        return first_writers(entries(self.lines()))

    def lines(self) -> list[bytes]:
        """All that will ever be streamed."""
        return [line for life in self.coming for line in life]

    @asynccontextmanager
    async def converse(self) -> AsyncIterator[Conversation]:
        if self.host_key:
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
    marks: dict[str, Mark]
    scripts: list[str]
    staged: int


@dataclass
class Life:
    """One life of the process, on a store."""

    follower: Follower
    rule: KillRule
    chat: MemoryChat
    app: Any

    async def rows(self) -> list[Any]:
        async with self.app.store.connect() as tx:
            return list((await tx.execute(select(kills).order_by(kills.c.at, kills.c.id))).all())

    def titles(self) -> list[str]:
        firsts = [one.reply.blocks[0] for one in self.chat.shown]
        return [render(first.text, "en", NOW) for first in firsts if isinstance(first, Title | Line)]

    async def mark(self, stream: str) -> Mark | None:
        return await self.rule.mark("prod", stream)


@asynccontextmanager
async def living(store_url: str, host: JournalHost, clock: StandingClock) -> AsyncIterator[Life]:
    """A process that follows one host."""
    chat = MemoryChat()
    settings = Settings(store=store_url, hosts={"prod": HostSettings(address="203.0.113.7")})
    async with build(settings, {"console": chat}, clock) as app:
        app.fleet._open["prod"] = host
        rule = KillRule(settings, app.store, app.outbox, clock)
        follower = Follower("prod", app, rule)
        work = [asyncio.create_task(app.outbox.run()), asyncio.create_task(follower.run())]
        yield Life(follower, rule, chat, app)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def follow(store_url: str, host: JournalHost, clock: StandingClock) -> Followed:
    """One life, until both streams have read all there is."""
    async with living(store_url, host, clock) as life:
        await until(lambda: min(host.read.values()) == len(host.coming), 30)
        await until(lambda: not life.follower.watched.autopsy.claims, 5)
        # What is read is kept before the next line is asked for; the last batch is waited for by its effect.
        await until(lambda: life.follower.system.listening and life.follower.programs.listening, 10)
        await life.app.outbox.drained()
        rows = await life.rows()
        marks = {stream: mark for stream in (SYSTEM, PROGRAMS) if (mark := await life.mark(stream)) is not None}
        async with life.app.store.connect() as tx:
            counted = (await tx.execute(select(func.coalesce(func.sum(staged.c.number), 0)))).scalar_one()
    return Followed(
        life.chat.calls, life.titles(), [row.pid for row in rows], {row.cause for row in rows}, marks, host.scripts, counted
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here comes over a wire, so that little has to be waited for."""
    monkeypatch.setattr(stream, "QUIET_S", 0.2)
    monkeypatch.setattr(stream, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(voices, "SETTLED_S", 0.2)


@pytest.fixture
def then() -> StandingClock:
    """A moment before everything that was recorded."""
    firsts = [entries(path.read_bytes().splitlines()[:1])[0] for path in RECORDED.glob("*.jsonl")]
    return StandingClock(min(entry.at for entry in firsts) - timedelta(seconds=5))


def copy(source: Path, target: Path) -> str:
    shutil.copy(source, target)
    return f"sqlite:///{target}"


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_journal_tells_the_same_whether_it_is_watched_or_was_missed(
    name: str, migrated: Path, tmp_path: Path, then: StandingClock
) -> None:
    lines = recorded(name)
    watching = JournalHost(coming=[lines], units=services(lines))
    away = JournalHost(past=lines, coming=[[]], units=services(lines))
    watched, missed = await asyncio.gather(
        follow(copy(migrated, tmp_path / "watched.db"), watching, then),
        follow(copy(migrated, tmp_path / "missed.db"), away, then),
    )

    assert sorted(watched.pids, key=str) == sorted(missed.pids, key=str)
    assert watched.causes == missed.causes
    assert watched.staged == missed.staged
    told = bool(watched.pids or watched.staged)
    assert bool(watched.titles) == told
    assert len(missed.titles) == (1 if told else 0)


@pytest.mark.parametrize("name", ["gunicorn-oom", "celery-oom", "global-oom"])
async def test_a_journal_that_is_read_again_after_a_restart_tells_nothing_again(
    name: str, store_url: str, then: StandingClock
) -> None:
    lines = recorded(name)
    first = await follow(store_url, JournalHost(coming=[lines], units=services(lines)), then)
    again = await follow(store_url, JournalHost(coming=[lines[-5:]], units=services(lines)), then)

    assert first.pids
    assert again.pids == first.pids
    assert again.titles == []
    cursor = first.marks[SYSTEM].cursor
    assert f"cursor='{cursor}'" in again.scripts[0]


@pytest.mark.parametrize("at", range(0, 61, 6))
async def test_wherever_the_link_is_cut_each_kill_is_told_once(
    at: int, migrated: Path, tmp_path: Path, then: StandingClock
) -> None:
    lines = recorded("gunicorn-oom")
    unhurt = JournalHost(coming=[lines], units=services(lines))
    hurt = JournalHost(coming=[lines[:at], lines[max(0, at - 1) :]], units=services(lines))
    whole, cut = await asyncio.gather(
        follow(copy(migrated, tmp_path / "whole.db"), unhurt, then), follow(copy(migrated, tmp_path / "cut.db"), hurt, then)
    )

    assert cut.pids == whole.pids
    assert len(cut.titles) == len(whole.titles)


HANGS = "gunicorn-timeout"  # nobody but gunicorn itself tells of this one


def victim_of(lines: Sequence[bytes]) -> int:
    (entry,) = [entry for entry in entries(lines) if "was sent SIGKILL" in entry.message]
    return int(entry.message.partition("(pid:")[2].partition(")")[0])


async def test_a_program_s_word_about_a_process_that_lives_is_no_kill(store_url: str, then: StandingClock) -> None:
    lines = recorded(HANGS)
    host = JournalHost(coming=[lines], units=services(lines), living={victim_of(lines): Living(1, "/system.slice")})
    host.boot_id = entries(lines)[0].boot_id
    told = await follow(store_url, host, then)

    assert (told.pids, told.titles) == ([], [])
    assert told.marks[PROGRAMS].cursor, "it is settled, so nobody has to read it again"


async def test_a_claim_that_nobody_bears_out_yet_holds_the_cursor_back(store_url: str, then: StandingClock) -> None:
    lines = recorded(HANGS)
    host = JournalHost(coming=[lines], units=services(lines), deaf=True, boot_id=entries(lines)[0].boot_id)
    async with living(store_url, host, then) as life:
        await until(lambda: bool(life.follower.watched.autopsy.claims) and life.follower.programs.listening, 20)
        assert await life.rows() == []
        mark = await life.mark(PROGRAMS)  # as it was saved after the claim
        before = mark.cursor if mark else ""
        seen = [entry.cursor for entry in entries(lines)]
        claimed = next(n for n, entry in enumerate(entries(lines)) if f"(pid:{victim_of(lines)})" in entry.message)
        assert before not in seen[claimed:]
    # The process died with the claim in its memory; the next one reads it again.
    host = JournalHost(coming=[lines], units=services(lines), boot_id=entries(lines)[0].boot_id)
    told = await follow(store_url, host, then)

    assert told.pids == [victim_of(lines)]
    assert told.marks[PROGRAMS].cursor != before


async def test_a_claim_is_asked_about_again_with_the_next_sample(store_url: str, then: StandingClock) -> None:
    lines = recorded(HANGS)
    host = JournalHost(coming=[lines], units=services(lines), deaf=True, boot_id=entries(lines)[0].boot_id)
    async with living(store_url, host, then) as life:
        await until(lambda: bool(life.follower.watched.autopsy.claims), 20)
        host.deaf = False
        await life.follower.sampled(sample(None))

        assert [row.pid for row in await life.rows()] == [victim_of(lines)]


@asynccontextmanager
async def away(life: Life) -> AsyncIterator[None]:
    """As long as this lasts, the store takes no kills."""
    async with life.app.store.begin() as tx:
        await tx.execute(text("ALTER TABLE kills RENAME TO away"))
    yield
    async with life.app.store.begin() as tx:
        await tx.execute(text("ALTER TABLE away RENAME TO kills"))


async def test_what_the_store_would_not_take_is_kept_once_it_takes_it(store_url: str, then: StandingClock) -> None:
    lines = recorded("sudo-kill")
    host = JournalHost(coming=[lines] * 4, units=services(lines))
    async with living(store_url, host, then) as life:
        async with away(life):
            await until(lambda: host.read[SYSTEM] == 1 and bool(life.follower.watched.autopsy.kills), 30)
            then.moment = entries(lines)[-1].at + timedelta(minutes=1)
            with pytest.raises(OperationalError):
                await life.follower.sampled(sample(None))
            await until(lambda: sum("_TRANSPORT=kernel" in script for script in host.scripts) == 3, 30)
        await until(lambda: life.follower.system.listening, 30)
        await life.follower.sampled(sample(None))

        assert {row.pid for row in await life.rows()} == {kill.pid for kill in life.follower.watched.autopsy.kills}


async def test_what_was_missed_and_then_refused_is_told_in_one_message(store_url: str, then: StandingClock) -> None:
    lines = recorded("global-oom") + recorded("cgroup-oom")
    await follow(store_url, JournalHost(coming=[[]]), then)
    then.moment = max(entry.at for entry in entries(lines)) + timedelta(hours=2)
    host = JournalHost(coming=[lines, []], units=services(lines))
    async with living(store_url, host, then) as life:
        async with away(life):
            await until(lambda: len(life.follower.watched.autopsy.kills) > 1, 30)
        await life.follower.sampled(sample(None))
        await life.app.outbox.drained()

        assert {row.told for row in await life.rows()} == {life.follower.system._gap}
        assert len(life.titles()) == 1


async def test_what_is_missed_once_more_has_a_message_of_its_own(store_url: str, then: StandingClock) -> None:
    first, second = recorded("global-oom"), recorded("cgroup-oom")
    await follow(store_url, JournalHost(coming=[[]]), then)
    for lines in (first, second):
        then.moment = max(entry.at for entry in entries(lines)) + timedelta(hours=2)
        told = await follow(store_url, JournalHost(coming=[lines], units=services(lines)), then)
        assert [call.split()[0] for call in told.calls].count("send") == 1
        assert {mark.gap for mark in told.marks.values()} == {""}, "it is caught up"


async def test_a_pid_that_cannot_be_keeps_nobody_else_unheard(store_url: str, then: StandingClock) -> None:
    lines = recorded(HANGS)
    (said,) = [line for line in lines if b"was sent SIGKILL" in line]
    victim = victim_of(lines)
    odd = altered(said, 99, MESSAGE=json.loads(said)["MESSAGE"].replace(f"pid:{victim}", "pid:99999999"))
    host = JournalHost(coming=[[odd, *lines]], units=services(lines), boot_id=entries(lines)[0].boot_id)

    assert victim in (await follow(store_url, host, then)).pids


@dataclass
class BrokenHost(JournalHost):
    """A host that cannot be asked who speaks: by a bug, not by what anybody foresaw."""

    broken: int = 3
    """How many questions break."""

    async def ask(self, *facts: Fact[Any]) -> Answers:
        if self.broken and {fact.name for fact in facts} == {"units", "processes"}:
            self.broken -= 1
            raise IndexError("list index out of range")
        return await super().ask(*facts)


async def test_whatever_breaks_a_host_is_followed_on_and_it_is_said_once(store_url: str, then: StandingClock) -> None:
    lines = recorded("gunicorn-oom")
    host = BrokenHost(coming=[lines], units=services(lines))
    with capture_logs() as logs:
        told = await follow(store_url, host, then)

    assert host.broken == 0
    assert told.pids
    (said,) = [one for one in logs if one["event"] == "it was not found out whom to listen to"]
    assert said["log_level"] == "error"
    assert said["exc_info"]


POISON = "тестовы\udcd0"  # no store takes half a character


async def test_a_kill_that_cannot_be_kept_holds_up_no_other(store_url: str, clock: StandingClock) -> None:
    async with living(store_url, JournalHost(coming=[[]]), clock) as life:
        ledger = Ledger("prod", life.rule)
        found = [replace(kill_at(-9, 990), pid=pid, name=POISON if pid == 2 else "a") for pid in (1, 2, 3)]
        with capture_logs() as logs:
            assert ledger.owe(Sighted(kill) for kill in found)
            await ledger.pay(lambda _: (Mark("more", "c"),))

        assert [row.pid for row in await life.rows()] == [1, 3]
        assert await life.mark("more") == Mark("more", "c")
        assert not ledger.owe(()), "nothing is owed any more"
        (said,) = [one for one in logs if one["log_level"] == "error"]
        assert (said["pid"], said["exc_info"]) == (2, True)


async def test_what_is_owed_beside_a_kill_that_cannot_be_kept_waits_for_a_store_that_is_broken(
    store_url: str, clock: StandingClock
) -> None:
    async with living(store_url, JournalHost(coming=[[]]), clock) as life:
        ledger = Ledger("prod", life.rule)
        ledger.owe(Sighted(replace(kill_at(-9, 990), pid=pid, name=POISON if pid == 2 else "a")) for pid in (1, 2, 3))
        async with away(life):
            with pytest.raises(OperationalError):
                await ledger.pay()
        await ledger.pay()

        assert [row.pid for row in await life.rows()] == [1, 3]


@dataclass
class OddHost(JournalHost):
    """A host whose gunicorn is called what no store takes."""

    def _answer(self, fact: Fact[Any]) -> Any:  # noqa: ANN401 - the fact's own type
        if fact.name != "processes":
            return super()._answer(fact)
        mains = (process(one.main_pid, "gunicorn app.wsgi", name=POISON, cgroup=one.control_group) for one in self.units.all)
        return Processes(tuple(mains), self.boot_id)


async def test_a_kill_of_the_past_that_cannot_be_kept_keeps_no_host_from_being_followed(
    store_url: str, then: StandingClock
) -> None:
    lines = recorded(HANGS)
    past = [*lines, *recorded("global-oom")]
    host = OddHost(past=past, coming=[[]], units=services(lines), boot_id=entries(lines)[0].boot_id)
    with capture_logs() as logs:
        told = await follow(store_url, host, then)

    assert [one["pid"] for one in logs if one["event"] == "a kill cannot be kept"] == [victim_of(lines)]
    assert told.pids
    assert told.marks[SYSTEM].cursor


@dataclass
class TextHost(JournalHost):
    """A host without a journal. The kernel counts before it prints, and that is after the stream was opened."""

    counted: int = 0

    @asynccontextmanager
    async def stream(self, script: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().stream(script) as lines:
            if "_TRANSPORT=kernel" in script:
                self.oom_kills, self.uptime_s = self.counted, self.uptime_s + 10
            yield lines

    def _stream_of(self, line: bytes) -> str:
        del line
        return SYSTEM


@pytest.mark.parametrize(("counted", "told"), [(4, [999]), (3, [])])
async def test_of_a_host_read_by_text_files_the_first_kill_is_told_if_the_kernel_counted_it(
    counted: int, told: list[int], store_url: str, then: StandingClock
) -> None:
    killed = "Out of memory: Killed process 999 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB"
    now = then.now()
    log = [
        f"= syslog {now.timestamp():.0f} 1000.00 {'b' * 32} +0000 {text_cursor(int(now.timestamp() - 60) * 10**6)}".encode(),
        f"{now:%Y-%m-%dT%H:%M:%S}+00:00 prod kernel: [  999.000000] {killed}".encode(),
    ]
    host = TextHost(coming=[log], boot_id="b" * 32, uptime_s=1000, oom_kills=3, counted=counted)
    async with living(store_url, host, then) as life:
        await until(lambda: life.follower.system.listening, 30)
        assert life.follower.watched.autopsy.claims
        await life.follower.sampled(sample(counted, 1010))

        assert [row.pid for row in await life.rows()] == told


async def test_another_main_process_is_listened_to_once_systemd_says_that_it_started(store_url: str, then: StandingClock) -> None:
    lines = recorded("celery-oom")
    host = JournalHost(coming=[lines[:1], lines], units=celery(700, "7" * 32))
    async with living(store_url, host, then) as life:
        await until(lambda: any("_PID=700" in script for script in host.scripts), 30)
        host.units = celery(800, "8" * 32)
        await until(lambda: any("_PID=800" in script for script in host.scripts), 30)
        await until(lambda: host.read[SYSTEM] == 2, 30)
        await life.app.outbox.drained()

        assert len(await life.rows()) == 1


def celery(pid: int, invocation: str) -> Units:
    return Units((unit("celery.service", "celery -A app worker", main_pid=pid, invocation_id=invocation),))


async def test_a_unit_that_was_seen_between_two_main_processes_is_listened_to_once_it_has_started() -> None:
    known = Voices("prod")
    known.learn(celery(0, ""), None)
    assert known.speakers == ()

    known.heard(systemd_says("celery.service", "Started"))
    async with asyncio.timeout(5):
        await known.until_stale()


async def test_a_crash_loop_is_asked_about_less_and_less_and_delays_nobody_else() -> None:
    known = Voices("prod")
    both = Units((*celery(700, "7").all, unit("site.service", "gunicorn app.wsgi", main_pid=800)))
    known.learn(both, None)
    async with asyncio.timeout(6):  # each of two restarts' steps is asked about at once
        for _ in range(voices.RESTARTS):
            known.heard(systemd_says("celery.service", "Scheduled restart job, restart counter is at 1."))
            await known.until_stale()
    known.heard(systemd_says("celery.service", "Scheduled restart job, restart counter is at 2."))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await known.until_stale()

    known.heard(systemd_says("site.service", "Started"))
    async with asyncio.timeout(1):
        await known.until_stale()


async def test_services_that_nobody_knew_do_not_delay_each_other_but_a_service_a_connection_does() -> None:
    known = Voices("prod")
    known.learn(Units(()), None)
    for n in range(voices.RESTARTS + 2):
        known.heard(systemd_says(f"site{n}.service", "Started"))
        async with asyncio.timeout(1):
            await known.until_stale()
    for n in range(voices.RESTARTS):
        known.heard(systemd_says(f"ssh@{n}.service", "Started"))
        await known.until_stale()
    known.heard(systemd_says("ssh@99.service", "Started"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await known.until_stale()


def systemd_says(name: str, words: str) -> Entry:
    return replace(systemd(1, f"{name}: {words}"), unit=name)


def asked_at(every_s: float, within_s: float) -> list[float]:
    """When a host is asked because of a unit that changes every so many seconds."""
    patience, asked, now_s = Patience(), [], 0.0
    while now_s < within_s:
        due_s = now_s + patience.pause_s("site.service", now_s)
        patience.asked(due_s)
        asked.append(due_s)
        now_s = (due_s // every_s + 1) * every_s
    return asked


@pytest.mark.parametrize("every_s", [0.5, 5, 59, 80, 119])
def test_whatever_the_pace_of_a_crash_loop_the_host_is_asked_about_twice_a_minute_in_the_end(every_s: float) -> None:
    times = asked_at(every_s, 3600)

    assert len(times) < 130
    assert times[voices.RESTARTS - 1] <= (voices.RESTARTS - 1) * (every_s + 0.5) + 1


def test_after_a_calm_a_restart_is_asked_about_at_once() -> None:
    patience, now_s = Patience(), 0.0
    for _ in range(9):
        now_s += patience.pause_s("site.service", now_s)
        patience.asked(now_s)
    assert patience.pause_s("site.service", now_s + voices.CALM_S - 1) == voices.HELD_BACK_S[-1]
    patience.asked(now_s)
    assert patience.pause_s("site.service", now_s + voices.CALM_S + 1) == voices.SETTLED_S


async def test_a_service_that_floods_is_not_listened_to_for_a_while(store_url: str, then: StandingClock) -> None:
    lines = recorded(HANGS)
    (said,) = [line for line in lines if b"was sent SIGKILL" in line]
    flood = [altered(said, n, MESSAGE=f"[2026-11-23 23:50:52 +0000] [1] [INFO] {n}") for n in range(MOST_LINES + 2)]
    host = JournalHost(coming=[flood, flood, flood, []], units=services(lines))  # one may still come the way it did
    async with living(store_url, host, then) as life:
        await until(lambda: bool(life.follower.watched.voices._hushed), 60)  # first its workers …
        await until(lambda: bool(life.follower.watched.voices._muted), 60)  # … then itself
        await until(lambda: not life.follower.watched.voices.speakers, 60)


def altered(line: bytes, n: int, **fields: str) -> bytes:
    raw = json.loads(line)
    raw["__CURSOR"] = raw["__CURSOR"].replace("i=", f"i={n:x}")
    return json.dumps({**raw, **fields}).encode()


def sample(oom_kills: int | None, uptime_s: float = 1000.0) -> Memory:
    return Memory(2 * GIB, GIB, 0, 0, None, oom_kills, uptime_s)


GROUP = "/system.slice/site.service"


async def test_what_the_kernel_counted_and_the_log_lost_is_told(store_url: str, clock: StandingClock) -> None:
    host = JournalHost(coming=[[]], counters=Counters("b" * 32, 5, {GROUP: 2}))
    async with living(store_url, host, clock) as life:
        await until(lambda: life.follower.system.listening, 20)
        await life.follower.sampled(sample(5))
        assert await life.rows() == [], "what was counted before we came is history"

        clock.go(15)
        host.counters = Counters("b" * 32, 7, {GROUP: 3})
        await life.follower.sampled(sample(7, 1015))
        assert await life.rows() == [], "a line may still come"
        clock.go(GRACE.total_seconds())
        await life.follower.sampled(sample(7, 1015 + GRACE.total_seconds()))
        await life.follower.sampled(sample(7, 1015 + GRACE.total_seconds()))
        await life.app.outbox.drained()

        rows = await life.rows()
        assert sorted((row.unit or "", row.data["counted"], row.kernel) for row in rows) == [
            ("", True, True),
            ("site.service", True, True),
        ]
        assert len(life.chat.shown) == 1
        clock.go(60)
        await life.follower.sampled(sample(7, 1075 + GRACE.total_seconds()))
        assert len(await life.rows()) == 2


async def test_a_host_that_was_not_listened_to_lost_nothing_yet(store_url: str, clock: StandingClock) -> None:
    host = JournalHost(coming=[], counters=Counters("b" * 32, 5, {}))
    async with living(store_url, host, clock) as life:
        await until(life.follower.system.seen.is_set, 20)
        await life.follower.sampled(sample(5))
        host.counters = Counters("b" * 32, 7, {})
        for n in range(5):
            clock.go(GRACE.total_seconds())
            await life.follower.sampled(sample(7, 1000 + (n + 1) * GRACE.total_seconds()))

        assert await life.rows() == []


async def test_after_a_boot_the_counter_starts_anew(store_url: str, clock: StandingClock) -> None:
    host = JournalHost(coming=[[]], counters=Counters("b" * 32, 5, {}))
    async with living(store_url, host, clock) as life:
        await until(lambda: life.follower.system.listening, 20)
        await life.follower.sampled(sample(5))
        clock.go(3600)
        host.counters = Counters("c" * 32, 1, {})
        await life.follower.sampled(sample(1, 10))
        await life.follower.sampled(sample(1, 10))
        clock.go(GRACE.total_seconds())
        await life.follower.sampled(sample(1, 10 + GRACE.total_seconds()))

        assert len(await life.rows()) == 1
        async with life.app.store.connect() as tx:
            row = (await tx.execute(select(tallies))).one()
        assert (row.boot_id, row.base) == ("c" * 32, 0)


async def test_kills_that_were_told_are_not_missing(store_url: str, then: StandingClock) -> None:
    lines = recorded("cgroup-oom")
    boot_id = entries(lines)[0].boot_id
    host = JournalHost(coming=[[], lines], units=services(lines), counters=Counters(boot_id, 0, {}), boot_id=boot_id)
    async with living(store_url, host, then) as life:
        await until(life.follower.system.seen.is_set, 20)
        await life.follower.sampled(sample(0))
        await until(lambda: host.read[SYSTEM] == 2, 20)
        await until(lambda: life.follower.system.listening, 20)
        host.counters = Counters(boot_id, 1, {})
        for n in range(3):
            await life.follower.sampled(sample(1, 1000 + n * GRACE.total_seconds()))
            then.go(GRACE.total_seconds())

        assert [row.data["counted"] for row in await life.rows()] == [False]


def kill_at(at_s: float, uptime_s: float, boot_id: str = "b") -> Kill:
    return Kill(
        pid=1, name="a", unit=None, at=NOW + timedelta(seconds=at_s), boot_id=boot_id, monotonic_us=int(uptime_s * 1e6), signal=9,
        cause="unknown", confidence="guess", limit_bytes=None, rss_bytes=None, evidence=(), advice=T("Nothing."),
    )  # fmt: skip


def test_only_what_both_clocks_call_old_was_missed() -> None:
    since = Since(NOW, "b", 1000.0)

    assert since.missed(kill_at(-60, 940))
    assert not since.missed(kill_at(-10, 990))
    assert not since.missed(kill_at(-600, 999)), "the host's clock is behind ours: it happens now"
    assert not since.missed(kill_at(+600, 100)), "the host's clock is ahead"
    assert since.missed(kill_at(-60, 5000, "another boot"))
    assert Since(NOW).missed(kill_at(-60, 990)), "a host that did not say how long it is up"


async def test_a_host_without_any_log_is_watched_by_its_counters(store_url: str, clock: StandingClock) -> None:
    class Mute(JournalHost):
        async def ask(self, *facts: Fact[Any]) -> Answers:
            nothing = Unreadable("denied", T("not here"))
            answers = await super().ask(*facts)
            return Answers({fact: nothing if fact.name == "kills" else answers[fact] for fact in facts})

    host = Mute(coming=[[]], counters=Counters("b" * 32, 5, {}))
    async with living(store_url, host, clock) as life:
        await until(life.follower.system.seen.is_set, 20)
        await life.follower.sampled(sample(5))
        async with life.app.store.connect() as tx:
            assert (await tx.execute(select(tallies.c.base))).scalar_one() == 5
            assert (await tx.execute(select(journals))).all() == []
