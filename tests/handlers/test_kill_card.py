"""What a killed process is told with: whole cards as people read them, and that nobody can spoil them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.chat._html import draw
from bot.chat.blockkit import blocks as slack_blocks
from bot.chat.blockkit import plain_text as slack_text
from bot.chat.blockkit import preview
from bot.chat.console import plain as console
from bot.i18n import LANGUAGES, plain, render
from handlers.cards.kill import LOUD, Past, kill_card, kill_data, past_of
from handlers.cards.timetable import ROWS, timetable
from handlers.cards.verdict import effect, killer, program, role
from handlers.reply import Line, Reply, Table, Title, dump_reply, load_reply, plain_json
from remote.findings.advice import WATCHDOG, Known, advice, remedy
from remote.findings.causes import Cause
from remote.findings.kill import Kill, Member
from remote.policy import GIB, MIB
from remote.text import Mono, T
from tests.handlers.ports import NOW
from tests.handlers.shown import flat, texts, words
from tests.handlers.worlds import kill

CAUSES: tuple[Cause, ...] = get_args(Cause)
VICTIM = "Memory cgroup out of memory: Killed process 689792 (gunicorn)"
FAMILY = tuple(Member(pid, "gunicorn", mib * MIB) for pid, mib in ((689792, 180), (689793, 178), (689794, 176), (689790, 50)))
RUNBOOK = kill(
    members=FAMILY,
    stopped_unit=True,
    evidence=(
        VICTIM,
        "teaching_panel.service: Failed with result 'oom-kill'.",
        "teaching_panel.service: Scheduled restart job, restart counter is at 1.",
    ),
)
HOSTILE = ("<!channel>", "</pre></code>", "```\n`x`", "a\nb\r\nc", "\u202eevil\u2066", "{host} {n}", "x" * 300, "")


def old(minutes: float, **more: Any) -> Kill:  # noqa: ANN401 - a Kill's fields
    return kill(at=NOW - timedelta(minutes=minutes), **more)


def body(kills: Sequence[Kill], **more: Any) -> list[str]:  # noqa: ANN401 - the card's options
    return words(kill_card("prod", kills, NOW, **more)).splitlines()


def test_the_runbooks_site_at_its_limit() -> None:
    assert body([RUNBOOK], past=Past(3, "import_orders")) == [
        "prod: gunicorn worker of teaching_panel.service was killed",
        "For it systemd stopped all of teaching_panel.service (OOMPolicy=stop) and started it again.",
        "Killed by the kernel: the memory limit of teaching_panel.service was reached",
        "3 workers of 178 MiB and a master of 50 MiB do not fit 512 MiB",
        "To do: fewer workers or a higher limit; OOMPolicy=continue lets the others live on.",
        "pid 689792, 13:59 UTC",
        "The third this week, always import_orders.",
        "This verdict is final.",
        "Who shared the memory",
        " RSS  process",
        "534M  gunicorn ×3",
        " 50M  gunicorn",
        "What the log says",
        *RUNBOOK.evidence,
        "[Top](/top prod) [Why](/why prod 689792)",
        "[Fix](/fix prod)",
    ]


def test_the_whole_machine_is_told_with_its_biggest() -> None:
    members = (
        Member(300, "postgres", 600 * MIB), *FAMILY, Member(201, "[celeryd: celer", 400 * MIB), Member(9, "node", 30 * MIB),
        Member(10, "node", 90 * MIB),
    )  # fmt: skip
    card = kill(300, name="postgres", unit="postgresql@15-main.service", cause="kernel-oom", members=members,
                limit_bytes=None, limit_group="", evidence=("Out of memory: Killed process 300 (postgres)",))  # fmt: skip
    assert body([card], machine_bytes=2 * GIB)[:6] == [
        "prod: PostgreSQL of postgresql@15-main.service was killed",
        "PostgreSQL then disconnects everybody and recovers.",
        "Killed by the kernel: the whole machine was out of memory",
        "The biggest on this machine of 2.0 GiB: PostgreSQL of 600 MiB, 3 workers of 178 MiB, celery of 400 MiB and 3 more",
        "To do: stop what is not needed, or cap what grew. It was the biggest, not always the guilty one.",
        "pid 300, 13:59 UTC",
    ]
    unknown = body([card])
    assert "The biggest were PostgreSQL of 600 MiB, 3 workers of 178 MiB, celery of 400 MiB and 3 more" in unknown


def test_a_timeout_is_no_oom_and_leads_to_the_log() -> None:
    said = advice(Known("worker-timeout", "gunicorn", "teaching_panel.service"))
    lines = ("[CRITICAL] WORKER TIMEOUT (pid:689792)", "Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?")
    hung = kill(cause="worker-timeout", limit_bytes=None, rss_bytes=None, limit_group="", advice=said, evidence=lines)
    assert body([hung]) == [
        "prod: gunicorn worker of teaching_panel.service was killed",
        "What it had in hand is lost; its master starts a new one.",
        "Killed by its own master: it hung longer than its timeout",
        plain(said),
        "pid 689792, 13:59 UTC",
        "This verdict is final.",
        "What the log says",
        *lines,
        "[Top](/top prod) [Why](/why prod 689792)",
        "[Log](/logs prod teaching_panel.service)",
    ]


def test_those_of_a_storm_whose_dump_the_kernel_left_away_are_not_told_apart() -> None:
    cut = [kill(pid, limit_group="", limit_bytes=None, at=NOW - timedelta(seconds=1)) for pid in (1, 2)]
    assert body([*cut, kill(3, at=NOW)])[:2] == [
        "prod: 3 gunicorn of teaching_panel.service were killed",
        "Killed by the kernel: the memory limit of teaching_panel.service was reached",
    ]
    of_two = body([*cut, kill(3, at=NOW), kill(4, limit_group="/apps.slice", at=NOW)])
    assert of_two[0] == "prod: 4 processes were killed", "whose limit it was is not known of the others"


def test_a_storm_of_thirty_is_one_card_that_names_each_pid() -> None:
    storm = [
        kill(1000 + n, at=NOW - timedelta(seconds=90 + n), evidence=(f"Killed process {1000 + n} (gunicorn)",)) for n in range(30)
    ]
    shown = body(storm)
    pids = ", ".join(str(1000 + n) for n in range(29))
    assert shown[:8] == [
        "prod: 30 gunicorn of teaching_panel.service were killed",
        "Killed by the kernel: the memory limit of teaching_panel.service was reached",
        "The biggest held 310 MiB, the limit of all is 512 MiB",
        "To do: fewer workers, or a higher limit.",
        f"pids {pids} and 1029, 14:00 UTC",
        "This verdict is final.",
        "What the log says",
        "Killed process 1000 (gunicorn)",
    ]
    assert "and 10 more lines" in shown


def test_of_a_hundred_sixty_pids_are_named_and_the_rest_counted() -> None:
    many = [kill(1000 + n, at=NOW - timedelta(seconds=n), evidence=()) for n in range(100)]
    [line] = [line for line in body(many, total=250) if line.startswith("pids ")]
    assert line.count(",") == 60
    assert line.endswith(" 1059 and 190 more, from 14:00 UTC to 14:02 UTC")
    assert body(many, total=250)[0] == "prod: 250 gunicorn of teaching_panel.service were killed"


def test_a_kill_that_only_a_counter_knows_is_said_as_such() -> None:
    said = advice(Known("cgroup-limit", "", "site.service", counted=True))
    one = kill(None, name="", unit="site.service", counted=True, evidence=(), rss_bytes=None, limit_bytes=None, advice=said)
    assert body([one]) == [
        "prod: 1 kill without a log line in site.service",
        "The kernel counted it, the log lost its line.",
        "The kernel counted a kill in site.service, but its line is lost: a log that is kept on disk and not cut would have it.",
        "13:59 UTC",
        "This verdict is final.",
        "[Top](/top prod) [Why](/why prod)",
        "[Fix](/fix prod)",
    ]
    assert body([one, one])[0] == "prod: 2 kills without a log line in site.service"
    assert body([replace(one, unit=None)])[0] == "prod: 1 kill without a log line"


def test_what_a_user_staged_in_his_own_session_is_a_calm_card() -> None:
    staged = [
        kill(pid, name="memhog", unit=None, staged=True, uid=1000, cgroup=f"/user.slice/u{pid}", limit_group=f"/u{pid}", evidence=())
        for pid in (7, 8)
    ]  # fmt: skip
    card = kill_card("prod", staged, NOW)
    assert words(card).splitlines() == [
        "prod: 2 memhog were killed",
        "It was in a user's own session (uid 1000), not a system service.",
        "Killed by the kernel: the memory limit of u7 was reached",
        "pids 7 and 8, 13:59 UTC",
        "This verdict is final.",
        "[Top](/top prod) [Why](/why prod)",
    ]
    assert "uid ?" in words(kill_card("prod", [replace(staged[0], uid=None)], NOW))


def test_what_was_missed_is_told_at_once_with_its_times() -> None:
    missed = [
        old(60, pid=11, evidence=()),
        old(125, pid=12, name="celery", unit="celery.service", cause="time-limit", doing="reports.build", evidence=()),
        old(60 * 20, pid=1234567, unit=None, name="python3", cause="unknown", confidence="guess", rss_bytes=None, evidence=()),
    ]
    assert body(missed) == [
        "prod: 3 processes were killed",
        "gunicorn of teaching_panel.service",
        "Killed by the kernel: the memory limit of teaching_panel.service was reached",
        "It held 310 MiB, the limit is 512 MiB",
        "To do: fewer workers, or a higher limit.",
        "celery of celery.service",
        "Killed by celery: reports.build ran over the time limit",
        "Nothing to do.",
        "python3",
        "Nothing says who killed it",
        "Nothing to do.",
        "The last one was 1 h ago.",
        "This verdict is final.",
        "  UTC  pid     by  process",
        "13:02   11  limit  teaching_panel",
        "11:57   12   long  celery",
        "22 Nov, 18:02 UTC and before",
        "  UTC      pid  by  process",
        "18:02  1234567   ?  python3",
        "limit: a memory limit was reached",
        "long: its task ran too long",
        "?: nobody knows",
        "[Top](/top prod) [Why](/why prod)",
        "[Fix](/fix prod)",
    ]


def test_one_that_is_late_says_how_late() -> None:
    assert "It was 2 h 57 min ago." in body([old(177)])
    assert "pid 689792, 11:05 UTC" in body([old(177)])


def test_kills_of_several_causes_are_told_one_after_the_other() -> None:
    stray = kill(7, unit=None, name="python3", cause="manual", confidence="likely", limit_bytes=None, cgroup="/user.slice")
    pair = [
        kill(8 + n, unit=None, name="node", cause="unknown", confidence="guess", rss_bytes=None, cgroup="/x") for n in range(2)
    ]
    many = [
        kill(20 + n, unit=f"u{n}.service", stopped_unit=True, rss_bytes=None, at=NOW - timedelta(minutes=4)) for n in range(4)
    ]
    shown = body([stray, *pair, *many])
    assert shown[0] == "prod: 7 processes were killed"
    assert "python3" in shown
    assert "Likely: Killed by a person or a script" in shown
    assert "2 node" in shown
    assert "pids 8 and 9, 13:59 UTC" in shown
    assert "For it systemd stopped all of u0.service (OOMPolicy=stop)." in shown
    assert "The limit is 512 MiB" in shown
    assert "and 2 earlier kills" in shown
    assert "pids 22 and 23, 13:58 UTC" in shown
    assert "and 5 earlier kills" in body([stray, *pair, *many], total=10)


def test_a_daemons_kill_of_a_whole_unit() -> None:
    all_of_it = kill(
        None, name="hog@0", unit="hog@0.service", cause="systemd-oomd", rss_bytes=None, limit_bytes=None, evidence=()
    )
    assert body([all_of_it])[:2] == [
        "prod: all of hog@0.service was killed",
        "Killed by systemd-oomd: too much memory pressure or swap",
    ]
    assert body([all_of_it, replace(all_of_it, monotonic_us=2)])[0] == "prod: all of hog@0.service was killed 2 times"
    assert {"all of hog@0.service", "gunicorn of teaching_panel.service"} <= set(body([all_of_it, kill()]))


@pytest.mark.parametrize("count", [1, 2, 21, 101])
def test_russian_tells_one_from_twenty_one(count: int) -> None:
    """Both have the same form there."""
    some = [kill(pid) for pid in range(count)]
    said = words(kill_card("prod", some, NOW, past=Past()), "ru")
    assert ("Занимал 310" in said, "Самый большой занимал 310" in said) == (count == 1, count > 1)
    unlimited = words(kill_card("prod", [replace(one, limit_bytes=None, limit_group="") for one in some], NOW), "ru")
    assert ("Занимал 310" in unlimited, "Самый большой занимал 310" in unlimited) == (count == 1, count > 1)
    assert ("последний 13:59" in said) == (count > 1)
    late = words(kill_card("prod", [old(177, pid=pid) for pid in range(count)], NOW), "ru")
    assert ("Это было" in late, "Последнее было" in late) == (count == 1, count > 1)


@pytest.mark.parametrize(
    ("count", "times"), [(1, ""), (2, ", 2 раза"), (5, ", 5 раз"), (21, ", 21 раз")], ids=["1", "2", "5", "21"]
)
def test_how_often_a_whole_unit_was_killed_is_told_in_russian(count: int, times: str) -> None:
    whole = kill(None, name="hog@0", unit="hog@0.service", cause="systemd-oomd", rss_bytes=None, limit_bytes=None, evidence=())
    all_of_them = [replace(whole, monotonic_us=n) for n in range(count)]
    assert words(kill_card("prod", all_of_them, NOW), "ru").splitlines()[0] == f"prod: убит весь hog@0.service{times}"
    assert f"весь hog@0.service{times}" in words(kill_card("prod", [*all_of_them, kill()], NOW), "ru").splitlines()


def test_a_worker_and_twenty_one_have_their_size_in_russian() -> None:
    workers = tuple(Member(100 + n, "gunicorn", 20 * MIB) for n in range(21))
    many = kill(100, members=(Member(10, "gunicorn", 5 * MIB), *workers))
    assert "21 рабочий процесс по 20\xa0МиБ" in words(kill_card("prod", [many], NOW), "ru")
    one = kill(100, members=(Member(10, "gunicorn", 50 * MIB), Member(100, "gunicorn", 400 * MIB)))
    assert "1 рабочий процесс 400\xa0МиБ" in words(kill_card("prod", [one], NOW), "ru")
    assert "1 worker of 400 MiB and a master of 50 MiB" in words(kill_card("prod", [one], NOW))


def test_a_process_that_nobody_has_named_yet() -> None:
    early = kill(None, name="site", unit="site.service", final=False, rss_bytes=None, limit_bytes=None, evidence=())
    assert body([early])[0] == "prod: a process of site.service was killed"
    assert body([early, early])[0] == "prod: 2 processes of site.service were killed"
    assert "a process of site.service" in body([early, kill()])


def test_a_group_that_was_killed_whole_is_not_called_workers() -> None:
    together = [kill(one.pid, members=FAMILY, evidence=()) for one in FAMILY]
    assert body(together)[0] == "prod: 4 gunicorn of teaching_panel.service were killed"
    assert body(together[:3])[0] == "prod: 3 gunicorn workers of teaching_panel.service were killed"
    # Of a storm the first report is whole, the later ones are cut.
    assert "3 workers of 178 MiB and a master of 50 MiB do not fit 512 MiB" in body([kill(1), *together[:1]])


def test_a_watchdog_is_no_slow_stop() -> None:
    hung = kill(cause="stop-timeout", evidence=("site.service: Watchdog timeout (limit 10s)!",))
    assert {
        "Killed by systemd: it gave no sign of life (WatchdogSec)",
        "Not memory: teaching_panel.service did not tell systemd in time that it is alive (WatchdogSec). Look for what it hung on.",
    } <= set(body([hung]))


def test_a_kill_without_a_pid_or_figures_is_told_too() -> None:
    one = kill(None, unit=None, rss_bytes=None, limit_bytes=None, evidence=(), cause="systemd-oomd", confidence="guess")
    assert body([one])[:4] == [
        "prod: gunicorn was killed",
        "A guess: Killed by systemd-oomd: too much memory pressure or swap",
        "To do: see who holds the memory, and stop what is not needed.",
        "13:59 UTC",
    ]
    assert "It held 310 MiB" in body([kill(limit_bytes=None)])
    assert "Killed by the kernel: a memory limit was reached" in body([kill(unit=None, limit_group="")])
    assert "from 13:56 UTC to 13:59 UTC" in body([one, replace(one, at=NOW - timedelta(minutes=6))])


def test_while_more_may_come_the_card_says_that_it_is_updated() -> None:
    assert "More evidence may still come; this message is updated." in body([kill(), kill(2, final=False)])


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"limit_group": "/apps.slice"}, "Killed by the kernel: the memory limit of apps.slice, which it is in, was reached"),
        ({"container": "ab" * 32}, "Killed by the kernel: the memory limit of container abababababab was reached"),
        ({"cause": "userspace-oom", "by": "nohang"}, "Killed by nohang, before memory was gone"),
        ({"cause": "userspace-oom"}, "Killed by an OOM daemon (earlyoom or its kind)"),
        ({"cause": "stop-timeout", "by": WATCHDOG}, "Killed by systemd: it gave no sign of life (WatchdogSec)"),
        ({"cause": "worker-timeout", "by": WATCHDOG}, "Killed by systemd: it gave no sign of life (WatchdogSec)"),
        ({"cause": "container", "container": "12" * 32}, "Killed by the stop or kill of container 121212121212"),
        ({"cause": "plan", "by": "K7QX"}, "Killed by plan K7QX, which somebody approved"),
        ({"cause": "manual", "by": "alice"}, "Killed by alice: by hand, or a script"),
        ({"cause": "manual", "by": "alice", "confidence": "likely"}, "Likely: Killed by alice: by hand, or a script"),
        ({"cause": "time-limit", "doing": "tasks.big"}, "Killed by celery: tasks.big ran over the time limit"),
        ({"cause": "unknown", "confidence": "guess"}, "Nothing says who killed it"),
    ],
)
def test_who_killed_it_is_named_where_it_is_known(more: dict[str, Any], line: str) -> None:
    assert plain(killer(kill(**more))) == line


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"stopped_unit": True}, "For it systemd stopped all of teaching_panel.service (OOMPolicy=stop)."),
        (
            {"evidence": ("site.service: Main process exited, code=killed, status=9/KILL",)},
            "It was the main process: teaching_panel.service went down.",
        ),
        (
            {"evidence": ("x: Main process exited, code=killed", "x: Scheduled restart job, restart counter is at 2.")},
            "It was the main process: teaching_panel.service went down, and systemd started it again.",
        ),
        ({"doing": "import_orders"}, "It was at work on import_orders."),
        ({"name": "gunicorn: worke"}, "What it had in hand is lost; its master starts a new one."),
        ({"name": "uwsgi", "cause": "worker-timeout"}, "What it had in hand is lost; its master starts a new one."),
        ({"name": "php-fpm8.2", "cause": "worker-timeout"}, "What it had in hand is lost; its master starts a new one."),
        ({"name": "node"}, None),
        ({"unit": None}, None),
    ],
)
def test_what_it_did_to_users(more: dict[str, Any], line: str | None) -> None:
    done = effect(kill(**more))
    assert (done and plain(done)) == line


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"name": "gunicorn: maste"}, "master"),
        ({"name": "gunicorn: worke"}, "worker"),
        ({"cause": "worker-timeout"}, "worker"),
        ({"evidence": ("[ERROR] Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?",)}, "worker"),
        ({"evidence": ("[ERROR] Worker (pid:1) was sent SIGKILL! Perhaps out of memory?",)}, ""),
        ({"evidence": ("Process 'ForkPoolWorker-1' pid:689792 exited with 'signal 9 (SIGKILL)'",)}, "worker"),
        ({"members": FAMILY}, "worker"),
        ({"members": FAMILY, "pid": 689790}, "master"),
        # Sizes that are alike, or a small one that is younger, show no master.
        ({"members": tuple(replace(one, rss_bytes=MIB) for one in FAMILY)}, ""),
        ({"members": tuple(replace(one, pid=700_000 - one.pid) for one in FAMILY)}, ""),
        ({"members": FAMILY[:1]}, ""),
        ({}, ""),
    ],
)
def test_which_part_it_had_is_said_only_with_a_sign(more: dict[str, Any], expected: str) -> None:
    assert role(kill(**more)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gunicorn", "gunicorn"), ("gunicorn: worke", "gunicorn"), ("[celeryd: celer", "celery"), ("celery", "celery"),
        ("postgres", "PostgreSQL"), ("redis-server", "Redis"), ("php-fpm8.2", "PHP-FPM"), ("uwsgi", "uWSGI"), ("nginx", "nginx"),
        ("python3.11", "python3.11"), ("Plex Media Serv", "Plex Media Serv"), ("", ""), ("12", "12"), ("a) b, pid=1", "a) b, pid=1"),
    ],
)  # fmt: skip
def test_programs_have_the_names_that_people_use(name: str, expected: str) -> None:
    assert program(name) == expected


@pytest.mark.parametrize(
    ("members", "limit_mib", "line"),
    [
        ((Member(1, "memhog", 99 * MIB),), 100, "memhog of 99 MiB alone filled the limit of 100 MiB"),
        (
            (Member(1, "node", 100 * MIB), Member(2, "node", 30 * MIB)),
            512,
            "In the limit of 512 MiB: 2 node of up to 100 MiB, and 382 MiB of files in memory and the kernel's",
        ),
        (
            (Member(5, "gunicorn", 300 * MIB), Member(6, "gunicorn", 100 * MIB), Member(4, "gunicorn", 40 * MIB)),
            400,
            "2 workers of up to 300 MiB and a master of 40 MiB do not fit 400 MiB",
        ),
        ((Member(5, "node", 60 * MIB), Member(6, "node", 60 * MIB)), 100, "2 node of 60 MiB do not fit 100 MiB"),
        (
            (Member(5, "gunicorn: worke", 90 * MIB), Member(4, "gunicorn: maste", 40 * MIB)),
            128,
            "1 worker of 90 MiB and a master of 40 MiB do not fit 128 MiB",
        ),
    ],
)
def test_the_arithmetic_is_the_kernels_own_table(members: tuple[Member, ...], limit_mib: int, line: str) -> None:
    assert line in body([kill(members=members, limit_bytes=limit_mib * MIB)])


@pytest.mark.parametrize(
    ("past", "told", "line"),
    [
        (Past(1), 1, None),
        (Past(2), 1, "The second this week."),
        (Past(2, "a"), 1, "The second this week, both times a."),
        (Past(3), 1, "The third this week."),
        (Past(12), 1, "12 kills this week."),
        (Past(12, "a"), 1, "12 kills this week, always a."),
        (Past(3), 2, "3 kills this week."),
        (Past(3), 3, None),
    ],
)
def test_recurrence_counts_what_is_told_too(past: Past, told: int, line: str | None) -> None:
    shown = body([kill(n, evidence=()) for n in range(told)], past=past)
    assert [one for one in shown if "this week" in one] == ([line] if line else [])


def test_what_one_card_tells_of_in_two_stories_is_no_recurrence() -> None:
    both = [kill(1, name="tail", unit=None, cgroup="/docker/a"), kill(2, name="tail", unit=None, cgroup="/docker/b")]
    assert not [line for line in body(both, past=Past(2)) if "this week" in line]
    assert "3 kills this week." in body(both, past=Past(3))


def test_the_past_is_of_the_same_unit_and_week() -> None:
    last = kill(doing="a")
    others = [
        kill(1, doing="a"),
        kill(2, unit="other.service"),
        kill(3, at=NOW - timedelta(days=8), doing="b"),
        kill(4, at=NOW),
    ]
    assert past_of([last, *others], last) == Past(2, "a")
    assert past_of([last, kill(5, doing="b")], last) == Past(2, "")
    stray = kill(unit=None, name="node")
    assert past_of([stray, kill(1, unit=None, name="python3")], stray) == Past(1, "")


def test_what_is_loud() -> None:
    assert set(CAUSES) - LOUD == {"worker-timeout", "stop-timeout", "time-limit", "container", "plan", "manual"}


def test_the_tone_follows_the_worst() -> None:
    def tone(*kills: Kill) -> str:
        title = kill_card("prod", kills, NOW).blocks[0]
        assert isinstance(title, Title)
        return title.tone

    assert tone(kill(cause="plan")) == "plain"
    assert tone(kill(cause="manual")) == "warning"
    assert tone(kill(cause="manual"), kill(2)) == "critical"
    assert tone(kill(staged=True), kill(2, cause="plan")) == "plain"


def test_scripts_get_every_field() -> None:
    shown = plain_json(kill_data(RUNBOOK), plain)
    assert list(shown)[12:] == ["final", "limit_group", "container", "by", "doing", "counted", "staged", "members"]
    assert shown["members"][3] == {"pid": 689790, "name": "gunicorn", "rss_bytes": 50 * MIB}


def test_many_are_listed_up_to_a_bound() -> None:
    found = list(timetable([kill(n, at=NOW - timedelta(seconds=n)) for n in range(ROWS + 5)], NOW))
    [table] = [one for one in found if isinstance(one, Table)]
    assert len(table.rows) == ROWS
    assert Line(T("and {n} earlier kills", n=5)).text.msgid in {one.text.plural for one in found if isinstance(one, Line)}


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_its_advice(cause: Cause) -> None:
    for known in (Known(cause, "n"), Known(cause, "n", "u.service", by="b", container="c"), Known(cause, "n", counted=True)):
        assert "{" not in plain(advice(known))
        assert "{" not in plain(remedy(known))


NOBODY = plain(advice(Known("unknown", "gunicorn", "teaching_panel.service")))


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_is_told_in_words_of_its_own(cause: Cause) -> None:
    one = kill(cause=cause, advice=advice(Known(cause, "gunicorn", "teaching_panel.service")))
    others = [plain(killer(replace(one, cause=other))) for other in CAUSES if other != cause]
    shown = body([one])

    assert plain(killer(one)) in shown
    assert plain(killer(one)) not in others
    assert (plain(one.advice) == NOBODY) == (cause == "unknown")
    assert (NOBODY in shown) == (cause == "unknown")


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_its_word_in_a_table_of_kills(cause: Cause) -> None:
    def drawn(cause: Cause) -> tuple[str, str]:
        """The word of a row, and the line that says what it means."""
        listed, legend = timetable([kill(cause=cause)], NOW)
        assert isinstance(listed, Table)
        assert isinstance(legend, Line)
        return plain(T("{word}", word=listed.rows[0][2])), plain(legend.text)

    word, line = drawn(cause)
    assert len(word) <= 5, "a name has room beside it on a phone"
    assert line.startswith(f"{word}: ")
    assert not [other for other in CAUSES if other != cause and (word == drawn(other)[0] or line == drawn(other)[1])]


def test_advice_talks_of_no_oom_where_there_was_none() -> None:
    quiet: tuple[Cause, ...] = ("worker-timeout", "stop-timeout", "time-limit", "container")
    for cause in quiet:
        assert plain(advice(Known(cause, "n", "u.service"))).startswith("Not ")
    assert plain(advice(Known("stop-timeout", "n", "u.service", by=WATCHDOG))).endswith(
        "(WatchdogSec). Look for what it hung on."
    )
    assert plain(advice(Known("userspace-oom", "n", by="nohang"))).startswith("nohang ended n ")
    assert plain(advice(Known("plan", "n", by="K7QX"))).startswith("Plan K7QX ended n")
    assert plain(advice(Known("manual", "n", by="alice"))).startswith("alice killed n")


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (Known("cgroup-limit", "n", container="c"), "To do: give the container more memory, or less to do."),
        (Known("cgroup-limit", "n", "u", limited="/a/b.slice"), "To do: raise the limit of b.slice, or run less in it."),
        (Known("cgroup-limit", "n", "u", limited="/"), "To do: raise the limit of /, or run less in it."),
        (Known("cgroup-limit", "n", "u", 99, 100), "To do: raise the limit, or find what grew."),
        (Known("cgroup-limit", "n", "u", 50, 100), "To do: fewer workers, or a higher limit."),
    ],
)
def test_what_to_do_is_concrete(known: Known, line: str) -> None:
    assert plain(remedy(known)) == line


CELERY = "[2026-11-23 23:51:26,553: ERROR/MainProcess] Process 'ForkPoolWorker-1' pid:632 exited with 'signal 9 (SIGKILL)'"
GUNICORN = "[2026-11-23 23:50:56 +0000] [364] [ERROR] Worker (pid:632) was sent SIGKILL! Perhaps out of memory?"


@pytest.mark.parametrize(
    ("line", "its"), [(CELERY, "celery worker"), (GUNICORN, "gunicorn worker"), ("Killed process 632 (python3)", "python3")]
)
def test_what_the_kernel_calls_python_is_called_as_its_masters_lines_do(line: str, its: str) -> None:
    pair = (Member(632, "python3", 192 * MIB), Member(620, "python3", 60 * MIB))
    one = kill(632, name="python3", unit="celery.service", members=pair, limit_bytes=200 * MIB, evidence=(line,))
    shown = body([one])
    assert shown[0] == f"prod: {its} of celery.service was killed"
    split = "1 worker of 192 MiB and a master of 60 MiB do not fit 200 MiB"
    assert (split in shown) == (its != "python3")


@pytest.mark.parametrize(
    ("name", "its"),
    [("uwsgi", "uWSGI"), ("php-fpm8.2", "PHP-FPM"), ("nginx", "nginx"), ("puma", "Puma"), ("gunicorn3", "gunicorn"), ("celeryd", "celery")],
)  # fmt: skip
def test_of_every_program_that_forks_the_master_is_told_apart(name: str, its: str) -> None:
    family = tuple(replace(one, name=name) for one in FAMILY)
    shown = body([kill(name=name, members=family)])

    assert shown[0] == f"prod: {its} worker of teaching_panel.service was killed"
    assert "3 workers of 178 MiB and a master of 50 MiB do not fit 512 MiB" in shown


SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=0-1,3,cpuset={cpuset},mems_allowed=0,2-3,"
    "oom_memcg={group},task_memcg={group},task=node,pid=5,uid=33"
)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            SUMMARY.format(cpuset=f"docker-{'ab' * 32}.scope", group=f"/system.slice/docker-{'ab' * 32}.scope"),
            "oom-kill:constraint=CONSTRAINT_MEMCG,…,{group},task=node,pid=5,uid=33".format(
                group=",".join(f"{field}=/system.slice/docker-abababababab.scope" for field in ("oom_memcg", "task_memcg"))
            ),
        ),
        (SUMMARY.format(cpuset="a=b", group="/c"), None),
        (f"Task in /docker/{'12' * 32} killed as a result of limit of /docker/{'12' * 32}",
         "Task in /docker/121212121212 killed as a result of limit of /docker/121212121212"),
        (f"{'a' * 65} and {'c' * 63}", None),
        ("x nodemask=(null),cpuset=/,mems_allowed=0,y", None),
    ],
)  # fmt: skip
def test_evidence_fits_a_phone_and_is_whole_for_scripts(line: str, shown: str | None) -> None:
    one = kill(5, evidence=(line,))

    assert body([one])[-3] == (shown or line)
    assert kill_data(one).evidence == (line,)


def test_a_slow_stop_took_nobody_by_surprise() -> None:
    main = "teaching_panel.service: Main process exited, code=killed, status=9/KILL"
    assert effect(kill(cause="stop-timeout", evidence=(main,))) is None
    assert effect(kill(cause="stop-timeout", by=WATCHDOG, evidence=(main,))) is not None


# Nobody can spoil a card


def kill_cards(now: datetime = NOW) -> list[Reply]:
    """One of every kind."""
    groups = [
        [kill(cause=cause, limit_group=group, by=by)] for cause in CAUSES for group in ("", "/a/b.service") for by in ("", "x")
    ]
    groups += [[kill(n) for n in range(count)] for count in (2, 5)]
    groups += [
        [kill(1, unit=None), kill(2, unit="x", confidence="likely"), *[kill(n, name="n", confidence="guess") for n in range(6)]],
        [RUNBOOK],
        [replace(RUNBOOK, cause="kernel-oom", members=(*FAMILY, Member(1, "node", 9 * GIB), Member(2, "java", GIB), Member(3, "c", 1)))],
        [kill(None, counted=True), kill(3, staged=True, uid=5, unit=None), kill(4, container="ab" * 32)],
        [kill(None, counted=True, unit=None)],
        *([kill(None, name=name, unit="u.service", cause="systemd-oomd")] * count for name in ("u", "v") for count in (1, 2)),
        *([kill(None, name="u", unit="u.service")] * count for count in (1, 2)),
        [kill(None, name="u", unit="u.service"), kill(None, name="v", unit="v.service", cause="systemd-oomd")],
        [kill(5, cause="container", container="ab" * 32), kill(6, cause="stop-timeout", by=WATCHDOG), kill(7, doing="a.b")],
        [old(minutes, pid=1000 + round(minutes), final=False) for minutes in (30, 90, 2000)],
        [kill(1, evidence=("x: Main process exited, code=killed",)), kill(2, name="postgres", unit="p.service")],
    ]  # fmt: skip
    cards = [kill_card("prod", group, now) for group in groups]
    return cards + [kill_card("prod", [kill(1)], now, past=Past(week, doing)) for week in (2, 3, 9) for doing in ("", "import")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_card_can_be_shown_everywhere_and_kept(language: str) -> None:
    for card in kill_cards():
        assert load_reply(dump_reply(card)).blocks == card.blocks
        tokens = {button.command: "t" for row in card.buttons for button in row}
        assert draw(card, language, NOW)
        assert slack_blocks(card, language, tokens, NOW)
        assert console(card, language, NOW)


def test_no_place_of_a_card_is_left_empty() -> None:
    assert not [plain(text) for card in kill_cards() for text in texts(card) if "{" in plain(text)]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_data(name: str) -> None:
    bad = kill(
        name=name, unit=f"{name}.service", by=name, doing=name, container=name, cgroup=name, limit_group=f"/{name}",
        evidence=(name,), members=(Member(1, name, MIB), Member(2, name, 9 * MIB)),
    )  # fmt: skip
    for cause in CAUSES:
        card = kill_card("prod", [replace(bad, cause=cause), replace(bad, pid=2, staged=True)], NOW, past=Past(9, name))
        markup = draw(card, "en", NOW)
        assert "</pre></code>" not in markup
        assert "\u202e" not in markup
        assert "<!channel>" not in slack_text(card, "en", NOW)
        assert "<!channel>" not in preview(card, "en", NOW)
        assert "\u202e" not in console(card, "en", NOW)
        assert all(isinstance(value, Mono) or name not in str(value) for block in flat(card) for value in _loose(block) if name)


def _loose(block: object) -> list[object]:
    """The plain strings among a sentence's values: they would be read as words."""
    if not isinstance(block, Line | Title):
        return []
    return [value for _, value in block.text.values if isinstance(value, str)]


@given(st.text(), st.lists(st.tuples(st.integers(1, 9), st.text(max_size=4), st.integers(0, 1 << 40)), max_size=6))
def test_whatever_the_kernel_lists_there_is_a_card(name: str, table: list[tuple[int, str, int]]) -> None:
    members = tuple(Member(*one) for one in table)
    for cause in ("cgroup-limit", "kernel-oom"):
        card = kill_card("prod", [kill(name=name, cause=cause, members=members)], NOW)
        assert all(render(text, "ru", NOW) for text in texts(card))
