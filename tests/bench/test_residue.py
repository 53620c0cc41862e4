"""What a bot that was killed leaves on its targets: nothing, five seconds later."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.bench.table import show
from tests.bench.target import SshTarget
from tests.bench.world import OPS, OWNER, write_settings
from tests.chaos.process import BotProcess
from tests.emulators.telegram import TelegramEmulator

pytestmark = pytest.mark.bench

LIMIT_S = 5.0


async def until_waiting(target: SshTarget, count: int) -> dict[int, str]:
    """The target's processes once so many of its tools wait for ever."""
    async with asyncio.timeout(30):
        while True:
            found = target.processes()
            if sum(command.startswith("sleep 9") for command in found.values()) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_nothing_is_left_on_the_target_after_the_bot_was_killed(target: SshTarget, tmp_path: Path, pycache: Path) -> None:
    async with TelegramEmulator() as telegram:
        telegram.add_group(OPS)
        owner = telegram.add_person(OWNER, "Owner")
        settings = write_settings(tmp_path, telegram, target, ["prod"], every_s=0.5)
        bot = await BotProcess.start(settings, pycache, tmp_path / "bot.log")
        try:
            await bot.ready()
            await until_waiting(target, 1)  # the journal's stream
            target.stuck.touch()
            telegram.say(OPS, owner, "/mem prod")
            before = await until_waiting(target, 2)
        finally:
            await bot.kill()
    killed_at, rows = time.monotonic(), []
    while left := target.processes():
        rows.append([f"{time.monotonic() - killed_at:.1f} s after", str(len(left))])
        if time.monotonic() - killed_at > LIMIT_S:
            break
        await asyncio.sleep(0.25)
    took_s = time.monotonic() - killed_at
    rows = [["before: watching, a stuck question, a stream", str(len(before))], *rows, [f"{took_s:.1f} s after", str(len(left))]]
    show(f"Processes on the target after the bot's SIGKILL (limit 0 within {LIMIT_S:.0f} s)", ["when", "processes"], rows)
    assert not left, left
