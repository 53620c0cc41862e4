"""What `make bench` prints: one small table a question, ratios from one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first stand to the right."""
    widths = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    lines = [f"\n{title}"]
    for row in (columns, *rows):
        cells = [
            f"{cell:<{width}}" if not n else f"{cell:>{width}}" for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells))
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
