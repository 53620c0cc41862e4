"""The Telegram emulator, spoken to by the real client over a real socket."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiogram import Bot, Dispatcher, F
from aiogram.client.default import DefaultBotProperties
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import (
    ClientDecodeError,
    TelegramBadRequest,
    TelegramConflictError,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramServerError,
    TelegramUnauthorizedError,
)
from aiogram.filters import Command
from aiogram.types import (
    BotCommand,
    BufferedInputFile,
    CallbackQuery,
    DisabledButton,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    MessageEntity,
    PhotoSize,
    ReplyParameters,
)
from aiogram.types import Message as AiogramMessage
from hypothesis import given
from hypothesis import strategies as st

from tests.emulators.telegram import (
    MODIFIED,
    STALE_QUERY,
    Call,
    Chat,
    FaultKind,
    Person,
    Refused,
    TelegramEmulator,
    parse_html,
    serving,
    utf16_length,
)

GROUP = -1001234567890
OWNER = Person(111111, "Olga", "olga", "ru")
STRANGER = Person(222222, "Stan")
ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 800, 400) + b"rest"


@asynccontextmanager
async def client(base_url: str, token: str) -> AsyncIterator[Bot]:
    session = AiohttpSession(api=TelegramAPIServer.from_base(base_url), timeout=5)
    bot = Bot(token, session=session, default=DefaultBotProperties(parse_mode="HTML"))
    try:
        yield bot
    finally:
        await session.close()


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as emulator:
        yield emulator


@pytest.fixture
def group(telegram: TelegramEmulator) -> Chat:
    return telegram.add_group(GROUP, members=[OWNER])


@pytest.fixture
async def bot(telegram: TelegramEmulator, group: Chat) -> AsyncIterator[Bot]:
    async with client(telegram.base_url, telegram.token) as connected:
        yield connected


@asynccontextmanager
async def polling(bot: Bot, dispatcher: Dispatcher, telegram: TelegramEmulator) -> AsyncIterator[None]:
    task = asyncio.create_task(dispatcher.start_polling(bot, handle_signals=False, close_bot_session=False, polling_timeout=20))
    await telegram.wait_for(lambda: telegram.is_polled)
    try:
        yield
    finally:
        await dispatcher.stop_polling()
        await task


def keyboard(*rows: list[tuple[str, str]]) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup(
        inline_keyboard=[[InlineKeyboardButton(text=label, callback_data=data) for label, data in row] for row in rows]
    )


APPROVE = keyboard([("Approve", "approve:1")], [("Decline", "decline:1")])


def approver() -> Dispatcher:
    """A bot of two answers: a card on /fix, and its end on Approve."""
    dispatcher = Dispatcher()

    @dispatcher.message(Command("fix", ignore_case=True))
    async def fix(message: AiogramMessage) -> None:
        await message.answer(f"<b>Plan</b> for {len(message.text or '')}", reply_markup=APPROVE)

    @dispatcher.callback_query(F.data == "approve:1")
    async def approve(query: CallbackQuery) -> None:
        await query.answer("Approved", show_alert=True)
        assert isinstance(query.message, AiogramMessage)
        await query.message.edit_text(f"Done by {query.from_user.first_name}")

    return dispatcher


# --- A conversation --------------------------------------------------------------------------------------------------


async def test_a_command_a_button_and_an_edit(telegram: TelegramEmulator, bot: Bot) -> None:
    async with polling(bot, approver(), telegram):
        telegram.say(GROUP, OWNER, "/Fix@memwarden_bot prod")
        card = await telegram.wait_for(lambda: telegram.shown(GROUP) and telegram.last(GROUP))
        assert card
        assert (card.text, card.html) == ("Plan for 23", "<b>Plan</b> for 23")
        assert card.buttons == [[("Approve", "approve:1", None)], [("Decline", "decline:1", None)]]

        query = telegram.press(card, "Approve", OWNER)
        await telegram.wait_for(lambda: card.edits)

    assert card.texts == ["Plan for 23", "Done by Olga"]
    assert card.buttons == [], "an edit without reply_markup takes the keyboard away"
    toast = telegram.toasts_of(query)[0]
    assert (toast.text, toast.alert, toast.person_id) == ("Approved", True, OWNER.id)
    assert (telegram.send_count, telegram.edit_count) == (1, 1)
    # The client asks who it is for `/fix@NAME`.
    assert {call.method for call in telegram.calls} == {
        "getMe",
        "getUpdates",
        "sendMessage",
        "answerCallbackQuery",
        "editMessageText",
    }


async def test_updates_wait_for_a_bot_that_is_away(telegram: TelegramEmulator, bot: Bot) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    telegram.say(GROUP, OWNER, "/fix prod", date=long_ago)
    update = (await bot.get_updates())[0]
    assert update.message
    assert update.message.date == long_ago.replace(microsecond=0)
    assert telegram.unconfirmed == [update.update_id], "reading is not confirming"
    assert (await bot.get_updates())[0].update_id == update.update_id
    assert await bot.get_updates(offset=update.update_id + 1) == []
    assert telegram.unconfirmed == []


async def test_an_update_is_delivered_once_more(telegram: TelegramEmulator, bot: Bot) -> None:
    async with polling(bot, approver(), telegram):
        update = telegram.say(GROUP, OWNER, "/fix")
        assert update
        await telegram.wait_for(lambda: telegram.send_count == 1)
        await telegram.wait_for(lambda: not telegram.unconfirmed)
        telegram.redeliver(update)
        await telegram.wait_for(lambda: telegram.send_count == 2)


async def test_a_long_poll_ends_with_the_first_update(telegram: TelegramEmulator, bot: Bot) -> None:
    waiting = asyncio.create_task(bot.get_updates(timeout=30, request_timeout=40))
    await telegram.wait_for(lambda: telegram.is_polled)
    telegram.say(GROUP, OWNER, "hello")
    assert [update.message and update.message.text for update in await asyncio.wait_for(waiting, 2)] == ["hello"]


async def test_offsets_limits_and_kinds(telegram: TelegramEmulator, bot: Bot) -> None:
    for number in range(5):
        telegram.say(GROUP, OWNER, str(number))
    assert len(await bot.get_updates(limit=2)) == 2
    newest = await bot.get_updates(offset=-1)
    assert [update.message and update.message.text for update in newest] == ["4"]
    assert len(telegram.unconfirmed) == 1, "a negative offset forgets the older ones"
    await bot.get_updates(offset=newest[-1].update_id + 1, allowed_updates=["callback_query"])
    assert telegram.say(GROUP, OWNER, "not asked for") is None


async def test_of_two_pollers_the_older_ends(telegram: TelegramEmulator, bot: Bot) -> None:
    older = asyncio.create_task(bot.get_updates(timeout=30, request_timeout=40))
    await telegram.wait_for(lambda: telegram.is_polled)
    newer = asyncio.create_task(bot.get_updates(timeout=30, request_timeout=40))
    with pytest.raises(TelegramConflictError, match="terminated by other getUpdates request"):
        await older
    telegram.say(GROUP, OWNER, "hello")
    assert len(await newer) == 1


async def test_a_webhook_stands_in_the_way_of_polling(telegram: TelegramEmulator, bot: Bot) -> None:
    telegram.webhook_url = "https://elsewhere.example/hook"
    telegram.say(GROUP, OWNER, "old")
    with pytest.raises(TelegramConflictError, match="webhook is active"):
        await bot.get_updates()
    assert (await bot.get_webhook_info()).url == telegram.webhook_url
    assert await bot.delete_webhook(drop_pending_updates=True)
    assert await bot.get_updates() == []


async def test_a_poll_of_a_lost_client_ends(telegram: TelegramEmulator, bot: Bot) -> None:
    task = asyncio.create_task(bot.get_updates(timeout=30, request_timeout=40))
    await telegram.wait_for(lambda: telegram.is_polled)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await bot.session.close()
    telegram.say(GROUP, OWNER, "kept")
    assert len(await bot.get_updates()) == 1


# --- Who speaks ------------------------------------------------------------------------------------------------------


async def test_who_speaks_is_told_as_telegram_tells_it(telegram: TelegramEmulator, bot: Bot) -> None:
    telegram.say(GROUP, OWNER, "a", as_anonymous_admin=True)
    telegram.say(GROUP, OWNER, "b", as_channel=True)
    telegram.say(GROUP, OWNER, "c", forwarded=True)
    telegram.say(OWNER.id, OWNER, "/start")
    anonymous, channel, forwarded, private = (update.message for update in await bot.get_updates())
    assert anonymous
    assert anonymous.from_user
    assert anonymous.sender_chat
    assert (anonymous.from_user.id, anonymous.sender_chat.id) == (1087968824, GROUP)
    assert channel
    assert channel.from_user
    assert channel.sender_chat
    assert channel.from_user.id == 136817688
    assert channel.sender_chat.id != GROUP
    assert forwarded
    assert forwarded.forward_origin
    assert private
    assert private.from_user
    assert private.entities
    assert (private.chat.type, private.from_user.language_code) == ("private", "ru")
    assert private.entities[0].type == "bot_command"


async def test_topics_and_replies_both_have_thread_ids(telegram: TelegramEmulator, bot: Bot) -> None:
    telegram.add_group(-1002, topics=[7])
    telegram.say(-1002, OWNER, "in a topic", thread=7)
    sent = await bot.send_message(GROUP, "a message")
    telegram.say(GROUP, OWNER, "a reply", reply_to=sent.message_id)
    topic, reply = (update.message for update in await bot.get_updates())
    assert topic
    assert reply
    assert (topic.message_thread_id, topic.is_topic_message) == (7, True)
    assert (reply.message_thread_id, reply.is_topic_message) == (sent.message_id, None)
    assert reply.reply_to_message
    answer = await bot.send_message(-1002, "there", message_thread_id=7)
    assert answer.message_thread_id == 7
    assert telegram.last(-1002).thread_id == 7


async def test_privacy_mode() -> None:
    async with TelegramEmulator(can_read_all_group_messages=False) as telegram:
        telegram.add_group(GROUP, members=[OWNER])
        async with client(telegram.base_url, telegram.token) as bot:
            assert (await bot.get_me()).can_read_all_group_messages is False
            assert telegram.say(GROUP, OWNER, "/mem") is None
            assert telegram.say(GROUP, OWNER, "chatter") is None
            assert telegram.say(GROUP, OWNER, "/mem@other_bot") is None
            assert telegram.say(GROUP, OWNER, "/mem@memwarden_bot")
            sent = await bot.send_message(GROUP, "hello")
            assert telegram.say(GROUP, OWNER, "/mem"), "the bot was the last to speak"
            assert telegram.say(GROUP, OWNER, "thanks", reply_to=sent.message_id)
            telegram.set_bot_status(GROUP, "administrator", OWNER)
            assert telegram.say(GROUP, OWNER, "chatter")


# --- Texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text", "kinds"),
    [
        ("plain", "plain", []),
        ("a &lt;b&gt; &amp; &quot;c&quot; &#65;&#x42;", 'a <b> & "c" AB', []),
        ("AT&T & &nbsp; &apos; &lt", "AT&T & &nbsp; &apos; <", []),
        ("1 > 0", "1 > 0", []),
        ("<b>bold <i>both</i></b>", "bold both", ["bold", "italic"]),
        ("<B>case</b>", "case", ["bold"]),
        ('<pre><code class="language-sh">x</code></pre>', "x", ["pre"]),
        ("<pre>x</pre>", "x", ["pre"]),
        ("<blockquote expandable>x</blockquote>", "x", ["expandable_blockquote"]),
        ("<a href='https://e.org/?a=1&amp;b=2'>x</a>", "x", ["text_link"]),
        ("<a href='nowhere'>x</a>", "x", []),
        ('<span class="tg-spoiler">x</span>', "x", ["spoiler"]),
        ("<b></b>x", "x", []),
        ("<b>x</>", "x", ["bold"]),
    ],
)
def test_html_is_read_as_telegram_reads_it(source: str, text: str, kinds: list[str]) -> None:
    parsed = parse_html(source)
    assert parsed.text == text
    assert [entity.type for entity in parsed.entities] == kinds


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a < b", 'Unsupported start tag "" at byte offset 2'),
        ("<node>", 'Unsupported start tag "node" at byte offset 0'),
        ("ж<div>x</div>", 'Unsupported start tag "div" at byte offset 2'),
        ("<b>x", 'Can\'t find end tag corresponding to start tag "b"'),
        ("<b><i>x</b></i>", 'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"'),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("x <b", "Unclosed start tag at byte offset 2"),
        ("<b>x</b", "Unclosed end tag at byte offset 4"),
        ("<a href='x", "Unclosed start tag at byte offset 0"),
        ("<a =x>y</a>", 'Empty attribute name in the tag "a" at byte offset 0'),
        ("<a href=x/y>y</a>", "Unexpected end of name token at byte offset 8"),
        ("<span>x</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
        ("<br/>", 'Unsupported start tag "br/" at byte offset 0'),
    ],
)
async def test_bad_html_is_refused(bot: Bot, telegram: TelegramEmulator, source: str, reason: str) -> None:
    with pytest.raises(TelegramBadRequest) as refusal:
        await bot.send_message(GROUP, source)
    assert refusal.value.message == f"Bad Request: can't parse entities: {reason}"
    assert telegram.shown(GROUP) == []


@given(st.text())
def test_escaped_text_comes_back(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert parse_html(f"<b>{escaped}</b>").text == text


@given(st.text(alphabet="<>/&;ab\"= '#x1ж\0", max_size=40))
def test_any_text_is_read_or_refused(source: str) -> None:
    try:
        parsed = parse_html(source)
    except Refused as refused:
        assert refused.description.startswith("Bad Request: can't parse entities: ")  # noqa: PT017  # either way is right
    else:
        assert all(entity.offset + entity.length <= utf16_length(parsed.text) for entity in parsed.entities)


async def test_length_counts_after_parsing_in_utf16(bot: Bot) -> None:
    await bot.send_message(GROUP, "<b>" + "&lt;" * 4096 + "</b>")
    await bot.send_message(GROUP, "😀" * 2048)
    for text in ("x" * 4097, "😀" * 2049):
        with pytest.raises(TelegramBadRequest, match="message is too long"):
            await bot.send_message(GROUP, text)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "message text is empty"), (" \n", "text must be non-empty"), ("<b></b>", "text must be non-empty")]
)
async def test_empty_text_is_refused(bot: Bot, text: str, reason: str) -> None:
    with pytest.raises(TelegramBadRequest, match=reason):
        await bot.send_message(GROUP, text)


async def test_entities_need_no_escaping_and_spaces_are_cut(bot: Bot, telegram: TelegramEmulator) -> None:
    bold = MessageEntity(type="bold", offset=2, length=3)
    await bot.send_message(GROUP, "  <b> \x07 \n", entities=[bold], parse_mode=None)
    face = telegram.last(GROUP).face
    assert (face.text, face.entities[0].offset, face.entities[0].length) == ("<b>", 0, 3)


async def test_silence_replies_and_actions_are_recorded(bot: Bot, telegram: TelegramEmulator, group: Chat) -> None:
    first = await bot.send_message(GROUP, "one", disable_notification=True)
    await bot.send_message(GROUP, "two", reply_parameters=ReplyParameters(message_id=first.message_id))
    await bot.send_chat_action(GROUP, "typing")
    one, two = telegram.shown(GROUP)
    assert (one.silent, two.silent, two.reply_to, group.actions) == (True, False, one.id, ["typing"])
    with pytest.raises(TelegramBadRequest, match="message to be replied not found"):
        await bot.send_message(GROUP, "x", reply_parameters=ReplyParameters(message_id=999))
    with pytest.raises(TelegramBadRequest, match="wrong parameter action"):
        await bot.send_chat_action(GROUP, "dancing")


# --- Buttons ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "reason"),
    [
        (keyboard([("x", "д" * 33)]), "BUTTON_DATA_INVALID"),
        (keyboard([(" ", "d")]), "BUTTON_TEXT_INVALID"),
        (keyboard([("x", "d")] * 9), "reply markup is too long"),
        (keyboard(*[[("x", "d")]] * 101), "reply markup is too long"),
        (keyboard(*[[("x" * 200, "d")]] * 60), "reply markup is too long"),
        (InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="x")]]), "Text buttons are unallowed"),
        (
            InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="x", callback_data="d", style="pink")]]),
            "Invalid button style",
        ),
    ],
)
async def test_bad_keyboards_are_refused(bot: Bot, markup: InlineKeyboardMarkup, reason: str) -> None:
    with pytest.raises(TelegramBadRequest, match=reason):
        await bot.send_message(GROUP, "x", reply_markup=markup)


async def test_keyboards_up_to_the_limits_pass(bot: Bot, telegram: TelegramEmulator) -> None:
    await bot.send_message(GROUP, "x", reply_markup=keyboard(*[[("x", "d" * 64)] * 8] * 12, [("y", "д" * 32)] * 4))
    assert len(telegram.last(GROUP).labels) == 100


async def test_styles_and_disabled_buttons(bot: Bot, telegram: TelegramEmulator) -> None:
    kill = InlineKeyboardButton(text="Kill", callback_data="kill", style="danger")
    off = InlineKeyboardButton(text="Off", disabled=DisabledButton())
    await bot.send_message(GROUP, "x", reply_markup=InlineKeyboardMarkup(inline_keyboard=[[kill, off]]))
    message = telegram.last(GROUP)
    assert message.buttons == [[("Kill", "kill", "danger"), ("Off", None, None)]]
    with pytest.raises(LookupError, match="no button 'Off'"):
        telegram.press(message, "Off", OWNER)


async def test_a_press_on_an_old_view(bot: Bot, telegram: TelegramEmulator) -> None:
    sent = await bot.send_message(GROUP, "x", reply_markup=APPROVE)
    await bot.edit_message_text("y", chat_id=GROUP, message_id=sent.message_id)
    message = telegram.last(GROUP)
    with pytest.raises(LookupError):
        telegram.press(message, "Approve", OWNER)
    telegram.press(message, "Approve", OWNER, stale=True, inaccessible=True)
    update = (await bot.get_updates())[0]
    assert update.callback_query
    assert update.callback_query.message
    assert update.callback_query.data == "approve:1"
    assert not isinstance(update.callback_query.message, AiogramMessage)


async def test_a_press_is_answered_once_and_in_time(bot: Bot, telegram: TelegramEmulator) -> None:
    await bot.send_message(GROUP, "x", reply_markup=APPROVE)
    message = telegram.last(GROUP)
    first, second = telegram.press(message, "Approve", OWNER), telegram.press(message, "decline:1", STRANGER)
    with pytest.raises(TelegramBadRequest, match="MESSAGE_TOO_LONG"):
        await bot.answer_callback_query(first, "x" * 201)
    await bot.answer_callback_query(first, "x" * 200)
    telegram.expire_query(second)
    for query in (first, second, "12345"):
        with pytest.raises(TelegramBadRequest, match=STALE_QUERY):
            await bot.answer_callback_query(query)
    assert [toast.query_id for toast in telegram.toasts] == [first]


async def test_a_late_answer_is_refused_by_the_clock() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with TelegramEmulator(clock=lambda: now) as telegram:
        telegram.add_group(GROUP)
        async with client(telegram.base_url, telegram.token) as bot:
            sent = await bot.send_message(GROUP, "x", reply_markup=APPROVE)
            query = telegram.press(telegram.last(GROUP), "Approve", OWNER)
            now += timedelta(seconds=16)
            with pytest.raises(TelegramBadRequest, match=STALE_QUERY):
                await bot.answer_callback_query(query)
            now += timedelta(hours=49)
            with pytest.raises(TelegramBadRequest, match="can't be deleted for everyone"):
                await bot.delete_message(GROUP, sent.message_id)


# --- Edits -----------------------------------------------------------------------------------------------------------


async def test_an_edit_must_change_something(bot: Bot, telegram: TelegramEmulator) -> None:
    sent = await bot.send_message(GROUP, "<b>x</b>", reply_markup=APPROVE)
    same: list[tuple[str, InlineKeyboardMarkup | None]] = [("<b>x</b>", APPROVE), ("<strong>x</strong> ", APPROVE)]
    for text, markup in same:
        with pytest.raises(TelegramBadRequest) as refusal:
            await bot.edit_message_text(text, chat_id=GROUP, message_id=sent.message_id, reply_markup=markup)
        assert refusal.value.message == f"Bad Request: {MODIFIED}"
    await bot.edit_message_text("x", chat_id=GROUP, message_id=sent.message_id, reply_markup=APPROVE)
    await bot.edit_message_text("x", chat_id=GROUP, message_id=sent.message_id)
    with pytest.raises(TelegramBadRequest, match="not modified"):
        await bot.edit_message_reply_markup(chat_id=GROUP, message_id=sent.message_id)
    edited = await bot.edit_message_reply_markup(chat_id=GROUP, message_id=sent.message_id, reply_markup=APPROVE)
    assert isinstance(edited, AiogramMessage)
    assert edited.reply_markup
    # Loaded light, aiogram leaves what the product never reads as it came: read it as the model here.
    assert InlineKeyboardMarkup.model_validate(edited.reply_markup).model_dump() == APPROVE.model_dump()
    assert (telegram.last(GROUP).labels, telegram.edit_count) == (["Approve", "Decline"], 3)


async def test_what_cannot_be_edited(bot: Bot, telegram: TelegramEmulator, group: Chat) -> None:
    telegram.say(GROUP, OWNER, "mine")
    sent = await bot.send_message(GROUP, "x")
    photo = await bot.send_photo(GROUP, BufferedInputFile(PNG, "chart.png"))

    async def refused(message_id: int, text: str, reason: str) -> None:
        with pytest.raises(TelegramBadRequest, match=reason):
            await bot.edit_message_text(text, chat_id=GROUP, message_id=message_id)

    await refused(group.said[0].id, "y", "message can't be edited")
    await refused(999, "y", "message to edit not found")
    await refused(photo.message_id, "y", "there is no text in the message to edit")
    await refused(sent.message_id, "y" * 4097, "MESSAGE_TOO_LONG")
    await refused(sent.message_id, "<b>", "can't parse entities")
    assert await bot.delete_message(GROUP, sent.message_id)
    await refused(sent.message_id, "y", "message to edit not found")
    with pytest.raises(TelegramBadRequest, match="message to delete not found"):
        await bot.delete_message(GROUP, sent.message_id)
    with pytest.raises(TelegramBadRequest, match="message can't be deleted"):
        await bot.delete_message(GROUP, group.said[0].id)
    assert [message.deleted for message in group.messages] == [True, False]


# --- Files -----------------------------------------------------------------------------------------------------------


async def test_files(bot: Bot, telegram: TelegramEmulator) -> None:
    photo = await bot.send_photo(GROUP, BufferedInputFile(PNG, "chart.png"), caption="<i>now</i>")
    assert photo.photo
    assert (PhotoSize.model_validate(photo.photo[0]).width, photo.caption) == (800, "now")
    await bot.edit_message_caption(chat_id=GROUP, message_id=photo.message_id, caption="then")
    document = await bot.send_document(GROUP, BufferedInputFile(b"log", "log.txt"))
    assert document.document
    shown = [(message.kind, message.text, message.file_name, message.file_bytes) for message in telegram.shown(GROUP)]
    assert shown == [("photo", "then", "chart.png", len(PNG)), ("document", "", "log.txt", 3)]


@pytest.mark.parametrize(
    ("content", "caption", "reason"),
    [
        (PNG, "x" * 1025, "message caption is too long"),
        (b"GIF89a", "", "IMAGE_PROCESS_FAILED"),
        (PNG[:16] + struct.pack(">II", 9000, 2000), "", "PHOTO_INVALID_DIMENSIONS"),
        (b"", "", "file must be non-empty"),
    ],
)
async def test_bad_photos_are_refused(bot: Bot, content: bytes, caption: str, reason: str) -> None:
    with pytest.raises(TelegramBadRequest, match=reason):
        await bot.send_photo(GROUP, BufferedInputFile(content, "chart.png"), caption=caption)


# --- Chats -----------------------------------------------------------------------------------------------------------


async def test_chats_and_members(bot: Bot, telegram: TelegramEmulator, group: Chat) -> None:
    group.members[OWNER.id] = "creator"
    telegram.set_bot_status(group, "administrator", OWNER)
    telegram.add_person(STRANGER.id, STRANGER.name)
    assert (await bot.get_chat(GROUP)).title == "ops"
    assert (await bot.get_chat_member(GROUP, bot.id)).status == "administrator"
    assert (await bot.get_chat_member(GROUP, STRANGER.id)).status == "left"
    assert [admin.user.id for admin in await bot.get_chat_administrators(GROUP)] == [OWNER.id, bot.id]
    with pytest.raises(TelegramBadRequest, match="user not found"):
        await bot.get_chat_member(GROUP, 999)
    telegram.open_private_chat(OWNER)
    with pytest.raises(TelegramBadRequest, match="no administrators in the private chat"):
        await bot.get_chat_administrators(OWNER.id)


async def test_chats_that_cannot_be_written_to(bot: Bot, telegram: TelegramEmulator, group: Chat) -> None:
    with pytest.raises(TelegramBadRequest, match="chat not found"):
        await bot.send_message(-5, "x")
    with pytest.raises(TelegramForbiddenError, match="can't initiate conversation"):
        await bot.send_message(OWNER.id, "x")
    telegram.set_bot_status(telegram.open_private_chat(OWNER), "kicked", OWNER)
    with pytest.raises(TelegramForbiddenError, match="bot was blocked by the user"):
        await bot.send_message(OWNER.id, "x")
    telegram.set_bot_status(group, "kicked", OWNER)
    with pytest.raises(TelegramForbiddenError, match="bot was kicked from the supergroup chat"):
        await bot.send_message(GROUP, "x")
    kicked = [update.my_chat_member for update in await bot.get_updates()]
    assert [change and change.new_chat_member.status for change in kicked] == ["kicked", "kicked"]


async def test_topics_that_are_gone_or_closed(bot: Bot, telegram: TelegramEmulator) -> None:
    forum = telegram.add_group(-1002, topics=[7, 8])
    telegram.close_topic(forum, 7)
    telegram.delete_topic(forum, 8)
    for thread, reason in ((7, "TOPIC_CLOSED"), (8, "message thread not found"), (1, "message thread not found")):
        with pytest.raises(TelegramBadRequest, match=reason):
            await bot.send_message(-1002, "x", message_thread_id=thread)
    with pytest.raises(TelegramBadRequest, match="message thread not found"):
        await bot.send_message(GROUP, "x", message_thread_id=3)


async def test_a_group_becomes_a_supergroup(bot: Bot, telegram: TelegramEmulator) -> None:
    telegram.add_group(-77, members=[OWNER])
    telegram.migrate(-77, -1000000000077)
    with pytest.raises(TelegramMigrateToChat) as refusal:
        await bot.send_message(-77, "x")
    assert refusal.value.migrate_to_chat_id == -1000000000077
    old, new = (update.message for update in await bot.get_updates())
    assert old
    assert new
    assert (old.migrate_to_chat_id, new.migrate_from_chat_id) == (-1000000000077, -77)
    await bot.send_message(-1000000000077, "x")


async def test_commands_are_registered_or_refused(bot: Bot, telegram: TelegramEmulator) -> None:
    assert await bot.set_my_commands([BotCommand(command="mem", description="Memory now")], language_code="ru")
    assert telegram.commands == {('{"type": "default"}', "ru"): [("mem", "Memory now")]}
    with pytest.raises(TelegramBadRequest, match="BOT_COMMAND_INVALID"):
        await bot.set_my_commands([BotCommand(command="Mem", description="x")])
    with pytest.raises(TelegramBadRequest, match="BOT_COMMAND_DESCRIPTION_INVALID"):
        await bot.set_my_commands([BotCommand(command="mem", description="x" * 257)])
    with pytest.raises(TelegramBadRequest, match="BOT_COMMANDS_TOO_MUCH"):
        await bot.set_my_commands([BotCommand(command="mem", description="x")] * 101)


async def test_wrong_tokens_and_unknown_methods(telegram: TelegramEmulator) -> None:
    async with client(telegram.base_url, "42:other") as stranger:
        with pytest.raises(TelegramUnauthorizedError):
            await stranger.get_me()
    async with aiohttp.ClientSession(telegram.base_url) as session:
        async with session.get(f"/bot{telegram.token}/dance") as response:
            assert (response.status, (await response.json())["description"]) == (404, "Not Found: method not found")
        async with session.get("/elsewhere") as response:
            assert response.status == 404


async def test_json_form_and_query_are_all_read(telegram: TelegramEmulator, group: Chat) -> None:
    url = f"/bot{telegram.token}/sendmessage"
    body = {"chat_id": GROUP, "text": "x", "reply_markup": {"inline_keyboard": [[{"text": "b", "callback_data": "d"}]]}}
    as_text = {"chat_id": str(GROUP), "text": "x", "reply_markup": json.dumps(body["reply_markup"])}
    parts = aiohttp.FormData(as_text, default_to_multipart=True)
    async with aiohttp.ClientSession(telegram.base_url) as session:
        for answer in (
            session.post(url, json=body),
            session.post(url, data=as_text),
            session.post(url, data=parts),
            session.get(url, params=as_text),
        ):
            async with answer as response:
                assert response.status == 200, await response.text()
        async with session.post(url, data=b"{", headers={"Content-Type": "application/json"}) as response:
            assert response.status == 400
    assert [message.labels for message in group.messages] == [["b"]] * 4


# --- Faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "shown"),
    [
        (FaultKind.RATE_LIMIT, TelegramRetryAfter, 0),
        (FaultKind.SERVER_ERROR, TelegramServerError, 0),
        (FaultKind.SERVER_ERROR_AFTER, TelegramServerError, 1),
        (FaultKind.CUT_BEFORE, TelegramNetworkError, 0),
        (FaultKind.CUT_AFTER, TelegramNetworkError, 1),
        (FaultKind.GARBAGE, ClientDecodeError, 1),
    ],
)
async def test_faults(bot: Bot, telegram: TelegramEmulator, kind: FaultKind, error: type[Exception], shown: int) -> None:
    await bot.send_message(GROUP, "before")
    telegram.faults.on(2, kind, retry_after_s=7)
    with pytest.raises(error) as failure:
        await bot.send_message(GROUP, "hit")
    assert getattr(failure.value, "retry_after", 7) == 7
    assert telegram.calls[-1].outcome == f"fault: {kind}"
    assert telegram.send_count == 1 + shown
    await bot.send_message(GROUP, "after")
    assert telegram.last(GROUP).text == "after"


async def test_a_fault_picks_its_calls(bot: Bot, telegram: TelegramEmulator) -> None:
    telegram.faults.on_method("editMessageText", FaultKind.CUT_BEFORE)
    telegram.faults.on(lambda call: call.params.get("text") == "bad", FaultKind.SERVER_ERROR, times=2, status=504)
    sent = await bot.send_message(GROUP, "good")
    for _ in range(2):
        with pytest.raises(TelegramServerError, match="Gateway Timeout"):
            await bot.send_message(GROUP, "bad")
    await bot.send_message(GROUP, "bad")
    with pytest.raises(TelegramNetworkError):
        await bot.edit_message_text("x", chat_id=GROUP, message_id=sent.message_id)
    telegram.faults.on(6, FaultKind.CUT_BEFORE)
    telegram.faults.clear()
    await bot.send_message(GROUP, "fine")


@pytest.mark.parametrize("kind", [FaultKind.DELAY, FaultKind.DELAY_AFTER])
async def test_a_client_that_gives_up_has_still_sent(bot: Bot, telegram: TelegramEmulator, kind: FaultKind) -> None:
    telegram.faults.on(1, kind, delay_s=0.3)
    with pytest.raises(TelegramNetworkError):
        await bot.send_message(GROUP, "slow", request_timeout=0.1)  # type: ignore[arg-type]  # floats pass too
    await telegram.wait_for(lambda: telegram.send_count == 1)


async def test_a_lost_poll_answer_loses_no_update(bot: Bot, telegram: TelegramEmulator) -> None:
    telegram.say(GROUP, OWNER, "hello")
    telegram.faults.on_method("getUpdates", FaultKind.CUT_AFTER)
    with pytest.raises(TelegramNetworkError):
        await bot.get_updates()
    assert len(await bot.get_updates()) == 1


async def test_hooks_see_every_stage_in_order(bot: Bot, telegram: TelegramEmulator) -> None:
    seen: list[tuple[str, int, int]] = []

    def hook(stage: str) -> Callable[[Call], None]:
        return lambda call: seen.append((stage, call.n, telegram.send_count))

    telegram.before, telegram.taken, telegram.answered = hook("before"), hook("taken"), hook("answered")
    await bot.send_message(GROUP, "x")
    await telegram.wait_for(lambda: len(seen) == 3)
    assert seen == [("before", 1, 0), ("taken", 1, 1), ("answered", 1, 1)]


async def test_a_held_call_waits_until_it_is_let_go(bot: Bot, telegram: TelegramEmulator) -> None:
    hold = telegram.hold(1, "taken")
    sending = asyncio.create_task(bot.send_message(GROUP, "x"))
    await hold.reached()
    assert hold.is_reached
    assert (telegram.send_count, sending.done()) == (1, False)
    hold.release()
    await sending


async def test_a_call_that_never_arrived_shows_nothing(bot: Bot, telegram: TelegramEmulator) -> None:
    hold = telegram.hold(1, "before")
    sending = asyncio.create_task(bot.send_message(GROUP, "x"))
    await hold.reached()
    hold.drop()
    with pytest.raises(TelegramNetworkError):
        await sending
    assert (telegram.send_count, telegram.calls[0].taken) == (0, False)


async def test_an_outage_keeps_chats_and_updates(bot: Bot, telegram: TelegramEmulator) -> None:
    await bot.send_message(GROUP, "x")
    await telegram.stop()
    with pytest.raises(TelegramNetworkError):
        await bot.send_message(GROUP, "y")
    telegram.say(GROUP, OWNER, "meanwhile")
    await telegram.start()
    assert len(await bot.get_updates()) == 1
    assert [message.text for message in telegram.shown(GROUP)] == ["x"]


async def test_waiting_in_vain_says_what_is_shown(bot: Bot, telegram: TelegramEmulator) -> None:
    await bot.send_message(GROUP, "something else")
    with pytest.raises(TimeoutError, match="something else"):
        await telegram.wait_for(lambda: False, timeout=0.05)


# --- The control API -------------------------------------------------------------------------------------------------


async def test_control_drives_a_whole_conversation() -> None:
    async with serving() as (telegram, control), aiohttp.ClientSession(f"http://127.0.0.1:{control.port}") as session:

        async def post(path: str, **body: object) -> dict[str, object]:
            async with session.post(path, json=body) as response:
                assert response.status == 200, await response.text()
                answer: dict[str, object] = await response.json()
                return answer

        async def get(path: str, **query: str | int) -> dict[str, object]:
            async with session.get(path, params=query) as response:
                assert response.status == 200, await response.text()
                answer: dict[str, object] = await response.json()
                return answer

        await post("/person", id=OWNER.id, name="Olga")
        await post("/group", id=GROUP, members=[OWNER.id])
        await post("/fault", method="sendMessage", kind="delay", delay_s=0.01)
        async with client(telegram.base_url, telegram.token) as bot, polling(bot, approver(), telegram):
            await get("/polled")
            await post("/say", chat=GROUP, person=OWNER.id, text="/fix", date="2026-01-01T00:00:00+00:00")
            card = await get("/wait", chat=GROUP, text="Plan", button="Approve")
            assert card["buttons"] == [[["Approve", "approve:1", None]], [["Decline", "decline:1", None]]]
            n = cast("int", (await get("/state"))["calls"]) + 1
            await post("/hold", n=n, stage="before")
            pressed = await post("/press", chat=GROUP, message=card["id"], button="Approve", person=OWNER.id)
            await get("/held", n=n, stage="before")
            assert telegram.toasts == []
            await post("/release", n=n, stage="before")
            toasts = cast("list[dict[str, object]]", await get("/toast", query=str(pressed["query"])))
            assert toasts[0]["text"] == "Approved"
            done = await get("/wait", chat=GROUP, text="Done by Olga")
            assert done["edits"] == ["Plan for 4"]
        state = await get("/state")
        assert (state["sends"], state["edits"], state["unconfirmed"]) == (1, 1, [])
        for path, status in (("/press", 404), ("/fault", 400)):
            async with session.post(path, json={"chat": 5, "kind": "cut"}) as response:
                assert response.status == status
        async with session.get("/wait", params={"chat": GROUP, "text": "never", "timeout_s": "0.05"}) as response:
            assert response.status == 408


async def test_it_runs_as_a_process_of_its_own() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.emulators.telegram", "--port", "0", "--control-port", "0",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{ready['control_url']}/group", json={"id": GROUP}) as response:
                assert response.status == 200
            async with client(ready["base_url"], "42:TEST-token") as bot:
                await bot.send_message(GROUP, "x")
            async with session.get(f"{ready['control_url']}/messages", params={"chat": GROUP}) as response:
                assert [message["text"] for message in await response.json()] == ["x"]
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
