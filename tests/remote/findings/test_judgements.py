"""Pressure, sizes, self-made restarts, and processes in groups."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remote.facts.memory import Memory, Pressure
from remote.facts.processes import Processes
from remote.facts.schedules import Schedule, Schedules
from remote.facts.units import Units
from remote.findings.groups import by_unit
from remote.findings.pressure import pressure
from remote.findings.schedules import restarters
from remote.findings.sizing import ceiling, sized, sizing
from remote.policy import GIB, Policy
from tests.remote.findings.scene import BOOT, BOTH, MIB, WORKER, Scene, process, runbook

POLICY = Policy()


def memory(
    used_percent: float = 50.0, total_bytes: int = 2 * GIB, swap: tuple[int, int] = (GIB, GIB), psi: Pressure | None = None
) -> Memory:
    """`swap` is (total, free)."""
    return Memory(
        total_bytes=total_bytes,
        available_bytes=round(total_bytes * (1 - used_percent / 100)),
        swap_total_bytes=swap[0],
        swap_free_bytes=swap[1],
        pressure=psi,
        oom_kills=0,
        uptime_s=100.0,
    )


PRESSURE: tuple[tuple[Memory, list[tuple[str, str]]], ...] = (
    (memory(50), []),
    (memory(89.9), []),
    (memory(90.1), [("memory-high", "warning")]),
    (memory(95, total_bytes=16 * GIB), [("memory-high", "warning")]),
    (memory(96), [("memory-critical", "critical")]),
    (memory(92, total_bytes=GIB), [("memory-critical", "critical")]),  # less than 100 MiB left
    (memory(50, psi=Pressure(9.9, 4.9)), []),
    (memory(50, psi=Pressure(10.0, 0.0)), [("memory-stall", "warning")]),
    (memory(50, psi=Pressure(0.0, 5.0)), [("memory-stall", "warning")]),
    (memory(50, swap=(0, 0)), [("swap-off", "info")]),
    (memory(50, swap=(1000, 210)), []),
    (memory(50, swap=(1000, 200)), [("swap-high", "warning")]),
    (memory(99, swap=(0, 0), psi=Pressure(50.0, 40.0)), [("memory-critical", "critical"), ("memory-stall", "warning"), ("swap-off", "info")]),
)  # fmt: skip


@pytest.mark.parametrize(("seen", "expected"), PRESSURE)
def test_pressure_is_found_and_the_worst_comes_first(seen: Memory, expected: list[tuple[str, str]]) -> None:
    assert [(finding.kind, finding.severity) for finding in pressure(seen, POLICY)] == expected


def test_thresholds_are_the_settings() -> None:
    strict = Policy(memory_percent=40, critical_percent=60)

    assert pressure(memory(50), strict)[0].kind == "memory-high"
    assert pressure(memory(60), strict)[0].kind == "memory-critical"


CEILINGS = (
    ("gunicorn", 2.0, 2), ("celery-worker", 2.0, 1), ("gunicorn", 1.92, 2), ("gunicorn", 4.0, 4), ("celery-worker", 4.0, 2),
    ("celery-worker", 1.0, 1), ("gunicorn", 0.4, 1), ("gunicorn", 15.6, 16), ("celery-worker", 7.7, 4), ("celery-worker", 5.0, 2),
)  # fmt: skip


@pytest.mark.parametrize(("service", "gib", "most"), CEILINGS)
def test_the_rule_is_a_ceiling(service: str, gib: float, most: int) -> None:
    assert ceiling(service, memory(total_bytes=int(gib * GIB)), POLICY) == most


def test_more_workers_than_the_rule_are_a_finding() -> None:
    scene = runbook()
    found = sizing(memory(), scene.units, scene.processes, POLICY)

    assert [(finding.kind, finding.unit) for finding in found] == [("over-ceiling", "teaching_panel.service")]
    assert found[0].text.count == 3
    assert sizing(memory(total_bytes=4 * GIB), scene.units, scene.processes, POLICY) == ()


def test_workers_that_no_option_names_are_counted() -> None:
    scene = Scene().runs("celery.service", "/usr/bin/celery -A app worker", 200, children=4)
    scene.runs("both.service", "/usr/bin/celery -A app worker -B", 300, children=3)

    assert [(one.unit.id, one.workers) for one in sized(scene.units, scene.processes)] == [
        ("celery.service", 4),
        ("both.service", 2),
    ]


def test_a_stopped_unit_has_no_size_and_an_alias_has_one() -> None:
    scene = Scene().has("celery.service", WORKER).runs("a.service", BOTH, 200)
    twice = Units((*scene.units.all, scene.units.all[1]))

    assert [one.unit.id for one in sized(twice, scene.processes)] == ["a.service"]


SITE = "/usr/bin/gunicorn -w 2 app.wsgi"
LIMITS = (
    (SITE, None, None),
    (SITE, 600 * MIB, None),
    (SITE, 512 * MIB, "less than the"),
    (SITE, 200 * MIB, "need"),
    ("/usr/bin/celery -A app worker -c 1", 512 * MIB, None),
    ("/usr/bin/celery -A app worker -c 1", 150 * MIB, "need"),
)


@pytest.mark.parametrize(("line", "limit_bytes", "why"), LIMITS)
def test_a_limit_that_is_too_low_is_a_finding(line: str, limit_bytes: int | None, why: str | None) -> None:
    scene = Scene().runs("a.service", line, 200, children=2 if "gunicorn" in line else 1, memory_max_bytes=limit_bytes)
    found = sizing(memory(), scene.units, scene.processes, POLICY)

    if why is None:
        assert found == ()
    else:
        assert [finding.kind for finding in found] == ["memory-max-low"]
        assert why in found[0].text.msgid


def test_the_need_is_every_configured_worker_as_big_as_the_biggest() -> None:
    scene = Scene().runs("a.service", "/usr/bin/gunicorn -w 4 app.wsgi", 200, children=2)
    big = [replace(p, pss_bytes=50 * MIB if p.pid == 200 else 150 * MIB) for p in scene.processes.all]
    (site,) = sized(scene.units, Processes(tuple(big), BOOT))

    assert site.need_bytes == (50 + 4 * 150) * MIB


def test_what_restarts_a_service_by_itself_is_named() -> None:
    scene = runbook()
    schedules = Schedules(
        (
            Schedule("teaching_panel", "/etc/cron.d/restart_site:2", "*/5 * * * *", tests_memory=True),
            Schedule("unknown", "crontab of root", "@daily", tests_memory=False),
        )
    )
    memory_line, blind = restarters(schedules, scene.units)

    assert (memory_line.kind, memory_line.unit) == ("cron-restarts", "teaching_panel.service")
    assert "when memory runs out" in memory_line.text.msgid
    assert blind.unit == "unknown"
    assert "again and again" in blind.text.msgid
    assert restarters(Schedules(()), scene.units) == ()


def test_processes_are_grouped_by_unit_then_service_then_name() -> None:
    scene = (
        runbook()
        .stray(800, "vim notes", exe="/usr/bin/vim", pss_bytes=MIB)
        .stray(801, "vim other", exe="/usr/bin/vim", pss_bytes=None, rss_bytes=MIB)
    )
    found = {group.name: group for group in by_unit(scene.processes, scene.units)}

    assert [group.name for group in by_unit(scene.processes, scene.units)][:2] == [
        "teaching_panel.service",
        "celery-combined.service",
    ]
    assert (found["teaching_panel.service"].service, found["teaching_panel.service"].count) == ("gunicorn", 4)
    assert found["teaching_panel.service"].pss_bytes == 400 * MIB
    assert (found["celery-worker"].unit, found["celery-worker"].service, found["celery-worker"].count) == (
        None,
        "celery-worker",
        2,
    )
    assert (found["vim"].service, found["vim"].count, found["vim"].pss_bytes, found["vim"].exact) == ("", 2, 2 * MIB, False)
    assert sum(group.count for group in found.values()) == len(scene.processes.all)


def test_a_group_of_children_alone_still_has_its_service() -> None:
    children = process(5, ("nginx: worker process",), exe="/usr/sbin/nginx", cgroup="/system.slice/x.service")

    assert by_unit(Processes((children,), BOOT), Units(()))[0].service == "nginx"
