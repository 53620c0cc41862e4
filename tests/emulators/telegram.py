"""A strict Telegram Bot API server on 127.0.0.1 for a real client, with a person's side to drive it.

It refuses what the real server refuses, in the same words, and records what people would have been shown.
The refusals follow https://github.com/tdlib/telegram-bot-api and https://github.com/tdlib/td.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import enum
import inspect
import itertools
import json
import re
import signal
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, Self, TypeAlias, TypeVar, cast

from aiohttp import web

JsonObject: TypeAlias = dict[str, object]
T = TypeVar("T")

TEXT_LIMIT = 4096
CAPTION_LIMIT = 1024
CALLBACK_DATA_LIMIT_BYTES = 64
TOAST_LIMIT = 200
BUTTONS_LIMIT = 100
BUTTONS_IN_ROW_LIMIT = 8
MARKUP_LIMIT_BYTES = 10_240
COMMANDS_LIMIT = 100
PHOTO_LIMIT_BYTES = 10 * 1024 * 1024
LONG_POLL_LIMIT_S = 50
DELETABLE_FOR = timedelta(hours=48)

ANONYMOUS_ADMIN_ID = 1087968824
CHANNEL_SENDER_ID = 136817688

MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same "
    "as a current content and reply markup of the message"
)
STALE_QUERY = "query is too old and response timeout expired or query ID is invalid"
TWO_POLLERS = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
WEBHOOK_SET = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"

ACTIONS = frozenset(
    [
        "typing",
        "upload_photo",
        "record_video",
        "upload_video",
        "record_voice",
        "upload_voice",
        "upload_document",
        "choose_sticker",
        "find_location",
        "record_video_note",
        "upload_video_note",
        "record_audio",
        "upload_audio",
        "cancel",
    ]
)
UPDATE_KINDS = ("message", "callback_query", "my_chat_member")

ChatType: TypeAlias = Literal["private", "group", "supergroup", "channel"]
MemberStatus: TypeAlias = Literal["creator", "administrator", "member", "left", "kicked"]
MessageKind: TypeAlias = Literal["text", "photo", "document"]
Stage: TypeAlias = Literal["before", "taken", "answered"]


class Refused(Exception):  # noqa: N818  # it is an answer of the server, not a failure of this program
    """An API call that the server turns down."""

    def __init__(self, code: int, description: str, parameters: JsonObject | None = None) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    @classmethod
    def bad(cls, reason: str) -> Refused:
        """A 400; the server writes the first letter small unless the reason is a CONSTANT."""
        constant = reason[1:2] == "_" or reason[1:2].isupper()
        return cls(400, f"Bad Request: {reason if constant else reason[:1].lower() + reason[1:]}")


# --- Text ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entity:
    """A formatted range; offset and length count UTF-16 units."""

    type: str
    offset: int
    length: int
    extra: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> JsonObject:
        """The Bot API's MessageEntity."""
        return {"type": self.type, "offset": self.offset, "length": self.length, **dict(self.extra)}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text as people read it, and its formatting."""

    text: str
    entities: tuple[Entity, ...] = ()


def utf16_length(text: str) -> int:
    """How long Telegram takes the text to be."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


_SPACES = " \t\r\n\0\v"
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_REFERENCE = re.compile(r"&(?:#x(?P<hex>[0-9a-fA-F]+)|#(?P<decimal>[0-9]+)|(?P<name>[a-zA-Z]+));?")
_NAME_TOKEN = re.compile(r"[A-Za-z0-9.\-]*")
_TAGS = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "span": "spoiler",
    "tg-spoiler": "spoiler",
    "tg-emoji": "custom_emoji",
    "a": "text_link",
    "pre": "pre",
    "code": "code",
    "blockquote": "blockquote",
}


@dataclass(slots=True)
class _OpenTag:
    name: str
    argument: str
    offset: int
    text_begin: int


class _HtmlParser:
    """Telegram's own reading of HTML: few tags, no forgiveness for `<`, much for `&`."""

    def __init__(self, source: str) -> None:
        self._source = source + "\0"
        self._end = len(source)
        self._at = 0
        self._out: list[str] = []
        self._offset = 0
        self._open: list[_OpenTag] = []
        self._entities: list[Entity] = []

    def parse(self) -> Parsed:
        """Read all of it.

        Raises Refused: "can't parse entities: ..." with the byte offset that the server names.
        """
        while self._at < self._end:
            self._step()
        if self._open:
            raise _unparsable(f'Can\'t find end tag corresponding to start tag "{self._open[-1].name}"')
        ordered = sorted(self._entities, key=lambda entity: (entity.offset, -entity.length))
        return Parsed("".join(self._out), tuple(ordered))

    def _step(self) -> None:
        character = self._source[self._at]
        if character == "<":
            if self._source[self._at + 1] == "/":
                self._end_tag()
            else:
                self._start_tag()
            return
        if character == "&":
            self._write(self._reference())
            return
        self._at += 1
        self._write(character)

    def _write(self, characters: str) -> None:
        self._out.append(characters)
        self._offset += utf16_length(characters)

    def _reference(self) -> str:
        """Decode `&lt;` and its kind; what is none stands for itself, so a bare & is harmless."""
        match = _REFERENCE.match(self._source, self._at)
        decoded = _decoded(match) if match else ""
        if match is None or not decoded:
            self._at += 1
            return "&"
        self._at = match.end()
        return decoded

    def _skip(self, stop: str) -> str:
        """Move to the first character of `stop` or to a space; give what was passed."""
        begin = self._at
        while self._source[self._at] not in stop and self._source[self._at] not in _SPACES:
            self._at += 1
        return self._source[begin : self._at]

    def _skip_spaces(self) -> None:
        while self._at < self._end and self._source[self._at] in _SPACES:
            self._at += 1

    def _byte(self, position: int) -> int:
        return len(self._source[:position].encode("utf-8", "surrogatepass"))

    def _start_tag(self) -> None:
        begin = self._byte(self._at)
        self._at += 1
        name = self._skip(">").lower()
        if self._at >= self._end:
            raise _unparsable(f"Unclosed start tag at byte offset {begin}")
        if name not in _TAGS:
            raise _unparsable(f'Unsupported start tag "{name}" at byte offset {begin}')
        argument = self._attributes(name, begin)
        if name == "span" and argument != "spoiler":
            raise _unparsable(f'Tag "span" must have class "tg-spoiler" at byte offset {begin}')
        self._at += 1
        self._open.append(_OpenTag(name, argument, self._offset, len(self._out)))

    def _attributes(self, tag: str, begin: int) -> str:
        argument = ""
        while True:
            self._skip_spaces()
            if self._source[self._at] == ">":
                return argument
            name = self._skip("=>/\"'")
            if not name:
                raise _unparsable(f'Empty attribute name in the tag "{tag}" at byte offset {begin}')
            self._skip_spaces()
            if self._at >= self._end:
                raise _unparsable(f'Unclosed start tag "{tag}" at byte offset {begin}')
            value = self._attribute_value(tag, begin) if self._source[self._at] == "=" else ""
            argument = _argument(tag, name, value) or argument

    def _attribute_value(self, tag: str, begin: int) -> str:
        self._at += 1
        self._skip_spaces()
        if self._at >= self._end:
            raise _unparsable(f'Unclosed start tag "{tag}" at byte offset {begin}')
        quoted = self._source[self._at] in "'\""
        value = self._quoted() if quoted else self._name_token()
        if self._at >= self._end:
            raise _unparsable(f"Unclosed start tag at byte offset {begin}")
        return value

    def _name_token(self) -> str:
        match = _NAME_TOKEN.match(self._source, self._at)
        token = match.group() if match else ""
        begin = self._byte(self._at)
        self._at += len(token)
        if self._source[self._at] not in _SPACES + ">":
            raise _unparsable(f"Unexpected end of name token at byte offset {begin}")
        return token.lower()

    def _quoted(self) -> str:
        quote = self._source[self._at]
        self._at += 1
        value: list[str] = []
        while self._at < self._end and self._source[self._at] != quote:
            if self._source[self._at] == "&":
                value.append(self._reference())
                continue
            value.append(self._source[self._at])
            self._at += 1
        if self._at < self._end:
            self._at += 1
        return "".join(value)

    def _end_tag(self) -> None:
        begin = self._byte(self._at)
        if not self._open:
            raise _unparsable(f"Unexpected end tag at byte offset {begin}")
        self._at += 2
        name = self._skip(">").lower()
        self._skip_spaces()
        if self._source[self._at] != ">":
            raise _unparsable(f"Unclosed end tag at byte offset {begin}")
        self._at += 1
        opened = self._open.pop()
        if name and name != opened.name:
            raise _unparsable(f'Unmatched end tag at byte offset {begin}, expected "</{opened.name}>", found "</{name}>"')
        if self._offset > opened.offset:
            self._close(opened)

    def _close(self, tag: _OpenTag) -> None:
        length = self._offset - tag.offset
        if tag.name == "a":
            self._close_link(tag, length)
            return
        if tag.name == "tg-emoji" and not (tag.argument.isdigit() and int(tag.argument)):
            raise _unparsable("Invalid custom emoji identifier specified")
        self._entities.append(_entity(tag, length))
        self._merge_code()

    def _close_link(self, tag: _OpenTag, length: int) -> None:
        url = tag.argument or "".join(self._out[tag.text_begin :])
        # The server drops what is no link, and says nothing.
        if re.match(r"(?i)(https?|tg|ton)://\S+|[\w-]+(\.[\w-]+)+", url):
            self._entities.append(Entity("text_link", tag.offset, length, (("url", url),)))

    def _merge_code(self) -> None:
        """`<pre><code class="language-x">` is one entity."""
        if len(self._entities) < 2:
            return
        first, last = self._entities[-2:]
        same = (first.offset, first.length) == (last.offset, last.length)
        language = first.extra or last.extra
        if same and {first.type, last.type} == {"pre", "code"} and language:
            self._entities[-2:] = [Entity("pre", last.offset, last.length, language)]


