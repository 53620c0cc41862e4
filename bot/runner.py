"""Runs approved plans: step by step over one shell of the host, each kept before and after, then verified or taken back.

A plan runs once because the host remembers it: its first act there makes /var/lib/memwarden/plans/ID, and a directory that is
already there ends the run. After a crash or a cut link nothing is repeated: the host is read, and the plan says which steps hold.
"""

from __future__ import annotations

import asyncio
import random
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from handlers.ports.plans import FINAL, Measure, Plan, StepState
from remote.connect.base import Done
from remote.errors import HostError
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES, Processes
from remote.remedies import discover
from remote.remedies.base import invert
from remote.text import Mono, T

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bot.plans import PlanBook
    from remote.connect.base import Conversation, Host
    from remote.remedies.base import Step

log = structlog.get_logger(__name__)

QUICK_S = 30.0
PATIENCE_S = 60.0  # the longest pause between two looks at a host that does not answer after an interruption


@dataclass(frozen=True, slots=True)
class Pace:
    """`settle_s` is how long a step's effect may take to show after its commands are done, `pause_s` between two looks, and
    `steady_s` is how long the plan's end must have lasted before it is called verified."""

    settle_s: float = 45.0
    pause_s: float = 1.0
    steady_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Marks:
    """Where a host remembers the plans it has seen, and who is changing it now."""

    plans: str = "/var/lib/memwarden/plans"
    lock: str = "/run/memwarden.lock"

    def claim(self, plan: Plan, pid: str) -> str:
        """Take the host for this plan, once and for all. `pid` is the shell that runs it."""
        return self._fill(_CLAIM, plan).replace("@PID@", pid)

    def release(self, plan: Plan) -> str:
        """Let others change the host."""
        return self._fill(_RELEASE, plan)

    def left(self, plan: Plan) -> str:
        """Exits 0 once nothing runs for this plan any more, and then lets others change the host."""
        return self._fill(_LEFT, plan)

    def _fill(self, script: str, plan: Plan) -> str:
        values = {"PLANS": self.plans, "LOCK": self.lock, "PLAN": plan.id, "DIGEST": plan.digest}
        for name, value in values.items():
            script = script.replace(f"@{name}@", shlex.quote(value))
        return script


# One writer a host. The link's target is the holder: plan, pid of the shell that runs it, that process's start time. A holder
# whose shell is gone (the link was cut) holds nothing any more.
_BORN = 'born() { s=$(cat "/proc/$1/stat" 2>/dev/null) || return; s=${s##*) }; set -f -- $s; echo "${20}"; }'
# Only one at a time looks at the lock and takes a dead one away (flock(2), on the plans' directory: gone with its shell).
# Else two who find the same dead lock both get it: the second would remove what the first had just made.
_CLAIM = (
    _BORN
    + """
umask 077; d=@PLANS@; l=@LOCK@; p=@PLAN@
[ ! -e "$d/$p" ] || { echo "plan $p was already run here"; exit 75; }
mkdir -p "$d" && mkdir "$d/$p" || exit 74
echo @DIGEST@ >"$d/$p/digest"
(flock 9 || { rm -rf "$d/$p"; exit 76; }
i=0; until ln -s "$p @PID@ $(born @PID@)" "$l" 2>/dev/null; do
  set -f -- $(readlink "$l")
  [ -n "$2" ] && [ "$(born "$2")" = "$3" ] && { echo "plan $1 is changing this host"; rm -rf "$d/$p"; exit 76; }
  rm -f "$l"; i=$((i + 1)); [ $i -lt 5 ] || { echo "$l cannot be made"; rm -rf "$d/$p"; exit 76; }
done) 9<"$d"
"""
)
_RELEASE = 'case "$(readlink @LOCK@)" in @PLAN@" "*) rm -f @LOCK@;; esac'
_LEFT = (
    _BORN
    + """
d=@PLANS@; l=@LOCK@; p=@PLAN@
[ -d "$d" ] || exit 0
(flock 9 || exit 1
set -f -- $(readlink "$l")
[ "$1" = "$p" ] || exit 0
[ "$(born "$2")" != "$3" ] || exit 1
rm -f "$l") 9<"$d"
"""
)


class _Stopped(Exception):  # noqa: N818 - a plan's orderly early end
    """A step did not work; its record already says why. `ran`: its commands were begun, so they are taken back too."""

    def __init__(self, *, ran: bool) -> None:
        super().__init__()
        self.ran = ran


