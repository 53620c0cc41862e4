"""From an event to its answer: who is answered, once, with which words, also when something goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

import pytest
import pytest_asyncio
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from structlog.testing import capture_logs

from bot.chat.base import Address, Pressed, Sender, Toast, Typed
from bot.dispatch import OLD_S, PLAIN, STRANGER_S, Desk, Dispatcher, make_request, prepare, words_of
from bot.i18n import render
from bot.outbox import Outbox
from bot.people import People
from bot.settings import ChatSettings, HostSettings, PersonSettings, Settings, TelegramSettings
from bot.store import Store
from bot.store.tables import events, messages
from handlers.command import Command, Refused, Usage
from handlers.ports.clock import Clock
from handlers.reply import Button, Line, Reply, Title
from handlers.request import Person, Request, Room
from remote.errors import HostError
from remote.text import Mono, T
from tests.bot.chats import MemoryChat, Shown
from tests.bot.waiting import until
from tests.clock import NOW, StandingClock

OPS = Address("telegram", "-100")
PRIVATE = Address("telegram", "5")
OWNER, VIEWER, STRANGER = Sender("1", "Owner"), Sender("2", "Vera"), Sender("666", "Eve")
SETTINGS = Settings(
    telegram=TelegramSettings.model_validate({"token": "1:a"}),
    chats={"ops": ChatSettings(telegram="-100"), "russian": ChatSettings(telegram="-200", language="ru")},
    people={
        "owner": PersonSettings(telegram="1", role="admin"),
        "vera": PersonSettings(telegram="2", role="viewer"),
        "ivan": PersonSettings(telegram="3", role="admin", language="ru"),
    },
    hosts={"prod": HostSettings(address="203.0.113.7")},
)


@dataclass
class Doings:
    """What the commands did, and what they are to do."""

    done: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


def commands(doings: Doings) -> dict[str, Command]:
    async def echo(request: Request) -> Reply:
        doings.done.append(f"{request.person.id} {' '.join(request.words)}")
        return Reply((Line(T("echo {words}", words=Mono(" ".join(request.words)))),), ((Button(T("Again"), "/echo again"),),))

    async def why(request: Request) -> Reply:
        doings.done.append(f"{request.person.id} why {' '.join(request.words)}")
        return Reply((Line(T("because")),))

    async def act(request: Request) -> Reply:
        doings.done.append(f"act {request.event_id}")
        return Reply((Title(T("done")),), key="act:1", toast=T("Done.") if "toast" in request.words else None)

    async def slow(request: Request) -> Reply:
        doings.done.append(f"slow {request.event_id}")
        await doings.gate.wait()
        return Reply((Title(T("at last")),), toast=T("At last."))

    async def broken(request: Request) -> Reply:
        raise RuntimeError("the secret is out")

    async def wrong(request: Request) -> Reply:
        raise Usage(T("That is no number."))

    async def refused(request: Request) -> Reply:
        raise Refused("no", T("Not today."))

    async def down(request: Request) -> Reply:
        raise HostError("unreachable", T("It does not answer."))

    def command(run: Callable[[Request], Awaitable[Reply]], **more: Any) -> Command:  # noqa: ANN401
        name = run.__name__
        return Command(name, T("A test"), f"/{name} X", run, (f"/{name} 1",), **more)

    all_of_them = [
        command(echo), command(why), command(act, effects=True, role="approver"), command(slow), command(broken), command(wrong),
        command(refused), command(down),
    ]  # fmt: skip
    return {one.name: one for one in all_of_them}


@dataclass
class Room1:
    """A desk with a chat in front of it."""

    desk: Desk
    chat: MemoryChat
    outbox: Outbox
    doings: Doings
    clock: StandingClock
    ids: Any = field(default_factory=itertools.count)

    def event(self, text: str, sender: Sender = OWNER, to: Address = OPS, **more: Any) -> Typed:  # noqa: ANN401
        values: dict[str, Any] = {"event_id": f"e{next(self.ids)}", "at": self.clock.now(), "private": to == PRIVATE, **more}
        return Typed(sender=sender, address=to, text=text, **values)

    async def say(self, text: str, sender: Sender = OWNER, to: Address = OPS, **more: Any) -> list[str]:  # noqa: ANN401
        """Type it; gives the texts of the messages that came."""
        return await self.hear(self.event(text, sender, to, **more))

    async def hear(self, *events: Typed) -> list[str]:
        before = len(self.chat.shown)
        for answer in [await self.desk.typed(event) for event in events]:
            await answer
        await self.outbox.drained()
        return [shown(one) for one in self.chat.shown[before:]]

    async def press(self, message: Shown, command: str, sender: Sender = OWNER, **more: Any) -> Toast | None:  # noqa: ANN401
        values: dict[str, Any] = {
            "event_id": f"e{next(self.ids)}", "address": message.to, "message_id": message.id,
            "token": message.tokens.get(command, command), "at": self.clock.now(), "private": message.to == PRIVATE, **more,
        }  # fmt: skip
        toast = await self.desk.pressed(Pressed(sender=sender, **values))
        await self.outbox.drained()
        return toast


def shown(one: Shown) -> str:
    first = one.reply.blocks[0]
    assert isinstance(first, Title | Line)
    return render(first.text, one.to.language, NOW)


@pytest_asyncio.fixture
async def ops(store: Store, clock: StandingClock) -> AsyncIterator[Room1]:
    chat, doings = MemoryChat("telegram"), Doings()
    outbox = Outbox(store, {"telegram": chat}, clock)
    desk = Desk(Dispatcher(prepare(commands(doings), {}), clock), People(SETTINGS), outbox, store, clock, toast_s=10)
    work = asyncio.create_task(outbox.run())
    yield Room1(desk, chat, outbox, doings, clock)
    doings.gate.set()
    await desk.drain(5)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize("text", ["/echo a b", "echo a b", "/echo@memwarden_bot a b", "/ECHO a b", "  /echo  a\u00a0b "])
async def test_a_known_person_in_a_known_chat_is_answered(text: str, ops: Room1) -> None:
    assert await ops.say(text) == ["echo a b"]
    assert ops.doings.done == ["owner a b"]


async def test_a_stranger_in_a_group_gets_silence(ops: Room1) -> None:
    assert await ops.say("/echo a", STRANGER) == []
    assert await ops.say("/nonsense", STRANGER) == []
    assert await ops.say("/echo a", Sender("1", anonymous=True)) == []
    assert ops.doings.done == []
    assert ops.chat.calls == []


async def test_a_stranger_in_private_is_told_his_id(ops: Room1) -> None:
    assert await ops.say("/echo a", STRANGER, PRIVATE) == [
        "I do not know you. Your id is 666; the owner can add it to the settings."
    ]
    assert await ops.say("/echo a", replace(STRANGER, anonymous=True), PRIVATE) == []
    assert ops.doings.done == []


async def test_a_stranger_is_told_once_an_hour_and_leaves_no_rows(ops: Room1) -> None:
    other = Sender("667", "Mallory")
    for n in range(30):
        await ops.say(f"hello {n}", STRANGER, PRIVATE)
    assert len(ops.chat.calls) == 1
    async with ops.desk._store.connect() as tx:
        rows = [len((await tx.execute(select(table))).all()) for table in (messages, events)]
    assert rows == [1, 1]
    assert len(await ops.say("hello", other, Address("telegram", "667"), private=True)) == 1
    ops.clock.go(STRANGER_S - 1)
    assert await ops.say("hello", STRANGER, PRIVATE) == []
    ops.clock.go(1)
    assert len(await ops.say("hello", STRANGER, PRIVATE)) == 1
    assert set(ops.desk._told) == {("telegram", "666")}, "who came long ago takes no memory"


async def test_a_stranger_s_press_is_a_toast_and_nothing_else(ops: Room1) -> None:
    await ops.say("/echo a")
    message = ops.chat.shown[0]

    toast = await ops.press(message, "/echo again", STRANGER)
    assert toast == Toast("Only people of this team may press here. Your id is 666.", alert=True)
    nobody = await ops.press(message, "/echo again", Sender("1", anonymous=True))
    assert nobody == Toast("Only people of this team may press here, and I cannot see who you are.", alert=True)
    assert ops.doings.done == ["owner a"]


async def test_a_known_person_in_an_unknown_chat_is_told_its_id(ops: Room1) -> None:
    assert await ops.say("/echo a", to=Address("telegram", "-999")) == ["This chat is not in my settings. Its id is -999."]
    assert ops.doings.done == []


async def test_a_known_person_in_private_is_answered(ops: Room1) -> None:
    assert await ops.say("/echo a", to=PRIVATE) == ["echo a"]


async def test_empty_lines_are_no_commands(ops: Room1) -> None:
    assert await ops.say("   ") == []
    assert await ops.say("/") == []
    assert await ops.say("@somebody") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/ecoh a", "There is no command /ecoh. Did you mean /echo?"),
        ("/xyzzy", "There is no command /xyzzy. /help lists them."),
    ],
)
async def test_an_unknown_command_gets_the_nearest_right_one(text: str, told: str, ops: Room1) -> None:
    assert await ops.say(text) == [told]


async def test_an_event_that_comes_twice_is_answered_once(ops: Room1) -> None:
    event = ops.event("/act")
    assert await ops.hear(event) == ["done"]
    assert await ops.hear(event) == []
    assert ops.doings.done == [f"act {event.event_id}"]


async def test_an_event_that_comes_twice_at_once_is_answered_once(ops: Room1) -> None:
    event = ops.event("/act")

    assert await ops.hear(*[event] * 5) == ["done"]
    assert ops.doings.done == [f"act {event.event_id}"]


async def test_a_press_that_comes_twice_at_once_acts_once(ops: Room1) -> None:
    await ops.say("/echo a")
    message = ops.chat.shown[0]
    await asyncio.gather(*(ops.press(message, "/echo again", event_id="same") for _ in range(5)))

    assert ops.doings.done == ["owner a", "owner again"]


async def test_what_was_under_way_when_the_process_died_is_tried_again(ops: Room1) -> None:
    event = ops.event("/slow")
    first = await ops.desk.typed(event)
    await until(lambda: len(ops.doings.done) == 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    ops.doings.gate.set()

    assert await ops.hear(event) == ["at last"]
    assert ops.desk._under_way == set()


LINE = "Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?"


async def test_a_pasted_line_asks_why_that_pid_was_killed(ops: Room1) -> None:
    assert await ops.say(LINE) == ["because"]
    assert await ops.say(f"see:\n> {LINE}\nand /act on it", VIEWER) == ["because"]
    assert await ops.say("LOG:  server process (PID 290) was terminated by signal 9: Killed", to=PRIVATE) == ["because"]
    assert ops.doings.done == ["owner why 689792", "vera why 689792", "owner why 290"]


async def test_a_line_after_the_command_is_read_too(ops: Room1) -> None:
    assert await ops.say(f"/why {LINE}") == ["because"]
    assert await ops.say("/why Process 'ForkPoolWorker-1' pid:451 exited with 'signal 9 (SIGKILL)'") == ["because"]
    assert await ops.say("/why prod 7") == ["because"]
    assert ops.doings.done == ["owner why 689792", "owner why 451", "owner why prod 7"]


async def test_a_strangers_line_is_met_with_silence(ops: Room1) -> None:
    assert await ops.say(LINE, STRANGER) == []
    assert await ops.say(LINE, replace(OWNER, anonymous=True)) == []
    assert ops.doings.done == []


async def test_a_line_makes_no_command_of_what_stands_around_it(ops: Room1) -> None:
    assert await ops.say(f"act {LINE}") == ["because"]
    assert await ops.say(f"/act {LINE}") == ["done"]
    assert ops.doings.done[0] == "owner why 689792"


async def test_an_old_command_with_effects_is_not_done(ops: Room1) -> None:
    typed_at = ops.clock.now() - timedelta(seconds=OLD_S + 60)

    told = await ops.say("/act", at=typed_at)
    assert told == ["This came at 13:59 UTC, 3 min ago, while I was away. I did not do it; send it again if you still want it."]
    assert await ops.say("/echo a", at=typed_at) == ["echo a"]
    assert await ops.say("/act", at=ops.clock.now() - timedelta(seconds=OLD_S)) == ["done"]
    assert len(ops.doings.done) == 2


async def test_an_old_press_of_what_changes_something_is_not_done_and_that_is_told_once(ops: Room1) -> None:
    await offer(ops, "/act now", "/echo a")
    card, pressed_at = ops.chat.shown[0], ops.clock.now() - timedelta(seconds=OLD_S + 1)
    words = "/act now was pressed while I was away. I did not do it; press it again if you still want it."

    for _ in range(3):
        assert await ops.press(card, "/act now", at=pressed_at) == Toast(words, alert=True)
    assert [shown(one) for one in ops.chat.shown] == ["offer", words]
    assert ops.doings.done == []
    await ops.press(card, "/act now", STRANGER, at=pressed_at)
    await ops.press(card, "/echo a", at=pressed_at)
    assert [shown(one) for one in ops.chat.shown] == ["offer", words, "echo a"]
    await ops.press(card, "/act now", at=ops.clock.now() - timedelta(seconds=OLD_S))
    assert len(ops.doings.done) == 2


async def test_a_role_that_is_missing_is_named(ops: Room1) -> None:
    assert await ops.say("/act", VIEWER) == ["That needs the role approver or admin."]
    assert ops.doings.done == []


async def test_wrong_use_and_refusals_are_said_in_words(ops: Room1) -> None:
    assert await ops.say("/wrong x") == ["That is no number."]
    assert await ops.say("/refused") == ["Not today."]
    assert await ops.say("/down") == ["It does not answer."]


async def test_a_fault_of_ours_gives_an_id_that_the_log_knows(ops: Room1) -> None:
    with capture_logs() as logs:
        told = await ops.say("/broken")

    entry = next(one for one in logs if one["event"] == "command failed")
    assert told == [f"Something went wrong inside memwarden. Its log says more under {entry['id']}."]
    assert entry["exc_info"] is True
    assert entry["log_level"] == "error"
    assert "secret" not in told[0]
    assert structlog is not None


async def test_a_press_runs_the_button_s_command(ops: Room1) -> None:
    await ops.say("/echo a")

    assert await ops.press(ops.chat.shown[0], "/echo again") is None
    assert ops.doings.done == ["owner a", "owner again"]
    assert [shown(one) for one in ops.chat.shown] == ["echo a", "echo again"]


async def test_a_press_that_is_refused_is_a_toast_and_no_message(ops: Room1) -> None:
    await offer(ops, "/refused", "/broken", "/act toast")
    message = ops.chat.shown[0]

    assert await ops.press(message, "/refused") == Toast("Not today.", alert=True)
    assert await ops.press(message, "/act toast") == Toast("Done.", alert=False)
    toast = await ops.press(message, "/broken")
    assert toast is not None
    assert toast.text.startswith("Something went wrong inside memwarden.")
    assert await ops.press(message, "/act toast", VIEWER) == Toast("That needs the role approver or admin.", alert=True)
    assert len(ops.chat.shown) == 1


async def test_an_answer_that_comes_too_late_for_a_toast_comes_as_a_message(ops: Room1) -> None:
    await offer(ops, "/slow")
    ops.desk._toast_s = 0.1

    assert await ops.press(ops.chat.shown[0], "/slow") is None
    ops.doings.gate.set()
    await ops.desk.drain(5)
    await ops.outbox.drained()
    assert [shown(one) for one in ops.chat.shown] == ["offer", "at last"]


async def test_a_guessed_token_and_another_message_s_do_nothing(ops: Room1) -> None:
    await ops.say("/echo a")
    await ops.say("/echo b")
    first, second = ops.chat.shown
    old = Toast("This button is from an older message. Use the newest one, or type the command.", alert=True)

    assert await ops.press(first, "guessed") == old
    assert await ops.press(first, "/echo again", message_id=second.id) == old
    assert await ops.press(first, "/echo again", address=PRIVATE, private=True) == old
    assert ops.doings.done == ["owner a", "owner b"]


async def test_a_living_message_is_edited_by_a_press_and_shown_anew_when_typed(ops: Room1) -> None:
    await offer(ops, "/act", key="act:1")
    await ops.press(ops.chat.shown[0], "/act")
    assert [shown(one) for one in ops.chat.shown] == ["done"]

    assert await ops.say("/act") == ["done"]


async def test_a_chat_is_answered_in_its_language_and_a_toast_comes_in_the_presser_s(ops: Room1) -> None:
    russian = Address("telegram", "-200")
    await ops.say("/xyzzy", to=russian)
    assert ops.chat.shown[0].to.language == "ru"
    await offer(ops, "/refused")
    toast = await ops.press(ops.chat.shown[1], "guessed", Sender("3", "Ivan"))
    assert toast is not None
    assert not toast.text.isascii()


async def offer(ops: Room1, *lines: str, key: str = "offer") -> None:
    reply = Reply((Title(T("offer")),), (tuple(Button(T("Do"), line) for line in lines),), key=key)
    async with ops.outbox._store.begin() as tx:
        await ops.outbox.post(tx, OPS, reply, key)
    ops.outbox.wake()
    await ops.outbox.drained()


class Unknown(Protocol):
    """A port that nobody offers."""


async def asks_for_more(request: Request, *, clock: Clock, unknown: Unknown) -> Reply:
    raise AssertionError(clock, unknown)


async def asks_the_time(request: Request, *, clock: Clock) -> Reply:
    return Reply((Line(T("{at}", at=clock.now().isoformat())),))


def test_a_port_that_nobody_offers_is_an_error_at_the_start() -> None:
    command = Command("more", T("A test"), "/more", asks_for_more)
    with pytest.raises(TypeError, match="/more asks for a port that nobody offers: unknown"):
        prepare({"more": command}, {Clock: StandingClock()})


async def test_a_command_gets_the_ports_that_it_names() -> None:
    clock = StandingClock()
    command = Command("time", T("A test"), "/time", asks_the_time)
    dispatcher = Dispatcher(prepare({"time": command}, {Clock: clock, Unknown: object()}), clock)
    reply = await dispatcher.answer(Request("e", Person("a", "A", "viewer"), Room("r", "console", ()), "time", (), NOW, "en"))

    assert reply.ok
    assert reply.blocks == (Line(T("{at}", at=NOW.isoformat())),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/mem prod", ("/mem", "prod")),
        ("/logs prod \u201cmy unit\u201d 5", ("/logs", "prod", "my unit", "5")),
        ("/logs prod \u201emy unit\u201c", ("/logs", "prod", "my unit")),
        ("/x \u2018a b\u2019", ("/x", "a b")),
        ("/x \u2014all", ("/x", "--all")),
        ("/x a\u00a0b", ("/x", "a", "b")),
        ("it's", ("it's",)),
        (r"/restart prod srv-my\x2dapp.service", ("/restart", "prod", r"srv-my\x2dapp.service")),
        (r"/restart prod 'srv-my\x2dapp.service'", ("/restart", "prod", r"srv-my\x2dapp.service")),
        ("/x #1 ''", ("/x", "#1", "")),
        ("/x 'a b\" c", ("/x", "'a", 'b"', "c")),
        ("", ()),
    ],
)
def test_words_as_phones_type_them(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


@given(st.lists(st.text().filter(lambda word: word.translate(PLAIN) == word and not any(map(str.isspace, word)))))
def test_what_a_button_quotes_is_read_back(words: list[str]) -> None:
    assert words_of(shlex.join(words)) == tuple(words)


@given(st.text())
def test_any_line_has_words_or_none(text: str) -> None:
    words_of(text)
    request = make_request("e", Person("a", "A", "viewer"), Room("r", "console", ()), text, NOW, "en")
    assert request is None or request.command
