"""What every chat must do with a Reply, whatever the platform: one list of checks that each platform's tests run.

A platform's test module brings a `Harness` and runs them:

    @pytest.mark.parametrize("check", [*SHOWING, *NETWORK], ids=named)
    async def test_contract(check: Check, harness: TelegramHarness) -> None:
        await check(harness)

`SHOWING` is for every chat; `NETWORK` for those that are reached over a network.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import pytest

from bot.chat.base import Address, Chat, Pressed, SendFailed, Toast, Typed
from bot.chat.layout import AGAIN, clean, columns
from bot.i18n import render
from handlers.quoted import quoted
from handlers.reply import Block, Button, Code, Fold, Line, Meter, Reply, Table, Title
from remote.text import Listing, Mono, N, Percent, Size, Span, T, Text, When

# --- What a platform brings ------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """An Inbox that keeps what it is told and gives the toast it was given."""

    toast: Toast | None = None
    typed_events: list[Typed] = field(default_factory=list)
    pressed_events: list[Pressed] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, it keeps `typed` from being done: an answer that takes long."""

    def __post_init__(self) -> None:
        self.answered.set()

    async def typed(self, event: Typed) -> asyncio.Future[None]:
        """Keep it; what is given back is done once `answered` is set."""
        self.typed_events.append(event)
        return asyncio.ensure_future(self._answer())

    async def _answer(self) -> None:
        await self.answered.wait()

    async def pressed(self, event: Pressed) -> Toast | None:
        """Keep it."""
        self.pressed_events.append(event)
        return self.toast


@dataclass(frozen=True)
class Face:
    """A message as people see it now: its words without markup, and the labels of its buttons.

    Where an edit cannot take back what was shown (a console), `text` is what was printed last.
    """

    text: str
    buttons: tuple[str, ...] = ()


class Harness(Protocol):
    """One platform with a started chat, and the people at its other end."""

    chat: Chat
    inbox: Recorder
    place: Address
    """Where the bot may write, in English."""
    has_room: bool
    """Whether a message may be of any length."""

    def face(self, message_id: str) -> Face:
        """How a message looks now."""
        ...

    async def type(self, text: str) -> None:
        """Somebody known types a line at `place`; returns once the inbox has it."""
        ...

    async def paste(self, text: str) -> None:
        """Somebody known pastes what is no command, where the bot is told of it; returns once the inbox has it."""
        ...

    async def press(self, message_id: str, label: str) -> None:
        """Somebody known presses a button; returns once the inbox has it."""
        ...

    def take_away(self, message_id: str) -> None:
        """Make a message one that can no longer be edited."""
        ...


class NetworkHarness(Harness, Protocol):
    """One that is reached over a network."""

    def put_out(self) -> None:
        """Throw the bot out of `place`."""
        ...

    def make_busy(self, after_s: int) -> None:
        """Let the next message be refused for `after_s`, as one too many."""
        ...

    def lose_next(self, *, taken: bool) -> None:
        """Break the connection under the next message, before it is taken or after."""
        ...

    def shown_count(self) -> int:
        """How many messages people have seen appear at `place`."""
        ...


Check: TypeAlias = Callable[[Any], Awaitable[None]]
SHOWING: list[Check] = []
NETWORK: list[Check] = []


def showing(check: Check) -> Check:
    """One for every chat."""
    SHOWING.append(check)
    return check


def network(check: Check) -> Check:
    """One for chats over a network."""
    NETWORK.append(check)
    return check


def named(check: Check) -> str:
    """The check's name, for the list of tests."""
    return check.__name__


# --- Replies ---------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOSTILE = (
    "<b>bold</b>",
    "</pre></code></blockquote><a href='tg://user?id=1'>x</a>",
    "&lt;b&gt; &amp; &#60;",
    "<!channel> <@U123> <!here|x> <http://evil.example|safe>",
    "```fence``` `tick` *star* _under_ ~wave~",
    "@channel @everyone @admin",
    "{place} {host} %s %(n)s",
    "[link](http://evil.example) [red]rich[/red]",
    "\x1b[31mred\x1b[0m\x07",
    "line\r\nbreak\ttab\x00nul",
    "right\u202eleft\u2066\u200bzero",
    "\ue000private\ue001",
    "名前のとても長いプロセス" * 3,
    "e" + "\u0301" * 900,
    "\\<\\>\\&\\",
)

