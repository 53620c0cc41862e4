"""Whoever ends processes for a living: OOM daemons, systemd's timeouts, container runtimes; and where a victim was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remote.facts._journal_scripts import SYSTEM_MATCHES
from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.findings.death import Autopsy
from remote.findings.kill import Member
from remote.findings.places import Place, place
from tests.remote.findings.journal_scene import (
    RSS,
    SITE,
    START,
    dump,
    earlyoom,
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

ID = "3c902d2962f7fb6af8ce5a16a965bd2707383dbb18fed9b6942e1687f6419c4b"
STAMP = 'time="2022-07-28T10:53:07.730207608+08:00" level=info msg='


def nohang(at_s: float, message: str, unit_name: str = "nohang.service") -> Entry:
    return said(at_s, message, unit_name, 500, identifier="nohang")


NOHANG = (
    "Process with highest badness (found in 3ms):",
    "  PID: 415, Name: gunicorn, badness: 845",
    "Recheck memory levels...",
    "Victim status (found in 1ms):",
    "  PID:       415, name: gunicorn, state: S (sleeping), EUID: 33, SID: 1 (systemd), lifetime: 2m 3s",
    "  badness:   845, oom_score:  845, oom_score_adj:  0",
    "Implementing a corrective action:",
    "  Sending SIGTERM to the victim",
    "OK; total response time: 18ms",
    "The victim died in 0.05s",
)


@pytest.mark.parametrize("unit_name", ["nohang.service", "nohang-desktop.service"])
def test_nohang_says_it_in_many_lines(unit_name: str) -> None:
    lines = [nohang(1 + n / 1000, text, unit_name) for n, text in enumerate(NOHANG)]
    living = Processes((process(415, "gunicorn", name="gunicorn", cgroup=SITE, started_at=START),), BOOT)
    kill = one(lines, processes=living, machine_boot_id=BOOT)

    assert (*verdict(kill), kill.signal, kill.by) == (415, "site.service", "userspace-oom", "certain", 15, "nohang")
    assert len(kill.evidence) == 2
    assert kills([nohang(1 + n / 1000, text, "site.service") for n, text in enumerate(NOHANG)]) == ()
    assert kills(lines[5:]) == ()


def test_nohang_sends_sigkill_to_who_does_not_obey() -> None:
    again = [text.replace("SIGTERM", "SIGKILL") for text in NOHANG]
    lines = [nohang(1 + n / 10, text) for n, text in enumerate((*NOHANG, *again))]

    assert (one(lines).signal, one(lines).pid) == (9, 415)


def test_a_processs_name_is_no_line_of_nohangs() -> None:
    """A name may hold a line feed; the process stands on the line after the heading only."""
    named = [*NOHANG[:4], "  PID:       415, name: ", "PID: 1, name: , state: S", *NOHANG[5:8]]

    assert one([nohang(1 + n / 1000, text) for n, text in enumerate(named)]).pid == 415


def test_a_unit_that_gave_no_sign_of_life_is_systemds_kill() -> None:
    lines = [
        systemd(1, "site.service: Watchdog timeout (limit 10s)!"),
        systemd(1.1, "site.service: Killing process 5 (gunicorn) with signal SIGABRT."),
        systemd(1.2, "site.service: Main process exited, code=dumped, status=6/ABRT"),
        systemd(1.3, "site.service: Failed with result 'watchdog'."),
    ]
    kill = one(lines)
    assert (*verdict(kill), kill.signal, kill.by) == (None, "site.service", "worker-timeout", "certain", 6, "systemd")
    assert "WatchdogSec" in kill.advice.msgid
    assert kills([lines[2], lines[3]]) == ()

    deaf = [
        lines[0],
        systemd(11, "site.service: State 'stop-watchdog' timed out. Killing."),
        systemd(11.1, "site.service: Killing process 5 (gunicorn) with signal SIGKILL."),
        systemd(11.2, "site.service: Main process exited, code=killed, status=9/KILL"),
    ]
    kill = one(deaf)
    assert (*verdict(kill), kill.signal, len(kill.evidence)) == (5, "site.service", "worker-timeout", "certain", 9, 3)


def test_a_start_that_took_too_long_is_a_kill_only_by_sigkill() -> None:
    slow = systemd(1, "site.service: start operation timed out. Terminating.")
    obeyed = systemd(2, "site.service: Main process exited, code=killed, status=15/TERM")
    killed = systemd(2, "site.service: Control process exited, code=killed, status=9/KILL")

    assert kills([slow, obeyed]) == ()
    assert verdict(one([slow, killed])) == (None, "site.service", "stop-timeout", "certain")
    assert one([slow, killed]).by == "systemd"


def test_a_host_that_goes_down_kills_nothing_to_tell() -> None:
    last = "Sending SIGKILL to PID 415 (gunicorn)."

    assert kills([systemd(1, last), replace(kernel(1, f"systemd-shutdown[1]: {last}"), facility=3)]) == ()


def runtime(at_s: float, text: str, unit_name: str = "docker.service") -> Entry:
    return said(at_s, f"{STAMP}{text}", unit_name, 814, identifier="dockerd")


FORCED = f'"Container failed to exit within 10s of signal 15 - using the force" container={ID}'


def test_a_container_that_did_not_stop_in_time() -> None:
    kill = one([runtime(1, FORCED), runtime(1.1, FORCED.replace("signal 15 - using the force", "kill - trying direct SIGKILL"))])
    assert (*verdict(kill), kill.container, kill.name, kill.by) == (
        None,
        None,
        "container",
        "certain",
        ID[:12],
        ID[:12],
        "dockerd",
    )
    assert len(kill.evidence) == 2

    kill = one([runtime(1, f'"Kill container \\"{ID}\\""', "containerd.service")])
    assert (kill.cause, kill.by, kill.signal) == ("container", "containerd", 9)
    assert kills([runtime(1, FORCED, "site.service")]) == ()


@pytest.mark.parametrize("unit_name", ["docker.service", "snap.docker.dockerd.service", "containerd.service"])
def test_every_container_daemon_whose_lines_are_fetched_is_believed(unit_name: str) -> None:
    assert one([runtime(1, FORCED, unit_name)]).container == ID[:12]
    assert f"_SYSTEMD_UNIT={unit_name} " in f"{SYSTEM_MATCHES} "


PLACES = (
    (f"/system.slice/docker-{ID}.scope", Place(container=ID[:12])),
    (f"/docker/{ID}", Place(container=ID[:12])),
    (f"/docker/{ID}/sub/x.service", Place(container=ID[:12])),
    (f"/system.slice/docker.service/docker/{ID}", Place(container=ID[:12])),
    (f"/machine.slice/libpod-{ID}.scope/container", Place(container=ID[:12])),
    (f"/system.slice/web.service/libpod-payload-{ID}", Place("web.service", ID[:12])),
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{ID}.scope", Place(container=ID[:12])),
    (f"/kubepods/burstable/pod7/{ID}", Place(container=ID[:12])),
    (f"/kubepods.slice/crio-{ID}.scope", Place(container=ID[:12])),
    ("/lxc/web", Place(container="web")),
    ("/lxc.payload.web/system.slice/site.service", Place(container="web")),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", Place(None, ID[:12], staged=True)),
    ("/user.slice", Place(staged=True)),
    ("/user.slices/site.service", Place()),
    (f"/system.slice/docker-{ID[:60]}.scope", Place()),
    (f"/system.slice/conmon-{ID}.scope", Place()),
    (SITE, Place("site.service")),
    ("", Place()),
)  # fmt: skip


@pytest.mark.parametrize(("cgroup", "expected"), PLACES)
def test_a_cgroup_is_a_units_a_containers_or_a_users(cgroup: str, expected: Place) -> None:
    assert place(cgroup, None) == expected
    assert place(cgroup, Units(())) == expected


def test_a_kill_in_a_container_names_the_container() -> None:
    kill = one(dump(10, 5, cgroup=f"/system.slice/docker-{ID}.scope"))

    assert (*verdict(kill), kill.container, kill.staged) == (5, None, "cgroup-limit", "certain", ID[:12], False)
    assert dict(kill.advice.values)["group"].literal == ID[:12]  # type: ignore[union-attr]


def test_the_recorded_table_names_who_shared_the_memory() -> None:
    kill = one(recorded("celery-oom"))
    assert kill.members == (Member(632, "python3", 49238 * 4096), Member(367, "python3", 15343 * 4096))

    members = one(recorded("session-oom")).members
    assert [member.name for member in members] == ["memhog", "sshd", "systemd", "sshd", "(sd-pam)"]
    assert len(one(recorded("global-oom")).members) == 12


def test_a_storm_without_tables_has_no_foreign_members() -> None:
    heading = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = kernel(10.0015, "[    415]    33   415    58751    56149   176128        0             0 gunicorn")
    first = dump(10, 415)
    lines = [*first[:2], kernel(10.0014, heading), row, *first[2:]]
    bare = kernel(10.5, f"Memory cgroup out of memory: Killed process 900 (php) {RSS}")
    after = kernel(10.6, "[    900]    33   900    58751    56149   176128        0             0 late")
    found = {kill.pid: kill for kill in kills([*lines, bare, after])}

    assert [member.pid for member in found[415].members] == [415]
    assert found[900].members == ()


def test_two_reports_that_begin_before_a_victim_is_named_lend_no_numbers() -> None:
    one_, other = dump(10, 5, limit_kib=1024), dump(10.0005, 6, cgroup="/system.slice/b.service", limit_kib=2048)
    units = Units((unit("b.service", "x", 1, memory_max_bytes=3 * MIB),))
    found = {
        k.pid: k for k in kills([*one_[:2], *other[:2], other[2], other[3], one_[2], one_[3]], units=units, machine_boot_id=BOOT)
    }

    assert (found[6].unit, found[6].limit_bytes) == ("b.service", 3 * MIB)
    assert (found[5].unit, found[5].cause) == ("site.service", "cgroup-limit")
    assert found[5].limit_bytes is None


def test_a_victim_that_was_exiting_was_not_killed() -> None:
    opened, limit, summary, _ = dump(10, 5)
    exiting = kernel(10.003, "Memory cgroup out of memory: OOM victim 5 (gunicorn) is already exiting. Skip killing the task")
    assert kills([opened, limit, summary, exiting]) == ()

    autopsy = Autopsy()
    assert [autopsy.take(line) for line in (opened, limit, summary, exiting)] == [()] * 4
    assert autopsy.settle() == ()


def test_a_summary_alone_is_told_with_the_next_line() -> None:
    opened, limit, summary, _ = dump(10, 5)
    autopsy = Autopsy()
    for line in (opened, limit, summary):
        assert autopsy.take(line) == ()

    assert autopsy.take(kernel(10.5, "eth0: link up")) == ()
    assert [kill.pid for kill in autopsy.take(kernel(11.1, "eth0: link down"))] == [5]


def test_what_was_reaped_had_been_killed() -> None:
    reaped = kernel(10.1, "oom_reaper: reaped process 5 (gunicorn), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB")

    assert verdict(one([reaped])) == (5, None, "kernel-oom", "likely")
    kill = one([*dump(10, 5), reaped])
    assert verdict(kill) == (5, "site.service", "cgroup-limit", "certain")
    assert kill.evidence[-1].startswith("oom_reaper")


def test_a_bare_victim_is_found_by_its_pid() -> None:
    bare = dump(10, 5)[3]
    living = Processes((process(5, "g", name="gunicorn", cgroup=SITE, started_at=START),), BOOT)
    other = Processes((process(5, "g", name="nginx", cgroup=SITE, started_at=START),), BOOT)

    assert one([bare], processes=living).unit == "site.service"
    assert one([bare], processes=other).unit is None


def test_a_main_process_that_systemd_killed_is_one_kill_however_it_is_told() -> None:
    lines = [
        systemd(1, "site.service: State 'stop-sigterm' timed out. Killing."),
        systemd(1.1, "site.service: Killing process 364 (gunicorn) with signal SIGKILL."),
        systemd(1.3, "site.service: Main process exited, code=killed, status=9/KILL"),
    ]
    units = Units((unit("site.service", "x", 364, invocation_id="abc"),))
    ended = replace(lines[2], extra=(("INVOCATION_ID", "abc"),))

    assert [kill.pid for kill in kills([*lines[:2], ended], units=units)] == [364]


def test_a_word_about_the_unit_does_not_re_label_what_is_explained() -> None:
    """The hung worker was ended by its master; that the kernel killed another in the unit is another kill."""
    hung = [gunicorn(1, "WORKER TIMEOUT (pid:5)"), gunicorn(2, sigkill(5))]
    oom = systemd(2.2, "site.service: A process of this unit has been killed by the OOM killer.")
    for lines in ([*hung, oom], [oom, *hung]):
        found = {kill.pid: kill.cause for kill in kills(lines)}
        assert found == {5: "worker-timeout", None: "kernel-oom"}


def test_two_found_dead_and_one_word_about_the_unit() -> None:
    """PID 1 says it once a wake-up, not once a victim."""
    lines = [gunicorn(1, sigkill(5)), gunicorn(1.1, sigkill(6))]
    oom = systemd(1.2, "site.service: A process of this unit has been killed by the OOM killer.")

    assert sorted((kill.pid, kill.cause, kill.confidence) for kill in kills([*lines, oom])) == [
        (5, "kernel-oom", "likely"),
        (6, "kernel-oom", "likely"),
    ]


def test_earlyoom_kills_again_and_again() -> None:
    term = 'sending SIGTERM to process 5 uid 33 "gunicorn": badness 800, VmRSS 512 MiB'
    lines = [
        earlyoom(1, term),
        earlyoom(1.5, "escalating to SIGKILL after 0.500 seconds"),
        earlyoom(2, term.replace("5 uid", "6 uid")),
    ]

    assert [(kill.pid, kill.signal) for kill in kills(lines)] == [(6, 15), (5, 9)]


def test_a_victim_of_a_storm_is_where_the_report_before_listed_it() -> None:
    """The kernel leaves most of a storm's reports away; the one before has all processes of the group."""
    heading = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    rows = [f"[    {pid}]    33   {pid}    58751    56149   503808        0             0 gunicorn" for pid in (415, 416)]
    opened, limit, summary, victim = dump(10, 415)
    table = [kernel(10.0012 + n / 1e4, line) for n, line in enumerate((heading, *rows))]
    bare = [kernel(11, f"Memory cgroup out of memory: Killed process {pid} (gunicorn) {RSS}") for pid in (416, 417)]
    found = {kill.pid: kill for kill in kills([opened, limit, *table, summary, victim, *bare])}

    assert [found[pid].unit for pid in (415, 416, 417)] == ["site.service", "site.service", None]
    assert (found[416].cause, found[416].limit_bytes) == ("cgroup-limit", None), "whose limit it was this time is not said"


def test_below_a_slices_limit_a_listed_process_may_be_of_another_unit() -> None:
    heading = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    row = "[    416]    33   416    58751    56149   503808        0             0 gunicorn"
    opened, limit, summary, victim = dump(10, 415, limited="/system.slice")
    bare = kernel(11, f"Memory cgroup out of memory: Killed process 416 (gunicorn) {RSS}")
    found = kills([opened, limit, kernel(10.0011, heading), kernel(10.0012, row), summary, victim, bare])

    assert {kill.pid: kill.unit for kill in found}[416] is None
