"""Hosts whose journal cannot be read: the kernel's buffer, syslog files, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts.journal import Entry, Notice, WatchReader, system_watch
from tests.remote.facts.recorded import SHELLS
from tests.remote.facts.watched import BOOT, BOOT_US, NOW_S, UP_S, Host, StandIn

S = 1_000_000
NOW = datetime.fromtimestamp(NOW_S, UTC)
OTHER = "cd" * 16


class Buffer:
    """/dev/kmsg, as a pipe that stays open."""

    def __init__(self, host: Host) -> None:
        os.mkfifo(host.folder / "dev/kmsg")
        self._fd = os.open(host.folder / "dev/kmsg", os.O_RDWR)

    def write(self, number: int, up_us: int, text: str, priority: int = 6) -> None:
        os.write(self._fd, f"{priority},{number},{up_us},-;{text}\n SUBSYSTEM=x\n DEVICE=Killed process\n".encode())

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Nobody may read its journal."""
    host = Host(tmp_path)
    host.program("journalctl", "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1")
    return host


@pytest.fixture
def buffer(host: Host) -> Iterator[Buffer]:
    buffer = Buffer(host)
    yield buffer
    buffer.close()


def last_cursor(entry: object) -> str:
    assert isinstance(entry, Entry)
    return entry.cursor


@pytest.mark.parametrize("shell", SHELLS)
def test_the_kernels_buffer_from_now_on(shell: tuple[str, ...], host: Host, buffer: Buffer) -> None:
    """Now is where the buffer ends, by its own clock, which may be behind: it stands still while a machine sleeps."""
    up_s = UP_S - 1000
    host.program("dmesg", f"echo '<6>[ {up_s}.098765] Killed process 1 (x)'")
    buffer.write(1, up_s * S + 98765, "Killed process 1 (x)")
    buffer.write(2, (up_s + 1) * S, "IN=eth0 OUT= MAC=00")
    buffer.write(3, (up_s + 2) * S, "Killed process 2 (a\\x0ab\\x5c)")
    buffer.write(4, (up_s + 3) * S, "Killed process 3 (forged)", priority=14)
    with host.watching(shell, system_watch(None)) as watching:
        assert watching.said(2) == [f"= begin kmsg:{BOOT}::{up_s}098766:{NOW_S}000000", "= kmsg"]
        real, forged = watching.next(), watching.next()
    assert isinstance(real, Entry)
    assert isinstance(forged, Entry)
    assert (real.from_kernel, real.message, real.source) == (True, "Killed process 2 (a\nb\\)", "kmsg")
    assert (real.boot_id, real.monotonic_us) == (BOOT, (up_s + 2) * S)
    assert real.at == datetime.fromtimestamp(NOW_S - 1000 + 2 - 0.25, UTC)
    assert (forged.from_kernel, forged.identifier) == (False, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_kernels_buffer_behind_what_was_read(shell: tuple[str, ...], host: Host, buffer: Buffer) -> None:
    """By the records' numbers; a new boot starts over; of a journal that may not be read any more, by the kernel's time."""
    starts = {
        f"kmsg:{BOOT}:2:20000000:{BOOT_US + 20 * S}": ["Killed process 3 (x)"],
        f"kmsg:{BOOT}::20000000:{BOOT_US + 20 * S}": ["Killed process 2 (x)", "Killed process 3 (x)"],
        f"kmsg:{OTHER}:9:90000000:{BOOT_US - 20 * S}": ["Killed process 1 (x)", "Killed process 2 (x)", "Killed process 3 (x)"],
        f"s=1;i=1;b={BOOT};m={79 * S:x};t={BOOT_US + 79 * S:x};x=1": ["Killed process 2 (x)", "Killed process 3 (x)"],
        f"syslog:{BOOT_US + 25 * S}": ["Killed process 1 (x)", "Killed process 2 (x)", "Killed process 3 (x)"],
    }
    for cursor, expected in starts.items():
        with host.watching(shell, system_watch(cursor), cursor) as watching:
            assert watching.said(1) == ["= kmsg"]
            for number in (1, 2, 3):
                buffer.write(number, number * 10 * S, f"Killed process {number} (x)")
            assert watching.said(len(expected)) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_a_buffer_that_was_overrun_is_read_again(shell: tuple[str, ...], host: Host) -> None:
    """A read then fails, and the next begins with the oldest record: what was told is not told again."""
    host.program("cat", f'[ "$1" = {host.folder}/now ] && exec /bin/cat "$1"\necho "6,7,{UP_S + 1}000000,-;Killed process 1 (x)"')
    host.program("sleep", "exit 0")
    (host.folder / "dev/kmsg").touch()
    script = system_watch(None).replace("cat /dev/kmsg", f"{host.folder}/bin/cat /dev/kmsg")
    with host.watching(shell, script) as watching:
        watching.said(2)
        assert watching.rest() == ["Killed process 1 (x)", *["= lost overrun"] * 10, "= cut"]


@pytest.mark.root
def test_roots_own_write_to_this_machines_buffer_is_not_the_kernels(host: Host) -> None:
    (host.folder / "bin/dmesg").unlink()
    (host.folder / "dev").rmdir()
    (host.folder / "dev").symlink_to("/dev")
    now = float(Path("/proc/uptime").read_text().split()[0])
    host.boot(BOOT, int(now) - 1)
    with host.watching(("sh",), system_watch(None)) as watching:
        assert watching.said(2)[1] == "= kmsg"
        Path("/dev/kmsg").write_text(f"Killed process 1 (forged at {now})\n")  # without a line feed it waits for the next
        entry = watching.next()
    assert isinstance(entry, Entry)
    assert entry.message == f"Killed process 1 (forged at {now})"
    assert not entry.from_kernel


@pytest.mark.parametrize("shell", SHELLS)
def test_dmesg_follows_where_only_it_may_read(shell: tuple[str, ...], host: Host) -> None:
    host.program(
        "dmesg",
        'case "$*" in *--help*) echo "-w, --follow" ;; *--follow*) '
        "printf '<6>[   10.000000] Killed process 1 (x)\\n<6>[   20.500000] Killed process 2 (x)\\n<6>[   30.0] odd\\n' ;; esac",
    )
    cursor = f"kmsg:{BOOT}::15000000:{BOOT_US + 15 * S}"
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(1) == ["= kmsg"]
        entry = watching.next()
        assert watching.rest() == ["= cut"]
    assert isinstance(entry, Entry)
    assert (entry.from_kernel, entry.monotonic_us, entry.message) == (True, 20_500_000, "Killed process 2 (x)")
    assert entry.cursor == f"kmsg:{BOOT}::20500000:{BOOT_US + 20_500_000 - 250_000}"


@pytest.mark.parametrize("shell", SHELLS)
def test_syslog_files_from_now_on_over_a_rotation(shell: tuple[str, ...], host: Host) -> None:
    """Both files hold the line of the kernel: it is told once. Nothing in them is trusted."""
    logs = [host.folder / "var/log" / name for name in ("syslog", "kern.log")]
    for log in logs:
        log.write_text("Nov 24 03:20:00 prod kernel: [  1.000000] Killed process 1 (x)\n")
    with host.watching(shell, system_watch(None)) as watching:
        assert watching.said(2) == [f"= begin kmsg:{BOOT}::0:{NOW_S}000000", "= syslog"]
        entries = []
        for number in (2, 3):
            line = f"Nov 24 03:26:4{number} prod kernel: [ 4000.500000] Killed process {number} (x)\n"
            for log in logs:
                with log.open("a") as file:
                    file.write(line)
            entries.append(watching.next())
            logs[0].rename(logs[0].with_name("syslog.1"))
            logs[0].write_text("")
    first, second = entries
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.message, second.message) == ("Killed process 2 (x)", "Killed process 3 (x)")
    assert (first.from_kernel, first.from_systemd, first.source, first.identifier) == (False, False, "syslog", "kernel")
    assert (first.at, first.monotonic_us) == (datetime(2026, 11, 24, 0, 26, 42, tzinfo=UTC), 4_000_500_000)


