"""What a reply looks like in words: every text in it, and how wide its tables are."""

from __future__ import annotations

from collections.abc import Iterator

from wcwidth import wcswidth

from bot.i18n import render
from handlers.reply import Code, Fold, Line, Reply, Table, Title
from remote.text import Text
from tests.handlers.ports import NOW

WIDTH = 34
NAME = 8  # what must be left of a name


def texts(reply: Reply) -> Iterator[Text]:
    """Every sentence that may be shown."""
    for block in flat(reply):
        match block:
            case Title(text) | Line(text):
                yield text
            case Fold(caption):
                yield caption
            case Table(rows, head):
                yield from head
                yield from (cell for row in rows for cell in row if isinstance(cell, Text))
            case _:
                pass
    for row in reply.buttons:
        for button in row:
            yield button.label
            if button.confirm:
                yield button.confirm
    if reply.toast:
        yield reply.toast
    yield from (answer.error.text for answer in reply.hosts if answer.error)
    if reply.error:
        yield reply.error.text


def flat(reply: Reply) -> Iterator[object]:
    """The blocks, those in folds too."""
    for block in reply.blocks:
        yield block
        if isinstance(block, Fold):
            yield from block.blocks


def words(reply: Reply, language: str = "en") -> str:
    """The reply as plain lines."""
    return "\n".join([*lines(reply, language)])


def lines(reply: Reply, language: str) -> Iterator[str]:
    """One line a block, a table's row or a code line."""
    for block in flat(reply):
        match block:
            case Title(text) | Line(text):
                yield render(text, language, NOW)
            case Fold(caption):
                yield render(caption, language, NOW)
            case Code(shown):
                yield from shown
            case Table():
                yield from table_lines(block, language)
            case _:
                pass
    for row in reply.buttons:
        yield " ".join(f"[{render(button.label, language, NOW)}]({button.command})" for button in row)


def cells(table: Table, language: str) -> list[list[str]]:
    """The head and the rows, worded as in a table."""
    rows = [table.head, *table.rows] if table.head else list(table.rows)
    return [[render(cell, language, NOW, short=True) for cell in row] for row in rows]


def table_lines(table: Table, language: str) -> Iterator[str]:
    """Columns side by side, the last one as it is."""
    shown = cells(table, language)
    widths = [max(wcswidth(row[at]) for row in shown) for at in range(len(shown[0]) - 1)]
    for row in shown:
        yield " ".join([*(" " * (width - wcswidth(cell)) + cell for cell, width in zip(row, widths, strict=False)), row[-1]])


def room_for_name(table: Table, language: str) -> int:
    """How many columns the last one has: the numbers before it are never cut."""
    shown = cells(table, language)
    numbers = sum(max(wcswidth(row[at]) for row in shown) + 1 for at in range(len(shown[0]) - 1))
    return WIDTH - numbers
