"""The streams' scripts, run: over files that grow under the stand-in journalctl, and under the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from remote.facts.journal import Entry, Speaker, programs_watch, system_watch
from remote.services import tellings
from tests.remote.facts.recorded import SHELLS
from tests.remote.facts.watched import BOOT, BOOT_US, KERNEL, NOW_S, OLD_BOOT, UP_S, Host, Log, Real, StandIn

pytestmark = pytest.mark.parametrize("shell", SHELLS)
S = 1_000_000
CHATTER = {"_TRANSPORT": "stdout"}
LOGS = [pytest.param(StandIn, id="stand-in"), pytest.param(Real, id="real", marks=pytest.mark.openssh)]


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    make: Callable[[Path], Log] = request.param
    return make(tmp_path)


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def oom(log: Log, pid: int, up_us: int, boot_id: str = BOOT, at_us: int | None = None, name: str = "system") -> str:
    return log.write(f"Killed process {pid} (x)", KERNEL, up_us=up_us, boot_id=boot_id, at_us=at_us, name=name)


def killed(*pids: int) -> list[str]:
    return [f"Killed process {pid} (x)" for pid in pids]


def test_from_now_on_it_says_where_it_begins(shell: tuple[str, ...], log: Log, host: Host) -> None:
    oom(log, 1, 10 * S)
    cursor = log.write("chatter", CHATTER, up_us=20 * S)
    with host.watching(shell, system_watch(None)) as watching:
        assert watching.said(1) == [f"= begin {cursor}"]
        oom(log, 2, 30 * S)
        assert watching.said(1) == killed(2)


def test_an_empty_journal_is_followed_from_its_first_entry(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    """What comes between the look for its end and the watch is not lost."""
    oom(stand_in, 1, (UP_S + 1) * S)
    path = stand_in.store.path()
    path.rename(host.folder / "kept")
    (host.folder / "bin/journalctl").rename(host.folder / "bin/whole")
    host.program("journalctl", f'case "$*" in *" -f "*) mv {host.folder}/kept {path} ;; esac\nexec {host.folder}/bin/whole "$@"')
    with host.watching(shell, system_watch(None)) as watching:
        assert watching.said(1) == killed(1)


def test_it_goes_on_behind_the_cursor(shell: tuple[str, ...], log: Log, host: Host) -> None:
    """Whether the cursor's own entry passes the filter or not (systemd#30288), and nothing is lost before it follows."""
    oom(log, 1, 10 * S)
    other = log.write("chatter", CHATTER, up_us=20 * S)
    same = oom(log, 2, 30 * S)
    oom(log, 3, 40 * S)
    for cursor, expected in ((other, killed(2, 3)), (same, killed(3))):
        with host.watching(shell, system_watch(cursor), cursor) as watching:
            assert watching.said(len(expected)) == expected


def test_only_those_who_may_kill_are_heard(shell: tuple[str, ...], log: Log, host: Host) -> None:
    begin = log.write("chatter", CHATTER, up_us=1 * S)
    tellings: list[tuple[str, dict[str, str]]] = [
        ("x invoked oom-killer: gfp_mask=0x1, order=0, oom_score_adj=0", KERNEL),
        ("memory: usage 524288kB, limit 524288kB, failcnt 10", KERNEL),
        ("Memory cgroup stats for /system.slice/web.service:", KERNEL),
        ("Tasks state (memory values in pages):", KERNEL),
        ("[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name", KERNEL),
        ("[    415]    33   415    12345     6789   123456        0             0 gunicorn", KERNEL),
        ("web.service: Main process exited, code=killed, status=9/KILL", {"_PID": "1", "_TRANSPORT": "journal"}),
        ("web.service: State 'stop-sigterm' timed out. Killing.", {"_PID": "1", "_TRANSPORT": "journal"}),
        ("Missed 12 kernel messages", {"_PID": "175", "_TRANSPORT": "driver"}),
        ("Started web.service - Web.", {"_PID": "1", "_TRANSPORT": "journal"}),
        ("Killed /system.slice/web.service due to memory pressure", {"_SYSTEMD_UNIT": "systemd-oomd.service", "_TRANSPORT": "journal"}),
        ('sending SIGTERM to process 7 uid 0 "x"', {"_SYSTEMD_UNIT": "earlyoom.service", "_TRANSPORT": "stdout"}),
        ("root : TTY=pts/0 ; COMMAND=/usr/bin/kill -9 7", {"_EXE": "/usr/bin/sudo", "_TRANSPORT": "syslog"}),
        ("SYSCALL arch=c000003e syscall=62 success=yes a0=7 a1=9", {"_TRANSPORT": "audit", "_AUDIT_TYPE": "1300"}),
        ('OBJ_PID opid=7 oauid=-1 ocomm="x"', {"_TRANSPORT": "audit", "_AUDIT_TYPE": "1318"}),
        ('time=now level=info msg="TaskOOM event"', {"_SYSTEMD_UNIT": "containerd.service", "_TRANSPORT": "stdout"}),
    ]  # fmt: skip
    for number, (message, fields) in enumerate(tellings):
        log.write(f"[{number}.5] IN=eth0 OUT= MAC=00 SRC=10.0.0.1 LEN=40", KERNEL, up_us=(2 + number) * S)
        log.write(f"Killed process {number} (forged)", {"_TRANSPORT": "syslog", "_PID": "77"}, up_us=(2 + number) * S + 1)
        log.write("SYSCALL arch=c000003e syscall=59 ", {"_TRANSPORT": "audit", "_AUDIT_TYPE": "1300"}, up_us=(2 + number) * S + 2)
        log.write("root : COMMAND=/usr/bin/ls", {"_EXE": "/usr/bin/sudo", "_TRANSPORT": "syslog"}, up_us=(2 + number) * S + 3)
        log.write("TaskOOM", {"_SYSTEMD_UNIT": "docker.service", "_TRANSPORT": "journal"}, up_us=(2 + number) * S + 4)
        log.write(message, fields, up_us=(2 + number) * S + 5)
    with host.watching(shell, system_watch(begin), begin) as watching:
        assert watching.said(len(tellings)) == [message for message, _ in tellings]


