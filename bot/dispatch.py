"""From an event of a chat to a Reply: who is it, may they, which command, with which ports. The chats' Inbox."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import secrets
import shlex
import typing
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from bot.chat.base import Address, Pressed, Toast, Typed
from bot.i18n import render
from handlers.cards.failure import refusal
from handlers.command import Command, Refused, Usage
from handlers.quoted import quoted
from handlers.reply import Failure, Line, Reply, Title
from handlers.request import Request
from remote.errors import HostError
from remote.text import Mono, Span, T, Text, When

if TYPE_CHECKING:
    from datetime import datetime

    from bot.outbox import Outbox, Press
    from bot.people import People
    from bot.store import Store
    from handlers.ports.clock import Clock
    from handlers.request import Person, Room

log = structlog.get_logger(__name__)

# A command with effects older than this was typed or pressed to an absent bot. Telegram keeps such a one for up to a day
# (https://core.telegram.org/bots/api#getting-updates).
OLD_S = 120.0
OLD = "old"
# Phones write quotes and dashes of their own; a no-break space comes with a paste.
PLAIN = str.maketrans("\u201c\u201d\u201e\u2018\u2019\u00a0", '"""\'\' ') | str.maketrans({"\u2014": "--", "\u2013": "-"})
STRANGER_S = 3600.0  # a stranger is told his id once in this time: each answer is a message and a row
TOAST_S = 2.0  # a press is answered within this; Telegram forgets the query after ten to twenty seconds


@dataclass(frozen=True, slots=True)
class Prepared:
    """A command with the ports it named, ready to be called with a Request."""

    command: Command
    ports: Mapping[str, object]


def prepare(commands: Mapping[str, Command], ports: Mapping[type, object]) -> dict[str, Prepared]:
    """Look once at what each command's `run` names and hand it those ports. Raises TypeError for a port nobody has."""
    prepared = {}
    for name, command in commands.items():
        hints = typing.get_type_hints(command.run)
        wanted = [p.name for p in inspect.signature(command.run).parameters.values() if p.kind is p.KEYWORD_ONLY]
        missing = [port for port in wanted if hints[port] not in ports]
        if missing:
            raise TypeError(f"/{name} asks for a port that nobody offers: {missing[0]}")
        prepared[name] = Prepared(command, {port: ports[hints[port]] for port in wanted})
    return prepared


class Dispatcher:
    """Answers Requests. One place turns errors into words; below it they are typed."""

    def __init__(self, prepared: Mapping[str, Prepared], clock: Clock) -> None:
        """`prepared` by command name."""
        self._prepared = prepared
        self._clock = clock

    async def answer(self, request: Request) -> Reply:
        """The reply to a request; never raises but for cancellation."""
        one = self._prepared.get(request.command)
        if one is None:
            return self._unknown(request)
        command = one.command
        try:
            self._allow(request, command)
            return await command.run(request, **one.ports)
        except (Usage, Refused) as trouble:
            return refusal(trouble, command, request)
        except HostError as trouble:
            return failed(Failure(trouble.kind, trouble.text), request)
        except Exception:
            ident = secrets.token_hex(4)
            log.exception("command failed", command=request.command, id=ident)
            text = T("Something went wrong inside memwarden. Its log says more under {id}.", id=Mono(ident))
            return failed(Failure("internal", text, ident), request)

    def _allow(self, request: Request, command: Command) -> None:
        if command.open:
            return
        if not request.person.may(command.role):
            raise Refused("role", role_needed(command.role))
        age = self._clock.now() - request.at
        if command.effects and age > timedelta(seconds=OLD_S):
            raise Refused(OLD, _too_late(request, age))

    def _unknown(self, request: Request) -> Reply:
        near = difflib.get_close_matches(request.command, self._prepared, 1, 0.5)
        shown = Mono(f"/{request.command[:32]}")
        text = (
            T("There is no command {word}. Did you mean {near}?", word=shown, near=Mono(f"/{near[0]}"))
            if near
            else T("There is no command {word}. {help} lists them.", word=shown, help=Mono("/help"))
        )
        return failed(Failure("usage", text), request)