def _unparsable(reason: str) -> Refused:
    return Refused(400, f"Bad Request: can't parse entities: {reason}")


def _decoded(match: re.Match[str]) -> str:
    if name := match["name"]:
        return _NAMED.get(name, "")
    code = int(match["hex"], 16) if match["hex"] else int(match["decimal"])
    body = match.group().removesuffix(";")
    if code == 0 or code >= 0x10FFFF or len(body) >= 10:  # the server's own bounds
        return ""
    if 0xD800 <= code <= 0xDFFF:  # half of a surrogate pair
        raise _unparsable(
            "Text contains invalid Unicode characters after decoding HTML entities, check for unmatched surrogate code units"
        )
    return chr(code)


def _argument(tag: str, name: str, value: str) -> str:
    match tag, name:
        case ("a", "href") | ("tg-emoji", "emoji-id"):
            return value
        case ("code", "class") if value.startswith("language-"):
            return value.removeprefix("language-")
        case ("span", "class") if value.startswith("tg-"):
            return value.removeprefix("tg-")
        case ("blockquote", "expandable"):
            return "expandable"
        case _:
            return ""


def _entity(tag: _OpenTag, length: int) -> Entity:
    kind = _TAGS[tag.name]
    if tag.name == "code" and tag.argument:
        return Entity(kind, tag.offset, length, (("language", tag.argument),))
    if tag.name == "tg-emoji":
        return Entity(kind, tag.offset, length, (("custom_emoji_id", tag.argument),))
    if tag.name == "blockquote" and tag.argument:
        kind = "expandable_blockquote"
    return Entity(kind, tag.offset, length)


def parse_html(source: str) -> Parsed:
    """Read HTML as Telegram does; raises Refused with the server's words when it would refuse."""
    return _HtmlParser(source).parse()


_INVISIBLE = {code: " " for code in range(32) if code not in {10, 13}}
_INVISIBLE |= dict.fromkeys([13, *range(0x2028, 0x202F)], "")
_CONTROL = re.compile("[" + "".join(re.escape(chr(code)) for code in _INVISIBLE) + "]")


def _trimmed(parsed: Parsed) -> Parsed:
    """Cut what Telegram cuts: control characters, spaces at the end and, before any formatting, at the start."""
    if _CONTROL.search(parsed.text):
        parsed = Parsed(parsed.text.translate(_INVISIBLE), parsed.entities)
    text = parsed.text.rstrip(" \n")
    first = min((entity.offset for entity in parsed.entities), default=len(text))
    cut = min(len(text) - len(text.lstrip(" \n")), first)
    end = utf16_length(text) - cut
    moved = (dataclasses.replace(entity, offset=entity.offset - cut) for entity in parsed.entities)
    kept = (
        dataclasses.replace(entity, length=min(entity.length, end - entity.offset)) for entity in moved if entity.offset < end
    )
    return Parsed(text[cut:], tuple(kept))


# --- What is sent ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came in a multipart request."""

    name: str
    content: bytes = field(repr=False)


class Params:
    """The arguments of one call, wherever they stood: query, form, multipart or JSON."""

    def __init__(self, values: Mapping[str, object], uploads: Mapping[str, Upload] | None = None) -> None:
        self.values = {name: value for name, value in values.items() if value is not None}
        self.uploads = dict(uploads or {})

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def text(self, name: str) -> str:
        """The argument as text; empty when it is missing."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else json.dumps(value)

    def integer(self, name: str, default: int = 0) -> int:
        """The argument as a number; the server takes what is none for the default."""
        try:
            return int(self.text(name))
        except ValueError:
            return default

    def flag(self, name: str) -> bool:
        """The argument as yes or no."""
        return self.text(name).lower() in {"true", "1", "yes", "y"}

    def json(self, name: str, mistake: str) -> object:
        """The argument as JSON, also where it came as text; None when it is missing."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            return value or None
        try:
            return cast("object", json.loads(value))
        except ValueError as error:
            raise Refused.bad(mistake) from error

    def upload(self, name: str) -> Upload | None:
        """The file given directly or as `attach://part`."""
        part = self.text(name).removeprefix("attach://")
        return self.uploads.get(name) or self.uploads.get(part)


@dataclass(frozen=True, slots=True)
class Button:
    """One button of an inline keyboard."""

    label: str
    data: str | None = None
    style: str | None = None
    url: str | None = None
    disabled: bool = False

    def as_json(self) -> JsonObject:
        """The Bot API's InlineKeyboardButton."""
        fields: JsonObject = {"text": self.label}
        if self.data is not None:
            fields["callback_data"] = self.data
        if self.url is not None:
            fields["url"] = self.url
        if self.style is not None:
            fields["style"] = self.style
        if self.disabled:
            fields["disabled"] = {}
        return fields


Keyboard: TypeAlias = tuple[tuple[Button, ...], ...]


def _keyboard(params: Params) -> Keyboard:
    """The inline keyboard of a call; raises Refused where the server would."""
    markup = params.json("reply_markup", "Can't parse reply keyboard markup JSON object")
    if markup is None:
        return ()
    if not isinstance(markup, dict):
        raise Refused.bad("Object expected as reply markup")
    rows = markup.get("inline_keyboard")
    if rows is None:
        raise Refused.bad("Inline keyboard expected")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise Refused.bad('Field "inline_keyboard" must be of type Array')
    keyboard = tuple(tuple(_button(button) for button in row) for row in rows)
    _check_keyboard(keyboard, len(json.dumps(markup, ensure_ascii=False).encode()))
    # The server leaves rows with nothing in them out.
    return tuple(row for row in keyboard if row)


def _check_keyboard(keyboard: Keyboard, size_bytes: int) -> None:
    for button in itertools.chain.from_iterable(keyboard):
        if button.data is not None and len(button.data.encode()) > CALLBACK_DATA_LIMIT_BYTES:
            raise Refused.bad("BUTTON_DATA_INVALID")
    count = sum(map(len, keyboard))
    widest = max(map(len, keyboard), default=0)
    if count > BUTTONS_LIMIT or widest > BUTTONS_IN_ROW_LIMIT or size_bytes > MARKUP_LIMIT_BYTES:
        raise Refused.bad("reply markup is too long")


def _button(button: object) -> Button:
    mistake = "Can't parse inline keyboard button: "
    if not isinstance(button, dict):
        raise Refused.bad(mistake + "InlineKeyboardButton must be an Object")
    label = button.get("text")
    if not isinstance(label, str):
        raise Refused.bad(mistake + 'Can\'t find field "text"')
    if not label.strip():
        raise Refused.bad("BUTTON_TEXT_INVALID")
    style = button.get("style") or None
    if style not in {None, "danger", "success", "primary"}:
        raise Refused.bad(mistake + "Invalid button style specified")
    data, url = button.get("callback_data") or None, button.get("url") or None
    disabled = button.get("disabled") is not None
    if data is None and url is None and not disabled:
        raise Refused.bad(mistake + "Text buttons are unallowed in the inline keyboard")
    return Button(label, data, style, url, disabled)


