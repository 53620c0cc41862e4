"""The whole process listens, and ends."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from bot.app import serve
from tests.bot.hooks.world import RecordedHost, living
from tests.clock import StandingClock
from tests.emulators.sentry import Sentry


async def test_the_process_listens_and_ends(store_url: str, sentry: Sentry, host: RecordedHost, clock: StandingClock) -> None:
    """`serve` is what `memwarden run` does."""
    async with living(store_url, sentry, host, clock) as spare:
        await spare.hooks.stop()
        port = free_port()
        assert spare.app.settings.hooks is not None
        listen = spare.app.settings.hooks.model_copy(update={"listen": f"127.0.0.1:{port}"})
        app = replace(spare.app, settings=spare.app.settings.model_copy(update={"hooks": listen}))
        stop = asyncio.Event()
        run = asyncio.create_task(serve(app, stop))
        status = 0
        async with asyncio.timeout(20):
            while status != 200:
                try:
                    status = await sentry.send(f"http://127.0.0.1:{port}/hooks/sentry", sentry.issue())
                except OSError:
                    await asyncio.sleep(0.01)
        stop.set()
        await run
        with pytest.raises(OSError, match="onnect"):
            await sentry.send(f"http://127.0.0.1:{port}/hooks/sentry", sentry.issue())


def test_hooks_that_are_off_import_nothing_heavy() -> None:
    script = "import sys, bot.hooks.service, bot.hooks; print('aiohttp' in sys.modules, 'sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
