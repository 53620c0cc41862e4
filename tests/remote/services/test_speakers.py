"""Whose lines about dead children count: the main process of a unit whose program tells of them."""

from __future__ import annotations

from dataclasses import replace

from remote.facts.journal import Speaker
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.services import kinds, speakers, tellings
from remote.services.base import silent
from tests.remote.findings.scene import BOOT, WORKER, Scene, process, runbook, unit


def test_the_main_processes_of_a_server_speak_and_a_beat_has_no_children() -> None:
    scene = runbook()
    said = speakers(scene.units, scene.processes)

    assert [(one.unit, one.pid) for one in said] == [
        ("teaching_panel.service", 100),
        ("celery.service", 200),
        ("celery_worker.service", 300),
        ("celery-combined.service", 600),
    ]
    assert speakers(scene.units, None) == said


def test_a_speaker_is_of_one_invocation_of_its_unit() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, invocation_id="c" * 32)

    assert speakers(scene.units, scene.processes) == (Speaker("celery.service", 200, "c" * 32),)


def test_one_that_stops_speaks_until_its_main_process_is_gone() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, active_state="deactivating")
    gone = Units((replace(scene.units.all[0], main_pid=0),))

    assert [one.pid for one in speakers(scene.units, scene.processes)] == [200]
    assert speakers(gone, scene.processes) == ()


def test_a_program_that_tells_nothing_does_not_speak() -> None:
    scene = Scene().runs("celery-beat.service", "/usr/bin/celery -A app beat", 400).runs("x.service", "/srv/app/run.py", 500)

    assert speakers(scene.units, scene.processes) == ()
    assert speakers(scene.units, None) == ()


def test_what_runs_counts_and_not_what_was_configured() -> None:
    stranger = process(200, "/usr/bin/sleep infinity", exe="/usr/bin/sleep", cgroup="/system.slice/celery.service")

    assert speakers(Units((unit("celery.service", WORKER, 200),)), Processes((stranger,), BOOT)) == ()


def test_a_main_process_newer_than_the_list_of_processes_is_what_was_configured() -> None:
    scene = Scene().runs("celery.service", WORKER, 200)
    newer = Units((replace(scene.units.all[0], main_pid=999),))

    assert [one.pid for one in speakers(newer, scene.processes)] == [999]


def test_behind_a_start_script_the_one_master_speaks() -> None:
    group = "/system.slice/w.service"
    scripted = Units((unit("w.service", "/srv/app/start.sh", 10),))
    shell = process(10, "/bin/bash /srv/app/start.sh", cgroup=group, exe="/usr/bin/bash")
    worker = process(11, f"python3 {WORKER}", ppid=10, cgroup=group)
    child = process(12, f"python3 {WORKER}", ppid=11, cgroup=group)
    other = process(13, f"python3 {WORKER}", ppid=10, cgroup=group)

    assert [one.pid for one in speakers(scripted, Processes((shell, worker, child), BOOT))] == [11]
    assert speakers(scripted, Processes((shell, worker, child, other), BOOT)) == ()
    assert speakers(scripted, None) == ()


def test_every_kind_that_reads_its_log_says_what_to_look_for() -> None:
    telling = [kind.name for kind in kinds().values() if kind.tellings]

    assert telling == [kind.name for kind in kinds().values() if kind.sign is not silent]
    assert set(tellings()) == {one for kind in kinds().values() for one in (*kind.tellings, *kind.asides)}
    assert all(set("\"\\\n'") & set(one) == set() for one in tellings())
