"""Every kill one row and told once: its signs joined, its loudness by its cause, what only a counter knows, what users stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from bot.alerts.kills import FINAL_S, KEEP, STORM_S, KillRule, Mark, Sighted
from bot.alerts.rows import dump_kill, load_kill
from bot.alerts.staged import REFRESH
from bot.alerts.tally import Tally
from bot.history import KillHistory
from bot.i18n import render
from bot.outbox import Outbox
from bot.settings import ChatSettings, HostSettings, Settings, TelegramSettings
from bot.store import Store
from bot.store.tables import journals, kills, plans, staged, steps, tallies
from handlers.cards.kill import Past
from handlers.reply import Line, Reply, Title
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.counters import COUNTERS, Counters
from remote.facts.journal import Entry
from remote.facts.memory import Memory
from remote.facts.witness import Witness
from remote.findings.death import Autopsy
from remote.findings.kill import Kill, Member
from remote.findings.lines import kernel_made
from remote.policy import GIB, MIB
from remote.text import T
from tests.bot.chats import MemoryChat
from tests.clock import NOW, StandingClock

BOOT = "0e2e5a4e7a1c4b8e9d0e6d9c1f0a1b2c"
TELEGRAM = TelegramSettings.model_validate({"token": "1:a"})
SETTINGS = Settings(hosts={"prod": HostSettings(address="203.0.113.7"), "web": HostSettings(address="203.0.113.8")})


def headline(reply: Reply) -> str:
    first = reply.blocks[0]
    assert isinstance(first, Title | Line)
    return render(first.text, "en", NOW)


def words(reply: Reply) -> str:
    return " ".join(render(block.text, "en", NOW) for block in reply.blocks if isinstance(block, Title | Line))


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
        mark = Mark("system", f"cursor {len(self.told)}", BOOT)
        await self.rule.keep(host, [Sighted(kill, batch) for kill in found], mark)
        self.told.append(host)
        await self.outbox.drained()

    async def rows(self) -> list[Any]:
        async with self.store.connect() as tx:
            return list((await tx.execute(select(kills).order_by(kills.c.id))).all())

    def titles(self) -> list[str]:
        return [headline(one.reply) for one in self.chat.shown]

    def loud(self) -> list[bool]:
        return [one.reply.loud for one in self.chat.shown]

    def calls(self) -> list[str]:
        return [call.split()[0] for call in self.chat.calls]


@pytest_asyncio.fixture
async def coroner(store: Store, clock: StandingClock) -> AsyncIterator[Coroner]:
    async with at_work(store, clock, SETTINGS) as one:
        yield one


@asynccontextmanager
async def at_work(store: Store, clock: StandingClock, settings: Settings) -> AsyncIterator[Coroner]:
    chat = MemoryChat()
    outbox = Outbox(store, {"console": chat, "telegram": chat}, clock)
    work = asyncio.create_task(outbox.run())
    yield Coroner(KillRule(settings, store, outbox, clock), store, chat, outbox, clock)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


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


async def test_another_unit_s_kill_a_minute_later_is_heard(coroner: Coroner) -> None:
    await coroner.keep(kill(100))
    await coroner.keep(kill(101, 5, unit="other.service"))
    await coroner.keep(kill(102, 60, unit="third.service"))

    assert len(coroner.chat.shown) == 2
    assert coroner.loud() == [True, True]


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
    assert await coroner.rule.mark("prod", "system") is None
    await coroner.keep()
    await coroner.keep()

    assert await coroner.rule.mark("prod", "system") == Mark("system", "cursor 1", BOOT)
    assert await coroner.rule.mark("prod", "programs") is None
    assert coroner.chat.calls == []
    async with coroner.store.connect() as tx:
        assert len((await tx.execute(select(journals))).all()) == 1


async def test_a_kill_without_a_place_to_tell_it_is_kept(store: Store, clock: StandingClock) -> None:
    quiet = Settings(telegram=TELEGRAM, hosts=SETTINGS.hosts, chats={"quiet": ChatSettings(telegram="-3", alerts=False)})
    async with at_work(store, clock, quiet) as coroner:
        await coroner.keep(kill(100))

        assert len(await coroner.rows()) == 1
        assert coroner.chat.calls == []


KERNEL: dict[str, Any] = {"cause": "cgroup-limit", "confidence": "certain"}
# cause, whether one kill makes a sound
LOUDNESS = (
    ("kernel-oom", True), ("cgroup-limit", True), ("systemd-oomd", True), ("userspace-oom", True), ("unknown", True),
    ("worker-timeout", False), ("time-limit", False), ("stop-timeout", False), ("container", False), ("manual", False),
)  # fmt: skip


@pytest.mark.parametrize(("cause", "loud"), LOUDNESS)
async def test_how_loud_a_kill_is_follows_from_its_cause(cause: str, loud: bool, coroner: Coroner) -> None:  # noqa: FBT001
    await coroner.keep(kill(cause=cause, confidence="certain"))

    assert coroner.loud() == [loud]


async def test_timeouts_sound_at_the_third_in_an_hour(coroner: Coroner) -> None:
    for n in range(6):
        await coroner.keep(kill(100 + n, n * 300, cause="worker-timeout", confidence="certain"))
    await coroner.keep(kill(200, 1800, cause="worker-timeout", confidence="certain", unit="other.service"))
    await coroner.keep(kill(201, 5 * 3600, cause="worker-timeout", confidence="certain"))

    assert coroner.loud() == [False, False, True, False, False, True, False, False]


async def test_a_quiet_storm_does_not_swallow_a_loud_kill(coroner: Coroner) -> None:
    await coroner.keep(kill(100, cause="stop-timeout", confidence="certain"))
    await coroner.keep(kill(101, 1, **KERNEL))
    await coroner.keep(kill(102, 2, cause="stop-timeout", confidence="certain"))

    assert coroner.loud() == [False, True]


@pytest.mark.parametrize("together", [True, False])
async def test_a_loud_kill_is_heard_though_what_was_missed_began_silently(together: bool, coroner: Coroner) -> None:  # noqa: FBT001
    stopped = kill(100, -3600, cause="stop-timeout", confidence="certain")
    other = kill(101, -3000, unit="db.service", **KERNEL)
    for batch in [(stopped, other)] if together else [(stopped,), (other,)]:
        await coroner.keep(*batch, batch="missed:prod:1")
    await coroner.keep(kill(102, -2000, unit="third.service", **KERNEL), batch="missed:prod:1")

    assert coroner.calls() == (["send", "edit"] if together else ["send", "send", "edit"])
    assert coroner.loud()[-1]
    assert coroner.titles()[-1] == "prod: 3 processes were killed"


async def test_a_quiet_kill_that_turns_out_to_be_loud_is_heard(coroner: Coroner) -> None:
    await coroner.keep(kill(100, cause="worker-timeout", confidence="likely"))
    await coroner.keep(kill(100, 1, **KERNEL))

    assert coroner.calls() == ["send", "send"]
    assert coroner.loud() == [False, True]


async def test_a_message_says_when_its_verdict_is_final(coroner: Coroner) -> None:
    await coroner.keep(kill(100, final=False))
    await coroner.rule.settle()
    await coroner.outbox.drained()
    assert [row.final for row in await coroner.rows()] == [False]

    coroner.clock.go(FINAL_S)
    await coroner.rule.settle()
    await coroner.outbox.drained()
    await coroner.rule.settle()

    (row,) = await coroner.rows()
    assert (row.final, row.data["final"]) == (True, True)
    assert coroner.calls()[0] == "send"
    assert set(coroner.calls()[1:]) <= {"edit"}


async def test_what_comes_after_the_final_verdict_still_counts(coroner: Coroner) -> None:
    await coroner.keep(kill(100, final=False))
    coroner.clock.go(FINAL_S)
    await coroner.rule.settle()
    await coroner.keep(kill(100, 1, final=False, **KERNEL))

    (row,) = await coroner.rows()
    assert (row.cause, row.final) == ("cgroup-limit", True)


@pytest.mark.parametrize("final", [False, True])
async def test_evidence_that_is_read_again_delays_no_final_verdict(final: bool, coroner: Coroner) -> None:  # noqa: FBT001
    await coroner.keep(kill(100, final=False))
    coroner.clock.go(FINAL_S - 1)
    await coroner.keep(kill(100, final=final))
    coroner.clock.go(1)
    await coroner.rule.settle()

    assert [row.final for row in await coroner.rows()] == [True]


async def test_kills_that_only_a_counter_knows_are_told_and_taken_in_by_their_late_lines(coroner: Coroner) -> None:
    lost = [
        kill(
            None,
            30,
            cause="kernel-oom",
            confidence="likely",
            counted=True,
            final=False,
            monotonic_us=10**9 + 30 * 10**6 - n,
            evidence=("oom_kill 2",),
        )
        for n in (1, 2)
    ]
    await coroner.rule.missing("prod", lost)
    await coroner.outbox.drained()
    assert len(await coroner.rows()) == 2
    assert len(coroner.chat.shown) == 1

    await coroner.keep(kill(100, 0, **KERNEL))
    await coroner.keep(kill(101, 0.1, **KERNEL))
    await coroner.keep(kill(102, 0.2, **KERNEL))

    rows = await coroner.rows()
    assert sorted(row.pid for row in rows) == [100, 101, 102]
    assert not any(row.data["counted"] for row in rows)


async def test_a_late_line_takes_in_its_count_whatever_the_clocks_say(coroner: Coroner) -> None:
    """The reading is dated by the bot's clock, the line by the host's."""
    lost = kill(None, 30, unit=None, name="", cause="kernel-oom", confidence="likely", counted=True, final=False)
    await coroner.rule.missing("prod", [lost])
    late = kill(100, 0, **KERNEL)
    await coroner.keep(replace(late, at=late.at + timedelta(hours=1)))

    assert [row.pid for row in await coroner.rows()] == [100]


async def test_a_kill_that_the_kernel_did_not_count_takes_in_no_lost_one(coroner: Coroner) -> None:
    lost = kill(None, 0, unit=None, name="", cause="kernel-oom", confidence="likely", counted=True)
    await coroner.rule.missing("prod", [lost])
    await coroner.keep(kill(100, 200, cause="worker-timeout", confidence="certain"))

    assert len(await coroner.rows()) == 2


def by_user(pid: int | None, after_s: float = 0, uid: int = 1000, **more: Any) -> Kill:  # noqa: ANN401
    return kill(pid, after_s, unit=None, staged=True, uid=uid, name="hog", **{**KERNEL, **more})


async def test_what_a_user_stages_is_one_quiet_message_an_hour_and_a_count(coroner: Coroner) -> None:
    for n in range(0, 1000, 100):
        await coroner.keep(*(by_user(n + m, n) for m in range(100)), kill(5000 + n, 10 * n, **KERNEL))
    await coroner.keep(by_user(7, 1, uid=1001))

    titles = coroner.titles()
    assert sum("site.service" in title for title in titles) == 10, titles
    quiet = [one for one in coroner.chat.shown if not one.reply.loud]
    assert len(quiet) == 2
    async with coroner.store.connect() as tx:
        rows = (await tx.execute(select(staged).order_by(staged.c.id))).all()
    assert [(row.uid, row.number) for row in rows] == [(1000, 1000), (1001, 1)]

    coroner.clock.go(REFRESH.total_seconds())
    await coroner.rule.settle()
    await coroner.outbox.drained()
    assert len(coroner.chat.shown) == len(titles), "the count is an edit"
    coroner.clock.go(3600)
    await coroner.keep(by_user(8, 5000))
    assert len(coroner.chat.shown) == len(titles) + 1, "another hour"


async def test_what_a_user_has_systemd_oomd_kill_in_his_own_slice_is_quiet_too(coroner: Coroner) -> None:
    for n in range(3):
        await coroner.keep(by_user(None, 200 * n, cause="systemd-oomd", cgroup=f"/user.slice/user-1000.slice/{n}"))

    assert coroner.loud() == [False]
    assert await coroner.rows() == []


async def test_the_real_one_is_told_before_the_staged_ones_of_its_batch(coroner: Coroner) -> None:
    await coroner.keep(*(by_user(n) for n in range(50)), kill(5000, **KERNEL), *(by_user(n) for n in range(50, 100)))

    assert "site.service" in coroner.titles()[0]


async def test_what_the_store_refused_once_counts_once(coroner: Coroner) -> None:
    async with coroner.store.begin() as tx:
        await tx.execute(
            text("CREATE TRIGGER no BEFORE INSERT ON staged WHEN new.uid = 1001 BEGIN SELECT RAISE(ABORT, 'full'); END")
        )
    missed = [Sighted(one, "missed:prod:1") for one in (kill(100, -3600), by_user(101, -3600))]
    found, mark = [*missed, Sighted(kill(200)), Sighted(by_user(201, uid=1001))], Mark("system", "c")
    with pytest.raises(IntegrityError, match="full"):
        await coroner.rule.keep("prod", found, mark)
    async with coroner.store.begin() as tx:
        assert (await tx.execute(select(staged.c.number))).all() == []
        await tx.execute(text("DROP TRIGGER no"))
    await coroner.rule.keep("prod", found, mark)

    async with coroner.store.connect() as tx:
        assert (await tx.execute(select(staged.c.number))).scalars().all() == [1, 1]
    assert [row.pid for row in await coroner.rows()] == [100, 200]


async def test_more_about_a_staged_kill_is_no_second_one(coroner: Coroner) -> None:
    await coroner.keep(by_user(7))
    await coroner.keep(by_user(7, evidence=("more",)))

    async with coroner.store.connect() as tx:
        assert (await tx.execute(select(staged.c.number))).scalars().all() == [1]


async def test_the_machine_out_of_memory_is_everybodys_affair(coroner: Coroner) -> None:
    await coroner.keep(by_user(7, cause="kernel-oom"))

    assert coroner.loud() == [True]


async def a_plan(store: Store, target: str, state: str = "running") -> None:
    async with store.begin() as tx:
        draft = {"steps": [{"target": "other.service", "deadline_s": 60}, {"target": target, "deadline_s": 60}]}
        await tx.execute(
            insert(plans).values(
                id="abcdefghjkmn", code="ABCD", digest="", host="prod", state=state, draft=draft, proposed_by="o", proposed_at=NOW,
                expires_at=NOW,
            )
        )  # fmt: skip
        await tx.execute(insert(steps).values(plan="abcdefghjkmn", n=1, state="running", started_at=NOW - timedelta(seconds=5)))


async def test_what_a_step_of_ours_did_is_no_alert(coroner: Coroner) -> None:
    noted: list[tuple[str, int, str]] = []

    async def note(tx: Any, plan: str, n: int, one: Kill) -> None:  # noqa: ANN401
        noted.append((plan, n, one.by))

    coroner.rule = KillRule(SETTINGS, coroner.store, coroner.outbox, coroner.clock, note)
    await a_plan(coroner.store, "site.service")
    for _ in range(2):
        await coroner.keep(kill(100, cause="stop-timeout", confidence="certain"))
    await coroner.keep(kill(101, 1, cause="stop-timeout", confidence="certain", unit="elsewhere.service"))
    await coroner.keep(kill(102, 2, **KERNEL))

    rows = await coroner.rows()
    assert [(row.cause, row.data["by"]) for row in rows] == [("plan", "ABCD"), ("stop-timeout", ""), ("cgroup-limit", "")]
    assert noted == [("abcdefghjkmn", 1, "ABCD")]
    assert len(coroner.chat.shown) == 2


@pytest.mark.parametrize("of", ["somebody the audit saw", "a step that a crash left open"])
async def test_a_plan_is_no_excuse_for_what_others_did(coroner: Coroner, of: str) -> None:
    await a_plan(coroner.store, "site.service")
    by_alice: dict[str, Any] = {"cause": "manual", "confidence": "certain", "by": "alice"}
    await coroner.keep(kill(100, **by_alice) if of.startswith("somebody") else kill(100, 9 * 86400, cause="unknown"))

    assert [row.data["by"] for row in await coroner.rows()] == ["alice" if of.startswith("somebody") else ""]
    assert len(coroner.chat.shown) == 1


async def test_what_was_told_is_not_given_to_a_plan_that_came_after(coroner: Coroner) -> None:
    killed = kill(100, -20, cause="unknown", final=False)
    await coroner.keep(killed)
    await a_plan(coroner.store, "site.service")
    await coroner.keep(replace(killed, final=True, evidence=("line", "more")))

    assert [row.cause for row in await coroner.rows()] == ["unknown"]


async def test_a_host_s_clock_that_is_set_back_makes_no_second_kill(coroner: Coroner) -> None:
    killed = kill(100, final=False, **KERNEL)
    await coroner.keep(killed)
    await coroner.keep(replace(killed, at=NOW - timedelta(hours=1), evidence=("another",)))

    assert len(await coroner.rows()) == 1
    assert coroner.calls() == ["send", "edit"]


async def test_kills_of_two_containers_are_no_storm(coroner: Coroner) -> None:
    for n, (pid, box) in enumerate(((100, "a"), (101, "a"), (200, "b"))):
        name: dict[str, Any] = {"container": box * 12, "cgroup": f"/system.slice/docker-{box}.scope"}
        await coroner.keep(kill(pid, 60 * n, unit=None, **name, **KERNEL))

    assert coroner.calls() == ["send", "edit", "send"]


async def test_a_kill_is_kept_as_it_was() -> None:
    whole = kill(members=(Member(1, "gunicorn", 5),), doing="import_orders", container="ab", by="alice", evidence=("a", "b"))

    assert load_kill(dump_kill(whole)) == whole
    old = {
        name: value
        for name, value in dump_kill(whole).items()
        if name not in {"members", "doing", "staged", "counted", "container", "by"}
    }
    assert load_kill(old) == replace(whole, members=(), doing="", container="", by="")


def test_what_the_kernel_counts() -> None:
    victim = "Out of memory: Killed process 5 (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"

    assert kernel_made(kill(cause="cgroup-limit"))
    assert kernel_made(kill(cause="manual", evidence=("sysrq: Manual OOM execution", victim)))
    assert not kernel_made(kill(cause="manual", evidence=("COMMAND=/bin/kill -9 100",)))
    assert not kernel_made(kill(cause="systemd-oomd"))


async def test_the_past_of_a_kill_is_known(coroner: Coroner) -> None:
    for n in range(3):
        await coroner.keep(kill(100 + n, n * 3600, doing="import_orders", **KERNEL))
    await coroner.keep(kill(200, unit=None, name="hog", **KERNEL), kill(201, 5, unit=None, name="dog", **KERNEL))
    history, last = KillHistory(coroner.store), NOW + timedelta(hours=2)

    assert await history.past("prod", "site.service", "gunicorn", last) == Past(3, "import_orders")
    assert await history.past("prod", "site.service", "gunicorn", NOW) == Past(1, "import_orders")
    assert (await history.past("prod", "site.service", "gunicorn", last + timedelta(days=8))).week == 0
    assert (await history.past("prod", None, "hog", last)).week == 1
    assert (await history.past("web", "site.service", "gunicorn", last)).week == 0


async def test_what_only_the_bot_knows_stands_in_the_history_too(coroner: Coroner) -> None:
    await a_plan(coroner.store, "site.service")
    ours, other = kill(100, cause="stop-timeout", confidence="certain"), kill(101, 5, **KERNEL)
    await coroner.keep(ours, other)
    lost = kill(None, 300, unit="lost.service", cause="kernel-oom", confidence="likely", counted=True, monotonic_us=0)
    await coroner.rule.missing("prod", [lost])
    history = KillHistory(coroner.store)

    told = await history.told("prod", [ours, other], NOW - timedelta(hours=1))
    assert [(one.pid, one.cause, one.by) for one in told] == [
        (None, "kernel-oom", ""),
        (101, "cgroup-limit", ""),
        (100, "plan", "ABCD"),
    ]
    assert [one.pid for one in await history.told("prod", [ours, other], NOW + timedelta(seconds=301))] == [101, 100]
    assert await history.told("web", [], NOW - timedelta(hours=1)) == ()
    assert [one.pid for one in await history.told("prod", [], NOW - timedelta(hours=1))] == [None, 101, 100], "vacuumed"

    nameless = kill(None, 5, unit="site.service", final=False, cause="cgroup-limit", confidence="likely", evidence=("failed",))
    whole = (await history.told("prod", [nameless], NOW + timedelta(seconds=1)))[-1]
    assert (whole.pid, whole.confidence) == (101, "certain")


async def test_old_kills_are_forgotten(coroner: Coroner) -> None:
    await coroner.keep(kill(100, -KEEP.total_seconds() - 1))
    await coroner.keep(kill(101), by_user(102))
    await coroner.rule.prune()

    assert [row.pid for row in await coroner.rows()] == [101]
    coroner.clock.go(KEEP.total_seconds() + 1)
    await coroner.rule.prune()
    async with coroner.store.connect() as tx:
        assert (await tx.execute(select(staged.c.id))).all() == []


async def test_what_was_caught_up_is_final_at_once(coroner: Coroner) -> None:
    await coroner.keep(kill(100, -7200, final=False), batch="missed:prod:1")

    assert [row.final for row in await coroner.rows()] == [True]


async def test_a_kill_after_what_was_missed_is_a_message_of_its_own(coroner: Coroner) -> None:
    await coroner.keep(kill(100, -60), batch="missed:prod:1")
    await coroner.keep(kill(101))

    assert len(coroner.chat.shown) == 2, "an edit of the message of what was missed would make no sound"


class Counted:
    """A host that tells its counters, and how often it was asked for them."""

    def __init__(self, coroner: Coroner) -> None:
        self.asked = 0
        self.counters: Counters | Unreadable = Counters(BOOT, 0, {})
        self._coroner = coroner
        self._tally = Tally("prod", coroner.store, coroner.rule, coroner.clock)

    async def ask(self, *facts: Fact[Any]) -> Answers:
        assert facts == (COUNTERS,)
        self.asked += 1
        return Answers({COUNTERS: self.counters})

    async def sampled(self, oom_kills: int, uptime_s: float, times: int = 1) -> None:
        """Samples of every 15 seconds that tell this count; `uptime_s` is the first one's."""
        me: Any = self
        for n in range(times):
            self._coroner.clock.go(15)
            await self._tally.look(me, Memory(2 * GIB, GIB, 0, 0, None, oom_kills, uptime_s + 15 * n), listening=True)
        await self._coroner.outbox.drained()


