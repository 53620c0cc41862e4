"""Ten thousand kills that users stage in their own slices hide no kill of a unit's, and take no more room than a message a user
and hour."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.kills import World, pids, world
from tests.chaos.nursery import Nursery
from tests.emulators.telegram import Message

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="session")]

STAGED = 10_000
USERS = (1000, 1001)
TOLD_S = 120.0
SOON_S = 2.0


def staged(one: World) -> list[Message]:
    """The messages about what users did."""
    return [message for message in one.shown() if "memhog" in message.text]


def counted(one: World) -> int:
    """How many kills the newest of them tell of, as their titles say."""
    numbers = [re.search(r"\b(\d[\d,]*) memhog were killed", message.text) for message in staged(one)]
    return sum(int(found[1].replace(",", "")) for found in numbers if found)


@pytest.mark.parametrize("every", [1, 50], ids=["all-with-their-cgroups", "rate-limited"])
async def test_staged_kills_hide_no_real_one(
    every: int, tmp_path: Path, lives: Nursery, template: Path, say: Callable[[str], None]
) -> None:
    async with world(tmp_path / "world", lives, template, random.Random(1)) as one:
        one.machine.stamp()
        one.machine.journal.noise(3)
        await one.begin()
        await one.listens()
        one.machine.stage(STAGED // 2, USERS, summary_every=every)
        real = one.machine.happen("gunicorn-oom", programs=False)
        one.machine.stage(STAGED - STAGED // 2, USERS, summary_every=every)
        await one.all_told(TOLD_S)
        told_at = one.told_at(real)
        await one.telegram.wait_for(lambda: len(staged(one)) >= len(USERS), TOLD_S)
        total = STAGED
        while counted(one) < total:  # the count on a message follows once a minute
            one.clock.go(seconds=61)
            one.machine.stage(len(USERS), USERS, summary_every=1)
            total += len(USERS)
            with contextlib.suppress(TimeoutError):
                await one.telegram.wait_for(lambda total=total: counted(one) >= total, SOON_S)  # type: ignore[misc]
        stamps = one.machine.stamps()
        line_at, last_at = stamps[one.machine.journal.cursor_of(real)], max(stamps.values())
        say(f"{STAGED} staged kills: the real one told {told_at - line_at:.2f} s after its line, "
            f"{last_at - told_at:.2f} s before the last of theirs had come out")  # fmt: skip
        assert told_at < last_at
        assert len([message for message in one.shown() if real in pids(message.text)]) == 1
        assert len(staged(one)) == len(USERS)
        one.clock.go(hours=1, seconds=1)
        one.machine.stage(1, USERS[:1], summary_every=1)
        await one.telegram.wait_for(lambda: len(staged(one)) == len(USERS) + 1, TOLD_S)
        await one.end()
