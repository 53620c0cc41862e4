"""A kill as it is told: one killed process or cgroup, and when two sights are sights of one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from remote.findings.advice import Known, advice
from remote.findings.causes import Cause, Confidence
from remote.findings.verdict import Verdict, strength
from remote.redact import redact
from remote.text import Text


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the kernel's own table at the moment of a kill."""

    pid: int
    name: str
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a program said of one of its children and nobody else yet. It waits for a witness: that `unit` runs `invocation` with
    the main process `speaker`, and that `pid` (None where the line has none) is gone."""

    boot_id: str
    unit: str
    invocation: str
    speaker: int
    pid: int | None
    at: datetime
    monotonic_us: int


@dataclass(frozen=True, slots=True)
class Kill:
    """One killed process (or cgroup: `pid` None). `evidence` are the exact log lines, redacted, oldest first.

    `limit_group` is the cgroup whose limit was hit; `limit_bytes` that limit; `stopped_unit` says that systemd stopped the
    whole unit for it (OOMPolicy=stop). `uid` is the victim's. `final` is False while more evidence may still come.
    `members` are the processes that shared the memory that ran out, biggest first, as the kernel listed them. `doing` names the
    task or request that was in hand. `staged` marks what happened in a user's own slice, where anybody may stage kills. `counted`
    marks one that only a counter knows of. `container` is the id of the container it was in. `by` says who did it, where somebody
    did: `alice` for a sudo line, `earlyoom`, a plan's code.
    """

    pid: int | None
    name: str
    unit: str | None
    at: datetime
    boot_id: str
    monotonic_us: int
    signal: int
    cause: Cause
    confidence: Confidence
    limit_bytes: int | None
    rss_bytes: int | None
    evidence: tuple[str, ...]
    advice: Text
    limit_group: str = ""
    uid: int | None = None
    cgroup: str = ""
    stopped_unit: bool = False
    final: bool = True
    members: tuple[Member, ...] = ()
    doing: str = ""
    staged: bool = False
    counted: bool = False
    container: str = ""
    by: str = ""


LINES, LINE_CHARACTERS = 20, 500
# Signs of one process' end come within this time: gunicorn's a second later, celery's after ten (its worker_lost_wait), and
# under thrash journald reads the kernel's lines up to minutes late.
JOIN_S = 120.0
# A pid may be used again within that time. The kernel names a victim once (those of a group that is killed whole twice, at
# once), so that a line so much later names another process.
AGAIN_S = 10.0
# What names no pid belongs to a kill of its unit this near.
NEAR_S = 60.0
# A counter is read now and then: the line of what it counted may be this much older than the reading.
COUNTED_S = 600.0
_BY_A_COUNTER = {"kernel-oom", "cgroup-limit"}
_OF_A_GROUP = {"systemd-oomd", "container"}


def counted_kill(unit: str | None, boot_id: str, at: datetime, monotonic_us: int, limit_bytes: int | None, evidence: str) -> Kill:
    """A kill of the kernel's that only a counter tells of (the unit's own, or the host's: `unit` None); `evidence` is how the
    counter stood. It is absorbed when its line comes: see `same_kill`."""
    cause: Cause = "kernel-oom" if limit_bytes is None else "cgroup-limit"
    name = (unit or "?").removesuffix(".service")
    return Kill(
        pid=None,
        name=name,
        unit=unit,
        at=at,
        boot_id=boot_id,
        monotonic_us=monotonic_us,
        signal=9,
        cause=cause,
        confidence="likely",
        limit_bytes=limit_bytes,
        rss_bytes=None,
        evidence=(redact(evidence)[:LINE_CHARACTERS],),
        advice=advice(Known(cause=cause, name=name, unit=unit, limit_bytes=limit_bytes, counted=True)),
        final=False,
        counted=True,
    )


def same_kill(known: Kill, more: Kill) -> bool:
    """Whether two sights are of one kill: the same process of one boot within two minutes, or one of them came without a pid
    and knows only the unit (by the same line, or within a minute), or only a counter (within ten). Never two pids, nor two
    victims of the kernel's that had one pid after the other; never a cgroup and a process."""
    if not _one_boot(known, more):
        return False
    if known.pid is not None and more.pid is not None:
        return known.pid == more.pid and _apart_s(known, more) <= JOIN_S and not _named_twice(known, more)
    if known.counted or more.counted:
        return _was_counted(*((known, more) if known.counted else (more, known)))
    return _apart_s(known, more) <= NEAR_S and _without_pid(known, more)