@pytest.mark.parametrize("step_s", [90, -90])
async def test_a_step_of_our_clock_turns_the_tally_not_off(step_s: float, coroner: Coroner) -> None:
    host = Counted(coroner)
    await host.sampled(0, 1000, times=3)
    asked = host.asked
    coroner.clock.go(step_s)
    await host.sampled(0, 1045, times=20)
    assert host.asked == asked + 1, "by its boot's id it is known for the same"

    host.counters = Counters(BOOT, 1, {})
    await host.sampled(1, 1345, times=8)
    assert coroner.titles() == ["prod: 1 kill without a log line"]
    async with coroner.store.connect() as tx:
        booted_at = (await tx.execute(select(tallies.c.booted_at))).scalar_one()
    assert booted_at == NOW + timedelta(seconds=15 + step_s) - timedelta(seconds=1000)


async def test_a_kill_that_a_text_file_told_of_is_not_told_again_by_its_count(coroner: Coroner) -> None:
    host = Counted(coroner)
    await host.sampled(0, 1000, times=2)
    seen = Witness(BOOT, 1020, {}, {}, 0, {})
    autopsy = Autopsy()
    autopsy.begin(seen)
    said = "Out of memory: Killed process 415 (gunicorn) total-vm:900000kB, anon-rss:204800kB, file-rss:0kB"
    autopsy.read(Entry("", coroner.clock.now(), "", 1_025_000_000, said, source="syslog", identifier="kernel"))
    await coroner.keep(*autopsy.witness(replace(seen, uptime_s=1030, oom_kills=1), coroner.clock.now()))

    host.counters = Counters(BOOT, 1, {})
    await host.sampled(1, 1030, times=8)
    assert coroner.titles() == ["prod: gunicorn was killed"]
    assert [(row.boot_id, row.pid) for row in await coroner.rows()] == [(BOOT, 415)]


