"""How one question is framed: several scripts go down one shell in one write, their outputs come back apart.

Each question has a nonce of its own (128 random bits). It goes down the shell's stdin only, so it stands in no argv, no
environment and no variable, and no output can forge a frame. Three frames exist, each a line of its own that is
preceded by a newline of its own, so that an output without a last newline is kept to the byte:

- `NONCE +`: the question starts here; whatever came before is thrown away;
- `NONCE K STATUS`: section K has ended with that exit status;
- `NONCE ! STATUS`: the shell has ended what the running section had started (0: nothing of it is left).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

NONCE_BYTES = 16
_TAIL = re.compile(rb"(?:(\+)|! (\d+)|(\d+) (\d+))")
_TAIL_BYTES = 32


class Desync(ValueError):  # noqa: N818 - the state of the line, not a kind of mistake
    """A frame with the right nonce came in the wrong shape or order: the shell is not to be trusted any more."""


@dataclass(frozen=True, slots=True)
class Started:
    """The question's first section begins."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A section has ended by itself or was ended."""

    section: int
    status: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """What the running section had started was ended; `status` is 0 when nothing of it is left."""

    status: int


Event = bytes | Started | Ended | Cleared


def new_nonce() -> str:
    """A fresh nonce, as it stands in the frames."""
    return secrets.token_hex(NONCE_BYTES)


def quoted(text: str) -> str:
    """`text` as one word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def compose(nonce: str, commands: Sequence[str]) -> str:
    """One line for the shell that runs each command and frames what it prints.

    It runs beside the shell, which goes on reading its stdin: so the shell sees the end of its stdin, and the order
    to end a section, while a section runs. The `wait` before it collects the question before.
    """
    parts = [f"wait; {{ printf '\\n{nonce} +\\n'"]
    parts += [f"{command}; printf '\\n{nonce} {k} %d\\n' $?" for k, command in enumerate(commands)]
    return "; ".join(parts) + "; } & mw_q=$!\n"


class Decoder:
    """Bytes in, in any chunks; outputs and frames out. Holds back a few bytes at most."""

    def __init__(self, nonce: str) -> None:
        """Decode the frames of one question."""
        self._mark = f"\n{nonce} ".encode()
        self._held = b""

    def feed(self, data: bytes) -> list[Event]:
        """What `data` completes, in order. Raises Desync for a frame of no known shape."""
        buffer = self._held + data if self._held else data
        events: list[Event] = []
        at = buffer.find(self._mark)
        while at >= 0:
            end = buffer.find(b"\n", at + len(self._mark))
            if end < 0 and len(buffer) - at - len(self._mark) <= _TAIL_BYTES:
                break
            if at:
                events.append(buffer[:at])
            events.append(_frame(buffer[at + len(self._mark) : end]))
            buffer = buffer[end + 1 :]
            at = buffer.find(self._mark)
        keep = self._unsure_from(buffer) if at < 0 else at
        if keep:
            events.append(buffer[:keep])
        self._held = buffer[keep:]
        return events

    def _unsure_from(self, buffer: bytes) -> int:
        """Where the tail begins that may grow into a frame. A mark has one newline, its first byte."""
        at = buffer.rfind(b"\n", max(0, len(buffer) - len(self._mark) + 1))
        return at if at >= 0 and self._mark.startswith(buffer[at:]) else len(buffer)


def _frame(tail: bytes) -> Event:
    match = _TAIL.fullmatch(tail)
    if match is None:
        raise Desync(tail[:_TAIL_BYTES].decode("ascii", "backslashreplace"))
    plus, cleared, section, status = match.groups()
    if plus:
        return Started()
    return Cleared(int(cleared)) if cleared else Ended(int(section), int(status))


@dataclass(slots=True)
class Part:
    """What came of one section so far; `over` when it printed more than its cap (the rest is thrown away)."""

    cap_bytes: int
    output: bytearray = field(default_factory=bytearray)
    over: bool = False
    status: int | None = None

    def take(self, data: bytes) -> None:
        """Keep `data` as far as the cap allows."""
        room = self.cap_bytes - len(self.output)
        self.over = self.over or len(data) > room
        self.output += data[:room] if self.over else data


class Receiver:
    """The answer to one question while it comes in; bounded by the sections' caps."""

    def __init__(self, nonce: str, caps_bytes: Sequence[int]) -> None:
        """Expect one section for each cap."""
        self._decoder = Decoder(nonce)
        self.parts = [Part(cap_bytes) for cap_bytes in caps_bytes]
        self.started = False
        self.current = 0
        """The section that is running."""
        self.cleared: tuple[int, int] | None = None
        """The section that was running when the shell last ended what runs, and the status of that."""

    @property
    def complete(self) -> bool:
        """Whether all sections have ended."""
        return self.started and self.current == len(self.parts)

    def feed(self, data: bytes) -> None:
        """Take what came. Raises Desync for frames out of order."""
        for event in self._decoder.feed(data):
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case bytes():
                if self.started and not self.complete:
                    self.parts[self.current].take(event)
            case Started():
                if self.started:
                    raise Desync("started twice")
                self.started = True
            case Ended(section, status):
                if not self.started or self.complete or section != self.current:
                    raise Desync(f"section {section} ended, {self.current} was due")
                self.parts[section].status = status
                self.current += 1
            case Cleared(status):
                self.cleared = (self.current, status)


class Lines:
    """The lines of a script that prints for ever, each given out as soon as its newline has come.

    A Decoder would hold a last newline back, since a frame begins with one. Here only an empty line waits for the next:
    it may belong to the frame.
    """

    def __init__(self, nonce: str, longest_bytes: int) -> None:
        """Over-long lines are cut at `longest_bytes`."""
        self._nonce = nonce.encode() + b" "
        self._longest_bytes = longest_bytes
        self._line = bytearray()
        self._empty = False
        self.started = False
        self.ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises Desync for a frame of no known shape."""
        lines: list[bytes] = []
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._add(piece)
            lines += self._complete(bytes(self._line))
            self._line.clear()
        self._add(rest)
        return lines

    def _add(self, piece: bytes) -> None:
        self._line += piece[: self._longest_bytes - len(self._line)]

    def _complete(self, line: bytes) -> list[bytes]:
        if line.startswith(self._nonce):
            match _frame(line[len(self._nonce) :]):
                case Started():
                    self.started = True
                case _:
                    self.ended = True
            self._empty = False
            return []
        if not self.started or self.ended:
            return []
        before = [b""] if self._empty else []
        self._empty = not line
        return [*before, line] if line else before
