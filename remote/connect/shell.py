"""One long-lived shell on a host: questions go in, framed answers come out, stuck sections are ended.

A warm question is one write and one answer: one network round trip. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence

from remote.connect.exchange import Exchange, LinkCut, Outcome, Section
from remote.connect.frames import Desync, Lines, compose, new_nonce, quoted
from remote.connect.pipe import Pipe
from remote.connect.supervise import SUPERVISOR
from remote.errors import HostError
from remote.text import Mono, T, Text

HELLO_COPIES = 3
HELLO_AGAIN_S = 0.5
KEPT_BYTES = 4096
LINE_BYTES = 1 << 20
KEPT_SCRIPTS = 64
"""So many different scripts a shell remembers; what is asked once (with a pid in it) must not fill its memory."""
GRACE_S = 3.0
"""How long a shell may take to end a section, and the link to carry that."""
TIDY_S = 0.2
"""After so long without another question the last one's process is collected (it would stay a zombie in dash)."""


class Shell:
    """A shell that has said hello. One question at a time: the owner sees to that."""

    def __init__(self, pipe: Pipe, host: str, pid: int, grace_s: float) -> None:
        """Use `open_shell`."""
        self.pid = pid
        self._pipe = pipe
        self._host = host
        self._grace_s = grace_s
        self._preamble = SUPERVISOR
        self._scripts: dict[str, str] = {}
        self._broken = False
        self._tidy: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Whether it can be asked (as far as is known)."""
        return not self._broken and not self._pipe.ended

    async def ask(self, sections: Sequence[Section]) -> list[Outcome | None]:
        """Run the sections in order; None for one that has to be asked again because another's end got in its way.

        Raises LinkCut and Unresponsive. When the caller is cancelled the shell ends, and what runs in it.
        """
        nonce = new_nonce()
        exchange = Exchange(self._pipe, self._host, nonce, sections, self._grace_s)
        self._send(self._question(nonce, sections))
        try:
            outcomes = await exchange.outcomes()
        except BaseException:
            self._break()
            raise
        if exchange.abandoned:
            self._break()
        if self.alive:
            self._tidy = asyncio.get_running_loop().call_later(TIDY_S, self._pipe.write, b"wait\n")
        return outcomes

    async def lines(self, script: str) -> AsyncIterator[bytes]:
        """The lines a script prints, until it ends. Over-long lines are cut. Raises LinkCut."""
        nonce = new_nonce()
        lines = Lines(nonce, LINE_BYTES)
        self._send(self._question(nonce, [Section(script, 0, 0)]))
        while data := await self._pipe.read():
            for line in self._lines(lines, data):
                yield line
            if lines.ended:
                return
        self._broken = True
        raise LinkCut(self._host, started=lines.started)

    async def close(self) -> None:
        """End the shell and all it started; waits for that for a moment."""
        self._untidy()
        self._broken = True
        await self._pipe.finish(self._grace_s)

    def _lines(self, lines: Lines, data: bytes) -> list[bytes]:
        try:
            return lines.feed(data)
        except Desync as desync:
            self._break()
            raise LinkCut(self._host, started=True) from desync

    def _break(self) -> None:
        self._broken = True
        self._pipe.close()

    def _untidy(self) -> None:
        if self._tidy is not None:
            self._tidy.cancel()
            self._tidy = None

    def _send(self, text: str) -> None:
        self._untidy()
        self._pipe.write(text.encode("utf-8", "surrogateescape"))

    def _question(self, nonce: str, sections: Sequence[Section]) -> str:
        """The whole question in one text. A script goes over the wire once a shell, then only its variable's name."""
        text, self._preamble = self._preamble, ""
        commands = []
        for section in sections:
            if section.script not in self._scripts and len(self._scripts) < KEPT_SCRIPTS:
                name = f"mw_script{len(self._scripts)}"
                self._scripts[section.script] = name
                text += name + "=" + quoted(_evaluated(section)) + "\n"
            name = self._scripts.get(section.script, "")
            script = f'"${name}"' if name else quoted(_evaluated(section))
            commands.append(f"(eval {script}) </dev/null 2>{'&1' if section.merged else '/dev/null'}")
        return text + compose(nonce, commands)


def _evaluated(section: Section) -> str:
    """The newline keeps `eval` from taking a script's first word for an option."""
    return "\n" + section.script


async def open_shell(pipe: Pipe, host: str, *, hello_s: float, grace_s: float = GRACE_S) -> Shell:
    """Wait for the hello of the shell behind `pipe`. Raises HostError `no-shell`; then the pipe is closed.

    Start-up files may print (thrown away), read our stdin (the hello is said again) or put something else in the
    shell's place: the hello is put together by `printf`, so that an echo of it is none.
    """
    one, two = secrets.token_hex(8), secrets.token_hex(8)
    hello = _Hello(pipe, f"printf '%s%s %d\\n' {one} {two} $$\n".encode(), f"{one}{two}".encode())
    try:
        async with asyncio.timeout(hello_s):
            pid = await hello.answer()
    except TimeoutError:
        pid = 0
    except BaseException:
        pipe.close()
        raise
    if pid:
        return Shell(pipe, host, pid, grace_s)
    cut = pipe.cut
    pipe.close()
    if cut:
        raise LinkCut(host, started=False)
    raise HostError("no-shell", _no_shell(host, hello.last_line()))


class _Hello:
    """The hello being said until it is answered."""

    def __init__(self, pipe: Pipe, line: bytes, answer: bytes) -> None:
        self._pipe = pipe
        self._line = line
        self._answer = re.compile(answer + rb" (\d{1,10})\n")
        self._heard = b""
        self._copies = 0

    async def answer(self) -> int:
        """The shell's pid; 0 when there will be no answer."""
        self._say(HELLO_COPIES)
        while True:
            try:
                async with asyncio.timeout(HELLO_AGAIN_S):
                    data = await self._pipe.read()
            except TimeoutError:
                self._say(1)
                continue
            if not data:
                return 0
            self._heard += data
            match = self._answer.search(self._heard)
            if match is not None:
                return int(match[1])
            if self._heard.count(self._line) >= self._copies:
                return 0  # an echo
            self._heard = self._heard[-KEPT_BYTES:]

    def last_line(self) -> str:
        """The last line that was printed instead, short and printable."""
        lines = [line for line in self._heard.decode("ascii", "replace").splitlines() if line.strip()]
        said = "".join(char for char in lines[-1] if char.isprintable())[:100] if lines else ""
        return "" if self._line.decode().strip() in said else said

    def _say(self, copies: int) -> None:
        self._copies += copies
        self._pipe.write(self._line * copies)


def _no_shell(host: str, said: str) -> Text:
    if said:
        return T(
            "{host} let us in but gave no shell; it said {said}. Look at the account's login shell and start-up files.",
            host=host,
            said=Mono(said),
        )
    return T(
        "{host} let us in but gave no shell. Look at the account's login shell and start-up files.",
        host=host,
    )
