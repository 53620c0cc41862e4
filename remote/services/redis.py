"""Redis and Valkey: one process that names its address, and a child while it saves."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain, wrote
from remote.services.argv import program
from remote.services.base import Kind, Role, Sign

_NAMES = ("redis-server", "valkey-server", "keydb-server")
# `redis-server 127.0.0.1:6379 [cluster]` is its own title; the child that saves is `redis-rdb-bgsave 127.0.0.1:6379`.
_TITLE = re.compile(r"\S*?(?:redis|valkey|keydb)-(?P<part>server|rdb-bgsave|aof-rewrite) (?P<address>\S*:\d+)(?: \[\w+\])?")
# Debian's redis-server is a link: the executable is redis-check-rdb.
_EXECUTABLE = re.compile(r"(?:redis|valkey|keydb)-(?:server|check-rdb|check-aof|sentinel)")

# server.c serverLogRaw: the pid, what the process is (M: master, S: replica), the time, how grave.
_LINE = line(r"(?P<pid>\d{1,9}):[MS] \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d\.\d{3} [.\-*#] (?P<text>.+)")
_CHILDREN = {"saving": "rdb", "transfer": "rdb", "RDB transfer": "rdb", "AOF rewrite": "aof", "append only file rewriting": "aof"}
_NAME = rf"Background ({'|'.join(_CHILDREN)})"
_STARTED = line(rf"{_NAME} started by pid (\d{{1,9}})")
_ENDED = line(rf"{_NAME} (?:terminated (?:with success|with error|by signal (\d{{1,3}}))|error)")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The server by its title or its command line, and the child that saves."""
    title = _TITLE.fullmatch(argv[0].strip()) if len(argv) == 1 else None
    if title:
        return (_role(title["address"], process, master=title["part"] == "server"),)
    found = program(argv, process.cwd or "")
    if found is None or found.name not in _NAMES or found.interpreted:
        return ()
    return (_role(found.args[0] if found.args and not found.args[0].startswith("-") else "", process, master=True),)


def _role(app: str, process: Process, *, master: bool) -> Role:
    return Role("redis", app, uid=process.uid, cwd=process.cwd or "", master=master)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is Redis' own."""
    return process.exe is None or _EXECUTABLE.fullmatch(process.exe.rsplit("/", 1)[-1]) is not None


def sign(entry: Entry) -> Sign | None:
    """What the server logs of the child that saves. Its end is told without a pid: that stands where it was started."""
    found = _LINE.fullmatch(plain(entry.message))
    if found is None or not wrote(entry, found["pid"]):
        return None
    if said := _STARTED.fullmatch(found["text"]):
        return Sign("booted", int(said[2]), name=_CHILDREN[said[1]])
    said = _ENDED.fullmatch(found["text"])
    if said is None:
        return None
    name = _CHILDREN[said[1]]
    return Sign("killed", signal=int(said[2]), name=name) if said[2] else Sign("exiting", name=name)


_TELLINGS = ("Background .* (terminated|error|started by pid)",)

KIND = Kind("redis", "Redis", recognise, order=50, genuine=genuine, sign=sign, tellings=_TELLINGS, comms=("redis-server",))
