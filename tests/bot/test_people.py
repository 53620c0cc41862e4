"""Who somebody is: by immutable ids, and on Slack by team and user."""

from __future__ import annotations

import pytest

from bot.chat.base import Sender
from bot.people import People
from bot.settings import PersonSettings, Settings

PEOPLE = {
    "bare": PersonSettings(slack="U0BARE", role="approver"),
    "whole": PersonSettings(slack="T0FAR/U0WHOLE", role="admin"),
    "first": PersonSettings(console=True, role="viewer"),
    "second": PersonSettings(console=True, role="admin"),
    "phone": PersonSettings(telegram="111", role="viewer"),
}


@pytest.mark.parametrize(
    ("platform", "sender", "person"),
    [
        ("slack", Sender("T0HOME/U0BARE", home=True), "bare"),
        ("slack", Sender("T0FAR/U0BARE"), None),
        ("slack", Sender("T0FAR/U0WHOLE"), "whole"),
        ("slack", Sender("T0HOME/U0WHOLE", home=True), None),
        ("slack", Sender("T0FAR/U0WHOLE", anonymous=True), None),
        ("slack", Sender("U0BARE", anonymous=True), None),
        ("slack", Sender("T0HOME/", home=True), None),
        ("console", Sender("console:second"), "second"),
        ("console", Sender("console:first"), "first"),
        ("console", Sender("console:phone"), None),
        ("telegram", Sender("111"), "phone"),
        ("telegram", Sender("T0HOME/111"), None),
        ("slack", Sender("T0HOME/111", home=True), None),
    ],
)
def test_an_account_is_one_persons_or_nobodys(platform: str, sender: Sender, person: str | None) -> None:
    found = People(Settings(people=PEOPLE)).person(platform, sender)
    assert (found.id if found.role != "stranger" else None) == person