async def test_of_a_container_its_own_count_is_held_against_the_rows(coroner: Coroner) -> None:
    host = Counted(coroner)
    host.counters = Counters(BOOT, 2, {})
    await host.sampled(57, 1000, times=4)
    await host.sampled(58, 1060, times=4)
    assert coroner.titles() == [], "a neighbour's"
    assert host.asked == 3, "to begin, then once for each count of the node's"

    host.counters = Counters("c" * 32, 0, {})
    await host.sampled(58, 15, times=8)
    assert coroner.titles() == [], "its count starts over with it, the node's does not"
    host.counters = Counters("c" * 32, 1, {})
    await host.sampled(59, 135, times=8)
    assert coroner.titles() == ["prod: 1 kill without a log line"]


@pytest.mark.parametrize("counters", [Counters(BOOT, None, {}), Unreadable("unsupported", T("oom_kill"))])
async def test_a_container_without_a_count_of_its_own_is_left_alone(counters: Counters | Unreadable, coroner: Coroner) -> None:
    host = Counted(coroner)
    host.counters = counters
    await host.sampled(57, 1000, times=8)
    await host.sampled(60, 1120, times=8)

    assert (coroner.titles(), host.asked) == ([], 2)


async def test_counters_that_could_not_be_read_are_asked_for_again(coroner: Coroner) -> None:
    host = Counted(coroner)
    host.counters = Unreadable("timeout", T("It took too long."))
    await host.sampled(57, 1000, times=3)

    assert (coroner.titles(), host.asked) == ([], 3)


