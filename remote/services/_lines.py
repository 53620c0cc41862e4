"""What the kinds share that read their program's log: who wrote a line, and what a signal is called."""

from __future__ import annotations

import re
import signal

from remote.facts.journal import Entry

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CORE_DUMPED = 0x80  # wait(2)'s status: the signal, and this


def plain(message: str) -> str:
    """A log line without terminal colours and without blanks at its end. What it starts with stays: PostgreSQL puts a tab
    before the further lines of what a client sent."""
    return _ANSI.sub("", message).rstrip(" ")


def line(pattern: str) -> re.Pattern[str]:
    """A whole line: for `fullmatch`, no line feed in it, digits ASCII."""
    return re.compile(pattern, re.ASCII)


def wrote(entry: Entry, pid: str) -> bool:
    """Whether the pid that stands in a line is the process that wrote it, as the kernel told journald."""
    return entry.pid is not None and int(pid) == entry.pid


def numbered(name: str) -> int | None:
    """The number of `SIGKILL`, `signal 9`, or `code 139` (a raw status); None for what is no signal."""
    word, _, number = name.partition(" ")
    if number:
        found = int(number) & ~_CORE_DUMPED if word == "code" else int(number)
        return found or None
    return signal.Signals.__members__.get(word)
