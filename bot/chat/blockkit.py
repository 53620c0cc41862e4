"""A Reply as Slack's Block Kit. Nothing that comes from a host is ever parsed by Slack: it stands in rich text elements and
plain_text objects, which have no markup, and `text` (the notification) is escaped.

Limits: docs.slack.dev/reference/block-kit; the sum over all blocks is undocumented (github.com/slackapi/bolt-js/issues/2509).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bot.chat.layout import AGAIN, clean, meter, pieces, table_lines
from bot.i18n import render
from handlers.reply import Block, Button, Code, Fold, Line, Meter, Reply, Table, Title
from remote.text import N, T, Text

if TYPE_CHECKING:
    from datetime import datetime

Json = dict[str, Any]

BLOCKS_MAX = 50
GROUPS_MAX = 30  # blocks of text; the rest is for buttons
CHARS_MAX = 9_000  # of text; with buttons and their tokens the whole stays below the 13,000 that Slack takes
LINE_MAX = 1_000  # characters of one line
FOLD_MAX = 12  # lines: Slack cannot fold, so details are kept short
TEXT_MAX = 3_000  # of a message without blocks, far below what Slack takes but readable
PREVIEW_MAX = 300
LABEL_MAX, CONFIRM_TITLE_MAX, CONFIRM_TEXT_MAX, CONFIRM_LABEL_MAX = 75, 100, 300, 30
ROW_MAX = 25
_SIGNS = {"critical": "red_circle", "warning": "large_yellow_circle", "good": "white_check_mark"}
_STYLES = {"good": "primary", "danger": "danger"}


@dataclass(frozen=True, slots=True)
class Run:
    """Some characters in one style: `bold`, `code`, `italic` or none; `emoji` names a sign instead."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line. Rows of one `part` stand together; `fixed` ones in fixed width."""

    runs: tuple[Run, ...]
    part: int
    fixed: bool = False

    @property
    def size(self) -> int:
        """Its characters, with the break at its end."""
        return sum(len(run.text) for run in self.runs) + 1


def escape(text: str) -> str:
    """Text that Slack's mrkdwn shows as it is, but for styles: no mention, no link, no channel-wide ping."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def preview(reply: Reply, language: str, now: datetime | None = None) -> str:
    """The line for notifications and screen readers, escaped: the reply's title."""
    rows = _rows(reply, language, now)
    first = "".join(run.text for run in rows[0].runs if run.style != "emoji") if rows else ""
    return escape(_cut(first.strip(), PREVIEW_MAX)) or "memwarden"


def blocks(
    reply: Reply, language: str, tokens: Mapping[str, str], now: datetime | None = None, *, again: bool = False
) -> list[Json]:
    """The reply's blocks, within Slack's limits; what does not fit is said. `tokens` by command; ids are fresh each time."""
    kept, left_out = _fit(_rows(reply, language, now))
    shown = [_rich(rows) for rows in _groups(kept)]
    notes = []
    if left_out:
        notes.append(_left_out(left_out, language))
    if again:
        notes.append(render(AGAIN, language))
    if notes:
        shown.append({"type": "context", "elements": [_plain(note) for note in notes]})
    shown += _actions(reply, language, tokens)
    stamp = uuid4().hex[:12]
    return [{**block, "block_id": f"{stamp}-{n}"} for n, block in enumerate(shown[:BLOCKS_MAX])]


def plain_text(reply: Reply, language: str, now: datetime | None = None) -> str:
    """The reply without blocks, escaped: buttons become the commands one can type."""
    rows = _rows(reply, language, now)
    lines = ["".join(run.text for run in row.runs if run.style != "emoji").strip() for row in rows]
    commands = [
        f"{clean(render(button.label, language, now))}: {clean(button.command)}" for row in reply.buttons for button in row
    ]
    room = TEXT_MAX - sum(len(command) + 1 for command in commands)
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    if len(kept) < len(lines):
        kept.append(_left_out(len(lines) - len(kept), language))
    return escape("\n".join([*kept, *commands])) or "memwarden"


def _left_out(count: int, language: str) -> str:
    return render(N("{n} more line is left out.", "{n} more lines are left out.", count), language)


# From the reply to lines


def _rows(reply: Reply, language: str, now: datetime | None) -> list[Row]:
    found = [row for n, block in enumerate(reply.blocks) for row in _block(block, n * 1000, language, now)]
    return [_short(row) for row in found]


