"""The process is killed at each of its outside calls in turn: what was answered with 200 is told and noted, and told once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.alerts.kills import KillRule
from bot.app import build
from bot.hooks.service import Hooks
from bot.outbox import Outbox
from remote.facts.base import Answers, Fact
from tests.bot.hooks.world import AFTER_THE_KILL, RecordedHost, World, lines, settings, shown
from tests.bot.mortal import Life, MortalChat, MortalStore, end
from tests.clock import StandingClock
from tests.emulators.faults import Call, Stage
from tests.emulators.sentry import Sentry

CALLS = 18  # more than a whole life makes: `test_a_whole_life` says so


@dataclass
class MortalHost(RecordedHost):
    """A host that is asked, or not, when the process ends."""

    life: Life | None = None

    async def ask(self, *facts: Fact[Any]) -> Answers:
        assert self.life is not None
        self.life.step("ask")
        return await super().ask(*facts)


@asynccontextmanager
async def mortal(url: str, sentry: Sentry, chat: MortalChat, life: Life) -> AsyncIterator[World]:
    """One life of the process, which ends when `life` does."""
    host, clock = MortalHost(lines("gunicorn-oom"), life=life), StandingClock(AFTER_THE_KILL)
    host.gate.set()
    chat.life = life

    async def answered(call: Call) -> None:
        del call
        life.step("note is there")

    sentry.faults.clear()
    sentry.faults.hook(Stage.TAKEN, answered)
    async with build(settings(url, sentry), {"console": chat}, clock) as whole:
        store = MortalStore(whole.store, life)
        app = replace(whole, store=store, outbox=Outbox(store, {"console": chat}, clock))
        app.fleet._open["prod"] = host
        hooks = Hooks(app, KillRule(app.settings, app.store, app.outbox, app.clock, app.book.killed))
        sender = asyncio.create_task(app.outbox.run())
        await hooks.start()
        yield World(app, hooks, chat, host, sentry, clock)
        assert hooks._asker is not None
        if life.over.is_set():
            await end(sender, *hooks._tasks, *hooks._asker._work.values())
        await hooks.stop()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def story(url: str, sentry: Sentry, ends_at: int) -> tuple[Life, MortalChat]:
    """A life that ends at a call, and one without an end in which Sentry sends again what was not answered."""
    chat, body, delivered = MortalChat(), sentry.issue(), False
    first = Life(ends_at)
    for life in (first, Life()):
        async with mortal(url, sentry, chat, life) as world:
            if not delivered:
                with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
                    delivered = await world.from_sentry(body) == 200
            await over_or_settled(world, life)
    assert delivered
    return first, chat


async def over_or_settled(world: World, life: Life) -> None:
    settled = asyncio.create_task(world.settle())
    ended = asyncio.create_task(life.over.wait())
    await asyncio.wait([settled, ended], return_when=asyncio.FIRST_COMPLETED)
    for task in (settled, ended):
        task.cancel()
    await asyncio.gather(settled, ended, return_exceptions=True)


async def test_a_whole_life(store_url: str, sentry: Sentry) -> None:
    life, chat = await story(store_url, sentry, 0)

    assert len(chat.shown) == 2
    assert len(sentry.comments) == 1
    assert {"commit", "ask", "send", "answer", "note is there"} == set(life.names)
    assert life.calls < CALLS


@pytest.mark.parametrize("ends_at", range(1, CALLS))
async def test_killed_at_each_call(ends_at: int, migrated: Path, tmp_path: Path, sentry: Sentry) -> None:
    import shutil

    shutil.copy(migrated, tmp_path / "test.db")
    first, chat = await story(f"sqlite:///{tmp_path / 'test.db'}", sentry, ends_at)

    twice = len(chat.shown) - 2
    assert twice in {0, 1}
    if twice:  # the answer to a send was lost, or what was known of it was not kept: then it says so
        assert "send" in first.names[:ends_at]  # by the chat's own task, whichever task's call the last one was
        assert any(one.again for one in chat.shown)
    assert len({shown(one) for one in chat.shown}) == 2
    assert len(sentry.comments) == 1
