"""RQ: a worker that forks a work horse for each job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain
from remote.services.argv import by_python, options, python_program, settings
from remote.services.base import Kind, Role, Sign

# rq/worker: `rq:worker:NAME: Started job at …`, where setproctitle is installed.
_TITLE = re.compile(r"rq:worker:(?P<node>[^\s:]+): .*", re.DOTALL)
_FLAGS = frozenset(
    (
        *("-b", "--burst", "-v", "--verbose", "-q", "--quiet", "--with-scheduler", "-s", "--disable-job-desc-logging"),
        *("--disable-default-exception-handler", "--help", "--version"),
    )
)
# logutils.py: the time of day and the text. The worker's name stands before most since 2.2.
_START = r"\d\d:\d\d:\d\d "
_NAMED = _START + r"(?:Worker [^\s:]{1,100}: )?"
_ENDED = line(_START + r"Work horse killed for job [\w:.-]{1,100}: retpid=(\d{1,9}), ret_val=(\d{1,3})")
_KILLED = line(_NAMED + r"[Kk]illed horse pid (\d{1,9})")
_LOST = line(
    _NAMED + r"(?:Moving job to FailedJobRegistry|job [\w:.-]{1,100} failed) "
    r"\(Work-horse terminated unexpectedly; waitpid returned (?P<status>\d{1,5}|None)(?: \(signal \d{1,3}\))?; \)"
)
_TASK = line(_NAMED + r"[\w.:-]{1,100}: ([A-Za-z_][\w.]{0,200})\(.*\) \([\w:.-]{1,100}\)")
_SIGNAL = 0x7F  # of wait(2)'s status; zero where it exited


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The worker; its work horse has the same command line."""
    title = _TITLE.fullmatch(argv[0].strip()) if len(argv) == 1 else None
    if title:
        return (Role(KIND.name, "", node=title["node"], uid=process.uid, cwd=process.cwd or ""),)
    found = python_program(argv, process)
    if found is None or not _is_worker(found.name, found.args):
        return ()
    given = options(found.args, _FLAGS)
    if given.has("--help", "--version"):
        return ()
    words = given.words if found.name == "rqworker" else given.words[1:]
    return (
        Role(
            KIND.name,
            given.last("-c", "--config"),
            queues=tuple(sorted(set(words))),
            node=given.last("-n", "--name"),
            settings=settings({"redis": given.last("-u", "--url")}),
            uid=process.uid,
            cwd=(given.last("-P", "--path") if not process.pid else "") or process.cwd or "",
        ),
    )


def _is_worker(name: str, args: Sequence[str]) -> bool:
    """`rq worker`, the old `rqworker`, django-rq's `manage.py rqworker`."""
    return name == "rqworker" or (name, *args[:1]) in {("rq", "worker"), ("manage.py", "rqworker")}


def sign(entry: Entry) -> Sign | None:
    """What the worker logs of its work horse. It ends one itself a minute after the job's time is up (or when told to)."""
    text = plain(entry.message)
    if said := _ENDED.fullmatch(text):
        number = int(said[2]) & _SIGNAL
        return Sign("killed", int(said[1]), number) if number else Sign("exiting", int(said[1]))
    if said := _KILLED.fullmatch(text):
        return Sign("limit", int(said[1]))
    if said := _LOST.fullmatch(text):
        number = int(said["status"]) & _SIGNAL if said["status"] != "None" else 9
        return Sign("lost", signal=number) if number else None
    said = _TASK.fullmatch(text)
    return Sign("task", task=said[1]) if said else None


_TELLINGS = ("Work horse killed for job", "illed horse pid", "Work-horse terminated unexpectedly")
_ASIDES = ("[0-9][0-9]:[0-9][0-9] (Worker .*: )?[A-Za-z0-9_.:-]+: [A-Za-z0-9_.]+[(].*[)] [(]",)

KIND = Kind("rq", "RQ worker", recognise, order=22, genuine=by_python, sign=sign, tellings=_TELLINGS, asides=_ASIDES)
