"""What a reply is made of, and nothing about how it looks where. Rows keep Replies as JSON (`dump_reply`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from typing import Any, Literal

from remote.text import Text, Value, dump, load, load_text

Tone = Literal["plain", "good", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Title:
    """The first line: what matters, in bold, under 100 characters (it is the push preview)."""

    text: Text
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence on a line of its own."""

    text: Text


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values in fixed width, at most 34 columns: numbers first and never cut, the name last and cut to fit."""

    rows: tuple[tuple[Value, ...], ...]
    head: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True)
class Meter:
    """A bar for a share in percent."""

    percent: float


@dataclass(frozen=True, slots=True)
class Code:
    """Literal lines (commands, log lines), possibly hostile. Folded where the chat can fold and `fold` is set."""

    lines: tuple[str, ...]
    fold: bool = False


@dataclass(frozen=True, slots=True)
class Fold:
    """Details that are folded away where the chat can, under a caption."""

    caption: Text
    blocks: tuple[Line | Table | Code, ...]


Block = Title | Line | Table | Meter | Code | Fold


@dataclass(frozen=True, slots=True)
class Button:
    """A button is a command that one can also type. `confirm` asks once more where the chat can."""

    label: Text
    command: str
    style: Literal["plain", "good", "danger"] = "plain"
    confirm: Text | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something did not work: a stable `kind` for scripts (`usage`, `refused`, `not-found`, or a HostError's), words
    for people, and an id to find in the log where it was our own fault."""

    kind: str
    text: Text
    id: str = ""


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """One host's part of the JSON: `data` is one of the commands' dataclasses (its fields are the contract), or None."""

    host: str
    data: object | None
    error: Failure | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command answers.

    `toast` is a short answer to a press (at most 180 characters); a Reply with a toast and no blocks posts no message.
    `key` makes it a living message: a later Reply with the same key edits it in the same chat. `data` is the JSON's
    `data` for commands without a host. `settles` is a plan id to wait for (`ask` waits until it has reached a final state).
    `loud` is for what must make a sound. `error` refuses or fails the whole command.
    """

    blocks: tuple[Block, ...] = ()
    buttons: tuple[tuple[Button, ...], ...] = ()
    toast: Text | None = None
    hosts: tuple[HostAnswer, ...] = ()
    data: object | None = None
    error: Failure | None = None
    key: str = ""
    settles: str = ""
    loud: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything that was asked was answered."""
        return self.error is None and all(answer.error is None for answer in self.hosts)


def plain_json(value: Any, english: Any) -> Any:  # noqa: ANN401 - JSON
    """A command's data as JSON: dataclasses by field, times in ISO 8601, Texts in English by `english(text)`."""
    match value:
        case Text():
            return english(value)
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): plain_json(inner, english) for key, inner in value.items()}
        case list() | tuple():
            return [plain_json(inner, english) for inner in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            names = value.__dataclass_fields__
            return {name: plain_json(getattr(value, name), english) for name in names}
        case _:
            return value


def dump_reply(reply: Reply) -> dict[str, Any]:
    """What is shown of the reply, as JSON for a row (data for scripts is left out)."""
    return {
        "blocks": [_dump_block(block) for block in reply.blocks],
        "buttons": [[_dump_button(button) for button in row] for row in reply.buttons],
        "key": reply.key,
        "loud": reply.loud,
    }


def load_reply(data: Mapping[str, Any]) -> Reply:
    """What `dump_reply` kept."""
    return Reply(
        blocks=tuple(_load_block(block) for block in data["blocks"]),
        buttons=tuple(tuple(_load_button(button) for button in row) for row in data["buttons"]),
        key=data["key"],
        loud=data["loud"],
    )


def _dump_block(block: Block) -> dict[str, Any]:
    match block:
        case Title(text, tone):
            return {"title": dump(text), "tone": tone}
        case Line(text):
            return {"line": dump(text)}
        case Table(rows, head):
            return {"table": [[dump(cell) for cell in row] for row in rows], "head": [dump(cell) for cell in head]}
        case Meter(percent):
            return {"meter": percent}
        case Code():
            return {"code": asdict(block)}
        case Fold(caption, blocks):
            return {"fold": dump(caption), "blocks": [_dump_block(inner) for inner in blocks]}


def _load_block(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a Block; Fold wants the narrower union
    match data:
        case {"title": text, "tone": tone}:
            return Title(load_text(text), tone)
        case {"line": text}:
            return Line(load_text(text))
        case {"table": rows, "head": head}:
            return Table(tuple(tuple(load(cell) for cell in row) for row in rows), tuple(load_text(h) for h in head))
        case {"meter": percent}:
            return Meter(float(percent))
        case {"code": {"lines": lines, "fold": fold}}:
            return Code(tuple(lines), fold)
        case {"fold": caption, "blocks": blocks}:
            return Fold(load_text(caption), tuple(_load_block(inner) for inner in blocks))
        case _:
            raise ValueError(f"not a dumped block: {data!r}")


def _dump_button(button: Button) -> dict[str, Any]:
    return {
        "label": dump(button.label),
        "command": button.command,
        "style": button.style,
        "confirm": button.confirm and dump(button.confirm),
    }


def _load_button(data: Mapping[str, Any]) -> Button:
    confirm = load_text(data["confirm"]) if data["confirm"] else None
    return Button(load_text(data["label"]), data["command"], data["style"], confirm)
