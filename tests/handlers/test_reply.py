"""Replies go into rows and come back; an old press of what changes something is told apart from a look."""

import pytest

from handlers import discover
from handlers.reply import Button, Code, Fold, Line, Meter, Reply, Table, Title, dump_reply, load_reply
from remote.text import Mono, Size, T

WHOLE = Reply(
    (
        Title(T("a"), "critical"), Line(T("b")), Table(((Size(1), Mono("x")),), (T("head"), T("er"))), Meter(3.5), Code(("c",), fold=True),
        Fold(T("more"), (Line(T("d")), Code(("e",)))),
    ),
    ((Button(T("Go"), "/go", "danger", T("Sure?")), Button(T("No"), "/no")),),
    key="k",
    loud=True,
)  # fmt: skip


def test_a_reply_survives_its_row() -> None:
    assert load_reply(dump_reply(WHOLE)) == WHOLE


@pytest.mark.parametrize("block", [{}, {"picture": 1}])
def test_an_unknown_block_is_refused(block: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a dumped block"):
        load_reply({**dump_reply(WHOLE), "blocks": [block]})


def test_the_commands_that_change_something_say_so() -> None:
    """An old one of these, typed to an absent bot, does not act (bot/dispatch.py)."""
    assert {name for name, command in discover().items() if command.effects} >= {"approve", "decline"}
