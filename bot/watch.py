"""The watch: one sweep samples every host over its open channel, one stream a host follows its journal."""

from __future__ import annotations

import asyncio
import functools
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot._lean import give_back
from bot.alerts.memory import MemoryRule
from bot.clock import SystemClock
from bot.follow import Follower
from handlers.cards.host import NO_UNITS, Use, uses
from remote.errors import HostError
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from bot.alerts.kills import KillRule
    from bot.parts import App

log = structlog.get_logger(__name__)

STEP_S = 5.0  # the sweep's own step, where every `every` is a multiple of it
SHORTEST_STEP_S = 1.0
EXPIRE_S = 5.0
GIVE_BACK_S = 30.0
WHO_S = 5.0


class Rounds:
    """When each host is due: every so many seconds from its first time on, however late each sweep comes."""

    def __init__(self, every_s: Mapping[str, float]) -> None:
        """`every_s` is by host."""
        self._every_s = every_s
        self._due: dict[str, datetime] = {}
        self.step_s = SHORTEST_STEP_S if any(one_s % STEP_S for one_s in every_s.values()) else STEP_S

    def take(self, host: str, now: datetime) -> bool:
        """Whether the host is due at this sweep, and not nearer to the next one. Then its next time counts from this due time, or
        from now where that has passed too: what was missed is not made up for."""
        every = timedelta(seconds=self._every_s[host])
        due = self._due.get(host, now)
        if due > now + every:  # the clock was set back
            due = now
        if now + timedelta(seconds=self.step_s / 2) < due:
            return False
        self._due[host] = due + every if due + every > now else now + every
        return True


def heed_the_clock(scheduler: AsyncIOScheduler, now: datetime) -> None:
    """Run what lies further off than its own interval: APScheduler waits by the wall clock, and where that is set back by an hour
    (a machine whose own clock is in local time, until NTP answers) it would sleep for an hour."""
    for job in scheduler.get_jobs():
        if job.next_run_time > now + job.trigger.interval + timedelta(seconds=STEP_S):
            job.modify(next_run_time=now)


def _followed(stream: asyncio.Task[None]) -> None:
    """A follower runs for ever: one that ended is a bug, and must not go unseen."""
    if not stream.cancelled() and stream.exception():
        log.error("a host is followed no more", task=stream.get_name(), exc_info=stream.exception())


class Watch:
    """Samples and streams, as long as the process lives."""

    def __init__(self, app: App, rule: KillRule) -> None:
        """Nothing runs before `start`. `rule` keeps the kills."""
        self._app = app
        self._memory = MemoryRule(app.settings, app.store, app.outbox, app.clock, self._who_holds)
        self._kills = rule
        self._followers = {host: Follower(host, app, self._kills) for host in app.settings.hosts}
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._streams: list[asyncio.Task[None]] = []
        self._rounds = Rounds({host: app.settings.alerts_of(host).every for host in app.settings.hosts})
        self._sampling: dict[str, asyncio.Task[None]] = {}
        self._down: set[str] = set()

    async def start(self) -> None:
        """Go on where the process ended."""
        await self._memory.load()
        # A late run is better than none, and one is enough (apscheduler 3: misfire_grace_time, coalesce).
        self._scheduler.configure(job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1})
        first = self._app.clock.now()
        self._scheduler.add_job(self._sweep, "interval", seconds=self._rounds.step_s, id="sweep", next_run_time=first)
        self._scheduler.add_job(self._app.book.expire, "interval", seconds=EXPIRE_S, id="expire")
        self._scheduler.add_job(self._kills.settle, "interval", seconds=EXPIRE_S, id="settle")
        self._scheduler.add_job(_give_back, "interval", seconds=GIVE_BACK_S, id="give back")
        self._scheduler.add_job(self._app.outbox.prune, "interval", hours=6, id="prune")
        self._scheduler.add_job(self._kills.prune, "interval", hours=6, id="prune kills")
        self._scheduler.start()
        self._streams = [asyncio.create_task(follower.run(), name=f"follow {host}") for host, follower in self._followers.items()]
        for stream in self._streams:
            stream.add_done_callback(_followed)
        self._streams.append(asyncio.create_task(self._heed_the_clock(), name="heed the clock"))

    async def stop(self) -> None:
        """End the jobs and streams; what they kept stays."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        tasks = [*self._streams, *self._sampling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _heed_the_clock(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            heed_the_clock(self._scheduler, SystemClock().now())  # the scheduler's own, whatever the app's is

    async def _sweep(self) -> None:
        """Sample each host that is due; one that does not answer never delays another."""
        now = self._app.clock.now()
        for host in self._app.settings.hosts:
            if host not in self._sampling and self._rounds.take(host, now):
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
            await self._followers[host].sampled(memory)
        else:
            self._say_down(host, memory.kind)

    async def _who_holds(self, host: str) -> tuple[Use, ...]:
        """Who holds the memory; nobody when that cannot be read in time: an alert never waits for its details."""
        try:
            answers = await self._app.fleet.ask_within(WHO_S, host, PROCESSES, UNITS)
            processes = answers.readable(PROCESSES)
            return uses(processes, answers.readable(UNITS) or NO_UNITS) if processes else ()
        except HostError:
            return ()
        except Exception:
            log.exception("who holds the memory was not found out", host=host)
            return ()

    def _say_down(self, host: str, kind: str) -> None:
        """Once when it goes (a log that repeats itself is not read)."""
        if host not in self._down:
            self._down.add(host)
            log.warning("host cannot be sampled", host=host, kind=kind)

    def _say_up(self, host: str) -> None:
        if host in self._down:
            self._down.discard(host)
            log.info("host can be sampled again", host=host)


async def _give_back() -> None:
    """In the loop's own thread: a job that is no coroutine would get a thread pool."""
    give_back()
