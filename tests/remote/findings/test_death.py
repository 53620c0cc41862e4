"""Who killed what and why: recorded kills, every kernel's shapes, lines in any order, and liars."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.findings.death import Autopsy
from remote.findings.places import unit_of_path
from tests.remote.findings.journal_scene import (
    FIRST_WRITERS,
    RSS,
    SITE,
    START,
    celery,
    dump,
    earlyoom,
    entry,
    first_writers,
    gunicorn,
    kernel,
    kills,
    one,
    recorded,
    said,
    sigkill,
    systemd,
    verdict,
)
from tests.remote.findings.scene import BOOT, MIB, process, unit

# name, pid, unit, cause, confidence, limit in MiB, signal, whole unit stopped
RECORDINGS = (
    ("celery-oom", 632, "celery.service", "cgroup-limit", "certain", 200, 9, True),
    ("celery-time-limit", 632, "celery.service", "time-limit", "certain", None, 9, False),
    ("cgroup-oom", 350, "hog@0.service", "cgroup-limit", "certain", 100, 9, False),
    ("cgroup-oom-swap", 351, "glutton.service", "cgroup-limit", "certain", 100, 9, False),
    ("earlyoom", 684, None, "userspace-oom", "certain", None, 15, False),
    ("global-oom", 667, "glutton.service", "kernel-oom", "certain", None, 9, False),
    ("gunicorn-oom", 415, "teaching_panel.service", "cgroup-limit", "certain", 512, 9, True),
    ("gunicorn-timeout", 414, "teaching_panel.service", "worker-timeout", "certain", None, 9, False),
    ("manual-kill", 415, "teaching_panel.service", "unknown", "guess", None, 9, False),
    ("session-oom", 364, None, "cgroup-limit", "certain", 100, 9, False),
    ("stop-timeout", 347, "deaf.service", "stop-timeout", "certain", None, 9, False),
    ("systemd-oomd", None, "glutton.service", "systemd-oomd", "certain", None, 9, False),
)


@pytest.mark.parametrize("expected", RECORDINGS, ids=lambda row: row[0])
def test_a_recorded_kill_is_told_once_and_rightly(
    expected: tuple[str, int | None, str | None, str, str, int | None, int, bool],
) -> None:
    name, pid, unit_name, cause, confidence, limit_mib, signal, stopped = expected
    entries = recorded(name)
    kill = one(entries, first_writers=first_writers(entries))

    assert verdict(kill) == (pid, unit_name, cause, confidence)
    assert (kill.signal, kill.stopped_unit) == (signal, stopped)
    assert kill.limit_bytes == (None if limit_mib is None else limit_mib * MIB)
    assert kill.evidence
    assert kill.final


@pytest.mark.parametrize("name", [row[0] for row in RECORDINGS])
def test_a_recorded_kill_read_twice_is_the_same(name: str) -> None:
    entries = recorded(name)
    writers = first_writers(entries)

    assert kills([*entries, *entries], first_writers=writers) == kills(entries, first_writers=writers)


def test_a_kill_at_a_units_limit_has_all_that_is_known() -> None:
    kill = one([*dump(10, 415), gunicorn(11, sigkill(415))])

    assert verdict(kill) == (415, "site.service", "cgroup-limit", "certain")
    assert (kill.name, kill.uid, kill.signal, kill.boot_id) == ("gunicorn", 33, 9, BOOT)
    assert (kill.limit_bytes, kill.rss_bytes) == (512 * MIB, 200 * MIB)
    assert (kill.limit_group, kill.cgroup) == (SITE, SITE)
    assert kill.at == START + timedelta(seconds=10.002)
    assert [line.split()[0] for line in kill.evidence] == ["gunicorn", "memory:", kill.evidence[2], "Memory", "[2026-11-23"]
    assert dict(kill.advice.values)["rest"].size_bytes == 312 * MIB  # type: ignore[union-attr]


def test_a_slices_limit_is_blamed_on_the_slice() -> None:
    kill = one(dump(10, 5, limited="/system.slice"))

    assert kill.unit == "site.service"
    assert kill.limit_group == "/system.slice"
    assert dict(kill.advice.values)["group"].literal == "/system.slice"  # type: ignore[union-attr]


@pytest.mark.parametrize("order", range(20))
def test_the_order_in_which_lines_come_changes_nothing(order: int) -> None:
    entries = [
        *dump(10, 415),
        systemd(10.2, "site.service: A process of this unit has been killed by the OOM killer."),
        gunicorn(10.5, sigkill(415)),
        systemd(12, "site.service: Failed with result 'oom-kill'."),
    ]
    fixed, moved = entries[:4], entries[4:6]
    shuffled = [fixed, moved]
    random.Random(order).shuffle(shuffled)
    random.Random(order).shuffle(moved)
    kill = one([*(e for part in shuffled for e in part), entries[6]])

    assert verdict(kill) == (415, "site.service", "cgroup-limit", "certain")
    assert kill.limit_bytes == 512 * MIB
    assert kill.stopped_unit
    assert len(kill.evidence) == 7


def test_the_summary_alone_is_enough_and_so_is_the_victim_alone() -> None:
    summary, victim = dump(10, 5)[2:]

    assert verdict(one([summary])) == (5, "site.service", "cgroup-limit", "certain")
    assert verdict(one([victim])) == (5, None, "cgroup-limit", "certain")


def test_a_cut_summary_does_not_hurt() -> None:
    opened, limit, summary, victim = dump(10, 5)
    cut = replace(summary, message=summary.message[:60])
    kill = one([opened, limit, cut, victim])

    assert verdict(kill) == (5, None, "cgroup-limit", "certain")
    assert kill.limit_bytes == 512 * MIB


def test_the_machine_out_of_memory_is_no_units_limit() -> None:
    summary = (
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        f"task_memcg={SITE},task=gunicorn,pid=5,uid=33"
    )
    kill = one([kernel(1, summary), kernel(1.1, f"Out of memory: Killed process 5 (gunicorn) {RSS}")])

    assert verdict(kill) == (5, "site.service", "kernel-oom", "certain")
    assert kill.limit_bytes is None
    assert kill.limit_group == ""


def test_two_lines_of_an_old_kernel_are_one_kill() -> None:
    memcg = [
        kernel(1, "Task in /system.slice/site.service killed as a result of limit of /system.slice"),
        kernel(1.1, "memory: usage 1024kB, limit 1024kB, failcnt 4"),
        kernel(1.2, "Memory cgroup out of memory: Kill process 4015 (python) score 1923 or sacrifice child"),
        kernel(1.3, "Killed process 4015 (python) total-vm:9kB, anon-rss:7kB, file-rss:1kB, shmem-rss:0kB"),
    ]
    kill = one(memcg)
    assert verdict(kill) == (4015, "site.service", "cgroup-limit", "certain")
    assert (kill.limit_group, kill.limit_bytes) == ("/system.slice", MIB)

    rhel6 = [
        kernel(1, "Out of memory: Kill process 28712 (celery) score 100 or sacrifice child"),
        kernel(1.1, "Killed process 28712, UID 503, (celery) total-vm:2048760kB, anon-rss:1636384kB, file-rss:512kB"),
    ]
    assert verdict(one(rhel6)) == (28712, None, "kernel-oom", "certain")


def test_a_victim_without_any_word_of_whose_memory_is_only_likely() -> None:
    bare = kernel(1, "Killed process 5 (a) total-vm:9kB, anon-rss:7kB, file-rss:1kB")

    assert verdict(one([bare])) == (5, None, "kernel-oom", "likely")


def test_a_storm_without_dumps_gives_each_its_kill_and_no_foreign_limit() -> None:
    storm = [kernel(11 + n / 10, f"Memory cgroup out of memory: Killed process {900 + n} (php) {RSS}") for n in range(12)]
    found = kills([*dump(10, 415), *storm])

    assert len(found) == 13
    assert [kill.limit_bytes for kill in found if kill.pid != 415] == [None] * 12
    assert [kill.pid for kill in found] == [*range(911, 899, -1), 415]


def test_a_group_kill_names_all_and_its_double_print_is_one() -> None:
    opened, limit, summary, victim = dump(10, 5, cgroup="/system.slice/g.service/a", limited="/system.slice/g.service")
    group = kernel(10.01, "Tasks in /system.slice/g.service/a are going to be killed due to memory.oom.group set")
    again = replace(victim, monotonic_us=victim.monotonic_us + 10_000)
    member = replace(again, message=again.message.replace("process 5", "process 6"))
    found = kills([opened, limit, summary, victim, group, again, member])

    assert sorted(kill.pid or 0 for kill in found) == [5, 6]
    assert {kill.unit for kill in found} == {"g.service"}
    assert {kill.limit_bytes for kill in found} == {512 * MIB}
    assert {kill.limit_group for kill in found} == {"/system.slice/g.service"}


def test_two_kills_one_upon_another_keep_their_limits() -> None:
    found = kills([*dump(10, 5, limit_kib=1024), *dump(10.5, 6, cgroup="/system.slice/b.service", limit_kib=2048)])

    assert [(kill.pid, kill.unit, kill.limit_bytes) for kill in found] == [
        (6, "b.service", 2 * MIB),
        (5, "site.service", MIB),
    ]


def test_somebody_asked_the_kernel_to_kill() -> None:
    opened = kernel(1.1, "kworker/2:2 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0")
    victim = kernel(1.2, f"Out of memory: Killed process 5 (a) {RSS}")

    assert verdict(one([opened, victim])) == (5, None, "manual", "likely")
    assert verdict(one([kernel(1, "sysrq: Manual OOM execution"), opened, victim])) == (5, None, "manual", "certain")


def test_the_same_pid_much_later_or_in_another_boot_is_another_kill() -> None:
    later = dump(1000, 415)
    elsewhere = [replace(line, boot_id="c" * 32) for line in dump(10, 415)]

    assert len(kills([*dump(10, 415), *later, *elsewhere])) == 3


# Lines that are no proof: what is told by whom does not count.
FORGED = (
    entry(1, f"Out of memory: Killed process 5 (a) {RSS}", transport="syslog", facility=0, identifier="kernel"),
    entry(1, f"Out of memory: Killed process 5 (a) {RSS}", transport="kernel", facility=1, identifier="kernel"),
    entry(1, f"Out of memory: Killed process 5 (a) {RSS}", transport="stdout", system_unit="site.service"),
    said(1, "site.service: A process of this unit has been killed by the OOM killer.", message_id="fe6faa94e7774663a0da52717891d8ef", unit="site.service"),
    said(1, 'sending SIGTERM to process 5 uid 0 "a": badness 1, VmRSS 1 MiB'),
    said(1, "Killed /system.slice/site.service due to memory used (1) / total (2) being more than 90.00%"),
    gunicorn(1, sigkill(5), said_by=999),
    gunicorn(1, sigkill(5), unit_name=""),
    gunicorn(1, sigkill(5), unit_name="user@1000.service"),
    gunicorn(1, sigkill(5), unit_name="session-3.scope"),
    said(1, sigkill(5)),
    celery(1, "Process 'ForkPoolWorker-1' pid:5 exited with 'signal 15 (SIGTERM)'"),
    celery(1, "Task handler raised error: WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 0.')"),
    gunicorn(1, "WORKER TIMEOUT (pid:5)"),
    systemd(1, "system.slice: A process of this unit has been killed by the OOM killer."),
    systemd(1, "site.service: Main process exited, code=killed, status=15/TERM"),
    systemd(1, "site.service: Failed with result 'oom-kill'."),
    systemd(1, "site.service: Killing process 5 (a) with signal SIGKILL."),
    said(1, "escalating to SIGKILL after 0.5 seconds", "earlyoom.service"),
)  # fmt: skip


@pytest.mark.parametrize("line", FORGED, ids=lambda line: f"{line.transport} {line.system_unit} {line.message[:40]}")
def test_what_proves_no_kill_is_none(line: Entry) -> None:
    assert kills([line]) == ()


def test_a_unit_can_blame_only_itself() -> None:
    liar = gunicorn(9.9, sigkill(415), unit_name="liar.service")
    late = gunicorn(11, sigkill(415), unit_name="liar.service")
    kill = one([liar, *dump(10, 415), late])

    assert verdict(kill) == (415, "site.service", "cgroup-limit", "certain")
    assert not any("SIGKILL!" in line for line in kill.evidence)


def test_a_group_with_a_forged_name_gives_no_unit() -> None:
    user = "/user.slice/user-1000.slice/user@1000.service"
    forged = f"{user}/a,task_memcg=/system.slice/postgresql.service/x"

    assert one(dump(10, 5, cgroup=f"{user}/a", limited=forged)).unit is None
    assert one(dump(10, 5, cgroup=f"{user}/app.slice/postgresql.service")).unit is None


def test_perhaps_out_of_memory_alone_is_a_guess_and_says_so() -> None:
    kill = one([gunicorn(1, sigkill(5))])

    assert verdict(kill) == (5, "site.service", "unknown", "guess")
    assert kill.name == "gunicorn"
    assert "Nothing in the log says who killed" in kill.advice.msgid


@pytest.mark.parametrize("text", [sigkill(5), "Worker with pid 5 was terminated due to signal 9"])
def test_every_gunicorns_words_are_known_coloured_too(text: str) -> None:
    assert one([gunicorn(1, text)]).pid == 5
    coloured = said(1, f"\x1b[31m[2026-11-23 20:00:00 +0000] [364] [ERROR] {text}\x1b[0m")
    kill = one([coloured])
    assert kill.pid == 5
    assert "\x1b" not in kill.evidence[0]


def test_a_hung_worker_is_no_memory_trouble_unless_the_kernel_says_so() -> None:
    hung, dead = gunicorn(1, "WORKER TIMEOUT (pid:5)"), gunicorn(2, sigkill(5))

    assert verdict(one([hung, dead])) == (5, "site.service", "worker-timeout", "certain")
    assert one([hung, dead]).evidence[0].endswith("WORKER TIMEOUT (pid:5)")
    assert verdict(one([gunicorn(1, "WORKER TIMEOUT (pid:6)"), dead]))[2] == "unknown"
    assert verdict(one([hung, dead, *dump(1.9, 5)]))[2] == "cgroup-limit"


@pytest.mark.parametrize("signal", ["9 (SIGKILL)", "15 (SIGTERM)"])
def test_a_hard_time_limit_is_celerys_own_kill(signal: str) -> None:
    limit = celery(1, "Hard time limit (30s) exceeded for app.tasks.a[1-2]")
    dead = celery(1.2, f"Process 'ForkPoolWorker-1' pid:5 exited with 'signal {signal}'")
    kill = one([limit, dead])

    assert verdict(kill) == (5, "celery.service", "time-limit", "certain")
    assert kill.signal == int(signal.split(maxsplit=1)[0])
    assert "longer than its limit of {limit}" in kill.advice.msgid


def test_one_time_limit_explains_one_dead_worker() -> None:
    limit = celery(1, "Hard time limit (30s) exceeded for app.tasks.a[1-2]")
    dead = [celery(1 + n, f"Process 'ForkPoolWorker-{n}' pid:{n} exited with 'signal 9 (SIGKILL)'") for n in (2, 3)]
    found = kills([limit, *dead])

    assert [(kill.pid, kill.cause) for kill in found] == [(3, "unknown"), (2, "time-limit")]


def test_a_lost_worker_is_told_later_as_proof() -> None:
    dead = celery(1, "Process 'ForkPoolWorker-1' pid:5 exited with 'signal 9 (SIGKILL)'")
    lost = celery(11, "Task handler raised error: WorkerLostError('Worker exited prematurely: exitcode 0 Job: 0.')")

    assert len(one([dead, lost]).evidence) == 2


def test_postgres_says_which_child_was_killed() -> None:
    line = said(
        1,
        "2026-11-23 20:00:00 UTC [364] LOG:  server process (PID 290) was terminated by signal 9: Killed",
        "postgresql@15-main.service",
    )

    assert verdict(one([line])) == (290, "postgresql@15-main.service", "unknown", "guess")


def test_a_stop_that_took_too_long_names_each_process() -> None:
    lines = [
        systemd(1, "site.service: State 'stop-sigterm' timed out. Killing."),
        systemd(1.1, "site.service: Killing process 5 (gunicorn) with signal SIGKILL."),
        systemd(1.2, "site.service: Killing process 6 (gunicorn) with signal SIGKILL."),
        systemd(1.3, "site.service: Main process exited, code=killed, status=9/KILL"),
        systemd(1.4, "site.service: Failed with result 'timeout'."),
    ]
    units = Units((unit("site.service", "x", 5, stop_timeout_s=90.0),))
    found = kills(lines, units=units)

    assert [(kill.pid, kill.cause, kill.confidence, kill.unit) for kill in found] == [
        (6, "stop-timeout", "certain", "site.service"),
        (5, "stop-timeout", "certain", "site.service"),
    ]
    assert "after {limit}" in found[0].advice.msgid
    # A name that starts with a bracket is not logged.
    assert verdict(one([lines[0], lines[3]])) == (None, "site.service", "stop-timeout", "certain")


def test_a_main_process_killed_by_somebody_is_unknown() -> None:
    kill = one(
        [
            systemd(1, "site.service: Main process exited, code=killed, status=9/KILL"),
            systemd(1.1, "site.service: Failed with result 'signal'."),
        ]
    )

    assert verdict(kill) == (None, "site.service", "unknown", "guess")
    assert kill.name == "site"


def test_systemd_knows_of_a_kill_whose_kernel_line_is_lost() -> None:
    line = systemd(1, "site.service: A process of this unit has been killed by the OOM killer.")

    assert verdict(one([line])) == (None, "site.service", "kernel-oom", "likely")
    limited = Units((unit("site.service", "x", 5, memory_max_bytes=512 * MIB),))
    kill = one([line], units=limited, machine_boot_id=BOOT)
    assert verdict(kill) == (None, "site.service", "cgroup-limit", "likely")
    assert kill.limit_bytes == 512 * MIB
    # gunicorn knows the pid
    assert verdict(one([line, gunicorn(1.5, sigkill(5))])) == (5, "site.service", "kernel-oom", "likely")
    assert verdict(one([gunicorn(0.5, sigkill(5)), line])) == (5, "site.service", "kernel-oom", "likely")


def test_a_kernel_line_without_a_group_gets_the_unit_that_systemd_names() -> None:
    victim = dump(10, 5)[3]
    line = systemd(10.5, "site.service: A process of this unit has been killed by the OOM killer.")

    assert verdict(one([victim, line])) == (5, "site.service", "cgroup-limit", "certain")
    assert verdict(one([line, victim])) == (5, "site.service", "cgroup-limit", "certain")


def test_oomd_ends_a_group_and_is_told_once() -> None:
    lines = [
        said(
            1,
            "Killed /system.slice/site.service due to memory used (9) / total (10) and swap used (9) / total (9) being more than 90.00%",
            "systemd-oomd.service",
        ),
        systemd(1.1, "site.service: systemd-oomd killed 4 process(es) in this unit."),
        systemd(1.2, "site.service: Main process exited, code=killed, status=9/KILL"),
        systemd(1.3, "site.service: Failed with result 'oom-kill'."),
    ]
    kill = one(lines)

    assert verdict(kill) == (None, "site.service", "systemd-oomd", "certain")
    assert len(kill.evidence) == 4
    assert verdict(one(lines[1:]))[2] == "systemd-oomd"
    assert verdict(one([lines[1], lines[0]]))[2] == "systemd-oomd"


def test_earlyoom_asks_first_and_then_kills() -> None:
    lines = [
        earlyoom(1, "low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%"),
        earlyoom(
            1.1,
            'sending SIGTERM to process 5 uid 33 "gunicorn": oom_score 800, oom_score_adj 0, VmRSS 512 MiB, cmdline "g --key hunter2"',
        ),
    ]
    kill = one(lines)
    assert (*verdict(kill), kill.signal, kill.rss_bytes, kill.uid) == (5, None, "userspace-oom", "certain", 15, 512 * MIB, 33)
    assert not any("hunter2" in line for line in kill.evidence)

    escalated = one([*lines, earlyoom(1.6, "escalating to SIGKILL after 0.5 seconds")])
    assert (escalated.signal, len(escalated.evidence)) == (9, 3)

    ended = systemd(2, "site.service: Main process exited, code=killed, status=15/TERM")
    assert one([*lines, ended]).unit == "site.service"

    living = Processes((process(5, "gunicorn", name="gunicorn", cgroup=SITE),), BOOT)
    assert one(lines, processes=living).unit == "site.service"
    assert one(lines, processes=living, machine_boot_id="c" * 32).unit is None


def test_secrets_in_proof_are_redacted() -> None:
    line = celery(1, "Process 'W' pid:5 exited with 'signal 9 (SIGKILL)'")
    kill = one([line, celery(2, "WorkerLostError('Worker exited prematurely: signal 9') redis://:hunter2@db/0")])

    assert "hunter2" not in "".join(kill.evidence)


# Where a process was: the group, a unit of the host (its group, whether delegated), the answer.
PLACES: tuple[tuple[str, tuple[str, str, bool] | None, str | None], ...] = (
    (SITE, None, "site.service"),
    (SITE, ("site.service", SITE, False), "site.service"),
    (f"{SITE}/sub", ("site.service", SITE, False), "site.service"),
    (SITE, ("site.service", "", False), "site.service"),
    ("/system.slice/system-hog.slice/hog@0.service", None, "hog@0.service"),
    ("/celery.slice/celery.service", None, "celery.service"),
    ("/system.slice/docker.service/x/y.service", ("docker.service", "/system.slice/docker.service", True), None),
    ("/system.slice/docker.service/x", ("docker.service", "", True), None),
    ("/system.slice/docker-0123.scope", None, None),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/site.service", None, None),
    ("/machine.slice/a.service", None, None),
    ("/docker/0123/site.service", None, None),
    ("/", None, None),
    ("", None, None),
)


@pytest.mark.parametrize(("cgroup", "known", "expected"), PLACES)
def test_a_group_belongs_to_the_unit_that_systemd_made_it_for(
    cgroup: str, known: tuple[str, str, bool] | None, expected: str | None
) -> None:
    units = Units((unit(known[0], "x", control_group=known[1], delegate=known[2]),)) if known else None
    kill = one(dump(10, 5, cgroup=cgroup), units=units)

    assert kill.unit == expected
    if known is None:
        assert unit_of_path(cgroup) == expected


def test_a_units_own_limit_stands_in_for_a_lost_line() -> None:
    summary, victim = dump(10, 5)[2:]
    units = Units((unit("site.service", "x", 5, memory_max_bytes=600 * MIB),))

    assert one([summary, victim], units=units, machine_boot_id=BOOT).limit_bytes == 600 * MIB
    assert one([summary, victim], units=units, machine_boot_id="c" * 32).limit_bytes is None


@given(
    st.lists(st.sampled_from(["summary", "victim", "told"]), min_size=1, max_size=3, unique=True),
    st.integers(2, 30),
    st.randoms(use_true_random=False),
)
def test_interleaved_kills_stay_apart(shapes: list[str], count: int, chance: random.Random) -> None:
    entries: list[Entry] = []
    for n in range(count):
        at_s, pid = 10 + n / 7, 1000 + n
        summary, victim = dump(at_s, pid, name=f"a) b,pid={n}"[:15])[2:]
        told = gunicorn(at_s + 0.5, sigkill(pid))
        entries += [{"summary": summary, "victim": victim, "told": told}[shape] for shape in shapes]
    chance.shuffle(entries)

    assert sorted(kill.pid or 0 for kill in kills(entries)) == [1000 + n for n in range(count)]


_ENTRY = st.builds(
    entry,
    st.floats(0, 100),
    st.one_of(
        st.text(max_size=120),
        st.binary(max_size=120).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
        st.sampled_from([line.message for line in (*FORGED, *dump(1, 5))]),
    ),
    transport=st.sampled_from(["kernel", "stdout", "journal", "syslog", ""]),
    facility=st.sampled_from([0, 1, 3, None]),
    pid=st.sampled_from([1, 364, None]),
    system_unit=st.sampled_from(["site.service", "init.scope", "earlyoom.service", "systemd-oomd.service", ""]),
)


@given(st.lists(_ENTRY, max_size=25))
def test_any_journal_gets_an_answer(entries: list[Entry]) -> None:
    found = kills(entries)

    assert list(found) == sorted(found, key=lambda kill: (kill.at, kill.monotonic_us), reverse=True)
    often = Counter((kill.pid, kill.unit) for kill in found)
    again = [kill for kill in found if kill.pid is not None and often[kill.pid, kill.unit] > 1]
    assert all(re.search(f"Killed process {kill.pid} |,pid={kill.pid},", " ".join(kill.evidence)) for kill in again), (
        "by the kernel"
    )


def test_a_stream_tells_what_each_entry_changed() -> None:
    autopsy = Autopsy(first_writers=FIRST_WRITERS)
    told = [
        autopsy.take(line)
        for line in [*dump(10, 415), gunicorn(11, sigkill(415)), systemd(12, "site.service: Failed with result 'oom-kill'.")]
    ]

    assert [len(kills_) for kills_ in told] == [0, 0, 0, 1, 1, 1]
    assert not told[-1][0].final
    assert told[-1][0].stopped_unit
    assert autopsy.settle(START) == ()
    assert [kill.final for kill in autopsy.settle(START + timedelta(minutes=1))] == [True]
    assert autopsy.settle() == ()


def test_a_stream_forgets() -> None:
    autopsy = Autopsy(first_writers=FIRST_WRITERS)
    for line in [*dump(10, 415), gunicorn(11, "WORKER TIMEOUT (pid:9)"), *dump(500, 416)]:
        autopsy.take(line)
    autopsy.forget(START + timedelta(seconds=100))

    assert [kill.pid for kill in autopsy.kills] == [416]
    autopsy.forget(START + timedelta(seconds=1000))
    assert autopsy.kills == ()
    assert autopsy.take(gunicorn(1001, sigkill(416))) == ()
    assert [claim.pid for claim in autopsy.claims] == [416]


def test_a_long_journal_is_read_in_time() -> None:
    lines = [line for n in range(1500) for line in (*dump(n, 10_000 + n), gunicorn(n + 0.5, sigkill(10_000 + n)))]

    assert len(kills(lines)) == 1500


def after_a_reboot(main_pid: int, boot_id: str) -> tuple[Units, Processes]:
    site = unit("site.service", "/usr/bin/gunicorn app.wsgi", main_pid, memory_max_bytes=512 * MIB)
    worker = process(415, "gunicorn: worker", name="gunicorn", cgroup=SITE)
    return Units((site,)), Processes((process(main_pid, "gunicorn", cgroup=SITE), worker), boot_id)


def test_who_watches_over_a_reboot_knows_the_new_boot() -> None:
    made = Autopsy(None, *after_a_reboot(300, "a" * 32))
    made.learn(*after_a_reboot(364, BOOT))
    oom = systemd(100, "site.service: A process of this unit has been killed by the OOM killer.")
    bare = kernel(200, f"Out of memory: Killed process 415 (gunicorn) {RSS}")

    (counted,) = made.take(oom)
    assert (counted.cause, counted.limit_bytes) == ("cgroup-limit", 512 * MIB)
    (kill,) = made.take(bare)
    assert (kill.pid, kill.unit) == (415, "site.service")
    old = made.take(replace(bare, boot_id="a" * 32))
    assert [kill.unit for kill in old] == [None], "of the boot before nothing is known now"


def test_the_boot_that_was_given_stays() -> None:
    made = Autopsy(BOOT, *after_a_reboot(300, BOOT))
    made.learn(*after_a_reboot(364, "a" * 32))

    (kill,) = made.take(kernel(200, f"Out of memory: Killed process 415 (gunicorn) {RSS}"))
    assert kill.unit == "site.service"
