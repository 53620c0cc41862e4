from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.facts.journal import (
    Entry,
    Journal,
    Notice,
    Speaker,
    WatchReader,
    kills_since,
    parse,
    parse_entry,
    programs_watch,
    system_watch,
    unit_log,
)
from remote.services import tellings
from tests.remote.facts.recorded import RECORDED, SHELLS, asked, recorded

CURSOR = "s=36f4;i=241;b=9f87;m=1e0d;t=660fa390ed6ff;x=6a94"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def journal(output: str) -> Journal:
    found = parse(output)
    assert isinstance(found, Journal)
    return found


def line(**fields: object) -> bytes:
    entry = {
        "__CURSOR": CURSOR,
        "__REALTIME_TIMESTAMP": "1795477675628287",
        "__MONOTONIC_TIMESTAMP": "31513332",
        "_BOOT_ID": "9f87",
    }
    return json.dumps(entry | fields).encode()


def test_a_real_server() -> None:
    found = journal(recorded("debian12/facts/kills.txt"))
    assert found.partial == ""
    assert found.last_cursor.startswith("s=36f4be6a")
    kernel = [entry for entry in found.entries if entry.from_kernel]
    assert any("Killed process 945 (python3)" in entry.message for entry in kernel)
    forged = [entry for entry in found.entries if entry.message == "Out of memory: Killed process 1 (x)"]
    assert len(forged) == 1
    assert not forged[0].from_kernel
    result = next(entry for entry in found.entries if entry.from_systemd and "Failed with result" in entry.message)
    assert ("UNIT_RESULT", "oom-kill") in result.extra
    assert result.unit == "oomtest.service"
    assert [entry.at for entry in found.entries] == sorted(entry.at for entry in found.entries)


def test_without_rights_it_says_that_others_are_hidden() -> None:
    found = journal(recorded("debian12/facts/kills-unprivileged.txt"))
    assert found.partial == "own"
    assert not found.entries


@pytest.mark.parametrize("path", sorted((RECORDED / "debian12/journal").glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_recorded_line_is_an_entry(path: Path) -> None:
    entries = [parse_entry(text) for text in path.read_bytes().splitlines()]
    assert entries
    for entry in entries:
        assert entry is not None
        assert entry.message
        assert entry.transport


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("plain", "plain"),
        (None, ""),
        ([104, 105, 255], "hi\ufffd"),
        (["one", "two"], "one"),
        ([None, "two"], "two"),
        ([[104, 105], "two"], "hi"),
        ([], ""),
        ([300, "x"], "x"),
        ({"a": 1}, ""),
        (True, ""),
        ("half \ud800", "half ?"),
    ],
)
def test_a_value_may_have_any_shape(value: object, message: str) -> None:
    entry = parse_entry(line(MESSAGE=value))
    assert entry is not None
    assert entry.message == message


def test_trusted_fields_and_kernel_time() -> None:
    entry = parse_entry(
        line(_TRANSPORT="kernel", SYSLOG_FACILITY="0", _SOURCE_MONOTONIC_TIMESTAMP="34320316", _PID="x", _UID="9" * 30, UNIT="u")
    )
    assert entry is not None
    assert entry.from_kernel
    assert (entry.monotonic_us, entry.pid, entry.uid, entry.unit) == (34320316, None, None, "u")
    assert entry.at == datetime(2026, 11, 23, 23, 47, 55, 628287, tzinfo=UTC)
    user = parse_entry(line(_TRANSPORT="kernel", SYSLOG_FACILITY="1"))
    assert user is not None
    assert not user.from_kernel


@pytest.mark.parametrize(
    "text",
    [b"", b"= lost", b"[]", b"nul", b"{}", b"[" * 9999, line(__REALTIME_TIMESTAMP="9" * 20), line(__CURSOR=""), b"\xff\xfe"],
)
def test_what_is_no_entry_is_none(text: bytes) -> None:
    assert parse_entry(text) is None


@given(st.binary())
def test_any_bytes_of_a_message_survive(message: bytes) -> None:
    entry = parse_entry(line(MESSAGE=list(message)))
    assert entry is not None
    assert entry.message == message.decode("utf-8", "replace")
    entry.message.encode()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8)


