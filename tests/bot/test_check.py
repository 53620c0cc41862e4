"""What `memwarden check` says of whom alerts reach, and of a host, by what may be read there and what is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot import check
from bot.i18n import render
from bot.settings import HostSettings, load
from remote.facts.base import Answers, Unreadable
from remote.facts.reading import unreadable
from remote.facts.units import UNITS, Units
from tests.handlers import worlds
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


BOSS = """
[hosts.prod]
address = "203.0.113.7"
[hosts.web]
address = "203.0.113.8"
[people.boss]
telegram = 1
console = true
role = "admin"
"""
TELEGRAM = '[telegram]\ntoken = "1:a"\n'
SLACK = '[slack]\nbot_token = "xoxb-1"\napp_token = "xapp-1"\n'
CONSOLE = "[chats.here]\nconsole = true\n"


def amiss(text: str, tmp_path: Path) -> list[str]:
    """What is wrong with settings by themselves."""
    path = tmp_path / "settings.toml"
    path.write_text(BOSS + text, encoding="utf-8")
    return [render(found, "en") for good, found in check._settings(load(path)) if not good]


def unseen(host: str) -> str:
    return f"No chat with alerts = true sees {host}: its alerts would reach nobody."


def unheard(host: str) -> str:
    return f"Alerts of {host} would go to the console alone, where nobody may be. Add a chat that sees it under [chats]."


@pytest.mark.parametrize("messenger", [TELEGRAM, SLACK])
@pytest.mark.parametrize("chats", ["", CONSOLE])
def test_beside_a_messenger_the_console_tells_nobody(messenger: str, chats: str, tmp_path: Path) -> None:
    assert amiss(messenger + chats, tmp_path) == [unheard("prod"), unheard("web")]


def test_each_host_needs_a_chat_that_is_told(tmp_path: Path) -> None:
    ops = f'{TELEGRAM}{CONSOLE}hosts = ["prod"]\n[chats.ops]\ntelegram = -1\nhosts = ["prod"]\n'

    assert amiss(ops, tmp_path) == [unseen("web")]
    assert amiss(ops.replace("-1\n", "-1\nalerts = false\n"), tmp_path) == [unheard("prod"), unseen("web")]
    assert amiss(f"{TELEGRAM}[chats.ops]\ntelegram = -1\n", tmp_path) == []


def test_where_there_is_only_the_console_it_is_where_alerts_go(tmp_path: Path) -> None:
    assert amiss("", tmp_path) == []
    assert amiss(CONSOLE, tmp_path) == []
    assert amiss(f'{CONSOLE}hosts = ["prod"]', tmp_path) == [unseen("web")]


def named(units: Units | Unreadable = worlds.UNITS, **keys: Any) -> list[str]:  # noqa: ANN401 - a host's settings
    """What is wrong with the names of units in a host's settings."""
    asked = check._named(HostSettings(address="x", **keys))
    found = list(check._units("prod", asked, Answers({UNITS: units} if asked else {})))
    assert not any(good for good, _ in found)
    return [render(text, "en") for _, text in found]


def test_units_are_found_by_any_name() -> None:
    aliased = Units((worlds.unit("redis-server.service", "redis", names=("redis-server.service", "redis.service")),))

    assert named() == []
    assert named(keep="celery.service", never_touch=["postgresql@15-main"], health={"teaching_panel": "http://a/"}) == []
    assert named(aliased, keep=["redis", "redis.service", "redis-server"]) == []


def test_each_name_that_no_unit_has_is_a_line() -> None:
    assert named(keep=["celry", "celery"], never_touch="mysql.service", health={"teaching-panel.service": "http://a/"}) == [
        "prod: keep names celry, but there is no such unit. Did you mean celery.service?",
        "prod: never_touch names mysql.service, but there is no such unit.",
        "prod: health names teaching-panel.service, but there is no such unit. Did you mean teaching_panel.service?",
    ]


def test_a_name_counts_as_a_plan_would_heed_it() -> None:
    """By its template too, which no unit has as a name."""
    instance = Units((worlds.unit("worker@one.service", "true"),))

    assert named(instance, keep=["worker@one", "worker@.service"]) == []
    assert named(instance, never_touch="worker") == [
        "prod: never_touch names worker, but there is no such unit. Did you mean worker@one.service?"
    ]


def test_names_of_units_where_none_can_be_read() -> None:
    assert named(unreadable("unsupported", "systemd")) == []
    assert named(unreadable("unsupported", "systemd"), keep="a", health={"b": "http://a/"}) == [
        "prod: whether there are the units that keep and health name cannot be told: this host does not offer systemd"
    ]


async def test_names_of_units_are_looked_up_on_the_host_itself(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[hosts.here]\naddress = "local"\nnever_touch = "no-such-unit"\n[hosts.plain]\naddress = "local"', "utf-8")
    lines = [(good, render(text, "en")) for good, text in await check._hosts(load(path))]

    # Whether this machine has systemd or not.
    assert [line.split()[0] for good, line in lines if not good and "never_touch" in line] == ["here:"]
    assert [good for good, line in lines if "Linux" in line] == [True, True]
