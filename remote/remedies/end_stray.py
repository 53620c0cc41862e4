"""End a process that nobody's unit owns and that does a unit's work: by its whole identity, with SIGTERM only.

A celery worker's main process, asked with SIGTERM, finishes its tasks and takes its children along (warm shutdown). SIGKILL is
never sent: it would lose the task in hand.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from remote.remedies.base import Remedy, Step
from remote.text import Mono, Span, T

if TYPE_CHECKING:
    from remote.facts.processes import Process, Processes

KIND = "end-stray"


def propose(stray: Process, *, boot_id: str, title: str, frees_bytes: int, timeout_s: int, key: bytes) -> Step:
    """End one stray master. `title` names its service, `timeout_s` bounds its task in hand, `key` seals its argv."""
    same, pid = _same(stray, boot_id), stray.pid
    name = f"{title} (pid {pid})"
    wait = (
        f'i=0; while [ $i -lt {timeout_s} ]; do [ -d /proc/{pid} ] && [ "$(born)" = {stray.start_ticks} ] || exit 0; '
        f'sleep 1; i=$((i + 1)); done; echo "pid {pid} still runs after {timeout_s} s"; exit 1'
    )
    return Step(
        kind=KIND,
        target=f"pid {pid}",
        text=T("End the stray {name}", name=Mono(name)),
        commands=("\n".join([same, f"kill -TERM {pid} || exit 1", wait]),),
        undo=(),
        check=same,
        holds=f'{_BORN.format(pid=pid)}\n[ ! -d /proc/{pid} ] || [ "$(born)" != {stray.start_ticks} ]',
        frees_bytes=frees_bytes,
        interrupts=T("The stray takes no new task; the one in hand may finish, for up to {time}", time=Span(timeout_s)),
        cannot_undo=T("It was started by hand, so I cannot start it again"),
        deadline_s=timeout_s + 60.0,
        params={
            "pid": pid,
            "start_ticks": stray.start_ticks,
            "uid": stray.uid,
            "exe": stray.exe or "",
            "cgroup": stray.cgroup,
            "boot_id": boot_id,
            "argv": stray.command.digest(key),
        },
    )


# Field 22 of /proc/PID/stat counted after the last `)`: comm may hold anything, a `)` too (PR_SET_NAME in prctl(2)).
_BORN = 'born() {{ s=$(cat /proc/{pid}/stat 2>/dev/null) || return; s=${{s##*) }}; set -f -- $s; echo "${{20}}"; }}'


def _same(stray: Process, boot_id: str) -> str:
    """A script that exits 0 while that pid is still that very process; its argv is looked at from the bot (`same`)."""
    pid = stray.pid
    uid = shlex.quote(f"^Uid:[[:space:]]*{stray.uid}[[:space:]]")
    tests = [
        (f"[ {pid} -gt 1 ]", "pid 1 is never ended"),
        (f'[ "$(tr -d - </proc/sys/kernel/random/boot_id)" = {shlex.quote(boot_id)} ]', "the host was restarted since"),
        (f'[ "$(born)" = {stray.start_ticks} ]', f"pid {pid} is another process now"),
        (f"grep -q {uid} /proc/{pid}/status", f"pid {pid} belongs to another user now"),
        ("in_cgroup", f"pid {pid} moved to another cgroup"),
    ]
    if stray.exe:
        tests.append((f'[ "$(readlink /proc/{pid}/exe)" = {shlex.quote(stray.exe)} ]', f"pid {pid} runs another program now"))
    in_cgroup = (
        "in_cgroup() { while IFS= read -r line; do "
        f'[ "${{line#*:*:}}" != {shlex.quote(stray.cgroup)} ] || return 0; done </proc/{pid}/cgroup; return 1; }}'
    )
    lines = [_BORN.format(pid=pid), in_cgroup, *(f"{test} || {{ echo {shlex.quote(why)}; exit 1; }}" for test, why in tests)]
    return "\n".join(lines)


def _still(step: Step, processes: Processes, key: bytes) -> bool:
    """Whether the process with that pid still has the very command line that was approved."""
    wanted = (step.params["pid"], step.params["start_ticks"], step.params["argv"])
    return any((one.pid, one.start_ticks, one.command.digest(key)) == wanted for one in processes.all)


REMEDY = Remedy(kind=KIND, title=T("End a stray process"), order=20, same=_still)
