"""The arithmetic of a kill: who shared the memory, by the kernel's own table, against what there was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handlers.cards.host import counted
from handlers.cards.verdict import MEMORY, forks, kind_killed, kind_of, master_of
from handlers.reply import Fold, Table
from remote.findings.kill import Kill, Member
from remote.redact import clean
from remote.text import Listing, Mono, N, Size, T, Text

NAMED = 3  # in the sentence
ROWS = 12  # in the table
ALIKE = 1.25  # of the smallest: sizes this near are told as one
FULL = 0.85  # of the limit: what the table has not is the kernel's, or files in tmpfs


@dataclass(frozen=True, slots=True)
class Family:
    """Processes of one name and one role; `least` and `most` are the sizes of the smallest and the biggest."""

    name: str
    role: str
    count: int
    least: int
    most: int
    sum_bytes: int


def arithmetic(group: Sequence[Kill], machine_bytes: int | None = None) -> Text | None:
    """Why it did not fit, in a sentence; None where nothing is known. `group` are kills of one cause, newest first;
    `machine_bytes` is the machine's memory, where it is known."""
    if group[0].cause not in MEMORY:
        return None
    # A storm's first kill shows it whole, its last one what was left.
    first = max(group, key=lambda kill: sum(one.rss_bytes for one in kill.members))
    if not first.members or first.cause not in {"cgroup-limit", "kernel-oom"}:
        return _plain(group)
    families = _families(first)
    held = sum(one.sum_bytes for one in families)
    parts = _parts(families)
    if first.cause == "kernel-oom" and machine_bytes:
        return T("The biggest on this machine of {limit}: {parts}", limit=Size(machine_bytes), parts=parts)
    if first.limit_bytes is None:
        return T("The biggest were {parts}", parts=parts)
    limit = Size(first.limit_bytes)
    if len(first.members) == 1:
        return T("{part} alone filled the limit of {limit}", part=_part(families[0]), limit=limit)
    if held < first.limit_bytes * FULL:
        rest = Size(first.limit_bytes - held)
        return T(
            "In the limit of {limit}: {parts}, and {rest} of files in memory and the kernel's",
            limit=limit,
            parts=parts,
            rest=rest,
        )
    return T("{parts} do not fit {limit}", parts=parts, limit=limit)


def _plain(group: Sequence[Kill]) -> Text | None:
    """What it held against what it was allowed, where the kernel's table is not known."""
    held = max((kill.rss_bytes for kill in group if kill.rss_bytes is not None), default=None)
    limit = next((kill.limit_bytes for kill in group if kill.limit_bytes is not None), None)
    if held is None:
        return None if limit is None else T("The limit is {limit}", limit=Size(limit))
    return _held(Size(held), None if limit is None else Size(limit), alone=len(group) == 1)


def _held(held: Size, limit: Size | None, *, alone: bool) -> Text:
    if limit is None:
        return T("It held {held}", held=held) if alone else T("The biggest held {held}", held=held)
    if alone:
        return T("It held {held}, the limit is {limit}", held=held, limit=limit)
    return T("The biggest held {held}, the limit of all is {limit}", held=held, limit=limit)


def table(kill: Kill) -> Iterator[Fold]:
    """The kernel's table, folded: a line a family of processes."""
    families = _families(kill)
    if len(kill.members) > 1:
        rows = tuple((Size(one.sum_bytes), counted(clean(one.name), one.count)) for one in families[:ROWS])
        yield Fold(T("Who shared the memory"), (Table(rows, (T("RSS"), T("process"))),))


def _families(kill: Kill) -> list[Family]:
    """The members by name and role, the biggest sum first."""
    by_name: dict[str, list[Member]] = {}
    for one in kill.members:
        by_name.setdefault(one.name, []).append(one)
    found = [family for name, members in by_name.items() for family in _split(kill, name, members)]
    return sorted(found, key=lambda one: one.sum_bytes, reverse=True)


def _split(kill: Kill, name: str, members: Sequence[Member]) -> Iterator[Family]:
    """A master apart from what it forked, where the table shows which one that is."""
    kind = kind_killed(kill) if name == kill.name else kind_of(name)
    shown = name if kind is None else kind.called
    first = master_of(members) if forks(kind) else None
    if first is None:
        yield _family(shown, _titled(name), members)
    else:
        yield _family(shown, "worker", [one for one in members if one is not first])
        yield _family(shown, "master", [first])


def _titled(name: str) -> str:
    """The role that setproctitle's name tells."""
    return "master" if ": maste" in name else "worker" if ": worke" in name else ""


def _family(name: str, its_role: str, members: Sequence[Member]) -> Family:
    sizes = [one.rss_bytes for one in members]
    return Family(name, its_role, len(members), min(sizes), max(sizes), sum(sizes))


def _parts(families: Sequence[Family]) -> Listing:
    rest = sum(one.count for one in families[NAMED:])
    more = (T("{n} more", n=rest),) if rest else ()
    return Listing((*map(_part, families[:NAMED]), *more))


def _part(one: Family) -> Text:
    """A family in a few words; sizes that are not alike are told by the biggest."""
    size, name = Size(one.most), Mono(one.name)
    alike = one.most <= one.least * ALIKE
    match one.role:
        case "master" if one.count == 1:
            return T("a master of {size}", size=size)
        case "worker" if one.count == 1:
            return T("1 worker of {size}", size=size)
        case "worker" if alike:
            return N("{n} worker of {size}", "{n} workers of {size}", one.count, size=Size(one.sum_bytes // one.count))
        case "worker":
            return N("{n} worker of up to {size}", "{n} workers of up to {size}", one.count, size=size)
        case _ if one.count == 1:
            return T("{name} of {size}", name=name, size=size)
        case _ if alike:
            return T("{n} {name} of {size}", n=one.count, name=name, size=Size(one.sum_bytes // one.count))
        case _:
            return T("{n} {name} of up to {size}", n=one.count, name=name, size=size)