def _formatted(params: Params, name: str, entities: str) -> Parsed:
    """A text argument as people will read it."""
    source = params.text(name)
    mode = params.text("parse_mode").lower()
    if mode == "html":
        return _trimmed(parse_html(source))
    # Markdown is refused on purpose: nobody should send hostile names through it.
    if mode not in {"", "none"}:
        raise Refused.bad("Unsupported parse_mode")
    given = params.json(entities, "Can't parse entities JSON object")
    listed = given if isinstance(given, list) else []
    return _trimmed(Parsed(source, tuple(_given_entity(entity) for entity in listed)))


def _given_entity(entity: object) -> Entity:
    if not isinstance(entity, dict):
        raise _unparsable("Expected an Object")
    kind, offset, length = entity.get("type"), entity.get("offset"), entity.get("length")
    if not (isinstance(kind, str) and isinstance(offset, int) and isinstance(length, int)):
        raise _unparsable("Invalid entity specified")
    extra = tuple((key, entity[key]) for key in ("url", "language", "custom_emoji_id") if entity.get(key))
    return Entity(kind, offset, length, extra)


def _message_text(params: Params, too_long: str) -> Parsed:
    if not params.text("text"):
        raise Refused.bad("Message text is empty")
    parsed = _formatted(params, "text", "entities")
    if not parsed.text:
        raise Refused.bad("Text must be non-empty")
    if utf16_length(parsed.text) > TEXT_LIMIT:
        raise Refused.bad(too_long)
    return parsed


def _caption(params: Params) -> Parsed:
    parsed = _formatted(params, "caption", "caption_entities")
    if utf16_length(parsed.text) > CAPTION_LIMIT:
        raise Refused.bad("Message caption is too long")
    return parsed


def _picture_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG; a JPEG is taken on trust, what is neither is refused."""
    if content.startswith(b"\xff\xd8\xff"):
        return 800, 400
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 24:  # up to IHDR's sizes
        raise Refused.bad("IMAGE_PROCESS_FAILED")
    width, height = struct.unpack(">II", content[16:24])
    if width + height > 10_000 or max(width, height) > 20 * min(width, height):
        raise Refused.bad("PHOTO_INVALID_DIMENSIONS")
    return width, height


# --- What is recorded ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Person:
    """A user of Telegram, or a bot."""

    id: int
    name: str
    username: str | None = None
    language_code: str | None = None
    is_bot: bool = False

    def as_json(self) -> JsonObject:
        """The Bot API's User."""
        fields: JsonObject = {"id": self.id, "is_bot": self.is_bot, "first_name": self.name}
        if self.username:
            fields["username"] = self.username
        if self.language_code:
            fields["language_code"] = self.language_code
        return fields


@dataclass(frozen=True, slots=True)
class Face:
    """What a message looks like between two edits."""

    text: str
    source: str
    entities: tuple[Entity, ...]
    buttons: Keyboard


@dataclass(slots=True)
class Message:
    """A message as people see it now, and what it was before."""

    id: int
    chat_id: int
    date: datetime
    sender: Person
    face: Face
    kind: MessageKind = "text"
    thread_id: int | None = None
    silent: bool = False
    reply_to: int | None = None
    call_n: int = 0
    file_name: str | None = None
    file_bytes: int = 0
    deleted: bool = False
    edited_at: datetime | None = None
    edits: list[Face] = field(default_factory=list)
    extra: JsonObject = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The plain text, or caption, shown now."""
        return self.face.text

    @property
    def html(self) -> str:
        """The source of what is shown now, as the bot sent it."""
        return self.face.source

    @property
    def buttons(self) -> list[list[tuple[str, str | None, str | None]]]:
        """Rows of (label, callback data, style)."""
        return [[(button.label, button.data, button.style) for button in row] for row in self.face.buttons]

    @property
    def labels(self) -> list[str]:
        """The labels of all buttons, row by row."""
        return [button.label for row in self.face.buttons for button in row]

    @property
    def texts(self) -> list[str]:
        """Every text that it has shown, first to last."""
        return [face.text for face in (*self.edits, self.face)]


@dataclass(slots=True)
class Chat:
    """A place where the bot and people talk."""

    id: int
    type: ChatType
    title: str = ""
    person: Person | None = None
    is_forum: bool = False
    bot_status: MemberStatus = "member"
    migrated_to: int | None = None
    members: dict[int, MemberStatus] = field(default_factory=dict)
    topics: dict[int, Literal["open", "closed"]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    """The bot's messages, deleted ones too."""
    said: list[Message] = field(default_factory=list)
    """Other people's messages."""
    actions: list[str] = field(default_factory=list)
    last_id: int = 0
    bot_spoke_last: bool = False

    def as_json(self) -> JsonObject:
        """The Bot API's Chat."""
        fields: JsonObject = {"id": self.id, "type": self.type}
        if self.person is not None:
            fields["first_name"] = self.person.name
            if self.person.username:
                fields["username"] = self.person.username
        else:
            fields["title"] = self.title
        if self.is_forum:
            fields["is_forum"] = True
        return fields

    def find(self, message_id: int) -> Message | None:
        """The message with this id, unless it was deleted."""
        every = itertools.chain(self.messages, self.said)
        return next((m for m in every if m.id == message_id and not m.deleted), None)

    def next_id(self) -> int:
        """The id for one more message."""
        self.last_id += 1
        return self.last_id


@dataclass(slots=True)
class Query:
    """A press of a button, and what became of it."""

    id: str
    person: Person
    chat_id: int
    message_id: int
    data: str
    pressed_at: datetime
    expired: bool = False
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Toast:
    """The bot's answer to a press: a short text, or none; as an alert it must be closed by hand."""

    query_id: str
    person_id: int
    text: str
    alert: bool


@dataclass(slots=True)
class Call:
    """One call of the API; polls are counted apart, so that `n` does not depend on the clock."""

    n: int
    method: str
    params: JsonObject
    at: datetime
    outcome: str = "pending"
    """`ok`, the description of the refusal, or `fault: KIND`."""
    taken: bool = False

    @property
    def is_poll(self) -> bool:
        """Whether it is a getUpdates."""
        return self.method == "getUpdates"


@dataclass(frozen=True, slots=True)
class Update:
    """What happened in a chat, on its way to the bot."""

    id: int
    kind: str
    payload: JsonObject

    def as_json(self) -> JsonObject:
        """The Bot API's Update."""
        return {"update_id": self.id, self.kind: self.payload}


# --- Faults ----------------------------------------------------------------------------------------------------------


class FaultKind(enum.StrEnum):
    """What goes wrong with a call; "taken" means that people see its effect."""

    RATE_LIMIT = "rate-limit"
    """429 with retry_after; not taken."""
    SERVER_ERROR = "server-error"
    """5xx; not taken."""
    SERVER_ERROR_AFTER = "server-error-after"
    """5xx although it was taken."""
    CUT_BEFORE = "cut-before"
    """The connection breaks; not taken."""
    CUT_AFTER = "cut-after"
    """Taken, then the connection breaks: the answer is lost."""
    DELAY = "delay"
    """Taken late."""
    DELAY_AFTER = "delay-after"
    """Taken at once, answered late."""
    GARBAGE = "garbage"
    """Taken; the answer is no JSON."""


@dataclass(slots=True)
class Fault:
    """A planned fault: which calls it meets, and how many of them."""

    when: int | Callable[[Call], bool]
    kind: FaultKind
    times: int = 1
    retry_after_s: int = 1
    status: int = 502
    delay_s: float = 0.0
    body: str = "<html><body>Bad Gateway</body></html>"

    def meets(self, call: Call) -> bool:
        """Whether this call is the one."""
        if self.times <= 0:
            return False
        if isinstance(self.when, int):
            return not call.is_poll and call.n == self.when
        return self.when(call)


