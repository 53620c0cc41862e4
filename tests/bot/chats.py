"""A chat in memory that keeps what was shown, with faults by the ordinal of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bot.chat.base import Address, Inbox, SendFailed
from handlers.reply import Line, Reply, Title
from remote.text import T, Text

Moment = Literal["before", "after"]


class Crash(BaseException):
    """The process is gone: nothing more of it runs."""


@dataclass(frozen=True)
class Shown:
    """One message as the chat shows it now."""

    id: str
    to: Address
    reply: Reply
    tokens: Mapping[str, str]
    again: bool = False

    @property
    def text(self) -> str:
        """The msgid of its first line."""
        return msgid(self.reply)


@dataclass(frozen=True)
class Fault:
    """What goes wrong at one call; `after` it was shown."""

    trouble: BaseException
    moment: Moment = "before"


@dataclass
class MemoryChat:
    """Implements `Chat`. `faults` by the number of the call (from 1, sends and edits together)."""

    platform: str = "console"
    faults: dict[int, Fault] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    gate: Callable[[Address], asyncio.Event | None] = lambda _: None
    inbox: Inbox | None = None

    async def start(self, inbox: Inbox) -> None:
        """Keep the inbox, for tests to speak into."""
        self.inbox = inbox

    async def stop(self) -> None:
        """Nothing to end."""

    async def send(self, to: Address, reply: Reply, tokens: Mapping[str, str], *, again: bool = False) -> str:
        """Show a new message."""
        fault = await self._begin(f"send {to.chat} {msgid(reply)}", to)
        one = Shown(f"m{len(self.shown) + 1}", to, reply, dict(tokens), again)
        self.shown.append(one)
        if fault is not None:
            raise fault
        return one.id

    async def edit(self, to: Address, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        """Replace a message."""
        fault = await self._begin(f"edit {message_id} {msgid(reply)}", to)
        at = next((n for n, one in enumerate(self.shown) if one.id == message_id), None)
        if at is None:
            raise SendFailed("no such message", gone=True)
        self.shown[at] = replace(self.shown[at], reply=reply, tokens=dict(tokens))
        if fault is not None:
            raise fault

    async def check(self) -> tuple[tuple[bool, Text], ...]:
        """All is well."""
        return ()

    async def _begin(self, call: str, to: Address) -> BaseException | None:
        """Count the call; gives what is to go wrong once it was shown."""
        self.calls.append(call)
        fault = self.faults.get(len(self.calls))
        gate = self.gate(to)
        if gate is not None:
            await gate.wait()
        if fault is None:
            return None
        if fault.moment == "before":
            raise fault.trouble
        return fault.trouble

    def texts(self, chat: str | None = None) -> list[str]:
        """What each message says now, in the order in which they were first shown."""
        return [one.text for one in self.shown if chat in {None, one.to.chat}]


def msgid(reply: Reply) -> str:
    """The first line's msgid."""
    first = reply.blocks[0] if reply.blocks else None
    return first.text.msgid if isinstance(first, Title | Line) else ""


def note(text: str, *, key: str = "") -> Reply:
    """A reply of one line."""
    return Reply((Line(T(text)),), key=key)
