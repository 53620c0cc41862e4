"""Celery's worker: `celery -A proj worker`, also one that is a beat as well (`-B`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services import _celery
from remote.services.argv import by_python, plain
from remote.services.base import Kind, Role, Sign

# `[2026-11-23 20:29:14,193: ERROR/MainProcess] Process 'ForkPoolWorker-1' pid:451 exited with 'signal 9 (SIGKILL)'`
_EXITED = re.compile(r"Process '[^']{1,200}' pid:(\d{1,9}) exited with 'signal (9|15) \(SIG\w+\)'\s*$")
_LIMIT = re.compile(r"(?:^|[\] ])Hard time limit \((\d{1,9}(?:\.\d{1,9})?)s\) exceeded for ")
# The status may be lost in a storm (`exitcode 0`): billiard src pool.py, `exitcodes.get(pid) or 0`.
_LOST = re.compile(r"WorkerLostError.{0,4}Worker exited prematurely: (?:signal 9|exitcode 0)")


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
        ),
    )


def _workers(line: _celery.Line) -> int:
    """The pool's processes. A pool of threads or greenlets is one process."""
    if line.options.last("-P", "--pool") in {"solo", "threads", "gevent", "eventlet"}:
        return 1
    most = line.options.last("--autoscale").split(",")[0]
    return int(most) if most.isascii() and most.isdigit() else line.options.number("-c", "--concurrency")


def sign(entry: Entry) -> Sign | None:
    """What the main process logs when it finds a child dead or ends one for its time limit."""
    message = plain(entry.message)
    if found := _EXITED.search(message):
        return Sign("killed", int(found[1]), int(found[2]))
    if found := _LIMIT.search(message):
        return Sign("limit", limit_s=float(found[1]))
    return Sign("lost") if _LOST.search(message) else None


_TELLINGS = ("exited with .signal", "WorkerLostError", "Hard time limit")

KIND = Kind("celery-worker", "celery worker", recognise, order=20, genuine=by_python, twins=True, sign=sign, tellings=_TELLINGS)
