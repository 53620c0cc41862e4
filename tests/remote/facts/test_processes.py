from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.connect import Target, open_host
from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.facts.processes import PROCESSES, Process, Processes, parse
from tests.remote.facts.recorded import SHELLS, asked, recorded


def processes(output: str) -> Processes:
    found = parse(output)
    assert isinstance(found, Processes)
    return found


def by_pid(found: Processes, pid: int) -> Process:
    return next(process for process in found.all if process.pid == pid)


def test_a_real_server() -> None:
    found = processes(recorded("debian12/facts/processes.txt"))
    assert found.boot_id == "9f870fe871b944079020073e4a17f244"
    worker = next(process for process in found.all if process.cgroup == "/system.slice/celery.service")
    assert worker.command.open()[:5] == ("python3", "/usr/bin/celery", "-A", "teaching_panel", "worker")
    assert (worker.user, worker.uid, worker.exe, worker.cwd) == ("www-data", 33, "/usr/bin/python3.11", "/srv/teaching_panel")
    assert worker.pss_bytes is not None
    assert worker.pss_bytes < worker.rss_bytes
    assert worker.memory_bytes == worker.pss_bytes
    sizes = [process.memory_bytes for process in found.all]
    assert sizes == sorted(sizes, reverse=True)


def test_without_rights_sizes_are_known_and_the_rest_is_not() -> None:
    found = processes(recorded("debian12/facts/processes-unprivileged.txt"))
    worker = next(process for process in found.all if process.cgroup == "/system.slice/celery.service")
    assert (worker.pss_bytes, worker.exe, worker.cwd) == (None, None, None)
    assert worker.memory_bytes == worker.rss_bytes > 0
    assert worker.command.open()


HOSTILE = "x) 1\n2 (y"
TRICKS = ["--a=1\np 1 1 1 0 1 1\nn root\n", "", "two  words", "mark=0\0"[:-1], "\x1b[31m", "é\udcff"]


@contextmanager
def hostile(directory: Path) -> Iterator[int]:
    """A process whose name, words and folder try to look like more than one."""
    folder = directory / "a\nl 1 0 0 0 x /proc/1/exe -> \\b c"
    folder.mkdir(parents=True)
    code = "import sys\nopen('/proc/self/comm', 'w').write(sys.argv[1])\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, HOSTILE, *TRICKS]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_hostile_process_stays_one_process(shell: tuple[str, ...], tmp_path: Path) -> None:
    with hostile(tmp_path) as pid:
        (tmp_path / "bin").mkdir()
        found = processes(asked(PROCESSES, shell, tmp_path / "bin"))
        one = by_pid(found, pid)
        assert one.name == HOSTILE
        assert list(one.command.open()[3:]) == [HOSTILE, *TRICKS]
        assert len({process.pid for process in found.all}) == len(found.all)
        assert all(process.exe is None or process.exe.startswith("/") for process in found.all)
        assert one.cwd is not None
        assert one.cwd.startswith(str(tmp_path))
        if shell != ("busybox", "sh"):  # its ls writes `?` for what it will not print
            assert one.cwd == str(Path(f"/proc/{pid}/cwd").readlink())


@pytest.mark.parametrize("shell", SHELLS)
def test_psutil_and_the_script_agree(shell: tuple[str, ...], tmp_path: Path) -> None:
    told = processes(asked(PROCESSES, shell, tmp_path))
    assert PROCESSES.local is not None
    here = PROCESSES.local()
    assert isinstance(here, Processes)
    assert told.boot_id == here.boot_id
    ours, theirs = by_pid(told, os.getpid()), by_pid(here, os.getpid())
    for name in ("pid", "ppid", "start_ticks", "name", "uid", "user", "cgroup", "exe", "cwd", "swap_bytes"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.command.open() == theirs.command.open()
    assert abs((ours.started_at - theirs.started_at).total_seconds()) <= 1
    assert abs(ours.rss_bytes - theirs.rss_bytes) < 0.2 * theirs.rss_bytes
    assert ours.pss_bytes is not None
    assert theirs.pss_bytes is not None
    assert abs(ours.pss_bytes - theirs.pss_bytes) < 0.2 * theirs.pss_bytes


def test_a_process_that_ends_while_it_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes
    ended: list[int] = []
    with subprocess.Popen(["sleep", "600"]) as mortal:

        def then_it_ends(path: Path) -> bytes:
            found = read(path)
            if str(path) == f"/proc/{mortal.pid}/status" and not ended:
                mortal.kill()
                ended.append(mortal.wait())
            return found

        monkeypatch.setattr(Path, "read_bytes", then_it_ends)
        assert PROCESSES.local is not None
        here = PROCESSES.local()

    assert ended
    assert isinstance(here, Processes)
    assert os.getpid() in {process.pid for process in here.all}
    assert mortal.pid not in {process.pid for process in here.all}


@contextmanager
def cut() -> Iterator[int]:
    """A process whose name and command line are cut in the middle of a character."""
    code = "import sys\nopen('/proc/self/comm', 'w').write('тестовыйсервер')\nprint(flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", code, "\udcff", "я" * 9000, "я" * 9001]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