@pytest.mark.parametrize(("counted", "up_s"), [(1, 15), (2, 15), (3, 200), (3, 3000)])
async def test_of_a_new_boot_nothing_is_history(counted: int, up_s: float, coroner: Coroner) -> None:
    """As many kills as before the reboot may be lost after it, while the bot is away."""
    host = Counted(coroner)
    host.counters = Counters(BOOT, 2, {})
    await host.sampled(2, 1000, times=3)
    host.counters = Counters("c" * 32, counted, {})
    await host.sampled(counted, up_s, times=8)
    assert coroner.titles() == [f"prod: {counted} kill{'s' if counted > 1 else ''} without a log line"]


async def test_a_first_kill_after_a_boot_is_no_counter_that_goes_on(coroner: Coroner) -> None:
    host = Counted(coroner)
    await host.sampled(0, 1000, times=3)
    host.counters = Counters("c" * 32, 1, {})
    await host.sampled(1, 15, times=8)

    assert coroner.titles() == ["prod: 1 kill without a log line"]


async def test_a_container_that_was_held_against_its_nodes_count_begins_anew(coroner: Coroner) -> None:
    host = Counted(coroner)
    host.counters = Counters(BOOT, 57, {})
    await host.sampled(57, 1000, times=3)
    host.counters = Counters(BOOT, 2, {})
    await host.sampled(58, 1045, times=3)
    assert coroner.titles() == []

    host.counters = Counters(BOOT, 3, {})
    await host.sampled(59, 1090, times=8)
    assert coroner.titles() == ["prod: 1 kill without a log line"]
