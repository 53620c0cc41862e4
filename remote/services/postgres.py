"""PostgreSQL: a main process, and children that say by their title what they do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services.argv import options, program
from remote.services.base import Kind, Role, Sign

_NAMES = ("postgres", "postmaster")
_TITLE = re.compile(r"postgres(?:|\s*): (?:(?P<cluster>\d+/[\w.-]+): )?\S.*", re.DOTALL)
_KILLED = re.compile(r"(?:LOG|ЗАПИСЬ|СООБЩЕНИЕ):  ?.{0,80}\(PID (\d{1,9})\) was terminated by signal 9")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The main process (`postgres -D /var/lib/…`), or a child (`postgres: 15/main: checkpointer`)."""
    title = _TITLE.fullmatch(argv[0].strip()) if argv else None
    if title:
        return (Role(KIND.name, title["cluster"] or "", uid=process.uid, cwd=process.cwd or "", master=False),)
    found = program(argv, process.cwd or "")
    if found is None or found.name not in _NAMES or found.interpreted:
        return ()
    data = options(found.args, ("-i", "-l", "-S", "--single")).last("-D")
    return (Role(KIND.name, data.rstrip("/"), uid=process.uid, cwd=process.cwd or ""),)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is PostgreSQL's."""
    return process.exe is None or process.exe.rsplit("/", 1)[-1] in _NAMES


def sign(entry: Entry) -> Sign | None:
    """`server process (PID 290) was terminated by signal 9: Killed`; from 18 on `client backend (PID 290) …`."""
    found = _KILLED.search(entry.message)
    return Sign("killed", int(found[1])) if found else None


KIND = Kind("postgres", "PostgreSQL", recognise, order=40, genuine=genuine, sign=sign, tellings=("was terminated by signal",))
