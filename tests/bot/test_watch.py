"""The watch's rounds: each host is sampled as often as the settings say, whatever the sweeps are like."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.watch import Rounds, heed_the_clock
from tests.clock import NOW, StandingClock

LATE_S = (0.004, 0.001, 0.012, 0.0, 0.3, 0.002)  # sweeps come on a grid, each with a lateness of its own


def taken(rounds: Rounds, host: str, clock: StandingClock, sweeps: Iterable[int]) -> list[float]:
    """When the host is sampled, in seconds, by the sweeps of these numbers."""
    found = []
    for n, late_s in zip(sweeps, itertools.cycle(LATE_S), strict=False):
        clock.moment = NOW
        if rounds.take(host, clock.go(n * rounds.step_s + late_s)):
            found.append(n * rounds.step_s)
    return found


@pytest.mark.parametrize("every_s", [1.0, 2.5, 5.0, 7.0, 7.3, 12.0, 15.0, 60.0])
def test_a_host_is_sampled_as_often_as_is_set(every_s: float, clock: StandingClock) -> None:
    rounds = Rounds({"prod": every_s})
    times = taken(rounds, "prod", clock, range(int(100 * every_s / rounds.step_s)))

    assert len(times) == pytest.approx(100, abs=1)
    assert all(abs(time - n * every_s) <= rounds.step_s / 2 + max(LATE_S) for n, time in enumerate(times))


@pytest.mark.parametrize(
    ("every_s", "step_s"), [({}, 5), ({"prod": 15.0, "web": 60.0}, 5), ({"prod": 15.0, "web": 7.0}, 1), ({"prod": 0.1}, 1)]
)
def test_sweeps_are_as_rare_as_every_host_allows(every_s: Mapping[str, float], step_s: float) -> None:
    assert Rounds(every_s).step_s == step_s


def test_after_a_long_pause_nothing_is_made_up_for(clock: StandingClock) -> None:
    rounds = Rounds({"prod": 15.0})

    assert taken(rounds, "prod", clock, [0, 1, 2, 3]) == [0, 15]
    assert taken(rounds, "prod", clock, range(100, 112)) == [500, 515, 530, 545]


def test_hosts_have_rounds_of_their_own(clock: StandingClock) -> None:
    rounds = Rounds({"prod": 15.0, "web": 10.0})

    assert taken(rounds, "prod", clock, range(7)) == [0, 15, 30]
    assert taken(rounds, "web", clock, range(7)) == [0, 10, 20, 30]


def test_a_clock_that_is_set_back_does_not_stop_the_rounds(clock: StandingClock) -> None:
    rounds = Rounds({"prod": 15.0})
    assert rounds.take("prod", clock.now())
    assert rounds.take("prod", clock.go(-7200))
    assert not rounds.take("prod", clock.go(5))
    assert rounds.take("prod", clock.go(10))


async def test_a_clock_that_is_set_back_does_not_stop_the_scheduler() -> None:
    ran, now = asyncio.Event(), datetime.now(UTC)

    async def job() -> None:
        ran.set()

    scheduler = AsyncIOScheduler(timezone="UTC")
    scheduler.add_job(job, "interval", seconds=5, id="sweep", next_run_time=now + timedelta(hours=1))
    later = scheduler.add_job(job, "interval", hours=6, id="prune", next_run_time=now + timedelta(hours=5))
    scheduler.start()
    try:
        heed_the_clock(scheduler, now)
        async with asyncio.timeout(10):
            await ran.wait()
        assert later.next_run_time == now + timedelta(hours=5)
    finally:
        scheduler.shutdown(wait=False)