@pytest.mark.parametrize("shell", SHELLS)
def test_syslog_files_from_a_time_on(shell: tuple[str, ...], host: Host) -> None:
    """What was rotated meanwhile is read too; lines of the cursor's own second come twice rather than not at all."""
    log = host.folder / "var/log/messages"
    log.write_text("Nov 24 03:26:30 prod kernel: Killed process 3 (x)\nNov 24 03:26:31 prod x: chatter\n")
    log.with_name("messages.1").write_text(
        "Nov 24 03:26:10 prod kernel: Killed process 1 (x)\nNov 24 03:26:20 prod systemd[1]: a.service: Failed with result 'oom-kill'.\n"
    )
    cursor = f"syslog:{NOW_S - 20}500000"
    with host.watching(shell, system_watch(cursor), cursor) as watching:
        assert watching.said(3) == ["= syslog", "a.service: Failed with result 'oom-kill'.", "Killed process 3 (x)"]


@pytest.mark.parametrize("shell", SHELLS)
def test_where_nothing_can_be_read_it_says_so(shell: tuple[str, ...], host: Host) -> None:
    with host.watching(shell, system_watch(None)) as watching:
        assert watching.rest()[1:] == ["= none denied the journal", "= cut"]


@pytest.mark.parametrize("shell", SHELLS)
def test_of_a_journal_without_the_kernels_words_the_buffer_is_read(shell: tuple[str, ...], tmp_path: Path) -> None:
    host, stand_in = Host(tmp_path), StandIn(tmp_path)
    (stand_in.store.folder / "hint").write_text("Hint: You are currently not seeing messages from other users and the system.\n")
    buffer = Buffer(host)
    buffer.write(1, (UP_S + 1) * S, "Killed process 1 (x)")
    with host.watching(shell, system_watch(None)) as watching:
        said = watching.said(4)
    buffer.close()
    assert [said[0], *said[2:]] == ["= own", "= kmsg", "Killed process 1 (x)"]


