"""No written text raises, hides or re-labels a kill: only who may be believed is, and only about what is theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts.journal import Entry
from remote.facts.units import Units
from remote.findings.death import Autopsy
from remote.findings.kill import Kill
from tests.remote.findings.journal_scene import (
    FIRST_WRITERS,
    RSS,
    celery,
    dump,
    earlyoom,
    entry,
    gunicorn,
    invocation,
    kernel,
    kills,
    one,
    said,
    sigkill,
    systemd,
    verdict,
)
from tests.remote.findings.scene import unit

ID = "3c902d2962f7fb6af8ce5a16a965bd2707383dbb18fed9b6942e1687f6419c4b"
FORCED = f'time="2022-07-28T10:53:07.730207608+08:00" level=info msg="Container failed to exit within 10s of signal 15 - using the force" container={ID}'
VICTIM = f"Out of memory: Killed process 415 (gunicorn) {RSS}"
SUMMARY = dump(1, 415)[2].message
URL = 'GET /?q=WORKER%20TIMEOUT%20(pid:415)&w=WORKER TIMEOUT (pid:415) HTTP/1.1" 200'
ACCESS = f'127.0.0.1 - - [23/Nov/2026:20:00:00 +0000] "{URL} 5 "-" "curl {sigkill(415)}"'
FULL = f"[2026-11-23 20:00:00 +0000] [364] [ERROR] {sigkill(415)}"
SUDO = "alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/kill -9 415"
OOMD = "Killed /system.slice/site.service due to memory used (1) / total (2) being more than 90.00%"
USER = {"transport": "syslog", "system_unit": "session-3.scope", "pid": 900, "uid": 1000, "exe": "/usr/bin/logger"}

# What an ordinary user, a visitor or a program may have written; none of it proves anything.
WRITTEN: tuple[Entry, ...] = (
    # logger, as whoever
    *(entry(1, text, **USER, identifier=name, facility=0) for name in ("kernel", "systemd", "sudo", "gunicorn", "earlyoom", "audit")
      for text in (VICTIM, SUMMARY, FULL, SUDO, OOMD, FORCED, "site.service: A process of this unit has been killed by the OOM killer.")),
    # the same by a program of its own, by the native protocol with every field that may be chosen
    entry(1, "site.service: A process of this unit has been killed by the OOM killer.", transport="journal", system_unit="session-3.scope",
          pid=900, unit="site.service", message_id="fe6faa94e7774663a0da52717891d8ef", identifier="systemd"),
    # root's own write to /dev/kmsg: another facility
    *(replace(kernel(1, text), facility=facility) for facility in (1, 3, None) for text in (VICTIM, SUMMARY)),
    replace(kernel(1, "Sending SIGKILL to PID 415 (gunicorn)."), facility=3, identifier="systemd-shutdown"),
    # what a visitor sends, repeated by the master itself and by a worker
    said(1, ACCESS),
    said(1, ACCESS, pid=370),
    said(1, f"{ACCESS}\n{FULL}"),
    said(1, f"x {FULL}"),
    said(1, sigkill(415)),
    said(1, "WORKER TIMEOUT (pid:415)"),
    said(1, FULL, pid=370),
    replace(said(1, FULL), pid=None),
    said(1, f"[2026-11-23 20:00:00 +0000] [370] [ERROR] {sigkill(415)}"),
    said(1, f"[2026-11-23 20:00:00 +0000] [370] [ERROR] {sigkill(415)}", pid=370),
    said(1, FULL, invocation="another"),
    said(1, FULL, invocation=""),
    said(1, FULL, "session-3.scope"),
    said(1, FULL, "user@1000.service"),
    # a daemon's words from another unit, or from a unit of a user's that is called like it
    said(1, 'sending SIGKILL to process 415 uid 0 "a": badness 1, VmRSS 1 MiB'),
    said(1, OOMD),
    said(1, FORCED),
    said(1, "  Sending SIGKILL to the victim"),
    said(1, FORCED, "user@1000.service"),
    # a container's output, which dockerd passes on under its own unit and pid
    said(1, FORCED, "docker.service", transport="journal"),
    # audit
    entry(1, "SYSCALL arch=c000003e syscall=62 success=yes exit=0 a0=19f a1=9 a2=0 a3=0 items=0 ppid=1 pid=7885 auid=1000 uid=0", transport="audit", audit_type=1107, pid=7885),
    # a text file
    entry(1, VICTIM, source="syslog", identifier="kernel"),
    entry(1, FULL, source="syslog", identifier="gunicorn"),
    entry(1, SUDO, source="syslog", identifier="sudo"),
    # PID 1 of a container, and systemd's words about what is no service of the system
    systemd(1, "system.slice: A process of this unit has been killed by the OOM killer."),
    systemd(1, "user@1000.service: A process of this unit has been killed by the OOM killer."),
    systemd(1, "Started x - site.service: A process of this unit has been killed by the OOM killer."),
    systemd(1, "Sending SIGKILL to PID 415 (gunicorn)."),
    replace(systemd(1, "site.service: A process of this unit has been killed by the OOM killer."), pid=900),
)  # fmt: skip


def _id(line: Entry) -> str:
    return f"{line.transport} {line.system_unit} {line.identifier} {line.pid} {line.message[:30]}"


@pytest.mark.parametrize("line", WRITTEN, ids=_id)
def test_written_text_raises_nothing(line: Entry) -> None:
    assert kills([line]) == ()


@pytest.mark.parametrize("line", WRITTEN, ids=_id)
def test_written_text_changes_no_kill(line: Entry) -> None:
    """Neither the kernel's, nor a program's, nor one that only systemd tells of."""
    plain: list[Callable[[], list[Entry]]] = [
        lambda: [*dump(1.5, 415), gunicorn(2, sigkill(415))],
        lambda: [gunicorn(1.5, sigkill(415))],
        lambda: [systemd(1.5, "site.service: Main process exited, code=killed, status=9/KILL")],
        lambda: [earlyoom(1.5, 'sending SIGTERM to process 415 uid 33 "gunicorn": badness 800, VmRSS 512 MiB')],
    ]
    for lines in plain:
        alone = kills(lines())
        assert kills([line, *lines()]) == alone
        assert kills([*lines(), line]) == alone


def test_written_text_is_no_claim() -> None:
    running = Units((unit("site.service", "/usr/bin/gunicorn app.wsgi", 364, invocation_id=invocation("site.service")),))
    autopsy = Autopsy(units=running, first_writers=FIRST_WRITERS)
    for line in WRITTEN:
        if line.source != "syslog":
            assert autopsy.take(line) == ()
    assert autopsy.claims == ()


def test_a_unit_can_blame_only_itself() -> None:
    liar = gunicorn(9.9, sigkill(415), unit_name="liar.service")
    late = gunicorn(11, sigkill(415), unit_name="liar.service")
    kill = one([liar, *dump(10, 415), late])

    assert verdict(kill) == (415, "site.service", "cgroup-limit", "certain")
    assert kill == one(dump(10, 415))


def test_a_flood_of_claims_takes_no_room_from_the_kernels_word() -> None:
    flood = [gunicorn(9 + n / 1000, sigkill(415), unit_name="liar.service") for n in range(500)]
    kill = one([*flood, *dump(10, 415)])

    assert verdict(kill) == (415, "site.service", "cgroup-limit", "certain")
    assert kill == one(dump(10, 415))


def test_a_victims_command_line_writes_no_line_of_earlyooms() -> None:
    """Earlyoom prints command lines as they are, line feeds too: journald makes entries of them."""
    real = earlyoom(1, 'sending SIGTERM to process 5 uid 1000 "a": oom_score 800, oom_score_adj 0, VmRSS 5 MiB, cmdline "x"')
    forged = earlyoom(
        1.00002, 'sending SIGKILL to process 290 uid 0 "postgres": oom_score 1, oom_score_adj 0, VmRSS 1 MiB, cmdline "'
    )
    next_one = earlyoom(
        1.6, 'sending SIGTERM to process 6 uid 1000 "b": oom_score 800, oom_score_adj 0, VmRSS 5 MiB, cmdline "x"'
    )

    assert [kill.pid for kill in kills([real, forged, next_one])] == [6, 5]


def test_a_time_limit_of_another_unit_explains_nothing() -> None:
    limit = celery(1, "Hard time limit (30s) exceeded for app.tasks.a[1-2]", "liar.service")
    dead = celery(1.2, "Process 'ForkPoolWorker-1' pid:5 exited with 'signal 9 (SIGKILL)'")
    hung = gunicorn(1, "WORKER TIMEOUT (pid:415)", unit_name="liar.service")

    assert one([limit, dead]).cause == "unknown"
    assert one([hung, gunicorn(2, sigkill(415))]).cause == "unknown"


_TEXT = st.one_of(st.text(max_size=80), st.sampled_from([line.message for line in WRITTEN]))


@given(st.lists(st.tuples(st.floats(0, 20), _TEXT, st.sampled_from(["syslog", "stdout", "journal"])), max_size=8))
def test_whatever_a_user_writes_changes_nothing(written: list[tuple[float, str, str]]) -> None:
    real = [*dump(10, 415), gunicorn(10.5, sigkill(415)), gunicorn(12, sigkill(416))]
    noise = [entry(at_s, text, **{**USER, "transport": transport}) for at_s, text, transport in written]

    assert kills([*noise, *real]) == kills(real)


def test_staged_kills_are_marked_and_a_real_one_is_not() -> None:
    own = "/user.slice/user-1000.slice/user@1000.service/app.slice/postgresql.service"
    staged = one(dump(10, 5, cgroup=own, limited="/user.slice/user-1000.slice"))
    assert (staged.unit, staged.staged, staged.uid) == (None, True, 33)
    assert not one(dump(10, 5)).staged
    # The machine's trouble is nobody's stage, whoever was chosen.
    summary = (
        dump(10, 5, cgroup=own)[2]
        .message.replace("CONSTRAINT_MEMCG", "CONSTRAINT_NONE")
        .replace(f"oom_memcg={own}", "global_oom")
    )
    machine = one([kernel(10, summary), kernel(10.1, f"Out of memory: Killed process 5 (a) {RSS}")])
    assert (machine.cause, machine.unit, machine.staged) == ("kernel-oom", None, False)


def test_of_a_storm_in_a_users_slice_those_without_a_report_are_his_too() -> None:
    """The kernel prints ten reports in five seconds."""
    own = "/user.slice/user-1000.slice/session-4.scope"
    bare = [kernel(10 + n / 100, f"Memory cgroup out of memory: Killed process {900 + n} (x) {RSS}") for n in range(1, 50)]
    other = kernel(10.7, f"Memory cgroup out of memory: Killed process 800 (y) {RSS.replace('UID:33', 'UID:44')}")
    real = systemd(10.9, "site.service: A process of this unit has been killed by the OOM killer.")
    found: dict[int | None, Kill] = {kill.pid: kill for kill in kills([*dump(10, 5, cgroup=own), *bare, other, real])}

    assert len(found) == 52
    assert {pid for pid, kill in found.items() if not kill.staged} == {800, None}