class Faults:
    """The faults that wait for their call."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []

    def on(
        self,
        when: int | Callable[[Call], bool],
        kind: FaultKind,
        *,
        times: int = 1,
        retry_after_s: int = 1,
        status: int = 502,
        delay_s: float = 0.0,
    ) -> Fault:
        """Plan a fault for call number `when` (polls are not counted), or for calls that a predicate picks."""
        fault = Fault(when, kind, times, retry_after_s, status, delay_s)
        self._planned.append(fault)
        return fault

    def on_method(self, method: str, kind: FaultKind, *, times: int = 1, delay_s: float = 0.0) -> Fault:
        """Plan a fault for the next calls of one method."""
        return self.on(lambda call: call.method == method, kind, times=times, delay_s=delay_s)

    def clear(self) -> None:
        """Plan nothing any more."""
        self._planned.clear()

    def take(self, call: Call) -> Fault | None:
        """The fault for this call, used up once."""
        fault = next((fault for fault in self._planned if fault.meets(call)), None)
        if fault is not None:
            fault.times -= 1
        return fault


Hook: TypeAlias = Callable[[Call], Awaitable[None] | None]


class Hold:
    """A call stopped at one stage until it is let go: the moment to kill a bot in."""

    def __init__(self, n: int, stage: Stage) -> None:
        self.n = n
        self.stage = stage
        self._reached = asyncio.Event()
        self._released = asyncio.Event()
        self._is_void = False

    @property
    def is_reached(self) -> bool:
        """Whether the call stands there."""
        return self._reached.is_set()

    async def reached(self, timeout_s: float = 10.0) -> None:
        """Wait for the call; raises TimeoutError."""
        await asyncio.wait_for(self._reached.wait(), timeout_s)

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()

    def drop(self) -> None:
        """The call never arrived: who made it is dead. Without this it would be done when the test ends, long after."""
        self._is_void = True
        self._released.set()

    async def stop_here(self) -> None:
        """The call's side: tell that it is here, wait to be let go."""
        self._reached.set()
        await self._released.wait()
        if self._is_void:
            raise _CutError


class _CutError(Exception):
    """The connection is to break here."""


# --- The server ------------------------------------------------------------------------------------------------------