PASTED = (
    ("Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?", 689792),
    ("Memory cgroup out of memory: Killed process 4711 (<b>&!channel) total-vm:1kB, anon-rss:1kB, file-rss:0kB", 4711),
    ("[2026-11-23 20:29:14,193: ERROR/MainProcess] Process 'ForkPoolWorker-1' pid:451 exited with 'signal 9 (SIGKILL)'", 451),
)
"""Log lines of a kill, and its pid."""

APPROVE = Button(T("Approve"), "/approve 1", "good", T("Stop 3 processes?"))
DECLINE = Button(T("Decline"), "/decline 1", "danger")
DETAILS = Button(T("Details"), "/details 1")
TOKENS = {"/approve 1": "AAAAAAAAAAAAAAAA", "/decline 1": "BBBBBBBBBBBBBBBB", "/details 1": "CCCCCCCCCCCCCCCC"}
CARD = Reply((Title(T("a plan")), Line(T("two steps"))), ((APPROVE, DECLINE), (DETAILS,)))


def everything(name: str = "teaching_panel.service") -> Reply:
    """A Reply with every block and every kind of value, about something of this name."""
    literal = Mono(name)
    blocks: tuple[Block, ...] = (
        Title(T("{host}: memory {used} used", host=Mono("prod"), used=Percent(93.4)), "critical"),
        Line(T("{unit} holds {size} since {at} ({age}).", unit=literal, size=Size(600 << 20), at=When(NOON), age=Span(7500))),
        Line(N("one of {n} unit: {units}", "some of {n} units: {units}", 2, units=Listing((literal, Mono("b.service"))))),
        Table(((Size(512 << 20), Percent(25), name), (Size(1 << 30), Percent(5), "redis")), (T("PSS"), T("%"), T("service"))),
        Meter(93.4),
        Code((f"systemctl stop {name}", f"  rm {name}")),
        Code((f"# undo {name}",), fold=True),
        Fold(
            T("Why {unit}", unit=literal),
            (Line(T("It is a {kind}.", kind=literal)), Table(((1, name),)), Code((name, "second line"))),
        ),
        Title(T("and a second host"), "good"),
    )
    return Reply(blocks, ((APPROVE, DECLINE), (DETAILS,)))


def squeezed(text: str) -> str:
    """The text as eyes compare it: runs of blanks are one, and what a platform composes is not told apart."""
    return " ".join(text.split())


async def fails(sending: Awaitable[object]) -> SendFailed:
    """The failure of what must fail."""
    with pytest.raises(SendFailed) as caught:
        await sending
    return caught.value


# --- Showing ---------------------------------------------------------------------------------------------------------


@showing
async def every_block_is_shown(harness: Harness) -> None:
    face = harness.face(await harness.chat.send(harness.place, everything(), TOKENS))
    text = squeezed(face.text)
    for words in (
        "prod: memory 93% used",
        "teaching_panel.service holds 600 MiB",
        "(2 h 5 min)",
        "some of 2 units: teaching_panel.service and b.service",
        "512M 25%",
        "1.0G 5% redis",
        "█",
        "systemctl stop teaching_panel.service",
        "# undo teaching_panel.service",
        "Why teaching_panel.service",
        "It is a teaching_panel.service.",
        "second line",
        "and a second host",
    ):
        assert words in text
    assert face.buttons == ("Approve", "Decline", "Details")


@showing
async def the_title_comes_first(harness: Harness) -> None:
    face = harness.face(await harness.chat.send(harness.place, everything(), TOKENS))
    assert squeezed(face.text).startswith("prod: memory 93% used")


@showing
async def a_hostile_name_is_only_a_name(harness: Harness) -> None:
    for name in HOSTILE:
        label = replace(DETAILS, label=T("{name}", name=Mono(name)))
        reply = replace(everything(name), buttons=((label,),))
        face = harness.face(await harness.chat.send(harness.place, reply, TOKENS))
        text, shown = squeezed(face.text), squeezed(clean(name))
        assert f"systemctl stop {shown[:200]}" in text, name
        assert shown[:60] in text.partition(" holds ")[0], name
        assert "and a second host" in text, name
        assert len(face.buttons) == 1, name
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", face.text), name


@showing
async def table_lines_fit_a_phone_and_keep_their_numbers(harness: Harness) -> None:
    rows = tuple((Size(size << 20), Percent(size / 20), "名前 " + "x" * 60) for size in (9, 950, 1900, 30_000))
    face = harness.face(await harness.chat.send(harness.place, Reply((Title(T("top")), Table(rows))), {}))
    lines = [line for line in face.text.splitlines() if "名前" in line]
    assert len(lines) == 4
    assert [line.split()[0] for line in lines] == ["9M", "950M", "1.9G", "29G"]
    assert [line.split()[1] for line in lines] == ["0%", "48%", "95%", "1500%"]
    assert all(columns(line) <= 34 for line in lines if not harness.has_room)


