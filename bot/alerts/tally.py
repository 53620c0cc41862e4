"""The tally: the kernel's own count of its kills held against those that we know of. What it counted more the log has lost.

`/proc/vmstat`'s `oom_kill` comes with each sample for nothing; only when it disagrees is the host asked where, and in a container
how many of them are its own. A line may come late (journald starves while memory is short), so that a difference has to last
before it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from bot.store.tables import kills, staged, tallies
from remote.facts.base import Unreadable
from remote.facts.counters import COUNTERS, Counters
from remote.findings.kill import Kill, counted_kill
from remote.findings.places import unit_of_path

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.alerts.kills import KillRule
    from bot.store import Store
    from handlers.ports.clock import Clock
    from remote.connect.base import Host
    from remote.facts.memory import Memory

GRACE = timedelta(seconds=30)
ANOTHER_BOOT = timedelta(seconds=60)  # the start of a host, by its clock and uptime, moves by less than this within one boot
MOST = 20  # lost kills that are told one by one


@dataclass(frozen=True, slots=True)
class Short:
    """So many kills are missing since then."""

    missing: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """A sample's count, and since when the host runs, by our clock and by its own."""

    oom_kills: int
    booted_at: datetime
    uptime_s: float


class Tally:
    """One host's counters against its kills."""

    def __init__(self, name: str, store: Store, rule: KillRule, clock: Clock) -> None:
        """`rule` keeps what was lost."""
        self._name = name
        self._store = store
        self._rule = rule
        self._clock = clock
        self._short: Short | None = None
        # The boot, and the sample's count, that were last found to agree with the rows: until it grows nothing is asked.
        self._even: tuple[datetime, int] | None = None

    async def look(self, host: Host, memory: Memory, *, listening: bool) -> None:
        """Hold a sample against the rows. `listening`: the journal is being followed, a missing line is not merely unread."""
        if memory.oom_kills is None:
            return
        now = Reading(memory.oom_kills, self._clock.now() - timedelta(seconds=memory.uptime_s), memory.uptime_s)
        if self._even is not None and _one_boot(self._even[0], now.booted_at) and now.oom_kills <= self._even[1]:
            return
        async with self._store.connect() as tx:
            row = (await tx.execute(select(tallies).where(tallies.c.host == self._name))).one_or_none()
            known = 0 if row is None else row.base + await _known(tx, self._name, row.boot_id)
        if row is not None and _one_boot(row.booted_at, now.booted_at) and now.oom_kills <= known:
            self._agree(now)
            return
        counters = (await host.ask(COUNTERS))[COUNTERS]
        if isinstance(counters, Unreadable) and counters.kind != "unsupported":
            return
        if isinstance(counters, Unreadable) or counters.oom_kills is None:
            self._agree(now)  # a container without a count of its own: the sample's is its whole node's
        elif row is None or row.boot_id != counters.boot_id:
            await self._begin(counters, now.booted_at, first=row is None)
        elif counters.oom_kills < row.base:  # what is counted is another count: a container's own since
            await self._begin(counters, now.booted_at, first=True)
        else:
            await self._same_boot(counters, row, known, now, listening=listening)

    def _agree(self, now: Reading) -> None:
        self._short, self._even = None, (now.booted_at, now.oom_kills)

    async def _begin(self, counters: Counters, booted_at: datetime, *, first: bool) -> None:
        """A boot that is new to us. What was counted before we first saw the host is history; of a later boot nothing is."""
        async with self._store.begin() as tx:
            known = await _known(tx, self._name, counters.boot_id)
            values: dict[str, Any] = {
                "boot_id": counters.boot_id,
                "booted_at": booted_at,
                "base": (counters.oom_kills or 0) - known if first else 0,
                "groups": dict(counters.groups) if first else {},
            }
            done = await tx.execute(update(tallies).where(tallies.c.host == self._name).values(**values))
            if done.rowcount == 0:
                await tx.execute(insert(tallies).values(host=self._name, **values))
        self._short = None

    async def _same_boot(self, counters: Counters, row: Any, known: int, now: Reading, *, listening: bool) -> None:  # noqa: ANN401
        """The boot of the row, by its id: its start by our clock moves when that is set."""
        if not _one_boot(row.booted_at, now.booted_at):
            async with self._store.begin() as tx:
                await tx.execute(update(tallies).where(tallies.c.host == self._name).values(booted_at=now.booted_at))
        missing = (counters.oom_kills or 0) - known
        if missing > 0:
            await self._lost(counters, row.groups, missing, int(now.uptime_s * 1e6), listening=listening)
        else:
            self._agree(now)

    async def _lost(self, counters: Counters, before: dict[str, int], missing: int, uptime_us: int, *, listening: bool) -> None:
        """Tell what is missing once it has been missing for a while; `uptime_us` is when that was read, by its own clock."""
        now = self._clock.now()
        if self._short is None or self._short.missing > missing:
            self._short = Short(missing, now)
        if not listening or now - self._short.since < GRACE:
            return
        units = await self._where(counters, before)
        # A microsecond apart, which tells those of one reading from each other.
        told = [self._counted(counters, units[n] if n < len(units) else None, uptime_us - n) for n in range(min(missing, MOST))]
        await self._rule.missing(self._name, told)
        async with self._store.begin() as tx:
            # What is beyond the most that is told is not told again; groups start from here.
            base = tallies.c.base + (missing - len(told))
            where = tallies.c.host == self._name
            await tx.execute(update(tallies).where(where).values(base=base, groups=dict(counters.groups)))
        self._short = None

    async def _where(self, counters: Counters, before: dict[str, int]) -> list[str]:
        """The units whose own counters grew by more than their kills that are known."""
        grown: dict[str, int] = {}
        for group, number in counters.groups.items():
            unit = unit_of_path(group)
            if unit is not None:
                grown[unit] = grown.get(unit, 0) + max(0, number - before.get(group, 0))
        units: list[str] = []
        async with self._store.connect() as tx:
            for unit, number in grown.items():
                mine = (kills.c.host == self._name, kills.c.boot_id == counters.boot_id, kills.c.unit == unit, kills.c.kernel)
                told = (await tx.execute(select(func.count()).where(*mine))).scalar_one()
                units += [unit] * max(0, number - told)
        return units

    def _counted(self, counters: Counters, unit: str | None, monotonic_us: int) -> Kill:
        """A kill without a line: what is known is that the kernel's killer did it, and perhaps where."""
        source = f"memory.events of {unit}" if unit else "/proc/vmstat"
        said = f"oom_kill {counters.oom_kills} ({source}), and no line in the log"
        return counted_kill(unit, counters.boot_id, self._clock.now(), monotonic_us, None, said)


def _one_boot(one: datetime, other: datetime) -> bool:
    return abs(one - other) < ANOTHER_BOOT


async def _known(tx: AsyncConnection, host: str, boot_id: str) -> int:
    """How many of the kernel's kills in this boot we know of, one by one or as a count."""
    mine = (kills.c.host == host, kills.c.boot_id == boot_id, kills.c.kernel)
    rows = (await tx.execute(select(func.count()).where(*mine))).scalar_one()
    theirs = select(func.coalesce(func.sum(staged.c.number), 0)).where(staged.c.host == host, staged.c.boot_id == boot_id)
    return int(rows) + int((await tx.execute(theirs)).scalar_one())
