"""Puma: Ruby's server; in cluster mode a master that forks workers, and says nothing of one that was killed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain, wrote
from remote.services.argv import options, program
from remote.services.base import Kind, Role, Sign

# runner.rb: `puma 5.6.5 (tcp://127.0.0.1:3000) [app]`, `puma: cluster worker 0: 11677 [app]`
_TITLE = re.compile(r"puma(?: \d\S* \(.*\)|(?P<worker>: cluster worker \d+: \d+))(?: \[(?P<tag>.*)\])?", re.DOTALL)
_RUBY = re.compile(r"ruby[\d.]*")
_FLAGS = ("-q", "--quiet", "-v", "--debug", "--preload", "--prune-bundler", "-V", "--version", "-h", "--help", "-S", "-s")
_HUNG = line(
    r"\[(?P<master>\d{1,9})\] ! Terminating timed out worker"
    r"(?: \([Ww]orker(?: (?P<index>\d{1,6}))? failed to (?:check in|boot) within \d{1,9}(?:\.\d+)? seconds\))?: (?P<pid>\d{1,9})"
)
_BOOTED = line(
    r"\[(?P<master>\d{1,9})\] - Worker (?P<index>\d{1,6}) \((?:PID|pid): (?P<pid>\d{1,9})\) booted"
    r"(?: in \d{1,9}\.\d{1,4}s)?, phase: \d{1,9}"
)


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The server or a worker by its title, or the command that starts it (`bundle exec puma …`)."""
    title = _TITLE.fullmatch(argv[0].strip()) if len(argv) == 1 else None
    if title:
        return (_role(title["tag"] or "", process, master=title["worker"] is None),)
    words = _without_ruby(tuple(argv))
    if not words or posixpath.basename(words[0]) != "puma":
        return ()
    found = program(words, process.cwd or "")
    given = options(found.args if found else (), _FLAGS)
    if given.has("-V", "--version", "-h", "--help"):
        return ()
    app = given.last("-C", "--config") or next(iter(given.words), "")
    return (_role(app, process, master=True, workers=given.number("-w", "--workers")),)


def _without_ruby(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command line without the interpreter and `bundle exec`."""
    for _ in range(3):
        name = posixpath.basename(words[0]) if words else ""
        if _RUBY.fullmatch(name):
            words = words[1:]
        elif name == "bundle" and words[1:2] == ("exec",):
            words = words[2:]
    return words


def _role(app: str, process: Process, *, master: bool, workers: int = 0) -> Role:
    return Role(KIND.name, app, workers=workers, uid=process.uid, cwd=process.cwd or "", master=master)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is Ruby's."""
    return process.exe is None or _RUBY.fullmatch(posixpath.basename(process.exe)) is not None


def sign(entry: Entry) -> Sign | None:
    """A worker that it ends for it hung, and one that is new. That is all it says of the one that had its number before, were it
    killed or asked to end; so no name is given here by which one could be taken for the other."""
    text = plain(entry.message)
    if (said := _HUNG.fullmatch(text)) and wrote(entry, said["master"]):
        return Sign("timeout", int(said["pid"]), name=f"worker {said['index']}" if said["index"] else "")
    if (said := _BOOTED.fullmatch(text)) and wrote(entry, said["master"]):
        return Sign("booted", int(said["pid"]))
    return None


_TELLINGS = ("Terminating timed out worker", "Worker [0-9]+ .* booted")

KIND = Kind("puma", "Puma", recognise, order=17, genuine=genuine, sign=sign, tellings=_TELLINGS, prefork=True)
