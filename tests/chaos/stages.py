"""The story's stages: each platform's emulator with a chat, a person, and its part of the settings."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from tests.chaos.story import ALERT, Shown
from tests.emulators.faults import Hold as SlackHold
from tests.emulators.slack import BOT_USER, Slack
from tests.emulators.slack import Message as SlackMessage
from tests.emulators.telegram import Hold, Message, TelegramEmulator

GROUP, OWNER = -1_001_234_567_890, 111_111
CHANNEL, ALICE = "C0OPS", "U0ALICE"
FOREVER_S = 3600.0
TELEGRAM = """\
[telegram]
token = "{token}"
api_base = "{base_url}"
[chats.ops]
telegram = {chat}
[people.owner]
telegram = {person}
role = "admin"
"""
SLACK = """\
[slack]
bot_token = "{bot_token}"
app_token = "{app_token}"
base_url = "{base_url}"
[chats.ops]
slack = "{chat}"
[people.owner]
slack = "{person}"
role = "admin"
"""


@dataclass
class TelegramHeld:
    """A held call of the Bot API."""

    telegram: TelegramEmulator
    hold: Hold

    @property
    def sends(self) -> bool:
        """Whether it is sendMessage."""
        calls = [call for call in self.telegram.calls if not call.is_poll and call.n == self.hold.n]
        return bool(calls) and calls[0].method == "sendMessage"

    async def reached(self) -> None:
        """Wait for it."""
        await self.hold.reached(FOREVER_S)

    def release(self) -> None:
        """Let it go on."""
        self.hold.release()


def _of_the_story(shown: Iterable[Shown]) -> list[Shown]:
    """Without the kills of its own past that a machine tells at the first sight: real ones, of whoever used it before."""
    return [message for message in shown if " killed" not in message.texts[0].partition("\n")[0]]


class TelegramStage:
    """A group on Telegram."""

    def __init__(self, telegram: TelegramEmulator) -> None:
        self._telegram = telegram
        self._owner = telegram.add_person(OWNER, "Owner")
        telegram.add_group(GROUP, members=[self._owner])
        self.settings = TELEGRAM.format(token=telegram.token, base_url=telegram.base_url, chat=GROUP, person=OWNER)

    def hold(self, ordinal: int, stage: str) -> TelegramHeld:
        """See `Stage`; polls are not counted."""
        return TelegramHeld(self._telegram, self._telegram.hold(ordinal, stage))  # type: ignore[arg-type]

    def shown(self) -> list[Shown]:
        """See `Stage`."""
        return _of_the_story(Shown(message.texts) for message in self._telegram.shown(GROUP))

    def calls(self) -> int:
        """See `Stage`."""
        return sum(not call.is_poll for call in self._telegram.calls)

    async def wait_for(self, true: Callable[[], object], within_s: float) -> None:
        """See `Stage`."""
        await self._telegram.wait_for(true, within_s)

    async def type(self, command: str) -> None:
        """See `Stage`."""
        self._telegram.say(GROUP, self._owner, f"/{command}")

    async def press_top(self) -> None:
        """See `Stage`. Whoever is faster than the bot's own note of its message, or took the one that is left, presses again."""
        while True:
            query = self._telegram.press(self._report(), "Top", self._owner)
            await self._telegram.wait_for(functools.partial(self._telegram.toasts_of, query), FOREVER_S)
            if not any("older message" in toast.text for toast in self._telegram.toasts_of(query)):
                return

    def _report(self) -> Message:
        return next(m for m in reversed(self._telegram.shown(GROUP)) if ALERT not in m.texts[0] and "Top" in m.labels)


@dataclass
class SlackHeld:
    """A held call of the Web API."""

    hold: SlackHold

    @property
    def sends(self) -> bool:
        """Whether it is chat.postMessage."""
        return self.hold.call is not None and self.hold.call.method == "chat.postMessage"

    async def reached(self) -> None:
        """Wait for it."""
        await self.hold.reached(FOREVER_S)

    def release(self) -> None:
        """Let it go on."""
        self.hold.release()


class SlackStage:
    """A channel on Slack."""

    def __init__(self, slack: Slack) -> None:
        self._slack = slack
        self._tasks: set[asyncio.Task[object]] = set()
        self.settings = SLACK.format(
            bot_token=slack.bot_token, app_token=slack.app_token, base_url=slack.base_url, chat=CHANNEL, person=ALICE
        )

    def hold(self, ordinal: int, stage: str) -> SlackHeld:
        """See `Stage`."""
        return SlackHeld(self._slack.faults.hold(ordinal, stage))

    def shown(self) -> list[Shown]:
        """See `Stage`."""
        return _of_the_story(Shown([*(edit.shown for edit in message.edits), message.shown()]) for message in self._mine())

    def calls(self) -> int:
        """See `Stage`."""
        return len(self._slack.calls)

    async def wait_for(self, true: Callable[[], object], within_s: float) -> None:
        """See `Stage`."""
        await self._slack.wait_for(true, within_s)

    async def type(self, command: str) -> None:
        """See `Stage`: a mention, which Slack delivers again until it is taken."""
        await self._slack.mention(command, ALICE, CHANNEL)

    async def press_top(self) -> None:
        """See `Stage`. Slack tells of a press once: a person who sees that it failed presses again."""
        while True:
            await self._slack.sockets.connected(1, 60)
            delivery = await self._slack.press(self._report(), "Top", ALICE)
            await delivery.settled(30)
            if delivery.failure is None:
                return

    def _mine(self) -> list[SlackMessage]:
        return [message for message in self._slack.channels[CHANNEL].messages if message.user == BOT_USER]

    def _report(self) -> SlackMessage:
        labelled = [m for m in self._mine() if "Top" in [button.label for button in m.buttons]]
        return next(m for m in reversed(labelled) if ALERT not in m.shown())


@contextlib.asynccontextmanager
async def telegram_stage() -> AsyncIterator[TelegramStage]:
    """Telegram until the block ends."""
    async with TelegramEmulator() as telegram:
        yield TelegramStage(telegram)


@contextlib.asynccontextmanager
async def slack_stage() -> AsyncIterator[SlackStage]:
    """Slack until the block ends; it delivers events again sooner than the real one."""
    async with Slack(retry_delays_s=(0.5, 3, 6, 12)) as slack:
        yield SlackStage(slack)
