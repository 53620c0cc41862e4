"""The memory rule: above the threshold for its hold, or critical at once; one incident, one living message, until it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import insert, select, update

from bot.alerts.routing import told_about
from bot.store.tables import incidents
from handlers.cards.host import Use
from handlers.cards.memory import MemoryIncident, memory_card
from handlers.reply import Line, Reply, Title
from remote.text import Mono, Percent, T, When

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.outbox import Outbox
    from bot.settings import AlertSettings, Settings
    from bot.store import Store
    from handlers.ports.clock import Clock
    from remote.facts.memory import Memory

WhoHolds = Callable[[str], Awaitable[tuple[Use, ...]]]
Level = Literal["warning", "critical"]
REFRESH_S = 60.0  # the open message follows the figures at most this often: edits count against a chat's rate
SHARE = 0.1  # of MemTotal: `critical_available` counts as no more than this, or a small server would stand below it for ever
CLEARLY = 1.25  # times the limit must be available again, or what sways around it would be a new message each time


@dataclass(frozen=True, slots=True)
class Incident:
    """An open memory incident as its row has it."""

    id: int
    level: Level
    opened_at: datetime
    told_at: datetime
    shown_at: datetime
    worst_percent: float
    worst_at: datetime


def critical(memory: Memory, rules: AlertSettings) -> bool:
    """Whether there is no time to hold back."""
    return memory.used_percent >= rules.critical_percent or memory.available_bytes <= least_available(memory, rules)


def over(memory: Memory, rules: AlertSettings) -> bool:
    """Whether an open incident is at its end: clearly below each limit that may have opened it."""
    return memory.used_percent < rules.clear_percent and memory.available_bytes > CLEARLY * least_available(memory, rules)


def least_available(memory: Memory, rules: AlertSettings) -> float:
    """With so many bytes available or fewer it is critical."""
    return min(rules.critical_available, SHARE * memory.total_bytes)


class MemoryRule:
    """Watches the samples of every host. What is open is a row; only the hold's beginning lives in memory."""

    def __init__(self, settings: Settings, store: Store, outbox: Outbox, clock: Clock, who: WhoHolds) -> None:
        """Nothing is known before `load`. `who` reads who holds a host's memory, for the card."""
        self._who = who
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._high_since: dict[str, datetime] = {}
        self._open: dict[str, Incident] = {}

    async def load(self) -> None:
        """Go on with what was open when the process ended; what is open of a host that is no longer known ends here."""
        query = select(incidents).where(incidents.c.rule == "memory", incidents.c.closed_at.is_(None))
        async with self._store.connect() as tx:
            rows = (await tx.execute(query)).all()
        for row in rows:
            incident = _incident(row)
            if row.host in self._settings.hosts:
                self._open[row.host] = incident
            else:
                await self._leave(row.host, incident)

    async def sample(self, host: str, memory: Memory) -> None:
        """Judge one sample."""
        rules, now = self._settings.alerts_of(host), self._clock.now()
        incident = self._open.get(host)
        if incident is not None:
            await self._go_on(host, incident, memory, rules)
        elif critical(memory, rules):
            await self._begin(host, "critical", memory)
        elif memory.used_percent >= rules.memory_percent:
            since = self._high_since.setdefault(host, now)
            if now - since >= timedelta(seconds=rules.hold):
                await self._begin(host, "warning", memory)
        else:
            self._high_since.pop(host, None)

    async def _begin(self, host: str, level: Level, memory: Memory) -> None:
        now = self._clock.now()
        self._high_since.pop(host, None)
        uses = await self._who(host)
        async with self._store.begin() as tx:
            made = await tx.execute(
                insert(incidents).values(
                    key=f"memory:{host}", host=host, rule="memory", level=level, opened_at=now, changed_at=now, told_at=now,
                    data=_data(memory, memory.used_percent, now),
                )
            )  # fmt: skip
            assert made.inserted_primary_key is not None  # noqa: S101 - for the type checker: an insert of one row
            incident = Incident(int(made.inserted_primary_key[0]), level, now, now, now, memory.used_percent, now)
            await self._show(tx, host, incident, memory, uses)
        self._open[host] = incident
        self._outbox.wake()

    async def _go_on(self, host: str, incident: Incident, memory: Memory, rules: AlertSettings) -> None:
        """Worse, over, or simply longer."""
        now = self._clock.now()
        if memory.used_percent > incident.worst_percent:
            incident = replace(incident, worst_percent=memory.used_percent, worst_at=now)
        if over(memory, rules):
            await self._end(host, incident, memory)
            return
        worse = incident.level == "warning" and critical(memory, rules)
        anew = worse or now - incident.told_at >= timedelta(seconds=rules.repeat)
        stale = now - incident.shown_at >= timedelta(seconds=REFRESH_S)
        if not (anew or stale):
            self._open[host] = incident
            return
        changed = replace(
            incident, level="critical" if worse else incident.level, shown_at=now,
            told_at=now if anew else incident.told_at,
        )  # fmt: skip
        uses = await self._who(host)
        async with self._store.begin() as tx:
            await tx.execute(
                update(incidents)
                .where(incidents.c.id == incident.id)
                .values(
                    level=changed.level,
                    changed_at=now,
                    told_at=changed.told_at,
                    data=_data(memory, incident.worst_percent, incident.worst_at),
                )
            )
            await self._show(tx, host, changed, memory, uses, anew=anew)
        self._open[host] = changed
        self._outbox.wake()

    async def _end(self, host: str, incident: Incident, memory: Memory) -> None:
        now = self._clock.now()
        async with self._store.begin() as tx:
            await tx.execute(
                update(incidents)
                .where(incidents.c.id == incident.id)
                .values(closed_at=now, changed_at=now, data=_data(memory, incident.worst_percent, incident.worst_at))
            )
            await self._show(tx, host, incident, memory, (), closed_at=now)
        del self._open[host]
        self._outbox.wake()

    async def _leave(self, host: str, incident: Incident) -> None:
        """Close what nobody will look at again, and say so where it was told: how it went on is not known."""
        now = self._clock.now()
        async with self._store.begin() as tx:
            await tx.execute(update(incidents).where(incidents.c.id == incident.id).values(closed_at=now, changed_at=now))
            await self._outbox.repost(tx, _left(host, incident), _key(incident))
        self._outbox.wake()

    async def _show(
        self,
        tx: AsyncConnection,
        host: str,
        incident: Incident,
        memory: Memory,
        uses: tuple[Use, ...],
        *,
        anew: bool = False,
        closed_at: datetime | None = None,
    ) -> None:
        """One message in every chat that is told; anew only when it got worse or is repeated: an edit makes no sound."""
        key = _key(incident)
        shown = MemoryIncident(incident.level, incident.opened_at, closed_at, incident.worst_percent, memory, uses)
        card = replace(memory_card(host, shown, self._clock.now()), key=key)
        for place in told_about(self._settings, host):
            await self._outbox.post(tx, place, card, key, fresh=anew)


def _key(incident: Incident) -> str:
    return f"memory:{incident.id}"


def _incident(row: Any) -> Incident:  # noqa: ANN401 - a row of incidents
    worst_at = datetime.fromisoformat(row.data["worst_at"])
    return Incident(
        row.id, row.level, row.opened_at, row.told_at, row.changed_at, float(row.data["worst_percent"]), worst_at
    )  # fmt: skip


def _left(host: str, incident: Incident) -> Reply:
    """The last word about a host that was renamed or taken out of the settings in the middle of an incident."""
    title = T("{host} is not watched any more", host=Mono(host))
    worst = Percent(incident.worst_percent, 1)
    last = T("There was a memory alert since {at}, {percent} at worst.", at=When(incident.opened_at), percent=worst)
    return Reply((Title(title), Line(last)), key=_key(incident))


def _data(memory: Memory, worst_percent: float, worst_at: datetime) -> dict[str, Any]:
    return {"worst_percent": worst_percent, "worst_at": worst_at.isoformat(), "memory": asdict(memory)}
