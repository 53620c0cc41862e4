"""The kill rule: every kill one row, told once; kills of one storm share a message; how loud one is follows from its cause."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, or_, select, true, update

from bot.alerts import staged
from bot.alerts.routing import told_about
from bot.alerts.rows import dump_kill, load_kill
from bot.alerts.staged import is_staged
from bot.history import week_of
from bot.store.tables import journals, kills, plans, steps, tallies
from handlers.cards.kill import LOUD, kill_card
from remote.findings.advice import Known, advice
from remote.findings.kill import COUNTED_S, JOIN_S, NEAR_S, join, same_kill
from remote.findings.lines import kernel_made

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.outbox import Outbox
    from bot.settings import Settings
    from bot.store import Store
    from handlers.ports.clock import Clock
    from remote.findings.kill import Kill

    OnPlan = Callable[[AsyncConnection, str, int, Kill], Awaitable[None]]

STORM_S = 120.0  # kills of one unit within this of the last one share its message
AT_ONCE_S = 10.0  # … and those of several, which then have one reason
FINAL_S = 20.0  # so long after its last sign no more is waited for: celery's comes after ten seconds (worker_lost_wait)
NEARBY = 200  # how many of a boot's newest kills are looked at for one that this may be a second sight of
SHOWN = 60  # so many kills of one message are named, the rest is counted
TIMEOUTS = frozenset({"worker-timeout", "time-limit"})
OFTEN, HOUR = 3, timedelta(hours=1)  # timeouts sound at the third in an hour
KEEP = timedelta(days=120)
# What systemd does to a unit that a plan stops; clocks of bot and host may differ by so much.
BY_PLAN, SKEW = frozenset({"stop-timeout", "unknown", "manual"}), timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one stream of a host's journal was read. `gap` is the message of what was missed, while that is caught up."""

    stream: str
    cursor: str
    boot_id: str = ""
    gap: str = ""


@dataclass(frozen=True, slots=True)
class Sighted:
    """A kill, new or with more evidence. `batch` is the message of what was missed, for one of a time when nobody listened."""

    kill: Kill
    batch: str = ""


