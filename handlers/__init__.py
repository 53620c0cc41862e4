"""The commands, one file each: an async function from a Request to a Reply. They know no platform and no SQL."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.command import Command


def discover() -> dict[str, Command]:
    """Every command by its name: all modules of this package that export COMMAND. A new one is one new file."""
    found: dict[str, Command] = {}
    for info in pkgutil.iter_modules(__path__, f"{__name__}."):
        command: Command | None = getattr(import_module(info.name), "COMMAND", None)
        if command is None:
            continue
        if command.name in found:
            raise TypeError(f"two commands are called /{command.name}")
        found[command.name] = command
    return dict(sorted(found.items()))
