"""The console: the same commands at a terminal (numbered buttons, history, progress), or one a line through a pipe.

Also `plain`, a Reply as text, for `memwarden ask`. prompt-toolkit and rich are imported only where there is a terminal.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import structlog

from bot.chat.base import Address, Pressed, Sender, SendFailed, Typed
from bot.chat.layout import AGAIN, WIDTH, clean, meter, table_lines
from bot.clock import SystemClock
from bot.i18n import render
from handlers.reply import Block, Button, Code, Fold, Line, Meter, Reply, Table, Title
from remote.text import Mono, T, Text

if TYPE_CHECKING:
    from datetime import datetime

    from prompt_toolkit import PromptSession
    from rich.console import Console as Screen

    from bot.chat.base import Inbox
    from handlers.command import Command
    from handlers.ports.clock import Clock

log = structlog.get_logger(__name__)

Look = Literal["plain", "good", "warning", "critical", "text", "fixed", "faint", "button"]

WIDEST = 100  # columns of a table, where there is room
INDENT = "    "
MENU_LINES = 4  # kept free below the prompt for completions
PULSE_S = 0.15
PULSES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CHUNK_BYTES = 1 << 16
YES = frozenset({"y", "yes", "д", "да"})
QUIT = "/quit"
ENDS = frozenset({QUIT, "quit", "exit", "/exit"})  # as shells and other prompts have it
STYLES: Mapping[Look, str] = {
    "plain": "bold",
    "good": "bold green",
    "warning": "bold yellow",
    "critical": "bold red",
    "text": "",
    "fixed": "cyan",
    "faint": "dim",
    "button": "bold cyan",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line as it will be shown; only a terminal cares for its look."""

    text: str
    look: Look = "text"


def plain(reply: Reply, language: str, now: datetime | None = None) -> str:
    """The reply as plain text, its buttons as a numbered list of commands one can type."""
    return "\n".join(row.text for row in _rows(reply, language, now, WIDEST))


def _rows(reply: Reply, language: str, now: datetime | None, width: int) -> list[Row]:
    rows: list[Row] = []
    for block in reply.blocks:
        if isinstance(block, Title) and rows:
            rows.append(Row(""))
        rows += _block(block, language, now, width)
    if not reply.blocks and reply.toast is not None:
        rows.append(Row(clean(render(reply.toast, language, now))))
    return rows + _button_rows(_buttons(reply), language)


def _block(block: Block, language: str, now: datetime | None, width: int) -> Iterator[Row]:
    match block:
        case Title(text, tone):
            yield Row(clean(render(text, language, now)), tone)
        case Line(text):
            yield Row(clean(render(text, language, now)))
        case Table():
            yield from (Row(line, "fixed") for line in table_lines(block, language, now, width))
        case Meter(percent):
            yield Row(meter(percent), "fixed")
        case Code(lines):
            yield from (Row(INDENT + clean(line), "faint") for line in lines)
        case Fold(caption, inner):
            yield Row(clean(render(caption, language, now)), "faint")
            for one in inner:
                yield from (Row(INDENT + row.text, row.look) for row in _block(one, language, now, width - len(INDENT)))


def _buttons(reply: Reply) -> tuple[Button, ...]:
    return tuple(button for row in reply.buttons for button in row)


def _button_rows(buttons: tuple[Button, ...], language: str) -> list[Row]:
    if not buttons:
        return []
    labels = [clean(render(button.label, language)) for button in buttons]
    shown = [f"[{n}] {label} ({clean(buttons[n - 1].command)})" for n, label in enumerate(labels, 1)]
    return [Row(""), *(Row(line, "button") for line in shown)]


@dataclass(frozen=True, slots=True)
class _Offer:
    """The buttons that a typed number means: those of the latest message that has some."""

    message_id: str
    buttons: tuple[Button, ...]
    tokens: Mapping[str, str]


