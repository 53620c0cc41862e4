from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.errors import Unparsable
from remote.facts.host import MACHINE, Machine, parse
from tests.remote.facts.recorded import SHELLS, asked, recorded


def machine(output: str) -> Machine:
    found = parse(output)
    assert isinstance(found, Machine)
    return found


def test_a_real_server() -> None:
    found = machine(recorded("debian12/facts/machine.txt"))
    assert (found.hostname, found.distribution) == ("prod", "Debian GNU/Linux 12 (bookworm)")
    assert (found.cgroup_version, found.systemd_version) == (2, 252)
    assert (found.uid, found.root, found.journal) == (0, "uid", "all")
    assert found.memory_bytes == 2074890240
    assert found.clock_s > 1.7e9


def test_without_rights() -> None:
    found = machine(recorded("debian12/facts/machine-unprivileged.txt"))
    assert (found.root, found.journal) == ("no", "own")
    assert found.uid > 0


def test_without_systemd() -> None:
    found = machine(recorded("cgroup-v1/machine.txt"))
    assert (found.cgroup_version, found.systemd_version, found.journal) == (1, None, "none")


@pytest.mark.parametrize(
    "output", ["", "boot_id b\nuid x\nclock 1\nmemory 1\n", "boot_id b\nuid 0\nclock 1\nmemory 1\nroot maybe\n", "boot_id b\n"]
)
def test_anything_else_is_unparsable(output: str) -> None:
    with pytest.raises(Unparsable):
        parse(output)


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    for output in (text, recorded("cgroup-v1/machine.txt") + text):
        try:
            parse(output)
        except Unparsable:
            continue


@pytest.mark.parametrize(
    ("complaint", "journal"),
    [
        ("", "all"),
        ("Hint: You are currently not seeing messages from other users and the system.", "own"),
        ("No journal files were opened due to insufficient permissions.", "own"),
        ("No journal files were found.", "none"),
        ("Failed to open root directory: No such file or directory", "none"),
    ],
)
def test_a_journal_that_may_not_be_read_is_there(complaint: str, journal: str, tmp_path: Path) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\necho '{complaint}' >&2\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", MACHINE.script], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert machine(done.stdout).journal == journal


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine(shell: tuple[str, ...], tmp_path: Path) -> None:
    found = machine(asked(MACHINE, shell, tmp_path))
    assert found.uid == os.getuid()
    assert found.hostname == os.uname().nodename
    assert found.kernel == os.uname().release
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
