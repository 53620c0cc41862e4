from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.facts.witness import Living, Main, Witness, parse, witness
from tests.remote.facts.contained import MARKS, standing_in
from tests.remote.facts.recorded import SHELLS, asked

BOOT = "13fd44b4e26444b3965a45d2fcc94e63"
HEAD = "boot 13fd44b4-e264-44b3-965a-45d2fcc94e63\nuptime 1646.96\n"
UNITS = """unit MainPID=812
unit Id=web.service
unit ControlGroup=/system.slice/web.service
killed 3
unit InvocationID=45544d85b61a4b1dab62b6c8e362ebb4
unit
unit MainPID=0
unit Id=gone.service
unit ControlGroup=
unit InvocationID=
unit
unit MainPID=0
unit Id=ended.service
unit ControlGroup=
unit InvocationID=55544d85b61a4b1dab62b6c8e362ebb4
"""


def seen(output: str, *units: str) -> Witness:
    found = parse(output, units)
    assert isinstance(found, Witness)
    return found


def test_what_the_host_says() -> None:
    told = f"{HEAD}oom_kill 7\nhz 100\npid 1 25 /init.scope\npid 29697 72154 -\n{UNITS}"
    found = seen(told.replace("unit\n", "unit \n"), "alias.service", "gone.service", "ended.service")

    assert (found.boot_id, found.uptime_s, found.oom_kills) == (BOOT, 1646.96, 7)
    assert found.living == {1: Living(250_000, "/init.scope"), 29697: Living(721_540_000, "")}
    assert found.mains == {
        "alias.service": Main("web.service", "45544d85b61a4b1dab62b6c8e362ebb4", 812, "/system.slice/web.service"),
        "ended.service": Main("ended.service", "55544d85b61a4b1dab62b6c8e362ebb4", 0, ""),
    }
    assert found.unit_oom_kills == {"alias.service": 3}


def test_without_units_and_pids_it_is_still_a_witness() -> None:
    found = seen(f"{HEAD}hz 100\n")
    assert (found.oom_kills, found.mains, found.living, found.unit_oom_kills) == (None, {}, {}, {})
    assert "systemctl" not in witness((), (1,)).script.partition("exit 0\n}")[0].partition("set -- \n")[0]


def test_it_may_say_that_it_cannot_see() -> None:
    found = parse("! missing /proc/self/stat\n", ())
    assert isinstance(found, Unreadable)
    assert found.kind == "missing"


@pytest.mark.parametrize("output", ["", "boot x\n", f"{HEAD}pid 1 2\n", f"{HEAD}pid 1 25 /\n", f"{HEAD}hz 100\npid x 25 /\n"])
def test_what_is_not_understood_is_unparsable(output: str) -> None:
    with pytest.raises(Unparsable):
        parse(output, ())


@given(st.text(), st.sampled_from(["", HEAD, f"{HEAD}hz 100\npid ", f"{HEAD}unit Id=", f"{HEAD}hz 0\npid 1 1 /\n"]))
def test_no_text_breaks_it(text: str, start: str) -> None:
    try:
        parse(start + text, ("a.service",))
    except (Unparsable, ZeroDivisionError):
        return


@pytest.mark.parametrize("unit", ["", "-x", "a'b", "a b", "a;b", "a\nb", "é.service", "x" * 256, "$(id)", "*.service"])
def test_what_is_no_units_name_never_reaches_a_shell(unit: str) -> None:
    assert witness([unit, "a.service"], ()).script == witness(["a.service"], ()).script


@pytest.mark.parametrize("pid", [0, -1, 1 << 22])
def test_what_is_no_pid_never_reaches_a_shell(pid: int) -> None:
    assert witness((), [pid, 7]).script == witness((), [7]).script


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_bears_witness(shell: tuple[str, ...], tmp_path: Path) -> None:
    """A process with the worst of names lives, a zombie and a pid that nobody has do not."""
    script = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'a) b 1 \\nx'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as odd:
        assert odd.stdout is not None
        odd.stdout.readline()
        ended = subprocess.Popen(["true"])
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        fact = witness((), [odd.pid, ended.pid, 4_194_303, odd.pid])
        found = fact.parse(asked(fact, shell, tmp_path))
        ended.wait()
        odd.stdin.close() if odd.stdin else None

    assert isinstance(found, Witness)
    assert set(found.living) == {odd.pid}
    alive_us = time.clock_gettime(time.CLOCK_BOOTTIME) * 1e6 - found.living[odd.pid].started_us
    assert 0 < alive_us < 600e6
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_systemd_is_asked_for_the_units(shell: tuple[str, ...], tmp_path: Path) -> None:
    """A stand-in systemctl shows what it was asked; the units' own counters are read beside it."""
    (tmp_path / "cgroup/system.slice/web.service").mkdir(parents=True)
    (tmp_path / "cgroup/system.slice/web.service/memory.events.local").write_text("low 0\noom 4\noom_kill 3\n")
    stand_in = tmp_path / "systemctl"
    shown = UNITS.replace("killed 3\n", "").replace("unit ", "").replace("unit\n", "\n")
    stand_in.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/asked\ncat <<'END'\n{shown}END\n")
    stand_in.chmod(0o755)
    fact = witness(["web.service", r"w@a\x2db.service", "ended.service"], ())
    script = fact.script.replace("/sys/fs/cgroup", f"{tmp_path}/cgroup").replace("systemctl ", f"{stand_in} ")
    done = subprocess.run([*shell, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    found = fact.parse(done.stdout.decode())

    assert (tmp_path / "asked").read_text().split()[-4:] == ["--", "web.service", r"w@a\x2db.service", "ended.service"]
    assert isinstance(found, Witness)
    assert set(found.mains) == {"web.service", "ended.service"}
    assert found.unit_oom_kills == {"web.service": 3}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("mark", MARKS)
def test_a_container_bears_witness_of_its_own_kills(shell: tuple[str, ...], mark: str, tmp_path: Path) -> None:
    fact = witness((), ())
    (tmp_path / "cgroup").mkdir()
    for counted in (None, 2):
        if counted is not None:
            (tmp_path / "cgroup/memory.events").write_text(f"oom 4\noom_kill {counted}\n")
        script = standing_in(fact.script, tmp_path, mark)
        done = subprocess.run([*shell, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        found = fact.parse(done.stdout.decode())
        assert isinstance(found, Witness)
        assert found.oom_kills == (counted if mark else 57)
