"""/why: what was killed, by whom, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from handlers.cards.failure import needed
from handlers.cards.host import NO_UNITS
from handlers.cards.journal import partial_lines
from handlers.cards.kill import KillData, kill_card, kill_data, newest_first
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.clock import Clock
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Line, Reply, Title
from handlers.request import Request
from handlers.words import split_number
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.journal import Journal, kills_since
from remote.facts.memory import MEMORY
from remote.facts.units import UNITS
from remote.findings import death
from remote.findings.death import Kill
from remote.text import Mono, N, Span, T


@dataclass(frozen=True, slots=True)
class WhyData:
    """The JSON of /why: one entry a killed process or cgroup, newest first."""

    kills: tuple[KillData, ...]


async def run(request: Request, *, hosts: Hosts, clock: Clock) -> Reply:
    """Read the kills of the last 24 h; with a pid, only that process's."""
    words, pid = split_number(request.words, hosts.visible(request))
    chosen = hosts.choose(request, words)
    fact = kills_since(clock.now() - timedelta(hours=24))

    async def look(host: str) -> Part:
        answers = await hosts.ask(host, MEMORY, UNITS, fact)
        found = tuple(kill for kill in _kills(host, answers, fact) if pid is None or kill.pid == pid)
        data = WhyData(tuple(kill_data(kill) for kill in found))
        if not found:
            return Part(data, tuple(_none(host, pid, answers, fact)), ((Button(T("Memory"), f"/mem {host}"),),))
        card = kill_card(host, found, clock.now())
        return Part(data, card.blocks, ((Button(T("Top"), f"/top {host}"), Button(T("Fix"), f"/fix {host}", "good")),))

    return await every(chosen, look)


def _kills(host: str, answers: Answers, fact: Fact[Journal]) -> tuple[Kill, ...]:
    journal, units = needed(host, answers, fact), answers[UNITS]
    return newest_first(death.kills(journal.entries, units=NO_UNITS if isinstance(units, Unreadable) else units))


def _none(host: str, pid: int | None, answers: Answers, fact: Fact[Journal]) -> Iterator[Block]:
    """Nothing was killed: say so, and what was looked at."""
    if pid is None:
        yield Title(T("{host}: nothing was killed in the last 24 h", host=Mono(host)), "good")
    else:
        yield Title(T("{host}: no kill of pid {pid} in the last 24 h", host=Mono(host), pid=Mono(str(pid))))
    journal, memory = answers[fact], answers[MEMORY]
    if not isinstance(journal, Unreadable):
        yield Line(T("I looked at the journal: kernel, systemd, OOM daemons, gunicorn, celery."))
        yield from partial_lines(journal.partial)
    if not isinstance(memory, Unreadable) and memory.oom_kills:
        up = Span(memory.uptime_s)
        yield Line(
            N("The kernel counts {n} OOM kill since it started {time} ago.",
              "The kernel counts {n} OOM kills since it started {time} ago.", memory.oom_kills, time=up)
        )  # fmt: skip


COMMAND = Command("why", T("What was killed, by whom and why"), "/why [HOST…] [PID]", run, ("/why prod", "/why prod 689792"))
