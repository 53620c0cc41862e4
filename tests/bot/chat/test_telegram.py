"""Telegram's adapter: the real aiogram client against a strict server on a local port, its models deferred and not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bot.chat import _deferred
from bot.chat._html import MESSAGE, draw, plain, units
from bot.chat.base import Address, ChatDown, Pressed, Toast, Typed
from bot.chat.telegram import KEEPS, KINDS, POLL_S, Telegram
from bot.clock import SystemClock
from bot.dispatch import OLD_S, Desk, Dispatcher, prepare
from bot.i18n import render
from bot.outbox import Outbox
from bot.people import People
from bot.settings import ChatSettings, PersonSettings, Settings, TelegramSettings
from bot.store import Store
from handlers.command import Command
from handlers.reply import Button, Code, Fold, Line, Reply, Table, Title
from handlers.request import Request
from remote.text import Mono, T
from tests.bot.chat.contract import (
    APPROVE,
    CARD,
    HOSTILE,
    NETWORK,
    NOON,
    SHOWING,
    TOKENS,
    Check,
    Face,
    Recorder,
    everything,
    fails,
    named,
)
from tests.bot.waiting import until
from tests.clock import StandingClock
from tests.emulators.telegram import Chat as Group
from tests.emulators.telegram import FaultKind, Message, Params, Person, Refused, TelegramEmulator, parse_html

ROOT = Path(__file__).parents[3]
MODE = os.environ.get("MEMWARDEN_TEST_AIOGRAM", "")
GROUP = -1001234567890
OWNER = Person(111111, "Olga", "olga", "ru")
FIX = Reply((Title(T("fixed")),))
TWICE = Reply((Title(T("sure?")),), ((Button(T("End it"), "/end", "danger", T("For good?")),),))


async def _answer(request: Request) -> Reply:
    del request
    return FIX


COMMANDS = {
    "mem": Command("mem", T("Memory of a host"), "/mem HOST", _answer),
    "approve": Command("approve", T("Approve a plan"), "/approve ID", _answer, hidden=True),
}


class TelegramHarness:
    """The adapter, its emulator, and Olga in a group."""

    has_room = False

    def __init__(
        self,
        telegram: TelegramEmulator,
        *,
        token: str | None = None,
        light: bool = MODE != "plain",
        clock: StandingClock | None = None,
    ) -> None:
        self.telegram = telegram
        self.group: Group = telegram.add_group(GROUP, members=[OWNER])
        self.inbox = Recorder()
        self.place = Address("telegram", str(GROUP))
        given = telegram.token if token is None else token
        self.chat = Telegram(given, api_base=telegram.base_url, light=light, commands=COMMANDS, clock=clock)

    def message(self, message_id: str) -> Message:
        """What people see of it."""
        return next(one for one in self.group.messages if one.id == int(message_id))

    def face(self, message_id: str) -> Face:
        """Its words and buttons."""
        message = self.message(message_id)
        return Face(message.text, tuple(message.labels))

    async def type(self, text: str) -> None:
        """Olga writes in the group."""
        before = len(self.inbox.typed_events)
        self.telegram.say(GROUP, OWNER, text)
        await self.telegram.wait_for(lambda: self.telegram.is_polled)
        await until(lambda: len(self.inbox.typed_events) > before)

    async def paste(self, text: str) -> None:
        """As what is typed, in a group where the bot is told of everything."""
        self.telegram.can_read_all_group_messages = True
        await self.type(text)

    async def press(self, message_id: str, label: str) -> str:
        """Olga presses; gives the query's id once it is answered."""
        query = self.telegram.press(self.message(message_id), label, OWNER)
        await self.telegram.wait_for(lambda: self.telegram.queries[query].answered)
        return query

    def take_away(self, message_id: str) -> None:
        """Somebody deletes the message."""
        self.message(message_id).deleted = True

    def put_out(self) -> None:
        """Olga throws the bot out."""
        self.telegram.set_bot_status(self.group, "kicked", OWNER)

    def make_busy(self, after_s: int) -> None:
        """429."""
        self.telegram.faults.on(lambda call: call.method == "sendMessage", FaultKind.RATE_LIMIT, retry_after_s=after_s)

    def lose_next(self, *, taken: bool) -> None:
        """A broken connection."""
        self.telegram.faults.on_method("sendMessage", FaultKind.CUT_AFTER if taken else FaultKind.CUT_BEFORE)

    def shown_count(self) -> int:
        """Messages of the bot in the group."""
        return len(self.group.messages)

    def sent(self) -> dict[str, object]:
        """The arguments of the latest sendMessage."""
        return self.telegram.calls_of("sendMessage")[-1].params