class TelegramEmulator:
    """Telegram on a local port: `async with TelegramEmulator() as telegram:`, then point the client at `base_url`.

    All times are UTC and come from `clock`. Nothing here is safe to call from another thread.
    """

    def __init__(
        self,
        *,
        token: str = "42:TEST-token",  # nobody's
        username: str = "memwarden_bot",
        port: int = 0,
        can_read_all_group_messages: bool = True,
        query_lifetime: timedelta = timedelta(seconds=15),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.token = token
        self.port = port
        self.bot = Person(int(token.partition(":")[0]), "memwarden", username, is_bot=True)
        self.can_read_all_group_messages = can_read_all_group_messages
        self.query_lifetime = query_lifetime
        self.clock = clock
        self.people: dict[int, Person] = {self.bot.id: self.bot}
        self.chats: dict[int, Chat] = {}
        self.queries: dict[str, Query] = {}
        self.toasts: list[Toast] = []
        self.calls: list[Call] = []
        self.commands: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.webhook_url = ""
        self.faults = Faults()
        self.before: Hook | None = None
        self.taken: Hook | None = None
        self.answered: Hook | None = None
        self._holds: list[Hold] = []
        self._update_ids = itertools.count(700_001)
        self._query_ids = itertools.count(9_000_000_001)
        self._channel_ids = itertools.count(1)
        self._queue: deque[Update] = deque()
        self._sent_updates: dict[int, Update] = {}
        self._again: deque[Update] = deque()
        self._allowed: frozenset[str] = frozenset(UPDATE_KINDS)
        self._poll_generation = 0
        self._polls_waiting = 0
        self._call_counts = {False: 0, True: 0}
        self._changed = asyncio.Event()
        self._taking_n = 0
        self._closing = False
        self._runner: web.AppRunner | None = None
        self._serving: set[asyncio.Task[web.StreamResponse]] = set()
        self._methods: dict[str, Callable[[Params], object]] = {
            method.lower(): answer for method, answer in self._answers().items()
        }
        self._spelling = {method.lower(): method for method in (*self._answers(), "getUpdates")}

    def _answers(self) -> dict[str, Callable[[Params], object]]:
        return {
            "getMe": self._get_me,
            "deleteWebhook": self._delete_webhook,
            "getWebhookInfo": self._get_webhook_info,
            "setMyCommands": self._set_my_commands,
            "sendMessage": self._send_message,
            "editMessageText": self._edit_message_text,
            "editMessageCaption": self._edit_message_caption,
            "editMessageReplyMarkup": self._edit_message_reply_markup,
            "deleteMessage": self._delete_message,
            "answerCallbackQuery": self._answer_callback_query,
            "sendChatAction": self._send_chat_action,
            "getChat": self._get_chat,
            "getChatMember": self._get_chat_member,
            "getChatAdministrators": self._get_chat_administrators,
            "sendPhoto": self._send_photo,
            "sendDocument": self._send_document,
        }

    # Start and stop

    @property
    def base_url(self) -> str:
        """What `TelegramAPIServer.from_base` wants."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after a stop on the same port again."""
        self._closing = False
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/bot{token}/{method}", self._handle)
        app.router.add_route("*", "/{rest:.*}", _nowhere)
        # A poll of a killed bot must end with its connection.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = cast("int", self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and end what is under way; chats and queued updates stay."""
        self._closing = True
        self._notify()
        for task in tuple(self._serving):
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # People and chats

    def add_person(
        self,
        person_id: int,
        name: str,
        *,
        username: str | None = None,
        language_code: str | None = None,
    ) -> Person:
        """Make a person known; their private chat opens when they first say something there."""
        person = Person(person_id, name, username, language_code)
        self.people[person_id] = person
        return person

    def open_private_chat(self, person: Person) -> Chat:
        """The private chat of this person, as after /start."""
        self.people.setdefault(person.id, person)
        return self.chats.setdefault(person.id, Chat(person.id, "private", person=person))

    def add_group(
        self,
        chat_id: int,
        title: str = "ops",
        *,
        kind: ChatType | None = None,
        topics: Iterable[int] = (),
        bot_status: MemberStatus = "member",
        members: Iterable[Person] = (),
    ) -> Chat:
        """Make a group with the bot in it; ids below -1000000000000 are supergroups. With topics it is a forum."""
        found: ChatType = kind or ("supergroup" if chat_id < -1_000_000_000_000 else "group")
        chat = Chat(chat_id, found, title, bot_status=bot_status)
        chat.topics = dict.fromkeys(topics, "open")
        chat.is_forum = bool(chat.topics)
        for person in members:
            self.people.setdefault(person.id, person)
            chat.members[person.id] = "member"
        self.chats[chat_id] = chat
        return chat

    def close_topic(self, chat: int | Chat, thread: int) -> None:
        """Close a forum topic: the bot may not write there any more."""
        self._chat(chat).topics[thread] = "closed"

    def delete_topic(self, chat: int | Chat, thread: int) -> None:
        """Delete a forum topic."""
        del self._chat(chat).topics[thread]

    def set_bot_status(self, chat: int | Chat, status: MemberStatus, by: Person) -> int | None:
        """Make the bot an admin, kick it, let it back in (a private chat: `kicked` blocks it); gives the update's id."""
        chat = self._chat(chat)
        old, chat.bot_status = chat.bot_status, status
        return self._enqueue(
            "my_chat_member",
            {
                "chat": chat.as_json(),
                "from": by.as_json(),
                "date": _unix(self.clock()),
                "old_chat_member": self._member(self.bot, old),
                "new_chat_member": self._member(self.bot, status),
            },
        )

    def migrate(self, chat: int | Chat, new_id: int) -> Chat:
        """Turn a group into a supergroup, with both service messages."""
        old = self._chat(chat)
        new = self.add_group(new_id, old.title, kind="supergroup", bot_status=old.bot_status)
        new.members = dict(old.members)
        old.migrated_to = new_id
        author = self.people[next(iter(old.members), self.bot.id)]
        self._hear(old, author, "", None, {"migrate_to_chat_id": new_id})
        self._hear(new, author, "", None, {"migrate_from_chat_id": old.id})
        return new

    # What people do

    def say(
        self,
        chat: int | Chat,
        person: Person,
        text: str,
        *,
        as_anonymous_admin: bool = False,
        as_channel: bool = False,
        forwarded: bool = False,
        thread: int | None = None,
        reply_to: int | None = None,
        date: datetime | None = None,
    ) -> int | None:
        """Write a message; gives the update's id, None when the bot is not told (privacy mode, kinds not asked for)."""
        if isinstance(chat, int) and chat == person.id:
            self.open_private_chat(person)
        place = self._chat(chat)
        self.people.setdefault(person.id, person)
        if place.type != "private":
            place.members.setdefault(person.id, "member")
        sender, extra = person, cast("JsonObject", {})
        if as_anonymous_admin:
            sender = Person(ANONYMOUS_ADMIN_ID, "Group", "GroupAnonymousBot", is_bot=True)
            extra["sender_chat"] = place.as_json()
        if as_channel:
            sender = Person(CHANNEL_SENDER_ID, "Channel", "Channel_Bot", is_bot=True)
            extra["sender_chat"] = {"id": -1_009_000_000_001, "type": "channel", "title": "News"}
        if forwarded:
            origin = Person(5_000_001, "Somebody else")
            extra["forward_origin"] = {"type": "user", "date": _unix(self.clock()), "sender_user": origin.as_json()}
        return self._hear(place, sender, text, thread, extra, reply_to=reply_to, date=date)

    def press(
        self,
        message: Message,
        label_or_data: str,
        person: Person,
        *,
        stale: bool = False,
        inaccessible: bool = False,
    ) -> str:
        """Press a button found by its data or label; gives the query's id.

        `stale` also finds buttons that the message has lost since (an old view on a phone); `inaccessible` sends the
        message without its content, as for old ones. Raises LookupError when there is no such button.
        """
        data = self._pressable(message, label_or_data, stale=stale)
        chat = self.chats[message.chat_id]
        self.people.setdefault(person.id, person)
        query = Query(str(next(self._query_ids)), person, chat.id, message.id, data, self.clock())
        self.queries[query.id] = query
        hidden: JsonObject = {"chat": chat.as_json(), "message_id": message.id, "date": 0}
        self._enqueue(
            "callback_query",
            {
                "id": query.id,
                "from": person.as_json(),
                "message": hidden if inaccessible else self._message(chat, message),
                "chat_instance": f"{chat.id}",
                "data": data,
            },
        )
        return query.id

    @staticmethod
    def _pressable(message: Message, label_or_data: str, *, stale: bool) -> str:
        faces = [message.face, *reversed(message.edits)] if stale else [message.face]
        buttons = [button for face in faces for row in face.buttons for button in row]
        alive = [button for button in buttons if button.data is not None and not button.disabled]
        if not message.deleted or stale:
            for button in itertools.chain(
                (button for button in alive if button.data == label_or_data),
                (button for button in alive if button.label == label_or_data),
            ):
                return cast("str", button.data)
        offered = [(button.label, button.data) for button in buttons]
        raise LookupError(f"no button {label_or_data!r} on message {message.id}: {offered}")

    def expire_query(self, query_id: str) -> None:
        """Make a press too old to be answered."""
        self.queries[query_id].expired = True

    def redeliver(self, update_id: int) -> None:
        """Give the bot an update once more, though it has confirmed it."""
        self._again.append(self._sent_updates[update_id])
        self._notify()

    # What people see

    def shown(self, chat: int | Chat) -> list[Message]:
        """The bot's messages that stand in the chat now, oldest first."""
        return [message for message in self._chat(chat).messages if not message.deleted]

    def last(self, chat: int | Chat) -> Message:
        """The newest message of the bot in the chat; raises LookupError when there is none."""
        shown = self.shown(chat)
        if not shown:
            raise LookupError(f"the bot shows nothing in {self._chat(chat).id}")
        return shown[-1]

    def toasts_of(self, query_id: str) -> list[Toast]:
        """The answers to one press."""
        return [toast for toast in self.toasts if toast.query_id == query_id]

    @property
    def send_count(self) -> int:
        """How many messages were shown, in all chats; lost answers count."""
        return sum(len(chat.messages) for chat in self.chats.values())

    @property
    def edit_count(self) -> int:
        """How many edits were shown."""
        return sum(len(message.edits) for chat in self.chats.values() for message in chat.messages)

    @property
    def unconfirmed(self) -> list[int]:
        """Ids of the updates that the bot has not confirmed."""
        return [update.id for update in self._queue]

    @property
    def is_polled(self) -> bool:
        """Whether a bot waits in getUpdates now."""
        return self._polls_waiting > 0

    def calls_of(self, method: str) -> list[Call]:
        """The calls of one method, in order."""
        return [call for call in self.calls if call.method == method]

    def hold(self, n: int, stage: Stage) -> Hold:
        """Stop call number n at a stage until the hold is released."""
        hold = Hold(n, stage)
        self._holds.append(hold)
        return hold

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 5.0) -> T:
        """Wait until something makes the predicate true (seconds); gives its value. Raises TimeoutError with what is shown."""
        try:
            async with asyncio.timeout(timeout):
                while not (value := predicate()):
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not within {timeout} s; {self._summary()}") from None
        return value

    def _summary(self) -> str:
        shown = {chat.id: [(m.text, m.labels) for m in self.shown(chat)] for chat in self.chats.values()}
        calls = [(call.n, call.method, call.outcome) for call in self.calls if not call.is_poll][-10:]
        return f"shown: {shown}; toasts: {self.toasts[-5:]}; last calls: {calls}"

    def _notify(self) -> None:
        """Wake all who wait for a change; each takes the new event on its next turn."""
        self._changed.set()
        self._changed = asyncio.Event()

    # Updates

    def _hear(
        self,
        chat: Chat,
        sender: Person,
        text: str,
        thread: int | None,
        extra: JsonObject,
        *,
        reply_to: int | None = None,
        date: datetime | None = None,
    ) -> int | None:
        message = Message(
            chat.next_id(),
            chat.id,
            date or self.clock(),
            sender,
            Face(text, text, (), ()),
            thread_id=thread,
            reply_to=reply_to,
            extra=extra,
        )
        told = self._bot_hears(chat, message)
        chat.said.append(message)
        chat.bot_spoke_last = False
        self._notify()
        return self._enqueue("message", self._message(chat, message)) if told else None

    def _bot_hears(self, chat: Chat, message: Message) -> bool:
        """Privacy mode, https://core.telegram.org/bots/features#privacy-mode."""
        if chat.bot_status in {"left", "kicked"}:
            return False
        open_to_bot = chat.type == "private" or chat.bot_status in {"administrator", "creator"}
        if open_to_bot or self.can_read_all_group_messages or not message.text:
            return True
        if any(own.id == message.reply_to for own in chat.messages):
            return True
        command = message.text.split(maxsplit=1)[0].lower()
        if not command.startswith("/"):
            return False
        _, at, name = command.partition("@")
        return name == (self.bot.username or "").lower() if at else chat.bot_spoke_last

    def _enqueue(self, kind: str, payload: JsonObject) -> int | None:
        if kind not in self._allowed:
            return None
        update = Update(next(self._update_ids), kind, payload)
        self._sent_updates[update.id] = update
        self._queue.append(update)
        self._notify()
        return update.id

    async def _poll(self, params: Params) -> object:
        if self.webhook_url:
            raise Refused(409, WEBHOOK_SET)
        self._allow(params)
        offset = self._confirm(params.integer("offset"))
        limit = params.integer("limit", 100)
        timeout_s = min(params.integer("timeout"), LONG_POLL_LIMIT_S)
        self._poll_generation += 1
        mine = self._poll_generation
        waits = timeout_s > 0
        self._polls_waiting += waits
        self._notify()
        try:
            async with asyncio.timeout(timeout_s):
                while not (self._again or self._queue or self._closing):
                    await self._changed.wait()
                    if mine != self._poll_generation:
                        raise Refused(409, TWO_POLLERS)
        except TimeoutError:
            return []
        finally:
            self._polls_waiting -= waits
        return self._batch(offset, min(max(limit, 1), 100))

    def _allow(self, params: Params) -> None:
        kinds = params.json("allowed_updates", "can't parse allowed updates")
        if isinstance(kinds, list):
            self._allowed = frozenset(map(str, kinds)) if kinds else frozenset(UPDATE_KINDS)

    def _confirm(self, offset: int) -> int:
        """Forget what the bot has had; a negative offset keeps that many of the newest."""
        if offset < 0:
            while len(self._queue) > -offset:
                self._queue.popleft()
        while self._queue and self._queue[0].id < offset:
            self._queue.popleft()
        return offset

    def _batch(self, offset: int, limit: int) -> list[JsonObject]:
        # Repeated ones stand first: the client takes its offset from the last.
        again = [self._again.popleft() for _ in range(min(limit, len(self._again)))]
        fresh = [update for update in self._queue if update.id >= offset]
        return [update.as_json() for update in (*again, *fresh)][:limit]

    # HTTP

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            params = await _read(request)
            method = self._route(request)
        except Refused as refused:
            return _refusal(refused)
        call = self._record(method, params)
        task = asyncio.create_task(self._serve(request, call, params))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # What has arrived is done even if the client goes away; only a poll has nothing left to do then.
        return await (task if call.is_poll else asyncio.shield(task))

    def _route(self, request: web.Request) -> str:
        if request.match_info["token"] != self.token:
            malformed = not re.fullmatch(r"[1-9]\d*:[^/]{1,79}", request.match_info["token"])
            raise Refused(401, "Unauthorized: invalid token specified" if malformed else "Unauthorized")
        method = self._spelling.get(request.match_info["method"].lower())
        if method is None:
            raise Refused(404, "Not Found: method not found")
        return method

    def _record(self, method: str, params: Params) -> Call:
        is_poll = method == "getUpdates"
        self._call_counts[is_poll] += 1
        given: JsonObject = {**params.values, **params.uploads}
        call = Call(self._call_counts[is_poll], method, given, self.clock())
        self.calls.append(call)
        self._notify()
        return call

    async def _serve(self, request: web.Request, call: Call, params: Params) -> web.StreamResponse:
        try:
            response = await self._answer(call, params)
        except _CutError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        finally:
            self._notify()
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await response.write_eof()
            await self._reach("answered", call)
        self._notify()
        return response

    async def _answer(self, call: Call, params: Params) -> web.Response:
        fault = self.faults.take(call)
        await self._reach("before", call)
        if fault is not None and (refused := await _fault_before(fault, call)):
            return refused
        try:
            result = await self._take(call, params)
        except Refused as refused:
            call.outcome = refused.description
            return _refusal(refused)
        call.outcome, call.taken = "ok", True
        self._notify()
        await self._reach("taken", call)
        if fault is not None and (spoilt := await _fault_after(fault, call)):
            return spoilt
        return _json({"ok": True, "result": result})

    async def _take(self, call: Call, params: Params) -> object:
        if call.is_poll:
            return await self._poll(params)
        self._taking_n = call.n
        return self._methods[call.method.lower()](params)

    async def _reach(self, stage: Stage, call: Call) -> None:
        hooks: dict[Stage, Hook | None] = {"before": self.before, "taken": self.taken, "answered": self.answered}
        hook = hooks[stage]
        if hook is not None:
            pending = hook(call)
            if inspect.isawaitable(pending):
                await pending
        held = next((h for h in self._holds if (h.n, h.stage) == (call.n, stage)), None)
        if held is not None and not call.is_poll:
            self._holds.remove(held)
            await held.stop_here()

    # Access

    def _chat(self, chat: int | Chat) -> Chat:
        return chat if isinstance(chat, Chat) else self.chats[chat]

    def _asked_chat(self, params: Params, need: Literal["read", "edit", "write"]) -> Chat:
        """The chat of a call, if the bot may do this there."""
        if not params.text("chat_id"):
            raise Refused.bad("chat_id is empty")
        chat_id = params.integer("chat_id")
        chat = self.chats.get(chat_id)
        if chat is None:
            if chat_id in self.people and need == "write":
                raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
            raise Refused.bad("chat not found")
        if chat.migrated_to is not None and need == "write":
            raise Refused(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                {"migrate_to_chat_id": chat.migrated_to},
            )
        self._check_bot_in(chat, need)
        return chat

    @staticmethod
    def _check_bot_in(chat: Chat, need: Literal["read", "edit", "write"]) -> None:
        if chat.bot_status not in {"left", "kicked"}:
            return
        if chat.type == "private":
            if need == "write":
                raise Refused(403, "Forbidden: bot was blocked by the user")
        elif chat.bot_status == "kicked":
            raise Refused(403, f"Forbidden: bot was kicked from the {chat.type} chat")
        elif need != "read" or chat.type != "group":
            raise Refused(403, f"Forbidden: bot is not a member of the {chat.type} chat")

    @staticmethod
    def _thread(chat: Chat, params: Params) -> int | None:
        thread = params.integer("message_thread_id")
        if not thread:
            return None
        if thread not in chat.topics:
            raise Refused.bad("message thread not found")
        if chat.topics[thread] == "closed" and chat.bot_status != "administrator":
            raise Refused.bad("TOPIC_CLOSED")
        return thread

    def _editable(self, params: Params, kind: Literal["text", "caption", "markup"]) -> tuple[Chat, Message]:
        chat = self._asked_chat(params, "edit")
        message = chat.find(params.integer("message_id"))
        if message is None:
            raise Refused.bad("message to edit not found")
        if message.sender != self.bot:
            raise Refused.bad("message can't be edited")
        if kind == "text" and message.kind != "text":
            raise Refused.bad("there is no text in the message to edit")
        if kind == "caption" and message.kind == "text":
            raise Refused.bad("there is no caption in the message to edit")
        return chat, message

    # Answers as JSON

    def _message(self, chat: Chat, message: Message) -> JsonObject:
        fields: JsonObject = {
            "message_id": message.id,
            "date": _unix(message.date),
            "chat": chat.as_json(),
            "from": message.sender.as_json(),
            **_content(message),
            **message.extra,
        }
        if message.edited_at is not None:
            fields["edit_date"] = _unix(message.edited_at)
        if message.face.buttons:
            rows = [[button.as_json() for button in row] for row in message.face.buttons]
            fields["reply_markup"] = {"inline_keyboard": rows}
        if message.thread_id is not None:
            fields |= {"message_thread_id": message.thread_id, "is_topic_message": True}
        answered = chat.find(message.reply_to) if message.reply_to is not None else None
        if answered is not None:
            fields["reply_to_message"] = self._message(chat, dataclasses.replace(answered, reply_to=None))
            if chat.type == "supergroup" and message.thread_id is None:
                # A reply in an ordinary supergroup is a thread too, and no topic.
                fields["message_thread_id"] = answered.id
        return fields

    def _member(self, person: Person, status: MemberStatus) -> JsonObject:
        fields: JsonObject = {"user": person.as_json(), "status": status}
        if status == "administrator":
            return fields | dict.fromkeys(_ADMIN_RIGHTS, True) | {"is_anonymous": False, "can_be_edited": False}
        if status == "creator":
            return fields | {"is_anonymous": False}
        return fields | ({"until_date": 0} if status == "kicked" else {})

    # Methods

    def _get_me(self, _: Params) -> object:
        return self.bot.as_json() | {
            "can_join_groups": True,
            "can_read_all_group_messages": self.can_read_all_group_messages,
            "supports_inline_queries": False,
        }

    def _delete_webhook(self, params: Params) -> object:
        self.webhook_url = ""
        if params.flag("drop_pending_updates"):
            self._queue.clear()
        return True

    def _get_webhook_info(self, _: Params) -> object:
        return {"url": self.webhook_url, "has_custom_certificate": False, "pending_update_count": len(self._queue)}

    def _set_my_commands(self, params: Params) -> object:
        listed = params.json("commands", "can't parse commands JSON object")
        if not isinstance(listed, list):
            raise Refused.bad("expected an Array of BotCommand")
        if len(listed) > COMMANDS_LIMIT:
            raise Refused.bad("BOT_COMMANDS_TOO_MUCH")
        scope = params.json("scope", "can't parse BotCommandScope") or {"type": "default"}
        key = (json.dumps(scope, sort_keys=True), params.text("language_code"))
        self.commands[key] = [_command(command) for command in listed]
        return True

    def _send_message(self, params: Params) -> object:
        parsed = _message_text(params, "Message is too long")
        return self._send(params, "text", parsed, params.text("text"))

    def _send(self, params: Params, kind: MessageKind, parsed: Parsed, source: str, upload: Upload | None = None) -> object:
        buttons = _keyboard(params)
        chat = self._asked_chat(params, "write")
        thread = self._thread(chat, params)
        reply_to = self._reply_target(chat, params)
        message = Message(
            chat.next_id(),
            chat.id,
            self.clock(),
            self.bot,
            Face(parsed.text, source, parsed.entities, buttons),
            kind=kind,
            thread_id=thread,
            silent=params.flag("disable_notification"),
            reply_to=reply_to,
            call_n=self._taking_n,
        )
        if upload is not None:
            message.file_name, message.file_bytes = upload.name, len(upload.content)
            message.extra = _file_json(kind, upload, message.id)
        chat.messages.append(message)
        chat.bot_spoke_last = True
        return self._message(chat, message)

    @staticmethod
    def _reply_target(chat: Chat, params: Params) -> int | None:
        given = params.json("reply_parameters", "Can't parse reply parameters JSON object")
        if not isinstance(given, dict):
            return None
        target = Params(given)
        message_id = target.integer("message_id")
        if chat.find(message_id) is None:
            if target.flag("allow_sending_without_reply"):
                return None
            raise Refused.bad("message to be replied not found")
        return message_id

    def _send_photo(self, params: Params) -> object:
        upload = self._file(params, "photo")
        if len(upload.content) > PHOTO_LIMIT_BYTES:
            raise Refused.bad("file is too big")
        _picture_size(upload.content)
        return self._send(params, "photo", _caption(params), params.text("caption"), upload)

    def _send_document(self, params: Params) -> object:
        upload = self._file(params, "document")
        return self._send(params, "document", _caption(params), params.text("caption"), upload)

    @staticmethod
    def _file(params: Params, name: str) -> Upload:
        upload = params.upload(name)
        if upload is None:
            raise Refused.bad(f"there is no {name} in the request")
        if not upload.content:
            raise Refused.bad("file must be non-empty")
        return upload

    def _edit_message_text(self, params: Params) -> object:
        parsed = _message_text(params, "MESSAGE_TOO_LONG")
        buttons = _keyboard(params)
        chat, message = self._editable(params, "text")
        return self._edit(chat, message, Face(parsed.text, params.text("text"), parsed.entities, buttons))

    def _edit_message_caption(self, params: Params) -> object:
        parsed = _caption(params)
        buttons = _keyboard(params)
        chat, message = self._editable(params, "caption")
        return self._edit(chat, message, Face(parsed.text, params.text("caption"), parsed.entities, buttons))

    def _edit_message_reply_markup(self, params: Params) -> object:
        buttons = _keyboard(params)
        chat, message = self._editable(params, "markup")
        return self._edit(chat, message, dataclasses.replace(message.face, buttons=buttons))

    def _edit(self, chat: Chat, message: Message, face: Face) -> object:
        # Another spelling of the same look is no change: the server compares what is shown.
        if dataclasses.replace(face, source=message.face.source) == message.face:
            raise Refused.bad(MODIFIED)
        message.edits.append(message.face)
        message.face = face
        message.edited_at = self.clock()
        return self._message(chat, message)

    def _delete_message(self, params: Params) -> object:
        chat = self._asked_chat(params, "write")
        message = chat.find(params.integer("message_id"))
        if message is None:
            raise Refused.bad("message to delete not found")
        own = message.sender == self.bot
        if not own and chat.type != "private" and chat.bot_status != "administrator":
            raise Refused.bad("message can't be deleted")
        if self.clock() - message.date > DELETABLE_FOR and chat.bot_status != "administrator":
            raise Refused.bad("message can't be deleted for everyone")
        message.deleted = True
        return True

    def _answer_callback_query(self, params: Params) -> object:
        text = params.text("text")
        if utf16_length(text) > TOAST_LIMIT:
            raise Refused.bad("MESSAGE_TOO_LONG")
        query = self.queries.get(params.text("callback_query_id"))
        if query is None or query.answered or query.expired:
            raise Refused.bad(STALE_QUERY)
        if self.clock() - query.pressed_at > self.query_lifetime:
            raise Refused.bad(STALE_QUERY)
        query.answered = True
        self.toasts.append(Toast(query.id, query.person.id, text, params.flag("show_alert")))
        return True

    def _send_chat_action(self, params: Params) -> object:
        action = params.text("action").lower()
        if action not in ACTIONS:
            raise Refused.bad("wrong parameter action in request")
        chat = self._asked_chat(params, "write")
        self._thread(chat, params)
        chat.actions.append(action)
        return True

    def _get_chat(self, params: Params) -> object:
        chat = self._asked_chat(params, "read")
        gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")
        return chat.as_json() | {
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": dict.fromkeys(gifts, False),
        }

    def _get_chat_member(self, params: Params) -> object:
        chat = self._asked_chat(params, "read")
        person = self.people.get(params.integer("user_id"))
        if person is None:
            raise Refused.bad("user not found")
        if person == self.bot:
            return self._member(person, chat.bot_status)
        own_chat = chat.type == "private" and chat.id == person.id
        return self._member(person, chat.members.get(person.id, "member" if own_chat else "left"))

    def _get_chat_administrators(self, params: Params) -> object:
        chat = self._asked_chat(params, "read")
        if chat.type == "private":
            raise Refused.bad("there are no administrators in the private chat")
        listed = [
            self._member(self.people[person_id], status)
            for person_id, status in chat.members.items()
            if status in {"creator", "administrator"}
        ]
        if chat.bot_status == "administrator":
            listed.append(self._member(self.bot, "administrator"))
        return listed


