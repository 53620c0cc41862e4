"""A Reply as Telegram's HTML: every value escaped, only our own tags, never longer than a message may be."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from bot.chat.layout import AGAIN, Piece, clean, cut, left_out, meter, pieces, table_lines
from bot.i18n import render
from handlers.reply import Block, Code, Fold, Line, Meter, Reply, Table, Title
from remote.text import Text

MESSAGE = 4096  # UTF-16 units after the tags are read, https://core.telegram.org/bots/api#sendmessage
TITLE, LINE, CODE_LINE, ROW = 256, 1024, 2000, 120  # characters of one line of each kind
MARKS = {"good": " 🟢", "warning": " 🟠", "critical": " 🔴", "plain": ""}

# Who gives lines first when a message is too long.
_TITLE, _LINE, _ROW, _CODE, _FOLD = range(5)
_TAG = re.compile(r"</?[a-z][^<>]*>")


def draw(reply: Reply, language: str, now: datetime | None = None, *, again: bool = False) -> str:
    """The reply as HTML of at most 4096 units; what had to be left out is counted in it."""
    parts: list[_Part] = []
    for block in reply.blocks:
        for part in _parts(block, language, now):
            _add(parts, replace(part, before="\n") if isinstance(block, Title) and parts else part)
    if not parts:
        parts.append(_line(reply.toast or Text("…"), language, now))
    if again:
        parts.insert(1, replace(_line(AGAIN, language, now), rank=_TITLE))
    return _joined(_fitted(parts, language))


def _add(parts: list[_Part], part: _Part) -> None:
    """Sentences in a row are one part, so that what is left out of them is counted once."""
    if parts and parts[-1].rank == part.rank == _LINE:
        parts[-1] = replace(parts[-1], lines=parts[-1].lines + part.lines)
    else:
        parts.append(part)


def plain(markup: str) -> str:
    """What people would read of our own HTML, for a server that does not take it."""
    return html.unescape(_TAG.sub("", markup))


def units(text: str) -> int:
    """How long Telegram takes a text to be, in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@dataclass(frozen=True, slots=True)
class _Part:
    """A block as lines of HTML with tags around them all. `rank` says how soon it gives its last lines when room is short."""

    lines: tuple[str, ...]
    rank: int
    before: str = ""
    after: str = ""
    left_out: int = 0

    def html(self, language: str) -> str:
        """With its tags, and the count of what was left out."""
        lines = self.lines
        if self.left_out:
            lines = (*lines, html.escape(render(left_out(self.left_out), language), quote=False))
        # One stretch of fixed width, not one a line: Telegram reads at most 100 of them in a message.
        return self.before + "\n".join(lines).replace("</code>\n<code>", "\n") + self.after

    def without(self, over: int) -> _Part:
        """With so many last lines left out that `over` units are won, if it has them."""
        kept = list(self.lines)
        while kept and over > 0:
            over -= units(plain(kept.pop())) + 1
        return replace(self, lines=tuple(kept), left_out=self.left_out + len(self.lines) - len(kept))


def _parts(block: Block, language: str, now: datetime | None) -> Iterator[_Part]:
    match block:
        case Title(text, tone):
            title = _marked(_shortened(pieces(text, language, now), TITLE), bold=True)
            yield _Part((title + MARKS[tone],), _TITLE)
        case Line(text):
            yield _line(text, language, now)
        case Meter(percent):
            yield _Part((f"<code>{meter(percent)}</code>",), _LINE)
        case Table():
            yield from _fixed(_rows(block, language, now), _ROW)
        case Code(lines, fold):
            shown = [_escaped(line, CODE_LINE) for line in lines]
            yield from _quoted([f"<code>{line}</code>" for line in shown]) if fold else _fixed(shown, _CODE)
        case Fold(caption, inner):
            head = _marked(_shortened(pieces(caption, language, now), TITLE), bold=True)
            yield from _quoted([line for one in inner for line in _inner(one, language, now)], f"{head}\n")


def _line(text: Text, language: str, now: datetime | None) -> _Part:
    return _Part((_marked(_shortened(pieces(text, language, now), LINE)),), _LINE)


def _inner(block: Line | Table | Code, language: str, now: datetime | None) -> Iterator[str]:
    """The lines of what stands in a quote, where no <pre> may."""
    match block:
        case Line():
            yield from _line(block.text, language, now).lines
        case Table():
            yield from (f"<code>{row}</code>" for row in _rows(block, language, now))
        case Code(lines):
            yield from (f"<code>{_escaped(line, CODE_LINE)}</code>" for line in lines)


def _fixed(lines: list[str], rank: int) -> Iterator[_Part]:
    if lines:
        yield _Part(tuple(lines), rank, "<pre>", "</pre>")


def _quoted(lines: list[str], head: str = "") -> Iterator[_Part]:
    if lines:
        yield _Part(tuple(lines), _FOLD, f"<blockquote expandable>{head}", "</blockquote>")


def _rows(table: Table, language: str, now: datetime | None) -> list[str]:
    return [html.escape(cut(line, ROW), quote=False) for line in table_lines(table, language, now)]


def _escaped(line: str, most: int) -> str:
    return html.escape(cut(clean(line), most), quote=False)


def _marked(sentence: Iterable[Piece], *, bold: bool = False) -> str:
    """Pieces as HTML. Fixed width stands beside bold, never in it: Telegram lets <code> hold and be held by nothing."""
    loose = "b" if bold else ""
    return "".join(_tagged(html.escape(piece.text, quote=False), "code" if piece.fixed else loose) for piece in sentence)


def _tagged(escaped: str, tag: str) -> str:
    return f"<{tag}>{escaped}</{tag}>" if tag else escaped


def _shortened(sentence: tuple[Piece, ...], most: int) -> Iterator[Piece]:
    """The pieces up to `most` characters in all."""
    for piece in sentence:
        if len(piece.text) > most:
            yield Piece(f"{piece.text[: max(0, most - 1)]}…", piece.fixed)
            return
        most -= len(piece.text)
        yield piece


def _joined(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _fitted(parts: list[_Part], language: str) -> list[str]:
    """The parts' HTML, last lines left out where it would be too long: of folds first, then of code, tables, sentences."""
    shown = [part.html(language) for part in parts]
    while (over := units(plain(_joined(shown))) - MESSAGE) > 0:
        giver = max((n for n, part in enumerate(parts) if part.lines), key=lambda n: (parts[n].rank, n), default=None)
        if giver is None or parts[giver].rank == _TITLE:
            # Nothing but titles, or counts of what was left out: the last go whole.
            parts.pop()
            shown.pop()
            continue
        parts[giver] = parts[giver].without(over)
        shown[giver] = parts[giver].html(language)
    return shown
