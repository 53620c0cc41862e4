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
from bot.follow import Follower
from handlers.cards.host import NO_UNITS, Use, uses
from remote.errors import HostError
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS

if TYPE_CHECKING:
    from datetime import datetime

    from bot.alerts.kills import KillRule
    from bot.parts import App

log = structlog.get_logger(__name__)

SWEEP_S = 5.0  # the sweep's own step: each host is due by its own `every`
EXPIRE_S = 5.0
GIVE_BACK_S = 30.0
WHO_S = 5.0


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
        self._scheduler.add_job(self._kills.settle, "interval", seconds=EXPIRE_S, id="settle")
        self._scheduler.add_job(_give_back, "interval", seconds=GIVE_BACK_S, id="give back")
        self._scheduler.add_job(self._app.outbox.prune, "interval", hours=6, id="prune")
        self._scheduler.add_job(self._kills.prune, "interval", hours=6, id="prune kills")
        self._scheduler.start()
        self._streams = [asyncio.create_task(follower.run(), name=f"follow {host}") for host, follower in self._followers.items()]

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
            await self._followers[host].sampled(memory)
        else:
            self._say_down(host, memory.kind)

    async def _who_holds(self, host: str) -> tuple[Use, ...]:
        """Who holds the memory; nobody when the host does not say in time: an alert never waits for its details."""
        try:
            answers = await self._app.fleet.ask_within(WHO_S, host, PROCESSES, UNITS)
        except HostError:
            return ()
        processes = answers.readable(PROCESSES)
        return uses(processes, answers.readable(UNITS) or NO_UNITS) if processes else ()

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
