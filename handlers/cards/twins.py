"""Services that are done more than once: who does the work, who only does it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from handlers.cards.choose import button_rows
from handlers.cards.host import member_name, short_unit
from handlers.reply import Block, Button, Fold, Line
from remote.findings.duplicates import Duplicates, LookAlike, Member
from remote.text import Listing, Mono, N, Size, T, Text


@dataclass(frozen=True, slots=True)
class Keep:
    """The one that stays."""

    unit: str | None
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """One that could go."""

    unit: str | None
    pids: tuple[int, ...]
    pss_bytes: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class GroupData:
    """One service done more than once, for scripts."""

    service: str
    app: str
    why: Text
    keep: Keep
    extra: tuple[Extra, ...]
    frees_bytes: int


def group_data(group: Duplicates) -> GroupData:
    """The group, for scripts."""
    keep = Keep(_unit(group.keep), _pids(group.keep))
    return GroupData(group.service, group.app, group.why, keep, tuple(map(_extra, group.extra)), group.frees_bytes)


def _extra(member: Member) -> Extra:
    enabled = member.unit is not None and (member.unit.enabled or bool(member.unit.links))
    return Extra(_unit(member), _pids(member), member.pss_bytes, enabled)


def _unit(member: Member) -> str | None:
    return member.unit.id if member.unit else None


def _pids(member: Member) -> tuple[int, ...]:
    return tuple(process.pid for process in member.processes)


def freed_bytes(groups: Iterable[Duplicates]) -> int:
    """What all extras hold together; one that stands in two groups (`-B`, listed in `shared`) counts once."""
    held: dict[object, int] = {}
    for group in groups:
        for member in group.extra:
            held[_unit(member) or _pids(member)] = member.pss_bytes
    return sum(held.values())


def extras(groups: Iterable[Duplicates]) -> int:
    """How many members could go."""
    return len({_unit(member) or _pids(member) for group in groups for member in group.extra})


def group_lines(group: Duplicates) -> Iterator[Block]:
    """One group in a few lines."""
    service = Mono(group.service)
    extra = Listing(tuple(member_name(member) for member in group.extra))
    if group.app:
        yield Line(T("{service} of {app}: keep {keep}", service=service, app=Mono(group.app), keep=member_name(group.keep)))
    else:
        yield Line(T("{service}: keep {keep}", service=service, keep=member_name(group.keep)))
    yield Line(N("↳ extra: {extra}, {size}", "↳ extra: {extra}, together {size}", len(group.extra), extra=extra,
                 size=Size(sum(member.pss_bytes for member in group.extra))))  # fmt: skip
    yield Line(group.why)
    if group.refused is not None:
        yield Line(group.refused)


def look_alike_fold(look_alikes: Sequence[LookAlike]) -> tuple[Block, ...]:
    """Those that only claim to be of a service."""
    lines = tuple(
        Line(T("pid {pid} looks like {service} and is not: {why}",
               pid=Mono(str(one.process.pid)), service=Mono(one.service), why=one.why))
        for one in look_alikes
    )  # fmt: skip
    return (Fold(T("Only look alike; never touched"), lines),) if lines else ()


def keep_buttons(host: str, group: Duplicates, kept: Sequence[str] = ()) -> tuple[tuple[Button, ...], ...]:
    """Which twin to keep: one button each. `kept` were chosen already, for other groups."""
    units = [member.unit.id for member in (group.keep, *group.extra) if member.unit is not None]
    names = {unit: T("Keep {unit}", unit=Mono(short_unit(unit))) for unit in units}
    return button_rows([Button(name, f"/fix {host} keep {shlex.join((*kept, unit))}") for unit, name in names.items()])
