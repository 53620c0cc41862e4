"""nginx: a master, workers and cache processes, each with a title of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.processes import Process
from remote.services.argv import options, program
from remote.services.base import Kind, Role

_TITLE = re.compile(r"nginx: (?:master process (?P<line>.*)|(?:worker|cache manager|cache loader) process.*)", re.DOTALL)
# -t, -T and -v only look at the configuration, -s speaks to the master.
_NO_SERVER = ("-t", "-T", "-v", "-V", "-s", "-h", "-?")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The master or one of its children by title, or the command that starts it."""
    title = _TITLE.fullmatch(argv[0].strip()) if argv else None
    if title and title["line"] is None:
        return (Role(KIND.name, "", uid=process.uid, cwd=process.cwd or "", master=False),)
    found = program(title["line"].split() if title else argv, process.cwd or "")
    if found is None or found.name != "nginx" or found.interpreted:
        return ()
    given = options(found.args, ("-t", "-T", "-v", "-V", "-q", "-h", "-?"))
    if given.has(*_NO_SERVER):
        return ()
    return (Role(KIND.name, given.last("-c"), uid=process.uid, cwd=process.cwd or ""),)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is nginx'."""
    return process.exe is None or process.exe.rsplit("/", 1)[-1] in {"nginx", "openresty"}


KIND = Kind("nginx", "nginx", recognise, order=60, genuine=genuine)
