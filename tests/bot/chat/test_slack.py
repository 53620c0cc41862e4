"""Slack's adapter: the real slack_bolt and slack_sdk against the strict emulator."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.chat.base import Address, ChatDown, Pressed, SendFailed, Toast, Typed
from bot.chat.blockkit import blocks, plain_text, preview
from bot.chat.slack import SCOPES, Slack
from bot.i18n import render
from handlers import discover
from handlers.reply import Button, Code, Fold, Line, Meter, Reply, Table, Title
from remote.text import Mono, Percent, Size, T
from tests.bot.chat.contract import NETWORK, SHOWING, Check, Face, Recorder, named
from tests.emulators.faults import Kind
from tests.emulators.slack import BOT_USER, Message
from tests.emulators.slack import Slack as Emulator
from tests.emulators.slack_blocks import blocks_seen, chars_in, problems_of

V = TypeVar("V")

OPS = Address("slack", "C0OPS")
MANIFEST = Path(__file__).parents[3] / "deploy" / "slack-manifest.yaml"
HOSTILE = "<!channel> <@U0ALICE> <http://evil|safe> *x* `y` ```z``` &amp; \x1b[31m\u202e:boom:"


class Listening:
    """An Inbox that keeps what it hears and answers presses with one toast."""

    def __init__(self, toast: Toast | None = None) -> None:
        self.heard: list[Typed] = []
        self.presses: list[Pressed] = []
        self.toast = toast
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()

    async def typed(self, event: Typed) -> asyncio.Future[None]:
        await self.gate.wait()
        self.heard.append(event)
        self._changed.set()
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def pressed(self, event: Pressed) -> Toast | None:
        await self.gate.wait()
        self.presses.append(event)
        self._changed.set()
        return self.toast

    async def until(self, look: Callable[[], V]) -> V:
        """The first true value, looked at after each event."""
        async with asyncio.timeout(5):
            while not (value := look()):
                self._changed.clear()
                await self._changed.wait()
            return value


def make(emulator: Emulator, *, bot_token: str | None = None, app_token: str | None = None) -> Slack:
    return Slack(
        bot_token or emulator.bot_token,
        app_token or emulator.app_token,
        base_url=emulator.base_url,
        commands=discover(),
    )


@asynccontextmanager
async def connected(inbox: Listening, **options: float) -> AsyncIterator[tuple[Emulator, Slack]]:
    async with Emulator(**options) as emulator:  # type: ignore[arg-type]
        slack = make(emulator)
        await slack.start(inbox)
        await emulator.sockets.connected()
        try:
            yield emulator, slack
        finally:
            await slack.stop()


def card(title: str = "prod: 93% used", *more: Line | Table | Meter | Code | Fold, buttons: tuple[Button, ...] = ()) -> Reply:
    return Reply((Title(T(title), "critical"), *more), (buttons,) if buttons else ())


APPROVE = Button(T("Approve"), "/approve 4K7Q", "good")
DECLINE = Button(T("Decline"), "/decline 4K7Q", "danger", confirm=T("Really decline {plan}?", plan=Mono("4K7Q")))
TOKENS = {APPROVE.command: "token-a", DECLINE.command: "token-d"}


# What every chat does


@dataclass
class Harness:
    """Slack for the contract: channel C0OPS, and Alice who writes there."""

    chat: Slack
    inbox: Recorder
    emulator: Emulator
    place: Address = OPS
    has_room: bool = False

    def message(self, message_id: str) -> Message:
        found = self.emulator.channels["C0OPS"].find(message_id)
        assert found is not None
        return found

    def face(self, message_id: str) -> Face:
        message = self.message(message_id)
        words = blocks_seen([block for block in message.blocks if block["type"] != "actions"])
        return Face(SIGN.sub("", words), tuple(button.label for button in message.buttons))

    async def type(self, text: str) -> None:
        command, _, words = text.partition(" ")
        before = len(self.inbox.typed_events)
        await self.emulator.slash(command, words)
        await eventually(lambda: len(self.inbox.typed_events) > before)

    async def paste(self, text: str) -> None:
        before = len(self.inbox.typed_events)
        await self.emulator.mention(text)
        await eventually(lambda: len(self.inbox.typed_events) > before)

    async def press(self, message_id: str, label: str) -> None:
        before = len(self.inbox.pressed_events)
        await self.emulator.press(self.message(message_id), label)
        await eventually(lambda: len(self.inbox.pressed_events) > before)

    def take_away(self, message_id: str) -> None:
        self.emulator.world.delete(self.message(message_id))

    def put_out(self) -> None:
        self.emulator.channels["C0OPS"].members.discard(BOT_USER)

    def make_busy(self, after_s: int) -> None:
        self.emulator.faults.on("chat.postMessage", Kind.RATE_LIMITED, seconds=after_s)

    def lose_next(self, *, taken: bool) -> None:
        self.emulator.faults.on("chat.postMessage", Kind.CUT_AFTER if taken else Kind.CUT_BEFORE)

    def shown_count(self) -> int:
        return len(self.emulator.channels["C0OPS"].from_bot)


SIGN = re.compile(r"^:[a-z_]+: ", re.MULTILINE)


async def eventually(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - the recorder has no event of its own
            await asyncio.sleep(0.005)


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with Emulator() as emulator:
        chat, inbox = make(emulator), Recorder()
        await chat.start(inbox)
        await emulator.sockets.connected()
        yield Harness(chat, inbox, emulator)
        await chat.stop()
        assert emulator.pings == []
        assert all(message.links == [] for message in emulator.bot_messages)


@pytest.mark.parametrize("check", [*SHOWING, *NETWORK], ids=named)
async def test_contract(check: Check, harness: Harness) -> None:
    await check(harness)


# What people do


async def test_a_slash_command_is_acked_and_heard() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        delivery = await (await emulator.slash("/mem", "prod & <web>")).settled()
        (event,) = await inbox.until(lambda: inbox.heard)
        assert delivery.acked
        assert event.text == "/mem prod & <web>"
        assert event.address == OPS
        assert (event.sender.account, event.sender.home, event.private) == ("T0HOME/U0ALICE", True, False)
        assert event.event_id == f"slack:{delivery.payload['trigger_id']}"


async def test_it_is_acked_while_the_work_hangs() -> None:
    inbox = Listening()
    async with connected(inbox, ack_deadline_s=0.5) as (emulator, _):
        inbox.gate.clear()
        delivery = await (await emulator.slash("/mem")).settled()
        assert delivery.acked
        assert inbox.heard == []
        inbox.gate.set()
        await inbox.until(lambda: inbox.heard)


@pytest.mark.parametrize(
    ("command", "text", "heard"),
    [("/memwarden", "top prod", "top prod"), ("/memwarden", "", "/help"), ("/nonsense", "mem prod", "mem prod")],
)
async def test_the_apps_own_name_takes_any_command(command: str, text: str, heard: str) -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        delivery = await (await emulator.slash(command, text)).settled()
        (event,) = await inbox.until(lambda: inbox.heard)
        assert delivery.acked
        assert event.text == heard


async def test_a_mention_in_a_thread_is_answered_there() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, slack):
        root = emulator.say("look at prod")
        delivery = await emulator.mention("mem <http://prod.example.com|prod.example.com>", thread_ts=root.ts)
        (event,) = await inbox.until(lambda: inbox.heard)
        assert event.address == Address("slack", "C0OPS", root.ts)
        assert event.event_id == f"slack:{delivery.payload['event_id']}"
        await slack.send(event.address, card(), {})
        assert [message.thread_ts for message in emulator.bot_messages] == [root.ts]


@pytest.mark.parametrize(
    ("typed", "heard"),
    [
        ("mem prod", "mem prod"),
        ("/top prod 5", "/top prod 5"),
        ("  `mem`  ", "mem"),
        ("", "/help"),
        ("why a&b", "why a&b"),
    ],
)
async def test_a_mention_is_read_without_slacks_marks(typed: str, heard: str) -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        await emulator.mention(typed)
        (event,) = await inbox.until(lambda: inbox.heard)
        assert event.text == heard


LINE = "Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?"


@pytest.mark.parametrize(
    ("before", "shared", "heard"),
    [
        (f"{LINE} ", [], f"{LINE} @U0BOT"),
        ("", [{"text": f"Sentry: {LINE}", "fallback": "x"}], f"Sentry: {LINE}"),
        ("hey ", [{"text": "lunch?"}, "odd", {"text": None}], "/help"),
        ("hey ", None, "/help"),
    ],
)
async def test_a_line_before_the_mention_or_in_a_shared_message_is_heard(
    before: str, shared: list[object] | None, heard: str
) -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        message = emulator.say(f"{before}<@{BOT_USER}>")
        payload = emulator._event(message, {"type": "app_mention", "attachments": shared})
        await emulator.sockets.deliver("events_api", payload, label="app_mention")
        (event,) = await inbox.until(lambda: inbox.heard)
        assert event.text == heard.replace("@U0BOT", f"@{BOT_USER}")
        assert not event.sender.anonymous


async def test_a_command_stays_one_whatever_was_shared_with_it() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        message = emulator.say(f"<@{BOT_USER}> mem prod")
        payload = emulator._event(message, {"type": "app_mention", "attachments": [{"text": LINE}]})
        await emulator.sockets.deliver("events_api", payload, label="app_mention")
        (event,) = await inbox.until(lambda: inbox.heard)
        assert event.text == "mem prod"


async def test_a_direct_message_is_private_and_the_bots_own_words_are_not_heard() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, slack):
        await emulator.dm("mem prod")
        (event,) = await inbox.until(lambda: inbox.heard)
        assert event.private
        message = await slack.send(event.address, card(), {})
        await slack.edit(event.address, message, card("prod: 70% used"), {})
        await emulator.dm("top")
        await inbox.until(lambda: len(inbox.heard) == 2)
        assert [one.text for one in inbox.heard] == ["mem prod", "top"]


async def test_the_same_user_id_of_another_team_is_somebody_else() -> None:
    inbox = Listening(Toast("no"))
    async with connected(inbox) as (emulator, slack):
        emulator.world.add_user("U0EVE", "eve", team="T0EVIL")
        emulator.world.add_channel("C0SHARED", "shared", shared=True)
        to = Address("slack", "C0SHARED")
        await slack.send(to, card(buttons=(APPROVE,)), TOKENS)
        await emulator.mention("mem", user="U0EVE", channel="C0SHARED")
        await inbox.until(lambda: inbox.heard)
        await emulator.press(emulator.bot_messages[0], "Approve", user="U0EVE")
        await emulator.press(emulator.bot_messages[0], "Approve", user="U0ALICE", team="T0EVIL")
        await emulator.slash("/mem", channel="C0SHARED", team="T0EVIL")
        await inbox.until(lambda: len(inbox.heard) == 2 and len(inbox.presses) == 2)
        senders = [*(event.sender for event in inbox.heard), *(press.sender for press in inbox.presses)]
        assert {sender.account for sender in senders} == {"T0EVIL/U0EVE", "T0EVIL/U0ALICE"}
        assert not any(sender.home for sender in senders)


async def test_a_press_carries_its_token_and_gets_its_toast() -> None:
    inbox = Listening(Toast("Only <!channel> approvers"))
    async with connected(inbox) as (emulator, slack):
        ts = await slack.send(OPS, card(buttons=(APPROVE, DECLINE)), TOKENS)
        message = emulator.bot_messages[0]
        delivery = await (await emulator.press(message, "Decline")).settled()
        (event,) = await inbox.until(lambda: inbox.presses)
        assert delivery.acked
        assert (event.token, event.message_id, event.address) == ("token-d", ts, OPS)
        assert event.at.timestamp() == pytest.approx(float(delivery.payload["actions"][0]["action_ts"]))
        assert event.sender.account == "T0HOME/U0ALICE"
        (toast,) = await emulator.wait_for(lambda: emulator.ephemerals)
        assert (toast.ephemeral_to, toast.shown()) == ("U0ALICE", "Only <!channel> approvers")
        assert emulator.pings == []


async def test_a_toast_that_cannot_be_shown_stops_nothing() -> None:
    inbox = Listening(Toast("no"))
    async with connected(inbox) as (emulator, slack):
        await slack.send(OPS, card(buttons=(APPROVE,)), TOKENS)
        emulator.faults.on("chat.postEphemeral", Kind.SERVER_ERROR)
        await emulator.press(emulator.bot_messages[0], "Approve")
        await emulator.press(emulator.bot_messages[0], "Approve")
        await emulator.wait_for(lambda: emulator.ephemerals)
        assert len(inbox.presses) == 2


async def test_what_slack_sends_twice_has_one_id() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        delivery = await emulator.mention("mem")
        await emulator.sockets.redeliver(delivery)
        await inbox.until(lambda: len(inbox.heard) == 2)
        assert len({event.event_id for event in inbox.heard}) == 1


async def test_what_came_before_the_stop_is_finished() -> None:
    inbox = Listening()
    async with Emulator() as emulator:
        slack = make(emulator)
        await slack.start(inbox)
        inbox.gate.clear()
        delivery = await (await emulator.slash("/mem")).settled()
        stopping = asyncio.create_task(slack.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        inbox.gate.set()
        await stopping
        assert delivery.acked
        assert len(inbox.heard) == 1
        assert await slack.send(OPS, card(), {})  # the drain still speaks


# Showing


async def test_a_card_is_shown_within_slacks_rules_and_edited_in_place() -> None:
    reply = card(
        "prod: 93% used, 140 MiB free",
        Line(T("{unit} was killed", unit=Mono("teaching_panel.service"))),
        Meter(93.0),
        Table(((Size(900 << 20), Percent(45.0), "postgres: writer"), (Size(80 << 20), Percent(4.0), HOSTILE))),
        Fold(T("Log"), (Code(tuple(f"line {n}" for n in range(40))),)),
        buttons=(APPROVE, DECLINE),
    )
    async with connected(Listening()) as (emulator, slack):
        ts = await slack.send(OPS, reply, TOKENS)
        (message,) = emulator.bot_messages
        shown = message.shown()
        assert message.text == "prod: 93% used, 140 MiB free"
        for words in ("teaching_panel.service was killed", "93%", "900M", "line 3", "[Approve] [Decline]"):
            assert words in shown
        assert "line 30" not in shown
        assert "28 more lines are left out." in shown
        approve, decline = message.buttons
        assert (approve.value, approve.style, approve.confirm) == ("token-a", "primary", None)
        assert (decline.value, decline.style) == ("token-d", "danger")
        assert decline.confirm is not None
        assert decline.confirm["text"]["text"] == "Really decline 4K7Q?"

        await slack.edit(OPS, ts, card("prod: done"), {})
        (edited,) = emulator.bot_messages
        assert edited.ts == ts
        assert edited.shown() == ":red_circle: prod: done"
        assert edited.buttons == []


async def test_hostile_text_reaches_nobody() -> None:
    reply = Reply(
        (
            Title(T("{name} grows", name=HOSTILE), "warning"),
            Line(T("{unit} and {name}", unit=Mono(HOSTILE), name=HOSTILE)),
            Table(((1, HOSTILE),)),
            Code((HOSTILE,)),
            Fold(T("{x}", x=HOSTILE), (Line(T("{x}", x=Mono(HOSTILE))),)),
        ),
        ((Button(T("Stop {x}", x=HOSTILE), "/stop x", confirm=T("{x}", x=HOSTILE)),),),
    )
    async with connected(Listening()) as (emulator, slack):
        ts = await slack.send(OPS, reply, {"/stop x": "t"})
        await slack.edit(OPS, ts, reply, {"/stop x": "u"})
        (message,) = emulator.bot_messages
        assert emulator.pings == []
        assert message.links == []
        assert "<!channel>" in message.shown()
        assert "\x1b" not in message.shown()
        assert "\u202e" not in message.shown()


async def test_again_says_so() -> None:
    async with connected(Listening()) as (emulator, slack):
        await slack.send(OPS, card(), {}, again=True)
        assert "may have been shown before" in emulator.bot_messages[0].shown()


async def test_the_language_is_the_addresss() -> None:
    async with connected(Listening()) as (emulator, slack):
        await slack.send(Address("slack", "C0OPS", language="ru"), card(buttons=(DECLINE,)), TOKENS)
        (button,) = emulator.bot_messages[0].buttons
        assert button.label == render(DECLINE.label, "ru")
        assert button.confirm is not None
        assert button.confirm["deny"]["text"] == render(T("Cancel"), "ru")


texts = st.text(max_size=4000)


@given(
    title=texts,
    lines=st.lists(texts, max_size=60),
    code=st.lists(texts, max_size=80),
    labels=st.lists(texts, max_size=30),
)
def test_whatever_is_shown_slack_would_take(title: str, lines: list[str], code: list[str], labels: list[str]) -> None:
    buttons = tuple((Button(T("{x}", x=label), f"/c {n}", confirm=T("{x}", x=label)),) for n, label in enumerate(labels))
    said = tuple(Line(T("{x}", x=Mono(line))) for line in lines)
    fold = Fold(T("{x}", x=title), (Code(tuple(code)),))
    reply = Reply((Title(T("{x}", x=title)), *said, Code(tuple(code)), fold), buttons)
    tokens = {f"/c {n}": "t" * 16 for n in range(len(labels))}
    made = blocks(reply, "en", tokens)
    assert problems_of(made) == []
    assert chars_in(made) <= 13_000
    assert preview(reply, "en")
    assert plain_text(reply, "en")


def test_more_hosts_than_blocks_still_fit() -> None:
    reply = Reply(tuple(Title(T("host {n}", n=n)) for n in range(200)))
    made = blocks(reply, "en", {})
    assert problems_of(made) == []
    assert len(made) <= 50


# When something fails


async def failing(send: Callable[[Slack], object], prepare: Callable[[Emulator], object]) -> SendFailed:
    async with connected(Listening()) as (emulator, slack):
        prepare(emulator)
        with pytest.raises(SendFailed) as caught:
            await send(slack)  # type: ignore[misc]
        return caught.value


async def test_too_many_messages_say_how_long_to_wait() -> None:
    trouble = await failing(
        lambda slack: slack.send(OPS, card(), {}),
        lambda emulator: emulator.faults.on("chat.postMessage", Kind.RATE_LIMITED, seconds=7),
    )
    assert (trouble.retry_after_s, trouble.permanent, trouble.maybe_shown) == (7, False, False)


@pytest.mark.parametrize("kind", [Kind.CUT_AFTER, Kind.GARBAGE])
async def test_a_lost_answer_is_told_and_not_sent_again(kind: Kind) -> None:
    async with connected(Listening()) as (emulator, slack):
        emulator.faults.on("chat.postMessage", kind)
        with pytest.raises(SendFailed) as caught:
            await slack.send(OPS, card(), {})
        assert caught.value.maybe_shown
        assert emulator.counts["chat.postMessage"] == 1
        assert len(emulator.bot_messages) == 1


async def test_a_broken_server_is_worth_another_try() -> None:
    trouble = await failing(
        lambda slack: slack.send(OPS, card(), {}), lambda emulator: emulator.faults.on("chat.postMessage", Kind.SERVER_ERROR)
    )
    assert (trouble.permanent, trouble.maybe_shown) == (False, False)


@pytest.mark.parametrize(
    ("channel", "settings"),
    [("C0GONE", None), ("C0AWAY", {"member": False}), ("C0OLD", {"archived": True})],
)
async def test_a_chat_that_cannot_be_written_to_is_permanent(channel: str, settings: Mapping[str, bool] | None) -> None:
    def prepare(emulator: Emulator) -> None:
        if settings is not None:
            emulator.world.add_channel(channel, channel.lower(), **settings)

    trouble = await failing(lambda slack: slack.send(Address("slack", channel), card(), {}), prepare)
    assert trouble.permanent


async def test_an_edit_of_a_deleted_message_is_gone() -> None:
    async with connected(Listening()) as (emulator, slack):
        ts = await slack.send(OPS, card(), {})
        emulator.world.delete(emulator.bot_messages[0])
        with pytest.raises(SendFailed) as caught:
            await slack.edit(OPS, ts, card("new"), {})
        assert caught.value.gone


async def test_a_thread_that_is_gone_is_left() -> None:
    async with connected(Listening()) as (emulator, slack):
        assert await slack.send(Address("slack", "C0OPS", "1.000001"), card(), {})
        assert [message.thread_ts for message in emulator.bot_messages] == [None]


async def test_refused_blocks_go_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}]
    monkeypatch.setattr("bot.chat.slack.blocks", lambda *_, **__: bad)
    async with connected(Listening()) as (emulator, slack):
        ts = await slack.send(OPS, card("a <!channel>", buttons=(APPROVE,)), TOKENS)
        await slack.edit(OPS, ts, card("b <!channel>", buttons=(APPROVE,)), TOKENS)
        (message,) = emulator.bot_messages
        assert message.edits[0].shown == "a <!channel>\nApprove: /approve 4K7Q"
        assert message.shown() == "b <!channel>\nApprove: /approve 4K7Q"
        assert emulator.pings == []


async def test_a_command_where_the_bot_is_no_member_is_answered_for_its_asker() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, slack):
        emulator.world.add_channel("C0AWAY", "away", member=False)
        await emulator.slash("/mem", channel="C0AWAY")
        (event,) = await inbox.until(lambda: inbox.heard)
        message = await slack.send(event.address, card("prod: <!channel> fine", buttons=(APPROVE,)), TOKENS)
        (shown,) = emulator.ephemerals
        assert shown.ephemeral_to == "U0ALICE"
        assert "prod: <!channel> fine" in shown.shown()
        assert "/invite @memwarden" in shown.shown()
        assert emulator.pings == []
        with pytest.raises(SendFailed) as caught:
            await slack.edit(event.address, message, card(), {})
        assert caught.value.gone
        # Used up: an alert to that channel is not smuggled through it.
        with pytest.raises(SendFailed) as caught:
            await slack.send(event.address, card(), {})
        assert caught.value.permanent


async def test_no_answer_is_kept_where_the_bot_is_a_member() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, slack):
        await emulator.slash("/mem")
        await inbox.until(lambda: inbox.heard)
        await slack.send(OPS, card(), {})
        emulator.channels["C0OPS"].members.discard("U0BOT")
        with pytest.raises(SendFailed):
            await slack.send(OPS, card(), {})
        assert emulator.responses == []


# Starting


@pytest.mark.parametrize(
    ("tokens", "names"), [({"bot_token": "xoxb-wrong"}, "bot_token"), ({"app_token": "xapp-wrong"}, "app_token")]
)
async def test_a_token_that_nobody_knows_ends_the_start(tokens: dict[str, str], names: str) -> None:
    async with Emulator() as emulator:
        slack = make(emulator, **tokens)
        with pytest.raises(ChatDown) as caught:
            await slack.start(Listening())
        words = render(caught.value.text, "en")
        assert names in words
        assert "wrong" not in words
        await slack.stop()


async def test_a_network_that_is_down_at_the_start_does_not_end_it() -> None:
    inbox = Listening()
    async with Emulator() as emulator:
        slack = make(emulator)
        emulator.faults.on("auth.test", Kind.CUT_BEFORE)
        await slack.start(inbox)
        await emulator.sockets.connected()
        await emulator.slash("/mem")
        await inbox.until(lambda: inbox.heard)
        await slack.stop()


async def test_a_refreshed_socket_loses_nothing() -> None:
    inbox = Listening()
    async with connected(inbox) as (emulator, _):
        await emulator.sockets.disconnect("refresh_requested")
        await emulator.wait_for(lambda: emulator.sockets.live)
        delivery = await (await emulator.slash("/mem")).settled()
        assert delivery.acked
        await inbox.until(lambda: inbox.heard)


async def test_no_message_waits_for_another_call() -> None:
    """A command costs one acknowledgement and one message; auth.test is asked once."""
    inbox = Listening()
    async with connected(inbox) as (emulator, slack):
        for _ in range(3):
            await emulator.slash("/mem")
        await inbox.until(lambda: len(inbox.heard) == 3)
        await slack.send(OPS, card(), {})
        assert emulator.counts == {"auth.test": 1, "apps.connections.open": 1, "chat.postMessage": 1}


# `memwarden check`


async def lines_of(slack: Slack) -> list[tuple[bool, str]]:
    return [(fine, render(text, "en")) for fine, text in await slack.check()]


async def test_check_says_who_it_is() -> None:
    async with Emulator() as emulator:
        assert await lines_of(make(emulator)) == [
            (True, "Slack: memwarden in Home"),
            (True, "Slack: Socket Mode is on and the app token is good"),
        ]


async def test_check_names_missing_scopes_and_bad_tokens() -> None:
    async with Emulator() as emulator:
        emulator.api.scopes = emulator.api.scopes - {"im:history"}
        (_, scopes, app) = await lines_of(make(emulator, app_token="xapp-wrong"))
        assert not scopes[0]
        assert "im:history" in scopes[1]
        assert not app[0]
        assert "connections:write" in app[1]
        (bot, _) = await lines_of(make(emulator, bot_token="xoxb-wrong"))
        assert not bot[0]
        assert "OAuth & Permissions" in bot[1]


# The manifest

LEFT_OUT = {"help", "start"}  # deploy/slack-manifest.yaml says why
# slack.com/help/articles/201259356: a manifest that names one of them is refused whole.
BUILT_IN = frozenset(
    re.findall(
        r"\w+",
        """active apps archive away call collapse dm dnd expand feed feedback invite join kick leave me msg mute open prefs pro
        remind remove rename search shortcuts shrug star status topic unarchive who""",
    )
)


def slash_commands() -> str:
    """The manifest's commands, as they have to be written."""
    lines = []
    commands = {name: (command.summary, command.usage) for name, command in discover().items() if not command.hidden}
    named = {"memwarden": (T("Any command of memwarden"), "/memwarden COMMAND [WORDS…]")} | commands
    for name, (summary, usage) in named.items():
        if name in LEFT_OUT:
            continue
        lines += [f"    - command: /{name}", f'      description: "{render(summary, "en")}"']
        if hint := usage.partition(" ")[2]:
            lines.append(f'      usage_hint: "{hint}"')
        lines.append("      should_escape: false")
    return "\n".join(lines)


def test_the_manifest_names_every_command() -> None:
    written = MANIFEST.read_text().partition("  slash_commands:\n")[2].partition("\noauth_config:")[0]
    assert written == slash_commands()


def test_no_command_is_slacks_own() -> None:
    names = re.findall(r"command: /(\S+)", slash_commands())
    assert len(names) <= 50
    assert not BUILT_IN & set(names)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,32}", name) for name in names)


def test_the_manifest_asks_for_what_check_wants_and_no_more() -> None:
    scopes = MANIFEST.read_text().partition("    bot:\n")[2].partition("settings:")[0]
    assert re.findall(r"- (\S+)", scopes) == list(SCOPES)
