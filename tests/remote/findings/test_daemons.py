"""Every shape of systemd's, the OOM daemons' and the container runtimes' lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.findings.daemons import (
    ContainerKill,
    DaemonKill,
    UnitSaid,
    container_line,
    earlyoom_line,
    earlyoom_looks,
    nohang_heading,
    nohang_signal,
    nohang_target,
    oomd_line,
    systemd_line,
    without_command,
)
from tests.remote.services.programs import lines

SYSTEMD: tuple[tuple[str, UnitSaid | None], ...] = (
    ("a.service: A process of this unit has been killed by the OOM killer.", UnitSaid("oom", "a.service")),
    ("w@1.service: systemd-oomd killed 1 process(es) in this unit.", UnitSaid("oomd", "w@1.service")),
    ("a.service: systemd-oomd killed some process(es) in this unit.", UnitSaid("oomd", "a.service")),
    ("a.service: Main process exited, code=killed, status=9/KILL", UnitSaid("main", "a.service", signal=9)),
    ("a.service: Main process exited, code=dumped, status=6/ABRT", UnitSaid("main", "a.service", signal=6)),
    ("a.service: Main process exited, code=exited, status=1/FAILURE", None),
    ("a.service: Failed with result 'oom-kill'.", UnitSaid("failed", "a.service", result="oom-kill")),
    ("a.service: State 'stop-sigterm' timed out. Killing.", UnitSaid("timeout", "a.service")),
    ("a.service: Stopping timed out. Killing.", UnitSaid("timeout", "a.service")),
    ("a.service: State 'stop-sigterm' timed out. Skipping SIGKILL.", None),
    ("a.service: State 'stop-watchdog' timed out. Killing.", UnitSaid("watchdog", "a.service")),
    ("a.service: State 'final-sigterm' timed out. Killing.", UnitSaid("timeout", "a.service")),
    ("a.service: start operation timed out. Terminating.", UnitSaid("slow", "a.service")),
    ("munge.service: Start operation timed out. Terminating.", UnitSaid("slow", "munge.service")),
    ("a.service: start-post operation timed out. Stopping.", UnitSaid("slow", "a.service")),
    ("a.service: Control process exited, code=killed, status=9/KILL", UnitSaid("control", "a.service", signal=9)),
    ("a.service: Killing process 347 (a) b) with signal SIGKILL.", UnitSaid("killing", "a.service", 347, "a) b")),
    ("system.slice: A process of this unit has been killed by the OOM killer.", None),
    ("user@1000.service: A process of this unit has been killed by the OOM killer.", None),
    ("session-3.scope: A process of this unit has been killed by the OOM killer.", None),
    ("Started x - a.service: A process of this unit has been killed by the OOM killer.", None),
    ("a.service: Watchdog timeout (limit 10s)!", UnitSaid("watchdog", "a.service")),
    ("a.service: Watchdog timeout (limit 1min 30s)!", UnitSaid("watchdog", "a.service")),
    ("a.service: Watchdog request (last sent 10s)", None),
)  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), SYSTEMD)
def test_a_line_of_systemd_is_read(message: str, expected: UnitSaid | None) -> None:
    assert systemd_line(message) == expected


def test_oomd_names_a_group() -> None:
    swap = "Killed /system.slice/httpd.service due to memory used (32305733632) / total (33046) and swap used (1) / total (2) being more than 90.00%"
    pressure = "Killed /a b/c.service due to memory pressure for /a b being 51.07% > 50.00% for > 20s with reclaim activity"

    assert oomd_line(swap) == DaemonKill(cgroup="/system.slice/httpd.service", by="systemd-oomd")
    assert oomd_line(pressure) == DaemonKill(cgroup="/a b/c.service", limited="/a b", by="systemd-oomd")
    assert oomd_line("Killed /system.slice/x due to memory used due to memory used (1)") is None
    assert oomd_line("Considered 3 cgroups for killing, top candidates were:") is None


EARLYOOM = (
    ('sending SIGTERM to process 5 "python3": badness 800, VmRSS 512 MiB', DaemonKill(5, name="python3", rss_bytes=512 << 20, signal=15, by="earlyoom")),
    ('sending SIGTERM to process 5 uid 0 "memhog": badness 1058, VmRSS 1160 MiB', DaemonKill(5, name="memhog", uid=0, rss_bytes=1160 << 20, signal=15, by="earlyoom")),
    ('sending SIGKILL to process 5 uid 33 "a": b": badness 800, VmRSS 1 MiB', DaemonKill(5, name='a": b', uid=33, rss_bytes=1 << 20, by="earlyoom")),
    ('sending SIGTERM to process 5 uid 1000 "p": oom_score 800, VmRSS 5 MiB, cmdline "p --x"', DaemonKill(5, name="p", uid=1000, rss_bytes=5 << 20, signal=15, by="earlyoom")),
    ('sending SIGTERM to process 5 uid 1000 "p": oom_score 800, oom_score_adj 0, VmRSS 5 MiB, cmdline "p"', DaemonKill(5, name="p", uid=1000, rss_bytes=5 << 20, signal=15, by="earlyoom")),
    ("escalating to SIGKILL after 0.5 seconds", DaemonKill(escalated=True, by="earlyoom")),
    ("Killing process 'python3' with signal 15, pid: 5, badness: 800, VmRSS: 512 MiB", DaemonKill(5, name="python3", rss_bytes=512 << 20, signal=15, by="earlyoom")),
    ("escalating to SIGKILL after 0.500 seconds", DaemonKill(escalated=True, by="earlyoom")),
    ("sending SIGTERM when mem <= 10.00% and swap <= 10.00%,", None),
    ("process 5 exited after 0.3 seconds", None),
)  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), EARLYOOM)
def test_every_earlyoom_is_read(message: str, expected: DaemonKill | None) -> None:
    assert earlyoom_line(message) == expected


def test_a_victims_command_line_is_left_out() -> None:
    assert without_command('VmRSS 5 MiB, cmdline "p --hunter2"') == "VmRSS 5 MiB, cmdline …"


@pytest.mark.parametrize(
    ("message", "looks"),
    [
        ("low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%", True),
        ("low memory! at or below SIGKILL limits: mem 5 %, swap 5 %", True),
        ("trigger_kernel_oom: successfully triggered kernel OOM killer", True),
        ("trigger_kernel_oom: failed to open /proc/sysrq-trigger: x", False),
        ("mem avail:  100 of 2000 MiB (5.00%), swap free: 0 of 0 MiB (0.00%)", False),
    ],
)
def test_earlyoom_says_why(message: str, looks: bool) -> None:  # noqa: FBT001 - a case
    assert earlyoom_looks(message) is looks


def test_nohang_names_the_process_on_a_line_of_its_own() -> None:
    assert nohang_heading("Process with highest badness (found in 3ms):")
    assert nohang_heading("Victim status (found in 1ms):")
    assert nohang_heading("TOP printed in 12ms; process with highest badness:")
    assert not nohang_heading("Found 97 tasks with non-zero VmRSS (except init and self)")
    assert nohang_target("  PID: 4123, Name: python3, badness: 845") == DaemonKill(4123, name="python3", by="nohang")
    status = "  PID:       4123, name: a, state: S, state: R (running), EUID: 1000, SID: 1 (bash), lifetime: 2m"
    assert nohang_target(status) == DaemonKill(4123, name="a", by="nohang")
    assert nohang_target("  badness:   845, oom_score:  845, oom_score_adj:  0") is None
    assert nohang_signal("  Sending SIGTERM to the victim") == 15
    assert nohang_signal("  Sending SIGKILL to the victim") == 9
    assert nohang_signal("[ OK ] Sending SIGTERM to python3: 3") is None


ID = "3c902d2962f7fb6af8ce5a16a965bd2707383dbb18fed9b6942e1687f6419c4b"
STAMP = 'time="2022-07-28T10:53:07.730207608+08:00" level=info msg='
CONTAINERS = (
    (f'{STAMP}"Container failed to exit within 10s of signal 15 - using the force" container={ID}', "dockerd"),
    (f'{STAMP}"Container failed to exit within 10s of signal 15 - using the force" container={ID} spanID=1 traceID=2', "dockerd"),
    (f'{STAMP}"Container failed to exit within 10s of kill - trying direct SIGKILL" container={ID} error="a"', "dockerd"),
    (f'{STAMP}"Container {ID} failed to exit within 10 seconds of signal 15 - using the force"', "dockerd"),
    (f'{STAMP}"Kill container \\"{ID}\\""', "containerd"),
    (f'{STAMP}"Stop container \\"{ID}\\" with signal terminated"', ""),
    (f'{STAMP}"Container failed to exit within 10s of signal 15 - using the force" container={ID[:12]}', ""),
    (f'x {STAMP}"Container failed to exit within 10s of signal 15 - using the force" container={ID}', ""),
    (f'{STAMP}"x" msg="Container failed to exit within 10s of signal 15 - using the force" container={ID}', ""),
    (f"Container failed to exit within 10s of signal 15 - using the force container={ID}", ""),
)


@pytest.mark.parametrize(("message", "by"), CONTAINERS)
def test_a_container_runtime_says_which_container_it_kills(message: str, by: str) -> None:
    assert container_line(message) == (ContainerKill(ID[:12], by) if by else None)


def test_of_a_real_dockerd_the_containers_that_it_killed_are_read() -> None:
    read = [(line.part, kill) for line in lines("dockerd-20.10.24") if (kill := container_line(line.text)) is not None]
    assert read == [("docker stop -t 2 of one deaf to SIGTERM", ContainerKill("971f09ea3f71", "dockerd"))]


READERS = (systemd_line, oomd_line, earlyoom_line, earlyoom_looks, nohang_heading, nohang_target, nohang_signal, container_line)
STARTS = (
    "",
    "a.service: ",
    "a.service: Killing process 1 (",
    'sending SIGTERM to process 1 "',
    "Killed /a",
    "  PID: 5, Name: ",
    STAMP,
)


@given(st.text(max_size=300), st.sampled_from(STARTS))
def test_any_text_is_read_or_left(text: str, start: str) -> None:
    for read in READERS:
        read(start + text)


@pytest.mark.parametrize("piece", [" due to memory ", "(a) ", '"', ", badness: 1", "container=", " operation timed out. "])
def test_a_long_hostile_line_takes_no_time(piece: str) -> None:
    flood = piece * (16_000 // len(piece))
    for start in STARTS:
        for read in READERS:
            read(start + flood)
