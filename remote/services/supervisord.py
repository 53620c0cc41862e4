"""supervisord: starts programs and starts them again. What they do is theirs; it knows how they ended."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, numbered, plain
from remote.services.argv import by_python, options, python_program
from remote.services.base import Kind, Role, Sign

_FLAGS = ("-n", "--nodaemon", "-s", "--silent", "-k", "--nocleanup", "-t", "--strip_ansi", "-v", "--version", "-h", "--help")
# loggers.py: `%(asctime)s %(levelname)s %(message)s`. The level of an end was INFO before 4.1.
_LINE = line(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]{4} (?P<text>.+)")
_NAME = r"([^'()\s]{1,100})"
_SPAWNED = line(rf"spawned: '{_NAME}' with pid (\d{{1,9}})")
_ENDED = line(
    rf"(?:exited|stopped): {_NAME} \((?:terminated by ((?:SIG[A-Z0-9]{{2,9}}|signal \d{{1,3}}))(?: \(core dumped\))?"
    r"|exit status \d{1,3})(?:; (?:not )?expected)?\)"
)
_KILLING = line(rf"killing '{_NAME}' \((\d{{1,9}})\) with SIGKILL")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The supervisor itself."""
    found = python_program(argv, process)
    if found is None or found.name != "supervisord":
        return ()
    given = options(found.args, _FLAGS)
    if given.has("-v", "--version", "-h", "--help"):
        return ()
    return (Role(KIND.name, given.last("-c", "--configuration"), uid=process.uid, cwd=process.cwd or ""),)


def sign(entry: Entry) -> Sign | None:
    """What it logs of its programs. How one ended is told with its name; the pid stands where it was spawned."""
    found = _LINE.fullmatch(plain(entry.message))
    text = found["text"] if found else ""
    if said := _SPAWNED.fullmatch(text):
        return Sign("booted", int(said[2]), name=said[1])
    if said := _KILLING.fullmatch(text):
        return Sign("forced", int(said[2]), name=said[1])
    said = _ENDED.fullmatch(text)
    if said is None:
        return None
    if said[2] is None:
        return Sign("exiting", name=said[1])
    number = numbered(said[2])
    return None if number is None else Sign("killed", signal=number, name=said[1])


_TELLINGS = ("spawned: .* with pid", "(exited|stopped): .*(terminated by|exit status)", "killing .* with SIGKILL")

KIND = Kind("supervisord", "supervisord", recognise, order=35, genuine=by_python, sign=sign, tellings=_TELLINGS)
