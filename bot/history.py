"""The `History` port: what was killed before, from the rows that the watch keeps."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import and_, func, select

from bot.store.tables import kills
from handlers.cards.kill import Past

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.store import Store

WEEK = timedelta(days=7)
LOOKED_AT = 60  # of a week's kills, the newest: enough to say "always"


class KillHistory:
    """Reads; the kill rule writes."""

    def __init__(self, store: Store) -> None:
        """Nothing is read before it is asked."""
        self._store = store

    async def past(self, host: str, unit: str | None, name: str, before: datetime) -> Past:
        """See handlers/ports/history.py."""
        async with self._store.connect() as tx:
            return await week_of(tx, host, unit, name, before)


async def week_of(tx: AsyncConnection, host: str, unit: str | None, name: str, before: datetime) -> Past:
    """The kills of this unit (without one: of processes called so) in the week up to and with `before`."""
    like = kills.c.unit == unit if unit else and_(kills.c.unit.is_(None), kills.c.name == name)
    mine = (kills.c.host == host, like, kills.c.at > before - WEEK, kills.c.at <= before)
    total = (await tx.execute(select(func.count()).where(*mine))).scalar_one()
    rows = await tx.execute(select(kills.c.data).where(*mine).order_by(kills.c.at.desc()).limit(LOOKED_AT))
    doings = Counter(row.data.get("doing", "") for row in rows)
    return Past(week=total, doing=next(iter(doings)) if len(doings) == 1 else "")