def _one_boot(one: Kill, other: Kill) -> bool:
    """A text file knows no boot."""
    boots = {kill.boot_id for kill in (one, other)} - {""}
    return len(boots) <= 1


def _apart_s(one: Kill, other: Kill) -> float:
    """By the kernel's clock where both have it (a clock that is set does not move it), else by the wall's."""
    if one.monotonic_us and other.monotonic_us and one.boot_id and other.boot_id:
        return abs(one.monotonic_us - other.monotonic_us) / 1e6
    return abs((one.at - other.at).total_seconds())


def _named_twice(known: Kill, more: Kill) -> bool:
    """Whether the kernel named a victim of this pid in both, long apart and in other words: then its pid was used again."""
    named = re.compile(rf"Killed process {known.pid}\b")
    lines, others = ({line for line in kill.evidence if named.search(line)} for kill in (known, more))
    clocks = known.monotonic_us and more.monotonic_us
    return bool(clocks and lines and others) and lines.isdisjoint(others) and _apart_s(known, more) > AGAIN_S


def _without_pid(known: Kill, more: Kill) -> bool:
    # A journal may say a line again. Who reads it when the unit has restarted does not learn which process its main one was.
    one_place = known.pid is more.pid or (known.unit is not None and known.monotonic_us > 0)
    again = one_place and known.monotonic_us == more.monotonic_us
    if known.container and known.pid is more.pid:
        return known.container == more.container
    groups = {kill.cause in _OF_A_GROUP for kill in (known, more) if kill.pid is None}
    one_group = known.pid is more.pid or True not in groups
    waits = known.unit is not None and not (known.final and more.final)
    return known.unit == more.unit and one_group and (again or waits)


def _was_counted(counted: Kill, told: Kill) -> bool:
    """A counter knows its unit at most; the line that it stands for comes before the reading, or a moment after."""
    if counted.counted and told.counted:
        return counted.unit == told.unit and counted.monotonic_us == told.monotonic_us and counted.at == told.at
    # By the host's own clock where both have it: the reading was dated by the bot's.
    own = counted.monotonic_us and told.monotonic_us
    before_s = (counted.monotonic_us - told.monotonic_us) / 1e6 if own else (counted.at - told.at).total_seconds()
    return told.cause in _BY_A_COUNTER | {"unknown"} and counted.unit in {None, told.unit} and -NEAR_S <= before_s <= COUNTED_S


def join(known: Kill, more: Kill) -> Kill:
    """Two sights of one kill: the stronger verdict, as one judgement of both would be (of two alike that of the sight which knows
    more, else the newer), all that either knows, and the lines of both."""
    best, other = (more, known) if _rank(more) >= _rank(known) else (known, more)
    same_cause = best.cause == other.cause
    return replace(
        best,
        pid=_first(best.pid, other.pid),
        name=_name(best, other),
        unit=best.unit or other.unit,
        at=min(known.at, more.at),
        monotonic_us=min(filter(None, (known.monotonic_us, more.monotonic_us)), default=0),
        limit_bytes=_first(best.limit_bytes, other.limit_bytes) if same_cause else best.limit_bytes,
        limit_group=best.limit_group or (other.limit_group if same_cause else ""),
        rss_bytes=_first(best.rss_bytes, other.rss_bytes),
        uid=_first(best.uid, other.uid),
        cgroup=best.cgroup or other.cgroup,
        members=best.members or other.members,
        doing=best.doing or other.doing,
        container=best.container or other.container,
        by=best.by or (other.by if same_cause and best.confidence == other.confidence else ""),
        evidence=tuple(dict.fromkeys((*known.evidence, *more.evidence)))[:LINES],
        stopped_unit=known.stopped_unit or more.stopped_unit,
        staged=(known.staged or more.staged) and not (best.unit or other.unit),
        counted=known.counted and more.counted,
        final=known.final or more.final,
    )


def _rank(kill: Kill) -> tuple[int, bool, int]:
    """How strong, and how complete: its advice speaks of what it knew."""
    known = (kill.limit_bytes, kill.rss_bytes, kill.unit, kill.limit_group or None, kill.stopped_unit or None)
    said = Verdict(kill.cause, kill.confidence, kill.by)
    return strength(said), not kill.counted, sum(part is not None for part in known)


def _first(one: int | None, other: int | None) -> int | None:
    return one if one is not None else other


def _name(best: Kill, other: Kill) -> str:
    """A process' own name is better than its unit's."""
    if best.pid is None and other.pid is not None:
        return other.name or best.name
    return best.name or other.name