class Runner:
    """Starts plans, one task each, and picks up what an earlier life of the process left."""

    def __init__(
        self, book: PlanBook, host: Callable[[str], Host], key: bytes, *, marks: Marks | None = None, pace: Pace | None = None
    ) -> None:
        """`host` opens a host by name; `key` seals command lines."""
        self._book = book
        self._host = host
        self._key = key
        self._marks = marks or Marks()
        self._pace = pace or Pace()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, plan_id: str) -> None:
        """Run an approved plan."""
        self._spawn(self._run(plan_id), f"plan {plan_id}")

    async def recover(self) -> None:
        """Plans that were under way when the process ended are read, never repeated."""
        for plan_id in await self._book.unfinished():
            self._spawn(self._interrupted(plan_id), f"look at plan {plan_id}")

    async def drain(self, within_s: float) -> None:
        """Let running plans come to their end; what does not is interrupted, as after a crash."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        late = tuple(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("a plan's run broke", exc_info=task.exception())

    async def _run(self, plan_id: str) -> None:
        try:
            if not await self._book.move(plan_id, "running"):
                return
            plan = await self._book.get(plan_id)
            run = _Run(plan, self._book, self._host(plan.draft.host), self._key, self._marks, self._pace)
            await run.to_its_end()
        except HostError as trouble:
            log.warning("a plan was interrupted", plan=plan_id, kind=trouble.kind)
            await self._interrupted(plan_id)
        except Exception:
            log.exception("a plan broke", plan=plan_id)
            await self._interrupted(plan_id)

    async def _interrupted(self, plan_id: str) -> None:
        """Read the host until it answers and the store takes which steps hold, and say so."""
        pause_s = self._pace.pause_s
        while True:
            try:
                await self._look(plan_id)
            except HostError:
                pass
            except Exception:  # the store's, mostly: a plan must not say for ever that it runs
                log.exception("an interrupted plan could not be kept, trying on", plan=plan_id)
            else:
                return
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            pause_s = min(PATIENCE_S, pause_s * 2)

    async def _look(self, plan_id: str) -> None:
        """Keep which steps of an interrupted plan hold."""
        plan = await self._book.get(plan_id)
        host = self._host(plan.draft.host)
        async with host.converse() as talk:
            await self._until_left(plan, talk)
            plan = await self._book.get(plan_id)  # who ran it may live: a `memwarden ask` that works alone on this store
            if plan.state in FINAL:
                return
            await self._read_steps(plan, talk)
        await self._book.move(plan_id, "interrupted", after=await _measure(host))

    async def _until_left(self, plan: Plan, talk: Conversation) -> None:
        """A step may outlive the link that began it: what holds is only known when its shell is gone, and systemd's job."""
        loop = asyncio.get_running_loop()
        end = loop.time() + sum(step.deadline_s for step in plan.draft.steps)
        while await self._goes_on(plan, talk):
            if loop.time() >= end:
                return
            await asyncio.sleep(self._pace.pause_s)

    async def _goes_on(self, plan: Plan, talk: Conversation) -> bool:
        if (await _as_root(talk, plan, self._marks.left(plan), QUICK_S)).status:
            return True
        begun = [
            step for step, record in zip(plan.draft.steps, plan.steps, strict=True) if record.state == "running" and step.busy
        ]
        return any([(await _as_root(talk, plan, step.busy, QUICK_S)).status == 0 for step in begun])

    async def _read_steps(self, plan: Plan, talk: Conversation) -> None:
        for n, (step, record) in enumerate(zip(plan.draft.steps, plan.steps, strict=True)):
            if record.state in {"waiting", "skipped"}:
                # Not begun, or done by somebody else: whatever holds there is not this plan's.
                await self._book.step(plan.id, n, "skipped", output=record.output, holds=False)
                continue
            holds = (await _as_root(talk, plan, step.holds, QUICK_S)).status == 0
            state = record.state if record.state != "running" else "done" if holds else "unknown"
            await self._book.step(plan.id, n, state, output=record.output, holds=holds)


