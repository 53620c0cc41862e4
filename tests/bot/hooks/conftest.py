"""A world for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.bot.hooks.world import AFTER_THE_KILL, RecordedHost, World, lines, living
from tests.clock import StandingClock
from tests.emulators.sentry import Sentry


@pytest.fixture
def clock() -> StandingClock:
    """Moments after the kill that was recorded."""
    return StandingClock(AFTER_THE_KILL)


@pytest.fixture
def host() -> RecordedHost:
    """A host on which a worker was killed."""
    one = RecordedHost(lines("gunicorn-oom"))
    one.gate.set()
    return one


@pytest_asyncio.fixture
async def sentry() -> AsyncIterator[Sentry]:
    """Sentry, listening."""
    one = Sentry()
    async with one.serve():
        yield one


@pytest_asyncio.fixture
async def world(store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock) -> AsyncIterator[World]:
    """All of it."""
    async with living(store_url, sentry, host, clock) as one:
        yield one
