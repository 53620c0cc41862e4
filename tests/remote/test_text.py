"""Texts go into rows and come back equal; anything else is refused."""

from datetime import UTC, datetime

import pytest

from remote.text import Listing, Mono, N, Percent, Size, Span, T, Text, Value, When, dump, load, load_text

VALUES: list[Value] = [
    "word", 3, 2.5, Size(1 << 30), Percent(12.5, 1), When(datetime(2026, 11, 23, 14, 2, tzinfo=UTC)), Span(61.0), Mono("a <b>"),
    Listing((Mono("a"), T("b {c}", c=Size(1)))), T("plain"), N("{n} kill", "{n} kills", 3, host=Mono("prod")),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_goes_in_comes_out(value: Value) -> None:
    assert load(dump(value)) == value
    assert isinstance(value, Text) == _is_text(value)


def _is_text(value: Value) -> bool:
    try:
        load_text(dump(value))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("data", [None, [], {}, {"size": "big"}, {"text": 3}, {"when": 5}])
def test_what_dump_never_wrote_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="not a dumped"):
        load(data)
