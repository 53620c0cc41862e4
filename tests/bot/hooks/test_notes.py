"""Notes at a Sentry issue: redacted, sent to the settings' Sentry only, left once though answers are lost."""

from __future__ import annotations

import json

import pytest

from bot.hooks import asker
from tests.bot.chats import MemoryChat
from tests.bot.hooks.test_hooks import KILLED
from tests.bot.hooks.world import RecordedHost, World, lines, living
from tests.clock import StandingClock
from tests.emulators.faults import Kind
from tests.emulators.sentry import Sentry


async def test_sentry_is_told_what_was_found(world: World) -> None:
    await world.from_sentry(world.sentry.issue())
    await world.settle()

    (text,) = world.sentry.texts()
    assert text.startswith(f"memwarden:\n```\n{KILLED}\n")
    assert "Killed by the kernel: the memory limit of teaching_panel.service was reached" in text
    assert "Memory cgroup out of memory: Killed process 415 (gunicorn)" in text
    assert len(text) < 5000


async def test_a_note_is_redacted_and_cannot_be_markdown(world: World) -> None:
    def worse(line: bytes) -> bytes:
        return line.replace(b"task=gunicorn,", b"task=```x[a](b),").replace(b"Perhaps out of memory?", b"password=hunter22")

    world.host.journal = tuple(map(worse, lines("gunicorn-oom")))
    await world.from_sentry(world.sentry.issue())
    await world.settle()

    (text,) = world.sentry.texts()
    assert text.count("```") == 2
    assert "'''x[a](b)" in text
    assert "hunter22" not in text


async def test_without_a_token_sentry_is_told_nothing(
    store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock
) -> None:
    async with living(store_url, sentry, host, clock, token=None) as world:
        await world.from_sentry(sentry.issue())
        assert len(await world.settle()) == 2

    assert sentry.calls == []


async def test_without_an_organization_the_older_address_is_used(
    store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock
) -> None:
    async with living(store_url, sentry, host, clock, organization="") as world:
        await world.from_sentry(sentry.issue())
        await world.settle()

    assert len(sentry.comments) == 1
    assert "organization" not in sentry.calls[0].params


@pytest.mark.parametrize("kind", [Kind.CUT_BEFORE, Kind.CUT_AFTER, Kind.SERVER_ERROR, Kind.RATE_LIMITED])
async def test_what_goes_wrong_is_tried_again_and_left_once(kind: Kind, world: World) -> None:
    world.sentry.faults.on("POST", kind, times=2, seconds=40)
    await world.from_sentry(world.sentry.issue())
    for _ in range(5):
        await world.settle()
        world.clock.go(60)

    assert len(world.sentry.comments) == 1
    assert 2 <= len(world.sentry.calls) <= 3
    assert len(world.chat.shown) == 2


async def test_sentry_s_wish_to_wait_is_kept(world: World) -> None:
    world.sentry.faults.on("POST", Kind.RATE_LIMITED, seconds=300)
    await world.from_sentry(world.sentry.issue())
    await world.settle()
    world.clock.go(299)
    await world.settle()
    assert len(world.sentry.calls) == 1

    world.clock.go(2)
    await world.settle()
    assert len(world.sentry.comments) == 1


@pytest.mark.parametrize("trouble", ["token", "scope", "issue"])
async def test_what_sentry_refuses_is_not_tried_again(trouble: str, world: World) -> None:
    match trouble:
        case "token":
            world.sentry.token = "revoked"
        case "scope":
            world.sentry.scopes = frozenset({"event:read"})
        case _:
            world.sentry.issues.clear()
    await world.from_sentry(world.sentry.issue())
    for _ in range(3):
        await world.settle()
        world.clock.go(3600)

    assert len(world.sentry.calls) == 1
    assert world.sentry.comments == []


async def test_a_note_waits_for_the_next_life(store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock) -> None:
    chat = MemoryChat()
    fault = sentry.faults.on("POST", Kind.SERVER_ERROR, times=None)
    async with living(store_url, sentry, host, clock, chat) as world:
        await world.from_sentry(sentry.issue())
        await world.settle()
    assert sentry.comments == []
    fault.times = 0
    clock.go(60)
    async with living(store_url, sentry, host, clock, chat) as world:
        await world.settle()

    assert len(sentry.comments) == 1
    assert len(chat.shown) == 2


async def test_a_note_is_given_up_after_a_day(world: World) -> None:
    world.sentry.faults.on("POST", Kind.SERVER_ERROR, times=None)
    await world.from_sentry(world.sentry.issue())
    await world.settle()
    world.clock.go(asker.NOTE_UP.total_seconds())
    await world.settle()
    calls = len(world.sentry.calls)
    world.clock.go(3600)
    await world.settle()

    assert len(world.sentry.calls) == calls


async def test_a_token_never_follows_a_redirect(store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock) -> None:
    from aiohttp import web

    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{sentry.url}{request.path}")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", elsewhere)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    moved = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with living(store_url, sentry, host, clock, base_url=moved) as world:
        await world.from_sentry(sentry.issue())
        await world.settle()
    await runner.cleanup()

    assert sentry.calls == []


async def test_the_note_is_json_with_one_text(world: World) -> None:
    await world.from_sentry(world.sentry.issue())
    await world.settle()

    assert set(json.loads(world.sentry.calls[0].params["body"])) == {"text"}
