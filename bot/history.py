"""The `History` port: what was killed before, from the rows that the watch keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import and_, func, select

from bot.alerts.rows import load_kill
from bot.store.tables import kills
from handlers.cards.kill import Past, newest_first
from remote.findings.kill import join, same_kill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.store import Store
    from remote.findings.kill import Kill

WEEK = timedelta(days=7)
LOOKED_AT = 60  # of a week's kills, the newest: enough to say "always"
MOST = 500


class KillHistory:
    """Reads; the kill rule writes."""

    def __init__(self, store: Store) -> None:
        """Nothing is read before it is asked."""
        self._store = store

    async def past(self, host: str, unit: str | None, name: str, before: datetime) -> Past:
        """See handlers/ports/history.py."""
        async with self._store.connect() as tx:
            return await week_of(tx, host, unit, name, before)

    async def told(self, host: str, found: Sequence[Kill], since: datetime) -> tuple[Kill, ...]:
        """See handlers/ports/history.py."""
        query = select(kills.c.data).where(kills.c.host == host, kills.c.at >= since)
        async with self._store.connect() as tx:
            rows = (await tx.execute(query.order_by(kills.c.at.desc()).limit(MOST))).all()
        known = [load_kill(row.data) for row in rows]
        whole = [_whole(kill, sights) for kill, sights in _beside(found, known)]
        # A journal is vacuumed, and of a flood it gives the beginning: what was told is known all the same.
        only_ours = [kill for kill, sights in _beside(known, found) if not any(same_kill(kill, one) for one in sights)]
        return newest_first((*whole, *only_ours))


def _beside(kills: Sequence[Kill], others: Sequence[Kill]) -> Iterator[tuple[Kill, Sequence[Kill]]]:
    """Each with those of the others that may be sights of it: of its pid, or without one."""
    by_pid: dict[int | None, list[Kill]] = {}
    for one in others:
        by_pid.setdefault(one.pid, []).append(one)
    for kill in kills:
        nameless = by_pid.get(None, ())
        yield kill, others if kill.pid is None else (*by_pid.get(kill.pid, ()), *nameless)


def _whole(kill: Kill, known: Sequence[Kill]) -> Kill:
    """The sight with what the watch saw of it: a unit that is gone no longer tells which process its main one was."""
    ours = next((one for one in known if not one.counted and same_kill(one, kill)), None)
    if ours is None:
        return kill
    if ours.cause == "plan":
        return replace(join(kill, ours), cause="plan", confidence=ours.confidence, by=ours.by, advice=ours.advice)
    return join(kill, ours)


async def week_of(tx: AsyncConnection, host: str, unit: str | None, name: str, before: datetime) -> Past:
    """The kills of this unit (without one: of processes called so) in the week up to and with `before`."""
    like = kills.c.unit == unit if unit else and_(kills.c.unit.is_(None), kills.c.name == name)
    mine = (kills.c.host == host, like, kills.c.at > before - WEEK, kills.c.at <= before)
    rows = (await tx.execute(select(kills.c.data).where(*mine).order_by(kills.c.at.desc()).limit(LOOKED_AT))).all()
    total = len(rows)
    if total == LOOKED_AT:
        total = (await tx.execute(select(func.count()).where(*mine))).scalar_one()
    doings = Counter(row.data.get("doing", "") for row in rows)
    return Past(week=total, doing=next(iter(doings)) if len(doings) == 1 else "")