class Console:
    """The chat at this process' own terminal or pipe."""

    platform = "console"

    def __init__(
        self,
        *,
        terminal: bool,
        language: str,
        on_end: Callable[[], None] | None,
        commands: Mapping[str, Command],
        person: str = "",
        clock: Clock | None = None,
    ) -> None:
        """`on_end` is called at the end of input or `/quit`, once everything typed is answered; with None input just stops
        being read. `person` is the settings' name of who sits here."""
        self._terminal = terminal
        self._language = language
        self._on_end = on_end
        self._commands = commands
        self._sender = Sender(f"console:{person}" if person else "console", person, language)
        self._clock = clock or SystemClock()
        self._reading: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._offer: _Offer | None = None
        self._to_confirm: int | None = None
        self._shown: dict[str, list[str]] = {}
        self._asked = asyncio.Event()
        self._screen: Screen | None = None

    async def start(self, inbox: Inbox) -> None:
        """Begin to read."""
        reading = self._at_terminal(inbox) if self._terminal else self._from_pipe(inbox)
        self._reading = asyncio.create_task(reading, name="console")
        self._reading.add_done_callback(self._read)

    async def stop(self) -> None:
        """Stop reading. What is answered later is still printed."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _read(self, reading: asyncio.Task[None]) -> None:
        """Input has ended, in order or not."""
        if not reading.cancelled() and (trouble := reading.exception()):
            log.error("the console cannot read any more", exc_info=trouble)
            if self._on_end is not None:
                self._on_end()

    async def check(self) -> tuple[tuple[bool, Text], ...]:
        """Nothing can be wrong with it."""
        return ()

    # Showing

    async def send(self, to: Address, reply: Reply, tokens: Mapping[str, str], *, again: bool = False) -> str:
        """Print a message. Raises SendFailed when nobody reads any more."""
        message_id = uuid4().hex
        rows = self._render(reply, to)
        if again:
            rows.insert(0, Row(render(AGAIN, to.language), "faint"))
        self._print([*rows, Row("")])
        self._shown[message_id] = [row.text for row in rows]
        self._keep_offer(message_id, reply, tokens)
        return message_id

    async def edit(self, to: Address, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        """Print what is new in a message, under its title. Raises SendFailed `gone` for one of an earlier process."""
        if message_id not in self._shown:
            raise SendFailed("printed by an earlier process", gone=True)
        rows = self._render(reply, to)
        before, now = self._shown[message_id], [row.text for row in rows]
        new = [row for row in rows[1:] if row.text and row.text not in before]
        if new or now[:1] != before[:1]:
            self._print([*rows[:1], *new, Row("")])
        self._shown[message_id] = now
        self._keep_offer(message_id, reply, tokens)

    def _render(self, reply: Reply, to: Address) -> list[Row]:
        width = min(WIDEST, shutil.get_terminal_size().columns) if self._terminal else WIDEST
        return _rows(reply, to.language, self._clock.now(), max(WIDTH, width))

    def _keep_offer(self, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        buttons = _buttons(reply)
        mine = self._offer is not None and self._offer.message_id == message_id
        if buttons:
            self._offer = _Offer(message_id, buttons, dict(tokens))
        elif mine:
            self._offer = None
        if buttons or mine:
            self._to_confirm = None

    def _print(self, rows: list[Row]) -> None:
        try:
            if self._terminal:
                self._draw(rows)
            else:
                self._write("".join(f"{row.text}\n" for row in rows))
        except OSError as trouble:
            raise SendFailed(f"stdout: {trouble}", permanent=True) from trouble

    @staticmethod
    def _write(text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()

    def _draw(self, rows: list[Row]) -> None:
        from rich.console import Console as Screen
        from rich.text import Text as Styled

        # It looks up sys.stdout each time: while the prompt stands that prints above it.
        self._screen = self._screen or Screen(highlight=False, markup=False, emoji=False, force_terminal=True)
        for row in rows:
            self._screen.print(Styled(row.text, STYLES[row.look]), soft_wrap=True)

    def _say(self, text: Text, look: Look = "text") -> None:
        with contextlib.suppress(SendFailed):
            self._print([Row(clean(render(text, self._language)), look)])

    # Reading

    async def _at_terminal(self, inbox: Inbox) -> None:
        from prompt_toolkit.patch_stdout import patch_stdout

        session = self._new_session()
        self._say(T("{help} lists what can be asked, {quit} closes this console.", help=Mono("/help"), quit=Mono(QUIT)), "faint")
        with patch_stdout(raw=True):
            pulse = asyncio.create_task(self._pulse(session), name="console pulse")
            try:
                ended = await self._prompt(session, inbox)
            finally:
                pulse.cancel()
        if ended:
            await self._end()

    def _new_session(self) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        known = {f"/{name}": clean(render(one.summary, self._language)) for name, one in self._commands.items()}
        words = WordCompleter([*known, QUIT], meta_dict=known, sentence=True)
        return PromptSession("memwarden> ", completer=words, rprompt=self._progress, reserve_space_for_menu=MENU_LINES)

    async def _prompt(self, session: PromptSession[str], inbox: Inbox) -> bool:
        """Read until the end of input; False when Ctrl-C stops the whole process."""
        while True:
            try:
                # serve() has SIGINT; here Ctrl-C is a key.
                line = await session.prompt_async(handle_sigint=False)
            except EOFError:
                return True
            except KeyboardInterrupt:
                if session.default_buffer.text:
                    continue
                os.kill(os.getpid(), signal.SIGINT)
                return False
            if not await self._line(inbox, line.strip()):
                return True

    def _progress(self) -> str:
        """What stands at the right of the prompt while an answer is awaited."""
        if not self._waiting:
            return ""
        return PULSES[int(asyncio.get_running_loop().time() / PULSE_S) % len(PULSES)]

    async def _pulse(self, session: PromptSession[str]) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._waiting:
                session.app.invalidate()
                await asyncio.wait(self._waiting, timeout=PULSE_S)
            session.app.invalidate()

    async def _from_pipe(self, inbox: Inbox) -> None:
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        _read_in_thread(lines)
        while (line := await lines.get()) is not None:
            if not await self._line(inbox, line.strip()):
                break
            # One after the other: the second line may be about what the first one made.
            await self._answered()
        await self._end()

    async def _end(self) -> None:
        await self._answered()
        if self._on_end is not None:
            self._on_end()
        elif self._terminal:
            self._say(T("This console is closed. The bot goes on; {key} stops it.", key=Mono("Ctrl-C")), "faint")

    async def _answered(self) -> None:
        if self._waiting:
            await asyncio.wait(self._waiting)

    async def _line(self, inbox: Inbox, line: str) -> bool:
        """Act on one line. False when it ends the input."""
        number, self._to_confirm = self._to_confirm, None
        if number is not None:
            if line.lower() in YES:
                await self._press(inbox, number)
                return True
            self._say(T("Nothing was pressed."), "faint")
        if line.lower() in ENDS:
            return False
        if line.isascii() and line.isdigit():
            await self._number(inbox, int(line[:4]))
        elif line and (number is None or line.startswith("/")):
            await self._typed(inbox, line)
        return True

    async def _typed(self, inbox: Inbox, line: str) -> None:
        event = Typed(_event_id(), self._sender, self._address(), line, self._clock.now(), private=True)
        answer = await inbox.typed(event)
        self._waiting.add(answer)
        self._asked.set()
        answer.add_done_callback(self._waiting.discard)

    async def _number(self, inbox: Inbox, number: int) -> None:
        """A button by its number; where it asks once more, the next line answers."""
        if self._offer is None or not 1 <= number <= len(self._offer.buttons):
            self._say(T("There is no button {number} here.", number=number), "faint")
            return
        confirm = self._offer.buttons[number - 1].confirm
        if confirm is None:
            await self._press(inbox, number)
            return
        self._to_confirm = number
        self._say(T("{question} Type y to go on.", question=confirm), "warning")

    async def _press(self, inbox: Inbox, number: int) -> None:
        if self._offer is None:
            return
        button, message_id = self._offer.buttons[number - 1], self._offer.message_id
        token = self._offer.tokens.get(button.command, "")
        toast = await inbox.pressed(
            Pressed(_event_id(), self._sender, self._address(), message_id, token, self._clock.now(), private=True)
        )
        if toast is not None:
            with contextlib.suppress(SendFailed):
                self._print([Row(clean(toast.text), "warning" if toast.alert else "text")])

    def _address(self) -> Address:
        return Address("console", "console", language=self._language)


def _event_id() -> str:
    return f"console:{uuid4().hex}"


def _read_in_thread(lines: asyncio.Queue[str | None]) -> None:
    """Put stdin's lines into the queue, None at its end. A thread, because a file on disk cannot be polled; its own read(2),
    because a daemon thread that holds sys.stdin's lock ends the interpreter badly (bugs.python.org/issue42717)."""
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()

    def put(line: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def read() -> None:
        decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
        while chunk := _chunk(source):
            *whole, rest = (rest + decoder.decode(chunk)).split("\n")
            for line in whole:
                put(line)
        if rest := rest + decoder.decode(b"", final=True):
            put(rest)
        put(None)

    threading.Thread(target=read, name="console stdin", daemon=True).start()


def _chunk(source: int) -> bytes:
    try:
        return os.read(source, CHUNK_BYTES)
    except OSError:
        return b""
