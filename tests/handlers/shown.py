"""What a reply looks like in words: every text in it, in lines."""

from __future__ import annotations

from collections.abc import Iterator

from bot.chat.layout import table_lines
from bot.i18n import render
from handlers.reply import Code, Fold, Line, Reply, Table, Title
from remote.text import Text
from tests.handlers.ports import NOW


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