@showing
async def a_long_reply_keeps_its_head_and_counts_what_is_left_out(harness: Harness) -> None:
    log = tuple(f"{n:04} <worker> was sent SIGKILL & died" for n in range(1200))
    reply = Reply(
        (
            Title(T("prod: a worker was killed")),
            Line(T("It ran out of memory.")),
            Code(tuple(f"step {n}" for n in range(40))),
            Fold(T("What the log says"), (Line(T("The last lines:")), Code(log))),
        ),
        CARD.buttons,
    )
    face = harness.face(await harness.chat.send(harness.place, reply, TOKENS))
    text = squeezed(face.text)
    for words in ("prod: a worker was killed", "It ran out of memory.", "step 0", "step 39", "What the log says"):
        assert words in text
    shown = sum(f"{n:04} <worker> was" in text for n in range(1200))
    counts = [int(count) for count in re.findall(r"(\d+) more lines? (?:is|are) left out", text)]
    assert shown == 1200 or sum(counts) >= 1200 - shown
    assert len(counts) <= 2
    assert face.buttons == ("Approve", "Decline", "Details")


@showing
async def one_endless_line_is_shown_as_far_as_it_goes(harness: Harness) -> None:
    endless = "<&>" * 20_000
    for block in (
        Line(T("{argv}", argv=Mono(endless))),
        Line(T("{words}", words=endless)),
        Code((endless,)),
        Table(((1, endless),)),
    ):
        face = harness.face(await harness.chat.send(harness.place, Reply((Title(T("prod: one")), block)), {}))
        assert "prod: one" in face.text
    face = harness.face(await harness.chat.send(harness.place, Reply((Title(T("{x}", x=Mono(endless))),)), {}))
    assert "<&><&>" in face.text


@showing
async def many_long_sentences_are_shown_as_far_as_they_go(harness: Harness) -> None:
    lines = tuple(Line(T("{n}: {words}", n=n, words="слово " * 30)) for n in range(200))
    face = harness.face(await harness.chat.send(harness.place, Reply((Title(T("prod: many")), *lines)), {}))
    assert squeezed(face.text).startswith("prod: many")
    assert "0: слово" in face.text


@showing
async def many_buttons_do_not_break_a_message(harness: Harness) -> None:
    rows = tuple(tuple(Button(T("{n}", n=n * 20 + m), f"/mem {n}-{m}") for m in range(20)) for n in range(10))
    tokens = {button.command: f"T{n:015}" for n, button in enumerate(button for row in rows for button in row)}
    face = harness.face(await harness.chat.send(harness.place, Reply((Title(T("hosts")),), rows), tokens))
    assert "0" in face.buttons


@showing
async def a_press_carries_its_token(harness: Harness) -> None:
    message_id = await harness.chat.send(harness.place, CARD, TOKENS)
    harness.inbox.toast = Toast("Approved")
    await harness.press(message_id, "Details")
    [event] = harness.inbox.pressed_events
    assert (event.token, event.message_id) == (TOKENS["/details 1"], message_id)
    assert (event.address.platform, event.address.chat) == (harness.place.platform, harness.place.chat)
    assert not event.sender.anonymous
    assert event.event_id
    assert event.at.tzinfo is not None


@showing
async def what_is_typed_arrives_as_a_command(harness: Harness) -> None:
    await harness.type("/mem prod")
    [event] = harness.inbox.typed_events
    assert event.text.removeprefix("/") == "mem prod"
    assert (event.address.platform, event.address.chat) == (harness.place.platform, harness.place.chat)
    assert not event.sender.anonymous
    assert event.event_id
    assert event.at.tzinfo is not None


@showing
async def a_pasted_line_of_a_kill_arrives_as_it_is(harness: Harness) -> None:
    for line, pid in PASTED:
        await harness.paste(line)
        event = harness.inbox.typed_events[-1]
        assert quoted(event.text) == pid, line
        assert (event.address.platform, event.address.chat) == (harness.place.platform, harness.place.chat)
        assert not event.sender.anonymous
        assert event.event_id
    assert len(harness.inbox.typed_events) == len(PASTED)


@showing
async def an_edit_shows_the_new_words_and_keeps_what_buttons_it_has(harness: Harness) -> None:
    message_id = await harness.chat.send(harness.place, CARD, TOKENS)
    running = Reply((Title(T("it runs")), Line(T("step one of two"))), ((DETAILS,),))
    await harness.chat.edit(harness.place, message_id, running, TOKENS)
    face = harness.face(message_id)
    assert "it runs" in face.text
    assert "step one of two" in face.text
    assert face.buttons == ("Details",)


