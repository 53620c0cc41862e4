"""The kill rule: every kill one row, told once; kills of one storm share a message that names each pid."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, or_, select, true, update

from bot.alerts.routing import told_about
from bot.store.tables import cursors, kills
from handlers.cards.kill import kill_card
from remote.findings.death import Kill
from remote.text import dump, load_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.outbox import Outbox
    from bot.settings import Settings
    from bot.store import Store
    from handlers.ports.clock import Clock

JOIN_S = 60.0  # signs of one kill come within this: gunicorn's a second later, celery's after ten (kills.md 1.5, 1.6)
STORM_S = 120.0  # kills within this of the last one share its message
NEARBY = 200  # how many of a boot's newest kills are looked at for one that this may be a second sight of
RANK = {"guess": 0, "likely": 1, "certain": 2}


class KillRule:
    """Keeps kills, joins their signs, tells each once."""

    def __init__(self, settings: Settings, store: Store, outbox: Outbox, clock: Clock) -> None:
        """Stateless: all it knows is in the rows."""
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._clock = clock

    async def cursor(self, host: str) -> str | None:
        """How far the host's journal was read; None when it was never watched."""
        async with self._store.connect() as tx:
            return (await tx.execute(select(cursors.c.cursor).where(cursors.c.host == host))).scalar()

    async def keep(self, host: str, found: Sequence[Kill], cursor: str, boot_id: str, *, batch: str = "") -> None:
        """Keep kills (new ones, or known ones with more evidence) and the cursor that led to them, in one transaction.

        `batch` names what was missed and is told together in one message; empty for what happens now.
        """
        async with self._store.begin() as tx:
            await self.add(tx, host, found, batch=batch)
            await self._save(tx, host, cursor, boot_id)
        if found:
            self._outbox.wake()

    async def add(self, tx: AsyncConnection, host: str, found: Sequence[Kill], *, batch: str = "") -> tuple[str, ...]:
        """Keep kills within a transaction, new or known; gives the key of the message that tells each."""
        told = [await self._one(tx, host, kill, batch) for kill in found]
        for card in dict.fromkeys(told):
            await self._show(tx, host, card)
        return tuple(told)

    async def _one(self, tx: AsyncConnection, host: str, kill: Kill, batch: str) -> str:
        """Keep one kill; gives the key of the message that tells it."""
        query = select(kills).where(kills.c.host == host, kills.c.boot_id == kill.boot_id)
        same = true() if kill.pid is None else or_(kills.c.pid == kill.pid, kills.c.pid.is_(None))
        for row in (await tx.execute(query.where(same).order_by(kills.c.id.desc()).limit(NEARBY))).all():
            known = _load(row.data)
            if one_kill(known, kill):
                whole = join(known, kill)
                await tx.execute(update(kills).where(kills.c.id == row.id).values(pid=whole.pid, data=_dump(whole)))
                return str(row.told)
        told = f"kills:{batch}" if batch else await self._storm(tx, host, kill)
        made = await tx.execute(
            insert(kills).values(
                host=host,
                boot_id=kill.boot_id,
                pid=kill.pid,
                monotonic_us=kill.monotonic_us,
                at=kill.at,
                told=told,
                data=_dump(kill),
            )
        )
        if told:
            return told
        assert made.inserted_primary_key is not None  # noqa: S101 - for the type checker: an insert of one row
        told = f"kills:{made.inserted_primary_key[0]}"
        await tx.execute(update(kills).where(kills.c.id == made.inserted_primary_key[0]).values(told=told))
        return told

    async def _storm(self, tx: AsyncConnection, host: str, kill: Kill) -> str:
        """The message of a kill just before this one, if there is one; not for ever: an edit makes no sound, and a program that
        dies every minute is told anew as often as an incident that lasts."""
        near = timedelta(seconds=STORM_S)
        query = (
            select(kills.c.told)
            .where(kills.c.host == host, kills.c.at >= kill.at - near, kills.c.at <= kill.at + near)
            .order_by(kills.c.at.desc())
            .limit(1)
        )
        told = (await tx.execute(query)).scalar() or ""
        first = select(kills.c.at).where(kills.c.host == host, kills.c.told == told).order_by(kills.c.at).limit(1)
        began = (await tx.execute(first)).scalar()
        lasts = timedelta(seconds=self._settings.alerts_of(host).repeat)
        return told if began is None or kill.at - began < lasts else ""

    async def _show(self, tx: AsyncConnection, host: str, key: str) -> None:
        """The card of all kills that this message tells."""
        rows = (await tx.execute(select(kills).where(kills.c.host == host, kills.c.told == key).order_by(kills.c.at))).all()
        card = replace(kill_card(host, tuple(_load(row.data) for row in rows), self._clock.now()), key=key, loud=True)
        for place in told_about(self._settings, host):
            await self._outbox.post(tx, place, card, key)

    async def _save(self, tx: AsyncConnection, host: str, cursor: str, boot_id: str) -> None:
        now = self._clock.now()
        values = {"cursor": cursor, "boot_id": boot_id, "saved_at": now}
        done = await tx.execute(update(cursors).where(cursors.c.host == host).values(**values))
        if done.rowcount == 0:
            await tx.execute(insert(cursors).values(host=host, first_at=now, **values))


def one_kill(known: Kill, more: Kill) -> bool:
    """Whether two sights are of one kill: the same process, or one of them only knows the unit and came without a pid."""
    if abs((known.at - more.at).total_seconds()) > JOIN_S:
        return False
    if known.pid is not None and more.pid is not None:
        return known.pid == more.pid
    again = known.pid is more.pid and known.monotonic_us == more.monotonic_us  # read twice: a journal may say a line again
    return known.unit == more.unit and (again or (known.unit is not None and not (known.final and more.final)))


def join(known: Kill, more: Kill) -> Kill:
    """Two sights of one kill: the surer one's verdict, with the lines of both."""
    best, other = (more, known) if RANK[more.confidence] >= RANK[known.confidence] else (known, more)
    lines = tuple(dict.fromkeys((*known.evidence, *more.evidence)))
    return replace(
        best,
        pid=best.pid if best.pid is not None else other.pid,
        name=best.name or other.name,
        at=min(known.at, more.at),
        unit=best.unit or other.unit,
        limit_bytes=best.limit_bytes if best.limit_bytes is not None else other.limit_bytes,
        rss_bytes=best.rss_bytes if best.rss_bytes is not None else other.rss_bytes,
        evidence=lines,
        stopped_unit=known.stopped_unit or more.stopped_unit,
    )


def _dump(kill: Kill) -> dict[str, Any]:
    return {**asdict(kill), "at": kill.at.isoformat(), "advice": dump(kill.advice)}


def _load(data: dict[str, Any]) -> Kill:
    return Kill(
        **{
            **data,
            "at": datetime.fromisoformat(data["at"]),
            "advice": load_text(data["advice"]),
            "evidence": tuple(data["evidence"]),
        }
    )
