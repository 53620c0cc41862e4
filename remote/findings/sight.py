"""Two sights of one kill: whether they are, and what they come to together. Signs come over minutes, streams and restarts."""

from __future__ import annotations

from dataclasses import replace

from remote.findings.death import Confidence, Kill

JOIN_S = 60.0
"""Signs of one kill come within this: gunicorn's a second later, celery's after ten (kills.md 1.5, 1.6)."""
_SURE: dict[Confidence, int] = {"guess": 0, "likely": 1, "certain": 2}


def same_kill(known: Kill, more: Kill) -> bool:
    """Whether two sights are of one kill: the same process, or one of them only knows the unit and came without a pid."""
    if known.boot_id != more.boot_id or abs((known.at - more.at).total_seconds()) > JOIN_S:
        return False
    if known.pid is not None and more.pid is not None:
        return known.pid == more.pid
    again = known.pid is more.pid and known.monotonic_us == more.monotonic_us  # read twice: a journal may say a line again
    return known.unit == more.unit and (again or (known.unit is not None and not (known.final and more.final)))


def join(known: Kill, more: Kill) -> Kill:
    """Two sights of one kill: the surer one's verdict, with the lines of both."""
    best, other = (more, known) if _SURE[more.confidence] >= _SURE[known.confidence] else (known, more)
    lines = tuple(dict.fromkeys((*known.evidence, *more.evidence)))
    return replace(
        best,
        pid=best.pid if best.pid is not None else other.pid,
        name=best.name or other.name,
        at=min(known.at, more.at),
        unit=best.unit or other.unit,
        limit_bytes=best.limit_bytes if best.limit_bytes is not None else other.limit_bytes,
        rss_bytes=best.rss_bytes if best.rss_bytes is not None else other.rss_bytes,
        members=best.members or other.members,
        doing=best.doing or other.doing,
        by=best.by or other.by,
        evidence=lines,
        stopped_unit=known.stopped_unit or more.stopped_unit,
        counted=known.counted and more.counted,
        final=known.final,
    )
