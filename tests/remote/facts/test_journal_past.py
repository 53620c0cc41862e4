"""What `kills_since` brings from a host: everything that counts, whatever else was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remote.facts.base import Unreadable
from remote.facts.journal import Entry, Journal, kills_since
from remote.services import tellings
from tests.remote.facts.recorded import RECORDED, SHELLS
from tests.remote.facts.watched import BOOT, BOOT_US, KERNEL, NOW_S, UP_S, Host, Log, Real, StandIn

S = 1_000_000
NOW = datetime.fromtimestamp(NOW_S, UTC)
FACT = kills_since(NOW - timedelta(hours=24), tellings())
STARTED = {"_PID": "1", "_TRANSPORT": "journal", "MESSAGE_ID": "39f53479d3a045ac8e11786248231fbf"}

pytestmark = pytest.mark.parametrize("shell", SHELLS)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


def found(host: Host, shell: tuple[str, ...]) -> Journal:
    answer = FACT.parse(host.answer(shell, FACT.script))
    assert isinstance(answer, Journal), answer
    return answer


def messages(journal: Journal) -> list[str]:
    return [entry.message for entry in journal.entries]


def fill(stand_in: StandIn, lines: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    """Many entries at once, a millisecond apart."""
    with stand_in.store.path().open("a") as file:
        for number, (message, fields) in enumerate(lines, start=1):
            up_us = 10 * S + number * 1000
            at_us = BOOT_US + up_us
            cursor = f"s={'ab' * 16};i={number:x};b={BOOT};m={up_us:x};t={at_us:x};x={number:x}"
            entry = {
                "__CURSOR": cursor,
                "__REALTIME_TIMESTAMP": str(at_us),
                "__MONOTONIC_TIMESTAMP": str(up_us),
                "_BOOT_ID": BOOT,
            }
            file.write(json.dumps(entry | {"MESSAGE": message} | dict(fields)) + "\n")


def kill(pid: int, group: str, *, rows: int = 3, summary: bool = True, uid: int = 0) -> list[tuple[str, Mapping[str, str]]]:
    """A kill as the kernel tells it."""
    table = [
        (f"[{pid + row:7d}] {uid:5d} {pid + row:5d}     1111      222    33333        0             0 x", KERNEL)
        for row in range(rows)
    ]
    line = f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg={group},task_memcg={group},task=x,pid={pid},uid={uid}"
    victim = f"Memory cgroup out of memory: Killed process {pid} (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:{uid} pgtables:4kB oom_score_adj:0"
    opened = [("x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", KERNEL), *table]
    return [*(opened if summary else []), *([(line, KERNEL)] if summary else []), (victim, KERNEL)]


WEB = "/system.slice/web.service"
STAGED = "/user.slice/user-1000.slice/session-3.scope"


@pytest.mark.parametrize("make", [pytest.param(StandIn, id="stand-in"), pytest.param(Real, id="real", marks=pytest.mark.openssh)])
@pytest.mark.parametrize("kind", ["gunicorn-oom", "celery-oom", "systemd-oomd", "stop-timeout"])
def test_of_a_recorded_kill_all_its_signs_are_found(
    shell: tuple[str, ...], host: Host, make: Callable[[Path], Log], kind: str
) -> None:
    log = make(host.folder)
    recorded = [json.loads(line) for line in (RECORDED / f"debian12/journal/{kind}.jsonl").read_bytes().splitlines()]
    if isinstance(log, StandIn):
        log.store.path().write_bytes((RECORDED / f"debian12/journal/{kind}.jsonl").read_bytes())
    elif isinstance(log, Real):
        log.fill(recorded)
    told = messages(found(host, shell))
    for wanted in (
        "Killed process",
        "Worker (pid",
        "WorkerLostError",
        "exited with 'signal",
        "timed out. Killing",
        "Main process exited",
    ):
        said = [str(entry["MESSAGE"]) for entry in recorded if wanted in str(entry["MESSAGE"])]
        assert [message for message in told if wanted in message] == said


def test_a_real_kill_among_ten_thousand_staged_ones(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    """Staged before and after it, with the kernel's summary and, since that is rate-limited, without."""
    real = [
        *kill(7, WEB, rows=40),
        ("web.service: A process of this unit has been killed by the OOM killer.", STARTED | {"UNIT": "web.service"}),
    ]
    staged = [line for n in range(5000) for line in kill(1000 + n, STAGED, uid=1000, summary=n % 2 == 0)]
    noise = ("session-3.scope: A process of this unit has been killed by the OOM killer.", STARTED | {"UNIT": "session-3.scope"})
    fill(stand_in, [*staged, *real, *staged, *[noise] * 4000])
    journal = found(host, shell)
    told = messages(journal)
    for message, _ in real:
        assert message in told
    assert journal.partial == "cut"
    assert sum("uid=1000" in message for message in told) == 500
    assert len(told) < 12_000