def _block(block: Block, part: int, language: str, now: datetime | None) -> Iterator[Row]:
    match block:
        case Title(text, tone):
            sign = (Run(_SIGNS[tone], "emoji"), Run(" ")) if tone in _SIGNS else ()
            yield Row((*sign, *(replace(run, style="bold") for run in _runs(text, language, now))), part)
        case Line(text):
            yield Row(tuple(_runs(text, language, now)), part)
        case Table():
            yield from (Row((Run(line),), part, fixed=True) for line in table_lines(block, language, now))
        case Meter(percent):
            yield Row((Run(meter(percent), "code"),), part)
        case Code(lines):
            yield from (Row((Run(clean(line)),), part, fixed=True) for line in lines)
        case Fold():
            yield from _fold(block, part, language, now)


def _fold(fold: Fold, part: int, language: str, now: datetime | None) -> Iterator[Row]:
    yield Row((Run(clean(render(fold.caption, language, now)), "italic"),), part)
    rows = [row for n, inner in enumerate(fold.blocks, 1) for row in _block(inner, part + n, language, now)]
    yield from rows[:FOLD_MAX]
    if len(rows) > FOLD_MAX:
        yield Row((Run(_left_out(len(rows) - FOLD_MAX, language), "italic"),), part + 999)


def _runs(text: Text, language: str, now: datetime | None) -> Iterator[Run]:
    """A sentence, its literals in fixed width."""
    return (Run(piece.text, "code" if piece.fixed else "") for piece in pieces(text, language, now))


def _short(row: Row) -> Row:
    if row.size <= LINE_MAX:
        return row
    kept: list[Run] = []
    left = LINE_MAX
    for run in row.runs:
        kept.append(replace(run, text=_cut(run.text, left)))
        left -= len(run.text)
        if left <= 0:
            break
    return replace(row, runs=tuple(kept))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"


# From lines to blocks


def _fit(rows: list[Row]) -> tuple[list[Row], int]:
    """The rows that fit, and how many do not."""
    room = CHARS_MAX
    for n, row in enumerate(rows):
        room -= row.size
        if room < 0:
            return rows[:n], len(rows) - n
    return rows, 0


def _groups(rows: list[Row]) -> list[list[Row]]:
    """One block a title (a host) with what belongs to it, as long as there are not too many."""
    groups: list[list[Row]] = []
    for row in rows:
        title = any(run.style == "bold" for run in row.runs)
        if not groups or (title and len(groups) < GROUPS_MAX):
            groups.append([])
        groups[-1].append(row)
    return groups


def _rich(rows: list[Row]) -> Json:
    """Lines as rich text: sentences share a section, lines of fixed width of one part a preformatted box."""
    elements = []
    for (fixed, _part), some in groupby(rows, lambda row: (row.fixed, row.part if row.fixed else -1)):
        lines = list(some)
        if fixed:
            text = "\n".join("".join(run.text for run in row.runs) for row in lines)
            elements.append({"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text or " "}]})
        else:
            elements.append({"type": "rich_text_section", "elements": list(_section(lines))})
    return {"type": "rich_text", "elements": elements}


def _section(rows: list[Row]) -> Iterator[Json]:
    for n, row in enumerate(rows):
        if n:
            yield {"type": "text", "text": "\n"}
        for run in row.runs:
            if run.style == "emoji":
                yield {"type": "emoji", "name": run.text}
            elif run.text:
                style = {"style": {run.style: True}} if run.style else {}
                yield {"type": "text", "text": run.text, **style}


def _actions(reply: Reply, language: str, tokens: Mapping[str, str]) -> list[Json]:
    found = []
    for n, row in enumerate(reply.buttons):
        known = [button for button in row if button.command in tokens][:ROW_MAX]
        elements = [_button(button, f"press-{n}-{m}", tokens[button.command], language) for m, button in enumerate(known)]
        if elements:
            found.append({"type": "actions", "elements": elements})
    return found


def _button(button: Button, action_id: str, token: str, language: str) -> Json:
    label = clean(render(button.label, language))
    shown: Json = {"type": "button", "action_id": action_id, "value": token, "text": _plain(_cut(label, LABEL_MAX))}
    if button.style in _STYLES:
        shown["style"] = _STYLES[button.style]
    if button.confirm is not None:
        shown["confirm"] = {
            "title": _plain(_cut(label, CONFIRM_TITLE_MAX)),
            "text": _plain(_cut(clean(render(button.confirm, language)), CONFIRM_TEXT_MAX)),
            "confirm": _plain(_cut(label, CONFIRM_LABEL_MAX)),
            "deny": _plain(_cut(render(T("Cancel"), language), CONFIRM_LABEL_MAX)),
        }
    return shown


def _plain(text: str) -> Json:
    return {"type": "plain_text", "text": text or " ", "emoji": False}
