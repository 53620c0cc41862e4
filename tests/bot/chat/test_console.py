"""The console: through a pipe in this process, at a pseudo-terminal as a process of its own (`main` below)."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.chat.base import Address, Pressed, SendFailed, Toast, Typed
from bot.chat.console import Console, Row, plain
from handlers import discover
from handlers.reply import Button, Code, Fold, Line, Meter, Reply, Table, Title
from remote.text import Mono, Percent, Size, T
from tests.bot.chat.contract import SHOWING, Check, Face, Recorder, named

ROOT = Path(__file__).parents[3]
PLACE = Address("console", "console")
BUTTON = re.compile(r"^\[(\d+)\] (.*) \((/[^()]*)\)$", re.MULTILINE)

APPROVE = Button(T("Approve"), "/approve 4K7Q", "good")
DECLINE = Button(T("Decline"), "/decline 4K7Q", "danger", confirm=T("Really decline {plan}?", plan=Mono("4K7Q")))
TOKENS = {APPROVE.command: "token-a", DECLINE.command: "token-d"}
CARD = Reply((Title(T("a plan")), Line(T("one step"))), ((APPROVE, DECLINE),))


# A pipe


class Printing(Console):
    """A console that keeps each piece that it printed apart."""

    paper: pytest.CaptureFixture[str]
    pieces: tuple[str, ...] = ()

    def _print(self, rows: list[Row]) -> None:
        super()._print(rows)
        self.pieces += (self.paper.readouterr().out,)


@dataclass
class Harness:
    """The console at the reading end of a pipe."""

    chat: Printing
    inbox: Recorder
    stdin: int
    ended: asyncio.Event
    place: Address = PLACE
    has_room: bool = True

    def read(self) -> str:
        """All that was printed so far."""
        return "".join(self.chat.pieces)

    def face(self, message_id: str) -> Face:
        del message_id
        printed = self.chat.pieces[-1]
        return Face(BUTTON.sub("", printed), tuple(label for _, label, _ in BUTTON.findall(printed)))

    def say(self, text: str) -> None:
        os.write(self.stdin, text.encode())

    async def type(self, text: str) -> None:
        before = len(self.inbox.typed_events)
        self.say(f"{text}\n")
        await eventually(lambda: len(self.inbox.typed_events) > before)

    async def paste(self, text: str) -> None:
        await self.type(text)

    async def press(self, message_id: str, label: str) -> None:
        del message_id
        number = next(number for number, shown, _ in BUTTON.findall(self.chat.pieces[-1]) if shown == label)
        before = len(self.inbox.pressed_events)
        self.say(f"{number}\n")
        await eventually(lambda: len(self.inbox.pressed_events) > before)

    def take_away(self, message_id: str) -> None:
        del self.chat._shown[message_id]


async def eventually(look: object) -> None:
    assert callable(look)
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 - a thread reads, and what it reads has no event of its own
            await asyncio.sleep(0.005)


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Harness]:
    reading, writing = os.pipe()
    stdin = os.fdopen(reading)
    monkeypatch.setattr("sys.stdin", stdin)
    ended = asyncio.Event()
    chat, inbox = Printing(terminal=False, language="en", on_end=ended.set, commands=discover(), person="owner"), Recorder()
    chat.paper = capsys
    await chat.start(inbox)
    made = Harness(chat, inbox, writing, ended)
    yield made
    await chat.stop()
    close(made)
    await eventually(lambda: all(thread.name != "console stdin" for thread in threading.enumerate()))
    stdin.close()


def close(harness: Harness) -> None:
    """End the input."""
    if harness.stdin >= 0:
        os.close(harness.stdin)
        harness.stdin = -1


@pytest.mark.parametrize("check", SHOWING, ids=named)
async def test_contract(check: Check, harness: Harness) -> None:
    await check(harness)


async def test_a_line_comes_from_the_person_who_sits_there(harness: Harness) -> None:
    await harness.type("  /mem prod  ")
    (event,) = harness.inbox.typed_events
    assert (event.text, event.private, event.sender.account) == ("/mem prod", True, "console:owner")
    assert event.event_id.startswith("console:")
    assert event.address == PLACE


async def test_lines_are_answered_one_after_the_other(harness: Harness) -> None:
    harness.inbox.answered.clear()
    harness.say("/fix\n/approve 4K7Q\n")
    await eventually(lambda: harness.inbox.typed_events)
    await harness.chat.send(PLACE, CARD, TOKENS)
    assert [event.text for event in harness.inbox.typed_events] == ["/fix"]
    harness.inbox.answered.set()
    await eventually(lambda: len(harness.inbox.typed_events) == 2)


async def test_the_end_waits_for_the_last_answer(harness: Harness) -> None:
    harness.inbox.answered.clear()
    harness.say("/mem")  # no newline at the end of a file
    close(harness)
    await eventually(lambda: harness.inbox.typed_events)
    assert not harness.ended.is_set()
    harness.inbox.answered.set()
    async with asyncio.timeout(5):
        await harness.ended.wait()
    assert [event.text for event in harness.inbox.typed_events] == ["/mem"]


@pytest.mark.parametrize("word", ["/quit", "quit", "exit", "/exit", "Quit"])
async def test_quit_ends_and_what_follows_is_not_read(harness: Harness, word: str) -> None:
    harness.say(f"/mem\n\n{word}\n/top\n")
    async with asyncio.timeout(5):
        await harness.ended.wait()
    assert [event.text for event in harness.inbox.typed_events] == ["/mem"]


async def test_what_is_decided_is_printed_after_the_stop(harness: Harness) -> None:
    await harness.chat.stop()
    await harness.chat.send(PLACE, CARD, TOKENS)
    assert "a plan" in harness.read()


async def test_bytes_that_are_no_text_do_not_end_it(harness: Harness) -> None:
    os.write(harness.stdin, b"/mem \xff\xfe\n")
    await eventually(lambda: harness.inbox.typed_events)
    os.write(harness.stdin, "/мем прод\n".encode()[:3])
    os.write(harness.stdin, "/мем прод\n".encode()[3:])
    await eventually(lambda: len(harness.inbox.typed_events) == 2)
    assert harness.inbox.typed_events[1].text == "/мем прод"


async def test_a_button_that_asks_once_more_waits_for_yes(harness: Harness) -> None:
    await harness.chat.send(PLACE, CARD, TOKENS)
    harness.say("2\n")
    await eventually(lambda: "Really decline 4K7Q?" in harness.read())
    assert harness.inbox.pressed_events == []
    harness.inbox.toast = Toast("Declined \x1b[31m")
    harness.say("y\n")
    await eventually(lambda: "Declined [31m" in harness.read())
    (event,) = harness.inbox.pressed_events
    assert event.token == "token-d"


@pytest.mark.parametrize(("then", "typed"), [("n", []), ("/mem", ["/mem"]), ("/quit", [])])
async def test_anything_but_yes_presses_nothing(harness: Harness, then: str, typed: list[str]) -> None:
    await harness.chat.send(PLACE, CARD, TOKENS)
    harness.say(f"2\n{then}\n")
    close(harness)
    async with asyncio.timeout(5):
        await harness.ended.wait()
    assert harness.inbox.pressed_events == []
    assert [event.text for event in harness.inbox.typed_events] == typed
    assert "Nothing was pressed." in harness.read()


async def test_a_changed_card_takes_back_the_question(harness: Harness) -> None:
    message = await harness.chat.send(PLACE, CARD, TOKENS)
    harness.say("2\n")
    await eventually(lambda: "Really" in harness.read())
    await harness.chat.edit(PLACE, message, Reply((Title(T("it runs")),)), {})
    harness.say("y\n")
    await eventually(lambda: harness.inbox.typed_events)
    assert harness.inbox.pressed_events == []


async def test_a_number_means_the_latest_message_with_buttons(harness: Harness) -> None:
    harness.say("1\n")
    await eventually(lambda: "There is no button 1 here." in harness.read())
    first = await harness.chat.send(PLACE, CARD, TOKENS)
    second = await harness.chat.send(PLACE, CARD, {command: f"{token}2" for command, token in TOKENS.items()})
    await harness.chat.send(PLACE, Reply((Title(T("no buttons")),)), {})
    harness.say("1\n")
    await eventually(lambda: harness.inbox.pressed_events)
    (event,) = harness.inbox.pressed_events
    assert (event.message_id, event.token) == (second, "token-a2")
    assert first != second
    harness.say("3\n")
    await eventually(lambda: "There is no button 3 here." in harness.read())


async def test_an_edit_prints_what_is_new_and_no_more(harness: Harness) -> None:
    message = await harness.chat.send(PLACE, Reply((Title(T("a plan")), Line(T("step one")), Line(T("step two")))), {})
    for _ in range(2):
        await harness.chat.edit(PLACE, message, Reply((Title(T("a plan")), Line(T("step one: done")), Line(T("step two")))), {})
        assert harness.chat.pieces[1:] == ("a plan\nstep one: done\n\n",)


class Closed(io.StringIO):
    """A stdout that nobody reads."""

    def flush(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


async def test_nobody_who_reads_is_said_once_and_for_all(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(SendFailed) as caught:
        await harness.chat.send(PLACE, CARD, TOKENS)
    assert caught.value.permanent


# Plain text


def test_a_reply_as_plain_text() -> None:
    reply = Reply(
        (
            Title(T("prod: 93% used"), "critical"),
            Meter(50),
            Table(((Size(900 << 20), Percent(45.0), "postgres"), (Size(80 << 20), Percent(4.0), "redis")), (T("PSS"), T("%"))),
            Code(("systemctl stop x",)),
            Fold(T("Why"), (Line(T("Because.")), Code(("a log line",)))),
            Title(T("web: 10% used")),
        ),
        ((APPROVE,), (DECLINE,)),
    )
    assert plain(reply, "en") == (
        "prod: 93% used\n"
        "██████████░░░░░░░░░░ 50%\n" + "\n".join(table_of(reply)) + "\n    systemctl stop x\n"
        "Why\n"
        "    Because.\n"
        "        a log line\n"
        "\n"
        "web: 10% used\n"
        "\n"
        "[1] Approve (/approve 4K7Q)\n"
        "[2] Decline (/decline 4K7Q)"
    )


def table_of(reply: Reply) -> list[str]:
    (table,) = (block for block in reply.blocks if isinstance(block, Table))
    return plain(Reply((table,)), "en").splitlines()


def test_a_toast_alone_is_said() -> None:
    assert plain(Reply(toast=T("Approved.")), "en") == "Approved."


@given(text=st.text(), lines=st.lists(st.text(), max_size=5))
def test_no_hosts_text_speaks_to_the_terminal(text: str, lines: list[str]) -> None:
    named_so = T("{x}", x=Mono(text))
    reply = Reply(
        (Title(named_so), Line(T("{x}", x=text)), Table(((1, text),)), Code(tuple(lines)), Fold(named_so, (Code(tuple(lines)),))),
        ((Button(named_so, f"/stop {text}"),),),
    )
    shown = plain(reply, "en")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    assert shown.count("\n") == 5 + 2 * len(lines)
    shown.encode()


# A terminal


class Terminal:
    """`main` at a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.control, line = pty.openpty()
        termios.tcsetwinsize(line, (24, 80))
        environment = os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bot.chat.test_console", *arguments],
            stdin=line, stdout=line, stderr=line, cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(line)
        self.raw = ""
        os.set_blocking(self.control, False)

    def type(self, text: str) -> None:
        os.write(self.control, text.encode())

    def look(self) -> str:
        """All that was drawn, without colours and movements."""
        try:
            while chunk := os.read(self.control, 1 << 16):
                self.raw += chunk.decode(errors="replace")
        except BlockingIOError:
            pass
        except OSError as trouble:  # the other end is closed
            if trouble.errno != errno.EIO:
                raise
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r", "", self.raw)

    def wait_for(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + 15
        while self.look().count(words) < times:
            assert time.monotonic() < deadline, f"{words!r} was not shown: {self.look()!r}"
            assert self.process.poll() is None or words in self.look(), f"ended: {self.look()!r}"
            time.sleep(0.02)

    def ends(self) -> int:
        """The exit status."""
        deadline = time.monotonic() + 15
        while self.process.poll() is None:
            self.look()
            assert time.monotonic() < deadline, f"still running: {self.look()!r}"
            time.sleep(0.02)
        self.look()
        return self.process.returncode


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    made = Terminal(*arguments)
    try:
        made.wait_for("memwarden>")
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        os.close(made.control)


def test_at_a_terminal_one_asks_presses_and_leaves() -> None:
    with terminal() as screen:
        assert "/quit closes this console." in screen.look()
        screen.type("/mem prod\r")
        screen.wait_for("you said /mem prod")
        screen.wait_for("[2] Decline")
        assert "\x1b[1;31m" in screen.raw  # the title's tone
        screen.type("1\r")
        screen.wait_for("pressed token-a")
        screen.type("2\r")
        screen.wait_for("Really decline 4K7Q?")
        screen.type("y\r")
        screen.wait_for("pressed token-d")
        screen.type("/quit\r")
        assert screen.ends() == 0
        assert "the end" in screen.look()


def test_what_arrives_while_one_types_leaves_the_line_whole() -> None:
    with terminal() as screen:
        screen.type("/slow\r")
        screen.type("/mem p")
        screen.wait_for("you said /slow")
        screen.type("rod\r")
        screen.wait_for("you said /mem prod")
        screen.type("\x04")  # Ctrl-D
        assert screen.ends() == 0


def test_progress_shows_while_an_answer_is_awaited() -> None:
    with terminal() as screen:
        screen.type("/slow\r")
        screen.wait_for("you said /slow")
        assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", screen.look())


def test_history_and_completion_are_there() -> None:
    with terminal() as screen:
        screen.type("/mem prod\r")
        screen.wait_for("you said /mem prod")
        screen.type("\x1b[A\r")
        screen.wait_for("you said /mem prod", times=2)
        screen.type("/dupl")
        screen.wait_for("/duplicates")
        screen.type("\t\r")
        screen.wait_for("you said /duplicates")


def test_the_end_of_input_waits_for_the_answer() -> None:
    with terminal() as screen:
        screen.type("/slow\r\x04")
        assert screen.ends() == 0
        assert screen.look().index("you said /slow") < screen.look().index("the end")


def test_ctrl_c_drops_the_line_and_on_an_empty_one_stops_the_process() -> None:
    with terminal() as screen:
        screen.type("/mem\x03")
        screen.wait_for("memwarden>", times=2)
        screen.type("/top\r")
        screen.wait_for("you said /top")
        assert "you said /mem" not in screen.look()
        screen.type("\x03")
        assert screen.ends() == 0
        assert "interrupted" in screen.look()


def test_beside_other_chats_the_end_of_input_is_no_end() -> None:
    with terminal("--beside") as screen:
        screen.type("\x04")
        screen.wait_for("The bot goes on")
        assert screen.process.poll() is None
        screen.process.send_signal(signal.SIGINT)
        assert screen.ends() == 0


class Echo:
    """An Inbox that answers by the console itself, `/slow` ones late."""

    def __init__(self) -> None:
        self.chat: Console | None = None

    async def typed(self, event: Typed) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._answer(event))

    async def _answer(self, event: Typed) -> None:
        await asyncio.sleep(0.7 if event.text == "/slow" else 0)
        assert self.chat is not None
        said = Title(T("you said {x}", x=event.text), "critical")
        await self.chat.send(PLACE, Reply((said,), ((APPROVE, DECLINE),)), TOKENS)

    async def pressed(self, event: Pressed) -> Toast | None:
        return Toast(f"pressed {event.token}")


async def main(*, alone: bool) -> None:
    """A console that echoes, until its end or SIGINT."""
    stop, echo = asyncio.Event(), Echo()
    why: list[str] = []

    def end(word: str) -> None:
        why.append(word)
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, end, "interrupted")
    on_end = (lambda: end("the end")) if alone else None
    echo.chat = Console(terminal=True, language="en", on_end=on_end, commands=discover())
    await echo.chat.start(echo)
    await stop.wait()
    await echo.chat.stop()
    sys.stdout.write(f"{why[0]}\n")


if __name__ == "__main__":
    asyncio.run(main(alone="--beside" not in sys.argv))
