"""Command lines are sealed: they often hold passwords, and what is printed once stays in a chat for ever."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class CommandLine:
    """The argv of a process, sealed: str, repr and formatting show only the program's name.

    `open()` is for code that must read options (services, remedies); nothing it returns may be shown or kept.
    `digest(key)` is a keyed digest that a plan may keep to recognise the same line again.
    """

    _argv: tuple[str, ...]

    def open(self) -> tuple[str, ...]:
        """The raw argv. Never show, log or store it."""
        return self._argv

    def digest(self, key: bytes) -> str:
        """A keyed digest (hex) of the raw line: equal lines, equal digests; nothing can be read from it."""
        return hmac.new(key, "\0".join(self._argv).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    def __str__(self) -> str:
        """The program's name and how many words were left out."""
        if not self._argv:
            return ""
        rest = len(self._argv) - 1
        name = self._argv[0].split("=", 1)[0].rsplit("/", 1)[-1].split(" ", 1)[0][:32]  # of KEY=VALUE only the key
        return f"{name} … ({rest} words)" if rest else name

    def __repr__(self) -> str:
        """As `str`, so that a traceback shows no secret."""
        return f"<CommandLine {self}>"
