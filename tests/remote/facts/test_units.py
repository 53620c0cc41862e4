from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.facts.units import Unit, Units, parse
from tests.remote.facts.recorded import SHELLS, asked, recorded

FRAGMENT = "/etc/systemd/system/celery.service"


def units(output: str) -> Units:
    found = parse(output)
    assert isinstance(found, Units)
    return found


def named(found: Units, name: str) -> Unit:
    unit = found.by_name(name)
    assert unit is not None
    return unit


def test_a_real_server() -> None:
    found = units(recorded("debian12/facts/units.txt"))
    celery = named(found, "celery")
    assert (celery.active, celery.enabled, celery.sub_state) == (True, True, "running")
    assert celery.control_group == "/system.slice/celery.service"
    assert celery.exec_start.open()[:3] == ("/usr/bin/celery", "-A", "teaching_panel")
    assert celery.environment.open() == ("DJANGO_SETTINGS_MODULE=teaching_panel.settings",)
    assert "teaching_panel" not in f"{celery!r}".replace("/srv/teaching_panel", "")
    assert celery.relations["WantedBy"] == ("multi-user.target",)
    assert celery.links == (("/etc/systemd/system/multi-user.target.wants/celery.service", FRAGMENT),)
    assert (celery.kill_mode, celery.oom_policy, celery.stop_timeout_s) == ("control-group", "stop", 90.0)
    assert celery.used_bytes is not None
    assert 20 << 20 < celery.used_bytes < 200 << 20
    assert celery.fragment_mtime_s > 1.7e9
    assert len(celery.settings_hash) == 64


def test_a_real_server_has_limits_and_stopped_units() -> None:
    found = units(recorded("debian12/facts/units.txt"))
    assert named(found, "teaching_panel.service").memory_max_bytes == 512 << 20
    assert named(found, "redis-server").stop_timeout_s is None  # infinity
    disabled = named(found, "console-getty.service")
    assert (disabled.active, disabled.enabled, disabled.used_bytes) == (False, False, None)
    assert named(found, "user@0.service").delegate


@pytest.mark.parametrize(
    ("name", "unit"), [("systemctl-show.txt", "celery_worker"), ("systemctl-show-oom-killed.txt", "hog@0.service")]
)
def test_what_systemctl_alone_prints_is_enough(name: str, unit: str) -> None:
    lines = recorded(f"debian12/{name}").splitlines()
    known = [line for line in lines if not line.startswith(("MemoryCurrent=", "ExecMain", "MemoryPeak=", "NMainPID="))]
    found = units("\n".join(known))
    assert {unit.load_state for unit in found.all} <= {"loaded", "masked"}
    assert found.by_name(unit) is not None


def show(**properties: str) -> str:
    values = {"Id": "x.service", "Names": "x.service", "LoadState": "loaded"} | properties
    return "".join(f"{name}={value}\n" for name, value in values.items())


@pytest.mark.parametrize(
    ("text", "limit"),
    [("infinity", None), ("[not set]", None), ("18446744073709551615", None), ("", None), ("536870912", 512 << 20), ("0", 0)],
)
def test_a_limit(text: str, limit: int | None) -> None:
    assert units(show(MemoryMax=text)).all[0].memory_max_bytes == limit


def test_the_old_limit_counts_where_there_is_no_new_one() -> None:
    assert units(show(MemoryMax="infinity", MemoryLimit="1024")).all[0].memory_max_bytes == 1024


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 30s", 90.0), ("infinity", None), ("500ms", 0.5), ("1d 2h 3min", 93780.0), ("90", None), ("", None), ("5s x", None)],
)
def test_a_stop_timeout(text: str, seconds: float | None) -> None:
    assert units(show(TimeoutStopUSec=text)).all[0].stop_timeout_s == seconds


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("{ path=/a ; argv[]=/a -b c ; ignore_errors=no ; start_time=[n/a] }", ("/a", "-b", "c")),
        ('{ path=/a ; argv[]=/a "b c" ; ignore_errors=no }', ("/a", "b c")),
        ("{ path=/a ; argv[]=/a it's ; ignore_errors=no }", ("/a", "it's")),
        ("{ path=/a ; argv[]=/a ; ignore_errors=no ; x ; ignore_errors=yes ; }", ("/a", ";", "ignore_errors=no", ";", "x")),
        ("{ path=/a ; argv[]=/a -c one\ntwo ; ignore_errors=no ; }", ("/a", "-c", "one", "two")),
        ("", ()),
    ],
)
def test_a_stopped_units_command(text: str, argv: tuple[str, ...]) -> None:
    assert units(show(ExecStart=text, Result="success")).all[0].exec_start.open() == argv


def test_a_line_feed_in_a_command_hides_no_unit() -> None:
    found = units(show(ExecStart="{ argv[]=/a -c one\n\ntwo=2 ; ignore_errors=no }") + "\n" + show(Id="y.service"))
    assert [unit.id for unit in found.all] == ["x.service", "y.service"]
    assert found.all[0].exec_start.open() == ("/a", "-c", "one", "two=2")


