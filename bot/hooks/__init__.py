"""Hooks: others may ask memwarden to look at a host (docs/hooks.md). One file a source, found by itself.

A hook is a question, never a sign: which host it is about is read from the settings, what is told comes from the host, and no
address that stands in a hook is ever fetched.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot.hooks.base import Source
    from bot.settings import HookSettings


def sources(settings: HookSettings) -> dict[str, Source]:
    """The sources of this package that the settings name, by name: `POST /hooks/NAME`."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        opened = getattr(importlib.import_module(f"{__name__}.{module.name}"), "SOURCE", None)
        source = opened(settings) if opened is not None else None
        if source is not None:
            found[source.name] = source
    return found
