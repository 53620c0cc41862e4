"""PHP-FPM: a master and pools of children, told apart by their titles."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain
from remote.services.argv import options, program
from remote.services.base import Kind, Role, Sign

_TITLE = re.compile(r"php-fpm: (?:master process \((?P<file>.*)\)|pool (?P<pool>.*))", re.DOTALL)
_NAME = re.compile(r"php-fpm(?:\d(?:\.\d+)?)?")
_FLAGS = ("-i", "-m", "-n", "-t", "-v", "-h", "-e", "-D", "-F", "-O", "-R", "--nodaemonize", "--daemonize", "--force-stderr")
_NO_SERVER = ("-i", "--info", "-m", "--modules", "-t", "--test", "-v", "--version", "-h", "--help")
# zlog.c: to a file or stderr with a date, to syslog (and so the journal) without one.
_POOL = (
    r"(?:\[\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d(?:\.\d{6})?\] WARNING: |\[WARNING\] )"
    r"\[pool [^\[\]\s]{1,100}\] child (\d{1,9})"
)
_KILLED = line(
    _POOL + r" exited on signal (\d{1,3}) \([A-Z0-9?]{2,12}(?: - core dumped)?\) after \d{1,12}\.\d{6} seconds from start"
)
_TIMEOUT = line(_POOL + r", script '.*\"\) execution timed out \(\d{1,12}\.\d{6} sec\), terminating")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The master or a pool's child by its title, or the command that starts it."""
    title = _TITLE.fullmatch(argv[0].strip()) if argv else None
    if title:
        app = title["pool"] if title["file"] is None else title["file"]
        return (_role(app, process, master=title["file"] is not None),)
    found = program(argv, process.cwd or "")
    if found is None or not _NAME.fullmatch(found.name) or found.interpreted:
        return ()
    given = options(found.args, (*_FLAGS, "--allow-to-run-as-root", "--no-php-ini", "--test", "--info", "--modules"))
    return () if given.has(*_NO_SERVER) else (_role(given.last("-y", "--fpm-config"), process, master=True),)


def _role(app: str, process: Process, *, master: bool) -> Role:
    return Role(KIND.name, app, uid=process.uid, cwd=process.cwd or "", master=master)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is PHP-FPM's."""
    return process.exe is None or _NAME.fullmatch(process.exe.rsplit("/", 1)[-1]) is not None


def sign(entry: Entry) -> Sign | None:
    """What the master logs of its children. The path and the query that stand in the line of a time-out are a visitor's."""
    text = plain(entry.message)
    if said := _KILLED.fullmatch(text):
        return Sign("killed", int(said[1]), int(said[2]))
    said = _TIMEOUT.fullmatch(text)
    return Sign("timeout", int(said[1])) if said else None


_TELLINGS = ("child [0-9]+ exited on signal", "execution timed out .* terminating")

KIND = Kind("php-fpm", "PHP-FPM", recognise, order=14, genuine=genuine, sign=sign, tellings=_TELLINGS, prefork=True)