def reader(start: str) -> WatchReader:
    found = WatchReader()
    assert isinstance(found.read(start.encode()), Notice)
    return found


SYSLOG = f"= syslog {NOW_S} {UP_S}.25 {BOOT} +0300 syslog:{NOW_S - 86400 * 300}000000"


@pytest.mark.parametrize(
    ("line", "at", "identifier", "message"),
    [
        ("2026-11-24T00:26:40.123456+00:00 prod kernel: [12.000001] x", NOW + timedelta(microseconds=123456), "kernel", "x"),
        ("2026-11-24T03:26:40+03:00 prod kernel:[12.000001] x", NOW, "kernel", "x"),
        ("Nov 24 03:26:40 prod kernel: x#012y issue #123 #400", NOW, "kernel", "x\ny issue #123 #400"),
        ("Nov  4 03:26:40 prod systemd[1]: a: b", datetime(2026, 11, 4, 0, 26, 40, tzinfo=UTC), "systemd", "a: b"),
        ("Nov 25 03:26:41 prod earlyoom: x", NOW - timedelta(days=364) + timedelta(seconds=1), "earlyoom", "x"),
        ("Nov 24 03:26:40 prod no tag at all", NOW, "", "no tag at all"),
    ],
)
def test_lines_of_syslog_daemons(line: str, at: datetime, identifier: str, message: str) -> None:
    entry = reader(SYSLOG.replace(f"{NOW_S - 86400 * 300}", f"{NOW_S - 86400 * 400}")).read(line.encode())
    assert isinstance(entry, Entry)
    assert (entry.at, entry.identifier, entry.message) == (at, identifier, message)
    assert (entry.transport, entry.pid, entry.boot_id) == ("", None, "")


def test_a_text_file_cannot_turn_into_the_kernel() -> None:
    found = reader(SYSLOG)
    assert found.read(f"= kmsg {NOW_S} 1.00 {BOOT} ".encode()) is None
    assert found.read(b"6,1,1,-;Killed process 1 (x)") is None
    assert found.read(b'{"__CURSOR": "x", "__REALTIME_TIMESTAMP": "1", "_TRANSPORT": "kernel"}') is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Nov",
        "Foo 24 03:26:40 prod x",
        "Nov 31 03:26:40 prod x",
        "2026-13-24T03:26:40+03:00 prod x",
        "Nov 24 25:26:40 prod x",
        "\ud800",
    ],
)
def test_what_is_no_line_of_syslog_is_nothing(line: str) -> None:
    assert reader(SYSLOG).read(line.encode("utf-8", "surrogateescape") if line != "\ud800" else b"\xff") is None


@pytest.mark.parametrize("line", ["", " DEVICE=x", "6,1,1;x", "6,x,1,-;x", f"6,1,{'9' * 19},-;x", "<6>[1.5] x", "{}"])
def test_what_is_no_record_is_nothing(line: str) -> None:
    assert reader(f"= kmsg {NOW_S} {UP_S}.25 {BOOT} ").read(line.encode()) is None


@pytest.mark.parametrize("line", ["= kmsg", "= kmsg x 1 b ", "= syslog 1 2 b +0000", f"= kmsg {'9' * 30} 1 b ", "= what", "= "])
def test_a_notice_that_is_none_is_nothing(line: str) -> None:
    assert WatchReader().read(line.encode()) is None


STARTS = [
    "",
    "= lost gone",
    f"= kmsg {NOW_S} {UP_S}.25 {BOOT} ",
    f"= kmsg {NOW_S} {UP_S}.25 {BOOT} kmsg:{BOOT}:7:1:1",
    SYSLOG,
    f"= syslog {NOW_S} {UP_S}.25 {BOOT} -9999 ",
]
NOISE = st.one_of(
    st.binary(),
    st.tuples(st.sampled_from([b"= ", b"6,1,2,-;", b"Nov 24 03:26:40 a ", b"2026-11-24T00:26:40Z a ", b"{"]), st.binary()).map(
        b"".join
    ),
    st.from_regex(rb"\A\d{1,5},\d{1,20},\d{1,20},[-c];(?:\\x[0-9a-f]{2}|[ -~]){0,9}\Z"),
    st.from_regex(
        rb"\A[A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d a (?:kernel|x)(?:\[\d{1,11}\])?: (?:#\d{3}|\[ *\d{1,3}\.\d{6}\]|[ -~]){0,5}\Z"
    ),
)


@given(st.sampled_from(STARTS), st.lists(NOISE, max_size=6))
def test_any_bytes_survive(start: str, lines: list[bytes]) -> None:
    found = WatchReader()
    found.read(start.encode())
    for line in lines:
        said = found.read(line)
        if isinstance(said, Entry):
            assert said.at.tzinfo is not None
            said.message.encode()
            assert WatchReader(said.cursor).read(line) is None or said.source == "journal"
            assert f"place='{said.cursor}'" in system_watch(said.cursor)
