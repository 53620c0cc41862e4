"""What `memwarden check` says of a host, by what may be read there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bot import check
from bot.i18n import render
from tests.handlers.worlds import MACHINE


def said(**more: Any) -> list[tuple[bool, str]]:  # noqa: ANN401 - a field's value
    return [(good, render(text, "en")) for good, text in check._rights("prod", replace(MACHINE, **more))]


def test_a_host_where_all_may_be_read_has_nothing_more_to_say() -> None:
    assert said() == []


def test_a_journal_that_hides_others_is_something_to_mend() -> None:
    assert said(journal="own") == [
        (False, "prod: its journal cannot be read whole, so kills may be missed. Add the user to the group systemd-journal.")
    ]


@pytest.mark.parametrize("systemd", [None, 252])
def test_where_there_is_no_journal_nothing_is_to_be_mended(systemd: int | None) -> None:
    (found,) = said(journal="none", systemd_version=systemd)
    assert found == (
        True, "prod: there is no journal; I read the kernel's buffer or log files instead, so kills may be missed"
    )  # fmt: skip


def test_a_host_without_root_can_be_looked_at() -> None:
    assert said(root="no") == [(True, "prod: no root and no sudo; a fix can be shown there but not applied")]
