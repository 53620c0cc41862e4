"""One small story, told over a chat while the bot is killed: an alert, a command, a press, and the alert's end.

A `Stage` is a platform's emulator with its people. The oracle asks only what people were shown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.chaos.process import BotProcess

AGAIN = "This may have been shown before."
ALERT = "here: memory is"
STAGES = ("before", "taken", "answered")
STORY_S = 60.0

# This machine is always above the first and never above the second.
HIGH = 'memory_percent = 0.2\nclear_percent = 0.1\ncritical_percent = 0.2\nhold = "1s"\nevery = "1s"\n'
LOW = 'memory_percent = 99.9\nclear_percent = 99.8\ncritical_percent = 100\ncritical_available = 1\nhold = "1s"\nevery = "1s"\n'


@dataclass(frozen=True)
class Shown:
    """A message of the bot as it stands: every text it has had, the last one last."""

    texts: Sequence[str]

    @property
    def text(self) -> str:
        """What it says now."""
        return self.texts[-1]


class Held(Protocol):
    """A call that is stopped until it is let go."""

    @property
    def sends(self) -> bool:
        """Whether it is one that shows a new message."""
        ...

    async def reached(self) -> None:
        """Wait until the call stands there, for ever if need be."""
        ...

    def release(self) -> None:
        """Let it go on."""
        ...


class Stage(Protocol):
    """A platform with its people."""

    settings: str
    """Its part of the settings."""

    def hold(self, ordinal: int, stage: str) -> Held:
        """Stop the bot's call with this ordinal (from 1, over all lives) at a stage."""
        ...

    def shown(self) -> list[Shown]:
        """The bot's messages in the chat, oldest first."""
        ...

    def calls(self) -> int:
        """How many calls the bot has made."""
        ...

    async def wait_for(self, true: Callable[[], object], within_s: float) -> None:
        """Wait until it is. Raises TimeoutError with what was shown."""
        ...

    async def type(self, command: str) -> None:
        """A person types a command."""
        ...

    async def press_top(self) -> None:
        """A person presses the button that names the biggest processes, on the answer to /mem."""
        ...


@dataclass(frozen=True)
class Death:
    """The bot's SIGKILL at one call."""

    ordinal: int
    stage: str


class Lives:
    """The bot's lives with one store: killed where it was planned, and started again."""

    def __init__(self, stage: Stage, folder: Path, pycache: Path, deaths: Sequence[Death]) -> None:
        self._stage = stage
        self._folder = folder
        self._pycache = pycache
        self._holds = [(death, stage.hold(death.ordinal, death.stage)) for death in deaths]
        self._bot: BotProcess | None = None
        self._turn = asyncio.Lock()
        self.died = 0
        self.lost = 0
        """Sends whose answer may not have come to the bot."""

    def configure(self, alerts: str) -> None:
        """What the next life's settings say of alerts."""
        text = f'store = "sqlite:///{self._folder}/memwarden.db"\n{self._stage.settings}'
        text += f'[hosts.here]\naddress = "local"\n[alerts]\n{alerts}'
        (self._folder / "memwarden.toml").write_text(text, encoding="utf-8")

    async def begin(self) -> None:
        """A life begins."""
        self._bot = await BotProcess.start(self._folder / "memwarden.toml", self._pycache, self._folder / "bot.log")

    async def end(self) -> None:
        """SIGTERM, which loses nothing; a life that is killed meanwhile is followed by another, whose end is asked for then."""
        while True:
            bot = self._bot
            assert bot is not None
            with contextlib.suppress(BotProcess.Gone):
                await bot.ready()
                status = await bot.stop()
                async with self._turn:
                    if self._bot is bot:
                        assert status == 0, bot.said
                        return
            async with self._turn:
                assert self._bot is not bot, bot.said

    async def kill(self) -> None:
        """The last one, whatever it does."""
        if self._bot is not None:
            await self._bot.kill()

    @contextlib.asynccontextmanager
    async def dying(self) -> AsyncIterator[None]:
        """Kill the bot at its calls meanwhile."""
        killers = [asyncio.create_task(self._die(death, hold)) for death, hold in self._holds]
        try:
            yield
        finally:
            for killer in killers:
                killer.cancel()
            ended = await asyncio.gather(*killers, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception):
                raise one

    async def _die(self, death: Death, hold: Held) -> None:
        await hold.reached()
        async with self._turn:
            await self._kill_at(death, hold)

    async def _kill_at(self, death: Death, hold: Held) -> None:
        assert self._bot is not None
        await self._bot.kill()
        self.died += 1
        # An answer that was sent may still have been on its way when the bot was killed.
        self.lost += hold.sends and death.stage != "before"
        # What was stopped before it was taken never is: its connection is gone.
        if death.stage != "before":
            hold.release()
        await self.begin()


async def tell(stage: Stage, folder: Path, pycache: Path, deaths: Sequence[Death]) -> Lives:
    """Tell the story and judge it; gives the lives. Raises AssertionError with what was shown."""
    lives = Lives(stage, folder, pycache, deaths)
    lives.configure(HIGH)
    try:
        await lives.begin()
        async with lives.dying():
            await _play(stage, lives)
            await lives.end()
    except (AssertionError, TimeoutError):
        log = (folder / "bot.log").read_text(encoding="utf-8", errors="replace")
        raise AssertionError(f"{deaths}\n{describe(stage)}\n{log[-6000:]}") from None
    finally:
        await lives.kill()
    judge(stage, lives)
    return lives


async def _play(stage: Stage, lives: Lives) -> None:
    await stage.wait_for(lambda: alerts(stage), STORY_S)
    await stage.type("mem here")
    await stage.wait_for(lambda: reports(stage), STORY_S)
    await stage.press_top()
    await stage.wait_for(lambda: tops(stage), STORY_S)
    await lives.end()
    lives.configure(LOW)
    await lives.begin()
    await stage.wait_for(lambda: alerts(stage) and "fine again" in alerts(stage)[-1].text, STORY_S)


def judge(stage: Stage, lives: Lives) -> None:
    """Everything once, once more only where an answer was lost, and then it says so; the newest alert tells the end."""
    told = describe(stage)
    groups = [alerts(stage), reports(stage), tops(stage)]
    assert sum(map(len, groups)) == len(stage.shown()), f"something else was shown\n{told}"
    extras = 0
    for group in groups:
        assert group, told
        extras += len(group) - 1
        for more in group[1:]:
            assert any(AGAIN in text for text in more.texts), f"shown again without a word\n{told}"
    assert extras <= lives.lost, f"{extras} more than once, {lives.lost} answers lost\n{told}"
    assert "fine again" in alerts(stage)[-1].text, told


def alerts(stage: Stage) -> list[Shown]:
    """The messages about the incident."""
    return [message for message in stage.shown() if ALERT in message.texts[0]]


def tops(stage: Stage) -> list[Shown]:
    """The answers to the press."""
    return [message for message in stage.shown() if " pid " in message.texts[0] and "Swap" not in message.texts[0]]


def reports(stage: Stage) -> list[Shown]:
    """The answers to /mem."""
    told = alerts(stage)
    return [message for message in stage.shown() if "Swap" in message.texts[0] and message not in told]


def describe(stage: Stage) -> str:
    """What was shown, one line a message."""
    lines = [" => ".join(text.replace("\n", " | ")[:90] for text in message.texts) for message in stage.shown()]
    return "\n".join([f"{stage.calls()} calls, shown:", *lines])