class _Run:
    """One run of one plan."""

    def __init__(self, plan: Plan, book: PlanBook, host: Host, key: bytes, marks: Marks, pace: Pace) -> None:
        self._plan = plan
        self._book = book
        self._host = host
        self._key = key
        self._marks = marks
        self._pace = pace

    async def to_its_end(self) -> None:
        """Raises HostError when the link ends first: then nobody knows yet what holds."""
        before = await _measure(self._host)
        async with self._host.converse() as talk:
            if not await self._the_same_host(before):
                return
            pid = (await talk.run("echo $$", deadline_s=QUICK_S)).output.strip()
            if not pid.isdigit():
                raise HostError("no-shell", T("{host} did not tell its shell's process id.", host=Mono(self._plan.draft.host)))
            claimed = await _as_root(talk, self._plan, self._marks.claim(self._plan, pid), QUICK_S)
            if claimed.status:
                await self._fail(claimed, before)
                return
            try:
                await self._steps(talk, before)
            finally:
                await self._release(talk)

    async def _the_same_host(self, before: Measure | None) -> bool:
        """Whether the host proved the key that the plan was drawn with: a name may lead to another machine by now."""
        drawn = self._plan.draft.basis.get("host_key", "")
        if not drawn or self._host.host_key == drawn:
            return True
        await self._fail(Done(1, f"this host proves the key {self._host.host_key}, the plan was drawn with {drawn}"), before)
        return False

    async def _steps(self, talk: Conversation, before: Measure | None) -> None:
        done: list[int] = []
        n = 0
        try:
            for n, step in enumerate(self._plan.draft.steps):
                if await self._one(talk, n, step):
                    done.append(n)
            output = await self._verify(talk)
        except _Stopped as stopped:
            output = ""
            done += [n] if stopped.ran else []
        if output is None:
            await self._book.move(self._plan.id, "verified", before=before, after=await _measure(self._host))
            return
        back = await self._take_back(talk, done)
        state = "rolled-back" if back else "failed"
        await self._book.move(self._plan.id, state, before=before, after=await _measure(self._host), output=output)  # type: ignore[arg-type]

    async def _one(self, talk: Conversation, n: int, step: Step) -> bool:
        """Look once more, do it, see that it holds. False when somebody else did it before. Raises _Stopped."""
        book, plan = self._book, self._plan
        await book.step(plan.id, n, "running")
        look = await _as_root(talk, plan, step.check, QUICK_S)
        if look.status and (await _as_root(talk, plan, step.holds, QUICK_S)).status == 0:
            await book.step(plan.id, n, "skipped", output="already so, not by this plan", holds=False)
            return False
        if look.status or not await self._same(step):
            await book.step(plan.id, n, "failed", output=look.output or f"{step.target} is not what was approved", holds=False)
            raise _Stopped(ran=False)
        script = "set -e\n" + "\n".join(step.commands)
        came_to = await _as_root(talk, plan, script, step.deadline_s)
        holds = await self._comes_true(talk, step.holds, wait=came_to.status == 0)
        if came_to.status or not holds:
            output = came_to.output or f"exit status {came_to.status}"
            await book.step(plan.id, n, "failed", output=output, holds=holds)
            raise _Stopped(ran=True)
        await book.step(plan.id, n, "done", output=came_to.output, holds=True)
        return True

    async def _same(self, step: Step) -> bool:
        """What only the bot can look at: the command line behind a pid."""
        same = discover()[step.kind].same
        if same is None or step.params.get("undoes"):
            return True
        processes = (await self._host.ask(PROCESSES))[PROCESSES]
        return isinstance(processes, Processes) and same(step, processes, self._key)

    async def _comes_true(self, talk: Conversation, script: str, *, wait: bool = True) -> bool:
        """Ask until it holds, for as long as an effect may take to show."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (self._pace.settle_s if wait else 0)
        while True:
            if (await _as_root(talk, self._plan, script, QUICK_S)).status == 0:
                return True
            if loop.time() >= end:
                return False
            await asyncio.sleep(self._pace.pause_s)

    async def _verify(self, talk: Conversation) -> str | None:
        """None when the whole plan reached its end and it lasts, else what did not."""
        script = self._plan.draft.verify
        await self._comes_true(talk, script)
        first = await _as_root(talk, self._plan, script, QUICK_S)
        if first.status == 0:
            # A service that fails a moment after its start is active until then.
            await asyncio.sleep(self._pace.steady_s)
            second = await _as_root(talk, self._plan, script, QUICK_S)
            if (second.status, second.output) == (0, first.output):
                return None
            first = second if second.status else Done(1, f"{first.output}{second.output}it was started anew meanwhile")
        return first.output or "not verified"

    async def _take_back(self, talk: Conversation, done: list[int]) -> bool:
        """Undo what was done, or half done, in reverse. True when all of it could be taken back."""
        whole = bool(done)
        for n in reversed(done):
            step = self._plan.draft.steps[n]
            back = invert(step)
            if back is None:
                whole = False
                continue
            came_to = await _as_root(talk, self._plan, "\n".join(back.commands), back.deadline_s)
            undone = await self._comes_true(talk, back.holds)
            whole = whole and undone
            record = (await self._book.get(self._plan.id)).steps[n]
            # The one that failed stays the one that failed, with what it said.
            state: StepState = "undone" if undone and record.state != "failed" else "failed"
            said = record.output if record.state == "failed" else came_to.output
            await self._book.step(self._plan.id, n, state, output=said or record.output, holds=not undone)
        await self._skip_the_rest()
        return whole

    async def _skip_the_rest(self) -> None:
        for n, record in enumerate((await self._book.get(self._plan.id)).steps):
            if record.state == "waiting":
                await self._book.step(self._plan.id, n, "skipped", holds=False)

    async def _release(self, talk: Conversation) -> None:
        try:
            await _as_root(talk, self._plan, self._marks.release(self._plan), QUICK_S)
        except HostError:
            log.info("the lock stays until its shell is gone", plan=self._plan.id)

    async def _fail(self, claimed: Done, before: Measure | None) -> None:
        await self._skip_the_rest()
        await self._book.move(self._plan.id, "failed", before=before, output=claimed.output)


async def _as_root(talk: Conversation, plan: Plan, script: str, deadline_s: float) -> Done:
    """Run a script with the rights that the plan was drawn with: root's own, or through sudo."""
    if plan.draft.basis.get("root") == "sudo":
        script = f"sudo -n /bin/sh -c {shlex.quote(script)}"
    return await talk.run(script, deadline_s=deadline_s)


async def _measure(host: Host) -> Measure | None:
    try:
        memory = (await host.ask(MEMORY))[MEMORY]
    except HostError:
        return None
    return Measure(memory.used_percent, memory.available_bytes) if isinstance(memory, Memory) else None
