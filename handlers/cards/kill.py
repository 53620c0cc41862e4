"""Kills in four lines on a phone: what died, who killed it, the arithmetic, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handlers.cards.host import look_buttons
from handlers.reply import Block, Code, Fold, Line, Reply, Title
from remote.findings.death import Cause, Confidence, Kill
from remote.text import Listing, Mono, N, Size, Span, T, Text, Value, When

GROUPS = 4
EVIDENCE = 20
LOUD: frozenset[Cause] = frozenset({"kernel-oom", "cgroup-limit", "systemd-oomd", "userspace-oom", "unknown"})
OLD = timedelta(minutes=10)  # a card that comes later than this says how late it is


@dataclass(frozen=True, slots=True)
class Past:
    """How many kills of the same unit there were in the last 7 days, this one included, and the task that was always in hand."""

    week: int = 1
    doing: str = ""


@dataclass(frozen=True, slots=True)
class KillData:
    """One kill as scripts see it."""

    pid: int | None
    name: str
    unit: str | None
    at: datetime
    boot_id: str
    signal: int
    cause: Cause
    confidence: Confidence
    limit_bytes: int | None
    rss_bytes: int | None
    evidence: tuple[str, ...]
    advice: Text


def kill_data(kill: Kill) -> KillData:
    """The kill, for scripts."""
    return KillData(
        kill.pid, kill.name, kill.unit, kill.at, kill.boot_id, kill.signal, kill.cause, kill.confidence,
        kill.limit_bytes, kill.rss_bytes, kill.evidence, kill.advice,
    )  # fmt: skip


def newest_first(kills: Iterable[Kill]) -> tuple[Kill, ...]:
    """In the order in which they are told."""
    return tuple(sorted(kills, key=lambda kill: (kill.at, kill.monotonic_us), reverse=True))


def kill_card(host: str, kills: Sequence[Kill], now: datetime, *, past: Past | None = None, total: int | None = None) -> Reply:
    """One card for these kills (at least one) as of `now`; those of one cause and one unit share their lines."""
    del past, total
    groups = _groups(newest_first(kills))
    blocks: list[Block] = [Title(_title(host, groups), "critical")]
    for number, group in enumerate(groups[:GROUPS]):
        blocks += _story(group, named=number > 0 or len(groups) > 1)
    if len(groups) > GROUPS:
        rest = sum(len(group) for group in groups[GROUPS:])
        blocks.append(Line(N("and {n} earlier kill", "and {n} earlier kills", rest)))
    last = max(kill.at for kill in kills)
    if now - last >= OLD:
        blocks.append(Line(T("The last one was {time} ago.", time=Span((now - last).total_seconds()))))
    blocks += _evidence(kills)
    return Reply(tuple(blocks), look_buttons(host))


def _groups(kills: Iterable[Kill]) -> list[tuple[Kill, ...]]:
    found: dict[tuple[object, ...], list[Kill]] = {}
    for kill in kills:
        found.setdefault((kill.unit or kill.cgroup, kill.name, kill.cause, kill.limit_group, kill.signal), []).append(kill)
    return [tuple(group) for group in found.values()]


def _title(host: str, groups: Sequence[Sequence[Kill]]) -> Text:
    total = sum(len(group) for group in groups)
    if len(groups) > 1:
        return N("{host}: {n} process was killed", "{host}: {n} processes were killed", total, host=Mono(host))
    return _what_died(groups[0], host)


def _what_died(group: Sequence[Kill], host: str) -> Text:
    first, n = group[0], len(group)
    if first.unit is None:
        return N("{host}: {name} was killed", "{host}: {n} {name} were killed", n, host=Mono(host), name=Mono(first.name))
    return N(
        "{host}: {name} of {unit} was killed",
        "{host}: {n} {name} of {unit} were killed",
        n, host=Mono(host), name=Mono(first.name), unit=Mono(first.unit),
    )  # fmt: skip


def _story(group: Sequence[Kill], *, named: bool) -> Iterator[Line]:
    yield Line(_who(group, named=named))
    yield Line(_killer(group[0]))
    yield from _figures(group)
    yield Line(group[0].advice)


def _figures(group: Sequence[Kill]) -> Iterator[Line]:
    """The arithmetic, unless the advice of a single kill does it already (its places say so)."""
    if len(group) == 1 and {"limit", "rss"} & {name for name, _ in group[0].advice.values}:
        return
    arithmetic = _arithmetic(group)
    if arithmetic is not None:
        yield Line(arithmetic)
    stopped = next((kill.unit for kill in group if kill.stopped_unit and kill.unit), None)
    if stopped is not None:
        yield Line(T("systemd then stopped all of {unit}.", unit=Mono(stopped)))


def _who(group: Sequence[Kill], *, named: bool) -> Text:
    """Each pid, and when."""
    pids = Listing(tuple(_pid(kill) for kill in group))
    at, name = When(group[0].at), Mono(group[0].name)
    if not named:
        return N("pid {pids}, {at}", "pids {pids}, last {at}", len(group), pids=pids, at=at)
    if group[0].unit is None:
        return N("{name}, pid {pids}, {at}", "{name}, pids {pids}, last {at}", len(group), name=name, pids=pids, at=at)
    return N(
        "{name} of {unit}, pid {pids}, {at}",
        "{name} of {unit}, pids {pids}, last {at}",
        len(group), name=name, unit=Mono(group[0].unit), pids=pids, at=at,
    )  # fmt: skip


def _pid(kill: Kill) -> Value:
    # A killer that named only a cgroup leaves no pid to tell.
    return Mono(str(kill.pid)) if kill.pid is not None else T("unknown")


def _killer(kill: Kill) -> Text:
    """Who killed it, and how sure that is."""
    who = _cause(kill)
    match kill.confidence:
        case "certain":
            return who
        case "likely":
            return T("Likely: {who}", who=who)
        case "guess":
            return T("A guess: {who}", who=who)


def _cause(kill: Kill) -> Text:
    if kill.cause == "cgroup-limit":
        limited = kill.limit_group.rsplit("/", 1)[-1] or kill.unit
        if limited:
            return T("Killed by the kernel: the memory limit of {unit} was reached", unit=Mono(limited))
    return _CAUSES[kill.cause]


_CAUSES: dict[Cause, Text] = {
    "kernel-oom": T("Killed by the kernel: the whole machine was out of memory"),
    "cgroup-limit": T("Killed by the kernel: a memory limit was reached"),
    "systemd-oomd": T("Killed by systemd-oomd: too much memory pressure or swap"),
    "userspace-oom": T("Killed by an OOM daemon (earlyoom or its kind)"),
    "worker-timeout": T("Killed by its own master: it hung longer than its timeout"),
    "stop-timeout": T("Killed by systemd: it did not stop in time"),
    "time-limit": T("Killed by celery: its task ran over the time limit"),
    "container": T("Killed by its container's stop or kill"),
    "plan": T("Killed by a plan that somebody approved"),
    "manual": T("Killed by a person or a script"),
    "unknown": T("Nothing says who killed it"),
}


def _arithmetic(group: Sequence[Kill]) -> Text | None:
    """What it held against what it was allowed."""
    held = max((kill.rss_bytes for kill in group if kill.rss_bytes is not None), default=None)
    limit = next((kill.limit_bytes for kill in group if kill.limit_bytes is not None), None)
    if held is not None and limit is not None:
        return N(
            "It held {held}, the limit is {limit}",
            "The biggest held {held}, the limit of all is {limit}",
            len(group), held=Size(held), limit=Size(limit),
        )  # fmt: skip
    if held is not None:
        return N("It held {held}", "The biggest held {held}", len(group), held=Size(held))
    return None if limit is None else T("The limit is {limit}", limit=Size(limit))


def _evidence(kills: Iterable[Kill]) -> Iterator[Block]:
    lines = tuple(dict.fromkeys(line for kill in newest_first(kills) for line in kill.evidence))
    if lines:
        yield Fold(T("What the log says"), (Code(lines[:EVIDENCE]),))