@given(
    st.dictionaries(st.sampled_from(["MESSAGE", "_PID", "__CURSOR", "__REALTIME_TIMESTAMP", "UNIT_RESULT"]), JSON), st.binary()
)
def test_no_line_breaks_it(fields: dict[str, object], noise: bytes) -> None:
    parse_entry(noise)
    parse_entry(line(**fields))


@given(st.text(), st.sampled_from(["", "= dmesg ", "= last\n", "= own\n"]))
def test_no_text_breaks_it(text: str, start: str) -> None:
    try:
        parse(start + text)
    except Unparsable:
        return


def test_an_entry_found_twice_is_one_and_the_last_cursor_is_not_an_entry() -> None:
    text = line(MESSAGE="m").decode()
    last = line(__CURSOR="s=2", _TRANSPORT="x").decode()
    found = journal(f"= volatile\n= last\n{last}\n= entries\n{text}\n{text}\n= cut\n")
    assert (len(found.entries), found.last_cursor, found.partial) == (1, "s=2", "volatile cut")


def test_older_entries_are_left_out() -> None:
    output = "= entries\n" + line(MESSAGE="m").decode()
    for shift, count in ((-1, 1), (1, 0)):
        answer = kills_since(
            datetime(2026, 11, 23, 23, 47, 55, 628287, tzinfo=UTC) + timedelta(microseconds=shift), tellings()
        ).parse(output)
        assert isinstance(answer, Journal)
        assert len(answer.entries) == count


