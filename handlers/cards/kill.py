"""Kills in four lines on a phone: what died, who killed it, the arithmetic, what to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handlers.cards.sums import arithmetic, table
from handlers.cards.timetable import timetable
from handlers.cards.verdict import CONTAINER_ID, MEMORY, effect, killer, nameless, to_do, what, whole
from handlers.reply import Block, Button, Code, Fold, Line, Reply, Title, Tone
from remote.findings.causes import Cause, Confidence
from remote.findings.kill import Kill, Member
from remote.text import Listing, Mono, N, Span, T, Text, Value, When

LOUD: frozenset[Cause] = MEMORY | {"unknown"}
"""The causes that make a sound at once; what a user staged in a slice of his own never does."""

GROUPS = 4
PIDS = 60
EVIDENCE = 20
_ID = re.compile(r"\b[0-9a-f]{64}\b")
# A cgroup may be called as anybody likes: only the kernel's own fields are left out, which come first.
_WHERE = re.compile(r"^(oom-kill:constraint=[A-Z_]+,)nodemask=[^=]+,cpuset=[^=,]+,mems_allowed=[\d,-]*,")
OLD = timedelta(minutes=10)  # a card that comes later than this says how late it is


@dataclass(frozen=True, slots=True)
class Past:
    """What was killed before. `week` is how many kills of the same unit (of the same name, where there is no unit) fell into
    the seven days up to the newest one that is told, those that are told included; `doing` the task that all of them had in
    hand, empty where they differ or nobody knows."""

    week: int = 0
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
    final: bool
    limit_group: str
    container: str
    by: str
    doing: str
    counted: bool
    staged: bool
    members: tuple[Member, ...]


def kill_data(kill: Kill) -> KillData:
    """The kill, for scripts."""
    return KillData(
        kill.pid, kill.name, kill.unit, kill.at, kill.boot_id, kill.signal, kill.cause, kill.confidence,
        kill.limit_bytes, kill.rss_bytes, kill.evidence, kill.advice, kill.final, kill.limit_group, kill.container, kill.by,
        kill.doing, kill.counted, kill.staged, kill.members,
    )  # fmt: skip


def newest_first(kills: Iterable[Kill]) -> tuple[Kill, ...]:
    """In the order in which they are told."""
    return tuple(sorted(kills, key=lambda kill: (kill.at, kill.monotonic_us), reverse=True))


def past_of(kills: Iterable[Kill], last: Kill) -> Past:
    """What these kills themselves tell of the week up to `last`."""
    week = [kill for kill in kills if _alike(kill, last) and _in_week(last.at, kill.at)]
    tasks = {kill.doing for kill in week}
    return Past(len(week), tasks.pop() if len(tasks) == 1 else "")


def _alike(one: Kill, other: Kill) -> bool:
    """Whether both are of one unit, or of one name where there is no unit."""
    return one.unit == other.unit and (one.unit is not None or one.name == other.name)


def _in_week(last: datetime, at: datetime) -> bool:
    return timedelta() <= last - at <= timedelta(days=7)


def kill_card(
    host: str,
    kills: Sequence[Kill],
    now: datetime,
    *,
    past: Past | None = None,
    total: int | None = None,
    machine_bytes: int | None = None,
) -> Reply:
    """One card for these kills (at least one) as of `now`; those of one cause and one unit share their lines.

    `past` is of the newest kill's unit. `total` says how many belong to the card, where more do than are given.
    `machine_bytes` is the machine's memory.
    """
    newest = newest_first(kills)
    groups = _groups(newest)
    more = max(0, (total or 0) - len(newest))
    late = now - newest[0].at >= OLD
    listed = late and len(newest) > 1
    blocks: list[Block] = [Title(_title(host, groups, more), _tone(newest))]
    for group in groups[:GROUPS]:
        if len(groups) > 1:
            blocks.append(Title(_head(group)))
        blocks += _story(group, machine_bytes)
        if not listed:
            blocks.append(Line(_which(group, more if len(groups) == 1 else 0)))
    blocks += _rest(groups, more, with_pids=not listed)
    if past is not None:
        blocks += _recurrence(past, sum(_alike(newest[0], kill) for kill in newest) + more)
    if late:
        blocks.append(Line(_how_late(newest, now)))
    blocks.append(Line(_final(newest)))
    if listed:
        blocks += timetable(newest, now)
    blocks += _folds(newest)
    return Reply(tuple(blocks), _buttons(host, newest))


def _groups(kills: Iterable[Kill]) -> list[tuple[Kill, ...]]:
    """Those of which one thing is said. In a storm the kernel leaves most dumps away, and with them whose limit it was."""
    alike: dict[tuple[object, ...], list[Kill]] = {}
    for kill in kills:
        place = kill.uid if kill.staged else kill.unit or kill.cgroup
        alike.setdefault((place, kill.name, kill.cause, kill.signal, kill.counted, kill.staged), []).append(kill)
    found: dict[tuple[object, ...], list[Kill]] = {}
    for key, group in alike.items():
        limits = {kill.limit_group for kill in group} - {""}
        # A user chooses the groups of his own slice, as many as he likes.
        one = group[0].staged or len(limits) == 1
        for kill in group:
            found.setdefault((*key, "" if one else kill.limit_group), []).append(kill)
    return [tuple(group) for group in found.values()]


def _tone(kills: Sequence[Kill]) -> Tone:
    own = [kill for kill in kills if not kill.staged]
    if any(kill.cause in LOUD for kill in own):
        return "critical"
    return "warning" if any(kill.cause != "plan" for kill in own) else "plain"


def _title(host: str, groups: Sequence[Sequence[Kill]], more: int) -> Text:
    where, total = Mono(host), sum(len(group) for group in groups) + more
    if len(groups) > 1:
        return N("{host}: {n} process was killed", "{host}: {n} processes were killed", total, host=where)
    first = groups[0][0]
    if first.counted:
        return T("{host}: {what}", host=where, what=_uncounted(first, total))
    if first.staged or first.unit is None:
        return N("{host}: {what} was killed", "{host}: {what} were killed", total, host=where, what=what(groups[0], total))
    return _title_of(where, Mono(first.unit), groups[0], total)


def _title_of(host: Mono, unit: Mono, group: Sequence[Kill], total: int) -> Text:
    if whole(group[0]) and total == 1:
        return T("{host}: all of {unit} was killed", host=host, unit=unit)
    if whole(group[0]):
        return N(
            "{host}: all of {unit} was killed {n} time", "{host}: all of {unit} was killed {n} times", total, host=host, unit=unit
        )
    if nameless(group[0]):
        return N(
            "{host}: a process of {unit} was killed", "{host}: {n} processes of {unit} were killed", total, host=host, unit=unit
        )
    return N(
        "{host}: {what} of {unit} was killed",
        "{host}: {what} of {unit} were killed",
        total, host=host, what=what(group, total), unit=unit,
    )  # fmt: skip


def _uncounted(first: Kill, count: int) -> Text:
    if first.unit is None:
        return N("{n} kill without a log line", "{n} kills without a log line", count)
    return N("{n} kill without a log line in {unit}", "{n} kills without a log line in {unit}", count, unit=Mono(first.unit))


def _head(group: Sequence[Kill]) -> Text:
    """What stands over one of several stories."""
    first, count = group[0], len(group)
    if first.counted:
        return _uncounted(first, count)
    if first.staged or first.unit is None:
        return T("{what}", what=what(group, count))
    unit = Mono(first.unit)
    if whole(first) and count == 1:
        return T("all of {unit}", unit=unit)
    if whole(first):
        return N("all of {unit}, {n} time", "all of {unit}, {n} times", count, unit=unit)
    if nameless(first):
        return N("a process of {unit}", "{n} processes of {unit}", count, unit=unit)
    return T("{what} of {unit}", what=what(group, count), unit=unit)


def _story(group: Sequence[Kill], machine_bytes: int | None) -> Iterator[Line]:
    """What it did, who, the arithmetic, what to do."""
    first = group[0]
    # systemd's word about the whole unit stands with one of a storm's kills only.
    done = next((text for kill in sorted(group, key=lambda kill: not kill.stopped_unit) if (text := effect(kill))), None)
    if done is not None:
        yield Line(done)
    best = max(group, key=lambda kill: (kill.confidence == "certain", bool(kill.limit_group)))
    yield Line(killer(best))
    if first.staged:
        return
    figures = arithmetic(group, machine_bytes)
    if figures is not None:
        yield Line(figures)
    yield Line(to_do(best))


def _which(group: Sequence[Kill], more: int) -> Text:
    """Each pid, and when."""
    pids = [kill.pid for kill in group if kill.pid is not None]
    left = max(0, len(pids) - PIDS) + more
    named = Listing((*(Mono(str(pid)) for pid in pids[:PIDS]), *((T("{n} more", n=left),) if left else ())))
    first, last = When(group[-1].at), When(group[0].at)
    if f"{group[-1].at:%d %H:%M}" == f"{group[0].at:%d %H:%M}":
        return _at_once(named, last, alone=len(group) == 1) if pids else T("{at}", at=last)
    if not pids:
        return T("from {first} to {last}", first=first, last=last)
    return T("pids {pids}, from {first} to {last}", pids=named, first=first, last=last)


def _at_once(pids: Listing, at: When, *, alone: bool) -> Text:
    return T("pid {pids}, {at}", pids=pids, at=at) if alone else T("pids {pids}, {at}", pids=pids, at=at)


def _rest(groups: Sequence[Sequence[Kill]], more: int, *, with_pids: bool) -> Iterator[Line]:
    """What the stories have no room for: each pid is named all the same."""
    left = newest_first(kill for group in groups[GROUPS:] for kill in group)
    rest = len(left) + (more if len(groups) > 1 else 0)
    if rest:
        yield Line(N("and {n} earlier kill", "and {n} earlier kills", rest))
    if left and with_pids:
        yield Line(_which(left, more))


def _recurrence(past: Past, told: int) -> Iterator[Line]:
    """That it happened before, and what it always was at."""
    if past.week <= told:
        return
    task: dict[str, Value] = {"task": Mono(past.doing)} if past.doing else {}
    match past.week if told == 1 else 0:
        case 2:
            yield Line(T("The second this week, both times {task}.", **task) if task else T("The second this week."))
        case 3:
            yield Line(T("The third this week, always {task}.", **task) if task else T("The third this week."))
        case _:
            many = N("{n} kill this week.", "{n} kills this week.", past.week)
            always = N("{n} kill this week, always {task}.", "{n} kills this week, always {task}.", past.week, **task)
            yield Line(always if task else many)


def _how_late(kills: Sequence[Kill], now: datetime) -> Text:
    time = Span((now - kills[0].at).total_seconds())
    return T("It was {time} ago.", time=time) if len(kills) == 1 else T("The last one was {time} ago.", time=time)


def _final(kills: Sequence[Kill]) -> Text:
    if all(kill.final for kill in kills):
        return T("This verdict is final.")
    return T("More evidence may still come; this message is updated.")


def _folds(kills: Sequence[Kill]) -> Iterator[Block]:
    shared = next((kill for kill in kills if kill.members), None)
    if shared is not None:
        yield from table(shared)
    lines = tuple(dict.fromkeys(_short(line) for kill in kills for line in kill.evidence))
    if lines:
        rest = len(lines) - EVIDENCE
        more = (Line(N("and {n} more line", "and {n} more lines", rest)),) if rest > 0 else ()
        yield Fold(T("What the log says"), (Code(lines[:EVIDENCE]), *more))


def _short(line: str) -> str:
    """A line without what says nothing of the kill and fills a phone: where memory was allowed to lie, and most of an id."""
    return _ID.sub(lambda found: found[0][:CONTAINER_ID], _WHERE.sub(r"\1…,", line))


def _buttons(host: str, kills: Sequence[Kill]) -> tuple[tuple[Button, ...], ...]:
    """Look closer, and what helps: a plan where memory was short, the unit's log where a program ended its own."""
    first = kills[0]
    one = f" {first.pid}" if len(kills) == 1 and first.pid is not None else ""
    look = (Button(T("Top"), f"/top {host}"), Button(T("Why"), f"/why {host}{one}"))
    if first.staged:
        return (look,)
    if first.cause in MEMORY:
        return (look, (Button(T("Fix"), f"/fix {host}", "good"),))
    return (look, (Button(T("Log"), f"/logs {host} {shlex.quote(first.unit)}"),)) if first.unit else (look,)
