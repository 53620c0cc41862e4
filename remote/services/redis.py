"""Redis and Valkey: one process that names its address, and a child while it saves."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.processes import Process
from remote.services.argv import program
from remote.services.base import Kind, Role

_NAMES = ("redis-server", "valkey-server", "keydb-server")
# `redis-server 127.0.0.1:6379 [cluster]` is its own title; the child that saves is `redis-rdb-bgsave 127.0.0.1:6379`.
_TITLE = re.compile(r"\S*?(?:redis|valkey|keydb)-(?P<part>server|rdb-bgsave|aof-rewrite) (?P<address>\S*:\d+)(?: \[\w+\])?")
# Debian's redis-server is a link: the executable is redis-check-rdb.
_EXECUTABLE = re.compile(r"(?:redis|valkey|keydb)-(?:server|check-rdb|check-aof|sentinel)")


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


KIND = Kind("redis", "Redis", recognise, order=50, genuine=genuine)
