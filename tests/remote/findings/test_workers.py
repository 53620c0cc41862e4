"""What programs say, and leave unsaid, of workers that come and go."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.facts.witness import Living, Main, Witness
from remote.findings.death import Autopsy
from remote.findings.kill import Kill
from remote.findings.workers import Crew
from tests.remote.findings.journal_scene import (
    FIRST_WRITERS,
    MASTER,
    SITE,
    START,
    celery,
    dump,
    entry,
    gunicorn,
    invocation,
    kills,
    one,
    said,
    sigkill,
    verdict,
)
from tests.remote.findings.scene import BOOT, process, unit

AT = START + timedelta(seconds=200)


def info(at_s: float, text: str, pid: int = MASTER) -> Entry:
    return said(at_s, f"[2026-11-23 20:00:00 +0000] [{pid}] [INFO] {text}", pid=pid)


def booted(at_s: float, pid: int) -> Entry:
    return info(at_s, f"Booting worker with pid: {pid}", pid)


def starts(version: str) -> list[Entry]:
    """A master of this version with three workers."""
    return [info(1, f"Starting gunicorn {version}"), *(booted(1.1 + n / 10, pid) for n, pid in enumerate((401, 402, 403)))]


def witness(*living: int, uptime_s: float = 150) -> Witness:
    there = {pid: Living(1_000_000, SITE) for pid in living}
    mains = {"site.service": Main("site.service", invocation("site.service"), MASTER, SITE)}
    return Witness(BOOT, uptime_s, mains, there, 0, {})


def autopsy(*lines: Entry) -> Autopsy:
    made = Autopsy(first_writers=FIRST_WRITERS)
    for line in lines:
        made.take(line)
    return made


def found(kills_: tuple[Kill, ...]) -> list[tuple[int | None, str, str]]:
    return [(kill.pid, kill.cause, kill.confidence) for kill in kills_]


def test_a_silent_gunicorns_new_worker_tells_of_an_old_one() -> None:
    made = autopsy(*starts("20.0.4"))
    assert not made.claims
    made.take(booted(100, 410))

    assert [claim.pid for claim in made.claims] == [401, 402, 403]
    (kill,) = made.witness(witness(401, 403), AT)
    assert verdict(kill) == (402, "site.service", "unknown", "guess")
    assert kill.evidence == (booted(100, 410).message,)
    assert made.claims == ()


def test_each_is_told_once() -> None:
    made = autopsy(*starts("20.0.4"), booted(100, 410))
    made.witness(witness(401, 403), AT)
    made.forget(START + timedelta(seconds=2000))
    made.take(booted(3000, 411))

    assert [claim.pid for claim in made.claims] == [401, 403, 410]
    assert found(made.witness(witness(401, 410, uptime_s=4000), AT)) == [(403, "unknown", "guess")]


@pytest.mark.parametrize("version", ["20.1.0", "21.2.0", "23.0.0", "26.0.0", "no number"])
def test_a_gunicorn_that_talks_needs_no_guess(version: str) -> None:
    assert autopsy(*starts(version), booted(100, 410)).claims == ()


def test_of_an_unknown_version_nothing_is_guessed() -> None:
    assert autopsy(*starts("20.0.4")[1:], booted(100, 410)).claims == ()


def test_a_worker_that_said_goodbye_was_not_killed() -> None:
    leaves = info(99, "Worker exiting (pid: 402)", 402)
    made = autopsy(*starts("20.0.4"), leaves, booted(100, 410))

    assert [claim.pid for claim in made.claims] == [401, 403]
    assert made.witness(witness(401, 403), AT) == ()


def test_what_the_kernel_told_is_not_guessed_again() -> None:
    made = autopsy(*starts("20.0.4"), *dump(99, 402), booted(100, 410))

    assert [claim.pid for claim in made.claims] == [401, 403]
    assert found(made.kills) == [(402, "cgroup-limit", "certain")]


def test_a_worker_speaks_for_itself_only() -> None:
    for liar in (info(100, "Booting worker with pid: 410", 411), said(100, booted(100, 410).message, pid=411)):
        assert autopsy(*starts("20.0.4"), liar).claims == ()
    stranger = entry(100, booted(100, 410).message, transport="stdout", system_unit="site.service", pid=410, invocation="another")
    assert autopsy(*starts("20.0.4"), stranger).claims == ()


def test_of_the_past_one_is_gone_for_each_new_worker() -> None:
    lines = [*starts("20.0.4"), booted(100, 410), booted(500, 411)]
    names = (401, 410, 411)
    living = Processes(tuple(process(pid, "gunicorn", cgroup=SITE, started_at=START) for pid in (MASTER, *names)), BOOT)
    running = Units((unit("site.service", "/usr/bin/gunicorn app.wsgi", MASTER, invocation_id=invocation("site.service")),))
    dead = kills(lines, units=running, processes=living)

    assert [(kill.pid, kill.at) for kill in dead] == [
        (403, START + timedelta(seconds=500)),
        (402, START + timedelta(seconds=100)),
    ]
    assert kills(lines) == ()


def test_a_crew_forgets_what_ended() -> None:
    crew = Crew()
    crew.started("20.0.4", 0)
    assert crew.booted(5, "", 20_000_000) == ()
    assert crew.booted(6, "", 21_000_000) == (5,)
    crew.ended(5)
    assert crew.booted(7, "", 22_000_000) == (6,)
    crew.started("20.0.4", 30_000_000)
    assert crew.booted(8, "", 31_000_000) == ()
    assert crew.booted(9, "worker 1", 60_000_000) == ()
    assert crew.booted(10, "worker 1", 60_000_001) == (9,)
    assert crew.named("worker 1") == 10
    assert crew.named("") is None


def supervisord(at_s: float, text: str) -> Entry:
    return said(at_s, f"2026-11-23 20:00:00,000 {text}", "supervisor.service", 364, identifier="supervisord", comm="supervisord")


def test_supervisord_names_its_programs() -> None:
    writers = {invocation("supervisor.service"): 364}
    born = supervisord(1, "INFO spawned: 'web' with pid 500")
    dead = supervisord(100, "WARN exited: web (terminated by SIGKILL; not expected)")
    forced = [
        supervisord(99, "WARN killing 'web' (500) with SIGKILL"),
        supervisord(100, "WARN stopped: web (terminated by SIGKILL)"),
    ]

    assert verdict(one([born, dead], first_writers=writers)) == (500, "supervisor.service", "unknown", "guess")
    kill = one([born, *forced], first_writers=writers)
    assert (*verdict(kill), kill.by) == (500, "supervisor.service", "stop-timeout", "certain", "supervisord")
    assert kills([dead], first_writers=writers) == ()


def test_a_worker_that_hung_and_died_of_the_first_signal_was_ended_too() -> None:
    lines = [gunicorn(1, "WORKER TIMEOUT (pid:5)"), gunicorn(1.2, "Worker (pid:5) was sent SIGABRT!")]
    kill = one(lines)

    assert (*verdict(kill), kill.signal) == (5, "site.service", "worker-timeout", "certain", 6)
    assert kills(lines[1:]) == ()


def test_the_only_task_in_hand_is_told() -> None:
    taken = said(
        1, "[2026-11-23 20:29:14,193: INFO/MainProcess] Task app.tasks.import_orders[b82736d0-a9ec-4a00-92aa-9cd013293e29] received",
        "celery.service", identifier="celery",
    )  # fmt: skip
    dead = celery(9, "Process 'ForkPoolWorker-1' pid:5 exited with 'signal 9 (SIGKILL)'")

    assert one([taken, dead]).doing == "app.tasks.import_orders"
    assert one([taken, celery(8, "Hard time limit (30s) exceeded for app.tasks.b[b82736d0]"), dead]).doing == "app.tasks.b"
    assert one([dead]).doing == ""


def test_what_was_only_found_gone_needs_somebody_elses_word() -> None:
    gone = said(10.5, "INFO:     Child process [5] died", identifier="uvicorn", comm="uvicorn")
    asked = entry(
        10, "alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/kill -9 5", transport="syslog", exe="/usr/bin/sudo", uid=0
    )
    (claim,) = autopsy(gone).claims

    assert claim.pid == 5
    assert autopsy(gone).witness(witness(), AT) == ()
    assert verdict(one([asked, gone])) == (5, "site.service", "manual", "likely")
    assert kills([gone]) == ()
    assert one([*dump(10, 5), gone]).evidence[-1] == gone.message


def test_two_claims_of_one_moment_are_two() -> None:
    made = autopsy(gunicorn(100, sigkill(5)), gunicorn(100, sigkill(6)))

    assert found(made.witness(witness(), AT)) == [(5, "unknown", "guess"), (6, "unknown", "guess")]
