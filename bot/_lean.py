"""Import this before structlog: its developers' renderer imports all of rich, for tracebacks that are never printed that way.

That is 86 modules and 5 MB in every process; without rich structlog does without. The console imports rich when there is a
terminal to draw on.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

M_ARENA_MAX = -8  # malloc.h

if "structlog" not in sys.modules and "rich" not in sys.modules:
    modules: dict[str, Any] = sys.modules
    modules["rich"] = None  # Python's own sign for "not to be found" (docs.python.org, "The import system", 5.3.1)
    try:
        importlib.import_module("structlog")
    finally:
        del modules["rich"]


def one_arena() -> None:
    """Let all threads share one heap: SQLite's come and go, and glibc would keep a heap for each (mallopt(3))."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        _libc().mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Return to the system what a look at many hosts took and has freed (malloc_trim(3))."""
    with contextlib.suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def _libc() -> Any:  # noqa: ANN401 - its functions are found by name
    import ctypes

    return ctypes.CDLL(None)
