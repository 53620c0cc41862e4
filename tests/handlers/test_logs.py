"""/logs finds a unit by any of its names, and says when there is none of a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bot.i18n import plain
from handlers import discover
from handlers.command import Refused
from handlers.logs import LogsData
from handlers.reply import Reply
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.journal import Journal
from remote.facts.units import Units
from remote.text import T
from tests.handlers.ports import Desk, TestClock, TestCommands, TestHosts, TestPlans, make_request
from tests.handlers.shown import words
from tests.handlers.worlds import QUIET, entry, unit, world

NO_SYSTEMD = Unreadable("unsupported", T("{thing} is not there", thing="systemctl"))
ALIASED = Units((unit("ssh.service", "/usr/sbin/sshd -D", names=("ssh.service", "sshd.service")),))
SPOKE = Journal((entry("Server listening on 0.0.0.0 port 22."),))
STALE = Journal((entry("of when it was a unit of its own"), entry("long ago")))


class Journals(TestHosts):
    """Hosts whose journal knows units by their ids only, as journalctl -u does."""

    logs: Mapping[str, Journal] = {"ssh.service": SPOKE, "sshd.service": STALE, "ssh.socket": SPOKE, "gone.service": SPOKE}

    async def ask(self, host: str, *facts: Fact[Any]) -> Answers:
        answers = await super().ask(host, *facts)
        logs = {fact: self._log(fact) for fact in facts if fact.name == "log"}
        return Answers({fact: logs.get(fact, answers[fact]) for fact in facts})

    def _log(self, fact: Fact[Any]) -> Journal:
        return next((log for unit, log in self.logs.items() if f"-u '{unit}'" in fact.script), QUIET)


async def ask(line: str, units: Units | Unreadable = ALIASED) -> Reply:
    clock, hosts = TestClock(), Journals({"prod": world(units=units, log=QUIET)})
    return await Desk(hosts, TestPlans(clock), clock, TestCommands(discover())).ask(make_request(line))


def shown(reply: Reply) -> LogsData:
    data = reply.hosts[0].data
    assert isinstance(data, LogsData)
    return data


@pytest.mark.parametrize(
    ("typed", "unit_id"),
    [
        ("ssh", "ssh.service"),
        ("sshd", "ssh.service"),
        ("sshd.service", "ssh.service"),
        ("ssh.socket", "ssh.socket"),
        ("gone", "gone.service"),  # a unit that is no more, with lines of when it was
    ],
)
async def test_logs_are_found_by_any_name_of_a_unit(typed: str, unit_id: str) -> None:
    got = shown(await ask(f"/logs prod {typed}"))
    assert (got.unit, len(got.lines)) == (unit_id, 1)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("sshdd", "There is no unit sshdd on prod. Did you mean ssh.service?"),
        ("zzzz.service", "There is no unit zzzz.service on prod."),
    ],
)
async def test_logs_of_a_service_that_nobody_knows_are_refused(typed: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        await ask(f"/logs prod {typed}")
    assert (refused.value.kind, plain(refused.value.text)) == ("not-found", says)


@pytest.mark.parametrize("typed", ["backup.timer", "init.scope"])
async def test_what_is_no_service_may_exist_without_a_line(typed: str) -> None:
    assert f"{typed} has no lines in the journal" in words(await ask(f"/logs prod {typed}"))


async def test_logs_need_no_list_of_units() -> None:
    assert shown(await ask("/logs prod ssh", NO_SYSTEMD)).unit == "ssh.service"
    assert "sshdd.service has no lines in the journal" in words(await ask("/logs prod sshdd", NO_SYSTEMD))
