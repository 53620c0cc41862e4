"""The kills of a host, as far as its journal tells: what is asked, what is found, and what is said when nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from handlers.cards.failure import needed
from handlers.cards.journal import INSTEAD, partial_lines
from handlers.cards.kill import newest_first
from handlers.ports.history import History
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Line, Title
from remote.facts.base import Answers, Fact
from remote.facts.journal import Journal
from remote.facts.memory import MEMORY, OWN_MEMORY
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS
from remote.findings.kill import Kill
from remote.findings.lines import kernel_made
from remote.findings.past import BESIDE, judged, past
from remote.text import Mono, N, Span, T, Text, Value

DAY, WEEK = timedelta(days=1), timedelta(days=7)
EVER = timedelta(days=3660)
"""No journal goes back further."""


class Inquest:
    """The journal of one host from `window` ago on, with what tells who spoke and what the processes were."""

    def __init__(self, host: str, fact: Fact[Journal], answers: Answers, window: timedelta) -> None:
        """`answers` has the facts of `BESIDE` and `fact`. Raises HostError where the journal could not be read."""
        self.host = host
        self.window = window
        self._journal = needed(host, answers, fact)
        self._answers = answers
        self.kills = newest_first(judged(self._journal, answers))

    @property
    def machine_bytes(self) -> int | None:
        """The machine's memory; None where it could not be read."""
        memory = self._answers.readable(MEMORY)
        return memory.total_bytes if memory else None

    def of(self, pid: int) -> tuple[Kill, ...]:
        """The kills of this process id; a pid is used again in time, so there may be several."""
        return tuple(kill for kill in self.kills if kill.pid == pid)

    def nothing(self, pid: int | None = None) -> Iterator[Block]:
        """Nothing was killed (or not this process): say so, and what was looked at."""
        yield Title(self._none(pid), "good" if pid is None else "plain")
        if not INSTEAD & set(self._journal.partial.split()):
            yield Line(T("I looked at the journal: the kernel, systemd, OOM daemons, and the main processes of services."))
        yield from self.gaps()
        yield from self._counters()

    def _none(self, pid: int | None) -> Text:
        host, span = Mono(self.host), length(self.window)
        if pid is None:
            return T("{host}: nothing was killed in the last {time}", host=host, time=span)
        if self.window >= EVER:
            return T("{host}: no kill of pid {pid}, as far back as its log goes", host=host, pid=Mono(str(pid)))
        return T("{host}: no kill of pid {pid} in the last {time}", host=host, pid=Mono(str(pid)), time=span)

    def gaps(self) -> Iterator[Line]:
        """Why kills may be missing here."""
        yield from partial_lines(self._journal.partial)
        yield from self._unread()
        lost = self._lost()
        if lost > 0:
            yield Line(
                N(
                    "The kernel counts {n} OOM kill more than the journal tells of.",
                    "The kernel counts {n} OOM kills more than the journal tells of.",
                    lost,
                )
            )

    def _lost(self) -> int:
        """How many kills the kernel has counted that no line tells of, where the window holds all of this boot."""
        memory, processes = self._answers.readable(MEMORY), self._answers.readable(PROCESSES)
        if memory is None or processes is None or memory.oom_kills is None:
            return 0
        if memory.uptime_s > self.window.total_seconds():
            return 0
        told = sum(kill.boot_id in {processes.boot_id, ""} and kernel_made(kill) for kill in self.kills)
        return memory.oom_kills - told

    def _unread(self) -> Iterator[Line]:
        """What else could not be read, and what that costs."""
        if self._answers.readable(UNITS) is None:
            yield Line(T("The units could not be read: what only a program's own log tells may be missed."))
        if self._answers.readable(PROCESSES) is None:
            yield Line(T("The processes could not be read: I cannot tell which of those that were named still live."))

    def _counters(self) -> Iterator[Line]:
        memory = self._answers.readable(MEMORY)
        if memory is None or memory.oom_kills is None:
            yield Line(T("The kernel's own count of OOM kills could not be read."))
            return
        up = Span(memory.uptime_s)
        yield Line(
            N(
                "The kernel counts {n} OOM kill since it started {time} ago.",
                "The kernel counts {n} OOM kills since it started {time} ago.",
                memory.oom_kills, time=up,
            )
        )  # fmt: skip


def length(window: timedelta) -> Value:
    """How far back, in hours up to two days: everybody says 24 h."""
    hours, odd = divmod(window, timedelta(hours=1))
    return T("{hours} h", hours=hours) if hours and not odd and window <= 2 * DAY else Span(window.total_seconds())


async def inquire(hosts: Hosts, history: History, host: str, now: datetime, window: timedelta) -> Inquest:
    """Ask for what was killed in the `window` before `now`, and judge it. Raises HostError."""
    fact = past(now, window)
    beside = (OWN_MEMORY if one is MEMORY else one for one in BESIDE)
    answers = await hosts.ask(host, *beside, fact)
    found = Inquest(host, fact, answers | Answers({MEMORY: answers[OWN_MEMORY]}), window)
    found.kills = await history.told(host, found.kills, now - window)
    return found
