"""What all chats draw alike: tables in fixed width, the meter's bar, and text from hosts made harmless to look at."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from wcwidth import wcswidth, wcwidth

from bot.i18n import render
from handlers.reply import Table
from remote.text import Listing, Mono, N, T, Text, Value

WIDTH = 34  # columns: what a phone of 360 to 390 pixels shows of fixed width before it wraps
GAP = "  "
LEAST_NAME = 6  # columns that the last column keeps, whatever the numbers need
BAR = 20  # characters of a meter
MARKS = 4  # characters a column holds at most, combining marks included
LITERAL = 256  # characters of one literal within a sentence
AGAIN = T("This may have been shown before.")

_OPEN, _SHUT = "\ue000", "\ue001"  # private use: `clean` lets none of them through from a host
_FIXED = re.compile(f"{_OPEN}([^{_OPEN}{_SHUT}]*){_SHUT}")


def left_out(count: int) -> Text:
    """What stands in the place of lines for which a message has no room."""
    return N("{n} more line is left out.", "{n} more lines are left out.", count)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a sentence: one line, cleaned, in fixed width (a literal) or not."""

    text: str
    fixed: bool = False


def pieces(value: Value, language: str, now: datetime | None = None) -> tuple[Piece, ...]:
    """The sentence in `language`, its literals apart, so that a chat marks them up after it has escaped both."""
    return tuple(_split(clean(render(_marked(value), language, now), keep=_OPEN + _SHUT)))


def _split(rendered: str) -> Iterator[Piece]:
    at = 0
    for literal in _FIXED.finditer(rendered):
        if literal.start() > at:
            yield Piece(rendered[at : literal.start()])
        if literal[1]:
            yield Piece(literal[1], fixed=True)
        at = literal.end()
    if at < len(rendered):
        yield Piece(rendered[at:])


def _marked(value: Value) -> Value:
    """The value with its literals between marks that nothing else can hold."""
    match value:
        case str():
            return clean(value)
        case Mono(literal):
            return Mono(f"{_OPEN}{cut(clean(literal), LITERAL)}{_SHUT}")
        case Listing(items):
            return Listing(tuple(_marked(item) for item in items))
        case Text(msgid, values, plural, count):
            return Text(msgid, tuple((name, _marked(inner)) for name, inner in values), plural, count)
        case _:
            return value


def clean(text: str, keep: str = "") -> str:
    """One line of text that a terminal or a chat shows as it is: control, bidi and other invisible characters are gone, but
    for those in `keep`."""
    return "".join(character if character in keep else _clean(character) for character in text)


def _clean(character: str) -> str:
    match unicodedata.category(character):
        case "Cc" | "Zl" | "Zp":
            return " " if character in "\n\r\t\v\f\x85\u2028\u2029" else ""
        case "Cf":
            return ""
        case "Cs" | "Co" | "Cn":
            return "\N{REPLACEMENT CHARACTER}"
        case _:
            return character


def columns(text: str) -> int:
    """How many columns the text takes in fixed width."""
    return max(0, wcswidth(text))


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns; what was cut away shows as an ellipsis."""
    # Marks take no column: a name of nothing else must not grow for ever.
    most = MARKS * width
    if len(text) <= most and columns(text) <= width:
        return text
    kept, taken = [], 1
    for character in text[:most]:
        taken += max(0, wcwidth(character))
        if taken > width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def table_lines(table: Table, language: str, now: datetime | None = None, width: int = WIDTH) -> list[str]:
    """The table's lines, its head first: numbers right-aligned and never cut, the last column cut to fit `width`."""
    rows = [[clean(render(cell, language, now, short=True)) for cell in row] for row in (table.head, *table.rows) if row]
    if not rows:
        return []
    count = max(map(len, rows))
    widths = [max((columns(row[n]) for row in rows if n < len(row) - 1), default=0) for n in range(count - 1)]
    left = max(LEAST_NAME, width - sum(widths) - len(GAP) * len(widths))
    return [_row(row, widths, left) for row in rows]


def _row(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = [" " * (widths[n] - columns(cell)) + cell for n, cell in enumerate(row[:-1])]
    return GAP.join([*cells, cut(row[-1], left)]).rstrip()


def meter(percent: float, width: int = BAR) -> str:
    """The bar of a share: `███████░░░ 68%`."""
    share = min(100.0, max(0.0, percent))
    full = round(share * width / 100)
    return f"{'█' * full}{'░' * (width - full)} {share:.0f}%"
