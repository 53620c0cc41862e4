from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.facts.memory import MEMORY, SCRIPT, Memory, Pressure, parse
from tests.remote.facts.recorded import SHELLS, asked, recorded


def test_a_real_server() -> None:
    memory = parse(recorded("debian12/facts/memory.txt"))
    assert isinstance(memory, Memory)
    assert memory.total_bytes == 2074890240
    assert 0 < memory.available_bytes < memory.total_bytes
    assert memory.pressure is not None
    assert memory.oom_kills is not None
    assert memory.swap_used_bytes == 0


def test_every_number_is_where_it_belongs() -> None:
    output = (
        "MemTotal: 100\nMemAvailable: 25\nSwapTotal: 8\nSwapFree: 4\nsome avg10=1.50\nfull avg10=0.25\noom_kill 7\nuptime 12.50\n"
    )
    memory = parse(output)
    assert memory == Memory(102400, 25600, 8192, 4096, Pressure(1.5, 0.25), 7, 12.5)
    assert isinstance(memory, Memory)
    assert memory.used_percent == 75.0
    assert memory.swap_used_bytes == 4096


def test_an_old_kernel_has_no_psi_and_no_counter() -> None:
    memory = parse("MemTotal: 100\nMemAvailable: 25\nSwapTotal: 0\nSwapFree: 0\nuptime 1\n")
    assert isinstance(memory, Memory)
    assert memory.pressure is None
    assert memory.oom_kills is None


@pytest.mark.parametrize(
    ("output", "kind"),
    [("MemTotal: 100\nSwapTotal: 0\nSwapFree: 0\nuptime 1\n", "unsupported"), ("! missing /proc/meminfo\n", "missing")],
)
def test_what_cannot_be_read_says_why(output: str, kind: str) -> None:
    answer = parse(output)
    assert isinstance(answer, Unreadable)
    assert answer.kind == kind


@pytest.mark.parametrize(
    "output", ["", "MemTotal:\n", "MemTotal: x\nMemAvailable: 1\nuptime 1\n", "MemTotal: 1\nMemAvailable: 1\n"]
)
def test_anything_else_is_unparsable(output: str) -> None:
    with pytest.raises(Unparsable):
        parse(output)


@given(st.text())
def test_no_text_breaks_it(output: str) -> None:
    try:
        parse(output)
    except Unparsable:
        return


@pytest.mark.parametrize("shell", SHELLS)
def test_psutil_and_the_script_agree(shell: tuple[str, ...], tmp_path: Path) -> None:
    told = parse(asked(MEMORY, shell, tmp_path))
    assert MEMORY.local is not None
    here = MEMORY.local()
    assert isinstance(told, Memory)
    assert isinstance(here, Memory)
    assert abs(told.available_bytes - here.available_bytes) < 0.2 * told.total_bytes
    assert 0 <= here.uptime_s - told.uptime_s < 60
    assert (told.pressure is None) == (here.pressure is None)
    moving = replace(here, available_bytes=told.available_bytes, uptime_s=told.uptime_s, pressure=told.pressure)
    assert replace(moving, swap_free_bytes=told.swap_free_bytes, oom_kills=told.oom_kills) == told


def test_used_of_nothing_is_nothing() -> None:
    assert Memory(0, 0, 0, 0, None, None, 0.0).used_percent == 0.0


@pytest.mark.parametrize("contained", [False, True])
def test_a_container_of_systemd_s_is_not_told_its_node_s_kills(contained: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 57\n")
    (tmp_path / "memory.events").write_text("oom 4\noom_kill 2\n")
    if contained:
        (tmp_path / "container").touch()
    script = SCRIPT.replace("/proc/vmstat", f"{tmp_path}/vmstat").replace("/sys/fs/cgroup", str(tmp_path))
    script = script.replace("/run/systemd/container", f"{tmp_path}/container")
    found = parse(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout)
    assert isinstance(found, Memory)
    assert found.oom_kills == (2 if contained else 57)
