"""Every shape of the kernel's lines, 2.6.18 to 6.18."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.findings.kill import Member
from remote.findings.lines import (
    Chosen,
    Exiting,
    GroupKill,
    Groups,
    KernelLine,
    Limit,
    Opened,
    Reaped,
    Summary,
    SysRq,
    Tasks,
    Victim,
    kernel_line,
    task_row,
)

KIB = 1024
TAIL = "total-vm:1000kB, anon-rss:300kB, file-rss:20kB, shmem-rss:1kB, UID:33 pgtables:44kB oom_score_adj:0"
SUMMARY = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task={},pid=5,uid=33"

OLD = ("uid", "tgid", "total_vm", "rss", "nr_ptes", "swapents", "oom_score_adj", "name")
TODAY = ("uid", "tgid", "total_vm", "rss", "pgtables_bytes", "swapents", "oom_score_adj", "name")
SPLIT = (*TODAY[:4], "rss_anon", "rss_file", "rss_shmem", *TODAY[4:])

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
    # what became of the victim
    ("Out of memory: OOM victim 5 (a) is already exiting. Skip killing the task", Exiting(5)),
    ("Memory cgroup out of memory: OOM victim 3804877 (a) b) is already exiting. Skip killing the task", Exiting(3804877)),
    ("oom_reaper: reaped process 667 (memhog), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB", Reaped(667, "memhog")),
    ("oom_reaper: reaped process 5 (a), now x (b), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB", Reaped(5, "a), now x (b")),
    ("oom_reaper: unable to reap pid:5 (a b)", Reaped(5, "a b")),
    # other prefixes, and rsyslog's line feed
    (f"[Tue Mar 11 10:16:36 2025] Out of memory: Killed process 5 (a) {TAIL}", Victim(5, "a", 33, 321 * KIB, memcg=False)),
    (f"Nov 12 12:30:02 alien kernel: Out of memory: Killed process 5 (a) {TAIL}", Victim(5, "a", 33, 321 * KIB, memcg=False)),
    (f"2025-11-12T12:30:02.123456+01:00 a-b kernel: [   12.345678] Out of memory: Killed process 5 (a) {TAIL}#012", Victim(5, "a", 33, 321 * KIB, memcg=False)),
    ("kernel: : [22254386.758297] Out of memory: Kill process 5 (celery) score 100 or sacrifice child", Chosen(memcg=False)),
    (SUMMARY.format("php-fpm") + "#012", Summary(5, "php-fpm", 33, memcg=True, limited="/a", cgroup="/a/b")),
    ("memory: usage 204800kB, limit 204801kB, failcnt 115#012", Limit(204801 * KIB)),
    # a limit that a BPF program or a newer kernel watches over
    (
        "oom-kill:constraint=CONSTRAINT_BPF_PSI_MEM,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a/b,task_memcg=/a/b,task=t,pid=675,uid=0",
        Summary(675, "t", 0, memcg=True, limited="/a/b", cgroup="/a/b"),
    ),
    # the table's heading, by kernel
    ("[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name", Tasks(("uid", "tgid", "total_vm", "rss", "cpu", "oom_adj", "oom_score_adj", "name"))),
    ("[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name", Tasks(OLD)),
    ("[ 2929.921684] [ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name        ", Tasks(OLD)),
    ("[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name", Tasks(TODAY)),
    ("[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name", Tasks(SPLIT)),
    # no kills
    ("Out of memory and no killable processes...", None),
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


ROWS = (
    (OLD, "[ 1733]     0  1733   235663    51620     116        0             0 python", Member(1733, "python", 51620 * 4096)),
    (OLD, "[ 2929.921777] [ 1733]     0  1733   235663    51620     116        0             0 python     ", Member(1733, "python     ", 51620 * 4096)),
    (TODAY, "[    415]    33   415    58751    56149   176128        0             0 gunicorn: worke", Member(415, "gunicorn: worke", 56149 * 4096)),
    (TODAY, "[    415]    33   415    58751    56149   176128        0             0 [celeryd: celer", Member(415, "[celeryd: celer", 56149 * 4096)),
    (TODAY, "[    415]    33   415    58751    56149   176128        0         -1000 ", Member(415, "", 56149 * 4096)),
    (SPLIT, "[1297859]  1000 1297859 11628452  6472862  6472862        0         0 77496320        0             0 kaspad", Member(1297859, "kaspad", 6472862 * 4096)),
    (TODAY, "[    415]    33   415    58751", None),
    (TODAY, "[    415]    33   x    58751    56149   176128        0             0 a", None),
    (TODAY, "[   12.345678] usb 1-1: new device", None),
    (TODAY, " do_user_addr_fault+0x191/0x550", None),
    (TODAY, "", None),
)  # fmt: skip


@pytest.mark.parametrize(("columns", "message", "expected"), ROWS)
def test_a_row_of_the_kernels_table_is_read_by_the_names_of_its_columns(
    columns: tuple[str, ...], message: str, expected: Member | None
) -> None:
    assert task_row(message, Tasks(columns)) == expected


@given(
    st.text(max_size=300),
    st.sampled_from(
        [
            "",
            "oom-kill:constraint=CONSTRAINT_MEMCG,",
            "Killed process 5 (",
            "oom_reaper: reaped process 5 (",
            "[  pid  ]   uid  tgid total_vm      rss ",
            "[    415]    33   415 ",
        ]
    ),
)
def test_any_text_is_read_or_left(text: str, start: str) -> None:
    message = start + text
    kernel_line(message)
    task_row(message, Tasks(TODAY))


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
        "[  pid  ]   uid  tgid total_vm      rss ",
        "[    415]    33   415 ",
        "oom_reaper: reaped process 5 (",
        "Task in /",
        "Tasks in /",
    ):
        kernel_line(start + flood)
        task_row(start + flood, Tasks(TODAY))