def test_environment_files_win_and_only_telling_names_are_kept() -> None:
    output = show(Environment='REDIS_URL=redis://a PASSWORD=p "BROKER_URL=b c"', EnvironmentFiles="/etc/x (ignore_errors=yes)")
    output += "= settings\n/etc/x:export REDIS_URL='redis://:pw@h'\n/etc/x:OTHER=1\n/etc/y:BROKER_URL=z\n"
    unit = units(output).all[0]
    assert unit.environment.open() == ("BROKER_URL=b c", "REDIS_URL=redis://:pw@h")
    assert "pw" not in str(unit)


def test_links_of_aliases_instances_and_by_hand() -> None:
    output = show(Id="w@1.service", Names="w@1.service alias.service") + "= links\n"
    for path, target in (
        ("/etc/systemd/system/multi-user.target.wants/w@1.service", "/etc/systemd/system/w@.service"),
        ("/etc/systemd/system/alias.service", "w@1.service"),
        ("/etc/systemd/system/nginx.service.wants/by\\\\x2dhand.service", "../w@1.service"),
        ("/run/systemd/system/other.service", "/dev/null"),
    ):
        output += f"lrwxrwxrwx 1 0 0 32 Nov 23 23:44 {path} -> {target}\n"
    links = units(output).all[0].links
    assert [path.rpartition("/")[2] for path, _ in links] == ["w@1.service", "alias.service", "by\\x2dhand.service"]


def test_an_alias_shown_again_is_one_unit_and_a_missing_one_none() -> None:
    found = units(show() + "\n" + show() + "\n" + show(Id="gone.service", LoadState="not-found"))
    assert [unit.id for unit in found.all] == ["x.service"]


def test_the_settings_hash_is_what_a_shell_can_compute() -> None:
    lines = ["\\ab  /etc/a\\\\x2db.service", "cd  /etc/d.conf"]
    output = show(FragmentPath="/etc/a\\x2db.service", DropInPaths="/etc/d.conf") + "= hashes\n" + "\n".join(lines) + "\n"
    expected = hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest()
    assert units(output).all[0].settings_hash == expected
    assert units(output.replace("cd  /etc/d.conf\n", "")).all[0].settings_hash == ""


@pytest.mark.parametrize(
    ("lines", "used"),
    [
        (
            [
                "/sys/fs/cgroup/s/x/memory.stat:anon 10",
                "/sys/fs/cgroup/s/x/memory.stat:shmem 2",
                "/sys/fs/cgroup/s/x/memory.stat:kernel 3",
            ],
            15,
        ),
        (["/sys/fs/cgroup/s/x/memory.stat:anon 10", "/sys/fs/cgroup/s/x/memory.stat:slab 4"], 14),
        (["/sys/fs/cgroup/memory/s/x/memory.stat:total_rss 7", "/sys/fs/cgroup/memory/s/x/memory.stat:total_shmem 1"], 8),
        ([], None),
    ],
)
def test_what_a_unit_uses(lines: list[str], used: int | None) -> None:
    assert units(show(ControlGroup="/s/x") + "= memory\n" + "\n".join(lines)).all[0].used_bytes == used


def test_the_longest_group_owns_and_users_own_nothing() -> None:
    one = show(Id="a.service", Names="a.service", ControlGroup="/system.slice/a.service")
    two = show(Id="d.service", Names="d.service", ControlGroup="/system.slice/d.service", Delegate="yes")
    found = units(one + "\n" + two)
    owner = found.of_cgroup("/system.slice/a.service/worker")
    assert owner is not None
    assert owner.id == "a.service"
    assert found.of_cgroup("/system.slice/a.service2") is None
    assert found.of_cgroup("/user.slice/user-1.slice/a.service") is None
    assert found.of_cgroup("/system.slice/d.service/inner") is None
    assert found.by_name("nobody") is None


def test_a_host_without_systemd() -> None:
    answer = parse("! unsupported systemd\n")
    assert isinstance(answer, Unreadable)
    assert answer.kind == "unsupported"


@pytest.mark.parametrize("output", ["", "= links\n", "what is this", show(MainPID="x"), show() + "= times\nx:/a\n"])
def test_anything_else_is_unparsable(output: str) -> None:
    with pytest.raises(Unparsable):
        parse(output)


@given(st.text(), st.integers(0, 70000), st.integers(0, 50))
def test_no_text_breaks_it(text: str, at: int, cut: int) -> None:
    whole = (
        show(ExecStart="{ argv[]=/a ; ignore_errors=no }", ControlGroup="/s/x", TimeoutStopUSec="1min") + "= hashes\n= links\n"
    )
    at %= len(whole)
    for output in (text, whole[:at] + text + whole[at + cut :]):
        try:
            parse(output)
        except Unparsable:
            continue


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_gives_units_or_says_why_not(shell: tuple[str, ...], tmp_path: Path) -> None:
    from remote.facts.units import UNITS

    answer = parse(asked(UNITS, shell, tmp_path))
    assert answer.kind == "unsupported" if isinstance(answer, Unreadable) else answer.all
