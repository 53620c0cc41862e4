"""What a Slack workspace holds: people, channels, messages, and the rules of who may write where."""

import asyncio
import copy
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.emulators.slack_blocks import (
    ALL_BLOCKS_CHARS_MAX,
    Button,
    Json,
    block_links,
    block_pings,
    blocks_seen,
    buttons_in,
    chars_in,
    masked_links_in,
    parsed_blocks,
    pings_in,
    problems_of,
    seen,
    walk,
)

TEAM = "T0HOME"
BOT_USER = "U0BOT"
BOT_ID = "B0BOT"
APP_ID = "A0MEMWARDEN"
TEXT_CHARS_MAX = 40_000
RESPONSE_USES_MAX = 5
RESPONSE_AGE_MAX_S = 30 * 60

T = TypeVar("T")


class Refused(Exception):  # noqa: N818 - an answer of the platform, not a failure of the emulator
    """What Slack answers with `ok: false`."""

    def __init__(self, error: str, **extra: object) -> None:
        super().__init__(error)
        self.error = error
        self.extra = extra


@dataclass
class User:
    """A person; one whose team is not ours comes over Slack Connect."""

    id: str
    name: str
    team: str = TEAM
    guest: bool = False
    bot: bool = False
    locale: str = "en-US"


@dataclass(frozen=True)
class Content:
    """What a message says, checked."""

    text: str
    blocks: list[dict[str, Any]] = field(default_factory=list)
    link_names: bool = False

    @property
    def pings(self) -> list[str]:
        """Everything that would notify people."""
        return pings_in(self.text, link_names=self.link_names) + block_pings(self.blocks)


@dataclass(frozen=True)
class Edit:
    """How a message looked before it was changed at `at` (seconds since the epoch)."""

    at: float
    text: str
    blocks: list[dict[str, Any]]
    shown: str


@dataclass
class Message:
    """A message as it stands now; `pings` gathers over its whole life."""

    ts: str
    channel: str
    user: str
    text: str
    blocks: list[dict[str, Any]]
    thread_ts: str | None = None
    via: str = "api"  # api, response, ack, file or person
    ephemeral_to: str | None = None
    deleted: bool = False
    edits: list[Edit] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def shown(self) -> str:
        """What a person reads: the blocks where there are any, else the text."""
        return blocks_seen(self.blocks) if self.blocks else seen(self.text)

    @property
    def buttons(self) -> list[Button]:
        """The buttons under the message, in order."""
        return buttons_in(self.blocks)

    @property
    def links(self) -> list[str]:
        """Links whose label hides where they lead."""
        return masked_links_in(self.text) + block_links(self.blocks)

    def button(self, label_or_action: str) -> Button:
        """The button of this label or action_id.

        Raises:
            LookupError: There is none.
        """
        for button in self.buttons:
            if label_or_action in (button.label, button.action_id):
                return button
        raise LookupError(f"no button {label_or_action!r} in: {self.shown()}")

    def as_api(self) -> dict[str, Any]:
        """The message as the Web API and payloads carry it."""
        body: dict[str, Any] = {"type": "message", "ts": self.ts, "user": self.user, "text": self.text, "team": TEAM}
        if self.user == BOT_USER:
            body |= {"bot_id": BOT_ID, "app_id": APP_ID}
        if self.blocks:
            body["blocks"] = copy.deepcopy(self.blocks)
        if self.thread_ts:
            body["thread_ts"] = self.thread_ts
        if self.edits:
            body["edited"] = {"user": self.user, "ts": f"{self.edits[-1].at:.6f}"}
        return body


@dataclass
class Channel:
    """A channel or a direct chat with the bot (`im`), its messages oldest first."""

    id: str
    name: str
    members: set[str]
    private: bool = False
    archived: bool = False
    shared: bool = False
    im: bool = False
    messages: list[Message] = field(default_factory=list)
    deleted: list[Message] = field(default_factory=list)

    @property
    def from_bot(self) -> list[Message]:
        """What the bot wrote and still stands."""
        return [message for message in self.messages if message.user == BOT_USER]

    def find(self, ts: object) -> Message | None:
        """The message of this ts."""
        return next((message for message in self.messages if message.ts == ts), None)


@dataclass
class ResponseUrl:
    """Where an app may answer a command or a press."""

    id: str
    channel: str
    user: str
    issued_at: float
    message: Message | None = None
    uses: int = 0


@dataclass(frozen=True)
class Response:
    """One post to a response_url and what came of it."""

    url_id: str
    payload: Json
    error: str | None
    message: Message | None


@dataclass
class File:
    """A file on its way; `data` once it was uploaded."""

    id: str
    name: str
    length: int
    data: bytes | None = None
    title: str = ""


