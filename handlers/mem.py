"""/mem: how much memory is left, who holds it, what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from handlers.cards.choose import button_rows
from handlers.cards.failure import needed
from handlers.cards.host import (
    NO_PROCESSES,
    NO_SCHEDULES,
    NO_UNITS,
    Use,
    by_severity,
    duplicate_finding,
    look_buttons,
    memory_sentence,
    pressure_sentence,
    swap_sentence,
    tone,
    unread,
    unread_fold,
    uses,
    uses_table,
)
from handlers.cards.journal import partial_lines
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.clock import Clock
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Fold, Line, Meter, Reply, Title
from handlers.request import Request
from remote.facts.base import Answers, Fact
from remote.facts.journal import Journal
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES
from remote.facts.schedules import SCHEDULES
from remote.facts.units import UNITS
from remote.findings import duplicates, pressure, schedules, sizing
from remote.findings.base import Finding, Severity
from remote.findings.kill import Kill
from remote.findings.past import DAY, judged, past
from remote.policy import Policy
from remote.text import Listing, Mono, N, Span, T, Text

BIGGEST = 5
FINDINGS = 6
PATIENCE_S = 6.0  # the figures do not wait longer for the journal; /why does


@dataclass(frozen=True, slots=True)
class Psi:
    """Pressure stall information, percent of the last 10 s."""

    some_avg10: float
    full_avg10: float


@dataclass(frozen=True, slots=True)
class TopRow:
    """One of the biggest."""

    name: str
    unit: str | None
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What is worth attention."""

    kind: str
    severity: Severity
    text: Text


@dataclass(frozen=True, slots=True)
class MemData:
    """The JSON of /mem. `kills_24h` is null where the journal could not be read: that is not none."""

    total_bytes: int
    available_bytes: int
    used_percent: float
    swap_total_bytes: int
    swap_used_bytes: int
    psi: Psi | None
    uptime_s: float
    kills_24h: int | None
    top: tuple[TopRow, ...]
    findings: tuple[FindingRow, ...]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one question said of a host, judged."""

    memory: Memory
    uses: tuple[Use, ...]
    kills: tuple[Kill, ...] | None
    partial: str
    findings: tuple[Finding, ...]


async def run(request: Request, *, hosts: Hosts, clock: Clock) -> Reply:
    """Ask all facts of each host in one question."""
    chosen = hosts.choose(request, request.words)
    kills = replace(past(clock.now(), DAY), deadline_s=PATIENCE_S)

    async def look(host: str) -> Part:
        answers = await hosts.ask(host, MEMORY, PROCESSES, UNITS, SCHEDULES, kills)
        sight = judge(host, answers, kills, hosts.policy(host))
        blocks = card(host, sight) if len(chosen) == 1 else brief(host, sight)
        return Part(data(sight), blocks, look_buttons(host))

    reply = await every(chosen, look)
    if len(chosen) > 1:
        buttons = [Button(T("{host}", host=Mono(host)), f"/mem {host}") for host in chosen]
        reply = replace(reply, buttons=button_rows(buttons))
    return reply


def judge(host: str, answers: Answers, kills_fact: Fact[Journal], policy: Policy) -> Sight:
    """Facts in, findings out. Raises HostError when not even the memory could be read."""
    memory = needed(host, answers, MEMORY)
    processes, units = answers.readable(PROCESSES) or NO_PROCESSES, answers.readable(UNITS) or NO_UNITS
    journal = answers.readable(kills_fact)
    found = [
        *pressure.pressure(memory, policy),
        *map(duplicate_finding, duplicates.find(processes, units, policy)[0]),
        *schedules.restarters(answers.readable(SCHEDULES) or NO_SCHEDULES, units),
        *sizing.sizing(memory, units, processes, policy),
        *unread(answers, PROCESSES, UNITS, SCHEDULES, kills_fact),
    ]
    dead = judged(journal, answers) if journal else None
    partial = journal.partial if journal else ""
    if not dead and "own" in partial.split():
        dead = None  # who sees only his own messages does not know that nobody was killed
    return Sight(memory, uses(processes, units), dead, partial, by_severity(found))


def data(sight: Sight) -> MemData:
    """For scripts."""
    memory, psi = sight.memory, sight.memory.pressure
    return MemData(
        total_bytes=memory.total_bytes,
        available_bytes=memory.available_bytes,
        used_percent=round(memory.used_percent, 2),
        swap_total_bytes=memory.swap_total_bytes,
        swap_used_bytes=memory.swap_used_bytes,
        psi=None if psi is None else Psi(psi.some_avg10, psi.full_avg10),
        uptime_s=memory.uptime_s,
        kills_24h=None if sight.kills is None else len(sight.kills),
        top=tuple(TopRow(use.name, use.unit, use.pss_bytes) for use in sight.uses[:BIGGEST]),
        findings=tuple(FindingRow(one.kind, one.severity, one.text) for one in sight.findings),
    )


def card(host: str, sight: Sight) -> tuple[Block, ...]:
    """All about one host."""
    memory = sight.memory
    blocks: list[Block] = [
        Title(memory_sentence(host, memory), tone(sight.findings)),
        Meter(memory.used_percent),
        Line(swap_sentence(memory)),
        Line(pressure_sentence(memory)),
        Line(kills_sentence(sight)),
        *partial_lines(sight.partial),
        Line(T("Up for {time}", time=Span(memory.uptime_s))),
    ]
    if sight.uses:
        blocks.append(uses_table(sight.uses[:BIGGEST], memory.total_bytes))
    return (*blocks, *advice(sight), *unread_fold(sight.findings))


def brief(host: str, sight: Sight) -> tuple[Block, ...]:
    """One host among several."""
    worst = [finding for finding in sight.findings if finding.severity != "info"]
    return (Title(memory_sentence(host, sight.memory), tone(sight.findings)), *(Line(one.text) for one in worst[:2]))


def kills_sentence(sight: Sight) -> Text:
    """How many processes were killed lately, and which."""
    if sight.kills is None:
        return T("Kills: the journal could not be read")
    if not sight.kills:
        return T("No kills in 24 h")
    names = Listing(tuple(Mono(name) for name in dict.fromkeys(kill.name for kill in sight.kills[:BIGGEST])))
    return N("{n} kill in 24 h: {names}", "{n} kills in 24 h: {names}", len(sight.kills), names=names)


def advice(sight: Sight) -> Iterator[Block]:
    """What to do about it: the findings, worst first, the rest folded."""
    shown = [finding for finding in sight.findings if finding.kind != "unreadable"]
    if not shown:
        yield Line(T("Nothing to do."))
    yield from (Line(finding.text) for finding in shown[:FINDINGS])
    rest = shown[FINDINGS:]
    if rest:
        yield Fold(N("and {n} more finding", "and {n} more findings", len(rest)), tuple(Line(one.text) for one in rest))


COMMAND = Command(
    "mem", T("How much memory is left, who holds it and what to do"), "/mem [HOST…]", run, ("/mem prod", "/mem @web", "/mem all")
)