def test_a_vacuumed_cursor_is_lost_and_a_minute_before_is_read(shell: tuple[str, ...], log: Log, host: Host) -> None:
    cursor = oom(log, 1, 1000 * S, name="old")
    oom(log, 2, 900 * S)
    oom(log, 3, 950 * S)
    oom(log, 4, 1100 * S)
    log.remove("old")
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(3) == ["= lost gone", *killed(3, 4)]
        oom(log, 5, 1200 * S)
        assert watching.said(1) == killed(5)


def test_another_machines_cursor_is_lost(shell: tuple[str, ...], log: Log, host: Host) -> None:
    oom(log, 1, 1000 * S)
    foreign = f"s={'ab' * 16};i=1;b={'cd' * 16};m=1;t={BOOT_US + 990 * S:x};x=1"
    with host.watching(shell, system_watch(foreign), foreign) as watching:
        assert watching.said(2) == ["= lost gone", *killed(1)]


def test_after_the_clock_was_set_back_the_kernels_own_clock_counts(shell: tuple[str, ...], log: Log, host: Host) -> None:
    """An hour: what came since then is dated before the cursor, and lies in a file of another sequence."""
    hour = 3600 * S
    cursor = oom(log, 1, 3000 * S, at_us=BOOT_US + 3000 * S + hour, name="before")
    oom(log, 2, 3010 * S, at_us=BOOT_US + 3010 * S + hour, name="before")
    oom(log, 3, 3100 * S)
    oom(log, 4, 3900 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert sorted(watching.said(4)) == sorted(["= lost future", *killed(2, 3, 4)])
        oom(log, 5, 4000 * S)
        assert watching.said(1) == killed(5)


def test_a_future_cursor_of_another_boot_starts_with_this_one(shell: tuple[str, ...], log: Log, host: Host) -> None:
    cursor = oom(log, 1, 9000 * S, boot_id=OLD_BOOT, at_us=(NOW_S + 86400) * S, name="old")
    oom(log, 2, 10 * S)
    log.remove("old")
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(2) == ["= lost future", *killed(2)]


def test_after_a_reboot_the_old_boot_is_read_to_its_end_and_the_new_from_its_start(
    shell: tuple[str, ...], log: Log, host: Host
) -> None:
    """A machine without a clock of its own dates the first entries of a boot before the last of the boot before."""
    cursor = oom(log, 1, 9000 * S, boot_id=OLD_BOOT, at_us=BOOT_US - 100 * S, name="old")
    oom(log, 2, 9010 * S, boot_id=OLD_BOOT, at_us=BOOT_US - 90 * S, name="old")
    oom(log, 3, 5 * S, at_us=BOOT_US - 5000 * S)
    oom(log, 4, 50 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert sorted(watching.said(3)) == killed(2, 3, 4)
        oom(log, 5, 60 * S)
        assert watching.said(1) == killed(5)


@pytest.mark.parametrize("times", [1, 9])
def test_what_cannot_be_read_of_the_old_boot_is_tried_again_and_said(
    shell: tuple[str, ...], stand_in: StandIn, host: Host, times: int
) -> None:
    """A journalctl that dies while it catches up: as a rotation has it, once; at a broken entry, each time."""
    cursor = oom(stand_in, 1, 9000 * S, boot_id=OLD_BOOT, at_us=BOOT_US - 100 * S)
    oom(stand_in, 2, 9010 * S, boot_id=OLD_BOOT, at_us=BOOT_US - 90 * S)
    oom(stand_in, 3, 10 * S)
    (host.folder / "bin/journalctl").rename(host.folder / "bin/whole")
    host.program(
        "journalctl",
        f"""case " $* " in *" -f "*|*" -n "*) ;; *--cursor*)
          echo x >>{host.folder}/tries
          if [ $(wc -l <{host.folder}/tries) -le {times} ]; then
            echo 'Failed to iterate through journal: Bad message' >&2; exit 1
          fi ;;
        esac
        exec {host.folder}/bin/whole "$@\"""",
    )
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(2) == (killed(2, 3) if times == 1 else ["= lost unreadable", *killed(3)])


def test_it_lives_through_rotation_vacuum_and_a_crash_of_journald(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    cursor = oom(stand_in, 1, 10 * S)
    changes: list[Callable[[], object]] = [stand_in.store.rotate, stand_in.store.vacuum, stand_in.store.crash]
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        for number, change in enumerate(changes, start=2):
            change()
            oom(stand_in, number, number * 10 * S)
            assert watching.said(1) == killed(number)


def test_when_journalctl_dies_it_goes_on_where_it_was(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    cursor = oom(stand_in, 1, 10 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        oom(stand_in, 2, 20 * S)
        assert watching.said(1) == killed(2)
        stand_in.store.die()
        oom(stand_in, 3, 30 * S)
        assert watching.said(1) == killed(3)


def test_a_journalctl_that_dies_late_ends_the_stream(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    cursor = oom(stand_in, 1, 10 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        oom(stand_in, 2, 20 * S)
        assert watching.said(1) == killed(2)
        host.clock(NOW_S + 60)
        stand_in.store.die()
        assert watching.rest() == ["= cut"]


def test_a_broken_entry_is_passed_over(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    """A journalctl that dies at the same place again and again would never come to what is behind it."""
    cursor = oom(stand_in, 1, 10 * S)
    oom(stand_in, 2, (UP_S + 1) * S)
    (host.folder / "bin/journalctl").rename(host.folder / "bin/whole")
    host.program("journalctl", f'case "$*" in *" -f "*--cursor*) exit 1 ;; esac\nexec {host.folder}/bin/whole "$@"')
    host.program("sleep", "exit 0")
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(2) == ["= lost unreadable", *killed(2)]


@pytest.mark.parametrize("version", ["219 -PCRE2", "241 -PCRE2", "245 +PCRE2"])
def test_older_journals_are_narrowed_too(shell: tuple[str, ...], stand_in: StandIn, host: Host, version: str) -> None:
    (stand_in.store.folder / "version").write_text(f"systemd {version.replace(' ', chr(10))}\n")
    cursor = stand_in.write("chatter", {"_TRANSPORT": "kernel"}, up_us=S)
    stand_in.write("IN=eth0 OUT= MAC=00", KERNEL, up_us=2 * S)
    stand_in.write([27, 91, 51, 49, 109, *b"Killed process 1 (x)"], KERNEL, up_us=3 * S)
    oom(stand_in, 2, 4 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(2) == ["\x1b[31mKilled process 1 (x)", *killed(2)]


def test_a_volatile_journal_says_so(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    cursor = oom(stand_in, 1, 10 * S)
    (host.folder / "run/log/journal/m").mkdir(parents=True)
    (host.folder / "run/log/journal/m/system.journal").touch()
    oom(stand_in, 2, 20 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(2) == ["= volatile", *killed(2)]


WEB, WORKER = Speaker("web.service", 10), Speaker(r"w@a\x2db.service", 20)


def test_only_main_processes_are_heard_of_programs(shell: tuple[str, ...], log: Log, host: Host) -> None:
    begin = log.write("chatter", CHATTER, up_us=1 * S)
    for number, speaker in enumerate((WEB, WORKER), start=1):
        base = {"_SYSTEMD_UNIT": speaker.unit, "_TRANSPORT": "stdout"}
        log.write("GET /?WORKER TIMEOUT (pid:1)", {"_PID": "99", **base}, up_us=10 * number * S)
        log.write("nothing to tell", {"_PID": str(speaker.pid), **base}, up_us=10 * number * S + 1)
        log.write(f"WORKER TIMEOUT (pid:{number})", {"_PID": str(speaker.pid), **base}, up_us=10 * number * S + 2)
        log.write(
            "WORKER TIMEOUT (pid:3)", {"_PID": str(speaker.pid), "_SYSTEMD_UNIT": "other.service"}, up_us=10 * number * S + 3
        )
    oom(log, 4, 40 * S)
    with host.watching(shell, programs_watch(begin, (WEB, WORKER), tellings()), begin) as watching:
        assert watching.said(2) == ["WORKER TIMEOUT (pid:1)", "WORKER TIMEOUT (pid:2)"]
        log.write("WORKER TIMEOUT (pid:5)", {"_PID": "10", "_SYSTEMD_UNIT": "web.service"}, up_us=50 * S)
        assert watching.said(1) == ["WORKER TIMEOUT (pid:5)"]


def test_a_caller_says_what_tells(shell: tuple[str, ...], log: Log, host: Host) -> None:
    begin = log.write("chatter", CHATTER, up_us=1 * S)
    fields = {"_PID": "10", "_SYSTEMD_UNIT": "web.service"}
    log.write("WORKER TIMEOUT (pid:1)", fields, up_us=2 * S)
    log.write("ends (badly) 1", fields, up_us=3 * S)
    with host.watching(shell, programs_watch(begin, (WEB,), ["ends [(]badly[)] [0-9]", "other"]), begin) as watching:
        assert watching.said(1) == ["ends (badly) 1"]


def test_a_unit_with_a_journal_of_its_own_is_heard(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    begin = stand_in.write("chatter", CHATTER, up_us=1 * S)
    fields = {"_PID": "10", "_SYSTEMD_UNIT": "web.service"}
    stand_in.store.write("WORKER TIMEOUT (pid:1)", at_us=BOOT_US + 2 * S, monotonic_us=2 * S, namespace="web", fields=fields)
    with host.watching(shell, programs_watch(begin, (WEB,), tellings()), begin) as watching:
        assert watching.said(1) == ["WORKER TIMEOUT (pid:1)"]
        stand_in.store.write("WORKER TIMEOUT (pid:2)", at_us=BOOT_US + 3 * S, monotonic_us=3 * S, namespace="web", fields=fields)
        assert watching.said(1) == ["WORKER TIMEOUT (pid:2)"]


def test_without_speakers_it_tells_where_to_begin_and_waits(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    cursor = stand_in.write("chatter", CHATTER, up_us=1 * S)
    with host.watching(shell, programs_watch(None, (), tellings())) as watching:
        assert watching.said(1) == [f"= begin {cursor}"]
        assert watching.running


def test_without_speakers_nobody_is_heard_after_a_reboot_either(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    fields = {"_PID": "10", "_SYSTEMD_UNIT": "web.service"}
    cursor = stand_in.write("WORKER TIMEOUT (pid:1)", fields, up_us=1 * S, boot_id=OLD_BOOT, at_us=BOOT_US - 10 * S)
    stand_in.write("WORKER TIMEOUT (pid:2)", fields, up_us=2 * S)
    host.program("sleep", "echo '= waits'; exec /bin/sleep 60")
    script = programs_watch(cursor, (), tellings()).replace("sleep 3600", f"{host.folder}/bin/sleep 3600")
    with host.watching(shell, script, cursor) as watching:
        assert watching.running
        assert watching.line() == b"= waits"


def test_programs_cannot_be_heard_without_a_journal(shell: tuple[str, ...], host: Host) -> None:
    host.program("journalctl", "echo 'No journal files were found.' >&2")
    with host.watching(shell, programs_watch(None, (WEB,), tellings())) as watching:
        assert watching.rest() == ["= none missing the journal"]


def test_ones_own_programs_are_heard_without_rights(shell: tuple[str, ...], stand_in: StandIn, host: Host) -> None:
    (stand_in.store.folder / "hint").write_text("Hint: You are currently not seeing messages from other users and the system.\n")
    cursor = stand_in.write("WORKER TIMEOUT (pid:1)", {"_PID": "10", "_SYSTEMD_UNIT": "web.service"}, up_us=2 * S)
    stand_in.write("WORKER TIMEOUT (pid:2)", {"_PID": "10", "_SYSTEMD_UNIT": "web.service"}, up_us=3 * S)
    with host.watching(shell, programs_watch(cursor, (WEB,), tellings()), cursor) as watching:
        assert watching.said(2) == ["= own", "WORKER TIMEOUT (pid:2)"]


def test_entries_come_with_what_makes_them_trustworthy(shell: tuple[str, ...], log: Log, host: Host) -> None:
    cursor = log.write("chatter", CHATTER, up_us=1 * S)
    oom(log, 1, 2 * S)
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        entry = watching.next()
    assert isinstance(entry, Entry)
    assert entry.from_kernel
    assert (entry.boot_id, entry.monotonic_us, entry.source) == (BOOT, 2 * S, "journal")
    assert entry.at.tzinfo is not None
