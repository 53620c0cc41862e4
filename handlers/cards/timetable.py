"""Kills a line each, by day: the clock's time, the pid, who killed it, what it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from handlers.cards.host import short_unit
from handlers.cards.verdict import program
from handlers.reply import Block, Line, Table
from remote.findings.causes import Cause
from remote.findings.kill import Kill
from remote.redact import clean
from remote.text import Mono, N, T, Value, When

ROWS = 60

# At most five columns wide, so that a name has room beside them on a phone; `legend` says what they mean.
_SHORT: dict[Cause, tuple[Value, Value]] = {
    "kernel-oom": (Mono("oom"), T("the whole machine was out of memory")),
    "cgroup-limit": (T("limit"), T("a memory limit was reached")),
    "systemd-oomd": (Mono("oomd"), T("by systemd-oomd")),
    "userspace-oom": (T("guard"), T("by an OOM daemon")),
    "worker-timeout": (T("hung"), T("by its own master, for it hung")),
    "stop-timeout": (T("stop"), T("by systemd, for it did not stop")),
    "time-limit": (T("long"), T("its task ran too long")),
    "container": (T("cont"), T("by its container's stop or kill")),
    "plan": (T("plan"), T("by a plan that was approved")),
    "manual": (T("hand"), T("by a person or a script")),
    "unknown": (Mono("?"), T("nobody knows")),
}


def timetable(kills: Sequence[Kill], now: datetime) -> Iterator[Block]:
    """These kills, newest first, a table a day; of many the newest, and how many more there are."""
    shown = kills[:ROWS]
    for day, its in groupby(shown, key=lambda kill: kill.at.astimezone(UTC).date()):
        of_day = tuple(its)
        if day != now.astimezone(UTC).date():
            yield Line(T("{at} and before", at=When(of_day[0].at)))
        yield Table(tuple(map(_row, of_day)), (T("UTC"), T("pid"), T("by"), T("process")))
    if len(kills) > ROWS:
        yield Line(N("and {n} earlier kill", "and {n} earlier kills", len(kills) - ROWS))
    yield from _legend(shown)


def _row(kill: Kill) -> tuple[Value, ...]:
    at = f"{kill.at.astimezone(UTC):%H:%M}"
    return (at, "–" if kill.pid is None else kill.pid, _SHORT[kill.cause][0], name(kill))


def name(kill: Kill) -> str:
    """The unit, which people know; the process' own name where it has none."""
    return short_unit(clean(kill.unit)) if kill.unit else clean(program(kill.name))


def _legend(kills: Sequence[Kill]) -> Iterator[Line]:
    for cause in dict.fromkeys(kill.cause for kill in kills):
        word, meaning = _SHORT[cause]
        yield Line(T("{word}: {meaning}", word=word, meaning=meaning))
