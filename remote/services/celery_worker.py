"""Celery's worker: `celery -A proj worker`, also one that is a beat as well (`-B`)."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services import _celery
from remote.services._lines import line, plain
from remote.services.argv import by_python
from remote.services.base import Kind, Role, Sign

# celery's own worker_log_format: `[2026-11-23 20:29:14,193: ERROR/MainProcess] …`. A child's line has the child's name there.
_LINE = line(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: [A-Z]{4,8}/MainProcess\] (?P<text>.+)")
_EXITED = line(r"Process '([^']{1,200})' pid:(\d{1,9}) exited with '(?:signal (\d{1,3}) \(SIG\w{2,9}\)|exitcode -?\d{1,3})'")
_TASK = r"([^\s\[\]]{1,200})\[[^\s\[\]]{1,200}\]"
_LIMIT = line(rf"Hard time limit \((\d{{1,9}}(?:\.\d{{1,9}})?)s\) exceeded for {_TASK}")
_RECEIVED = line(rf"(?:Received task: {_TASK}|Task {_TASK} received)")  # 4, and 5
# The status may be lost in a storm (`exitcode 0`): billiard src pool.py, `exitcodes.get(pid) or 0`.
_LOST = line(
    r"Task handler raised error: WorkerLostError\('Worker exited prematurely: "
    r"(?:signal (\d{1,3}) \(SIG\w{2,9}\)|exitcode 0)(?: Job: \d{1,18})?\.',?\)"
)


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The worker, and with `-B` nothing more: the beat in it is celery_beat's to say."""
    line = _celery.read(argv, process)
    if line is None or line.command != "worker":
        return ()
    given = line.options
    queues = ",".join(given.all("-Q", "--queues", "--queue")).split(",")
    return (
        Role(
            service=KIND.name,
            app=line.app,
            queues=tuple(sorted({queue.strip() for queue in queues if queue.strip()})),
            workers=_workers(line),
            max_requests=given.number("--max-tasks-per-child", "--maxtasksperchild"),
            node=line.node or given.last("-n", "--hostname"),
            settings=line.settings,
            uid=process.uid,
            cwd=line.cwd(process),
            master=line.master,
            both=given.has("-B", "--beat"),
            nodes=line.nodes,
        ),
    )


def _workers(line: _celery.Line) -> int:
    """The pool's processes. A pool of threads or greenlets is one process."""
    if line.options.last("-P", "--pool") in {"solo", "threads", "gevent", "eventlet"}:
        return 1
    most = line.options.last("--autoscale").split(",")[0]
    return int(most) if most.isascii() and most.isdigit() else line.options.number("-c", "--concurrency")


def sign(entry: Entry) -> Sign | None:
    """What the main process logs when it finds a child dead, ends one for its time limit, or takes a task in hand."""
    found = _LINE.fullmatch(plain(entry.message))
    text = found["text"] if found else ""
    if said := _EXITED.fullmatch(text):
        pid, name = int(said[2]), said[1]
        return Sign("killed", pid, int(said[3]), name=name) if said[3] else Sign("exiting", pid, name=name)
    if said := _LIMIT.fullmatch(text):
        return Sign("limit", limit_s=float(said[1]), task=said[2])
    if said := _LOST.fullmatch(text):
        return Sign("lost", signal=int(said[1] or 9))
    said = _RECEIVED.fullmatch(text)
    return Sign("task", task=said[1] or said[2]) if said else None


_TELLINGS = ("pid:[0-9]+ exited with", "WorkerLostError", "Hard time limit")
_ASIDES = ("MainProcess. (Received task|Task .* received)",)

KIND = Kind(
    "celery-worker", "celery worker", recognise, order=20, genuine=by_python, twins=True, sign=sign, tellings=_TELLINGS,
    asides=_ASIDES, comms=("celery", "celeryd"), program="celery", prefork=True,
)  # fmt: skip
