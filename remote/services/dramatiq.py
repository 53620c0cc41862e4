"""Dramatiq: a main process and workers; when one of them dies, it stops all."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain, wrote
from remote.services.argv import by_python, options, python_program, settings
from remote.services.base import Kind, Role, Sign

_FLAGS = ("--watch-use-polling", "--use-spawn", "-v", "--verbose", "--skip-logging", "-h", "--help", "--version")
# What the workers print comes through the main process' pipe, with their pid in the brackets or with none.
_LINE = line(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] \[PID (?P<pid>\d{1,9})\] \[MainThread\] \[dramatiq\.MainProcess\] "
    r"\[[A-Z]{4,8}\] (?P<text>.+)"
)
_ENDED = line(r"Worker with PID (\d{1,9}) exited unexpectedly \(code (-?)(\d{1,3})\)\. Shutting down\.\.\.")
_VERSION = line(r"Dramatiq '(\d[\w.+-]{0,30})' is booting up\.")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The main process; its workers have the same command line."""
    found = python_program(argv, process)
    if found is None or found.name not in {"dramatiq", "dramatiq-gevent"}:
        return ()
    given = options(found.args, _FLAGS)
    if given.has("-h", "--help", "--version"):
        return ()
    return (
        Role(
            KIND.name,
            next(iter(given.words), ""),
            queues=tuple(sorted({queue for said in given.all("-Q", "--queues") for queue in said.split(",") if queue})),
            workers=given.number("-p", "--processes"),
            threads=given.number("-t", "--threads"),
            settings=settings({"pid_file": given.last("--pid-file")}),
            uid=process.uid,
            cwd=(given.last("-P", "--path") if not process.pid else "") or process.cwd or "",
        ),
    )


def sign(entry: Entry) -> Sign | None:
    """What the main process logs of a worker that ended: a code below zero is the signal's (Python's subprocess)."""
    found = _LINE.fullmatch(plain(entry.message))
    if found is None or not wrote(entry, found["pid"]):
        return None
    if said := _ENDED.fullmatch(found["text"]):
        return Sign("killed", int(said[1]), int(said[3])) if said[2] else Sign("exiting", int(said[1]))
    said = _VERSION.fullmatch(found["text"])
    return Sign("version", version=said[1]) if said else None


_TELLINGS = ("exited unexpectedly .code", "Dramatiq .* is booting up")

KIND = Kind("dramatiq", "Dramatiq", recognise, order=24, genuine=by_python, sign=sign, tellings=_TELLINGS)
