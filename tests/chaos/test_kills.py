"""Every kill told once while the bot is killed at each call that it makes, and the link is cut at each frame.

An enumeration goes on until nothing more comes. The oracle: tests/chaos/kills.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.kills import World, story, world
from tests.chaos.nursery import Nursery
from tests.chaos.story import STAGES

pytestmark = [pytest.mark.chaos, pytest.mark.asyncio(loop_scope="session")]

AT_A_TIME = 2
FOREVER_S = 3600.0

Fault = Callable[[World, int], "contextlib.AbstractAsyncContextManager[Callable[[], bool]]"]
"""What goes wrong at the n-th thing that comes; gives whether it came."""


async def test_nothing_goes_wrong(tmp_path: Path, lives: Nursery, template: Path) -> None:
    async with world(tmp_path / "world", lives, template, random.Random(1)) as one:
        await story(one)
        assert (one.died, one.lost) == (0, [])
        assert {call.outcome for call in one.telegram.calls} <= {"ok", "pending"}


@contextlib.asynccontextmanager
async def _dying(one: World, reached: Callable[[], Awaitable[object]], release: Callable[[], None]) -> AsyncIterator[None]:
    """Kill the bot when something is reached, and let that go once it is dead."""

    async def kill() -> None:
        await reached()
        await one.kill()
        release()

    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)


def at_a_call_of_telegrams(moment: str) -> Fault:
    @contextlib.asynccontextmanager
    async def fault(one: World, ordinal: int) -> AsyncIterator[Callable[[], bool]]:
        hold = one.telegram.hold(ordinal, moment)  # type: ignore[arg-type]
        # What was stopped before it was taken never is: its connection is gone.
        async with _dying(one, lambda: hold.reached(FOREVER_S), hold.drop if moment == "before" else hold.release):
            yield lambda: hold.is_reached

    return fault


def at_a_call_on_the_machine(moment: str) -> Fault:
    @contextlib.asynccontextmanager
    async def fault(one: World, ordinal: int) -> AsyncIterator[Callable[[], bool]]:
        stop = one.machine.gate.stop(ordinal, moment)
        async with _dying(one, stop.reached.wait, stop.released.set):
            yield stop.reached.is_set

    return fault


def at_a_commit(moment: str) -> Fault:
    @contextlib.asynccontextmanager
    async def fault(one: World, ordinal: int) -> AsyncIterator[Callable[[], bool]]:
        one.clock.die_at_commit(ordinal, after=moment == "after")
        yield lambda: one.clock.commits >= ordinal

    return fault


def of_the_link(direction: str) -> Fault:
    @contextlib.asynccontextmanager
    async def fault(one: World, ordinal: int) -> AsyncIterator[Callable[[], bool]]:
        one.proxy.heals = True
        if direction == "down":
            one.proxy.cut_after_chunks = ordinal
        else:
            one.proxy.cut_after_chunks_up = ordinal - 1
        yield lambda: one.proxy.cuts > 0

    return fault


FAULTS: dict[str, Fault] = {
    **{f"telegram-{moment}": at_a_call_of_telegrams(moment) for moment in STAGES},
    **{f"machine-{moment}": at_a_call_on_the_machine(moment) for moment in STAGES},
    **{f"commit-{moment}": at_a_commit(moment) for moment in ("before", "after")},
    **{f"cut-{direction}": of_the_link(direction) for direction in ("down", "up")},
}


@pytest.mark.parametrize("name", FAULTS)
async def test_each(name: str, tmp_path: Path, lives: Nursery, template: Path, say: Callable[[str], None]) -> None:
    lost: list[int] = []

    async def one_run(ordinal: int) -> bool:
        folder = tmp_path / str(ordinal)
        async with world(folder, lives, template, random.Random(ordinal)) as one, FAULTS[name](one, ordinal) as came:
            try:
                await story(one)
            except AssertionError as wrong:
                raise AssertionError(f"{name} {ordinal}: {wrong}") from wrong
            lost.append(len(one.lost))
        shutil.rmtree(folder)
        return came()

    ordinal = 1
    while all(await asyncio.gather(*(one_run(ordinal + more) for more in range(AT_A_TIME)))):
        ordinal += AT_A_TIME
    say(f"{name}: {ordinal - 1} or {ordinal} of them, answers lost: {sum(lost)}")
    assert ordinal > 1