@showing
async def an_edit_without_buttons_takes_them_away(harness: Harness) -> None:
    message_id = await harness.chat.send(harness.place, CARD, TOKENS)
    await harness.chat.edit(harness.place, message_id, Reply((Title(T("it is done")),)), {})
    assert "it is done" in harness.face(message_id).text
    assert harness.face(message_id).buttons == ()


@showing
async def an_edit_can_bring_buttons(harness: Harness) -> None:
    message_id = await harness.chat.send(harness.place, Reply((Title(T("looking")),)), {})
    await harness.chat.edit(harness.place, message_id, CARD, TOKENS)
    assert harness.face(message_id).buttons == ("Approve", "Decline", "Details")


@showing
async def an_edit_that_changes_nothing_is_fine(harness: Harness) -> None:
    message_id = await harness.chat.send(harness.place, CARD, TOKENS)
    before = harness.face(message_id)
    await harness.chat.edit(harness.place, message_id, CARD, TOKENS)
    assert harness.face(message_id).buttons == before.buttons


@showing
async def an_edit_of_a_message_that_is_no_more_says_so(harness: Harness) -> None:
    message_id = await harness.chat.send(harness.place, CARD, TOKENS)
    harness.take_away(message_id)
    failure = await fails(harness.chat.edit(harness.place, message_id, Reply((Title(T("it is done")),)), {}))
    assert (failure.gone, failure.permanent, failure.maybe_shown) == (True, False, False)


@showing
async def a_message_that_is_shown_again_says_so(harness: Harness) -> None:
    first = harness.face(await harness.chat.send(harness.place, CARD, TOKENS))
    second = harness.face(await harness.chat.send(harness.place, CARD, TOKENS, again=True))
    assert render(AGAIN, "en") not in first.text
    assert render(AGAIN, "en") in second.text
    assert second.buttons == first.buttons


@showing
async def words_are_in_the_addressees_language(harness: Harness) -> None:
    russian = replace(harness.place, language="ru")
    reply = Reply((Title(T("prod")), Line(T("{size}", size=Size(600 << 20)))))
    ours = harness.face(await harness.chat.send(russian, reply, {}, again=True)).text
    assert render(Size(600 << 20), "ru") in ours
    assert render(AGAIN, "ru") in ours
    assert render(Size(600 << 20), "ru") != render(Size(600 << 20), "en")


@showing
async def checking_says_that_all_is_well(harness: Harness) -> None:
    lines = await harness.chat.check()
    assert all(fine for fine, _ in lines), [render(text, "en") for _, text in lines]
    assert all(isinstance(text, Text) for _, text in lines)


# --- The network -----------------------------------------------------------------------------------------------------


@network
async def a_chat_that_threw_us_out_is_given_up(harness: NetworkHarness) -> None:
    harness.put_out()
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert (failure.permanent, failure.gone, failure.maybe_shown) == (True, False, False)


@network
async def too_many_messages_tell_how_long_to_wait(harness: NetworkHarness) -> None:
    harness.make_busy(7)
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert (failure.retry_after_s, failure.permanent, failure.maybe_shown) == (7.0, False, False)
    assert harness.shown_count() == 0
    await harness.chat.send(harness.place, CARD, TOKENS)
    assert harness.shown_count() == 1


@network
async def a_lost_answer_may_have_been_shown(harness: NetworkHarness) -> None:
    harness.lose_next(taken=True)
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert (failure.maybe_shown, failure.permanent) == (True, False)
    assert harness.shown_count() == 1, "and it was not sent a second time by any library of ours"


@network
async def a_broken_connection_is_no_end(harness: NetworkHarness) -> None:
    harness.lose_next(taken=False)
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert not failure.permanent
    assert harness.shown_count() == 0
    await harness.chat.send(harness.place, CARD, TOKENS)
    assert harness.shown_count() == 1


@network
async def no_secret_stands_in_a_failure(harness: NetworkHarness) -> None:
    harness.lose_next(taken=True)
    failure = await fails(harness.chat.send(harness.place, CARD, TOKENS))
    assert not re.search(r"bot\d+:|xox[a-z]-|xapp-|TEST-token", str(failure))


@network
async def a_chat_that_stopped_still_delivers_what_was_decided(harness: NetworkHarness) -> None:
    await harness.chat.stop()
    await harness.chat.send(harness.place, CARD, TOKENS)
    assert harness.shown_count() == 1
