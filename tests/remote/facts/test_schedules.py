from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts.schedules import SCHEDULES, Schedule, parse
from tests.remote.facts.recorded import SHELLS, asked, recorded


def test_a_real_server() -> None:
    found = parse(recorded("debian12/facts/schedules.txt"))
    assert found.all == (
        Schedule("teaching_panel", "/etc/cron.d/restart_site:2", "*/5 * * * *", tests_memory=True),
        Schedule("teaching_panel", "crontab of root", "*/5 * * * *", tests_memory=True),
        Schedule("celery", "crontab of root", "@reboot", tests_memory=False),
        Schedule("redis-server.service", "bounce.timer", "OnCalendar=*-*-* 03:00:00, OnBootSec=7min", tests_memory=False),
    )
    assert found.unread == ()


def test_without_rights_it_says_what_was_not_read() -> None:
    assert parse(recorded("debian12/facts/schedules-unprivileged.txt")).unread == ("/var/spool/cron/crontabs",)


@pytest.mark.parametrize(
    ("command", "units"),
    [
        ("systemctl restart x", ["x"]),
        ("/usr/bin/systemctl --no-block -q try-restart x.service y", ["x.service", "y"]),
        ("sudo systemctl reload-or-restart 'x' && echo done", ["x"]),
        ("service nginx restart >/dev/null 2>&1", ["nginx"]),
        ("/etc/init.d/redis force-restart", ["redis"]),
        ("S=x; systemctl restart ${S}.service", ["x.service"]),
        ("systemctl restart $UNKNOWN", []),
        ("systemctl status x", []),
        ("echo restart x", []),
    ],
)
def test_what_a_line_restarts(command: str, units: list[str]) -> None:
    found = parse(f"cron\t/etc/cron.d/a\t3\t0 4 * * 1-5 root {command}\n")
    assert [schedule.unit for schedule in found.all] == units
    assert {schedule.where for schedule in found.all} <= {"/etc/cron.d/a:3"}
    assert not any(schedule.tests_memory for schedule in found.all)


def test_a_script_is_looked_into_once() -> None:
    output = "user\t/var/spool/cron/crontabs/joe\t1\t@hourly /opt/a.sh /opt/missing.sh\n"
    output += 'script\t/opt/a.sh\t2\tused=$(free -m)\nscript\t/opt/a.sh\t3\tsystemctl restart "x"\nscript\t/opt/b.sh\t1\tservice y restart\n'
    assert parse(output).all == (Schedule("x", "crontab of joe", "@hourly", tests_memory=True),)


def test_lines_that_are_no_schedule() -> None:
    assert parse("cron\t/etc/crontab\t1\tSHELL=/bin/sh\ncron\t/etc/crontab\t2\tsystemctl restart x\nnoise\n").all == ()


@given(
    st.text(),
    st.sampled_from(["", "cron\t/a\t1\t* * * * * root ", "timer\t", "service\tExecStart=systemctl restart ", "script\t"]),
)
def test_no_text_breaks_it(text: str, start: str) -> None:
    parse(start + text)


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine(shell: tuple[str, ...], tmp_path: Path) -> None:
    output = asked(SCHEDULES, shell, tmp_path)
    assert all("\t" in line or line.startswith("unread ") or not line for line in output.split("\n"))
    parse(output)
