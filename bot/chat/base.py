"""What a chat platform is to the rest of the process, and what it hears from us."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from handlers.reply import Reply
from remote.text import Text


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message goes: the platform's chat id as text, a forum topic or thread within it, the language to render in."""

    platform: str
    chat: str
    thread: str = ""
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who an event comes from, by immutable ids (Telegram: user id; Slack: `TEAM/USER`; console: `console:NAME`).

    `anonymous` for anonymous admins, channels, forwards: nobody in particular, so nothing with effects. `shown` is the
    platform's display name, hostile. `home` is a member of the app's own Slack team, who may be known by `USER` alone.
    """

    account: str
    shown: str = ""
    language: str = ""
    anonymous: bool = False
    home: bool = False


@dataclass(frozen=True, slots=True)
class Typed:
    """A command somebody typed, or a log line that they passed on. `event_id` is the same when the platform delivers it twice.

    `at` is the platform's time of it. `text` begins with the command, slash or not (`/mem prod`, `mem prod`), or holds a log
    line that tells of a killed process (handlers/quoted.py), which may be forwarded: it only asks. `private` is a chat of two.
    """

    event_id: str
    sender: Sender
    address: Address
    text: str
    at: datetime
    private: bool = False


@dataclass(frozen=True, slots=True)
class Pressed:
    """A button somebody pressed: the token it carried, and the message it stood on.

    `at` is the platform's time of it; where the platform tells none, the earliest at which it can have been pressed.
    """

    event_id: str
    sender: Sender
    address: Address
    message_id: str
    token: str
    at: datetime
    private: bool = False


@dataclass(frozen=True, slots=True)
class Toast:
    """The short answer to a press, already worded in the presser's language. `alert` asks for a box, not a fleeting line."""

    text: str
    alert: bool = False


class Inbox(Protocol):
    """What a chat tells us. Both are quick: they keep the event and answer; what takes long goes on by itself."""

    async def typed(self, event: Typed) -> asyncio.Future[None]:
        """A command. The answer comes through the outbox; silence for strangers in groups. What is given back is done once
        the answer is on its way, so that who reads one line after the other may wait for it; others need not."""
        ...

    async def pressed(self, event: Pressed) -> Toast | None:
        """A press. The toast comes within about two seconds; None when a message is the answer."""
        ...


class SendFailed(Exception):  # noqa: N818 - an outcome that the outbox acts on
    """A message was not delivered, or we do not know.

    `permanent`: trying again will not help (kicked, chat gone). `retry_after_s`: wait that long (429).
    `maybe_shown`: the answer to the send was lost, it may have been shown. `gone`: the message to edit is no more: send anew.
    """

    def __init__(
        self, why: str, *, permanent: bool = False, retry_after_s: float = 0.0, maybe_shown: bool = False, gone: bool = False
    ) -> None:
        super().__init__(why)
        self.permanent = permanent
        self.retry_after_s = retry_after_s
        self.maybe_shown = maybe_shown
        self.gone = gone


class ChatDown(Exception):  # noqa: N818 - an answer, in one line
    """A chat cannot work with these settings (a token that nobody knows); trying again will not help. `text` says what to do."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.msgid)
        self.text = text


class Chat(Protocol):
    """One platform. Renders Replies, delivers them, turns its events into Typed and Pressed."""

    platform: str

    async def start(self, inbox: Inbox) -> None:
        """Connect and begin to receive; returns once it does, or once it keeps trying. Raises ChatDown."""
        ...

    async def stop(self) -> None:
        """Stop receiving; what was received is handled to its end; close the connection."""
        ...

    async def send(self, to: Address, reply: Reply, tokens: Mapping[str, str], *, again: bool = False) -> str:
        """Show a new message; gives its id. `tokens` maps a button's command to the token it carries. `again` marks one that may
        have been shown before (a line says so). Raises SendFailed."""
        ...

    async def edit(self, to: Address, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        """Replace a message, buttons included. Unchanged is fine. Raises SendFailed."""
        ...

    async def check(self) -> tuple[tuple[bool, Text], ...]:
        """What `memwarden check` says of this chat: (fine, sentence with what to do) a line."""
        ...