class KillRule:
    """Keeps kills, joins their signs, tells each once."""

    def __init__(self, settings: Settings, store: Store, outbox: Outbox, clock: Clock, on_plan: OnPlan | None = None) -> None:
        """Stateless: all it knows is in the rows. `on_plan(tx, plan, step number, kill)` shows a kill on a plan's own card."""
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._on_plan = on_plan

    async def mark(self, host: str, stream: str) -> Mark | None:
        """How far this stream was read; None when the host was never watched."""
        query = select(journals).where(journals.c.host == host, journals.c.stream == stream)
        async with self._store.connect() as tx:
            row = (await tx.execute(query)).one_or_none()
        return None if row is None else Mark(stream, row.cursor, row.boot_id, row.gap)

    async def keep(self, host: str, found: Sequence[Sighted], *marks: Mark) -> None:
        """Keep kills (new ones, or known ones with more evidence) and how far was read to find them, in one transaction.

        What users stage in slices of their own is counted after the others were told: it never uses up their room.
        """
        ours = [one for one in found if not is_staged(one.kill)]
        theirs = [one.kill for one in found if is_staged(one.kill)]
        if ours and theirs:
            await self._keep(host, ours, (), ())
            ours = []
        await self._keep(host, ours, theirs, marks)

    async def _keep(self, host: str, ours: Sequence[Sighted], theirs: Sequence[Kill], marks: Sequence[Mark]) -> None:
        async with self._store.begin() as tx:
            await self.add(tx, host, ours)
            if theirs:
                await staged.count(tx, host, theirs, self._clock.now())
                await staged.show(tx, host, self._settings, self._outbox, self._clock.now())
            for mark in marks:
                await self._save(tx, host, mark)
        if ours or theirs:
            self._outbox.wake()

    async def add(self, tx: AsyncConnection, host: str, found: Sequence[Sighted]) -> tuple[str, ...]:
        """Keep kills within a transaction, new or known; gives the message that tells each (empty: a plan's card)."""
        sights = [await self._one(tx, host, one.kill, one.batch) for one in found]
        await self._tell(tx, host, sights)
        return tuple(told for told, _ in sights)

    async def _tell(self, tx: AsyncConnection, host: str, sights: Sequence[tuple[str, bool]]) -> None:
        """Show each message once, anew where one of its kills must be heard."""
        for told in dict.fromkeys(told for told, _ in sights):
            await self._show(tx, host, told, anew=(told, True) in sights)

    async def missing(self, host: str, lost: Sequence[Kill]) -> None:
        """Keep kills that only a counter knows of, each a row of its own; a line that comes later takes one of them in."""
        async with self._store.begin() as tx:
            await self._tell(tx, host, [await self._new(tx, host, kill, "") for kill in lost])
        self._outbox.wake()

    async def settle(self) -> None:
        """Call final what got no more evidence for a while, and show that; tell what users staged since."""
        now = self._clock.now()
        due = select(kills).where(kills.c.final.is_(False), kills.c.seen_at <= now - timedelta(seconds=FINAL_S))
        async with self._store.connect() as tx:
            waits = (await tx.execute(due.limit(1))).first() is not None or await staged.waits(tx, now)
        if not waits:
            return
        async with self._store.begin() as tx:
            rows = (await tx.execute(due.limit(NEARBY))).all()
            for row in rows:
                data = {**row.data, "final": True}
                await tx.execute(update(kills).where(kills.c.id == row.id).values(final=True, data=data))
            for host, told in dict.fromkeys((row.host, row.told) for row in rows):
                await self._show(tx, host, told)
            for host in self._settings.hosts:
                await staged.show(tx, host, self._settings, self._outbox, now)
        self._outbox.wake()

    async def prune(self) -> None:
        """Forget kills of long ago, but those of a boot that still runs: its counter is held against them."""
        running, long_ago = select(tallies.c.boot_id), self._clock.now() - KEEP
        async with self._store.begin() as tx:
            await tx.execute(delete(kills).where(kills.c.at < long_ago, kills.c.boot_id.not_in(running)))
            await staged.forget(tx, long_ago, running)

    async def _one(self, tx: AsyncConnection, host: str, kill: Kill, batch: str) -> tuple[str, bool]:
        """Keep one sight of a kill; gives the message that tells it, and whether that must be shown anew to be heard."""
        row = await self._known(tx, host, kill)
        if row is None:
            return await self._new(tx, host, kill, batch)
        whole = join(load_kill(row.data), kill)
        if not row.told:  # what was told as another's doing is not explained away by a plan that came after
            whole = await self._by_plan(tx, host, whole, first=row.cause != "plan")
        loud = row.loud or await self._sounds(tx, host, whole)
        told = str(row.told)
        if not told and whole.cause != "plan":
            told = batch or await self._message(tx, host, whole, loud=loud)
        # That the autopsy calls it final is no news; evidence is.
        changed = dump_kill(replace(whole, final=row.data["final"])) != row.data
        values = self._values(whole, told=told, loud=loud, changed=changed, row=row)
        await tx.execute(update(kills).where(kills.c.id == row.id).values(**values))
        return told, loud and not row.loud

    async def _known(self, tx: AsyncConnection, host: str, kill: Kill) -> Any:  # noqa: ANN401 - a row of kills
        """The row that this is another sight of: the same process, or one that lacks its pid."""
        here = select(kills).where(kills.c.host == host, kills.c.boot_id == kill.boot_id)
        near, near_us = timedelta(seconds=JOIN_S), int(JOIN_S * 1e6)
        same = true() if kill.pid is None else or_(kills.c.pid == kill.pid, kills.c.pid.is_(None))
        # By the kernel's clock too: the host's own may have been set since.
        about = kills.c.monotonic_us.between(max(1, kill.monotonic_us - near_us), kill.monotonic_us + near_us)
        query = here.where(same, or_(about, kills.c.at.between(kill.at - near, kill.at + near)))
        rows = (await tx.execute(query.order_by(kills.c.id.desc()).limit(NEARBY))).all()
        # The process itself first: what only a counter knows of is another one's.
        for row in sorted(rows, key=lambda row: row.pid != kill.pid):
            if same_kill(load_kill(row.data), kill):
                return row
        return await self._lost(tx, here, kill) if kill.pid is not None and kernel_made(kill) else None

    async def _lost(self, tx: AsyncConnection, here: Select[Any], kill: Kill) -> Any:  # noqa: ANN401 - a row of kills
        """A kill that only the counter knew of, whose late line this is: journald starves while memory is short."""
        before, after = timedelta(seconds=NEAR_S), timedelta(seconds=COUNTED_S)
        from_us, to_us = (int(kill.monotonic_us + apart_s * 1e6) for apart_s in (-NEAR_S, COUNTED_S))
        about = or_(kills.c.at.between(kill.at - before, kill.at + after), kills.c.monotonic_us.between(max(1, from_us), to_us))
        query = here.where(kills.c.pid.is_(None), about)
        rows = [row for row in (await tx.execute(query.order_by(kills.c.id))).all() if row.data["counted"]]
        fitting = (row for row in rows if same_kill(load_kill(row.data), kill))
        return next(iter(sorted(fitting, key=lambda row: row.unit is None)), None)

    async def _new(self, tx: AsyncConnection, host: str, kill: Kill, batch: str) -> tuple[str, bool]:
        """Keep a kill that nothing was known of; gives what `_one` does."""
        kill = await self._by_plan(tx, host, kill, first=True)
        loud = await self._sounds(tx, host, kill)
        told = "" if kill.cause == "plan" else batch or await self._message(tx, host, kill, loud=loud)
        unheard = loud and await self._silent(tx, host, told)
        values = {"host": host, "boot_id": kill.boot_id, "monotonic_us": kill.monotonic_us, "at": kill.at}
        await tx.execute(insert(kills).values(**values, **self._values(kill, told=told, loud=loud, changed=True)))
        return told, unheard

    async def _silent(self, tx: AsyncConnection, host: str, told: str) -> bool:
        """Whether this message has kills already and none of them made a sound: an edit would make none either."""
        loudest = select(func.max(kills.c.loud)).where(kills.c.host == host, kills.c.told == told)
        return (await tx.execute(loudest)).scalar() is False

    def _values(self, kill: Kill, *, told: str, loud: bool, changed: bool, row: Any = None) -> dict[str, Any]:  # noqa: ANN401
        now = self._clock.now()
        seen_at = now if changed else row.seen_at
        # What is caught up long after has all its evidence already; what was final stays it, whatever comes still.
        final = now - kill.at > timedelta(seconds=3 * FINAL_S) or (row is not None and row.final)
        return {
            "pid": kill.pid, "unit": kill.unit, "name": kill.name, "cause": kill.cause, "kernel": kernel_made(kill),
            "told": told, "loud": loud, "final": final, "seen_at": seen_at, "data": dump_kill(replace(kill, final=final)),
        }  # fmt: skip

    async def _message(self, tx: AsyncConnection, host: str, kill: Kill, *, loud: bool) -> str:
        """The message of its storm, else the key of one that is yet to be."""
        return await self._storm(tx, host, kill, loud=loud) or f"kills:{secrets.token_hex(8)}"

    async def _storm(self, tx: AsyncConnection, host: str, kill: Kill, *, loud: bool) -> str:
        """The message of a kill just before this one, if there is one that is as loud; not for ever: an edit makes no sound,
        and a program that dies every minute is told anew as often as an incident that lasts."""
        near = timedelta(seconds=STORM_S)
        place = (kills.c.data[part].as_string().label(part) for part in _PLACE)
        here = select(kills.c.told, kills.c.loud, kills.c.unit, kills.c.at, *place)
        here = here.where(kills.c.host == host, kills.c.told.startswith("kills:"))
        query = here.where(kills.c.at >= kill.at - near, kills.c.at <= kill.at + near)
        rows = (await tx.execute(query.order_by(kills.c.at.desc()).limit(NEARBY))).all()
        told = next((row.told for row in rows if row.loud >= loud and _one_storm(row, kill)), "")
        if not told:
            return ""
        began = (await tx.execute(select(func.min(kills.c.at)).where(kills.c.host == host, kills.c.told == told))).scalar()
        lasts = timedelta(seconds=self._settings.alerts_of(host).repeat)
        return str(told) if began is None or kill.at - began < lasts else ""

    async def _sounds(self, tx: AsyncConnection, host: str, kill: Kill) -> bool:
        """Whether this kill makes a sound: by its cause; a timeout at the third in an hour."""
        if kill.cause not in TIMEOUTS:
            return kill.cause in LOUD and not is_staged(kill)
        query = select(kills.c.loud).where(
            kills.c.host == host, kills.c.unit == kill.unit, kills.c.cause == kill.cause, kills.c.at > kill.at - HOUR,
            kills.c.at <= kill.at, or_(kills.c.pid != kill.pid, kills.c.boot_id != kill.boot_id),
        )  # fmt: skip
        quiet = 0
        for (loud,) in (await tx.execute(query.order_by(kills.c.at.desc()).limit(OFTEN))).all():
            if loud:
                break
            quiet += 1
        return quiet >= OFTEN - 1

    async def _by_plan(self, tx: AsyncConnection, host: str, kill: Kill, *, first: bool) -> Kill:
        """A kill by a step of our own plan is that plan's: it goes onto its card and is no new alert."""
        seen = (kill.cause, kill.confidence) == ("manual", "certain")  # the audit knows who it was
        if kill.cause not in BY_PLAN or kill.unit is None or seen:
            return kill
        at = kill.at
        query = (
            select(plans.c.id, plans.c.code, plans.c.draft, steps.c.n, steps.c.started_at, steps.c.ended_at)
            .join(steps, steps.c.plan == plans.c.id)
            .where(plans.c.host == host, steps.c.started_at <= at + SKEW)
            .where(or_(steps.c.ended_at.is_(None), steps.c.ended_at >= at - SKEW))
            .order_by(steps.c.started_at.desc())
        )
        for row in (await tx.execute(query)).all():
            step = row.draft["steps"][row.n]
            ended_at = row.ended_at or row.started_at + timedelta(seconds=step["deadline_s"])  # a crash may have left it open
            if step["target"] == kill.unit and at <= ended_at + SKEW:
                words = advice(Known(cause="plan", name=kill.name, unit=kill.unit, by=row.code))
                kill = replace(kill, cause="plan", confidence="certain", by=row.code, advice=words)
                if first and self._on_plan is not None:
                    await self._on_plan(tx, row.id, row.n, kill)
                return kill
        return kill

    async def _show(self, tx: AsyncConnection, host: str, key: str, *, anew: bool = False) -> None:
        """The card of all kills that this message tells."""
        mine = (kills.c.host == host, kills.c.told == key)
        query = select(kills).where(*mine).order_by(kills.c.at.desc(), kills.c.id.desc()).limit(SHOWN)
        rows = (await tx.execute(query)).all()
        if not key or not rows:
            return
        total, loud = len(rows), any(row.loud for row in rows)
        if total == SHOWN:
            total, loud = (await tx.execute(select(func.count(), func.max(kills.c.loud)).where(*mine))).one()
        shown = tuple(load_kill(row.data) for row in rows)
        last = shown[0]
        past = await week_of(tx, host, last.unit, last.name, last.at)
        card = kill_card(host, shown, self._clock.now(), past=past, total=total)
        for place in told_about(self._settings, host):
            await self._outbox.post(tx, place, replace(card, key=key, loud=bool(loud)), key, fresh=anew)

    async def _save(self, tx: AsyncConnection, host: str, mark: Mark) -> None:
        now = self._clock.now()
        values = {"cursor": mark.cursor, "boot_id": mark.boot_id, "gap": mark.gap, "saved_at": now}
        here = (journals.c.host == host, journals.c.stream == mark.stream)
        done = await tx.execute(update(journals).where(*here).values(**values))
        if done.rowcount == 0:
            await tx.execute(insert(journals).values(host=host, stream=mark.stream, first_at=now, **values))


_PLACE = ("container", "cgroup", "name")  # what tells those apart that have no unit


def _one_storm(row: Any, kill: Kill) -> bool:  # noqa: ANN401 - a row of kills
    """Whether they have one reason: another unit's kill a minute later must be heard."""
    place = ("unit",) if row.unit or kill.unit else _PLACE
    same = all(getattr(row, part) == getattr(kill, part) for part in place)
    return bool(same or abs((kill.at - row.at).total_seconds()) <= AT_ONCE_S)