_ADMIN_RIGHTS = [
    "can_manage_chat",
    "can_delete_messages",
    "can_manage_video_chats",
    "can_restrict_members",
    "can_promote_members",
    "can_change_info",
    "can_invite_users",
    "can_post_stories",
    "can_edit_stories",
    "can_delete_stories",
    "can_send_welcome_messages",
]


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _content(message: Message) -> JsonObject:
    names = ("text", "entities") if message.kind == "text" else ("caption", "caption_entities")
    fields: JsonObject = {names[0]: message.text} if message.text else {}
    entities = [entity.as_json() for entity in message.face.entities]
    command = re.match(r"/\w+(@\w+)?", message.text)
    if command and not message.sender.is_bot:
        entities.append(Entity("bot_command", 0, command.end()).as_json())
    return fields | ({names[1]: entities} if entities else {})


def _file_json(kind: MessageKind, upload: Upload, message_id: int) -> JsonObject:
    file: JsonObject = {
        "file_id": f"file-{message_id}",
        "file_unique_id": f"unique-{message_id}",
        "file_size": len(upload.content),
    }
    if kind == "document":
        return {"document": file | {"file_name": upload.name}}
    width, height = _picture_size(upload.content)
    return {"photo": [file | {"width": width, "height": height}]}


def _command(command: object) -> tuple[str, str]:
    if not isinstance(command, dict):
        raise Refused.bad("expected BotCommand to be of type Object")
    name, description = str(command.get("command", "")).removeprefix("/"), str(command.get("description", ""))
    if not re.fullmatch(r"[a-z0-9_]{1,32}", name):
        raise Refused.bad("BOT_COMMAND_INVALID")
    if not description.strip():
        raise Refused.bad("command description must be non-empty")
    if len(description) > 256:
        raise Refused.bad("BOT_COMMAND_DESCRIPTION_INVALID")
    return name, description


