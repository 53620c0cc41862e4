"""Names to hosts: what a chat may choose from, and what is said of a name that is none."""

from __future__ import annotations

import pytest

from bot.hosts import Fleet
from bot.i18n import render
from bot.settings import HostSettings, Settings
from handlers.command import Usage
from tests.handlers.ports import make_request

NOWHERE = HostSettings(address="203.0.113.7")
WEB = HostSettings(address="203.0.113.8", groups=("web",))


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(Settings(hosts={"prod": NOWHERE, "one": WEB, "two": WEB}), b"")


@pytest.mark.parametrize(
    ("word", "chosen"),
    [("prod", ("prod",)), ("web", ("one", "two")), ("@web", ("one", "two")), ("all", ("prod", "one"))],
)
def test_a_word_names_hosts_that_can_be_seen(fleet: Fleet, word: str, chosen: tuple[str, ...]) -> None:
    seen = ("prod", "one") if word == "all" else ("prod", "one", "two")
    assert fleet.choose(make_request("/mem", hosts=seen), (word,)) == chosen


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("zzzz", "There is no host zzzz. I know prod, one and two."),
        ("prd", "There is no host prd. Did you mean prod?"),
        ("@zzzz", "There is no group @zzzz. I know @web."),
        ("@wbe", "There is no group @wbe. Did you mean web?"),
        ("@prod", "There is no group @prod. Did you mean prod?"),
    ],
)
def test_a_word_that_names_none_is_answered_as_what_it_looks_like(fleet: Fleet, word: str, says: str) -> None:
    with pytest.raises(Usage) as usage:
        fleet.choose(make_request("/mem", hosts=("prod", "one", "two")), (word,))
    assert render(usage.value.text, "en") == says


def test_where_there_are_no_groups_hosts_are_named() -> None:
    fleet = Fleet(Settings(hosts={"prod": NOWHERE}), b"")
    with pytest.raises(Usage) as usage:
        fleet.choose(make_request("/mem"), ("@web",))
    assert render(usage.value.text, "en") == "There is no group @web. I know prod."