class World:
    """A workspace, with the home team's channel C0OPS and one person, U0ALICE."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.channels: dict[str, Channel] = {}
        self.ephemerals: list[Message] = []
        self.responses: list[Response] = []
        self.response_urls: dict[str, ResponseUrl] = {}
        self.files: dict[str, File] = {}
        self.views: list[dict[str, Any]] = []
        self.triggers: dict[str, float] = {}
        self.on_change: list[Callable[[str, Message], None]] = []
        self._offset_s = 0.0
        self._numbers = itertools.count(1)
        self._last_ts = 0.0
        self._changed = asyncio.Event()
        self.add_user(BOT_USER, "memwarden", bot=True)
        self.add_user("U0ALICE", "alice")
        self.add_channel("C0OPS", "ops")

    # People and places

    def add_user(self, user: str, name: str | None = None, *, team: str = TEAM, guest: bool = False, bot: bool = False) -> User:
        """Add a person; of another `team` he is a Slack Connect stranger."""
        self.users[user] = User(user, name or user.lower(), team, guest, bot)
        return self.users[user]

    def add_channel(
        self,
        channel: str,
        name: str,
        *,
        member: bool = True,
        private: bool = False,
        archived: bool = False,
        shared: bool = False,
    ) -> Channel:
        """Add a channel of all who are known now, with the bot where `member`."""
        members = {user.id for user in self.users.values() if member or not user.bot}
        self.channels[channel] = Channel(channel, name, members, private, archived, shared)
        return self.channels[channel]

    def im(self, user: str) -> Channel:
        """The direct chat of the bot with a person, opened when needed."""
        channel = "D" + user[1:]
        if channel not in self.channels:
            self.channels[channel] = Channel(channel, "directmessage", {user, BOT_USER}, im=True)
        return self.channels[channel]

    # Time and waiting

    def now(self) -> float:
        """Seconds since the epoch, on the workspace's clock."""
        return time.time() + self._offset_s

    def advance(self, seconds: float) -> None:
        """Put the workspace's clock forward, for what ages: response_urls and triggers."""
        self._offset_s += seconds

    def changed(self) -> None:
        """Wake who waits."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for(self, predicate: Callable[[], T], timeout_s: float = 5) -> T:
        """The predicate's first true value; looked at after each change.

        Raises:
            AssertionError: It stayed false; the message tells what is shown.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not (value := predicate()):
                    await self._changed.wait()
                return value
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s; shown:\n{self.everything_shown()}") from None

    def everything_shown(self) -> str:
        """All that stands in the workspace, for a failure's message."""
        lines = [f"#{channel.name} {m.user}: {m.shown()}" for channel in self.channels.values() for m in channel.messages]
        lines += [f"only to {message.ephemeral_to}: {message.shown()}" for message in self.ephemerals]
        return "\n".join(lines)

    # Ids

    def number(self) -> int:
        """A number never given before."""
        return next(self._numbers)

    def new_ts(self) -> str:
        """A ts later than all before."""
        self._last_ts = max(self.now(), self._last_ts + 0.000_01)
        return f"{self._last_ts:.6f}"

    def new_trigger(self) -> str:
        """A trigger_id, good for one view within 3 s."""
        trigger = f"{self.number()}.{TEAM}.{self._last_ts}"
        self.triggers[trigger] = self.now()
        return trigger

    def new_response_url(self, channel: str, user: str, message: Message | None = None) -> ResponseUrl:
        """A place to answer."""
        url = ResponseUrl(f"r{self.number()}", channel, user, self.now(), message)
        self.response_urls[url.id] = url
        return url

    # What may be written

    def content(self, params: Mapping[str, Any], *, may_be_empty: bool = False) -> Content:
        """Text and blocks of a request, checked as Slack does.

        Raises:
            Refused: Too long, malformed, or nothing at all.
        """
        text = str(params.get("text") or "")
        blocks = self._blocks(params.get("blocks"))
        if len(text) > TEXT_CHARS_MAX:
            raise Refused("msg_too_long")
        if not text.strip() and not blocks and not may_be_empty:
            raise Refused("no_text")
        link_names = truth(params.get("link_names")) or params.get("parse") == "full"
        return Content(text, blocks, link_names)

    def _blocks(self, raw: object) -> list[dict[str, Any]]:
        if raw in (None, "", []):
            return []
        blocks = parsed_blocks(raw)
        if blocks is None:
            raise Refused("invalid_blocks_format")
        if problems := problems_of(blocks):
            messages = [f"[ERROR] {problem}" for problem in problems]
            raise Refused("invalid_blocks", errors=problems, response_metadata={"messages": messages})
        if chars_in(blocks) > ALL_BLOCKS_CHARS_MAX:
            raise Refused("msg_blocks_too_long")
        return self._with_ids(copy.deepcopy(blocks))

    def _with_ids(self, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for block in blocks:
            block.setdefault("block_id", f"b{self.number()}")
            for element in walk(block):
                if element.get("type") == "button" and isinstance(element, dict):
                    element.setdefault("action_id", f"a{self.number()}")
        return blocks

    def writable(self, channel_id: object) -> Channel:
        """The channel that the bot may write to; a person's id means the direct chat.

        Raises:
            Refused: Unknown, archived, or the bot is not in it.
        """
        if channel_id in self.users and channel_id != BOT_USER:
            return self.im(str(channel_id))
        channel = self.visible(channel_id)
        if channel.archived:
            raise Refused("is_archived")
        if BOT_USER not in channel.members:
            raise Refused("not_in_channel")
        return channel

    def visible(self, channel_id: object) -> Channel:
        """The channel, where the bot may know of it.

        Raises:
            Refused: There is none, or it is private and the bot is not in it.
        """
        channel = self.channels.get(str(channel_id))
        if channel is None or (channel.private and BOT_USER not in channel.members):
            raise Refused("channel_not_found")
        return channel

    def thread(self, channel: Channel, thread_ts: object) -> str | None:
        """The thread's ts, checked.

        Raises:
            Refused: No such message, or it is itself a reply.
        """
        if thread_ts in (None, ""):
            return None
        parent = channel.find(thread_ts)
        if parent is None:
            raise Refused("thread_not_found")
        if parent.thread_ts not in (None, parent.ts):
            raise Refused("cannot_reply_to_message")
        return parent.ts

    # Writing

    def post(self, channel: Channel, user: str, content: Content, *, thread_ts: str | None = None, via: str = "api") -> Message:
        """Show a message to all in the channel."""
        message = Message(self.new_ts(), channel.id, user, content.text, content.blocks, thread_ts, via)
        message.pings = content.pings
        channel.messages.append(message)
        self._tell("posted", message)
        return message

    def post_ephemeral(
        self, channel: str, user: str, content: Content, *, thread_ts: str | None = None, via: str = "api"
    ) -> Message:
        """Show a message to one person."""
        message = Message(self.new_ts(), channel, BOT_USER, content.text, content.blocks, thread_ts, via, user)
        message.pings = content.pings
        self.ephemerals.append(message)
        self._tell("ephemeral", message)
        return message

    def edit(self, message: Message, content: Content) -> None:
        """Change what a message says; text without blocks takes the blocks away."""
        message.edits.append(Edit(self.now(), message.text, message.blocks, message.shown()))
        message.text, message.blocks = content.text, content.blocks
        message.pings += content.pings
        self._tell("edited", message)

    def delete(self, message: Message) -> None:
        """Take a message away."""
        message.deleted = True
        if message.ephemeral_to:
            self.ephemerals.remove(message)
        else:
            channel = self.channels[message.channel]
            channel.messages.remove(message)
            channel.deleted.append(message)
        self._tell("deleted", message)

    def _tell(self, what: str, message: Message) -> None:
        for listener in self.on_change:
            listener(what, message)
        self.changed()

    # Answers to commands and presses

    def respond(self, url_id: str, payload: Mapping[str, Any]) -> Response:
        """Take a post to a response_url; what was refused is recorded too."""
        try:
            response = Response(url_id, payload, None, self._respond(url_id, payload))
        except Refused as refused:
            response = Response(url_id, payload, refused.error, None)
        self.responses.append(response)
        self.changed()
        return response

    def _respond(self, url_id: str, payload: Mapping[str, Any]) -> Message | None:
        url = self.response_urls.get(url_id)
        if url is None or self.now() - url.issued_at > RESPONSE_AGE_MAX_S:
            raise Refused("expired_url")
        if url.uses >= RESPONSE_USES_MAX:
            raise Refused("used_url")
        content = self.content(payload, may_be_empty=truth(payload.get("delete_original")))
        url.uses += 1
        return self.answer(url, payload, content)

    def answer(self, url: ResponseUrl, payload: Mapping[str, Any], content: Content, via: str = "response") -> Message | None:
        """Show an app's answer where its command or press came from."""
        if truth(payload.get("delete_original")) and url.message is not None:
            self.delete(url.message)
            return None
        if truth(payload.get("replace_original")) and url.message is not None:
            self.edit(url.message, content)
            return url.message
        thread_ts = payload.get("thread_ts") or None
        if payload.get("response_type") == "in_channel":
            return self.post(self.channels[url.channel], BOT_USER, content, thread_ts=thread_ts, via=via)
        return self.post_ephemeral(url.channel, url.user, content, thread_ts=thread_ts, via=via)


def truth(value: object) -> bool:
    """A boolean of JSON or of a form."""
    return value is True or str(value).lower() in ("1", "true")