async def _fault_before(fault: Fault, call: Call) -> web.Response | None:
    """Do what goes wrong before the call is taken; None lets it go on."""
    match fault.kind:
        case FaultKind.RATE_LIMIT:
            call.outcome = f"fault: {fault.kind}"
            after_s = fault.retry_after_s
            return _refusal(Refused(429, f"Too Many Requests: retry after {after_s}", {"retry_after": after_s}))
        case FaultKind.SERVER_ERROR:
            call.outcome = f"fault: {fault.kind}"
            return _refusal(Refused(fault.status, _PHRASES.get(fault.status, "Internal Server Error")))
        case FaultKind.CUT_BEFORE:
            call.outcome = f"fault: {fault.kind}"
            raise _CutError
        case FaultKind.DELAY:
            await asyncio.sleep(fault.delay_s)
    return None


async def _fault_after(fault: Fault, call: Call) -> web.Response | None:
    """Do what goes wrong after the call was taken; None lets the right answer go out."""
    match fault.kind:
        case FaultKind.SERVER_ERROR_AFTER:
            call.outcome = f"fault: {fault.kind}"
            return _refusal(Refused(fault.status, _PHRASES.get(fault.status, "Internal Server Error")))
        case FaultKind.CUT_AFTER:
            call.outcome = f"fault: {fault.kind}"
            raise _CutError
        case FaultKind.GARBAGE:
            call.outcome = f"fault: {fault.kind}"
            return web.Response(text=fault.body, content_type="text/html")
        case FaultKind.DELAY_AFTER:
            await asyncio.sleep(fault.delay_s)
    return None


