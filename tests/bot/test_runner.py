"""Runs of plans by a real shell on this machine: to the end, taken back, refused, interrupted; no step ever runs twice."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from structlog.testing import capture_logs

from bot.outbox import Outbox
from bot.plans import PlanBook
from bot.runner import Marks, Pace, Runner
from bot.settings import ApprovalSettings
from bot.store import Store, open_store
from handlers.ports.plans import FINAL, Plan
from remote.connect import Conversation, Done, Host, Target, open_host
from remote.errors import HostError
from remote.facts.base import Answers, Fact
from remote.facts.processes import PROCESSES, Processes
from remote.policy import Policy
from remote.remedies import end_stray
from remote.remedies.base import Draft
from remote.text import T
from tests.bot.chats import Crash
from tests.bot.drafts import draft, request, touching
from tests.bot.mortal import Life, MortalStore, end
from tests.bot.waiting import until
from tests.clock import StandingClock

KEY = b"key"
QUICK = Pace(settle_s=0.0, pause_s=0.02, steady_s=0.0)


@dataclass
class Frail:
    """A host whose answers can be made to fail; what it is asked is really done by the host behind it."""

    host: Host
    before: Callable[[str], None] = lambda _: None

    @property
    def target(self) -> Target:
        return self.host.target

    @property
    def host_key(self) -> str:
        return self.host.host_key

    async def ask(self, *facts: Fact[Any]) -> Answers:
        self.before("ask")
        return await self.host.ask(*facts)

    async def sample(self, *facts: Fact[Any]) -> Answers:
        return await self.host.sample(*facts)

    def stream(self, script: str) -> Any:  # noqa: ANN401
        return self.host.stream(script)

    @asynccontextmanager
    async def converse(self) -> AsyncIterator[Conversation]:
        self.before("converse")
        async with self.host.converse() as talk:
            yield FrailTalk(talk, self)

    async def close(self) -> None:
        await self.host.close()


@dataclass
class FrailTalk:
    talk: Conversation
    owner: Frail

    async def run(self, script: str, *, deadline_s: float, cap_bytes: int = 65536) -> Done:
        self.owner.before(script)
        return await self.talk.run(script, deadline_s=deadline_s, cap_bytes=cap_bytes)


@dataclass
class Ground:
    """A host, its marks, a store, and what a process makes of them."""

    place: Path
    store: Store
    host: Frail
    book: PlanBook
    runner: Runner

    @property
    def marks(self) -> Marks:
        return marks_in(self.place)

    async def approved(self, what: Draft) -> str:
        """A plan that was proposed and approved."""
        plan = await self.book.propose(request(), what)
        await self.book.approve(request(), plan.id)
        return plan.id

    async def run(self, what: Draft) -> Plan:
        """Let it run to its end."""
        return await self.ended(await self.approved(what))

    async def ended(self, plan_id: str) -> Plan:
        await until(lambda: not self.runner._tasks, 60)
        return await self.book.get(plan_id)

    def log(self) -> list[str]:
        """What the steps did, in order."""
        return log_in(self.place)

    def holder(self) -> str:
        """What the lock says; empty when there is none."""
        return holder_in(self.place)

    def forget(self) -> None:
        """As if nobody had ever changed this host."""
        Path(self.marks.lock).unlink()
        shutil.rmtree(self.marks.plans)

    def hold(self, holder: str) -> None:
        """Make the lock as somebody else would."""
        Path(self.marks.lock).symlink_to(holder)

    def remembered(self) -> list[str]:
        """The plans that the host remembers."""
        return [path.name for path in Path(self.marks.plans).iterdir()]


def log_in(place: Path) -> list[str]:
    path = place / "log"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def holder_in(place: Path) -> str:
    lock = Path(marks_in(place).lock)
    return str(lock.readlink()) if lock.is_symlink() else ""


def is_held(place: Path) -> bool:
    holder = holder_in(place)
    return bool(holder) and Path(f"/proc/{holder.split()[1]}").exists()


async def shell_of(talk: Conversation) -> str:
    """Its pid and start time, as a lock names them."""
    pid = (await talk.run("echo $$", deadline_s=5)).output.strip()
    stat = (await talk.run(f"cat /proc/{pid}/stat", deadline_s=5)).output
    return f"{pid} {stat.rsplit(')', 1)[1].split()[19]}"


def marks_in(place: Path) -> Marks:
    return Marks(str(place / "plans"), str(place / "memwarden.lock"))


def ground(place: Path, store: Store, host: Host, clock: StandingClock, pace: Pace = QUICK) -> Ground:
    frail = Frail(host)
    book = PlanBook(store, Outbox(store, {}, clock), clock, ApprovalSettings(), lambda _: Policy())
    runner = Runner(book, lambda _: frail, KEY, marks=marks_in(place), pace=pace)
    book.on_approved = runner.start
    return Ground(place, store, frail, book, runner)


@pytest_asyncio.fixture
async def host() -> AsyncIterator[Host]:
    host = open_host(Target("prod", "local"))
    yield host
    await host.close()


@pytest.fixture
def here(tmp_path: Path, store: Store, host: Host, clock: StandingClock) -> Ground:
    return ground(tmp_path, store, host, clock)


def states(plan: Plan) -> list[str]:
    return [step.state for step in plan.steps]


async def test_a_plan_that_works_is_verified(here: Ground) -> None:
    plan = await here.run(draft(touching(here.place, "a"), touching(here.place, "b"), verify=f"[ -e {here.place}/b ]"))

    assert (plan.state, states(plan)) == ("verified", ["done", "done"])
    assert all(step.holds for step in plan.steps)
    assert here.log() == ["do a", "do b"]
    assert plan.before is not None
    assert plan.after is not None
    assert 0 < plan.after.used_percent < 100
    assert here.remembered() == [plan.id]
    assert (Path(here.marks.plans) / plan.id / "digest").read_text(encoding="ascii") == f"{plan.digest}\n"
    assert here.holder() == ""


async def test_what_a_step_prints_is_kept(here: Ground) -> None:
    step = touching(here.place, "a", commands=(f"touch {here.place}/a", "echo said; echo complained >&2"))
    plan = await here.run(draft(step))

    assert plan.steps[0].output.split() == ["said", "complained"]


async def test_an_effect_may_take_its_time(tmp_path: Path, store: Store, host: Host, clock: StandingClock) -> None:
    here = ground(tmp_path, store, host, clock, Pace(settle_s=30.0, pause_s=0.02, steady_s=0.0))
    # It holds from the third look on.
    count = f'echo . >>{tmp_path}/looks; [ "$(wc -l <{tmp_path}/looks)" -ge 3 ]'
    plan = await here.run(draft(touching(here.place, "a", holds=count)))

    assert plan.state == "verified"


async def test_a_step_that_fails_is_taken_back_with_those_before_it_in_reverse(here: Ground) -> None:
    bad = touching(here.place, "c", commands=(f"echo do c >>{here.place}/log", f"touch {here.place}/c", "echo no luck; false"))
    plan = await here.run(draft(touching(here.place, "a"), touching(here.place, "b"), bad, touching(here.place, "d")))

    assert (plan.state, states(plan)) == ("rolled-back", ["undone", "undone", "failed", "skipped"])
    assert here.log() == ["do a", "do b", "do c", "undo c", "undo b", "undo a"]
    assert plan.steps[2].output.strip() == "no luck"
    assert [name for name in "abcd" if (here.place / name).exists()] == []


async def test_commands_after_a_failing_one_are_not_run(here: Ground) -> None:
    plan = await here.run(draft(touching(here.place, "a", commands=("false", f"touch {here.place}/a"))))

    assert plan.state == "rolled-back"
    assert plan.steps[0].output == "exit status 1"
    assert here.log() == ["undo a"]


async def test_a_step_without_its_effect_is_taken_back(here: Ground) -> None:
    plan = await here.run(draft(touching(here.place, "a"), touching(here.place, "b", holds="false")))

    assert (plan.state, states(plan)) == ("rolled-back", ["undone", "failed"])
    assert here.log() == ["do a", "do b", "undo b", "undo a"]


async def test_a_plan_that_does_not_reach_its_end_is_taken_back(here: Ground) -> None:
    plan = await here.run(draft(touching(here.place, "a"), verify="echo still twice; false"))

    assert (plan.state, states(plan), plan.output.strip()) == ("rolled-back", ["undone"], "still twice")
    assert here.log() == ["do a", "undo a"]


async def test_what_cannot_be_taken_back_is_called_failed(here: Ground) -> None:
    lost = touching(here.place, "b", undo=(), undo_text=None, cannot_undo=T("It is gone"))
    plan = await here.run(draft(touching(here.place, "a"), lost, verify="false"))

    assert (plan.state, states(plan)) == ("failed", ["undone", "done"])
    assert [name for name in "ab" if (here.place / name).exists()] == ["b"]


async def test_an_undo_that_does_not_work_is_called_failed(here: Ground) -> None:
    stuck = touching(here.place, "a", undo=("echo cannot",))
    plan = await here.run(draft(stuck, verify="false"))

    assert (plan.state, states(plan)) == ("failed", ["failed"])
    assert plan.steps[0].holds
    assert plan.steps[0].output.strip() == "cannot"


async def test_a_step_whose_ground_changed_is_not_begun(here: Ground) -> None:
    plan = await here.run(draft(touching(here.place, "a", check="echo its files changed; false"), touching(here.place, "b")))

    assert (plan.state, states(plan)) == ("failed", ["failed", "skipped"])
    assert plan.steps[0].output.strip() == "its files changed"
    assert here.log() == []


async def test_what_somebody_else_did_before_is_left_to_them(here: Ground) -> None:
    (here.place / "a").touch()
    plan = await here.run(draft(touching(here.place, "a", check="false"), touching(here.place, "b"), verify="false"))

    assert (plan.state, states(plan)) == ("rolled-back", ["skipped", "undone"])
    assert here.log() == ["do b", "undo b"]
    assert (here.place / "a").exists()


async def test_a_plan_that_the_host_remembers_is_not_run_again(here: Ground) -> None:
    plan_id = await here.approved(draft(touching(here.place, "a")))
    (Path(here.marks.plans) / plan_id).mkdir(parents=True)
    plan = await here.ended(plan_id)

    assert (plan.state, states(plan)) == ("failed", ["skipped"])
    assert plan.output.strip() == f"plan {plan_id} was already run here"
    assert here.log() == []


async def test_one_writer_a_host(here: Ground) -> None:
    async with here.host.converse() as other:
        shell = await shell_of(other)
        here.hold(f"otherplan {shell}")
        plan = await here.run(draft(touching(here.place, "a")))
        lock = here.holder()

    assert (plan.state, states(plan), plan.output.strip()) == ("failed", ["skipped"], "plan otherplan is changing this host")
    assert here.log() == []
    assert lock == f"otherplan {shell}"
    assert here.remembered() == []  # it was not run: nothing to remember


@pytest.mark.parametrize("holder", ["otherplan 999999999 1", f"otherplan {os.getpid()} 1", "otherplan", "x"])
async def test_a_lock_whose_holder_is_gone_is_taken_over(holder: str, here: Ground) -> None:
    here.hold(holder)
    plan = await here.run(draft(touching(here.place, "a")))

    assert (plan.state, here.log()) == ("verified", ["do a"])
    assert here.holder() == ""


async def test_of_two_that_find_a_dead_lock_one_gets_it(here: Ground) -> None:
    first, second = [await here.book.propose(request(), draft(touching(here.place, name), host=name)) for name in ("a", "b")]
    async with here.host.converse() as one, here.host.converse() as other:
        talks = [(one, first, await shell_of(one)), (other, second, await shell_of(other))]
        for _ in range(40):
            here.hold("dead 999999999 1")
            came_to = await asyncio.gather(
                *(talk.run(here.marks.claim(plan, shell), deadline_s=10) for talk, plan, shell in talks)
            )
            assert sorted(done.status for done in came_to) == [0, 76]
            here.forget()


async def test_marks_that_cannot_be_made_are_said_to_be_so(here: Ground) -> None:
    (here.place / "plans").touch()
    plan = await here.run(draft(touching(here.place, "a")))

    assert plan.state == "failed"
    assert "File exists" in plan.output
    assert here.log() == []


async def test_two_plans_approved_at_once_run_one_after_the_other_or_not_at_all(here: Ground) -> None:
    slow = touching(
        here.place, "a", commands=(f"echo do a >>{here.place}/log; until [ -e {here.place}/go ]; do :; done",), holds="true"
    )
    first = await here.approved(draft(slow))
    await until(lambda: here.log() == ["do a"])
    second = await here.approved(draft(touching(here.place, "b")))
    await until(lambda: len(here.runner._tasks) == 1)
    (here.place / "go").touch()
    assert (await here.ended(first)).state == "verified"
    plan = await here.book.get(second)

    assert (plan.state, plan.output.strip()) == ("failed", f"plan {first} is changing this host")
    assert here.log() == ["do a"]


async def test_started_twice_it_runs_once(here: Ground) -> None:
    plan_id = await here.approved(draft(touching(here.place, "a")))
    here.runner.start(plan_id)
    plan = await here.ended(plan_id)

    assert (plan.state, here.log()) == ("verified", ["do a"])


async def test_a_fault_of_ours_is_an_interruption_not_a_plan_that_runs_for_ever(here: Ground) -> None:
    plan = await here.run(draft(touching(here.place, "a"), touching(here.place, "b", kind="no such kind")))

    assert (plan.state, states(plan)) == ("interrupted", ["done", "unknown"])
    assert [step.holds for step in plan.steps] == [True, False]


@pytest.mark.parametrize(
    ("refused", "came_to", "did"),
    [
        ("steps WHEN NEW.state <> 'running'", ["done", "skipped"], ["do a"]),
        ("plans WHEN NEW.state <> 'approved'", ["skipped", "skipped"], []),
        ("plans WHEN NEW.state NOT IN ('approved', 'running')", ["done", "done"], ["do a", "do b"]),
    ],
)
async def test_a_store_that_refuses_for_a_while_leaves_no_plan_running_for_ever(
    here: Ground, refused: str, came_to: list[str], did: list[str]
) -> None:
    plan = await here.book.propose(request(), draft(*(touching(here.place, name) for name in "ab")))
    with capture_logs() as logs:
        async with here.store.begin() as tx:
            full = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            await tx.execute(text(f"CREATE TRIGGER full BEFORE UPDATE ON {refused} {full}"))
        await here.book.approve(request(), plan.id)
        await until(lambda: sum(line["event"].startswith("an interrupted plan could not be kept") for line in logs) == 2)
        async with here.store.begin() as tx:
            await tx.execute(text("DROP TRIGGER full"))
        plan = await here.ended(plan.id)

    assert (plan.state, states(plan), here.log()) == ("interrupted", came_to, did)
    assert [step.holds for step in plan.steps] == [state == "done" for state in came_to]
    assert here.holder() == ""


async def test_a_link_cut_in_mid_step_is_read_again_and_nothing_repeated(here: Ground) -> None:
    cut = {"left": 2}

    def before(script: str) -> None:
        # The answer to the second step is lost, and the first attempt to look fails too.
        if ("[ -e" in script and "/b ]" in script and cut["left"] == 2) or (script == "converse" and cut["left"] == 1):
            cut["left"] -= 1
            raise HostError("cut", T("The link ended."))

    here.host.before = before
    plan = await here.run(draft(*(touching(here.place, name) for name in "abc")))

    assert cut["left"] == 0
    assert (plan.state, states(plan)) == ("interrupted", ["done", "done", "skipped"])
    assert [step.holds for step in plan.steps] == [True, True, False]
    assert here.log() == ["do a", "do b"]
    assert here.holder() == ""


async def test_after_an_interruption_undo_takes_back_what_holds(here: Ground) -> None:
    def before(script: str) -> None:
        if "do b" in script:
            here.host.before = lambda _: None
            raise HostError("cut", T("The link ended."))

    here.host.before = before
    plan = await here.run(draft(*(touching(here.place, name) for name in "ab")))
    assert (plan.state, states(plan)) == ("interrupted", ["done", "unknown"])
    undone = await here.run(await here.book.undo_draft(request(), plan.id))

    assert undone.state == "verified"
    assert here.log() == ["do a", "undo b", "undo a"]  # what may have been begun is taken back too
    assert (await here.book.get(plan.id)).state == "undone"


async def test_while_a_shell_of_it_lives_its_steps_are_not_read(here: Ground) -> None:
    plan_id = await here.approved(draft(touching(here.place, "a")))
    await here.ended(plan_id)
    async with here.store.begin() as tx:  # as if the process had died in mid-run …
        from bot.store.tables import plans

        await tx.execute(plans.update().values(state="running"))
    async with here.host.converse() as other:  # … and its shell had not
        shell = await shell_of(other)
        here.hold(f"{plan_id} {shell}")
        looks: list[str] = []
        here.host.before = looks.append
        await here.runner.recover()
        await until(lambda: len(looks) > 5)
        assert (await here.book.get(plan_id)).state == "running"
        assert not any(script.startswith("[ -e") for script in looks)

    assert (await here.ended(plan_id)).state == "interrupted"
    assert here.holder() == ""


async def test_an_end_of_the_process_lets_a_plan_finish_for_a_while(here: Ground) -> None:
    plan_id = await here.approved(draft(touching(here.place, "a")))
    await here.runner.drain(30)

    assert (await here.book.get(plan_id)).state == "verified"


async def test_what_does_not_finish_is_interrupted_after_the_restart(here: Ground, clock: StandingClock) -> None:
    endless = touching(here.place, "a", commands=(f"touch {here.place}/a; while :; do sleep 0.05; done",))
    plan_id = await here.approved(draft(endless))
    await until((here.place / "a").exists)
    await here.runner.drain(0)
    assert (await here.book.get(plan_id)).state == "running"

    after = ground(here.place, here.store, here.host.host, clock)
    await after.runner.recover()
    plan = await after.ended(plan_id)
    assert (plan.state, states(plan), plan.steps[0].holds) == ("interrupted", ["done"], True)


async def life(place: Path, store: Store, clock: StandingClock, one: Life, what: Draft | None) -> str:
    """One life of a process: it recovers, then runs `what`; until all is done or it is dead."""
    host = open_host(Target("prod", "local"))
    here = ground(place, MortalStore(store, one), host, clock)
    here.host.before = one.step
    plan_id = ""

    async def live() -> None:
        nonlocal plan_id
        await here.runner.recover()
        if what is not None:
            plan = await here.book.propose(request(), what)
            plan_id = plan.id
            await here.book.approve(request(), plan.id)
        while here.runner._tasks:
            await asyncio.wait(here.runner._tasks)

    alive, death = asyncio.create_task(live()), asyncio.create_task(one.over.wait())
    async with asyncio.timeout(60):
        await asyncio.wait((alive, death), return_when=asyncio.FIRST_COMPLETED)
    death.cancel()
    await end(alive, death, *here.runner._tasks)
    await host.close()
    return plan_id


@pytest.mark.parametrize("verify", ["true", "false"])
async def test_wherever_the_process_dies_no_step_runs_twice(
    verify: str,
    migrated: Path,
    tmp_path: Path,
    clock: StandingClock,
) -> None:
    async def world(name: str) -> tuple[Path, Store, Draft]:
        place = tmp_path / name
        place.mkdir()
        shutil.copy(migrated, place / "test.db")
        what = draft(touching(place, "a"), touching(place, "b"), verify=verify)
        return place, await open_store(f"sqlite:///{place}/test.db"), what

    place, store, what = await world("whole")
    whole = Life()
    await life(place, store, clock, whole, what)
    await store.close()
    log = log_in(place)
    assert log == (["do a", "do b"] if verify == "true" else ["do a", "do b", "undo b", "undo a"])

    seen: dict[str, int] = {}
    for ends_at in range(1, whole.calls + 1):
        place, store, what = await world(f"{ends_at}")
        plan_id = await life(place, store, clock, Life(ends_at), what)
        await life(place, store, clock, Life(), None)
        book = PlanBook(store, Outbox(store, {}, clock), clock, ApprovalSettings(), lambda _: Policy())
        here = f"died at {ends_at}: {whole.names[ends_at - 1][:80]!r}"
        if plan_id:
            plan = await book.get(plan_id)
            seen[plan.state] = seen.get(plan.state, 0) + 1
            assert plan.state in {*FINAL, "proposed"}, here
            told = {step.target: record for step, record in zip(plan.draft.steps, plan.steps, strict=True)}
            for name, record in told.items():
                if plan.state == "interrupted":
                    assert record.holds == (place / name).exists(), (here, name, record)
        lines = log_in(place)
        assert len(lines) == len(set(lines)), (here, lines)
        assert lines == log[: len(lines)], (here, lines)
        # Died right before it gave the host back: then nobody holds it, and the next plan takes it over.
        assert not is_held(place), here
        await store.close()
    assert seen["interrupted"] > 8


def test_a_crash_is_no_error_that_anybody_catches() -> None:
    assert not issubclass(Crash, Exception)


def test_marks_are_the_design_s() -> None:
    assert Marks() == Marks("/var/lib/memwarden/plans", "/run/memwarden.lock")
    assert replace(Pace(), pause_s=2.0).settle_s == 45.0


async def test_another_machine_under_the_same_name_is_not_changed(here: Ground) -> None:
    plan = await here.run(replace(draft(touching(here.place, "a")), basis={"host_key": "SHA256:another", "root": "root"}))
    assert plan.state == "failed"
    assert "SHA256:another" in plan.output
    assert not (here.place / "a").exists()


async def test_a_stray_that_became_another_program_is_left_alone(here: Ground, tmp_path: Path) -> None:
    """Exec keeps pid, start time, user, cgroup and, between two scripts, the program too: only the command line tells."""
    first = f"import os, sys, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
    other = "import time; print('here', flush=True); time.sleep(600)"
    become = f"os.execv(sys.executable, [sys.executable, '-c', {other!r}])"
    stray = await asyncio.create_subprocess_exec(sys.executable, "-c", first + become, stdout=asyncio.subprocess.PIPE)
    assert stray.stdout is not None
    try:
        processes = (await here.host.ask(PROCESSES))[PROCESSES]
        assert isinstance(processes, Processes)
        (seen,) = (one for one in processes.all if one.pid == stray.pid)
        step = end_stray.propose(seen, boot_id=processes.boot_id, title="worker", frees_bytes=1, timeout_s=5, key=KEY)
        (tmp_path / "go").touch()
        assert await stray.stdout.readline() == b"here\n"
        plan = await here.run(draft(step))

        assert (plan.state, states(plan)) == ("failed", ["failed"])
        assert "is not what was approved" in plan.steps[0].output
        assert stray.returncode is None
    finally:
        stray.kill()
        await stray.wait()


@pytest.mark.parametrize("second", ["exit 1", "echo site.service 8"])
async def test_an_end_that_does_not_last_is_taken_back(here: Ground, second: str) -> None:
    """A service that fails a moment after its start is active until then; one that systemd started again has a new pid."""
    looks = here.place / "looks"
    verify = f"printf x >>{looks}; if [ $(wc -c <{looks}) -gt 2 ]; then {second}; else echo site.service 7; fi"
    plan = await here.run(draft(touching(here.place, "a"), verify=f"[ -e {here.place}/a ] || exit 1; {verify}"))
    assert (plan.state, states(plan)) == ("rolled-back", ["undone"])


async def test_two_processes_on_one_store_do_not_forget_each_other_s_steps(
    here: Ground, store: Store, clock: StandingClock
) -> None:
    """`memwarden ask` works alone where no bot runs; one that starts meanwhile finds its plan under way."""
    go, begun = here.place / "go", here.place / "begun"
    slow = touching(here.place, "a", commands=(f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done; touch {here.place}/a",))
    plan_id = await here.approved(draft(slow, *(touching(here.place, name) for name in "bc")))
    await until(begun.exists)
    other = ground(here.place, store, open_host(Target("prod", "local")), clock)
    looks: list[str] = []
    other.host.before = looks.append
    await other.runner.recover()
    await until(lambda: len(looks) > 2)
    go.touch()
    plan = await here.ended(plan_id)
    await other.ended(plan_id)
    await other.host.close()

    assert plan.state in {"verified", "interrupted"}
    assert [step.holds for step in plan.steps] == [True, True, True]
    assert [step.target for step in (await here.book.undo_draft(request(), plan_id)).steps] == ["c", "b", "a"]