def _too_late(request: Request, age: timedelta) -> Text:
    """Why what came to an absent bot was not done."""
    if request.pressed:  # when it was pressed is only known to be later than this
        return T(
            "{command} was pressed while I was away. I did not do it; press it again if you still want it.",
            command=Mono(" ".join((f"/{request.command}", *request.words))),
        )
    return T(
        "This came at {at}, {age} ago, while I was away. I did not do it; send it again if you still want it.",
        at=When(request.at),
        age=Span(age.total_seconds()),
    )


def role_needed(role: str) -> Text:
    """The sentence that names the role somebody lacks."""
    match role:
        case "admin":
            return T("That needs the role admin.")
        case "approver":
            return T("That needs the role approver or admin.")
        case _:
            return T("That needs the role viewer. Ask the owner to add you to the settings.")


def failed(failure: Failure, request: Request) -> Reply:
    """A reply that says what failed."""
    return Reply((Title(failure.text, "warning"),), error=failure, toast=failure.text if request.pressed else None)


def words_of(text: str) -> tuple[str, ...]:
    r"""A command line's words: quotes group, phones' smart quotes and dashes are read as the plain ones.

    A backslash is one of the name that it stands in: `srv-my\x2dapp.service`, as systemd writes it.
    """
    plain = text.translate(PLAIN)
    words = shlex.shlex(plain, posix=True)
    words.whitespace_split, words.commenters, words.escape = True, "", ""
    try:
        return tuple(words)
    except ValueError:
        return tuple(plain.split())