def test_a_victim_without_a_summary_is_told(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    fill(stand_in, [*kill(7, WEB, summary=False), *kill(8, WEB, summary=False, uid=1000), *kill(7, WEB, summary=False)])
    assert sum("Killed process 7" in message for message in messages(found(host, shell))) == 2
    assert sum("Killed process 8" in message for message in messages(found(host, shell))) == 1


def test_a_name_cannot_pass_for_another_victim(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    """A user's process called `,pid=7,uid=0` is his own kill, whose flood does not take the real one's room."""
    evil = [(text.replace("task=x,", "task=,pid=7,uid=0,"), fields) for text, fields in kill(9, STAGED, uid=1000)]
    fill(stand_in, [*kill(7, WEB), *evil * 800])
    told = messages(found(host, shell))
    assert sum("Killed process 7" in message for message in told) == 1


def test_a_flood_of_one_process_does_not_hide_another(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    master = {"_TRANSPORT": "stdout", "_SYSTEMD_UNIT": "web.service", "_PID": "10", "_SYSTEMD_INVOCATION_ID": "cd" * 16}
    worker = master | {"_PID": "11"}
    session = master | {"_SYSTEMD_UNIT": "session-3.scope", "_PID": "12", "_SYSTEMD_INVOCATION_ID": "ef" * 16}
    lines = [("[CRITICAL] WORKER TIMEOUT (pid:11)", master), *[("[INFO] Booting worker with pid: 12", master)] * 500]
    fill(stand_in, [*lines, *[("GET /?WORKER TIMEOUT (pid:1)", worker), ("WORKER TIMEOUT (pid:2)", session)] * 5000])
    journal = found(host, shell)
    told = messages(journal)
    assert (told.count("[CRITICAL] WORKER TIMEOUT (pid:11)"), told.count("[INFO] Booting worker with pid: 12")) == (1, 300)
    assert (told.count("GET /?WORKER TIMEOUT (pid:1)"), told.count("WORKER TIMEOUT (pid:2)")) == (300, 0)
    assert journal.partial == "cut"


@pytest.mark.parametrize("make", [pytest.param(StandIn, id="stand-in"), pytest.param(Real, id="real", marks=pytest.mark.openssh)])
def test_who_wrote_first_in_an_invocation_is_its_main_process(
    shell: tuple[str, ...], host: Host, make: Callable[[Path], Log]
) -> None:
    """Where the start is still in the journal: of a vacuumed one the first line left may be a worker's."""
    log = make(host.folder)
    invocations = {name: f"{number}" * 32 for number, name in enumerate(("web", "old", "quiet"), start=1)}
    fields = {
        name: {"_TRANSPORT": "stdout", "_SYSTEMD_UNIT": f"{name}.service", "_SYSTEMD_INVOCATION_ID": invocation}
        for name, invocation in invocations.items()
    }
    log.write("Started web.service - Web.", STARTED | {"INVOCATION_ID": invocations["web"]}, up_us=1 * S)
    log.write("Starting gunicorn", fields["web"] | {"_PID": "10"}, up_us=2 * S)
    log.write("GET / WORKER TIMEOUT (pid:1)", fields["old"] | {"_PID": "99"}, up_us=3 * S)
    log.write("WORKER TIMEOUT (pid:11)", fields["web"] | {"_PID": "10"}, up_us=4 * S)
    log.write("nothing to tell", fields["quiet"] | {"_PID": "30"}, up_us=5 * S)
    assert found(host, shell).first_writers == {invocations["web"]: 10}


@pytest.mark.parametrize("version", ["219 -PCRE2", "241 -PCRE2"])
def test_older_journals_tell_too(shell: tuple[str, ...], host: Host, stand_in: StandIn, version: str) -> None:
    (stand_in.store.folder / "version").write_text(f"systemd {version}\n")
    fill(stand_in, [*kill(7, WEB), ("IN=eth0 OUT=", KERNEL), ("nothing", {"_TRANSPORT": "stdout"})])
    assert len(messages(found(host, shell))) == len(kill(7, WEB))


def test_the_last_cursor_is_there_to_go_on_from(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    fill(stand_in, kill(7, WEB))
    cursor = stand_in.write("chatter", {"_TRANSPORT": "stdout"}, up_us=3000 * S)
    assert found(host, shell).last_cursor == cursor


def denied(host: Host) -> None:
    host.program("journalctl", "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1")


def test_without_a_journal_the_kernels_buffer_tells(shell: tuple[str, ...], host: Host) -> None:
    denied(host)
    host.program(
        "dmesg",
        "echo '<6>[   10.000000] Killed process 7 (x)'; echo '<6>[   11.000000] IN=eth0'; echo '<14>[ 12.000000] Killed process 8 (x)'",
    )
    journal = found(host, shell)
    assert (messages(journal), journal.partial) == (["Killed process 7 (x)", "Killed process 8 (x)"], "dmesg")
    assert [entry.from_kernel for entry in journal.entries] == [True, False]
    assert [entry.boot_id for entry in journal.entries] == [BOOT, BOOT]


def test_without_a_kernels_buffer_syslog_files_tell(shell: tuple[str, ...], host: Host) -> None:
    denied(host)
    line = "Nov 24 03:2{}:00 prod kernel: [ 1.000000] Killed process {} (x)\n= last\n= dmesg 1 1 x\n<6>[ 1.000000] Killed process 9 (x)\n"
    (host.folder / "var/log/syslog").write_text(line.format(5, 8))
    (host.folder / "var/log/syslog.1").write_text(line.format(1, 7) + "Nov 20 03:20:00 prod kernel: Killed process 1 (x)\n")
    (host.folder / "var/log/kern.log").write_text(line.format(5, 8))
    journal = found(host, shell)
    assert (messages(journal), journal.partial) == (["Killed process 7 (x)", "Killed process 8 (x)"], "syslog")
    assert {(entry.source, entry.from_kernel) for entry in journal.entries} == {("syslog", False)}


def test_without_anything_it_says_why(shell: tuple[str, ...], host: Host) -> None:
    denied(host)
    answer = FACT.parse(host.answer(shell, FACT.script))
    assert isinstance(answer, Unreadable)
    assert answer.kind == "denied"


def test_ones_own_messages_and_the_kernels_buffer(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    (stand_in.store.folder / "hint").write_text("Hint: You are currently not seeing messages from other users and the system.\n")
    stand_in.write("WORKER TIMEOUT (pid:1)", {"_TRANSPORT": "stdout"}, up_us=10 * S)
    host.program("dmesg", "echo '<6>[   20.000000] Killed process 7 (x)'")
    journal = found(host, shell)
    assert (messages(journal), journal.partial) == (["WORKER TIMEOUT (pid:1)", "Killed process 7 (x)"], "own dmesg")


def test_entries_are_sorted_and_their_times_aware(shell: tuple[str, ...], host: Host, stand_in: StandIn) -> None:
    fill(stand_in, [*kill(7, WEB), *kill(8, WEB)])
    entries: tuple[Entry, ...] = found(host, shell).entries
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    assert all(entry.at.tzinfo for entry in entries)
    assert UP_S > 0
