"""The commands against the runbook's server, through the ports."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import handlers
from bot.dispatch import words_of
from bot.i18n import plain
from handlers import discover
from handlers.cards.kill import Past
from handlers.command import Refused, Usage
from handlers.reply import Reply, plain_json
from remote import services
from remote.errors import HostError
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.journal import Journal
from remote.facts.memory import MEMORY as MEMORY_FACT
from remote.facts.memory import OWN_MEMORY
from remote.facts.processes import Processes
from remote.facts.schedules import Schedule, Schedules
from remote.facts.units import Units
from remote.policy import MIB, Policy
from remote.text import T
from tests.handlers.ports import NOW, Desk, TestClock, TestCommands, TestHosts, TestPlans, make_request
from tests.handlers.shown import texts, words
from tests.handlers.worlds import CALM, LOG, MEMORY, PROCESSES, QUIET, SECRET, WORKER, entry, process, unit, world

KILLED = Journal(
    (
        entry(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice/teaching_panel.service,"
            "task_memcg=/system.slice/teaching_panel.service,task=gunicorn,pid=689792,uid=1000",
            transport="kernel", facility=0,
        ),
        entry(
            "Memory cgroup out of memory: Killed process 689792 (gunicorn) total-vm:900000kB, anon-rss:310000kB, file-rss:0kB, "
            "shmem-rss:0kB, UID:1000 pgtables:900kB oom_score_adj:0",
            transport="kernel", facility=0,
        ),
    )
)  # fmt: skip
DEAD = HostError("unreachable", T("There is no host {word}.", word="web"))
NO_SYSTEMD = Unreadable("unsupported", T("{thing} is not there", thing="systemctl"))
NO_JOURNAL = Unreadable("missing", T("{thing} is not there", thing="journalctl"))
HIDDEN = Unreadable("denied", T("no permission to read {thing}", thing="it"))


def desk(**worlds: Any) -> Desk:  # noqa: ANN401 - a world's answers
    clock = TestClock()
    return Desk(TestHosts(worlds or {"prod": world()}), TestPlans(clock), clock, TestCommands(discover()))


async def ask(line: str, at: Desk | None = None, **more: Any) -> Reply:  # noqa: ANN401 - a request's parts
    return await (at or desk()).ask(make_request(line, **more))


def hour(at: datetime) -> datetime:
    """The full hour before."""
    return at.replace(minute=0)


def data(reply: Reply, host: int = 0) -> Any:  # noqa: ANN401 - JSON
    shown = plain_json(reply.hosts[host].data, plain)
    assert json.loads(json.dumps(shown)) == shown or isinstance(shown, dict)
    return json.loads(json.dumps(shown))


def test_every_command_can_be_asked_for_help() -> None:
    found = discover()
    assert set(found) >= {
        "mem", "top", "duplicates", "fix", "why", "services", "hosts", "help", "start", "whoami", "approve", "decline", "details",
        "undo", "plans", "restart", "logs", "kills",
    }  # fmt: skip
    for name, command in found.items():
        assert command.name == name
        assert command.usage.startswith(f"/{name}")
        assert all(example.startswith(f"/{name}") for example in command.examples)
        assert command.examples


async def test_mem_leads_with_host_percent_and_free_bytes() -> None:
    at = desk()
    reply = await ask("/mem prod", at)
    first, *rest = words(reply).splitlines()
    assert first == "prod: 93% used, 145 MiB of 2.0 GiB free"
    assert "Swap: 310 MiB of 2.0 GiB" in rest
    assert "Pressure, 10 s: some 12.3%, full 3.2%" in rest
    assert "No kills in 24 h" in rest
    assert [button.command for row in reply.buttons for button in row] == ["/top prod", "/why prod", "/fix prod"]
    assert len(at.hosts.asked) == 1


async def test_mem_has_the_contracts_names() -> None:
    got = data(await ask("/mem prod"))
    assert list(got) == [
        "total_bytes", "available_bytes", "used_percent", "swap_total_bytes", "swap_used_bytes", "psi", "uptime_s", "kills_24h",
        "top", "findings",
    ]  # fmt: skip
    assert got["psi"] == {"some_avg10": 12.34, "full_avg10": 3.21}
    assert got["available_bytes"] == 145 * MIB
    assert got["used_percent"] == 92.92
    assert got["kills_24h"] == 0
    assert got["top"][0] == {"name": "teaching_panel", "unit": "teaching_panel.service", "pss_bytes": 206 * MIB}
    assert all(set(one) == {"kind", "severity", "text"} for one in got["findings"])


async def test_mem_names_duplicates_and_the_cron_line_that_restarts() -> None:
    reply = await ask("/mem prod")
    kinds = {one["kind"] for one in data(reply)["findings"]}
    assert {"duplicates", "cron-restarts"} <= kinds
    assert "celery_worker.service" in words(reply)
    assert "/etc/cron.d/restart:3" in words(reply)


async def test_mem_counts_kills() -> None:
    reply = await ask("/mem prod", desk(prod=world(kills=KILLED)))
    assert "1 kill in 24 h: gunicorn" in words(reply)
    assert data(reply)["kills_24h"] == 1


async def test_mem_answers_without_what_could_not_be_read() -> None:
    lost = Unreadable("denied", T("{thing} could not be read", thing="x"))
    calm = replace(CALM, swap_total_bytes=0, swap_free_bytes=0)
    reply = await ask("/mem prod", desk(prod=world(memory=calm, processes=lost, units=NO_SYSTEMD, schedules=lost, kills=lost)))
    assert reply.ok
    assert "Kills: the journal could not be read" in words(reply)
    assert "Swap: none" in words(reply)
    assert "Pressure: not told by this kernel" in words(reply)
    assert "Not everything could be read" in words(reply)
    got = data(reply)
    assert got["kills_24h"] is None
    assert got["psi"] is None
    assert {one["kind"] for one in got["findings"] if one["severity"] == "info"} >= {"unreadable"}


async def test_mem_of_several_is_brief_and_one_dead_host_does_not_end_the_others() -> None:
    reply = await ask("/mem all", desk(prod=world(), web=DEAD), hosts=("prod", "web"))
    assert [answer.host for answer in reply.hosts] == ["prod", "web"]
    assert reply.hosts[1].error is not None
    assert reply.hosts[1].error.kind == "unreachable"
    assert not reply.ok
    assert "web did not answer" in words(reply)
    assert [button.command for row in reply.buttons for button in row] == ["/mem prod", "/mem web"]


async def test_mem_without_memory_is_that_hosts_error() -> None:
    reply = await ask("/mem", desk(prod=world(memory=NO_SYSTEMD)))
    assert reply.hosts[0].error is not None
    assert reply.hosts[0].error.kind == "unreadable"


async def test_top_lists_processes_biggest_first_and_never_a_command_line() -> None:
    reply = await ask("/top prod")
    got = data(reply)
    assert list(got) == ["processes", "groups"]
    assert list(got["processes"][0]) == [
        "pid", "started_at", "name", "command", "user", "unit", "pss_bytes", "rss_bytes", "swap_bytes", "memory_percent",
    ]  # fmt: skip
    assert len(got["processes"]) == len(PROCESSES.all)
    assert next(one for one in got["processes"] if one["pid"] == 990)["unit"] is None
    assert got["groups"][0] == {"unit": "teaching_panel.service", "service": "gunicorn", "count": 4, "pss_bytes": 206 * MIB}
    assert SECRET not in json.dumps(got)
    assert SECRET not in words(reply)


async def test_top_takes_a_count() -> None:
    assert len(data(await ask("/top prod 2"))["processes"]) == 2
    assert len(data(await ask("/top 3"))["processes"]) == 3


@pytest.mark.parametrize("line", ["/top prod 0", "/top prod 100000", "/top nowhere"])
async def test_top_refuses_nonsense(line: str) -> None:
    with pytest.raises(Usage):
        await ask(line)


async def test_a_host_whose_name_is_a_number_stays_a_host() -> None:
    reply = await ask("/top 12", desk(**{"12": world()}), hosts=("12",))
    assert len(data(reply)["processes"]) == len(PROCESSES.all)


async def test_duplicates_names_exactly_the_extra() -> None:
    reply = await ask("/duplicates prod")
    [group] = data(reply)["groups"]
    assert list(group) == ["service", "app", "why", "keep", "extra", "frees_bytes"]
    assert group["keep"] == {"unit": "celery.service", "pids": [200, 201]}
    [extra] = group["extra"]
    assert extra["unit"] == "celery_worker.service"
    assert extra["enabled"] is True
    assert set(extra) == {"unit", "pids", "pss_bytes", "enabled"}
    assert extra["pss_bytes"] == 200 * MIB
    assert "prod: 1 extra, 200 MiB could be freed" in words(reply)


async def test_nothing_twice_is_said() -> None:
    alone = Units(tuple(one for one in world()["units"].all if one.id != "celery_worker.service"))
    once = replace(PROCESSES, all=tuple(one for one in PROCESSES.all if one.pid not in {210, 211}))
    at = desk(prod=world(memory=CALM, units=alone, processes=once, schedules=Schedules(())))
    reply = await ask("/duplicates prod", at)
    assert "prod: nothing runs twice" in words(reply)
    assert data(reply) == {"groups": []}
    fix = await ask("/fix prod", at)
    assert "prod: nothing to fix" in words(fix)
    assert "I looked at 9 processes for work done twice." in words(fix)
    assert "I looked at 4 units: no extra one." in words(fix)
    assert data(fix) == {"plan": None}
    assert not at.plans.kept


async def test_duplicates_without_systemd_says_so() -> None:
    reply = await ask("/duplicates prod", desk(prod=world(units=NO_SYSTEMD)))
    assert "systemctl is not there" in words(reply)
    assert reply.ok


async def test_fix_proposes_a_plan_whose_json_is_the_contracts() -> None:
    at = desk()
    reply = await ask("/fix prod", at)
    got = data(reply)["plan"]
    assert list(got) == ["id", "code", "digest", "expires_at", "steps", "frees_bytes", "findings"]
    assert list(got["steps"][0]) == ["kind", "target", "text", "commands", "undo", "frees_bytes", "interrupts"]
    assert [one["target"] for one in got["steps"]] == ["celery_worker.service"]
    assert got["expires_at"] == (NOW + timedelta(minutes=15)).isoformat()
    assert reply.key == f"plan:{got['id']}"
    assert reply.buttons[0][0].command == f"/approve {got['id']}"
    assert any("cron.d" in text for text in got["findings"])


async def test_fix_keeps_the_twin_that_was_named() -> None:
    got = data(await ask("/fix prod keep celery_worker"))["plan"]
    assert [one["target"] for one in got["steps"]] == ["celery.service"]


async def test_a_twin_that_was_named_is_never_one_that_is_stopped() -> None:
    at = desk(prod=world())
    at.hosts.policies = {"prod": Policy(keep=("celery.service",))}
    with pytest.raises(Refused) as refused:
        await ask("/fix prod keep celery_worker", at)
    assert plain(refused.value.text) == "celery_worker.service cannot be the one to keep: the settings keep celery.service."
    at.hosts.policies = {"prod": Policy(keep=("celery_worker",))}
    got = data(await ask("/fix prod keep celery_worker", at))["plan"]
    assert [one["target"] for one in got["steps"]] == ["celery.service"]


async def test_a_tie_is_broken_by_a_person_also_where_the_settings_name_others() -> None:
    at = desk(prod=twins("worker-a.service", "worker-b.service"))
    at.hosts.policies = {"prod": Policy(keep=("postgresql.service",))}
    got = data(await ask("/fix prod keep worker-b", at))["plan"]
    assert [one["target"] for one in got["steps"]] == ["worker-a.service"]


async def test_fix_refuses_what_is_no_twin() -> None:
    with pytest.raises(Refused) as refused:
        await ask("/fix prod keep postgresql")
    assert refused.value.kind == "not-found"
    with pytest.raises(Usage):
        await ask("/fix prod keep")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/top -5", "-5 is below zero."),
        ("/why prod -5", "-5 is below zero."),
        ("/logs prod celery -5", "-5 is below zero."),
        ("/top 5 prod", "5 comes last, after everything else."),
        ("/why 689792 prod", "689792 comes last, after everything else."),
        ("/kills prod 24h extra", "24h comes last, after everything else."),
        ("/kills 24 7d", "24 comes last, after everything else."),
    ],
)
async def test_a_number_or_a_time_is_never_taken_for_a_host(line: str, says: str) -> None:
    with pytest.raises(Usage) as usage:
        await ask(line)
    assert plain(usage.value.text) == says


async def test_a_host_or_a_group_may_look_like_a_number() -> None:
    at = desk(**{"12": world(), "24h": world()})
    assert [one.host for one in (await ask("/top 12 24h", at, hosts=("12", "24h"))).hosts] == ["12", "24h"]
    assert [one.host for one in (await ask("/kills 12 24h 7d", at, hosts=("12", "24h"))).hosts] == ["12", "24h"]


async def test_fix_asks_for_one_host() -> None:
    with pytest.raises(Usage):
        await ask("/fix all", desk(prod=world(), web=world()), hosts=("prod", "web"))
    with pytest.raises(Refused) as refused:
        await ask("/fix", desk(prod=world(), web=world()), hosts=("prod", "web"))
    assert refused.value.kind == "which-host"


async def test_fix_needs_the_units() -> None:
    for line in ("/fix prod", "/restart prod celery"):
        reply = await ask(line, desk(prod=world(units=NO_SYSTEMD)))
        assert reply.hosts[0].error is not None
        assert reply.hosts[0].error.kind == "unreadable"
        assert words(reply) == "There is no systemd on prod, so I can propose no fix there."
        reply = await ask(line, desk(prod=world(units=HIDDEN)))
        assert words(reply) == "prod could not be read: no permission to read it"


async def test_logs_need_a_journal() -> None:
    reply = await ask("/logs prod celery", desk(prod=world(log=NO_JOURNAL)))
    assert reply.hosts[0].error is not None
    assert reply.hosts[0].error.kind == "unreadable"
    assert words(reply) == "There is no journal on prod, so I can show no unit's log."
    assert words(await ask("/logs prod celery", desk(prod=world(log=HIDDEN)))).startswith("prod could not be read: no permission")


async def test_why_tells_each_kill() -> None:
    at = desk(prod=world(kills=KILLED))
    reply = await ask("/why prod", at)
    [one] = data(reply)["kills"]
    assert list(one) == [
        "pid", "name", "unit", "at", "boot_id", "signal", "cause", "confidence", "limit_bytes", "rss_bytes", "evidence", "advice",
        "final", "limit_group", "container", "by", "doing", "counted", "staged", "members",
    ]  # fmt: skip
    assert (one["pid"], one["unit"], one["cause"], one["signal"]) == (689792, "teaching_panel.service", "cgroup-limit", 9)
    assert "pid 689792, 13:02 UTC" in words(reply)
    assert [button.command for row in reply.buttons for button in row] == ["/top prod", "/fix prod"]
    assert set(at.hosts.asked[0][1]) == {"own-memory", "units", "processes", "kills"}
    assert at.history.asked == [("prod", "teaching_panel.service", "gunicorn", NOW - timedelta(hours=1))]


async def test_why_says_how_often_it_happened() -> None:
    at = desk(prod=world(kills=KILLED))
    assert "this week" not in words(await ask("/why prod", at))
    at.history.weeks = {"teaching_panel.service": Past(3, "import_orders")}
    assert "The third this week, always import_orders." in words(await ask("/why prod 689792", at))


async def test_why_counts_in_the_journal_what_the_bot_has_not_seen() -> None:
    again = tuple(replace(one, boot_id="b" * 32, message=one.message.replace("689792", "7")) for one in KILLED.entries)
    at = desk(prod=world(kills=Journal((*again, *KILLED.entries))))
    assert "The second this week." in words(await ask("/why prod 7", at))
    at.history.weeks = {"teaching_panel.service": Past(9)}
    assert "9 kills this week." in words(await ask("/why prod 7", at))


async def test_why_with_a_pid_looks_as_far_back_as_the_journal_goes() -> None:
    at = desk(prod=world(kills=KILLED))
    assert data(await ask("/why prod 4711", at)) == {"kills": []}
    assert len(at.hosts.asked) == 2
    assert at.hosts.since == [hour(NOW - timedelta(days=7)), hour(NOW - timedelta(days=3660))]
    assert "prod: no kill of pid 4711, as far back as its log goes" in words(await ask("/why prod 4711", at))
    at.hosts.asked.clear()
    await ask("/why prod 689792", at)
    assert len(at.hosts.asked) == 1


async def test_why_says_when_it_could_not_look_further_back() -> None:
    at = desk(prod=world(kills=QUIET))
    at.hosts.answers_within = timedelta(days=8)
    shown = words(await ask("/why prod 4711", at))
    assert "prod: no kill of pid 4711 in the last 7 d" in shown
    assert "I could not look further back: prod could not be read: " in shown


async def test_why_with_a_pid_alone_asks_every_host() -> None:
    at = desk(prod=world(kills=KILLED), web=world(), db=DEAD)
    reply = await ask("/why 689792", at, hosts=("web", "prod", "db"))
    assert words(reply).startswith("prod: gunicorn of teaching_panel.service was killed")
    assert "db did not answer" in words(reply)
    assert [len(data(reply, n).get("kills", ())) for n in (0, 1)] == [0, 1]
    assert [button.command for row in reply.buttons for button in row] == ["/top prod", "/fix prod"]


async def test_a_pid_that_several_hosts_know_is_told_of_each() -> None:
    at = desk(prod=world(kills=KILLED), web=world(kills=KILLED))
    reply = await ask("/why 689792", at, hosts=("prod", "web"))
    assert [line for line in words(reply).splitlines() if line.endswith("was killed")] == [
        "prod: gunicorn of teaching_panel.service was killed",
        "web: gunicorn of teaching_panel.service was killed",
    ]
    assert not reply.buttons


async def test_a_pid_that_no_host_knows_is_one_line() -> None:
    reply = await ask("/why 4711", desk(prod=world(kills=KILLED), web=world()), hosts=("prod", "web"))
    assert words(reply).splitlines() == [
        "None of 2 hosts knows a kill of pid 4711 in the last 7 d",
        "/why HOST 4711 looks further back.",
    ]


async def test_why_says_when_nothing_was_killed_and_what_it_looked_at() -> None:
    shown = words(await ask("/why prod", desk(prod=world(kills=replace(QUIET, partial="own")))))
    assert shown.splitlines()[:4] == [
        "prod: nothing was killed in the last 24 h",
        "I looked at the journal: the kernel, systemd, OOM daemons, and the main processes of services.",
        "I may read only my own messages in the journal: kills may be missed.",
        "The kernel counts 3 OOM kills since it started 3 d 2 h ago.",
    ]


@pytest.mark.parametrize(
    ("partial", "line"),
    [
        ("dmesg", "There is no journal: I read the kernel's own buffer."),
        ("syslog", "There is no journal: I read log files, where anybody may write; what they say is a guess."),
    ],
)
async def test_why_says_what_it_looked_at_where_there_is_no_journal(partial: str, line: str) -> None:
    shown = words(await ask("/why prod", desk(prod=world(kills=replace(QUIET, partial=partial)))))
    assert line in shown
    assert "I looked at the journal" not in shown


async def test_why_says_what_it_could_not_read() -> None:
    blind = world(kills=QUIET, units=NO_SYSTEMD, processes=NO_SYSTEMD, memory=NO_SYSTEMD)
    shown = words(await ask("/why prod", desk(prod=blind)))
    assert "The units could not be read: what only a program's own log tells may be missed." in shown
    assert "The processes could not be read: I cannot tell which of those that were named still live." in shown
    assert "The kernel's own count of OOM kills could not be read." in shown


async def test_what_the_kernel_counted_and_no_line_tells_of_is_said() -> None:
    young = replace(MEMORY, uptime_s=7200.0)
    shown = words(await ask("/why prod", desk(prod=world(kills=KILLED, memory=young))))
    assert "The kernel counts 2 OOM kills more than the journal tells of." in shown
    assert "The kernel counts 3 OOM kills more" in words(await ask("/kills prod", desk(prod=world(memory=young))))
    one = words(await ask("/kills prod", desk(prod=world(kills=KILLED, memory=replace(young, oom_kills=2)))))
    assert "The kernel counts 1 OOM kill more than the journal tells of." in one
    told = words(await ask("/kills prod", desk(prod=world(kills=KILLED, memory=replace(young, oom_kills=1)))))
    assert "more than the journal" not in told
    assert "more than the journal" not in words(await ask("/kills prod", desk(prod=world(kills=KILLED))))


async def test_kills_is_a_line_each() -> None:
    reply = await ask("/kills prod", desk(prod=world(kills=KILLED)))
    assert words(reply).splitlines() == [
        "prod: 1 kill in the last 24 h",
        "  UTC     pid     by  process",
        "13:02  689792  limit  teaching_pa…",
        "limit: a memory limit was reached",
        "[Top](/top prod) [Why](/why prod)",
    ]
    [one] = data(reply)["kills"]
    assert (one["pid"], one["cause"]) == (689792, "cgroup-limit")
    assert data(await ask("/kills prod")) == {"kills": []}
    assert "prod: nothing was killed in the last 24 h" in words(await ask("/kills prod"))


@pytest.mark.parametrize(
    ("word", "window"),
    [
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2W", timedelta(weeks=2)),
        ("", timedelta(days=1)),
    ],
)
async def test_kills_looks_as_far_back_as_it_is_told(word: str, window: timedelta) -> None:
    at = desk()
    await ask(f"/kills prod {word}", at)
    assert at.hosts.since == [hour(NOW - window)]


@pytest.mark.parametrize("word", ["0h", "24", "999999w", "3661d"])
async def test_kills_takes_no_other_time(word: str) -> None:
    with pytest.raises(Usage):
        await ask(f"/kills prod {word}")


async def test_a_host_with_the_name_of_a_time_is_a_host() -> None:
    at = desk(**{"24h": world()})
    await ask("/kills 24h", at, hosts=("24h",))
    assert at.hosts.since == [hour(NOW - timedelta(days=1))]


async def test_why_without_a_journal_is_an_error_of_the_host() -> None:
    reply = await ask("/why prod", desk(prod=world(kills=NO_SYSTEMD)))
    assert not reply.ok
    assert reply.hosts[0].data is None


async def test_services_is_the_runbooks_list() -> None:
    reply = await ask("/services prod")
    rows = {row["unit"]: row for row in data(reply)["services"]}
    panel = rows["teaching_panel.service"]
    assert (panel["service"], panel["workers"], panel["workers_configured"]) == ("gunicorn", 3, 3)
    assert (panel["active"], panel["enabled"], panel["memory_max_bytes"]) == (True, True, 512 * MIB)
    assert panel["pss_bytes"] == 206 * MIB
    assert {"celery.service", "celery_worker.service", "celery-beat.service"} <= set(rows)
    assert SECRET not in json.dumps(data(reply))


async def test_services_without_any_says_what_it_knows() -> None:
    reply = await ask("/services prod", desk(prod=world(units=NO_SYSTEMD, processes=replace(PROCESSES, all=()))))
    assert "prod: no service that I know" in words(reply)
    (known,) = [line for line in words(reply).splitlines() if line.startswith("I know ")]
    assert not [kind.title for kind in services.kinds().values() if kind.title not in known]
    assert data(reply) == {"services": []}


async def test_services_shows_a_failed_unit_and_a_stray() -> None:
    failed = unit("celery.service", "/srv/venv/bin/celery -A panel worker", active_state="failed")
    stray = replace(PROCESSES, all=tuple(one for one in PROCESSES.all if one.pid in {100, 101}))
    shown = await ask("/services prod", desk(prod=world(units=Units((failed,)), processes=stray)))
    assert "celery.service has failed" in words(shown)
    assert "gunicorn *" in words(shown)


async def test_hosts_lists_all_and_says_which_do_not_answer() -> None:
    reply = await ask("/hosts", desk(prod=world(), web=DEAD), hosts=("prod", "web"))
    rows = plain_json(reply.data, plain)["hosts"]
    assert [row["host"] for row in rows] == ["prod", "web"]
    assert [row["ok"] for row in rows] == [True, False]
    assert rows[0]["distribution"].startswith("Debian")
    assert rows[1]["used_percent"] is None
    assert "There is no host web." in words(reply)
    assert "web: root@web.example:22, in @web" in words(reply)
    assert reply.ok


async def test_help_lists_what_one_can_ask() -> None:
    shown = words(await ask("/help"))
    assert "/mem [HOST…]: How much memory is left" in shown
    assert "/approve" not in shown
    assert "/fix prod keep celery.service" in words(await ask("/help fix"))
    assert "/approve K7QX" in words(await ask("/help /approve"))


@pytest.mark.parametrize(("line", "near"), [("/help memm", "/mem"), ("/help zzzz", "/help"), ("/help a b", "One command")])
async def test_help_names_the_nearest(line: str, near: str) -> None:
    with pytest.raises(Usage) as usage:
        await ask(line)
    assert near in plain(usage.value.text)


async def test_start_and_whoami_know_strangers() -> None:
    for line in ("/start", "/whoami"):
        assert "Your id is anna" in words(await ask(line, role="stranger"))
        assert "prod" not in words(await ask(line, role="stranger"))
    assert "From here you can ask prod." in words(await ask("/start"))
    shown = await ask("/whoami", role="viewer")
    assert "Role: viewer" in words(shown)
    assert plain_json(shown.data, plain) == {
        "person": "anna", "role": "viewer", "chat": "ops", "platform": "console", "language": "en", "hosts": ["prod"],
    }  # fmt: skip
    assert "Role: admin" in words(await ask("/whoami", role="admin"))


async def test_a_plan_is_approved_once_by_somebody_who_may() -> None:
    at = desk()
    plan = data(await ask("/fix prod", at))["plan"]["id"]
    with pytest.raises(Refused) as refused:
        await ask(f"/approve {plan}", at, role="viewer")
    assert refused.value.kind == "role"
    reply = await ask(f"/approve {plan}", at)
    assert reply.settles == plan
    assert data(reply)["state"] == "approved"
    with pytest.raises(Refused) as refused:
        await ask(f"/approve {plan}", at)
    assert refused.value.kind == "decided"


async def test_a_plan_is_declined_looked_at_and_listed() -> None:
    at = desk()
    assert "No plans yet" in words(await ask("/plans", at))
    plan = data(await ask("/fix prod", at))["plan"]["id"]
    assert "systemctl stop celery_worker.service" in words(await ask(f"/details {plan}", at))
    assert data(await ask(f"/decline {plan}", at))["state"] == "declined"
    reply = await ask("/plans prod", at)
    assert "prod, 14:02 UTC: declined" in words(reply)
    [row] = plain_json(reply.data, plain)["plans"]
    assert (row["id"], row["state"], row["decided_by"]) == (plan, "declined", "anna")


@pytest.mark.parametrize("line", ["/approve", "/decline", "/details", "/undo", "/approve a b"])
async def test_a_plan_must_be_named(line: str) -> None:
    with pytest.raises(Usage):
        await ask(line)


async def test_undo_proposes_a_plan_of_its_own() -> None:
    at = desk()
    plan = data(await ask("/fix prod", at))["plan"]["id"]
    kept = at.plans.kept[plan]
    at.plans.kept[plan] = replace(kept, state="verified", steps=tuple(replace(record, state="done") for record in kept.steps))
    got = data(await ask(f"/undo {plan}", at))
    assert (got["state"], got["undoes"]) == ("proposed", plan)
    assert got["id"] != plan


async def test_restart_is_a_plan_of_one_step() -> None:
    at = desk()
    got = data(await ask("/restart prod celery", at))
    assert [(one["kind"], one["target"]) for one in got["steps"]] == [("restart-unit", "celery.service")]
    assert data(await ask("/restart teaching_panel.service", at))["state"] == "proposed"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/restart", "Which unit?"),
        ("/restart prod", "Which unit on prod?"),
        ("/restart prod celery beat", "One host and one unit, please."),
        ("/logs prod", "Which unit on prod?"),
        ("/logs prod celery 0", "0 is not between 1 and 200."),
        ("/logs prod $(reboot)", "$(reboot) is no unit's name."),
    ],
)
async def test_a_unit_must_be_named_on_one_host(line: str, says: str) -> None:
    with pytest.raises(Usage) as usage:
        await ask(line)
    assert says in plain(usage.value.text)


@pytest.mark.parametrize(
    ("name", "kind"), [("celary", "Did you mean celery.service?"), ("zzzz", "There is no unit zzzz on prod.")]
)
async def test_restart_knows_the_units(name: str, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        await ask(f"/restart prod {name}")
    assert kind in plain(refused.value.text)


async def test_restart_never_touches_what_is_never_to_be_touched() -> None:
    with pytest.raises(Refused) as refused:
        await ask("/restart prod ssh", desk(prod=world(units=Units((unit("ssh.service", "/usr/sbin/sshd -D", pid=1),)))))
    assert refused.value.kind == "no-safe-plan"


async def test_a_unit_alone_needs_a_chat_with_one_host() -> None:
    with pytest.raises(Refused) as refused:
        await ask("/restart celery", desk(prod=world(), web=world()), hosts=("prod", "web"))
    assert refused.value.kind == "which-host"


async def test_logs_are_redacted() -> None:
    reply = await ask("/logs prod celery", desk(prod=world(log=LOG)))
    assert "worker: ready" in words(reply)
    assert SECRET not in words(reply)
    got = data(reply)
    assert SECRET not in json.dumps(got)
    assert (got["unit"], len(got["lines"])) == ("celery.service", 2)
    assert len(data(await ask("/logs prod celery 1", desk(prod=world(log=LOG))))["lines"]) == 1
    assert "has no lines" in words(await ask("/logs prod celery", desk(prod=world(log=replace(QUIET, partial="own new")))))
    assert "The journal is not whole: new" in words(
        await ask("/logs prod celery", desk(prod=world(log=replace(LOG, partial="new"))))
    )


async def test_no_reply_holds_a_place_without_a_value() -> None:
    at = desk(prod=world(kills=KILLED, log=LOG))
    for line in (
        "/mem",
        "/top",
        "/duplicates",
        "/services",
        "/hosts",
        "/why",
        "/kills",
        "/fix",
        "/plans",
        "/help",
        "/start",
        "/whoami",
    ):
        for text in texts(await ask(line, at)):
            assert "{" not in plain(text), line


async def test_which_host_is_asked() -> None:
    with pytest.raises(Refused) as refused:
        await ask("/mem", desk(prod=world(), web=world()), hosts=("prod", "web"))
    assert refused.value.kind == "which-host"


async def test_memory_is_what_it_was_read_as() -> None:
    assert data(await ask("/mem prod"))["total_bytes"] == MEMORY.total_bytes


def twins(*names: str) -> dict[str, Any]:
    """Workers that nothing tells apart."""
    units = tuple(unit(name, WORKER, pid=500 + at) for at, name in enumerate(names))
    processes = tuple(process(500 + at, name, WORKER, 100) for at, name in enumerate(names))
    return world(units=Units(units), processes=Processes(processes, PROCESSES.boot_id), schedules=Schedules(()))


async def test_a_true_tie_is_asked_with_a_button_for_each() -> None:
    at = desk(prod=twins("worker-a.service", "worker-b.service"))
    reply = await ask("/fix prod", at)
    assert "prod: which one should stay?" in words(reply)
    assert [button.command for row in reply.buttons for button in row] == [
        "/fix prod keep worker-a.service", "/fix prod keep worker-b.service",
    ]  # fmt: skip
    assert data(reply) == {"plan": None}
    assert not at.plans.kept
    got = data(await ask("/fix prod keep worker-b.service", at))["plan"]
    assert [one["target"] for one in got["steps"]] == ["worker-a.service"]


async def test_the_buttons_of_a_tie_name_the_units_as_systemd_does() -> None:
    names = [r"my\x2dworker-a.service", r"my\x2dworker-b.service"]
    reply = await ask("/fix prod", desk(prod=twins(*names)))
    assert [words_of(button.command)[-1] for row in reply.buttons for button in row] == names


async def test_a_plan_that_would_not_be_safe_is_refused_with_the_reason() -> None:
    units = tuple(
        replace(one, unit_file_state="generated") if one.id == "celery_worker.service" else one for one in world()["units"].all
    )
    at = desk(prod=world(units=Units(units)))
    at.hosts.policies = {"prod": Policy(keep=("celery.service",))}
    with pytest.raises(Refused) as refused:
        await ask("/fix prod", at)
    assert refused.value.kind == "no-safe-plan"
    assert "celery_worker.service is generated" in plain(refused.value.text)


async def test_a_look_alike_is_shown_and_never_an_extra() -> None:
    fake = replace(process(700, None, WORKER, 50), exe="/usr/bin/perl", cgroup="/user.slice/x.scope")
    reply = await ask("/duplicates prod", desk(prod=world(processes=replace(PROCESSES, all=(*PROCESSES.all, fake)))))
    assert "pid 700 looks like" in words(reply)
    assert 700 not in [pid for group in data(reply)["groups"] for extra in group["extra"] for pid in extra["pids"]]


async def test_a_group_that_cannot_be_fixed_says_why() -> None:
    reply = await ask("/duplicates prod", desk(prod=twins("worker-a.service", "worker-b.service")))
    assert "Nothing tells which of" in words(reply)


async def test_more_findings_than_a_phone_shows_are_folded() -> None:
    lines = tuple(Schedule("teaching_panel.service", f"/etc/cron.d/x:{n}", "* * * * *", tests_memory=False) for n in range(9))
    shown = words(await ask("/mem prod", desk(prod=world(schedules=Schedules(lines)))))
    assert "more findings" in shown
    assert all(f"/etc/cron.d/x:{n}" in shown for n in range(9))


async def test_a_calm_host_has_nothing_to_do() -> None:
    at = desk(prod=world(memory=CALM, units=Units(()), schedules=Schedules(()), processes=Processes((), PROCESSES.boot_id)))
    assert "Nothing to do." in words(await ask("/mem prod", at))


def test_two_commands_of_one_name_are_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("from handlers.help import COMMAND\n")
    monkeypatch.setattr(handlers, "__path__", [str(tmp_path)])
    for name in ("one", "two"):
        monkeypatch.delitem(sys.modules, f"handlers.{name}", raising=False)
    with pytest.raises(TypeError, match="two commands are called /help"):
        discover()
    for name in ("one", "two"):
        sys.modules.pop(f"handlers.{name}", None)


@pytest.mark.parametrize("line", ["/start", "/whoami"])
async def test_a_chat_that_sees_no_host_is_not_told_of_any(line: str) -> None:
    assert "From here you can ask" not in words(await ask(line, hosts=()))
    assert "From here you can ask" in words(await ask(line))


@pytest.mark.parametrize("name", sorted(discover()))
async def test_help_about_one_command_is_its_usage(name: str) -> None:
    assert discover()[name].usage in words(await ask(f"/help {name}"))


async def test_mem_does_not_say_that_nobody_was_killed_where_it_may_not_look() -> None:
    blind = world(kills=Journal((), "own"))
    reply = await ask("/mem prod", desk(prod=blind))
    assert data(reply)["kills_24h"] is None
    assert "No kills in 24 h" not in words(reply)
    assert "I may read only my own messages" in words(reply)


class ContainerHosts(TestHosts):
    """Hosts that are containers: of their own kills one was counted, of their node's 57."""

    async def ask(self, host: str, *facts: Fact[Any]) -> Answers:
        own, nodes = (replace(MEMORY, uptime_s=7200.0, oom_kills=number) for number in (1, 57))
        answers = await super().ask(host, *facts)
        told = {OWN_MEMORY: own, MEMORY_FACT: nodes}
        return answers | Answers({fact: told[fact] for fact in facts if fact in told})


@pytest.mark.parametrize("line", ["/kills prod", "/why prod"])
async def test_of_a_container_its_own_count_is_held_against_its_journal(line: str) -> None:
    for journal, said in ((KILLED, ""), (QUIET, "The kernel counts 1 OOM kill more than the journal tells of.")):
        at = desk()
        at.hosts = ContainerHosts({"prod": world(kills=journal)})
        shown = words(await ask(line, at))
        assert said in shown
        assert ("more than the journal" in shown) is bool(said)
        assert "57" not in shown