class Desk:
    """The Inbox of all chats: keeps the event, finds who and where, answers through the outbox."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        people: People,
        outbox: Outbox,
        store: Store,
        clock: Clock,
        *,
        toast_s: float = TOAST_S,
    ) -> None:
        """Nothing is received before the chats start. After `toast_s` a press is answered by a message."""
        self._toast_s = toast_s
        self._dispatcher = dispatcher
        self._people = people
        self._outbox = outbox
        self._store = store
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._under_way: set[str] = set()
        self._told: dict[tuple[str, str], datetime] = {}

    async def typed(self, event: Typed) -> asyncio.Future[None]:
        """See bot/chat/base.py."""
        task = asyncio.create_task(self._typed(event), name="typed")
        self._keep(task)
        return task

    async def pressed(self, event: Pressed) -> Toast | None:
        """See bot/chat/base.py."""
        late = asyncio.Event()
        task = asyncio.create_task(self._pressed(event, late), name="pressed")
        self._keep(task)
        try:
            return await asyncio.wait_for(asyncio.shield(task), self._toast_s)
        except TimeoutError:
            late.set()
            return None

    async def drain(self, within_s: float) -> None:
        """Let what was received come to its end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("an event was not handled", exc_info=task.exception())

    async def _typed(self, event: Typed) -> None:
        person = self._people.person(event.address.platform, event.sender)
        room = self._people.room(event.address, private=event.private)
        reply = self._stranger(event, person, room)
        if reply is None and (room is None or person.role == "stranger"):
            return
        language = self._people.language(room, person, private=event.private)
        if reply is None:
            assert room is not None  # noqa: S101 - for the type checker: returned above
            request = make_request(event.event_id, person, room, event.text, event.at, language)
            if request is None:
                return
            async with self._first_time(event.event_id) as first:
                if first:
                    reply = await self._dispatcher.answer(request)
                    await self._answer(event, language, reply)
            return
        await self._answer(event, language, reply)

    async def _answer(self, event: Typed, language: str, reply: Reply) -> None:
        await self._post(replace(event.address, language=language), reply, event.event_id, fresh=True)

    @asynccontextmanager
    async def _first_time(self, event_id: str) -> AsyncIterator[bool]:
        """Whether this event did not come before: the same event twice is answered once. It is kept with its answer, here it
        is only looked up, so that a crash in between makes the platform's second delivery an honest new try (its effects are
        rows with guards of their own)."""
        if event_id in self._under_way:
            yield False
            return
        self._under_way.add(event_id)
        try:
            async with self._store.connect() as tx:
                known = await self._outbox.known(tx, f"event:{event_id}")
            yield not known
        finally:
            self._under_way.discard(event_id)

    async def _post(self, to: Address, reply: Reply, event_id: str, *, fresh: bool) -> None:
        key = f"event:{event_id}"
        async with self._store.begin() as tx:
            if await self._outbox.seen(tx, key):
                return
            if reply.blocks:
                await self._outbox.post(tx, to, reply, reply.key or key, fresh=fresh)
        self._outbox.wake()

    def _stranger(self, event: Typed, person: Person, room: Room | None) -> Reply | None:
        """What an unknown person in private, or a known one in an unknown chat, is told; None for silence or a real answer."""
        if person.role == "stranger":
            if not event.private or event.sender.anonymous or self._told_lately(event):
                return None
            text = T("I do not know you. Your id is {id}; the owner can add it to the settings.", id=Mono(event.sender.account))
            return Reply((Line(text),))
        if room is None:
            text = T("This chat is not in my settings. Its id is {id}.", id=Mono(event.address.chat))
            return Reply((Line(text),))
        return None

    def _told_lately(self, event: Typed) -> bool:
        """Whether this stranger had an answer within the hour; if not, this is it."""
        now, who = self._clock.now(), (event.address.platform, event.sender.account)
        self._told = {one: at for one, at in self._told.items() if now - at < timedelta(seconds=STRANGER_S)}
        lately = who in self._told
        self._told.setdefault(who, now)
        return lately

    async def _pressed(self, event: Pressed, late: asyncio.Event) -> Toast | None:
        person = self._people.person(event.address.platform, event.sender)
        room = self._people.room(event.address, private=event.private)
        language = self._people.toast_language(room, person)
        if person.role == "stranger" or room is None:
            text = (
                T("Only people of this team may press here, and I cannot see who you are.")
                if event.sender.anonymous
                else T("Only people of this team may press here. Your id is {id}.", id=Mono(event.sender.account))
            )
            return Toast(render(text, language), alert=True)
        press = await self._outbox.press(event.token, event.address, event.message_id)
        if press is None:
            return Toast(
                render(T("This button is from an older message. Use the newest one, or type the command."), language), alert=True
            )
        async with self._first_time(event.event_id) as first:
            return await self._do(event, press, person, room, late) if first else None

    async def _do(self, event: Pressed, press: Press, person: Person, room: Room, late: asyncio.Event) -> Toast | None:
        """What the button says. Who waited too long for a toast gets its words as a message."""
        language = self._people.toast_language(room, person)
        request = make_request(event.event_id, person, room, press.command, event.at, language)
        assert request is not None  # noqa: S101 - our own button's command always has a name
        reply = await self._dispatcher.answer(replace(request, pressed=True, reply_key=press.key))
        posted = replace(press.address, language=self._people.language(room, person, private=event.private))
        if reply.toast is None:
            await self._post(posted, reply, event.event_id, fresh=not reply.key)
            return None
        old = reply.error is not None and reply.error.kind == OLD
        message = Reply(reply.blocks or (Line(reply.toast),)) if late.is_set() or old else Reply()
        if old:  # Telegram shows no toast for it any more; who pressed five times meanwhile is told once
            message = replace(message, key=f"old:{press.key}:{event.at.isoformat()}")
        await self._post(posted, message, event.event_id, fresh=not old)
        return Toast(render(reply.toast, language, self._clock.now()), alert=not reply.ok)


def make_request(event_id: str, person: Person, room: Room, text: str, at: Any, language: str) -> Request | None:  # noqa: ANN401
    """The Request that a line of text means; None when there is no command in it. `/mem@bot` is `/mem`.

    A log line that tells of a killed process, whatever stands around it, asks why that one was killed and nothing else: it may
    come from anywhere.
    """
    pid = quoted(text)
    if pid is not None:
        return Request(event_id, person, room, "why", (str(pid),), at, language)
    words = words_of(text)
    if not words:
        return None
    name = words[0].removeprefix("/").split("@", 1)[0].lower()
    if not name:
        return None
    about = quoted(" ".join(words[1:])) if name == "why" else None
    return Request(event_id, person, room, name, words[1:] if about is None else (str(about),), at, language)