async def test_a_name_that_is_cut_within_a_character_is_told_alike_by_every_channel() -> None:
    host = open_host(Target("local", "local"))
    by_script = replace(PROCESSES, local=None)
    with cut() as pid:
        here, there = (await host.ask(PROCESSES)).readable(PROCESSES), (await host.ask(by_script)).readable(by_script)
    await host.close()

    assert here is not None
    assert there is not None
    ours, theirs = by_pid(here, pid), by_pid(there, pid)
    assert ours.name == theirs.name == "тестовы\\xd0"
    assert ours.command.open() == theirs.command.open()
    assert "\\xff" in ours.command.open()


def answer(*, links: str = "", commands: str | None = None, mark: str = "m1") -> str:
    blob = f"PATH=/bin\0mark={mark}\0"
    body = f"{blob}{blob}a\0b\0{blob}" if commands is None else commands.replace("BLOB", blob)
    rows = "btime 100\np 7 1 250 33 2048 4\nn a\\\\b\\nc\nc /x\ns 7 1024\nu 33 www-data\nu 33 other\n"
    return f"boot b\nmark {mark}\n{rows}links {mark}\n{links}commands {mark}\n{body}"


def test_every_field_is_where_it_belongs() -> None:
    links = (
        "lrwxrwxrwx 1 33 33 0 Nov 23 23:44 /proc/7/exe -> /usr/bin/x\\ y (deleted)\n"
        "lrwxrwxrwx 1 33 33 0 Nov 23 23:44 /proc/7/cwd -> /srv/\\303\\251\\n\n"
    )
    one = processes(answer(links=links)).all[0]
    assert (one.pid, one.ppid, one.start_ticks, one.uid, one.user) == (7, 1, 250, 33, "www-data")
    assert one.started_at.timestamp() == 102.5
    assert (one.name, one.cgroup, one.exe, one.cwd) == ("a\\b\nc", "/x", "/usr/bin/x y", "/srv/é\n")
    assert (one.rss_bytes, one.swap_bytes, one.pss_bytes) == (2 << 20, 4096, 1 << 20)
    assert one.command.open() == ("a", "b")


def test_a_link_told_twice_is_not_believed() -> None:
    line = "lrwxrwxrwx 1 33 33 0 Nov 23 23:44 /proc/7/cwd -> /srv\n"
    assert processes(answer(links=line + line)).all[0].cwd is None


@pytest.mark.parametrize(
    ("commands", "argv"),
    [("BLOBBLOBBLOB", ()), ("BLOBBLOBtitle\0\0\0BLOB", ("title",)), ("BLOBBLOBx\0\0y\0BLOB", ("x", "", "y"))],
)
def test_command_lines(commands: str, argv: tuple[str, ...]) -> None:
    assert processes(answer(commands=commands)).all[0].command.open() == argv


@pytest.mark.parametrize(
    "output",
    [
        "",
        "what\n",
        "p 1 1\n",
        "p 1 1 99999999999999999999 0 1 1\nmark m\nlinks m\ncommands m\nmark=m\0mark=m\0x\0mark=m\0",
        answer(commands=""),
        answer(commands="BLOBBLOBx\0"),
        answer(commands="BLOBBLOBx\0BLOBy\0BLOB"),
        answer(commands="x"),
        answer().replace("commands m1", "commands m2"),
    ],
)
def test_anything_else_is_unparsable(output: str) -> None:
    with pytest.raises(Unparsable):
        parse(output)


def test_no_proc_says_so() -> None:
    assert isinstance(parse("! missing /proc/self/stat\n"), Unreadable)


@given(st.text(), st.integers(0, 200), st.integers(0, 50))
def test_no_text_breaks_it(text: str, at: int, cut: int) -> None:
    whole = answer()
    for output in (text, whole[:at] + text + whole[at + cut :]):
        try:
            parse(output)
        except Unparsable:
            continue
