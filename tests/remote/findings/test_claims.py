"""A program's word about its own children waits for a witness; a text file's for a counter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.facts.witness import Living, Main, Witness
from remote.findings.death import Autopsy
from remote.findings.kill import Kill, same_kill
from tests.remote.findings.journal_scene import (
    FIRST_WRITERS,
    MASTER,
    RSS,
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
from tests.remote.findings.scene import BOOT, MIB, process, unit

AT = START + timedelta(seconds=20)


def witness(
    uptime_s: float = 20,
    living: Mapping[int, float] | None = None,
    main: int = MASTER,
    boot_id: str = BOOT,
    invocation_id: str = invocation("site.service"),
    oom_kills: int | None = 0,
    unit_oom_kills: Mapping[str, int] | None = None,
) -> Witness:
    """`living` by pid: when it started, in seconds since boot."""
    there = {pid: Living(int(started_s * 1e6), SITE) for pid, started_s in (living or {}).items()}
    mains = {"site.service": Main("site.service", invocation_id, main, SITE)}
    return Witness(boot_id, uptime_s, mains, there, oom_kills, unit_oom_kills or {})


def autopsy(*lines: Entry, **given: Any) -> Autopsy:  # noqa: ANN401 - as Autopsy has them
    made = Autopsy(**{"first_writers": FIRST_WRITERS, **given})
    for line in lines:
        made.take(line)
    return made


def found(kills_: tuple[Kill, ...]) -> list[tuple[int | None, str | None, str, str]]:
    return [verdict(kill) for kill in kills_]


def test_a_masters_word_waits() -> None:
    line = gunicorn(1, sigkill(415))
    made = autopsy(line)

    (claim,) = made.claims
    assert (claim.unit, claim.speaker, claim.pid, claim.invocation) == ("site.service", MASTER, 415, line.invocation)
    assert (claim.at, claim.monotonic_us, claim.boot_id) == (line.at, line.monotonic_us, BOOT)
    assert made.kills == made.settle() == ()


def test_a_witness_bears_it_out_once() -> None:
    made = autopsy(gunicorn(1, sigkill(415)))

    assert found(made.witness(witness(), AT)) == [(415, "site.service", "unknown", "guess")]
    assert found(made.kills) == [(415, "site.service", "unknown", "guess")]
    assert made.claims == ()
    assert made.witness(witness(uptime_s=30), AT) == ()


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (witness(living={415: 0.5}), False),
        (witness(living={415: 5}), True),
        (witness(living={416: 0.5}), True),
        (witness(main=999), False),
        (witness(main=999, invocation_id="a later one"), True),
        (witness(main=0), True),
        (witness(boot_id="c" * 32, living={415: 0.5}), True),
    ],
    ids=["lives", "pid used again", "another lives", "spoke for another", "restarted since", "ended since", "rebooted since"],
)
def test_what_the_host_contradicts_is_dropped_for_good(seen: Witness, told: bool) -> None:  # noqa: FBT001 - a case
    made = autopsy(gunicorn(1, sigkill(415)))

    assert bool(made.witness(seen, AT)) is told
    assert made.claims == ()
    assert made.take(gunicorn(1, sigkill(415))) == () or told
    assert made.witness(witness(uptime_s=30), AT) == ()
    assert bool(made.kills) is told


def test_a_dropped_claim_does_not_hide_a_later_kill() -> None:
    made = autopsy(gunicorn(1, sigkill(415)))
    made.witness(witness(living={415: 0.5}), AT)
    made.take(gunicorn(40, sigkill(415)))

    assert found(made.witness(witness(uptime_s=50), AT)) == [(415, "site.service", "unknown", "guess")]
    assert made.kills[0].at == START + timedelta(seconds=40)


def test_a_line_younger_than_the_witness_waits_on() -> None:
    made = autopsy(gunicorn(25, sigkill(415)))

    assert made.witness(witness(uptime_s=20, living={415: 0.5}), AT) == ()
    assert len(made.claims) == 1


def test_the_kernels_word_needs_no_witness() -> None:
    made = autopsy(gunicorn(10.5, sigkill(415)), *dump(10, 415))

    assert made.claims == ()
    assert found(made.kills) == [(415, "site.service", "cgroup-limit", "certain")]
    assert made.witness(witness(living={415: 0.5}), AT) == ()
    assert len(made.kills) == 1
    assert sigkill(415) in made.kills[0].evidence[-1]


def test_what_hung_and_was_told_dead_is_a_timeout_once_it_is_gone() -> None:
    lines = [gunicorn(1, "WORKER TIMEOUT (pid:415)"), gunicorn(2, sigkill(415))]

    assert found(autopsy(*lines).witness(witness(), AT)) == [(415, "site.service", "worker-timeout", "certain")]
    assert autopsy(lines[0]).claims == ()


def test_only_the_main_process_of_that_invocation_counts() -> None:
    running = Units((unit("site.service", "/usr/bin/gunicorn app.wsgi", 364, invocation_id=invocation("site.service")),))
    line = gunicorn(1, sigkill(415))

    assert len(autopsy(line, units=running, first_writers={}).claims) == 1
    worker = gunicorn(1, sigkill(415), said_by=370)
    both = said(1, f"[2026-11-23 20:00:00 +0000] [370] [ERROR] {sigkill(415)}", pid=370)
    other = replace(line, invocation="another")
    for liar in (worker, both, other, replace(line, invocation=""), replace(line, system_unit="site2.service")):
        assert autopsy(liar, units=running, first_writers={}).claims == ()
    assert autopsy(line, first_writers={}).claims == ()


def test_a_main_process_that_is_learnt_of_later_counts_from_then_on() -> None:
    made = autopsy(gunicorn(1, sigkill(415)), first_writers={})
    made.learn(Units((unit("site.service", "/usr/bin/gunicorn app.wsgi", 364, invocation_id=invocation("site.service")),)), None)
    made.take(gunicorn(2, sigkill(416)))

    assert [claim.pid for claim in made.claims] == [416]


def test_nobody_speaks_of_another_units_process() -> None:
    living = Processes((process(415, "gunicorn", cgroup="/system.slice/postgresql.service", started_at=START),), BOOT)

    assert autopsy(gunicorn(1, sigkill(415)), processes=living).claims == ()
    assert len(autopsy(gunicorn(1, sigkill(416)), processes=living).claims) == 1


def test_for_lines_of_the_past_the_facts_are_the_witness() -> None:
    line = gunicorn(10, sigkill(415))
    before = Processes((process(415, "gunicorn", cgroup=SITE, started_at=START),), BOOT)
    after = Processes((process(415, "gunicorn", cgroup=SITE, started_at=START + timedelta(seconds=50)),), BOOT)

    assert kills([line], processes=before) == ()
    assert one([line], processes=after).pid == 415
    assert one([line]).pid == 415
    assert one([line], processes=before, machine_boot_id="c" * 32).pid == 415


def test_exitcode_0_needs_a_counter() -> None:
    lost = celery(11, "Task handler raised error: WorkerLostError('Worker exited prematurely: exitcode 0 Job: 0.')")
    made = autopsy(lost, units=Units((unit("celery.service", "x", 7, memory_max_bytes=200 * MIB),)), machine_boot_id=BOOT)
    (claim,) = made.claims
    assert (claim.pid, claim.unit) == (None, "celery.service")

    assert made.witness(witness(unit_oom_kills={"celery.service": 1}), AT) == ()
    (kill,) = made.witness(witness(uptime_s=30, unit_oom_kills={"celery.service": 2}), AT)
    assert (*verdict(kill), kill.counted, kill.limit_bytes) == (
        None,
        "celery.service",
        "cgroup-limit",
        "likely",
        True,
        200 * MIB,
    )
    assert made.witness(witness(uptime_s=40, unit_oom_kills={"celery.service": 3}), AT) == ()


def test_exitcode_0_is_no_kill_by_what_was_counted_before_anybody_asked() -> None:
    made = autopsy(celery(11, "Task handler raised error: WorkerLostError('Worker exited prematurely: exitcode 0 Job: 0.')"))
    made.begin(witness(uptime_s=1))

    assert made.witness(witness(unit_oom_kills={"celery.service": 3}), AT) == ()
    assert made.witness(witness(uptime_s=30, unit_oom_kills={"celery.service": 3}), AT) == ()


def test_exitcode_0_without_a_counter_is_forgotten() -> None:
    made = autopsy(celery(11, "Task handler raised error: WorkerLostError('Worker exited prematurely: exitcode 0 Job: 0.')"))
    made.witness(witness(), AT)
    made.witness(witness(uptime_s=400), AT + timedelta(minutes=5))

    assert made.claims == ()
    assert made.kills == ()


def test_exitcode_0_near_a_kill_is_its_echo() -> None:
    lost = celery(11, "Task handler raised error: WorkerLostError('Worker exited prematurely: exitcode 0 Job: 0.')")
    kill_lines = dump(10, 5, cgroup="/system.slice/celery.service")
    for lines in ([*kill_lines, lost], [lost, *kill_lines]):
        made = autopsy(*lines)
        made.witness(witness(), AT)
        assert made.witness(witness(uptime_s=30, unit_oom_kills={"celery.service": 1}), AT) == ()
        assert lost.message in made.kills[0].evidence


def syslog(at_s: float, message: str, **given: Any) -> Entry:  # noqa: ANN401 - any field
    return entry(at_s, message, source="syslog", identifier="kernel", **given)


def test_a_text_file_is_believed_as_far_as_the_kernel_counts() -> None:
    lines = [syslog(10 + n, f"Memory cgroup out of memory: Killed process {5 + n} (a) {RSS}#012") for n in range(3)]
    made = autopsy(*lines)

    assert made.kills == ()
    assert [claim.pid for claim in made.claims] == [5, 6, 7]
    assert made.witness(witness(oom_kills=4), AT) == ()
    (kill,) = made.witness(witness(uptime_s=30, oom_kills=5, living={5: 1}), AT)
    assert (*verdict(kill), kill.uid, kill.rss_bytes) == (6, None, "cgroup-limit", "likely", 33, 200 * MIB)
    assert made.claims == ()
    assert found(made.kills) == [(6, None, "cgroup-limit", "likely")]
    made.forget(START + timedelta(hours=1))
    assert made.kills == ()


@pytest.mark.parametrize(("counted", "told"), [(4, [5]), (3, [])], ids=["killed", "made up"])
def test_a_text_files_first_kill_is_told_if_the_count_before_is_known(counted: int, told: list[int]) -> None:
    made = autopsy()
    made.begin(witness(uptime_s=1, oom_kills=3))
    made.read(syslog(10, f"Out of memory: Killed process 5 (a) {RSS}"))
    made.begin(witness(uptime_s=15, oom_kills=counted))  # the stream was cut and is opened anew

    assert [kill.pid for kill in made.witness(witness(oom_kills=counted), AT)] == told
    assert made.claims == ()


def test_a_text_files_report_is_read_whole() -> None:
    lines = [replace(line, source="syslog", transport="", facility=None, monotonic_us=0) for line in dump(10, 5)]
    made = autopsy(*lines)
    made.witness(witness(), AT)
    (kill,) = made.witness(witness(oom_kills=1), AT)

    assert (kill.unit, kill.limit_bytes, kill.monotonic_us, len(kill.evidence)) == ("site.service", 512 * MIB, 0, 4)


def test_a_counter_that_the_kernels_own_lines_explain_bears_out_no_text() -> None:
    made = autopsy(machine_boot_id=BOOT)
    made.witness(witness(uptime_s=1), AT)
    for line in (*dump(10, 5), syslog(11, f"Out of memory: Killed process 6 (a) {RSS}")):
        made.take(line)

    assert made.witness(witness(oom_kills=1), AT) == ()
    assert [kill.pid for kill in made.kills] == [5]


def test_of_the_past_a_text_file_is_believed_as_far_as_was_counted() -> None:
    lines = [syslog(10 + n, f"Out of memory: Killed process {5 + n} (a) {RSS}") for n in range(3)]

    assert kills(lines) == ()
    assert [kill.pid for kill in kills(lines, counted=2)] == [7, 6]


def test_a_text_files_kill_is_of_the_boot_that_counted_it() -> None:
    line = syslog(10, f"Out of memory: Killed process 5 (a) {RSS}", boot_id="")
    made = autopsy()
    made.begin(witness(uptime_s=1, oom_kills=3))
    made.read(line)
    (kill,) = made.witness(witness(oom_kills=4), AT)
    assert kill.boot_id == BOOT
    assert [one.boot_id for one in made.kills] == [BOOT]

    (past,) = kills([line], processes=Processes((), BOOT), counted=1)
    assert past.boot_id == BOOT
    assert same_kill(past, kill)
    assert [one.boot_id for one in kills([line], counted=1)] == [""], "nobody knows which boot it is"


def test_a_text_file_of_a_host_that_counts_nothing_waits_for_nobody() -> None:
    made = autopsy(syslog(10, f"Out of memory: Killed process 5 (a) {RSS}"))

    assert made.witness(witness(oom_kills=None), AT) == ()
    assert (made.claims, made.kills) == ((), ())
