"""Celery's beat, the scheduler: there must be exactly one, or every task is sent twice."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.processes import Process
from remote.services import _celery
from remote.services.argv import by_python
from remote.services.base import Kind, Role


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """A beat of its own, or the one in a worker (`-B`)."""
    line = _celery.read(argv, process)
    if line is None:
        return ()
    both = line.command == "worker" and line.options.has("-B", "--beat")
    if line.command != "beat" and not both:
        return ()
    return (
        Role(
            service=KIND.name,
            app=line.app,
            settings=line.settings,
            uid=process.uid,
            cwd=line.cwd(process),
            master=line.master,
            both=both,
            nodes=line.nodes,
        ),
    )


KIND = Kind("celery-beat", "celery beat", recognise, order=30, genuine=by_python, twins=True)
