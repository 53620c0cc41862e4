"""What users stage in slices of their own: anybody may set a limit there and be killed at it, ten thousand times if he likes.

Such kills are reported as his, in one quiet message an hour, as a count; they never use up the room of others' messages. The
whole machine running out of memory is everybody's affair, whoever's process the kernel chose.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, or_, select, update

from bot.alerts.routing import told_about
from bot.alerts.rows import dump_kill, load_kill
from bot.store.tables import staged
from handlers.cards.kill import kill_card

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.outbox import Outbox
    from bot.settings import Settings
    from remote.findings.kill import Kill

HOUR = timedelta(hours=1)
REFRESH = timedelta(seconds=60)  # the count on the message follows this often
NOBODY = -1


def is_staged(kill: Kill) -> bool:
    """Whether it is a user's own doing: he was at a limit below his own slice, or asked systemd-oomd to watch a group there."""
    return kill.staged and kill.cause in {"cgroup-limit", "systemd-oomd"}


async def count(tx: AsyncConnection, host: str, found: Sequence[Kill], now: datetime) -> None:
    """Add them to the users' hours. The same kill may have been sighted several times in one batch; it counts once."""
    by_uid: dict[int, dict[tuple[str, int | None, int], Kill]] = {}
    for kill in found:
        by_uid.setdefault(NOBODY if kill.uid is None else kill.uid, {})[kill.boot_id, kill.pid, kill.monotonic_us] = kill
    for uid, theirs in by_uid.items():
        last = max(theirs.values(), key=lambda kill: (kill.at, kill.monotonic_us))
        row = await _hour(tx, host, uid, now)
        values = {"changed_at": now, "data": dump_kill(replace(last, final=True)), "boot_id": last.boot_id}
        if row is None or row.boot_id != last.boot_id:
            first = {"host": host, "uid": uid, "began_at": now, "number": len(theirs)}
            await tx.execute(insert(staged).values(**first, **values))
        else:
            more = len(theirs) - _known(row, theirs.values())
            await tx.execute(update(staged).where(staged.c.id == row.id).values(number=row.number + more, **values))


def _known(row: Any, found: Iterable[Kill]) -> int:  # noqa: ANN401 - a row of staged
    """More evidence about the last one that was counted is no new kill."""
    last = load_kill(row.data)
    return sum((kill.pid, kill.monotonic_us) == (last.pid, last.monotonic_us) for kill in found)


async def _hour(tx: AsyncConnection, host: str, uid: int, now: datetime) -> Any:  # noqa: ANN401 - a row of staged
    here = select(staged).where(staged.c.host == host, staged.c.uid == uid, staged.c.began_at > now - HOUR)
    return (await tx.execute(here.order_by(staged.c.id.desc()).limit(1))).one_or_none()


async def forget(tx: AsyncConnection, before: datetime, running: Select[tuple[str]]) -> None:
    """Drop the hours of before `before`, but those of boots that still run."""
    await tx.execute(delete(staged).where(staged.c.began_at < before, staged.c.boot_id.not_in(running)))


async def waits(tx: AsyncConnection, now: datetime) -> bool:
    """Whether a message is behind its count, and its time has come."""
    due = or_(staged.c.shown_at.is_(None), staged.c.shown_at <= now - REFRESH)
    return (await tx.execute(select(staged.c.id).where(staged.c.shown < staged.c.number, due).limit(1))).first() is not None


async def show(tx: AsyncConnection, host: str, settings: Settings, outbox: Outbox, now: datetime) -> None:
    """Tell each user's hour once; its count follows now and then."""
    behind = select(staged).where(staged.c.host == host, staged.c.shown < staged.c.number)
    for row in (await tx.execute(behind)).all():
        if row.shown_at is not None and now - row.shown_at < REFRESH:
            continue
        card = kill_card(host, (load_kill(row.data),), now, total=row.number)
        key = f"staged:{row.id}"
        for place in told_about(settings, host):
            await outbox.post(tx, place, replace(card, key=key, loud=False), key)
        await tx.execute(update(staged).where(staged.c.id == row.id).values(shown=row.number, shown_at=now))
