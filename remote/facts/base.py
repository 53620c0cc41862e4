"""What a fact is: one sh script, one parser, one dataclass. One file a fact; new ones are found by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from remote.text import Text

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A fact that could not be read, as a value: the rest of the answer still stands.

    `kind`: `denied`, `missing` (the file or program is not there), `timeout`, `flood` (over its byte cap),
    `garbled` (unparsable), `failed` (exit status), `unsupported`.
    """

    kind: str
    why: Text


@dataclass(frozen=True, slots=True)
class Fact(Generic[A]):
    """A question about a host.

    `script` is POSIX sh (dash, bash, busybox ash; no bashisms), run in a subshell with `</dev/null`, stderr
    dropped (a script that needs it prints it itself); it may use fork-free builtins to be cheap. `parse` turns
    stdout into the answer, or into an `Unreadable` when the script itself says why it could not read; it raises
    `Unparsable` for what it does not understand. `slow` facts go down a channel of their own so that they never
    delay the quick ones. `local` reads the same answer on this machine without a shell (psutil).
    """

    name: str
    script: str
    parse: Callable[[str], A | Unreadable]
    slow: bool = False
    deadline_s: float = 5.0
    cap_bytes: int = 4 << 20
    local: Callable[[], A | Unreadable] | None = field(default=None, compare=False)


class Answers:
    """The answers to one question, by fact: `answers[MEMORY]` is a `Memory` or an `Unreadable`."""

    def __init__(self, values: Mapping[Fact[Any], Any]) -> None:
        """`values` holds one answer for each fact that was asked."""
        self._values = dict(values)

    def __getitem__(self, fact: Fact[A]) -> A | Unreadable:
        """The answer to `fact`; KeyError when it was not asked."""
        value: A | Unreadable = self._values[fact]
        return value

    def readable(self, fact: Fact[A]) -> A | None:
        """The answer to `fact`; None when it could not be read. KeyError when it was not asked."""
        answer = self[fact]
        return None if isinstance(answer, Unreadable) else answer

    def __contains__(self, fact: object) -> bool:
        """Whether `fact` was asked."""
        return fact in self._values

    def __or__(self, other: Answers) -> Answers:
        """Both sets of answers; the right one wins."""
        return Answers({**self._values, **other._values})