def test_without_a_journal_the_kernels_buffer_is_read() -> None:
    lines = "<3>[   12.500000] Out of memory: Killed process 1 (x)\n<12>[   13.000000] Killed process 2 (forged)\nother\n"
    found = journal("= dmesg 1000 100.50 9f87-71\n" + lines)
    real, forged = found.entries
    assert real.from_kernel
    assert not forged.from_kernel
    assert (real.boot_id, real.monotonic_us, found.partial) == ("9f8771", 12500000, "dmesg")
    assert real.at == datetime(1970, 1, 1, 0, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("clock", ["", "1 2", "a b c", f"{'9' * 39} 1 b"])
def test_a_broken_clock_is_unparsable(clock: str) -> None:
    with pytest.raises(Unparsable):
        parse(f"= dmesg {clock}\n")


def test_no_journal_says_so() -> None:
    for kind in ("missing", "denied"):
        answer = kills_since(LONG_AGO, tellings()).parse(f"! {kind} the journal\n")
        assert isinstance(answer, Unreadable)
        assert answer.kind == kind


@pytest.mark.parametrize("unit", ["x.service", "w@1.service", "a\\x2db.service", "user@0.service", "dbus-:1.2@0.service"])
def test_a_units_name_is_quoted(unit: str) -> None:
    assert f"-u '{unit}'" in unit_log(unit, 20).script


@pytest.mark.parametrize("unit", ["", "-x", "a'b", "a b", "a;b", "a\nb", "é.service", "x" * 256, "$(id)"])
def test_what_is_no_units_name_never_reaches_a_shell(unit: str) -> None:
    with pytest.raises(ValueError, match="not a unit's name"):
        unit_log(unit, 20)


@pytest.mark.parametrize("unit", ["", "-x", "a'b", "a b", "a;b", "a\nb", "é.service", "x" * 256, "$(id)"])
def test_no_speaker_brings_anything_into_a_shell(unit: str) -> None:
    with pytest.raises(ValueError, match="not a unit's name"):
        programs_watch(None, [Speaker(unit, 1)], tellings())


@pytest.mark.parametrize("pid", [0, -1, 1 << 22])
def test_no_speaker_has_an_impossible_pid(pid: int) -> None:
    with pytest.raises(ValueError, match="not a pid"):
        programs_watch(None, [Speaker("a.service", pid)], tellings())


@pytest.mark.parametrize("telling", ["", "a'b", 'a"b', "a\\b", "a\nb", "é", "x" * 401, "a(b", "[a"])
def test_no_telling_brings_anything_into_a_shell(telling: str) -> None:
    with pytest.raises((ValueError, re.error)):
        programs_watch(None, [Speaker("a.service", 1)], [telling])
    with pytest.raises((ValueError, re.error)):
        kills_since(LONG_AGO, [telling])


def test_a_caller_may_say_what_tells_of_the_past() -> None:
    assert "programs='one [(]1[)]|two'" in kills_since(LONG_AGO, ["one [(]1[)]", "two"]).script


def test_a_reader_tells_each_entry_of_a_run_once() -> None:
    reader = WatchReader(CURSOR)
    other = line(__CURSOR="s=1;i=2", MESSAGE="m")
    assert reader.read(line(MESSAGE="the cursor's own")) is None
    assert isinstance(reader.read(other), Entry)
    assert reader.read(other) is None
    assert reader.read(b"= lost gone") == Notice("lost", "gone")


def test_a_reader_knows_where_it_began() -> None:
    reader = WatchReader()
    assert reader.read(f"= begin {CURSOR}".encode()) == Notice("begin", CURSOR)
    assert reader.read(line(MESSAGE="before")) is None


@pytest.mark.parametrize(
    ("cursor", "since_s"),
    [
        (CURSOR, int("660fa390ed6ff", 16) // 1_000_000 - 60),
        ("kmsg:9f87:12:345:1795480000000000", 1_795_479_940),
        ("kmsg:9f87::345:1795480000000000", 1_795_479_940),
        ("syslog:1795480000000000", 1_795_479_940),
        ("syslog:1", 0),
    ],
)
def test_a_cursor_of_any_kind_says_when_it_was(cursor: str, since_s: int) -> None:
    for script in (system_watch(cursor), programs_watch(cursor, (), tellings())):
        assert f"since={since_s}\n" in script


@given(st.text() | st.from_regex(r"(?:kmsg|syslog):[0-9a-f:;' ]*") | st.from_regex(r"[a-z]=[0-9a-f;=' ]*"))
def test_no_cursor_brings_anything_into_a_shell(cursor: str) -> None:
    for script, plain in (
        (system_watch(cursor), system_watch(None)),
        (programs_watch(cursor, (), tellings()), programs_watch(None, (), tellings())),
    ):
        assert [script.count(char) for char in "'\"$`\\\n"] == [plain.count(char) for char in "'\"$`\\\n"]


def test_a_reader_forgets_what_was_long_ago() -> None:
    reader = WatchReader()
    for number in range(9000):
        assert isinstance(reader.read(line(__CURSOR=f"s=1;i={number:x}")), Entry)
    assert len(reader._seen) < 9000
    assert reader.read(line(__CURSOR=f"s=1;i={8999:x}")) is None


@pytest.mark.parametrize(("lines", "asked_for"), [(0, "-n 1 "), (20, "-n 20 "), (9999, "-n 500 ")])
def test_the_number_of_lines_is_kept_in_bounds(lines: int, asked_for: str) -> None:
    assert asked_for in unit_log("x.service", lines).script


def test_a_watch_starts_a_minute_before_a_lost_cursor() -> None:
    script = system_watch(CURSOR)
    assert f"cursor='{CURSOR}'" in script
    assert f"since={int('660fa390ed6ff', 16) // 1_000_000 - 60}\n" in script


@pytest.mark.parametrize("cursor", [None, "", "x'; id; '", "s=1", f"{CURSOR}\n"])
def test_no_cursor_or_a_false_one_starts_from_now(cursor: str | None) -> None:
    assert "cursor=''" in system_watch(cursor)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "script",
    [
        system_watch(None),
        system_watch(CURSOR),
        programs_watch(None, (), tellings()),
        programs_watch(CURSOR, [Speaker("a.service", 1), Speaker(r"b@\x2d.service", 2)], tellings()),
        kills_since(LONG_AGO, tellings()).script,
        unit_log("a.service", 1).script,
    ],
)
def test_every_shell_reads_the_scripts(shell: tuple[str, ...], script: str) -> None:
    assert subprocess.run([*shell, "-n", "-c", script], capture_output=True, check=True).stderr == b""


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_gives_a_journal_or_says_why_not(shell: tuple[str, ...], tmp_path: Path) -> None:
    fact = kills_since(datetime.now(UTC) - timedelta(hours=1), tellings())
    answer = fact.parse(asked(fact, shell, tmp_path))
    assert answer.kind in {"missing", "denied"} if isinstance(answer, Unreadable) else isinstance(answer, Journal)
