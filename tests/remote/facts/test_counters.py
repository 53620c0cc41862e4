from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.facts.counters import COUNTERS, Counters, parse
from remote.facts.memory import OWN_MEMORY, Memory
from tests.remote.facts.contained import MARKS, standing_in
from tests.remote.facts.recorded import SHELLS, asked

HEAD = "boot 13fd44b4-e264-44b3-965a-45d2fcc94e63\n"


def counters(output: str) -> Counters:
    found = parse(output)
    assert isinstance(found, Counters)
    return found


def world(root: Path, name: str, top: str = "") -> Path:
    """A cgroup file system with units, a container, a slice and what is the user's own."""
    for number, group in enumerate(
        (
            "system.slice",
            "system.slice/web.service",
            "system.slice/system-w.slice/w@1.service",
            "system.slice/docker-ab12.scope",
            "kubepods.slice/kubepods-x.slice/pod1.slice/cri-1.scope",
            "user.slice",
            "user.slice/user-1000.slice",
            "user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
        )
    ):
        folder = root / top / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"oom 9\noom_kill {number}\noom_group_kill 8\n")
    return root


def run(shell: tuple[str, ...], root: Path) -> Counters:
    script = COUNTERS.script.replace("/sys/fs/cgroup", str(root))
    done = subprocess.run([*shell, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    return counters(done.stdout.decode())


SYSTEM = {
    "/system.slice": 0,
    "/system.slice/web.service": 1,
    "/system.slice/system-w.slice/w@1.service": 2,
    "/system.slice/docker-ab12.scope": 3,
    "/kubepods.slice/kubepods-x.slice/pod1.slice/cri-1.scope": 4,
    "/user.slice": 5,
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("name", "hierarchical"), [("memory.events.local", False), ("memory.events", True)])
def test_cgroups_of_version_2(shell: tuple[str, ...], name: str, hierarchical: bool, tmp_path: Path) -> None:  # noqa: FBT001
    world(tmp_path, name)
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    found = run(shell, tmp_path)
    assert (found.groups, found.hierarchical) == (SYSTEM, hierarchical)


@pytest.mark.parametrize("shell", SHELLS)
def test_cgroups_of_version_1(shell: tuple[str, ...], tmp_path: Path) -> None:
    found = run(shell, world(tmp_path, "memory.oom_control", "memory"))
    assert (found.groups, found.hierarchical) == (SYSTEM, False)


@pytest.mark.parametrize("shell", SHELLS)
def test_local_counts_are_taken_where_there_are_both(shell: tuple[str, ...], tmp_path: Path) -> None:
    world(world(tmp_path, "memory.events.local"), "memory.events")
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    assert run(shell, tmp_path).hierarchical is False


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_counts_or_says_why_not(shell: tuple[str, ...], tmp_path: Path) -> None:
    found = COUNTERS.parse(asked(COUNTERS, shell, tmp_path))
    if isinstance(found, Unreadable):
        assert found.kind == "unsupported"
    else:
        assert len(found.boot_id) == 32


def test_without_any_counter_it_says_so() -> None:
    for groups in ("groups -\n", "groups memory.oom_control /sys/fs/cgroup/memory\n"):
        found = parse(HEAD + groups)
        assert isinstance(found, Unreadable)
        assert found.kind == "unsupported"


def test_a_name_that_plays_tricks_counts_for_nobody() -> None:
    root = "/sys/fs/cgroup"
    lines = [
        f"{root}/system.slice/a",
        f"{root}/system.slice/b/memory.events.local:oom_kill 5",
        f"x/{root}/system.slice/c/memory.events.local:oom_kill 6",
        f"{root}/system.slice/../d/memory.events.local:oom_kill 7",
        f"{root}/system.slice/e/memory.events.local:oom_kill 1/memory.events.local:oom_kill 8",
    ]
    found = counters(f"{HEAD}oom_kill 3\ngroups memory.events.local {root}\n" + "\n".join(lines) + "\n")
    assert found.oom_kills == 3
    assert found.groups == {"/system.slice/b": 5, "/system.slice/e/memory.events.local:oom_kill 1": 8}


@pytest.mark.parametrize("output", ["", HEAD, "oom_kill 1\ngroups a /b\n", f"{HEAD}oom_kill x\ngroups a /b\n"])
def test_what_is_not_understood_is_unparsable(output: str) -> None:
    with pytest.raises(Unparsable):
        parse(output)


@given(st.text(), st.sampled_from(["", f"{HEAD}groups x /y\n", f"{HEAD}oom_kill 1\ngroups memory.events /y\n/y/"]))
def test_no_text_breaks_it(text: str, start: str) -> None:
    try:
        parse(start + text)
    except Unparsable:
        return


def contained(shell: tuple[str, ...], root: Path, mark: str) -> Counters:
    script = standing_in(COUNTERS.script, root, mark)
    done = subprocess.run([*shell, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    return counters(done.stdout.decode())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("mark", MARKS)
def test_a_container_counts_its_own_kills_and_not_its_nodes(shell: tuple[str, ...], mark: str, tmp_path: Path) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cgroup.controllers").write_text("memory\n")
    (tmp_path / "cgroup/memory.events").write_text("low 0\noom 4\noom_kill 2\n")
    world(tmp_path / "cgroup", "memory.events.local")

    found = contained(shell, tmp_path, mark)
    assert found.oom_kills == (2 if mark else 57)
    assert {group: found.groups[group] for group in SYSTEM} == SYSTEM


@pytest.mark.parametrize("mark", MARKS)
def test_a_container_of_cgroups_of_version_1_has_no_count_for_all(mark: str, tmp_path: Path) -> None:
    world(tmp_path / "cgroup", "memory.oom_control", "memory")
    found = contained(("sh",), tmp_path, mark)
    assert (found.oom_kills, found.groups) == (None if mark else 57, SYSTEM)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("mark", MARKS)
def test_the_memory_of_a_container_tells_its_own_count(shell: tuple[str, ...], mark: str, tmp_path: Path) -> None:
    (tmp_path / "cgroup").mkdir()
    for counted in (None, 2):
        if counted is not None:
            (tmp_path / "cgroup/memory.events").write_text(f"oom 4\noom_kill {counted}\n")
        script = standing_in(OWN_MEMORY.script, tmp_path, mark)
        done = subprocess.run([*shell, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        found = OWN_MEMORY.parse(done.stdout.decode())
        assert isinstance(found, Memory)
        assert found.oom_kills == (counted if mark else 57)
        assert found.total_bytes > 0
