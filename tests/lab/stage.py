"""The product on stage: a real bot process, the lab's guest behind it, and one of three chats before it.

The oracles are the guest's own record (systemd, files, processes) and the chat's emulator, never the bot.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from tests.emulators.slack import Slack
from tests.emulators.slack_world import Message as SlackMessage
from tests.emulators.telegram import Message as TelegramMessage
from tests.emulators.telegram import Person, TelegramEmulator
from tests.lab.machine import Lab

ANSWER_S = 90.0  # emulation is ten times slower than a machine
PLAN_S = 300.0
ROOT = Path(__file__).parents[2]
T = TypeVar("T")


async def on(lab: Lab, command: str, *, check: bool = True, timeout_s: float = 120.0) -> str:
    """What a command says in the guest."""
    done = await asyncio.to_thread(lab.run, command, timeout_s=timeout_s, check=check)
    return done.stdout


async def until(lab: Lab, condition: str, timeout_s: float = 120.0) -> None:
    """Wait until a shell condition holds in the guest."""
    await asyncio.to_thread(lab.until, condition, timeout_s)


def settings(lab: Lab, tmp: Path, chats: str, *, more: str = "") -> Path:
    """The settings of a team of two with one server."""
    path = tmp / "memwarden.toml"
    path.write_text(
        f"""
store = "sqlite:///{tmp}/memwarden.db"
{more}
{chats}
[people.owner]
telegram = 111
slack = "U0OWNER"
console = true
role = "approver"
[people.viewer]
telegram = 222
slack = "U0VIEWER"
role = "viewer"
[hosts.prod]
address = "127.0.0.1"
port = {lab.ssh_port}
user = "root"
key = "{lab.client_key_path}"
host_key = "{lab.host_key}"
"""
    )
    return path


class Bot:
    """`memwarden run` as a process of its own."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self.log = config.with_suffix(".log")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "--config", self._config, "run",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=os.environ,
            )  # fmt: skip

    async def kill(self) -> None:
        """As the OOM killer would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """As systemd would."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> int:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), 40)


@dataclass(frozen=True)
class Seen:
    """One message of the bot as it stands: what a person reads and may press."""

    text: str
    buttons: tuple[str, ...]
    handle: Any


class Stage(Protocol):
    """A chat with three people in it: owner (approver), viewer, stranger."""

    @property
    def settings(self) -> str:
        """The chat's part of the settings."""
        ...

    async def ready(self) -> None:
        """Wait until the bot hears."""
        ...

    async def say(self, who: str, text: str) -> None:
        """Type a command."""
        ...

    def shown(self) -> list[Seen]:
        """The bot's messages, oldest first."""
        ...

    async def press(self, seen: Seen, label: str, who: str) -> None:
        """Press a button that the message has or once had."""
        ...

    def toasts(self, who: str) -> list[str]:
        """What was said to one person only."""
        ...

    async def wait(self, found: Callable[[], T], timeout_s: float = ANSWER_S) -> T:
        """Wait until `found` gives something true."""
        ...


PEOPLE = {"owner": 111, "viewer": 222, "stranger": 333}


class OnTelegram:
    """A Telegram group."""

    def __init__(self, emulator: TelegramEmulator) -> None:
        self.emulator = emulator
        self._people = {name: Person(number, name, None, None) for name, number in PEOPLE.items()}
        self._chat = emulator.add_group(-1001, "ops", bot_status="administrator", members=self._people.values())
        self._presses: list[tuple[str, str]] = []

    @property
    def settings(self) -> str:
        return f"""
[telegram]
token = "{self.emulator.token}"
api_base = "{self.emulator.base_url}"
[chats.ops]
telegram = -1001
"""

    async def ready(self) -> None:
        await self.emulator.wait_for(lambda: self.emulator.is_polled, 30)

    async def say(self, who: str, text: str) -> None:
        self.emulator.say(self._chat, self._people[who], text)

    def shown(self) -> list[Seen]:
        return [Seen(one.text, tuple(one.labels), one) for one in self.emulator.shown(self._chat)]

    async def press(self, seen: Seen, label: str, who: str) -> None:
        message: TelegramMessage = seen.handle
        self._presses.append((who, self.emulator.press(message, label, self._people[who], stale=True)))

    def toasts(self, who: str) -> list[str]:
        return [
            toast.text for name, query in self._presses if name == who for toast in self.emulator.toasts_of(query) if toast.text
        ]

    async def wait(self, found: Callable[[], T], timeout_s: float = ANSWER_S) -> T:
        return await self.emulator.wait_for(found, timeout_s)


class OnSlack:
    """A Slack channel."""

    def __init__(self, emulator: Slack) -> None:
        self.emulator = emulator
        for name in PEOPLE:
            emulator.world.add_user(f"U0{name.upper()}", name)
            emulator.channels["C0OPS"].members.add(f"U0{name.upper()}")

    @property
    def settings(self) -> str:
        return f"""
[slack]
bot_token = "{self.emulator.bot_token}"
app_token = "{self.emulator.app_token}"
base_url = "{self.emulator.base_url}"
[chats.ops]
slack = "C0OPS"
"""

    async def ready(self) -> None:
        await self.emulator.sockets.connected(1, timeout_s=30)

    async def say(self, who: str, text: str) -> None:
        command, _, rest = text.partition(" ")
        await self.emulator.slash(command, rest, f"U0{who.upper()}", "C0OPS")

    def shown(self) -> list[Seen]:
        return [
            Seen(one.shown(), tuple(button.label for button in one.buttons), one)
            for one in self.emulator.channels["C0OPS"].from_bot
            if one.ephemeral_to is None
        ]

    async def press(self, seen: Seen, label: str, who: str) -> None:
        message: SlackMessage = seen.handle
        past = [button for button in message.buttons if button.label == label] or self._kept.get((message.ts, label), [])
        await self.emulator.press_button(message, past[0], f"U0{who.upper()}")
        self._kept[message.ts, label] = past

    @property
    def _kept(self) -> dict[tuple[str, str], list[Any]]:
        kept: dict[tuple[str, str], list[Any]] = self.__dict__.setdefault("_buttons", {})
        return kept

    def toasts(self, who: str) -> list[str]:
        return [one.shown() for one in self.emulator.ephemerals if one.ephemeral_to == f"U0{who.upper()}"]

    async def wait(self, found: Callable[[], T], timeout_s: float = ANSWER_S) -> T:
        return await self.emulator.wait_for(found, timeout_s)


@contextlib.asynccontextmanager
async def stage(platform: str) -> AsyncIterator[OnTelegram | OnSlack]:
    """An emulator of the platform with its people."""
    if platform == "telegram":
        async with TelegramEmulator() as telegram:
            yield OnTelegram(telegram)
    else:
        async with Slack() as slack:
            yield OnSlack(slack)


async def ask(config: Path, text: str, *, person: str = "owner") -> dict[str, Any]:
    """`memwarden ask --json`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "--config", config, "ask", "--json", "--as", person, text,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), PLAN_S)
    answer: dict[str, Any] = json.loads(out)
    assert (process.returncode == 0) == answer["ok"], answer
    return answer
