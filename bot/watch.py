"""The watch: one sweep samples every host over its open channel, one stream a host follows its journal."""

from __future__ import annotations

import asyncio
import functools
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.alerts.kills import KillRule
from bot.alerts.memory import MemoryRule
from handlers.cards.host import Use, uses
from remote.errors import HostError
from remote.facts.base import Unreadable
from remote.facts.journal import Journal, kills_since, parse_entry, watch_script
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES, Processes
from remote.facts.units import UNITS, Units
from remote.findings.death import Autopsy
from remote.text import Mono, T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from bot.parts import App
    from remote.connect.base import Host

log = structlog.get_logger(__name__)

SWEEP_S = 5.0  # the sweep's own step: each host is due by its own `every`
EXPIRE_S = 5.0
LOOK_BACK = timedelta(hours=24)
SAVE_S = 5.0  # a cursor that led to nothing is saved at most this often
REMEMBER = timedelta(minutes=15)  # longer than any sign of a kill comes after another
PATIENCE_S = 60.0
WHO_S = 5.0


class Watch:
    """Samples and streams, as long as the process lives."""

    def __init__(self, app: App) -> None:
        """Nothing runs before `start`."""
        self._app = app
        self._memory = MemoryRule(app.settings, app.store, app.outbox, app.clock, self._who_holds)
        self._kills = KillRule(app.settings, app.store, app.outbox, app.clock)
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._streams: list[asyncio.Task[None]] = []
        self._due: dict[str, datetime] = {}
        self._sampling: dict[str, asyncio.Task[None]] = {}
        self._down: set[str] = set()

    async def start(self) -> None:
        """Go on where the process ended."""
        await self._memory.load()
        step = min([SWEEP_S, *(self._app.settings.alerts_of(host).every for host in self._app.settings.hosts)])
        # A late run is better than none, and one is enough (apscheduler 3: misfire_grace_time, coalesce).
        self._scheduler.configure(job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1})
        self._scheduler.add_job(self._sweep, "interval", seconds=step, id="sweep", next_run_time=self._app.clock.now())
        self._scheduler.add_job(self._app.book.expire, "interval", seconds=EXPIRE_S, id="expire")
        self._scheduler.add_job(self._app.outbox.prune, "interval", hours=6, id="prune")
        self._scheduler.start()
        self._streams = [
            asyncio.create_task(Stream(host, self._app, self._kills).follow(), name=f"journal {host}")
            for host in self._app.settings.hosts
        ]

    async def stop(self) -> None:
        """End the jobs and streams; what they kept stays."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        tasks = [*self._streams, *self._sampling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        """Sample each host that is due; one that does not answer never delays another."""
        now = self._app.clock.now()
        for host in self._app.settings.hosts:
            if now >= self._due.get(host, now) and host not in self._sampling:
                self._due[host] = now + timedelta(seconds=self._app.settings.alerts_of(host).every)
                task = asyncio.create_task(self._sample(host), name=f"sample {host}")
                self._sampling[host] = task
                task.add_done_callback(functools.partial(self._sampled, host))

    def _sampled(self, host: str, task: asyncio.Task[None]) -> None:
        self._sampling.pop(host, None)
        if not task.cancelled() and task.exception():
            log.error("a sample was not judged", host=host, exc_info=task.exception())

    async def _sample(self, host: str) -> None:
        try:
            memory = (await self._app.fleet.host(host).sample(MEMORY))[MEMORY]
        except HostError as trouble:
            self._say_down(host, trouble.kind)
            return
        if isinstance(memory, Memory):
            self._say_up(host)
            await self._memory.sample(host, memory)
        else:
            self._say_down(host, memory.kind)

    async def _who_holds(self, host: str) -> tuple[Use, ...]:
        """Who holds the memory; nobody when the host does not say in time: an alert never waits for its details."""
        try:
            async with asyncio.timeout(WHO_S):
                answers = await self._app.fleet.ask(host, PROCESSES, UNITS)
        except (HostError, TimeoutError):
            return ()
        processes, units = answers[PROCESSES], answers[UNITS]
        if not isinstance(processes, Processes):
            return ()
        return uses(processes, units if isinstance(units, Units) else Units(()))

    def _say_down(self, host: str, kind: str) -> None:
        """Once when it goes (a log that repeats itself is not read)."""
        if host not in self._down:
            self._down.add(host)
            log.warning("host cannot be sampled", host=host, kind=kind)

    def _say_up(self, host: str) -> None:
        if host in self._down:
            self._down.discard(host)
            log.info("host can be sampled again", host=host)


class Stream:
    """Follows one host's journal from the cursor that was saved, over cuts and restarts of either side."""

    def __init__(self, name: str, app: App, rule: KillRule) -> None:
        """`rule` keeps what is found."""
        self._name = name
        self._app = app
        self._rule = rule
        self._cursor: str | None = None
        self._boot_id = ""
        self._quiet = ""
        self._saved_at = app.clock.now()

    async def follow(self) -> None:
        """For ever; a host without a readable journal is tried again now and then."""
        pause_s = 1.0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                self._cursor = await self._rule.cursor(self._name) or await self._first_sight()
                await self._listen()
            except HostError as trouble:
                self._say_ended(trouble.kind)
            except Exception:
                log.exception("the journal's stream broke", host=self._name)
            if asyncio.get_running_loop().time() - began > PATIENCE_S:
                pause_s, self._quiet = 1.0, ""
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            pause_s = min(PATIENCE_S, pause_s * 2)

    def _say_ended(self, kind: str) -> None:
        """Once, until it has run for a while again."""
        if self._quiet != kind:
            self._quiet = kind
            log.info("the journal's stream ended", host=self._name, kind=kind)

    async def _first_sight(self) -> str:
        """A host watched for the first time: one message for its last 24 hours, and the cursor to go on from."""
        since = self._app.clock.now() - LOOK_BACK
        journal_fact = kills_since(since)
        answers = await self._host.ask(journal_fact, UNITS)
        journal, units = answers[journal_fact], answers[UNITS]
        if not isinstance(journal, Journal):
            raise HostError("no-journal", journal.why)
        autopsy = Autopsy(units=units if isinstance(units, Units) else None)
        for entry in journal.entries:
            autopsy.take(entry)
        autopsy.settle()
        if not journal.last_cursor:
            return ""
        boot_id = journal.entries[-1].boot_id if journal.entries else ""
        await self._rule.keep(self._name, autopsy.kills, journal.last_cursor, boot_id, batch=f"first:{self._name}")
        return journal.last_cursor

    @property
    def _host(self) -> Host:
        return self._app.fleet.host(self._name)

    async def _units(self) -> Units | None:
        units = (await self._host.ask(UNITS))[UNITS]
        return None if isinstance(units, Unreadable) else units

    async def _listen(self) -> None:
        """Read lines as they come. What happened while nobody listened is told in one message."""
        autopsy = Autopsy(units=await self._units())
        began = self._app.clock.now()
        missed = f"missed:{self._name}:{began.timestamp():.0f}"
        async with self._host.stream(watch_script(self._cursor or None)) as lines:
            async for line in self._fresh(lines):
                entry = parse_entry(line)
                if entry is None or entry.cursor == self._cursor:
                    continue
                self._cursor, self._boot_id = entry.cursor, entry.boot_id or self._boot_id
                found = autopsy.take(entry)
                if found or self._app.clock.now() - self._saved_at > timedelta(seconds=SAVE_S):
                    late = began - entry.at > timedelta(seconds=30)
                    await self._rule.keep(self._name, tuple(found), self._cursor, self._boot_id, batch=missed if late else "")
                    self._saved_at = self._app.clock.now()
                    autopsy.forget(entry.at - REMEMBER)

    async def _fresh(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for line in lines:
            if line:
                yield line
        raise HostError("cut", T("The journal of {host} ended.", host=Mono(self._name)))
