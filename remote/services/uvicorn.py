"""uvicorn: an ASGI server; with several workers a parent that starts them again."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain
from remote.services.argv import by_python, options, python_program, settings
from remote.services.base import Kind, Role, Sign

_FLAGS = frozenset(
    (
        *("--reload", "--access-log", "--no-access-log", "--use-colors", "--no-use-colors", "--proxy-headers", "--factory"),
        *("--no-proxy-headers", "--server-header", "--no-server-header", "--date-header", "--no-date-header"),
        *("--reset-contextvars", "--no-reset-contextvars", "--version", "--help"),
    )
)
_DIED = line(r"INFO: {5}Child process \[(\d{1,9})\] died")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The server, or the parent of its workers (which multiprocessing starts: their command line is Python's)."""
    found = python_program(argv, process)
    if found is None or found.name != "uvicorn":
        return ()
    given = options(found.args, _FLAGS)
    if given.has("--version", "--help"):
        return ()
    bind = given.last("--uds") or f"{given.last('--host') or '127.0.0.1'}:{given.last('--port') or '8000'}"
    return (
        Role(
            KIND.name,
            next(iter(given.words), ""),
            workers=given.number("--workers"),
            max_requests=given.number("--limit-max-requests"),
            settings=settings({"bind": bind}),
            uid=process.uid,
            cwd=(given.last("--app-dir") if not process.pid else "") or process.cwd or "",
        ),
    )


def sign(entry: Entry) -> Sign | None:
    """`Child process [N] died`: it ended, or answered nothing and was killed (multiprocess.py says the same of both)."""
    said = _DIED.fullmatch(plain(entry.message))
    return Sign("died", int(said[1])) if said else None


_TELLINGS = ("Child process .[0-9]+. died",)

KIND = Kind("uvicorn", "uvicorn", recognise, order=16, genuine=by_python, sign=sign, tellings=_TELLINGS)
