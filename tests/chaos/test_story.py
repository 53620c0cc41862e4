"""The whole story with the bot killed at every call it makes, on both platforms, and at random.

`MEMWARDEN_SEED=… make chaos ARGS="-k random"` replays the random rounds.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.chaos.stages import slack_stage, telegram_stage
from tests.chaos.story import STAGES, Death, Lives, tell

pytestmark = pytest.mark.chaos

TELEGRAM_CALLS = range(5, 17)  # the first four are the start's own, which test_killed.py takes one by one
SLACK_CALLS = range(1, 11)
RANDOM_ROUNDS = 6
SEED = int(os.environ.get("MEMWARDEN_SEED") or random.SystemRandom().randrange(1 << 32))


def say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


@pytest.mark.parametrize("moment", STAGES)
@pytest.mark.parametrize("ordinal", TELEGRAM_CALLS)
async def test_killed_on_telegram(tmp_path: Path, pycache: Path, ordinal: int, moment: str) -> None:
    async with telegram_stage() as stage:
        await tell(stage, tmp_path, pycache, [Death(ordinal, moment)])


@pytest.mark.parametrize("moment", STAGES)
@pytest.mark.parametrize("ordinal", SLACK_CALLS)
async def test_killed_on_slack(tmp_path: Path, pycache: Path, ordinal: int, moment: str) -> None:
    async with slack_stage() as stage:
        await tell(stage, tmp_path, pycache, [Death(ordinal, moment)])


@pytest.mark.parametrize("round_number", range(RANDOM_ROUNDS))
async def test_killed_at_random(tmp_path: Path, pycache: Path, round_number: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(f"{SEED}/{round_number}")
    platform = chance.choice(("telegram", "slack"))
    last = {"telegram": 16, "slack": 8}[platform]
    deaths = [Death(chance.randint(1, last), chance.choice(STAGES)) for _ in range(chance.randint(2, 4))]
    with capsys.disabled():
        say(f"MEMWARDEN_SEED={SEED} round {round_number}, {platform}: {deaths}")
    lives: Lives
    if platform == "telegram":
        async with telegram_stage() as telegram:
            lives = await tell(telegram, tmp_path, pycache, deaths)
    else:
        async with slack_stage() as slack:
            lives = await tell(slack, tmp_path, pycache, deaths)
    with capsys.disabled():
        say(f"  killed {lives.died} times, answers lost: {lives.lost}")