@asynccontextmanager
async def running(telegram: TelegramEmulator, clock: StandingClock | None = None) -> AsyncIterator[TelegramHarness]:
    harness = TelegramHarness(telegram, clock=clock)
    await harness.chat.start(harness.inbox)
    try:
        await telegram.wait_for(lambda: telegram.is_polled)
        yield harness
    finally:
        await harness.chat.stop()


@pytest.fixture(autouse=True)
def no_wait_for_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiogram waits 250 ms for TLS connections to end; there are none here, and some seventy tests."""

    async def at_once(_: float) -> None: ...

    _deferred.load(light=MODE != "plain")
    monkeypatch.setattr("aiogram.client.session.aiohttp.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": at_once}))


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as emulator:
        yield emulator


@pytest.fixture
async def harness(telegram: TelegramEmulator) -> AsyncIterator[TelegramHarness]:
    async with running(telegram) as started:
        yield started


@pytest.mark.parametrize("check", [*SHOWING, *NETWORK], ids=named)
async def test_contract(check: Check, harness: TelegramHarness) -> None:
    await check(harness)


# --- A conversation --------------------------------------------------------------------------------------------------


class Answering(Recorder):
    """A tiny bot: a card for every command, and its end at the first press."""

    chat: Telegram

    async def typed(self, event: Typed) -> asyncio.Future[None]:
        """Answer with a card."""
        await self.chat.send(event.address, CARD, TOKENS)
        return await super().typed(event)

    async def pressed(self, event: Pressed) -> Toast | None:
        """Edit the card."""
        await super().pressed(event)
        await self.chat.edit(event.address, event.message_id, Reply((Title(T("done")),)), {})
        return Toast("Approved")


async def test_from_a_command_to_a_press_and_back(telegram: TelegramEmulator) -> None:
    harness = TelegramHarness(telegram)
    inbox = Answering()
    inbox.chat = harness.chat
    await harness.chat.start(inbox)
    telegram.say(GROUP, OWNER, "/fix@memwarden_bot prod")
    await telegram.wait_for(lambda: harness.group.messages)
    card = telegram.last(GROUP)
    assert card.buttons == [
        [("Approve", TOKENS["/approve 1"], "success"), ("Decline", TOKENS["/decline 1"], "danger")],
        [("Details", TOKENS["/details 1"], None)],
    ]
    query = telegram.press(card, "Approve", OWNER)
    await telegram.wait_for(lambda: telegram.toasts_of(query))
    assert card.texts == ["a plan\ntwo steps", "done"]
    assert card.buttons == []
    await harness.chat.stop()
    assert telegram.unconfirmed == [], "what was handled is confirmed"
    assert not [call for call in telegram.calls if call.outcome not in {"ok", "pending"}], "nothing of ours was refused"


# --- Markup ----------------------------------------------------------------------------------------------------------

WORDS = st.text(max_size=400)


@given(WORDS, WORDS, st.lists(WORDS, max_size=40))
def test_no_text_breaks_the_markup(name: str, words: str, lines: list[str]) -> None:
    blocks = (
        Title(T("{name} {words}", name=Mono(name), words=words), "warning"),
        Line(T("{words} {name}", name=Mono(name), words=words)),
        Table(((1, name), (words, 2.5, name))),
        Code(tuple(lines)),
        Code(tuple(lines), fold=True),
        Fold(T("{name}", name=Mono(name)), (Line(T("{words}", words=words)), Table(((name, words),)), Code((name, *lines)))),
        Title(T("the end")),
    )
    html = draw(Reply(blocks), "en", NOON, again=True)
    parsed = parse_html(html)
    assert parsed.text == plain(html)
    assert units(parsed.text) <= MESSAGE
    assert {entity.type for entity in parsed.entities} <= {"bold", "code", "pre", "expandable_blockquote"}


def test_hostile_names_are_read_back_as_they_are() -> None:
    for name in HOSTILE[:4]:
        assert name in plain(draw(Reply((Line(T("{name}", name=Mono(name))),)), "en"))


def test_our_own_marks_cannot_come_from_a_host() -> None:
    for value in ("\ue000x\ue001", Mono("\ue001x\ue000")):
        html = draw(Reply((Line(T("{a} and {b}", a=value, b="c")),)), "en")
        assert plain(html) == "\ufffdx\ufffd and c"
        assert html.count("<code>") == isinstance(value, Mono)


def test_folds_give_way_before_code_and_code_before_sentences() -> None:
    def lines(word: str, count: int) -> tuple[str, ...]:
        return tuple(f"{word} {n:03}" for n in range(count))

    reply = Reply(
        (Title(T("t")), Line(T("sentence")), Code(lines("code", 200)), Fold(T("log"), (Code(lines("fold", 300)),))), CARD.buttons
    )
    shown = plain(draw(reply, "en"))
    assert "code 199" in shown
    assert "fold 299" not in shown
    shown = plain(draw(Reply((*reply.blocks[:2], Code(lines("code", 600)), reply.blocks[3])), "en"))
    assert "sentence" in shown
    assert "code 000" in shown
    assert "code 599" not in shown
    assert "fold 000" not in shown
    assert "300 more lines are left out." in shown
    assert shown.count("left out") == 2
    assert MESSAGE - 200 < units(shown) <= MESSAGE, "no more than needed is left out"


def test_what_is_left_out_is_said_in_russian_too() -> None:
    shown = plain(draw(Reply((Title(T("t")), Code(tuple("слово" * 20 for _ in range(100))))), "ru"))
    assert units(shown) <= MESSAGE
    assert "слово" in shown


def test_blocks_look_as_they_should() -> None:
    html = draw(everything("a<b"), "en", NOON)
    assert html.splitlines()[0] == "<code>prod</code><b>: memory 93% used</b> 🔴"
    assert "<pre>systemctl stop a&lt;b\n  rm a&lt;b</pre>" in html
    assert "<blockquote expandable><code># undo a&lt;b</code></blockquote>" in html
    assert "<blockquote expandable><b>Why </b><code>a&lt;b</code>\n" in html
    assert "\n\n<b>and a second host</b> 🟢" in html


async def test_markup_that_telegram_does_not_take_is_sent_as_plain_text(harness: TelegramHarness) -> None:
    takes = harness.telegram._methods["sendmessage"]

    def picky(params: Params) -> object:
        if params.text("parse_mode"):
            raise Refused(400, "Bad Request: can't parse entities: a new rule")
        return takes(params)

    harness.telegram._methods["sendmessage"] = picky
    face = harness.face(await harness.chat.send(harness.place, everything("a<b"), TOKENS))
    assert face.text.startswith("prod: memory 93% used 🔴\na<b holds")
    assert face.buttons == ("Approve", "Decline", "Details")


# --- Sending ---------------------------------------------------------------------------------------------------------


async def test_only_what_is_loud_makes_a_sound_and_nothing_has_a_preview(harness: TelegramHarness) -> None:
    quiet = await harness.chat.send(harness.place, FIX, {})
    loud = await harness.chat.send(harness.place, Reply(FIX.blocks, loud=True), {})
    assert harness.message(quiet).silent
    assert not harness.message(loud).silent
    assert harness.sent()["link_preview_options"] == '{"is_disabled": true}'
    assert "message_thread_id" not in harness.sent()


async def test_a_topic_is_kept_to(telegram: TelegramEmulator) -> None:
    async with running(telegram) as harness:
        forum = telegram.add_group(-1009, topics=[7, 8])
        shown = await harness.chat.send(Address("telegram", "-1009", "7"), FIX, {})
        assert [message.thread_id for message in forum.messages if message.id == int(shown)] == [7]
        telegram.say(forum, OWNER, "/mem", thread=8)
        await until(lambda: bool(harness.inbox.typed_events))
        assert harness.inbox.typed_events[0].address == Address("telegram", "-1009", "8")


@pytest.mark.parametrize("end", ["close_topic", "delete_topic"])
async def test_a_topic_that_is_no_more_loses_no_message(telegram: TelegramEmulator, end: str) -> None:
    async with running(telegram) as harness:
        forum = telegram.add_group(-1009, topics=[7])
        getattr(telegram, end)(forum, 7)
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                await harness.chat.send(Address("telegram", "-1009", "7"), FIX, {})
        assert [message.thread_id for message in forum.messages] == [None, None]
        assert len([line for line in logs if "topic" in line["event"]]) == 1


async def test_a_group_that_became_a_supergroup_is_followed(harness: TelegramHarness) -> None:
    old = harness.telegram.add_group(-77, members=[OWNER])
    shown = await harness.chat.send(Address("telegram", "-77"), FIX, {})
    new = harness.telegram.migrate(old, -1009)
    await harness.chat.send(Address("telegram", "-77"), CARD, TOKENS)
    assert [message.text for message in new.messages] == ["a plan\ntwo steps"]
    harness.telegram.say(new, OWNER, "/mem")
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.inbox.typed_events[0].address.chat == "-77", "as the settings call it"
    query = harness.telegram.press(new.messages[0], "Details", OWNER)
    await harness.telegram.wait_for(lambda: harness.telegram.queries[query].answered)
    assert harness.inbox.pressed_events[0].address.chat == "-77"
    assert (await fails(harness.chat.edit(Address("telegram", "-77"), shown + "9", FIX, {}))).gone


@pytest.mark.parametrize("kind", [FaultKind.GARBAGE, FaultKind.SERVER_ERROR, FaultKind.SERVER_ERROR_AFTER])
async def test_an_odd_answer_may_have_been_shown(harness: TelegramHarness, kind: FaultKind) -> None:
    harness.telegram.faults.on_method("sendMessage", kind)
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert (failure.maybe_shown, failure.permanent, failure.gone) == (True, False, False)


async def test_without_a_connection_nothing_was_shown(telegram: TelegramEmulator) -> None:
    harness = TelegramHarness(telegram)
    await telegram.stop()
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert (failure.maybe_shown, failure.permanent) == (False, False)
    await harness.chat.stop()


async def test_a_chat_that_does_not_exist_is_given_up(harness: TelegramHarness) -> None:
    failure = await fails(harness.chat.send(Address("telegram", "-100555"), CARD, TOKENS))
    assert failure.permanent


async def test_an_ill_formed_token_is_no_crash_of_the_outbox() -> None:
    chat = Telegram("nonsense", commands={}, light=MODE != "plain")
    failure = await fails(chat.send(Address("telegram", "1"), CARD, TOKENS))
    assert failure.retry_after_s > 0


# --- Receiving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("/mem prod", "/mem prod"),
        ("/mem@memwarden_bot prod", "/mem prod"),
        ("/Mem@MemWarden_Bot   prod", "/Mem   prod"),
        ("/mem@other_bot prod", None),
        ("mem prod", None),
        ("hello", None),
    ],
)
async def test_in_a_group_only_our_commands_are_heard(harness: TelegramHarness, said: str, heard: str | None) -> None:
    harness.telegram.say(GROUP, OWNER, said)
    await harness.type("/last")
    texts = [event.text for event in harness.inbox.typed_events]
    assert texts == ([heard] if heard else []) + ["/last"]
    assert not any(event.private for event in harness.inbox.typed_events)


async def test_in_private_bare_words_are_heard(harness: TelegramHarness) -> None:
    update = harness.telegram.say(OWNER.id, OWNER, "mem prod")
    await until(lambda: bool(harness.inbox.typed_events))
    [event] = harness.inbox.typed_events
    assert (event.text, event.private, event.event_id) == ("mem prod", True, f"telegram:{update}")
    assert (event.sender.account, event.sender.shown, event.sender.language) == ("111111", "Olga", "ru")
    assert event.address == Address("telegram", "111111")


@pytest.mark.parametrize("mask", ["as_anonymous_admin", "as_channel", "forwarded"])
async def test_who_is_masked_is_nobody_in_particular(harness: TelegramHarness, mask: str) -> None:
    harness.telegram.say(GROUP, OWNER, "/approve 1", **{mask: True})  # type: ignore[arg-type]
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.inbox.typed_events[0].sender.anonymous


LINE = "Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?"


async def heard_in_the_group(harness: TelegramHarness, text: str, extra: dict[str, object]) -> Typed:
    harness.telegram.can_read_all_group_messages = True
    before = len(harness.inbox.typed_events)
    harness.telegram._hear(harness.group, OWNER, text, None, extra)
    await until(lambda: len(harness.inbox.typed_events) > before)
    return harness.inbox.typed_events[-1]


async def test_a_forwarded_line_is_asked_by_who_forwarded_it(harness: TelegramHarness) -> None:
    origin = {"type": "hidden_user", "date": 1_700_000_000, "sender_user_name": "Sentry"}
    event = await heard_in_the_group(harness, f"Sentry: {LINE}", {"forward_origin": origin})
    assert (event.sender.account, event.sender.anonymous, event.private) == (str(OWNER.id), False, False)
    assert event.text == f"Sentry: {LINE}"


@pytest.mark.parametrize("text", ["/approve 1", f"/approve 1 {LINE}", "/why prod 7"])
async def test_a_forwarded_command_is_nobodys_whatever_it_holds(harness: TelegramHarness, text: str) -> None:
    harness.telegram.say(GROUP, OWNER, text, forwarded=True)
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.inbox.typed_events[0].sender.anonymous


async def test_a_line_in_a_channels_name_is_nobodys(harness: TelegramHarness) -> None:
    event = await heard_in_the_group(harness, LINE, {"sender_chat": harness.group.as_json()})
    assert event.sender.anonymous


async def test_a_line_under_a_picture_is_heard_and_no_other_caption(harness: TelegramHarness) -> None:
    harness.telegram._hear(harness.group, OWNER, "", None, {"caption": "/approve 1"})
    harness.telegram._hear(harness.group, OWNER, "", None, {"caption": "look at this"})
    event = await heard_in_the_group(harness, "", {"caption": f"look: {LINE}"})
    assert harness.inbox.typed_events == [event]
    assert event.text == f"look: {LINE}"


async def test_other_text_in_a_group_stays_unheard(harness: TelegramHarness) -> None:
    harness.telegram.can_read_all_group_messages = True
    harness.telegram.say(GROUP, OWNER, "the worker 689792 was killed again?")
    await harness.type("/last")
    assert [event.text for event in harness.inbox.typed_events] == ["/last"]


async def test_a_message_in_a_chats_name_is_nobodys_whoever_sent_it(harness: TelegramHarness) -> None:
    harness.telegram._hear(harness.group, OWNER, "/approve 1", None, {"sender_chat": harness.group.as_json()})
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.inbox.typed_events[0].sender.anonymous


async def test_the_time_is_telegrams(harness: TelegramHarness) -> None:
    then = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    harness.telegram.say(GROUP, OWNER, "/fix prod", date=then)
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.inbox.typed_events[0].at == then


async def test_a_reply_in_an_ordinary_supergroup_is_no_topic(harness: TelegramHarness) -> None:
    shown = await harness.chat.send(harness.place, FIX, {})
    harness.telegram.say(GROUP, OWNER, "/mem", reply_to=int(shown))
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.inbox.typed_events[0].address.thread == ""


async def test_edited_messages_are_not_asked_for(harness: TelegramHarness) -> None:
    asked = {str(call.params["allowed_updates"]) for call in harness.telegram.calls_of("getUpdates")}
    assert asked == {str(KINDS).replace("'", '"')}


async def test_the_same_update_twice_has_one_id(harness: TelegramHarness) -> None:
    update = harness.telegram.say(GROUP, OWNER, "/mem")
    assert update
    await harness.telegram.wait_for(lambda: not harness.telegram.unconfirmed)
    harness.telegram.redeliver(update)
    await until(lambda: len(harness.inbox.typed_events) == 2)
    assert len({event.event_id for event in harness.inbox.typed_events}) == 1


async def test_an_update_nobody_can_read_does_not_stand_in_the_way(harness: TelegramHarness) -> None:
    harness.telegram._enqueue("message", {"message_id": "not a number", "chat": 5})
    await harness.type("/mem")
    await harness.telegram.wait_for(lambda: not harness.telegram.unconfirmed)
    assert [event.text for event in harness.inbox.typed_events] == ["/mem"]


async def test_being_thrown_out_is_no_surprise(harness: TelegramHarness) -> None:
    harness.telegram.set_bot_status(GROUP, "kicked", OWNER)
    await harness.telegram.wait_for(lambda: not harness.telegram.unconfirmed)
    harness.telegram.set_bot_status(GROUP, "member", OWNER)
    await harness.type("/mem")


# --- Presses ---------------------------------------------------------------------------------------------------------


async def test_a_press_is_answered_once_with_its_toast(harness: TelegramHarness) -> None:
    shown = await harness.chat.send(harness.place, CARD, TOKENS)
    harness.inbox.toast = Toast("You may not: <that needs> the role approver " + "😀" * 200, alert=True)
    query = await harness.press(shown, "Approve")
    [toast] = harness.telegram.toasts_of(query)
    assert toast.alert
    assert toast.text.startswith("You may not: <that needs> the role approver 😀")
    assert toast.text.endswith("😀…")
    assert len(harness.telegram.calls_of("answerCallbackQuery")) == 1
    [event] = harness.inbox.pressed_events
    assert (event.event_id, event.sender.account) == (f"telegram:cb:{query}", "111111")


async def test_a_press_without_a_toast_ends_its_turning(harness: TelegramHarness) -> None:
    shown = await harness.chat.send(harness.place, CARD, TOKENS)
    query = await harness.press(shown, "Approve")
    assert [toast.text for toast in harness.telegram.toasts_of(query)] == [""]


async def test_a_press_on_an_old_message_is_known_by_its_ids(harness: TelegramHarness) -> None:
    shown = await harness.chat.send(harness.place, CARD, TOKENS)
    harness.telegram.press(harness.message(shown), "Approve", OWNER, inaccessible=True)
    await until(lambda: bool(harness.inbox.pressed_events))
    [event] = harness.inbox.pressed_events
    assert (event.address, event.message_id, event.token) == (harness.place, shown, TOKENS["/approve 1"])


async def test_a_press_on_an_inline_message_is_nobodys(harness: TelegramHarness) -> None:
    harness.telegram._enqueue(
        "callback_query",
        {"id": "5", "from": OWNER.as_json(), "inline_message_id": "i", "chat_instance": "1", "data": TOKENS["/approve 1"]},
    )
    await until(lambda: bool(harness.inbox.pressed_events))
    assert harness.inbox.pressed_events[0].sender.anonymous
    assert harness.inbox.pressed_events[0].message_id == ""


async def test_a_late_answer_is_let_go(harness: TelegramHarness) -> None:
    shown = await harness.chat.send(harness.place, CARD, TOKENS)
    query = harness.telegram.press(harness.message(shown), "Approve", OWNER)
    harness.telegram.expire_query(query)
    await harness.telegram.wait_for(lambda: harness.telegram.calls_of("answerCallbackQuery"))
    await harness.type("/mem")
    assert len(harness.inbox.pressed_events) == 1


def ages_s(harness: TelegramHarness, clock: StandingClock) -> list[float]:
    """How old each press may be, as it is told."""
    return [(clock.now() - event.at).total_seconds() for event in harness.inbox.pressed_events]


async def test_a_press_may_be_as_old_as_what_was_fetched_before_it(telegram: TelegramEmulator, clock: StandingClock) -> None:
    async with running(telegram, clock) as harness:
        shown = await harness.chat.send(harness.place, CARD, TOKENS)
        await harness.press(shown, "Approve")
        clock.go(POLL_S)
        await harness.press(shown, "Approve")
        assert ages_s(harness, clock) == [POLL_S, POLL_S]
        await telegram.wait_for(lambda: telegram.is_polled)
        clock.go(OLD_S + 1)  # the machine sleeps: when its poll was answered meanwhile nobody knows
        await harness.press(shown, "Approve")
        await telegram.wait_for(lambda: telegram.is_polled)
        await harness.press(shown, "Approve")
        assert ages_s(harness, clock)[2:] == [OLD_S + 1, 0]


async def test_a_press_of_an_absence_is_told_apart_from_one_after_it(telegram: TelegramEmulator, clock: StandingClock) -> None:
    harness = TelegramHarness(telegram, clock=clock)
    shown = await harness.chat.send(harness.place, CARD, TOKENS)
    telegram.press(harness.message(shown), "Approve", OWNER)
    await harness.chat.start(harness.inbox)
    await telegram.wait_for(lambda: telegram.is_polled)
    await harness.press(shown, "Approve")
    assert ages_s(harness, clock) == [KEEPS.total_seconds(), 0]
    await harness.chat.stop()


async def test_a_press_made_while_the_bot_was_away_does_not_act_and_one_made_after_it_does(
    telegram: TelegramEmulator, store: Store
) -> None:
    done: list[str] = []

    async def approve(request: Request) -> Reply:
        done.append(request.event_id)
        return Reply((Title(T("it runs")),), key="plan:1")

    harness, clock = TelegramHarness(telegram), SystemClock()
    people = People(
        Settings(
            telegram=TelegramSettings.model_validate({"token": telegram.token}),
            chats={"ops": ChatSettings(telegram=str(GROUP))},
            people={"olga": PersonSettings(telegram=str(OWNER.id), role="admin")},
        )
    )
    commands = {"approve": Command("approve", T("Approve a plan"), "/approve ID", approve, effects=True)}
    outbox = Outbox(store, {"telegram": harness.chat}, clock)
    desk = Desk(Dispatcher(prepare(commands, {}), clock), people, outbox, store, clock)
    async with store.begin() as tx:
        await outbox.post(tx, harness.place, Reply((Title(T("a plan")),), ((APPROVE,),), key="plan:1"), "plan:1")
    delivery = asyncio.create_task(outbox.run())
    await telegram.wait_for(lambda: harness.group.messages)
    card = telegram.last(GROUP)
    early = telegram.press(card, "Approve", OWNER)
    telegram.expire_query(early)

    await harness.chat.start(desk)
    await telegram.wait_for(lambda: len(harness.group.messages) == 2)
    words = "/approve 1 was pressed while I was away. I did not do it; press it again if you still want it."
    assert [message.text for message in harness.group.messages] == ["a plan", words]
    assert done == []
    await telegram.wait_for(lambda: telegram.is_polled)
    again = telegram.press(card, "Approve", OWNER)
    await telegram.wait_for(lambda: card.text == "it runs")
    assert done == [f"telegram:cb:{again}"]
    await harness.chat.stop()
    delivery.cancel()
    await asyncio.gather(delivery, return_exceptions=True)


async def test_an_inbox_that_fails_still_ends_the_turning(harness: TelegramHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(event: object) -> Toast | None:
        raise RuntimeError(str(event))

    shown = await harness.chat.send(harness.place, CARD, TOKENS)
    monkeypatch.setattr(harness.inbox, "pressed", broken)
    with structlog.testing.capture_logs() as logs:
        await harness.press(shown, "Approve")
        await harness.type("/mem")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["an update was not handled"]


async def test_a_dangerous_button_that_asks_is_pressed_twice(harness: TelegramHarness) -> None:
    shown = await harness.chat.send(harness.place, TWICE, {"/end": "TOKEN"})
    first = await harness.press(shown, "End it")
    assert harness.inbox.pressed_events == []
    assert harness.telegram.toasts_of(first)[0].text
    harness.telegram.redeliver(max(harness.telegram._sent_updates))
    await harness.telegram.wait_for(lambda: len(harness.telegram.calls_of("answerCallbackQuery")) == 2)
    assert harness.inbox.pressed_events == [], "the same press once more is not a second one"
    other = Person(222222, "Stan")
    harness.telegram.press(harness.message(shown), "End it", other)
    await harness.telegram.wait_for(lambda: len(harness.telegram.calls_of("answerCallbackQuery")) == 3)
    assert harness.inbox.pressed_events == [], "nor is somebody else's"
    await harness.press(shown, "End it")
    assert [event.token for event in harness.inbox.pressed_events] == ["TOKEN"]


# --- Start and stop --------------------------------------------------------------------------------------------------


async def test_what_was_taken_is_handled_to_its_end(telegram: TelegramEmulator) -> None:
    async with running(telegram) as harness:
        harness.inbox.answered.clear()
        await harness.type("/mem prod")
        stopping = asyncio.create_task(harness.chat.stop())
        await until(lambda: harness.chat._polling is None)
        assert not stopping.done()
        harness.inbox.answered.set()
        await stopping
        assert telegram.unconfirmed == []


async def test_updates_wait_a_moment_for_their_answer(harness: TelegramHarness) -> None:
    harness.inbox.answered.clear()
    harness.telegram.say(GROUP, OWNER, "/mem prod")
    await until(lambda: bool(harness.inbox.typed_events))
    assert harness.telegram.unconfirmed, "a crash in this moment loses nothing"
    await harness.telegram.wait_for(lambda: not harness.telegram.unconfirmed)
    harness.inbox.answered.set()


async def test_a_slow_answer_does_not_hold_the_next(harness: TelegramHarness) -> None:
    harness.inbox.answered.clear()
    await harness.type("/slow")
    await harness.type("/quick")
    harness.inbox.answered.set()


async def test_an_unknown_token_is_said_in_one_line(telegram: TelegramEmulator) -> None:
    for token in ("42:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "nonsense", ""):
        harness = TelegramHarness(telegram, token=token)
        with pytest.raises(ChatDown) as caught:
            await harness.chat.start(harness.inbox)
        assert "@BotFather" in render(caught.value.text, "en")
        assert [fine for fine, _ in await harness.chat.check()] == [False]


async def test_a_network_that_is_down_holds_no_start(telegram: TelegramEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.chat.telegram.PAUSE_S", (0.02, 0.05))
    await telegram.stop()
    harness = TelegramHarness(telegram)
    await harness.chat.start(harness.inbox)
    await telegram.start()
    await telegram.wait_for(lambda: telegram.is_polled)
    await harness.type("/mem@memwarden_bot")
    await harness.chat.stop()


async def test_a_network_that_breaks_is_come_back_to(harness: TelegramHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.chat.telegram.PAUSE_S", (0.02, 0.05))
    for kind in (FaultKind.SERVER_ERROR, FaultKind.CUT_AFTER, FaultKind.GARBAGE, FaultKind.RATE_LIMIT):
        harness.telegram.faults.on(lambda call: call.is_poll, kind, retry_after_s=1)
        await harness.type(f"/{kind.name}")
        await harness.telegram.wait_for(lambda: not harness.telegram.unconfirmed)


async def test_another_copy_is_named_once(harness: TelegramHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.chat.telegram.PAUSE_S", (0.02, 0.05))

    def conflict(_: Params) -> object:
        raise Refused(409, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running")

    with structlog.testing.capture_logs() as logs:
        polls = len(harness.telegram.calls_of("getUpdates"))
        monkeypatch.setattr(harness.telegram, "_poll", conflict)
        harness.telegram.say(GROUP, OWNER, "/mem")
        await harness.telegram.wait_for(lambda: len(harness.telegram.calls_of("getUpdates")) > polls + 3)
        monkeypatch.undo()
        await until(lambda: bool(harness.inbox.typed_events))
    warned = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert warned == ["another copy runs with this token: stop one of the two"]
    assert not any("TEST-token" in str(line) for line in logs)


async def test_a_webhook_is_taken_away(telegram: TelegramEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.chat.telegram.PAUSE_S", (0.02, 0.05))
    telegram.webhook_url = "https://example.org/secret"
    async with running(telegram) as harness:
        assert telegram.webhook_url == ""
        telegram.webhook_url = "https://example.org/anew"
        telegram._notify()
        telegram.say(GROUP, OWNER, "/mem")
        await until(lambda: bool(harness.inbox.typed_events))
        await telegram.wait_for(lambda: telegram.webhook_url == "" or not telegram.unconfirmed)


async def test_the_menu_has_both_languages_and_nothing_hidden(harness: TelegramHarness) -> None:
    menus = {language: [name for name, _ in menu] for (_, language), menu in harness.telegram.commands.items()}
    assert menus == {"": ["mem"], "ru": ["mem"]}


async def test_a_menu_that_is_refused_is_no_failure(telegram: TelegramEmulator) -> None:
    telegram.faults.on_method("setMyCommands", FaultKind.SERVER_ERROR)
    async with running(telegram) as harness:
        await harness.type("/mem")


# --- Check -----------------------------------------------------------------------------------------------------------


async def checked(harness: TelegramHarness) -> list[tuple[bool, str]]:
    return [(fine, render(text, "en")) for fine, text in await harness.chat.check()]


async def test_check_of_a_bot_in_order(telegram: TelegramEmulator) -> None:
    assert await checked(TelegramHarness(telegram)) == [(True, "Telegram knows the bot as @memwarden_bot.")]


async def test_check_tells_of_privacy_mode_and_a_webhook(telegram: TelegramEmulator) -> None:
    telegram.can_read_all_group_messages = False
    telegram.webhook_url = "https://example.org/hook"
    lines = await checked(TelegramHarness(telegram))
    assert [fine for fine, _ in lines] == [True, False, True]
    assert "webhook" in lines[1][1]
    assert "/mem@memwarden_bot" in lines[2][1]


async def test_check_of_a_network_that_is_down(telegram: TelegramEmulator) -> None:
    await telegram.stop()
    [(fine, words)] = await checked(TelegramHarness(telegram))
    assert not fine
    assert telegram.base_url in words
    assert "TEST-token" not in words


async def test_check_tells_that_the_models_are_not_deferred(telegram: TelegramEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deferred, "_done", [_deferred.Loaded(deferred=False, why="version 9.9 was not tried")])
    with structlog.testing.capture_logs() as logs:
        lines = await checked(TelegramHarness(telegram, light=True))
    assert lines[0][0] is False
    assert "version 9.9 was not tried" in lines[0][1]
    assert logs[0]["log_level"] == "warning"
    assert [fine for fine, _ in await checked(TelegramHarness(telegram, light=False))] == [True]


# --- aiogram, deferred and plain -------------------------------------------------------------------------------------

REPORT = """
from bot.chat import _deferred
{before}
loaded = _deferred.load(light={light})
from pydantic import BaseModel
from aiogram.types import Gift, Update
Update.model_validate({{"update_id": 1}})
print(loaded.deferred, loaded.why, Gift.__pydantic_complete__, BaseModel.model_rebuild.__module__, sep="|")
"""


def report(before: str = "", *, light: bool = True) -> tuple[list[str], str]:
    """[deferred, why not, whether an unused model is built, whose BaseModel.model_rebuild is] in a fresh interpreter, its log."""
    code = REPORT.format(before=before, light=light)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    return last.split("|"), "\n".join(said)


if MODE:

    def test_aiogram_is_imported_as_this_run_asks() -> None:
        assert _deferred.load(light=MODE != "plain").deferred is (MODE == "deferred")

else:

    def test_everything_here_holds_the_other_way_too() -> None:
        deferred = _deferred.load(light=True).deferred
        other = {**os.environ, "MEMWARDEN_TEST_AIOGRAM": "plain" if deferred else "deferred"}
        again = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__).relative_to(ROOT))]
        done = subprocess.run(again, cwd=ROOT, env=other, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-4000:]

    def test_models_are_built_when_they_are_needed() -> None:
        assert report() == (["True", "", "False", "pydantic.main"], "")

    def test_a_setting_turns_it_off() -> None:
        assert report(light=False) == (["False", "", "True", "pydantic.main"], "")

    @pytest.mark.parametrize(
        ("before", "why"),
        [
            ("_deferred.AIOGRAM = ((3, 99), (4, 0))", "was not tried"),
            ("_deferred.PYDANTIC = ((2, 0), (2, 1))", "was not tried"),
            ("import aiogram", "aiogram was imported before"),
            ("_deferred._UPDATES[0]['message'] = 5", "ValidationError"),
            ("_deferred._build_on_first_use = lambda: None", "Pydantic"),
        ],
        ids=["aiogram", "pydantic", "imported", "self-test", "unbuilt"],
    )
    def test_anything_off_gives_way_to_the_plain_import(before: str, why: str) -> None:
        (deferred, reason, built, rebuild), log = report(before)
        assert (deferred, built, rebuild) == ("False", "True", "pydantic.main")
        assert why in reason
        assert "aiogram's models are not deferred" in log
