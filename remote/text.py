"""Words that are translated later: a msgid with typed values; this floor never speaks a language.

`T("{host} has {free} free", host="prod", free=Size(2048))` is data. `bot/i18n.py` renders it by chat and
person. Sentences are never glued from pieces: a list of things is a `Listing`, a count is `N(one, many, n)`.
Rows keep Texts as JSON (`dump`, `load`), so that one incident can speak two languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, shown as MiB or GiB."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Percent:
    """A share in percent (0 to 100), shown without decimals unless `digits` says so."""

    percent: float
    digits: int = 0


@dataclass(frozen=True, slots=True)
class When:
    """An aware moment, shown as a clock time with its zone (and the date when it is not today)."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time in seconds, shown in its largest fitting units (`3 min`, `2 h 5 min`)."""

    span_s: float


@dataclass(frozen=True, slots=True)
class Mono:
    """A literal (unit, command, path, id) shown in fixed width; may come from a hostile host."""

    literal: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Several values shown as the language lists things: `a, b and c`."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A translatable sentence: `msgid` in English with `{name}` places, filled from `values`.

    With `plural` the form is chosen by `count` (Russian has three forms); `{n}` shows it.
    """

    msgid: str
    values: tuple[tuple[str, Value], ...] = ()
    plural: str | None = None
    count: int = 0


Value = str | int | float | Size | Percent | When | Span | Mono | Listing | Text


def T(msgid: str, /, **values: Value) -> Text:  # noqa: N802 - the gettext habit of one short capital
    """A sentence with its values."""
    return Text(msgid, tuple(values.items()))


def N(one: str, many: str, n: int, /, **values: Value) -> Text:  # noqa: N802 - as above
    """A sentence that depends on the number `n`, which its places may show as `{n}`."""
    return Text(one, (("n", n), *values.items()), plural=many, count=n)


def dump(value: Value) -> Any:  # noqa: ANN401 - JSON
    """The value as JSON; `load` gives back an equal one."""
    match value:
        case str() | int() | float():
            return value
        case Size(size_bytes):
            return {"size": size_bytes}
        case Percent(percent, digits):
            return {"percent": percent, "digits": digits}
        case When(at):
            return {"when": at.isoformat()}
        case Span(span_s):
            return {"span": span_s}
        case Mono(literal):
            return {"mono": literal}
        case Listing(items):
            return {"list": [dump(item) for item in items]}
        case Text(msgid, values, plural, count):
            body: dict[str, Any] = {"text": msgid, "values": {name: dump(inner) for name, inner in values}}
            return body if plural is None else {**body, "plural": plural, "count": count}


def load(data: Any) -> Value:  # noqa: ANN401 - JSON
    """The value that `dump` wrote. Raises ValueError for anything else."""
    match data:
        case str() | int() | float():
            return data
        case {"size": int(size_bytes)}:
            return Size(size_bytes)
        case {"percent": percent, "digits": int(digits)}:
            return Percent(float(percent), digits)
        case {"when": str(moment)}:
            return When(datetime.fromisoformat(moment))
        case {"span": span_s}:
            return Span(float(span_s))
        case {"mono": str(literal)}:
            return Mono(literal)
        case {"list": list(items)}:
            return Listing(tuple(load(item) for item in items))
        case {"text": str(msgid), "values": Mapping() as values}:
            places = tuple((str(name), load(inner)) for name, inner in values.items())
            plural, count = data.get("plural"), int(data.get("count", 0))
            return Text(msgid, places, plural, count)
        case _:
            raise ValueError(f"not a dumped Value: {data!r}")


def load_text(data: Any) -> Text:  # noqa: ANN401 - JSON
    """Like `load`, for where only a sentence will do. Raises ValueError."""
    value = load(data)
    if not isinstance(value, Text):
        raise ValueError(f"not a dumped Text: {data!r}")  # noqa: TRY004 - bad data, not a bad type
    return value
