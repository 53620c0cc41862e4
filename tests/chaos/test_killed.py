"""The bot is killed at each call that it makes to Telegram: before it, after it is taken, after it is answered.

The oracle is the emulator: the alert stands there, once where no answer was lost and at most once more for each that was, and
so does the answer to the command that was typed meanwhile. `MEMWARDEN_SEED=…` replays the random rounds.
"""

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest

from tests.chaos.process import BotProcess
from tests.emulators.telegram import Message, TelegramEmulator

pytestmark = pytest.mark.chaos

OPS = -1_001_234_567_890
OWNER = 111_111
CALLS = range(1, 7)  # a start's own calls, the alert, and the answer to /whoami
STAGES = ("before", "taken", "answered")
SEED = int(os.environ.get("MEMWARDEN_SEED", random.SystemRandom().randrange(1 << 32)))
ROUNDS = 8


def settings(folder: Path, telegram: TelegramEmulator) -> Path:
    """This machine, with thresholds that it is always above: one incident opens with the first sample and stays."""
    path = folder / "memwarden.toml"
    path.write_text(
        f"""
store = "sqlite:///{folder}/memwarden.db"
[telegram]
token = "{telegram.token}"
api_base = "{telegram.base_url}"
[chats.ops]
telegram = {OPS}
[people.owner]
telegram = {OWNER}
role = "admin"
[hosts.here]
address = "local"
[alerts]
memory_percent = 0.2
clear_percent = 0.1
critical_percent = 0.2
every = "1s"
"""
    )
    return path


def alerts(telegram: TelegramEmulator) -> list[Message]:
    """The messages that tell of the incident."""
    return [message for message in telegram.shown(OPS) if message.text.startswith("here: memory")]


def answers(telegram: TelegramEmulator) -> list[Message]:
    """The answers to /whoami."""
    return [message for message in telegram.shown(OPS) if message.text.startswith("You are")]


async def one_round(folder: Path, deaths: list[tuple[int, str]]) -> int:
    """Lives that end at these calls, then one that goes on; gives how many answers to a send were lost."""
    killed_at: list[int] = []
    async with TelegramEmulator() as telegram:
        owner = telegram.add_person(OWNER, "owner")
        telegram.add_group(OPS, bot_status="administrator", members=[owner])
        config = settings(folder, telegram)
        telegram.say(OPS, owner, "/whoami")
        for life, (n, stage) in enumerate(deaths):
            base = sum(not call.is_poll for call in telegram.calls)
            hold = telegram.hold(base + n, stage)  # type: ignore[arg-type]
            bot = await BotProcess.start(config, folder.parent / "pycache", folder / f"log-{life}")
            with contextlib.suppress(TimeoutError):  # a life may make fewer calls than that
                await hold.reached(15)
            killed_at += [at for at, call in enumerate(telegram.calls) if not call.is_poll and call.n == base + n]
            await bot.kill()
            hold.release()
        bot = await BotProcess.start(config, folder.parent / "pycache", folder / "log-last")
        await bot.ready()
        await telegram.wait_for(lambda: alerts(telegram) and answers(telegram), 30)
        await bot.ready()
        assert await bot.stop() == 0
        # Whoever was killed while its send was under way never learnt the answer, at whichever stage that was.
        lost = sum(telegram.calls[at].method == "sendMessage" and telegram.calls[at].taken for at in killed_at)
        assert 1 <= len(alerts(telegram)) <= 1 + lost, [message.text for message in telegram.shown(OPS)]
        assert 1 <= len(answers(telegram)) <= 1 + lost, [message.text for message in telegram.shown(OPS)]
        assert len(alerts(telegram)) + len(answers(telegram)) <= 2 + lost
    return lost


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", CALLS)
async def test_killed_at_each_call(tmp_path: Path, n: int, stage: str) -> None:
    await one_round(tmp_path, [(n, stage)])


@pytest.mark.parametrize("round_number", range(ROUNDS))
async def test_killed_at_random(tmp_path: Path, round_number: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED + round_number)
    deaths = [(chance.choice(CALLS), chance.choice(STAGES)) for _ in range(3)]
    with capsys.disabled():
        print(f"\nMEMWARDEN_SEED={SEED} round {round_number}: {deaths}")  # noqa: T201 - the same
    lost = await asyncio.wait_for(one_round(tmp_path, deaths), 150)
    with capsys.disabled():
        print(f"  answers lost: {lost}")  # noqa: T201 - the seed replays it
