"""Import this before structlog: its developers' renderer imports all of rich, for tracebacks that are never printed that way.

That is 86 modules and 5 MB in every process; without rich structlog does without. The console imports rich when there is a
terminal to draw on.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

if "structlog" not in sys.modules and "rich" not in sys.modules:
    modules: dict[str, Any] = sys.modules
    modules["rich"] = None  # Python's own sign for "not to be found" (docs.python.org, "The import system", 5.3.1)
    try:
        importlib.import_module("structlog")
    finally:
        del modules["rich"]
