"""Telegram by long polling with aiogram 3: Replies become HTML messages, messages and presses become Typed and Pressed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from bot.chat import _deferred
from bot.chat._html import draw, plain, units
from bot.chat.base import Address, ChatDown, Pressed, Sender, SendFailed, Toast, Typed
from bot.chat.layout import clean, cut
from bot.clock import SystemClock
from bot.i18n import ENGLISH, LANGUAGES, render
from bot.logs import hide
from handlers.quoted import quoted
from remote.text import Mono, Span, T, Text

if TYPE_CHECKING:
    from datetime import datetime

    from aiogram import Bot
    from aiogram.exceptions import TelegramBadRequest
    from aiogram.methods import EditMessageText, SendMessage, TelegramMethod
    from aiogram.types import CallbackQuery, ChatMemberUpdated, InlineKeyboardButton, InlineKeyboardMarkup, Message, Update, User

    from bot.chat.base import Inbox
    from handlers.command import Command
    from handlers.ports.clock import Clock
    from handlers.reply import Button, Reply

    Shown = SendMessage | EditMessageText

log = structlog.get_logger(__name__)
Result = TypeVar("Result")

KINDS: Final = ["message", "callback_query", "my_chat_member"]
POLL_S = 25
POLL_MOST = 100  # updates in one answer
KEEPS = timedelta(hours=24)  # for no longer does Telegram keep what nobody has fetched
ANSWER_S = 15  # for any answer of Telegram but a poll's
GREETING_S = 5  # the first one: a network that is down must not hold the start
PAUSE_S = (1.0, 30.0)  # between tries while Telegram cannot be reached
KEPT_S = 0.5  # how long updates stay unconfirmed for their answers, so that a crash meanwhile loses none
DRAIN_S = 20.0
SURE_S = 30.0  # within which a dangerous button is pressed again

ANONYMOUS_ADMIN = 1087968824  # @GroupAnonymousBot
TOAST_UNITS = 200
LABEL_COLUMNS = 40
ROW_BUTTONS, ALL_BUTTONS = 8, 100
SURE = "?"  # before the token of a button that is to be pressed twice
COMMAND_NAME = re.compile(r"[a-z0-9_]{1,32}")
LOOKS: Mapping[str, str | None] = {"plain": None, "good": "success", "danger": "danger"}

GONE = ("message to edit not found", "message can't be edited", "no text in the message to edit", "message_id_invalid")
NO_THREAD = ("message thread not found", "topic_closed", "topic_deleted")
DOWN = T("Telegram does not know the bot's token. Ask @BotFather for it and put it into the settings as telegram.token.")


@dataclass(slots=True)
class _First:
    """The first press of a button that wants two."""

    query: str
    at_s: float


class Telegram:
    """One bot in all its chats."""

    platform = "telegram"

    def __init__(
        self, token: str, *, api_base: str = "", light: bool = True, commands: Mapping[str, Command], clock: Clock | None = None
    ) -> None:
        """`api_base` is a Bot API server of one's own. `light` builds aiogram's models on first use (see _deferred)."""
        self._token = token
        self._api_base = api_base
        self._commands = commands
        self._clock = clock or SystemClock()
        self._models = _deferred.load(light=light)
        self._light = light
        self._bot: Bot | None = None
        self._me: User | None = None
        self._polling: asyncio.Task[None] | None = None
        self._handling: set[asyncio.Task[None]] = set()
        self._offset: int | None = None
        self._fetched_at = self._clock.now() - KEEPS  # what is fetched next did not wait there at this time
        self._moved: dict[str, str] = {}
        self._sure: dict[tuple[int, str], _First] = {}
        self._closed_topics: set[tuple[str, int]] = set()
        self._under_way = 0
        self._stopped = False

    # Start and stop

    async def start(self, inbox: Inbox) -> None:
        """Begin to receive; while Telegram cannot be reached it is tried again in the background. Raises ChatDown."""
        from aiogram.exceptions import AiogramError

        self._stopped = False
        try:
            await self._greet(GREETING_S)
        except ChatDown:
            await self._close_if_idle()
            raise
        except AiogramError as trouble:
            log.warning("Telegram cannot be reached, trying on", why=_why(trouble))
        self._polling = asyncio.create_task(self._receive(inbox), name="telegram")

    async def stop(self) -> None:
        """Stop receiving; what was received is handled to its end. What is sent later still goes out."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])
            self._polling = None
        if self._handling:
            await asyncio.wait(self._handling, timeout=DRAIN_S)
        await self._confirm()
        self._stopped = True
        await self._close_if_idle()

    async def _confirm(self) -> None:
        """Tell Telegram what was handled: it is told by asking for what comes next."""
        from aiogram.exceptions import AiogramError
        from aiogram.methods import GetUpdates

        if self._offset is not None:
            with contextlib.suppress(AiogramError):
                await self._ask(GetUpdates(offset=self._offset, limit=1, timeout=0, allowed_updates=KINDS), GREETING_S)

    def _client(self) -> Bot:
        from aiogram import Bot
        from aiogram.client.session.aiohttp import AiohttpSession
        from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
        from aiogram.utils.token import TokenValidationError

        if self._bot is None:
            api = TelegramAPIServer.from_base(self._api_base) if self._api_base else PRODUCTION
            try:
                self._bot = Bot(self._token, session=AiohttpSession(api=api))
            except TokenValidationError:
                raise ChatDown(DOWN) from None
        return self._bot

    async def _ask(self, method: TelegramMethod[Result], timeout_s: float = ANSWER_S) -> Result:
        """One call. After the stop the connection is closed behind the last one that is under way."""
        bot = self._client()
        self._under_way += 1
        try:
            return await bot(method, request_timeout=int(timeout_s))
        finally:
            self._under_way -= 1
            if self._stopped:
                await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._bot is not None and not self._under_way:
            await self._bot.session.close()

    async def _greet(self, timeout_s: float = ANSWER_S) -> User:
        """Learn who we are. Raises ChatDown for a token that nobody knows."""
        from aiogram.exceptions import TelegramNotFound, TelegramUnauthorizedError
        from aiogram.methods import GetMe

        if self._me is None:
            try:
                self._me = await self._ask(GetMe(), timeout_s)
            except (TelegramUnauthorizedError, TelegramNotFound):
                raise ChatDown(DOWN) from None
        return self._me

    # Receiving

    async def _receive(self, inbox: Inbox) -> None:
        """Receive for ever, whatever happens to the network."""
        pause_s, trouble_before = PAUSE_S[0], ""
        while True:
            try:
                await self._prepare()
                while True:
                    await self._take_some(inbox)
                    if trouble_before:
                        log.info("Telegram answers again")
                    pause_s, trouble_before = PAUSE_S[0], ""
            except Exception as trouble:  # noqa: BLE001 - a bot that stops listening for a surprise helps nobody
                words = _poll_trouble(trouble)
                if words != trouble_before:
                    log.warning(words, why=_why(trouble))
                trouble_before = words
                wait_s = getattr(trouble, "retry_after", 0.0) or pause_s
                await asyncio.sleep(wait_s * (1 + secrets.randbelow(250) / 1000))
                pause_s = min(PAUSE_S[1], pause_s * 1.5)

    async def _prepare(self) -> None:
        from aiogram.methods import DeleteWebhook

        await self._greet()
        # A webhook, set by whatever program, makes every poll a 409.
        await self._ask(DeleteWebhook())
        await self._offer_commands()

    async def _offer_commands(self) -> None:
        """The menu of commands, in every language; nice to have, so a failure is only logged."""
        from aiogram.exceptions import AiogramError
        from aiogram.methods import SetMyCommands
        from aiogram.types import BotCommand

        listed = [one for name, one in sorted(self._commands.items()) if not one.hidden and COMMAND_NAME.fullmatch(name)]
        try:
            for language in LANGUAGES if listed else ():
                menu = [BotCommand(command=one.name, description=render(one.summary, language)[:256]) for one in listed]
                await self._ask(SetMyCommands(commands=menu, language_code=None if language == ENGLISH else language))
        except AiogramError as trouble:
            log.warning("Telegram did not take the menu of commands", why=_why(trouble))

    async def _take_some(self, inbox: Inbox) -> None:
        """One poll: what came is handled by tasks of its own."""
        taken, asked_at, since = [], self._clock.now(), self._fetched_at
        # After a start or an absence the backlog is fetched at once and for itself: what comes while a poll waits may be as
        # old as the poll before it, and would be taken for as old as the backlog.
        updates = await self._updates(wait=asked_at - since <= timedelta(seconds=POLL_S + ANSWER_S))
        if len(updates) < POLL_MOST:  # all there were
            self._fetched_at = asked_at
        for update in updates:
            self._offset = update.update_id + 1
            task = asyncio.create_task(self._handle(inbox, update, since), name=f"telegram {update.update_id}")
            self._handling.add(task)
            task.add_done_callback(self._handled)
            taken.append(task)
        if taken:
            await asyncio.wait(taken, timeout=KEPT_S)

    async def _updates(self, *, wait: bool) -> list[Update]:
        from aiogram.exceptions import ClientDecodeError
        from aiogram.methods import GetUpdates

        timeout_s = POLL_S if wait else 0
        poll = GetUpdates(offset=self._offset, limit=POLL_MOST, timeout=timeout_s, allowed_updates=KINDS)
        try:
            return await self._ask(poll, POLL_S + ANSWER_S)
        except ClientDecodeError as spoilt:
            if not isinstance(spoilt.data, dict) or not isinstance(spoilt.data.get("result"), list):
                raise
            return list(self._readable(spoilt.data["result"]))

    def _readable(self, batch: list[Any]) -> Iterator[Update]:
        """The updates of a batch one by one, so that one that aiogram cannot read does not stand before all others for ever."""
        from aiogram.types import Update
        from pydantic import ValidationError

        for raw in batch:
            try:
                yield Update.model_validate(raw, context={"bot": self._client()})
            except ValidationError as trouble:
                log.warning("an update cannot be read and is left out", id=raw["update_id"], errors=trouble.error_count())
                yield Update(update_id=raw["update_id"])

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        if not task.cancelled() and (trouble := task.exception()):
            log.error("an update was not handled", exc_info=trouble)

    async def _handle(self, inbox: Inbox, update: Update, since: datetime) -> None:
        """Hand one update on; it is younger than `since`."""
        if update.message is not None:
            event = self._typed(update.update_id, update.message)
            if event is not None:
                # Its failure is the inbox' to tell; here only its end counts.
                await asyncio.wait([await inbox.typed(event)])
        elif update.callback_query is not None:
            await self._press(inbox, update.callback_query, since)
        elif update.my_chat_member is not None:
            _note_membership(update.my_chat_member)

    def _typed(self, update_id: int, message: Message) -> Typed | None:
        """The command in a message; None when there is none for us."""
        if message.migrate_to_chat_id is not None:
            self._note_move(str(message.chat.id), str(message.migrate_to_chat_id))
        private = message.chat.type == "private"
        passed_on = _passed_on(message)
        text = passed_on or self._for_us(message.text or "", private=private)
        if message.from_user is None or not text:
            return None
        sender = _author(message, message.from_user, may_forward=bool(passed_on))
        return Typed(f"telegram:{update_id}", sender, self._address(message), text, message.date, private)

    def _for_us(self, text: str, *, private: bool) -> str:
        """The command's text without `@OurName`; empty when it is nobody's or another bot's."""
        first, *_ = text.split(maxsplit=1) or [""]
        if not first.startswith("/"):
            return text if private else ""
        name, at, bot = first.partition("@")
        ours = self._me.username if self._me is not None else None
        if not at:
            return text
        return f"{name}{text.lstrip()[len(first) :]}" if bot.lower() == (ours or "").lower() else ""

    def _address(self, message: Message) -> Address:
        # A reply in an ordinary supergroup has a thread id too, and sending it back fails.
        thread = message.message_thread_id if message.is_topic_message else None
        return Address("telegram", self._settled(str(message.chat.id)), str(thread or ""))

    async def _press(self, inbox: Inbox, query: CallbackQuery, since: datetime) -> None:
        """Hand on a press, and answer it once: until then the button turns and turns."""
        toast: Toast | None = None
        try:
            event = self._pressed(query, since)
            if event.token.startswith(SURE):
                event = replace(event, token=event.token.removeprefix(SURE))
                toast = self._ask_again(query, event)
            if toast is None:
                toast = await inbox.pressed(event)
        finally:
            await self._answer(query, toast)

    def _pressed(self, query: CallbackQuery, since: datetime) -> Pressed:
        """Telegram tells no time of a press, only that it was not there to be fetched at `since`."""
        from aiogram.types import Message

        sender, place = _sender(query.from_user), query.message
        event_id = f"telegram:cb:{query.id}"
        if place is None:  # an inline message, in a chat that we are not told
            return Pressed(event_id, replace(sender, anonymous=True), Address("telegram", ""), "", query.data or "", since)
        # An InaccessibleMessage, one that is old, has these two ids and nothing else.
        address = self._address(place) if isinstance(place, Message) else Address("telegram", self._settled(str(place.chat.id)))
        private = place.chat.type == "private"
        return Pressed(event_id, sender, address, str(place.message_id), query.data or "", since, private)

    def _ask_again(self, query: CallbackQuery, event: Pressed) -> Toast | None:
        """Telegram has no native question: the first press of a dangerous button is answered with one, the second acts."""
        now_s, who = asyncio.get_running_loop().time(), (query.from_user.id, event.token)
        self._sure = {key: one for key, one in self._sure.items() if now_s - one.at_s <= SURE_S}
        first = self._sure.pop(who, None)
        # The same press delivered twice is not a second one.
        if first is not None and first.query != query.id:
            return None
        self._sure[who] = _First(query.id, now_s)
        language = event.sender.language if event.sender.language in LANGUAGES else ENGLISH
        return Toast(render(T("Press once more within {span} if you are sure.", span=Span(SURE_S)), language), alert=False)

    async def _answer(self, query: CallbackQuery, toast: Toast | None) -> None:
        from aiogram.exceptions import AiogramError
        from aiogram.methods import AnswerCallbackQuery

        text = _cut_units(clean(toast.text), TOAST_UNITS) if toast else None
        try:
            await self._ask(AnswerCallbackQuery(callback_query_id=query.id, text=text, show_alert=toast.alert if toast else None))
        except AiogramError as trouble:
            # Too old after some ten seconds; what the press did stands, and the message shows it.
            log.info("a press got no toast", why=_why(trouble))

    # Showing

    async def send(self, to: Address, reply: Reply, tokens: Mapping[str, str], *, again: bool = False) -> str:
        """Show a new message; gives its id. Raises SendFailed."""
        from aiogram.methods import SendMessage
        from aiogram.types import LinkPreviewOptions

        with _failures():
            shown = await self._show(
                SendMessage(
                    chat_id=int(self._current(to.chat)),
                    message_thread_id=int(to.thread) if to.thread else None,
                    text=draw(reply, to.language, self._clock.now(), again=again),
                    parse_mode="HTML",
                    link_preview_options=LinkPreviewOptions(is_disabled=True),
                    disable_notification=not reply.loud,
                    reply_markup=_keyboard(reply, tokens, to.language),
                )
            )
        return str(shown.message_id)

    async def edit(self, to: Address, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        """Replace a message with its buttons. Raises SendFailed."""
        from aiogram.exceptions import TelegramBadRequest
        from aiogram.methods import EditMessageText
        from aiogram.types import LinkPreviewOptions

        with _failures():
            try:
                await self._show(
                    EditMessageText(
                        chat_id=int(self._current(to.chat)),
                        message_id=int(message_id),
                        text=draw(reply, to.language, self._clock.now()),
                        parse_mode="HTML",
                        link_preview_options=LinkPreviewOptions(is_disabled=True),
                        reply_markup=_keyboard(reply, tokens, to.language),
                    )
                )
            except TelegramBadRequest as refused:
                if "message is not modified" not in refused.message:
                    raise

    async def _show(self, method: Shown) -> Any:  # noqa: ANN401 - a Message, or True for an edit
        """Deliver; what Telegram turns down for its form is tried in a plainer one, so that no alert is lost for its looks."""
        from aiogram.exceptions import TelegramBadRequest, TelegramMigrateToChat

        while True:
            try:
                return await self._ask(method)
            except TelegramMigrateToChat as moved:
                self._note_move(str(method.chat_id), str(moved.migrate_to_chat_id))
                method = method.model_copy(update={"chat_id": moved.migrate_to_chat_id})
            except TelegramBadRequest as refused:
                plainer = self._plainer(method, refused)
                if plainer is None:
                    raise
                method = plainer

    def _plainer(self, method: Shown, refused: TelegramBadRequest) -> Shown | None:
        """The message in a form that Telegram may take after this refusal; None when there is none."""
        words, thread = refused.message.lower(), getattr(method, "message_thread_id", None)
        if "can't parse entities" in words and method.parse_mode == "HTML":
            log.error("Telegram did not take our HTML, sent as plain text", why=_why(refused))
            return method.model_copy(update={"text": plain(method.text or ""), "parse_mode": None})
        if thread is not None and any(one in words for one in NO_THREAD):
            if (topic := (str(method.chat_id), thread)) not in self._closed_topics:
                self._closed_topics.add(topic)
                log.warning("the topic is closed or gone, sent without it", chat=topic[0], topic=thread)
            return method.model_copy(update={"message_thread_id": None})
        return None

    # Groups that became supergroups: the settings go on naming the old id until somebody changes them.

    def _note_move(self, old: str, new: str) -> None:
        if self._moved.get(old) != new:
            log.warning("a group has a new id; put it into the settings", old=old, new=new)
        self._moved[old] = new

    def _current(self, chat: str) -> str:
        return self._moved.get(chat, chat)

    def _settled(self, chat: str) -> str:
        """The id that the settings know a chat by."""
        return next((old for old, new in self._moved.items() if new == chat), chat)

    # Check

    async def check(self) -> tuple[tuple[bool, Text], ...]:
        """What can be wrong: the network, the token, a webhook, privacy mode, the deferred models."""
        from aiogram.exceptions import AiogramError
        from aiogram.methods import GetWebhookInfo

        lines = list(self._check_models())
        try:
            me = await self._greet()
            webhook = await self._ask(GetWebhookInfo())
        except ChatDown as down:
            return (*lines, (False, down.text))
        except AiogramError as trouble:
            words = T(
                "Telegram at {where} does not answer ({why}). Look at this machine's network and proxy.",
                where=Mono(self._api_base or "api.telegram.org"),
                why=Mono(_why(trouble)),
            )
            return (*lines, (False, words))
        finally:
            await self._close_if_idle()
        lines.append((True, T("Telegram knows the bot as {name}.", name=Mono(f"@{me.username}"))))
        if webhook.url:
            words = T("Another program set a webhook for the bot; memwarden takes it away at its start. Use a bot of its own.")
            lines.append((False, words))
        if not me.can_read_all_group_messages:
            words = T(
                "Privacy mode is on: in groups write {example}, or make the bot an admin, or switch it off at @BotFather and add"
                " the bot anew.",
                example=Mono(f"/mem@{me.username}"),
            )
            lines.append((True, words))
        return tuple(lines)

    def _check_models(self) -> Iterator[tuple[bool, Text]]:
        if self._light and not self._models.deferred:
            words = T(
                "aiogram's models are not deferred ({why}), which takes about 100 MB more. Install the versions of"
                " requirements.lock, or set telegram.light to false.",
                why=Mono(self._models.why),
            )
            yield False, words


def _why(trouble: BaseException) -> str:
    """An error in one line, without the token that URLs carry."""
    return cut(clean(hide(f"{type(trouble).__name__}: {trouble}")), 300)


def _poll_trouble(trouble: Exception) -> str:
    from aiogram.exceptions import TelegramConflictError

    if isinstance(trouble, ChatDown):
        return "Telegram does not know the bot's token any more"
    if isinstance(trouble, TelegramConflictError) and "webhook" not in trouble.message:
        return "another copy runs with this token: stop one of the two"
    return "Telegram cannot be asked for news, trying on"


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn aiogram's errors, by name, into what the outbox can act on."""
    from aiogram import exceptions

    try:
        yield
    except ChatDown as down:
        raise SendFailed(down.text.msgid, retry_after_s=PAUSE_S[1]) from None
    except exceptions.TelegramRetryAfter as busy:
        raise SendFailed(_why(busy), retry_after_s=float(busy.retry_after)) from busy
    except exceptions.TelegramForbiddenError as out:
        raise SendFailed(_why(out), permanent=True) from out
    except exceptions.TelegramBadRequest as refused:
        gone = any(one in refused.message.lower() for one in GONE)
        raise SendFailed(_why(refused), permanent=not gone, gone=gone) from refused
    except exceptions.TelegramNetworkError as lost:
        raise SendFailed(_why(lost), maybe_shown=not _never_left(lost)) from lost
    except (exceptions.TelegramServerError, exceptions.ClientDecodeError, UnicodeDecodeError) as odd:
        # A proxy's 502 or page of HTML says nothing of what Telegram did before.
        raise SendFailed(_why(odd), maybe_shown=True) from odd
    except exceptions.AiogramError as other:
        raise SendFailed(_why(other)) from other


def _never_left(lost: Exception) -> bool:
    """Whether there was no connection to send anything over."""
    from aiohttp import ClientConnectorError, ConnectionTimeoutError

    return isinstance(lost.__cause__, ClientConnectorError | ConnectionTimeoutError)


def _sender(person: User) -> Sender:
    language = (person.language_code or "").partition("-")[0]
    anonymous = person.is_bot or person.id == ANONYMOUS_ADMIN
    return Sender(str(person.id), cut(clean(person.full_name), LABEL_COLUMNS), language, anonymous)


def _passed_on(message: Message) -> str:
    """The text or caption that holds a log line of a kill; empty for every other one."""
    return next((text for text in (message.text, message.caption) if text and quoted(text) is not None), "")


def _author(message: Message, person: User, *, may_forward: bool = False) -> Sender:
    """Who wrote a message; nobody in particular when it was written as a chat, a channel or through a bot, or was forwarded.

    `may_forward`: it only asks, so that whoever forwarded it is the one who asks.
    """
    masked = message.sender_chat or message.via_bot or (message.forward_origin and not may_forward)
    return replace(_sender(person), anonymous=True) if masked else _sender(person)


def _note_membership(change: ChatMemberUpdated) -> None:
    log.info("the bot's place in a chat changed", chat=change.chat.id, now=change.new_chat_member.status)


def _keyboard(reply: Reply, tokens: Mapping[str, str], language: str) -> InlineKeyboardMarkup | None:
    """The reply's buttons; None takes a message's keyboard away."""
    from aiogram.types import InlineKeyboardMarkup

    rows = [row[at : at + ROW_BUTTONS] for row in reply.buttons for at in range(0, len(row), ROW_BUTTONS)]
    left, drawn = ALL_BUTTONS, []
    for row in rows:
        drawn.append([_button(button, tokens[button.command], language) for button in row[:left]])
        left -= len(drawn[-1])
    filled = [row for row in drawn if row]
    return InlineKeyboardMarkup(inline_keyboard=filled) if filled else None


def _button(button: Button, token: str, language: str) -> InlineKeyboardButton:
    from aiogram.types import InlineKeyboardButton

    label = cut(clean(render(button.label, language)), LABEL_COLUMNS).strip() or button.command
    twice = button.style == "danger" and button.confirm is not None
    return InlineKeyboardButton(text=label, callback_data=f"{SURE if twice else ''}{token}", style=LOOKS[button.style])


def _cut_units(text: str, most: int) -> str:
    if units(text) <= most:
        return text
    return text.encode("utf-16-le", "surrogatepass")[: 2 * (most - 1)].decode("utf-16-le", "ignore") + "…"
