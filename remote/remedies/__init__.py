"""Remedies: one file each; a finding in, typed steps out; each step previews, checks, applies, verifies, undoes."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remote.remedies.base import Remedy


@cache
def discover() -> dict[str, Remedy]:
    """Every remedy of this package, by kind."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        remedy = getattr(importlib.import_module(f"{__name__}.{module.name}"), "REMEDY", None)
        if remedy is not None:
            found[remedy.kind] = remedy
    return found
