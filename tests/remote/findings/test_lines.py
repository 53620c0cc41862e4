"""Every shape of a kernel's, systemd's and OOM daemons' lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.findings.lines import (
    Chosen,
    DaemonKill,
    GroupKill,
    Groups,
    KernelLine,
    Limit,
    Opened,
    Summary,
    SysRq,
    UnitSaid,
    Victim,
    earlyoom_line,
    kernel_line,
    oomd_line,
    systemd_line,
    without_command,
)

KIB = 1024
TAIL = "total-vm:1000kB, anon-rss:300kB, file-rss:20kB, shmem-rss:1kB, UID:33 pgtables:44kB oom_score_adj:0"
SUMMARY = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task={},pid=5,uid=33"

KERNEL: tuple[tuple[str, KernelLine | None], ...] = (
    # by kernel, oldest first
    ("Out of memory: Killed process 5 (python).", Victim(5, "python", None, None, memcg=False)),
    ("Killed process 28712, UID 503, (celery) total-vm:2048760kB, anon-rss:1636384kB, file-rss:512kB", Victim(28712, "celery", 503, (1636384 + 512) * KIB, None)),
    ("Killed process 5 (mysqld) total-vm:10kB, anon-rss:3kB, file-rss:2kB", Victim(5, "mysqld", None, 5 * KIB, None)),
    ("Killed process 45465 (tail), UID 0, total-vm:7582132kB, anon-rss:7420324kB, file-rss:0kB, shmem-rss:0kB", Victim(45465, "tail", 0, 7420324 * KIB, None)),
    ("Killed process 4015 (python) total-vm:9kB, anon-rss:7kB, file-rss:1kB, shmem-rss:0kB", Victim(4015, "python", None, 8 * KIB, None)),
    (f"Out of memory: Killed process 5 (python3) {TAIL}", Victim(5, "python3", 33, 321 * KIB, memcg=False)),
    (f"Memory cgroup out of memory: Killed process 5 (python3) {TAIL}", Victim(5, "python3", 33, 321 * KIB, memcg=True)),
    (f"Out of memory (oom_kill_allocating_task): Killed process 5 (a) {TAIL}", Victim(5, "a", 33, 321 * KIB, memcg=False)),
    ("Out of memory: Killed process 5 (a) total-vm:9kB, anon-rss:7kB, file-rss:1kB, shmem-rss:0kB, UID:1000", Victim(5, "a", 1000, 8 * KIB, memcg=False)),
    (f"[12.345678] Out of memory: Killed process 5 (a) {TAIL}", Victim(5, "a", 33, 321 * KIB, memcg=False)),
    (f"kernel:[   12.345678] Out of memory: Killed process 5 (a) {TAIL}", Victim(5, "a", 33, 321 * KIB, memcg=False)),
    # names
    *((f"Out of memory: Killed process 5 ({name}) {TAIL}", Victim(5, name, 33, 321 * KIB, memcg=False)) for name in
      ("[celeryd: celer", "gunicorn: worke", "()", "[", "Plex Media Serv", "a) b, pid=1", "a\nb", "a, UID 0, (b", "")),
    # the summary
    (SUMMARY.format("php-fpm"), Summary(5, "php-fpm", 33, memcg=True, limited="/a", cgroup="/a/b")),
    (
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/g.service,task=g,pid=7,uid=504",
        Summary(7, "g", 504, memcg=False, limited="", cgroup="/system.slice/g.service"),
    ),
    (
        "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0-1,3,cpuset=x y,mems_allowed=0,2-3,global_oom,task_memcg=/a,b c,task=g,pid=7,uid=0",
        Summary(7, "g", 0, memcg=False, limited="", cgroup="/a,b c"),
    ),
    *((SUMMARY.format(name), Summary(5, name, 33, memcg=True, limited="/a", cgroup="/a/b")) for name in
      ("a) b, pid=1", ",pid=1,uid=0", "a b", "[celeryd: celer", ",task=x", "a\nb", "")),
    # a group's name, or a process', that pretends to be a field
    (SUMMARY.replace("oom_memcg=/a", "oom_memcg=/u/a,task_memcg=/system.slice/postgresql.service/x").format("p"), Summary(5, "p", 33, memcg=True, limited="", cgroup="")),
    (SUMMARY.format(",task_memcg=/"), Summary(5, ",task_memcg=/", 33, memcg=True, limited="", cgroup="")),
    # cut
    ("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_al", None),
    ("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,task=x,pid=", None),
    # the dump
    ("python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", Opened(by_hand=False)),
    ("java invoked oom-killer: gfp_mask=0x201da, order=0, oom_score_adj=0", Opened(by_hand=False)),
    ("kworker/2:2 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0", Opened(by_hand=True)),
    ("memory: usage 204800kB, limit 204801kB, failcnt 115", Limit(204801 * KIB)),
    ("memory: usage 204800kB, limit 9007199254740988kB, failcnt 0", Limit(None)),
    ("swap: usage 0kB, limit 9007199254740988kB, failcnt 0", None),
    ("Out of memory: Kill process 5 (celery) score 100 or sacrifice child", Chosen(memcg=False)),
    ("Memory cgroup out of memory: Kill process 4015 (python) score 1923 or sacrifice child", Chosen(memcg=True)),
    ("Task in /mem2 killed as a result of limit of /mem3", Groups("/mem2", "/mem3")),
    ("Tasks in /kubepods.slice/x are going to be killed due to memory.oom.group set", GroupKill("/kubepods.slice/x")),
    ("sysrq: Manual OOM execution", SysRq()),
    ("sysrq: SysRq : Manual OOM execution", SysRq()),
    # no kills
    ("Out of memory: OOM victim 5 (a) is already exiting. Skip killing the task", None),
    ("Out of memory and no killable processes...", None),
    ("oom_reaper: reaped process 667 (memhog), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB", None),
    ("Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF", None),
    ("python3: page allocation failure: order:4, mode:0x40cc0", None),
    # what somebody else had printed by the kernel
    (f"usb 1-1: Product: Out of memory: Killed process 5 (a) {TAIL}", None),
    (f"Memory cgroup stats for /user.slice/Out of memory: Killed process 5 (a) {TAIL}:", None),
    ("", None),
)  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), KERNEL, ids=lambda value: str(value)[:80])
def test_a_kernels_line_is_read(message: str, expected: KernelLine | None) -> None:
    assert kernel_line(message) == expected


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
    ("a.service: start operation timed out. Terminating.", None),
    ("a.service: Killing process 347 (a) b) with signal SIGKILL.", UnitSaid("killing", "a.service", 347, "a) b")),
    ("system.slice: A process of this unit has been killed by the OOM killer.", None),
    ("user@1000.service: A process of this unit has been killed by the OOM killer.", None),
    ("session-3.scope: A process of this unit has been killed by the OOM killer.", None),
    ("Started x - a.service: A process of this unit has been killed by the OOM killer.", None),
    ("a.service: Watchdog timeout (limit 10s)!", None),
)  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), SYSTEMD)
def test_a_line_of_systemd_is_read(message: str, expected: UnitSaid | None) -> None:
    assert systemd_line(message) == expected


def test_oomd_names_a_group() -> None:
    swap = "Killed /system.slice/httpd.service due to memory used (32305733632) / total (33046) and swap used (1) / total (2) being more than 90.00%"
    pressure = "Killed /a b/c.service due to memory pressure for /a b being 51.07% > 50.00% for > 20s with reclaim activity"

    assert oomd_line(swap) == DaemonKill(cgroup="/system.slice/httpd.service")
    assert oomd_line(pressure) == DaemonKill(cgroup="/a b/c.service", limited="/a b")
    assert oomd_line("Killed /system.slice/x due to memory used due to memory used (1)") is None
    assert oomd_line("Considered 3 cgroups for killing, top candidates were:") is None


EARLYOOM = (
    ('sending SIGTERM to process 5 "python3": badness 800, VmRSS 512 MiB', DaemonKill(5, name="python3", rss_bytes=512 << 20, signal=15)),
    ('sending SIGTERM to process 5 uid 0 "memhog": badness 1058, VmRSS 1160 MiB', DaemonKill(5, name="memhog", uid=0, rss_bytes=1160 << 20, signal=15)),
    ('sending SIGKILL to process 5 uid 33 "a": b": badness 800, VmRSS 1 MiB', DaemonKill(5, name='a": b', uid=33, rss_bytes=1 << 20)),
    ('sending SIGTERM to process 5 uid 1000 "p": oom_score 800, VmRSS 5 MiB, cmdline "p --x"', DaemonKill(5, name="p", uid=1000, rss_bytes=5 << 20, signal=15)),
    ('sending SIGTERM to process 5 uid 1000 "p": oom_score 800, oom_score_adj 0, VmRSS 5 MiB, cmdline "p"', DaemonKill(5, name="p", uid=1000, rss_bytes=5 << 20, signal=15)),
    ("escalating to SIGKILL after 0.5 seconds", DaemonKill(escalated=True)),
    ("sending SIGTERM when mem <= 10.00% and swap <= 10.00%,", None),
    ("process 5 exited after 0.3 seconds", None),
)  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), EARLYOOM)
def test_every_earlyoom_is_read(message: str, expected: DaemonKill | None) -> None:
    assert earlyoom_line(message) == expected


def test_a_victims_command_line_is_left_out() -> None:
    assert without_command('VmRSS 5 MiB, cmdline "p --hunter2"') == "VmRSS 5 MiB, cmdline …"


@given(
    st.text(max_size=300),
    st.sampled_from(
        [
            "",
            "oom-kill:constraint=CONSTRAINT_MEMCG,",
            "Killed process 5 (",
            "a.service: Killing process 1 (",
            'sending SIGTERM to process 1 "',
            "Killed /a",
        ]
    ),
)
def test_any_text_is_read_or_left(text: str, start: str) -> None:
    message = start + text
    for read in (kernel_line, systemd_line, oomd_line, earlyoom_line):
        read(message)


@given(st.text(max_size=15))
def test_any_name_of_a_process_is_read_back(name: str) -> None:
    line = kernel_line(f"Memory cgroup out of memory: Killed process 5 ({name}) {TAIL}")
    summary = kernel_line(SUMMARY.format(name))

    assert isinstance(line, Victim)
    assert isinstance(summary, Summary)
    assert line.name == summary.name == name
    assert line.pid == summary.pid == 5


@pytest.mark.parametrize(
    "piece", [",task_memcg=", ",task=", ",pid=5", "(a) ", " invoked oom-killer: ", "order=1", " due to memory "]
)
def test_a_long_hostile_line_takes_no_time(piece: str) -> None:
    flood = piece * (16_000 // len(piece))
    for start in (
        "",
        "oom-kill:constraint=CONSTRAINT_MEMCG,",
        "a invoked oom-killer: gfp_mask=",
        "Killed /",
        "Task in /",
        "Tasks in /",
    ):
        for read in (kernel_line, systemd_line, oomd_line, earlyoom_line):
            read(start + flood)
