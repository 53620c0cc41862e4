"""Runs approved plans: step by step over one shell of the host, each kept before and after, then verified or taken back.

A plan runs once because the host remembers it: its first act there makes /var/lib/memwarden/plans/ID, and a directory that is
already there ends the run. After a crash or a cut link nothing is repeated: the host is read, and the plan says which steps hold.
"""

from __future__ import annotations

import asyncio
import random
import shlex
from typing import TYPE_CHECKING

import structlog

from handlers.ports.plans import Measure, Plan
from remote.errors import HostError
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES, Processes
from remote.remedies import discover
from remote.remedies.base import invert
from remote.text import Mono, T

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bot.plans import PlanBook
    from remote.connect.base import Conversation, Done, Host
    from remote.remedies.base import Step

log = structlog.get_logger(__name__)

ALREADY_RUN, BUSY = 75, 76
SETTLE_S = 45.0  # how long a step's effect may take to show after its commands are done
PAUSE_S = 1.0
QUICK_S = 30.0
PATIENCE_S = 60.0  # the longest pause between two looks at a host that does not answer after an interruption

# One writer a host. The link's target is the holder: plan, pid of the shell that runs it, that process's start time. A holder
# whose shell is gone (the link was cut) holds nothing any more.
CLAIM = """
umask 077; d=/var/lib/memwarden/plans; l=/run/memwarden.lock
mkdir -p $d && mkdir $d/{plan} || {{ echo "plan {plan} was already run here"; exit 75; }}
echo '{digest}' >$d/{plan}/digest
born() {{ s=$(cat /proc/$1/stat 2>/dev/null) || return; s=${{s##*) }}; set -f -- $s; echo "${{20}}"; }}
i=0; until ln -s "{plan} {pid} $(born {pid})" $l 2>/dev/null; do
  set -f -- $(readlink $l)
  [ -n "$2" ] && [ "$(born $2)" = "$3" ] && {{ echo "plan $1 is changing this host"; rm -rf $d/{plan}; exit 76; }}
  rm -f $l; i=$((i + 1)); [ $i -lt 5 ] || exit 76
done
"""
RELEASE = 'case "$(readlink /run/memwarden.lock)" in "{plan} "*) rm -f /run/memwarden.lock;; esac'


class _Stopped(Exception):  # noqa: N818 - a plan's orderly early end
    """A step did not work; its record already says why. `ran`: its commands were begun, so they are taken back too."""

    def __init__(self, *, ran: bool) -> None:
        super().__init__()
        self.ran = ran


class Runner:
    """Starts plans, one task each, and picks up what an earlier life of the process left."""

    def __init__(self, book: PlanBook, host: Callable[[str], Host], key: bytes) -> None:
        """`host` opens a host by name; `key` seals command lines."""
        self._book = book
        self._host = host
        self._key = key
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
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("a plan's run broke", exc_info=task.exception())

    async def _run(self, plan_id: str) -> None:
        if not await self._book.move(plan_id, "running"):
            return
        plan = await self._book.get(plan_id)
        try:
            await _Run(plan, self._book, self._host(plan.draft.host), self._key).to_its_end()
        except HostError as trouble:
            log.warning("a plan was interrupted", plan=plan_id, kind=trouble.kind)
            await self._interrupted(plan_id)

    async def _interrupted(self, plan_id: str) -> None:
        """Read the host until it answers, keep which steps hold, say so."""
        plan = await self._book.get(plan_id)
        host, pause_s = self._host(plan.draft.host), PAUSE_S
        while True:
            try:
                async with host.converse() as talk:
                    await self._read_steps(plan, talk)
                    await _as_root(talk, plan, RELEASE.format(plan=plan.id), QUICK_S)
                break
            except HostError:
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                pause_s = min(PATIENCE_S, pause_s * 2)
        await self._book.move(plan_id, "interrupted", after=await _measure(host))

    async def _read_steps(self, plan: Plan, talk: Conversation) -> None:
        for n, (step, record) in enumerate(zip(plan.draft.steps, plan.steps, strict=True)):
            if record.state == "waiting":
                await self._book.step(plan.id, n, "skipped", holds=False)
                continue
            holds = (await _as_root(talk, plan, step.holds, QUICK_S)).status == 0
            state = record.state if record.state != "running" else "done" if holds else "unknown"
            await self._book.step(plan.id, n, state, output=record.output, holds=holds)


class _Run:
    """One run of one plan."""

    def __init__(self, plan: Plan, book: PlanBook, host: Host, key: bytes) -> None:
        self._plan = plan
        self._book = book
        self._host = host
        self._key = key

    async def to_its_end(self) -> None:
        """Raises HostError when the link ends first: then nobody knows yet what holds."""
        before = await _measure(self._host)
        async with self._host.converse() as talk:
            pid = (await talk.run("echo $$", deadline_s=QUICK_S)).output.strip()
            if not pid.isdigit():
                raise HostError("no-shell", T("{host} did not tell its shell's process id.", host=Mono(self._plan.draft.host)))
            claim = CLAIM.format(plan=self._plan.id, digest=self._plan.digest, pid=pid)
            claimed = await _as_root(talk, self._plan, claim, QUICK_S)
            if claimed.status:
                await self._fail(claimed, before)
                return
            try:
                await self._steps(talk, before)
            finally:
                await _release(talk, self._plan)

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
        end = loop.time() + (SETTLE_S if wait else 0)
        while True:
            if (await _as_root(talk, self._plan, script, QUICK_S)).status == 0:
                return True
            if loop.time() >= end:
                return False
            await asyncio.sleep(PAUSE_S)

    async def _verify(self, talk: Conversation) -> str | None:
        """None when the whole plan reached its end, else what did not."""
        if await self._comes_true(talk, self._plan.draft.verify):
            return None
        return (await _as_root(talk, self._plan, self._plan.draft.verify, QUICK_S)).output or "not verified"

    async def _take_back(self, talk: Conversation, done: list[int]) -> bool:
        """Undo what was done, in reverse. True when everything that was done could be taken back."""
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
            said = came_to.output or (await self._book.get(self._plan.id)).steps[n].output
            await self._book.step(self._plan.id, n, "undone" if undone else "failed", output=said, holds=not undone)
        for n in range(len(self._plan.draft.steps)):
            if (await self._book.get(self._plan.id)).steps[n].state == "waiting":
                await self._book.step(self._plan.id, n, "skipped", holds=False)
        return whole

    async def _fail(self, claimed: Done, before: Measure | None) -> None:
        for n in range(len(self._plan.draft.steps)):
            await self._book.step(self._plan.id, n, "skipped", holds=False)
        await self._book.move(self._plan.id, "failed", before=before, output=claimed.output)


async def _as_root(talk: Conversation, plan: Plan, script: str, deadline_s: float) -> Done:
    """Run a script with the rights that the plan was drawn with: root's own, or through sudo."""
    if plan.draft.basis.get("root") == "sudo":
        script = f"sudo -n /bin/sh -c {shlex.quote(script)}"
    return await talk.run(script, deadline_s=deadline_s)


async def _release(talk: Conversation, plan: Plan) -> None:
    try:
        await _as_root(talk, plan, RELEASE.format(plan=plan.id), QUICK_S)
    except HostError:
        log.info("the lock stays until its shell is gone", plan=plan.id)


async def _measure(host: Host) -> Measure | None:
    try:
        memory = (await host.ask(MEMORY))[MEMORY]
    except HostError:
        return None
    return Measure(memory.used_percent, memory.available_bytes) if isinstance(memory, Memory) else None