_PHRASES = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}


async def _read(request: web.Request) -> Params:
    """The arguments of a request in any of the four forms."""
    values: JsonObject = dict(request.query)
    uploads: dict[str, Upload] = {}
    if request.content_type == "application/json":
        try:
            body = await request.json()
        except ValueError as error:
            raise Refused.bad("can't parse request: JSON object expected") from error
        if not isinstance(body, dict):
            raise Refused.bad("object expected")
        return Params(values | body)
    for name, part in (await request.post()).items():
        if isinstance(part, web.FileField):
            uploads[name] = Upload(part.filename, part.file.read())
        else:
            values[name] = part if isinstance(part, str) else bytes(part).decode()
    return Params(values, uploads)


async def _nowhere(_: web.Request) -> web.Response:
    return _refusal(Refused(404, "Not Found"))


def _json(body: JsonObject, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _refusal(refused: Refused) -> web.Response:
    body: JsonObject = {"ok": False, "error_code": refused.code, "description": refused.description}
    if refused.parameters:
        body["parameters"] = refused.parameters
    return _json(body, refused.code)


# --- A process of its own, driven over HTTP ----------------------------------------------------------------------------


class Control:
    """Drives an emulator over JSON: the same verbs as the Python side.

    POST /person {id, name, language_code?}; /group {id, title?, topics?, bot_status?, members: [id]};
    /say {chat, person, text, ...flags of say}; /press {chat, message, button, person, stale?}; /redeliver {update};
    /fault {n | method, kind, times?, retry_after_s?, status?, delay_s?}; /hold {n, stage}; /release {n, stage};
    /expire {query}.
    GET /state; /messages?chat=; /calls; /wait?chat=&text=&button=&timeout_s= (the first message shown with this in it);
    /held?n=&stage=&timeout_s=; /toast?query=&timeout_s=; /polled?timeout_s=.
    Mistakes are 400, 404 and, for waits that ended in vain, 408, each {"error"}.
    """

    def __init__(self, telegram: TelegramEmulator, port: int = 0) -> None:
        self._telegram = telegram
        self._holds: dict[tuple[int, str], Hold] = {}
        self.port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[_control_errors])
        for name in ("person", "group", "say", "press", "redeliver", "fault", "hold", "release", "expire"):
            app.router.add_post(f"/{name}", getattr(self, f"_{name}"))
        for name in ("state", "messages", "calls", "wait", "held", "toast", "polled"):
            app.router.add_get(f"/{name}", getattr(self, f"_{name}"))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = cast("int", self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _person(self, request: web.Request) -> web.Response:
        body = await request.json()
        language, username = body.get("language_code"), body.get("username")
        return _dump(self._telegram.add_person(body["id"], body["name"], username=username, language_code=language))

    async def _group(self, request: web.Request) -> web.Response:
        body = await request.json()
        chat = self._telegram.add_group(
            body["id"],
            body.get("title", "ops"),
            topics=body.get("topics", ()),
            bot_status=body.get("bot_status", "member"),
            members=[self._telegram.people[person] for person in body.get("members", ())],
        )
        return _dump({"id": chat.id})

    async def _say(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("date"):
            body["date"] = datetime.fromisoformat(body["date"])
        body["person"] = self._telegram.people[body["person"]]
        return _dump({"update": self._telegram.say(**body)})

    async def _press(self, request: web.Request) -> web.Response:
        body = await request.json()
        every = self._telegram.chats[body["chat"]].messages
        message = next(message for message in every if message.id == body["message"])
        person = self._telegram.people[body["person"]]
        query = self._telegram.press(message, body["button"], person, stale=bool(body.get("stale")))
        return _dump({"query": query, "update": self._telegram.unconfirmed[-1]})

    async def _redeliver(self, request: web.Request) -> web.Response:
        self._telegram.redeliver((await request.json())["update"])
        return _dump({})

    async def _expire(self, request: web.Request) -> web.Response:
        self._telegram.expire_query((await request.json())["query"])
        return _dump({})

    async def _fault(self, request: web.Request) -> web.Response:
        body = await request.json()
        n, method, kind = body.pop("n", None), body.pop("method", None), FaultKind(body.pop("kind"))
        if n is None and method is None:
            raise ValueError("n or method is needed")
        self._telegram.faults.on(n if n is not None else lambda call: call.method == method, kind, **body)
        return _dump({})

    async def _hold(self, request: web.Request) -> web.Response:
        body = await request.json()
        key = (int(body["n"]), cast("Stage", body["stage"]))
        self._holds[key] = self._telegram.hold(*key)
        return _dump({})

    async def _release(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._holds.pop((body["n"], body["stage"])).release()
        return _dump({})

    async def _state(self, _: web.Request) -> web.Response:
        telegram = self._telegram
        return _dump(
            {
                "chats": telegram.chats,
                "toasts": telegram.toasts,
                "sends": telegram.send_count,
                "edits": telegram.edit_count,
                "calls": telegram._call_counts[False],  # the same module
                "unconfirmed": telegram.unconfirmed,
            }
        )

    async def _messages(self, request: web.Request) -> web.Response:
        return _dump([_shown(message) for message in self._telegram.shown(int(request.query["chat"]))])

    async def _calls(self, _: web.Request) -> web.Response:
        return _dump([call for call in self._telegram.calls if not call.is_poll])

    async def _wait(self, request: web.Request) -> web.Response:
        chat, text, button = int(request.query["chat"]), request.query.get("text", ""), request.query.get("button")
        found = await self._telegram.wait_for(
            lambda: [
                message
                for message in self._telegram.shown(chat)
                if text in message.text and (button is None or button in message.labels)
            ],
            _timeout_s(request),
        )
        return _dump(_shown(found[-1]))

    async def _held(self, request: web.Request) -> web.Response:
        await self._holds[int(request.query["n"]), request.query["stage"]].reached(_timeout_s(request))
        return _dump({})

    async def _toast(self, request: web.Request) -> web.Response:
        query = request.query["query"]
        return _dump(await self._telegram.wait_for(lambda: self._telegram.toasts_of(query), _timeout_s(request)))

    async def _polled(self, request: web.Request) -> web.Response:
        await self._telegram.wait_for(lambda: self._telegram.is_polled, _timeout_s(request))
        return _dump({})


def _timeout_s(request: web.Request) -> float:
    return float(request.query.get("timeout_s", "10"))


@web.middleware
async def _control_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except TimeoutError as error:
        return _json({"error": str(error)}, 408)
    except (LookupError, StopIteration, RuntimeError) as error:
        return _json({"error": f"not found: {error}"}, 404)
    except (ValueError, TypeError) as error:
        return _json({"error": str(error)}, 400)


def _shown(message: Message) -> JsonObject:
    return {
        "id": message.id,
        "text": message.text,
        "html": message.html,
        "buttons": message.buttons,
        "edits": [face.text for face in message.edits],
        "thread": message.thread_id,
        "silent": message.silent,
        "kind": message.kind,
    }


def _dump(value: object) -> web.Response:
    return web.json_response(value, dumps=lambda body: json.dumps(body, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, Upload):
        return {"name": value.name, "size_bytes": len(value.content)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)


@contextlib.asynccontextmanager
async def serving(port: int = 0, control_port: int = 0) -> AsyncIterator[tuple[TelegramEmulator, Control]]:
    """An emulator with its control API."""
    async with TelegramEmulator(port=port) as telegram, Control(telegram, control_port) as control:
        yield telegram, control


async def _run(port: int, control_port: int, token: str) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with TelegramEmulator(port=port, token=token) as telegram, Control(telegram, control_port) as control:
        ready = {"base_url": telegram.base_url, "control_url": f"http://127.0.0.1:{control.port}"}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the emulator until SIGTERM; the first line on stdout is JSON with both URLs."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.telegram", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--token", default="42:TEST-token")
    given = parser.parse_args(arguments)
    asyncio.run(_run(given.port, given.control_port, given.token))


if __name__ == "__main__":
    main()
