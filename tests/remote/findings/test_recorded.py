"""The first user's server as Debian 12 tells of it: read, judged, and come out as the story says."""

from __future__ import annotations

from pathlib import Path

from remote.facts import memory, processes, schedules, units
from remote.facts.memory import Memory
from remote.facts.processes import Processes
from remote.facts.schedules import Schedules
from remote.facts.units import Units
from remote.findings.duplicates import find
from remote.findings.groups import by_unit
from remote.findings.schedules import restarters
from remote.findings.sizing import sizing
from remote.policy import Policy

FACTS = Path(__file__).parents[2] / "recorded" / "debian12" / "facts"


def text(name: str) -> str:
    return (FACTS / f"{name}.txt").read_bytes().decode("utf-8", "surrogateescape")


def server(who: str = "") -> tuple[Processes, Units]:
    running, known = processes.parse(text(f"processes{who}")), units.parse(text("units"))
    assert isinstance(running, Processes)
    assert isinstance(known, Units)
    return running, known


def test_the_runbooks_server_keeps_one_worker_and_one_beat() -> None:
    running, known = server()
    (worker, beat), look_alikes = find(running, known, Policy())

    assert worker.keep.unit is not None
    assert beat.keep.unit is not None
    assert (worker.keep.unit.id, beat.keep.unit.id) == ("celery.service", "celery-beat.service")
    assert {member.unit.id for member in worker.extra if member.unit} == {"celery_worker.service", "celery-combined.service"}
    assert {member.unit.id for member in beat.extra if member.unit} == {"celery_beat.service", "celery-combined.service"}
    (stray,) = (member for member in worker.extra if member.unit is None)
    assert len(stray.processes) == 2
    assert stray.processes[1].ppid == stray.processes[0].pid
    assert "session" in stray.processes[0].cgroup
    assert worker.refused is beat.refused is None
    assert not worker.tie
    assert not beat.tie
    assert look_alikes == ()


def test_without_root_the_stray_is_only_shown() -> None:
    running, known = server("-unprivileged")
    (worker, beat), look_alikes = find(running, known, Policy())

    assert all(member.unit for member in (*worker.extra, *beat.extra))
    assert [one.service for one in look_alikes] == ["celery-worker"]


def test_the_site_is_too_big_and_restarted_by_cron() -> None:
    running, known = server()
    seen, planned = memory.parse(text("memory")), schedules.parse(text("schedules"))
    assert isinstance(seen, Memory)
    assert isinstance(planned, Schedules)
    found = [*sizing(seen, known, running, Policy()), *restarters(planned, known)]

    assert {(finding.kind, finding.unit) for finding in found} >= {
        ("over-ceiling", "teaching_panel.service"),
        ("memory-max-low", "teaching_panel.service"),
        ("cron-restarts", "teaching_panel.service"),
    }


def test_all_processes_stand_in_one_group_each() -> None:
    running, known = server()
    groups = by_unit(running, known)

    assert sorted(p.pid for group in groups for p in group.processes) == sorted(p.pid for p in running.all)
    services = {group.unit.id: group.service for group in groups if group.unit}
    assert services["teaching_panel.service"] == "gunicorn"
    assert services["redis-server.service"] == "redis"
    assert services["nginx.service"] == "nginx"
