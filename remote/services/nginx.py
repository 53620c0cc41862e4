"""nginx: a master, workers and cache processes, each with a title of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain, wrote
from remote.services.argv import options, program
from remote.services.base import Kind, Role, Sign

_TITLE = re.compile(r"nginx: (?:master process (?P<line>.*)|(?:worker|cache manager|cache loader) process.*)", re.DOTALL)
# -t, -T and -v only look at the configuration, -s speaks to the master.
_NO_SERVER = ("-t", "-T", "-v", "-V", "-s", "-h", "-?")

# ngx_log.c and ngx_process.c; the master's pid stands twice (process and thread).
_ENDED = line(
    r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[alert\] (?P<master>\d{1,9})#\d{1,9}: "
    r"(?P<name>worker process|cache manager process|cache loader process) (?P<pid>\d{1,9}) "
    r"exited on signal (?P<signal>\d{1,3})(?: \(core dumped\))?"
)


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


def sign(entry: Entry) -> Sign | None:
    """`worker process N exited on signal 9`. One that ended by itself is told at a level that is hardly ever logged."""
    said = _ENDED.fullmatch(plain(entry.message))
    if said is None or not wrote(entry, said["master"]):
        return None
    return Sign("killed", int(said["pid"]), int(said["signal"]), name=said["name"])


_TELLINGS = ("process [0-9]+ exited on signal",)

KIND = Kind("nginx", "nginx", recognise, order=60, genuine=genuine, sign=sign, tellings=_TELLINGS, prefork=True)
