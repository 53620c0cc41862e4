"""What several cards say of a host: its memory in a sentence, who uses it, what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.reply import Block, Button, Fold, Line, Table, Tone
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.memory import Memory
from remote.facts.processes import Processes
from remote.facts.schedules import Schedules
from remote.facts.units import Units
from remote.findings.base import Finding, Severity
from remote.findings.duplicates import Duplicates, Member
from remote.findings.groups import Group, by_unit
from remote.redact import clean
from remote.text import Listing, Mono, N, Percent, Size, T, Text, Value

# What stands for an answer that could not be read where the rest still tells something.
NO_PROCESSES = Processes((), "")
NO_UNITS = Units(())
NO_SCHEDULES = Schedules(())
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True)
class Use:
    """What one unit, or the processes of one service or name outside all units, hold of the memory."""

    name: str
    unit: str | None
    service: str
    count: int
    pss_bytes: int


def uses(processes: Processes, units: Units) -> tuple[Use, ...]:
    """Who holds the memory, biggest first."""
    return tuple(_use(group) for group in by_unit(processes, units))


def _use(group: Group) -> Use:
    name = short_unit(group.unit.id) if group.unit else clean(group.name)
    unit = group.unit.id if group.unit else None
    return Use(name, unit, group.service or name, group.count, group.pss_bytes)


def short_unit(unit: str) -> str:
    """A unit's name where room is short."""
    return unit.removesuffix(".service")


def counted(name: str, count: int) -> str:
    """The name and how many, for a table's last column."""
    return f"{name} ×{count}" if count > 1 else name


def memory_sentence(host: str, memory: Memory) -> Text:
    """Host, percent and free bytes: the first line of everything about memory."""
    return T(
        "{host}: {percent} used, {free} of {total} free",
        host=Mono(host), percent=Percent(memory.used_percent), free=Size(memory.available_bytes), total=Size(memory.total_bytes),
    )  # fmt: skip


def swap_sentence(memory: Memory) -> Text:
    """How much swap is in use."""
    if not memory.swap_total_bytes:
        return T("Swap: none")
    return T("Swap: {used} of {total}", used=Size(memory.swap_used_bytes), total=Size(memory.swap_total_bytes))


def pressure_sentence(memory: Memory) -> Text:
    """PSI in words."""
    if memory.pressure is None:
        return T("Pressure: not told by this kernel")
    some, full = Percent(memory.pressure.some_avg10, 1), Percent(memory.pressure.full_avg10, 1)
    return T("Pressure, 10 s: some {some}, full {full}", some=some, full=full)


def uses_table(rows: Iterable[Use], total_bytes: int) -> Table:
    """Size, share and name of each."""
    head = (T("PSS"), T("%"), T("service"))
    return Table(tuple(_use_row(use, total_bytes) for use in rows), head)


def _use_row(use: Use, total_bytes: int) -> tuple[Value, ...]:
    return (Size(use.pss_bytes), share(use.pss_bytes, total_bytes), counted(use.name, use.count))


def share(part_bytes: int, total_bytes: int) -> Percent:
    """A part of the memory, in percent."""
    return Percent(100 * part_bytes / total_bytes if total_bytes else 0.0)


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def tone(findings: Sequence[Finding]) -> Tone:
    """How the title looks: as bad as the worst finding."""
    worst = by_severity(findings)
    match worst[0].severity if worst else "info":
        case "critical":
            return "critical"
        case "warning":
            return "warning"
        case _:
            return "plain"


def member_name(member: Member) -> Value:
    """A twin as people say it: its unit, or its pid."""
    if member.unit is not None:
        return Mono(member.unit.id)
    return T("pid {pid}", pid=Mono(str(member.processes[0].pid))) if member.processes else T("a stray")


def duplicate_finding(group: Duplicates) -> Finding:
    """One service done twice, in a sentence."""
    extra = Listing(tuple(member_name(member) for member in group.extra))
    text = N(
        "{extra} does the work of {keep} again: {size} could be freed",
        "{extra} do the work of {keep} again: {size} could be freed",
        len(group.extra), extra=extra, keep=member_name(group.keep), size=Size(group.frees_bytes),
    )  # fmt: skip
    return Finding("duplicates", "warning", text, group.keep.unit.id if group.keep.unit else None)


def unread(answers: Answers, *facts: Fact[Any]) -> Iterator[Finding]:
    """A finding for each of `facts` that could not be read."""
    for fact in facts:
        answer = answers[fact]
        if isinstance(answer, Unreadable):
            yield Finding("unreadable", "info", answer.why)


def missing(answers: Answers, *facts: Fact[Any]) -> tuple[Line, ...]:
    """A line for each of `facts` that could not be read: why a card without them shows less."""
    return tuple(Line(finding.text) for finding in unread(answers, *facts))


def unread_fold(findings: Iterable[Finding]) -> tuple[Block, ...]:
    """What could not be read, folded away."""
    lines = tuple(Line(finding.text) for finding in findings if finding.kind == "unreadable")
    return (Fold(T("Not everything could be read"), lines),) if lines else ()


def look_buttons(host: str) -> tuple[tuple[Button, ...], ...]:
    """Top, Why and Fix, under everything that says how a host is."""
    return (
        (Button(T("Top"), f"/top {host}"), Button(T("Why"), f"/why {host}")),
        (Button(T("Fix"), f"/fix {host}", "good"),),
    )
