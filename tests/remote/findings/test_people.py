"""Who sent it by hand: sudo's lines and audit records, read exactly and put to the right death."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts._journal_scripts import SUDO, SYSTEM_MATCHES
from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.findings.people import Asked, Sent, audit_call, audit_target, sudo_line
from tests.remote.findings.journal_scene import dump, earlyoom, entry, gunicorn, kernel, kills, one, sigkill, systemd, verdict
from tests.remote.findings.scene import BOOT, process, unit

START = "alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND="
COMMANDS: tuple[tuple[str, Asked | None], ...] = (
    (f"{START}/usr/bin/kill -9 415", Asked("alice", frozenset({415}))),
    (f"{START}/bin/kill -KILL 415 416", Asked("alice", frozenset({415, 416}))),
    (f"{START}/usr/bin/kill -s KILL 415", Asked("alice", frozenset({415}))),
    (f"{START}/usr/bin/kill -s 9 415", Asked("alice", frozenset({415}))),
    (f"{START}/usr/bin/kill -n 9 415", Asked("alice", frozenset({415}))),
    (f"{START}/usr/bin/kill --signal SIGKILL 415", Asked("alice", frozenset({415}))),
    (f"{START}/usr/bin/kill --signal=kill -- 415", Asked("alice", frozenset({415}))),
    (f"{START}/usr/bin/kill -9 -415", Asked("alice", frozenset({415}))),
    (f"{START}/bin/bash -c 'kill -9 415'", Asked("alice", frozenset({415}))),
    (f"{START}/bin/sh -c kill -9 415", Asked("alice", frozenset({415}))),
    ("   alice : TTY=unknown ; PWD=/ ; USER=root ; COMMAND=/bin/kill -9 5", Asked("alice", frozenset({5}))),
    ("root : PWD=/srv ; USER=root ; COMMAND=/usr/bin/kill -9 765", Asked("root", frozenset({765}))),
    ("a b : HOST=web ; TTY=pts/1 ; PWD=/a ; b ; USER=root ; GROUP=adm ; TSID=000001 ; ENV=A=1 B=2 ; COMMAND=/bin/kill -9 5", Asked("a b", frozenset({5}))),
    (f"{START}/usr/bin/pkill -9 -u www-data gunicorn", Asked("alice", names=("gunicorn",), parts=True)),
    (f"{START}/usr/bin/pkill -KILL -f manage.py", Asked("alice", names=("manage.py",), parts=True)),
    (f"{START}/usr/bin/killall -9 celery gunicorn", Asked("alice", names=("celery", "gunicorn"))),
    (f"{START}/usr/bin/systemctl kill -s KILL site", Asked("alice", units=("site.service",))),
    (f"{START}/usr/bin/systemctl kill --signal=SIGKILL --kill-who=main site.service", Asked("alice", units=("site.service",))),
    (f"{START}/usr/bin/docker kill web db", Asked("alice", containers=("web", "db"))),
    (f"{START}/usr/bin/docker container kill 3c902d2962f7", Asked("alice", containers=("3c902d2962f7",))),
    (f"{START}/usr/bin/podman rm -f web", Asked("alice", containers=("web",))),
    (f"{START}/usr/bin/tee /proc/sysrq-trigger", Asked("alice", sysrq=True)),
    (f"{START}/bin/sh -c 'echo f >/proc/sysrq-trigger'", Asked("alice", sysrq=True)),
    # no SIGKILL
    (f"{START}/usr/bin/kill 415", None),
    (f"{START}/usr/bin/kill -TERM 415", None),
    (f"{START}/usr/bin/kill -9", None),
    (f"{START}/usr/bin/systemctl kill site", None),
    (f"{START}/usr/bin/systemctl restart site", None),
    (f"{START}/usr/bin/docker kill -s HUP web", None),
    (f"{START}/usr/bin/docker stop web", None),
    (f"{START}/usr/bin/pkill gunicorn", None),
    (f"{START}/usr/bin/ls -9 415", None),
    # not done
    ("jess : 3 incorrect password attempts ; TTY=unknown ; PWD=/home/jess ; USER=root ; COMMAND=/bin/kill -9 5", None),
    ("eve : command not allowed ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/kill -9 5", None),
    # a directory or a variable that holds a false line
    ("eve : TTY=pts/0 ; PWD=/tmp/x ; USER=root ; COMMAND=/usr/bin/kill -9 415 ; USER=root ; COMMAND=/usr/bin/ls", None),
    ("eve : TTY=pts/0 ; PWD=/ ; USER=root ; ENV=A= ; COMMAND=/bin/kill -9 415 ; COMMAND=/usr/bin/ls", None),
    (f"x\n{START}/usr/bin/kill -9 415", None),
    ("pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)", None),
    ("", None),
)  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), COMMANDS)
def test_what_sudo_was_asked_is_read(message: str, expected: Asked | None) -> None:
    assert sudo_line(message) == expected


CALL = (
    "SYSCALL arch={arch} syscall={number} success=yes exit=0 a0={a0} a1={a1} a2={a2} a3=7ffe8cad2ee0 items=0 ppid=5533 pid=7885 "
    'auid={auid} uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts5 ses=7482 comm="bash" exe="/usr/bin/bash" '
    "subj=unconfined key=(null)"
)


def call(**given: Any) -> str:  # noqa: ANN401 - any part of the record
    return CALL.format(**{"arch": "c000003e", "number": 62, "a0": "19f", "a1": "9", "a2": "0", "auid": 1000, **given})


def sent(pid: int | None, login_uid: int | None = 1000) -> Sent:
    return Sent(7885, "bash", "/usr/bin/bash", pid, login_uid)


CALLS: tuple[tuple[str, Sent | None], ...] = (
    (call(), sent(415)),
    (call(auid=4294967295), sent(415, None)),
    (call(arch="c00000b7", number=129), sent(415)),
    (call(arch="c00000b7", number=131, a1="1a0", a2="9"), sent(415)),
    (call(number=200), sent(415)),
    (call(number=234, a1="1a0", a2="9"), sent(415)),
    (call(number=424, a0="5"), sent(None)),
    (call(arch="40000003", number=37), sent(415)),
    (call(a0="ffffffff"), sent(None)),
    (call(a0="fffffe61"), sent(None)),
    (call(a1="f"), None),
    (call(number=101), None),
    (call().replace("success=yes exit=0", "success=no exit=-1"), None),
    (call().removeprefix("SYSCALL "), sent(415)),
    ("USER_CMD " + call(), None),
)


@pytest.mark.parametrize(("message", "expected"), CALLS)
def test_a_system_call_that_sent_sigkill_is_read(message: str, expected: Sent | None) -> None:
    assert audit_call(1300, message) == expected
    assert audit_call(1107, message) is None


def test_whom_it_was_sent_to_is_read() -> None:
    record = 'OBJ_PID opid=29236 oauid=0 ouid=0 oses=23836 obj=unconfined ocomm="push"'

    assert audit_target(1318, record) == 29236
    assert audit_target(1300, record) is None
    assert audit_target(1318, f"x {record}") is None


@given(st.text(max_size=200), st.sampled_from([START, call()[:40], "OBJ_PID opid=5 oauid=", ""]))
def test_any_text_is_read_or_left(text: str, start: str) -> None:
    sudo_line(start + text)
    audit_call(1300, start + text)
    audit_target(1318, start + text)


def test_a_long_hostile_line_takes_no_time() -> None:
    for piece in (" ; USER=root", " ; PWD=/", "COMMAND=", " ; ENV=A", "-9 "):
        sudo_line(START + piece * (16_000 // len(piece)))
        audit_call(1300, call() + piece * (16_000 // len(piece)))


def sudo(at_s: float, command: str, **given: Any) -> Entry:  # noqa: ANN401 - any field
    fields = {"transport": "syslog", "identifier": "sudo", "exe": "/usr/bin/sudo", "uid": 0, "pid": 900}
    return entry(at_s, START + command, **{**fields, "system_unit": "session-3.scope", **given})


def audit(at_s: float, message: str, audit_type: int = 1300, **given: Any) -> Entry:  # noqa: ANN401 - any field
    return entry(at_s, message, **{"transport": "audit", "audit_type": audit_type, "identifier": "audit", "pid": 7885, **given})


@pytest.mark.parametrize(
    "command",
    ["/usr/bin/kill -9 415", "/usr/bin/pkill -9 gunic", "/usr/bin/killall -KILL gunicorn", "/usr/bin/systemctl kill -s 9 site"],
)
def test_a_kill_under_sudo_is_likely_a_persons(command: str) -> None:
    asked, dead = sudo(1, command), gunicorn(1.5, sigkill(415))
    for order in ([asked, dead], [dead, asked]):
        kill = one(order)
        assert verdict(kill) == (415, "site.service", "manual", "likely")
        assert kill.by == "alice"
        assert [line.split()[0] for line in kill.evidence] == ["alice", "[2026-11-23"]


@pytest.mark.parametrize(
    "asked",
    [
        sudo(1, "/usr/bin/kill -9 416"),
        sudo(1, "/usr/bin/kill -15 415"),
        sudo(1, "/usr/bin/killall -9 gunico"),
        sudo(1, "/usr/bin/systemctl kill -s 9 other"),
        sudo(5, "/usr/bin/kill -9 415"),
        sudo(-60, "/usr/bin/kill -9 415"),
        sudo(-6, "/usr/bin/pkill -9 gunicorn"),
        sudo(1, "/usr/bin/kill -9 415", exe="/usr/bin/logger"),
        sudo(1, "/usr/bin/kill -9 415", exe="/tmp/sudo"),
        sudo(1, "/usr/bin/kill -9 415", exe=""),
        sudo(1, "/usr/bin/kill -9 415", uid=1000, capable=False),
        sudo(1, "/usr/bin/kill -9 415", boot_id="c" * 32),
        audit(1, START + "/usr/bin/kill -9 415"),
        audit(1, call(), transport="syslog"),
        audit(1, call(), transport="journal"),
        audit(1, call(), audit_type=1107),
        audit(1, call(a0="1a0")),
    ],
    ids=lambda line: f"{line.at:%M:%S} {line.exe} {line.transport} {line.message[-40:]}",
)
def test_another_line_of_sudo_or_audit_changes_nothing(asked: Entry) -> None:
    dead = gunicorn(1.5, sigkill(415))

    assert verdict(one([asked, dead])) == (415, "site.service", "unknown", "guess")
    assert kills([asked]) == ()


def test_a_person_is_not_blamed_for_the_kernels_kill() -> None:
    assert one([sudo(9.5, "/usr/bin/kill -9 415"), *dump(10, 415)]).cause == "cgroup-limit"


def test_a_hostile_name_is_only_text() -> None:
    line = "<!channel>*x* : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/kill -9 415"
    asked = sudo(1, "")
    kill = one([entry(1, line, exe=asked.exe, uid=0, transport="syslog"), gunicorn(1.5, sigkill(415))])

    assert kill.by == "<!channel>*x*"


def test_an_audit_record_is_proof() -> None:
    dead = gunicorn(1.5, sigkill(415))
    living = Processes((process(1, "x", uid=1000, user="bob"),), BOOT)
    kill = one([audit(1, call()), dead], processes=living)

    assert verdict(kill) == (415, "site.service", "manual", "certain")
    assert kill.by == "bob"
    assert one([audit(1, call()), dead]).by == "uid 1000"
    assert one([audit(1, call(auid=4294967295)), dead]).by == "bash"
    assert one([sudo(0.9, "/usr/bin/kill -9 415"), audit(1, call()), dead]).by == "alice"


def test_the_second_record_names_the_process_of_a_call_by_file_descriptor() -> None:
    target = audit(1.00001, 'OBJ_PID opid=415 oauid=0 ouid=0 oses=1 ocomm="gunicorn"', 1318)
    lines = [audit(1, call(number=424, a0="5")), target, gunicorn(1.5, sigkill(415))]

    assert verdict(one(lines))[2:] == ("manual", "certain")
    assert verdict(one(lines[::-1]))[2:] == ("manual", "certain")
    assert verdict(one([lines[0], lines[2]]))[2:] == ("unknown", "guess")


@pytest.mark.parametrize("exe", ["/usr/sbin/earlyoom", "/usr/lib/systemd/systemd", "/usr/bin/containerd-shim-runc-v2"])
def test_who_ends_processes_for_a_living_is_no_person(exe: str) -> None:
    record = audit(1, call(auid=4294967295).replace("/usr/bin/bash", exe))

    assert one([record, gunicorn(1.5, sigkill(415))]).cause == "unknown"


def test_the_master_that_ends_its_own_worker_is_no_person() -> None:
    record = audit(1.2, call(auid=4294967295).replace(" pid=7885", " pid=364"))
    kill = one([gunicorn(1, "WORKER TIMEOUT (pid:415)"), record, gunicorn(1.5, sigkill(415))])

    assert verdict(kill)[2:] == ("worker-timeout", "certain")


def test_systemctl_kill_ends_a_whole_unit() -> None:
    ended = systemd(1.2, "site.service: Main process exited, code=killed, status=9/KILL")
    kill = one([sudo(1, "/usr/bin/systemctl kill --signal=KILL site.service"), ended])

    assert (verdict(kill), kill.by) == ((None, "site.service", "manual", "likely"), "alice")


def test_the_main_process_is_known_by_its_invocation() -> None:
    running = Units((unit("site.service", "x", 364, invocation_id="abc"),))
    message = "site.service: Main process exited, code=killed, status=9/KILL"
    ended = entry(1.2, message, transport="journal", pid=1, extra=(("INVOCATION_ID", "abc"),))
    asked = sudo(1, "/usr/bin/kill -9 364")

    assert verdict(one([asked, ended], units=running)) == (364, "site.service", "manual", "likely")
    assert verdict(one([ended], units=running)) == (364, "site.service", "unknown", "guess")


def test_who_pressed_sysrq_is_told() -> None:
    opened = kernel(1.1, "kworker/2:2 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0")
    pressed, victim = kernel(1, "sysrq: Manual OOM execution"), dump(1.2, 5)[3]
    asked = sudo(0.9, "/usr/bin/tee /proc/sysrq-trigger")
    low = earlyoom(0.9, "low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%")
    kill = one([asked, pressed, opened, victim])

    assert (kill.cause, kill.confidence, kill.by) == ("manual", "certain", "alice")
    kill = one([low, pressed, opened, victim])
    assert (kill.cause, kill.confidence, kill.by) == ("userspace-oom", "certain", "earlyoom")
    assert len(kill.evidence) == 4


def test_sudo_speaks_with_its_callers_uid_but_with_roots_capabilities() -> None:
    asked, dead = sudo(1, "/usr/bin/kill -9 415", uid=1000, capable=True), gunicorn(1.5, sigkill(415))

    assert (one([asked, dead]).cause, one([asked, dead]).by) == ("manual", "alice")


@pytest.mark.parametrize("exe", SUDO)
def test_every_sudo_whose_lines_are_fetched_is_believed(exe: str) -> None:
    asked = entry(9, f"{START}/usr/bin/kill -9 415", transport="syslog", identifier="sudo", exe=exe, uid=1000, capable=True)
    kill = one([asked, gunicorn(10, sigkill(415))])

    assert (kill.cause, kill.confidence, kill.by) == ("manual", "likely", "alice")
    assert f"_EXE={exe} " in f"{SYSTEM_MATCHES} "


def test_the_sudos_of_ubuntu_25_10_are_among_them() -> None:
    """https://packages.ubuntu.com/questing/sudo-rs: /usr/bin/sudo leads to /usr/lib/cargo/bin/sudo, the other is sudo.ws."""
    assert {"/usr/bin/sudo.ws", "/usr/lib/cargo/bin/sudo", "/usr/bin/sudo-rs"} <= set(SUDO)
