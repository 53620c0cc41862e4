"""What a source of hooks is: it proves who sent a request and makes questions of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict

from remote.redact import redact

TEXT = 2000  # characters of a text in a hook that are looked at
TITLE, LABEL = 160, 60  # characters that are kept
_PID = re.compile(r"\bpid[ :=]{1,3}(\d{1,7})\b", re.ASCII | re.IGNORECASE)


class NotUnderstood(ValueError):  # noqa: N818 - reads as what it says
    """The body of a request is not what its source sends."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one hook asks. `id` is made of ids in the proven body: the same question again has the same one.

    `host` is None where the settings map nothing to it. `subject` is the source's own id of what it is about. `label` and `title`
    are for people, redacted and hostile. `pid` is the process that it names, if it names one.
    """

    id: str
    host: str | None
    subject: str
    label: str
    title: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a note. `again_after_s` is the least time to wait before it is tried again; None where that is of no use."""

    sent: bool
    why: str = ""
    again_after_s: float | None = None


class Source(Protocol):
    """One kind of sender."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        ...

    @property
    def shown(self) -> str:
        """Its name for people."""
        ...

    def proven(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether who knows the secret sent this. Looks at nothing in the body but its raw bytes."""
        ...

    def questions(self, body: bytes) -> tuple[Question, ...]:
        """What a proven body asks; nothing where it tells of something else. Raises NotUnderstood."""
        ...

    def link(self, subject: str, label: str) -> str:
        """Where people can look at the subject, made of the settings' own address; empty where that is unknown."""
        ...

    @property
    def takes_notes(self) -> bool:
        """Whether the settings let us leave notes there."""
        ...

    async def leave(self, subject: str, text: str) -> Outcome:
        """Leave a note at the subject; only where it takes notes."""
        ...


class Part(BaseModel):
    """A part of a body. Senders add keys as they like."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _text(value: object) -> object:
    return value[:TEXT] if isinstance(value, str) else ""


def _number(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# Words for people, which may be missing, null or of any length; and an id that senders write as a number or as text.
Words = Annotated[str, BeforeValidator(_text)]
Id = Annotated[str, BeforeValidator(_number)]


def pid_in(*texts: str) -> int | None:
    """The process that the first of these texts names: `Worker (pid:689792) was sent SIGKILL!`."""
    found = next((match for match in map(_PID.search, texts) if match), None)
    return int(found[1]) if found else None


def short(text: str, most: int) -> str:
    """One redacted line of at most `most` characters."""
    line = redact(text).strip()
    return line if len(line) <= most else f"{line[: most - 1]}…"


def validated(model: type[Any], body: bytes) -> Any:  # noqa: ANN401 - an instance of the model
    """The body as its model. Raises NotUnderstood, without a word of the body."""
    try:
        return model.model_validate_json(body)
    except ValueError:
        raise NotUnderstood("not what this source sends") from None
