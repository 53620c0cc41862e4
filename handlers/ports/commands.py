"""All commands, for /help and /start."""

from __future__ import annotations

from typing import Protocol

from handlers.command import Command


class Commands(Protocol):
    """The commands that were found."""

    def all(self) -> tuple[Command, ...]:
        """Every command, by name."""
        ...

    def find(self, name: str) -> Command | None:
        """The one with this name (no slash)."""
        ...
