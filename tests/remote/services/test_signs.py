"""What each kind of program says of a killed process, from real logs, and what nobody can make it say."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts.journal import Entry, parse_entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.services import kinds, roles_by_pid, speakers, tellings
from remote.services.base import Sign
from tests.remote.findings.scene import BOOT, unit
from tests.remote.services.programs import Line, lines, names, processes, said, short

# Recording, part of its story, signs in it. `killed 1 by 9`: process 1 by signal 9; before the first number of a line who it is.
SIGNS: dict[str, dict[str, str]] = {
    "celery-4.4.7": {
        "a task that ends well": "task proj.quick",
        "kill -9 a child at its task": "task proj.import_orders; killed 24737 by 9 (ForkPoolWorker-1); lost by 9",
        "a hard time limit of a task that hears SIGTERM": "task proj.slow; limit after 3 s proj.slow; killed 25057 by 15 (ForkPoolWorker-2)",
        "soft, then hard time limit": "task proj.soft; limit after 3 s proj.soft; killed 26181 by 15 (ForkPoolWorker-3)",
    },
    "celery-5.7.0": {
        "a task that ends well": "task proj.quick",
        "kill -9 a child at its task": "task proj.import_orders; killed 14181 by 9 (ForkPoolWorker-1); lost by 9",
        "a hard time limit of a task that hears SIGTERM": "task proj.slow; limit after 3 s proj.slow; killed 14192 by 15 (ForkPoolWorker-2)",
        "a hard time limit of a task deaf to SIGTERM": "task proj.deaf; limit after 3 s proj.deaf; killed 14393 by 9 (ForkPoolWorker-3)",
        "soft, then hard time limit": "task proj.soft; limit after 3 s proj.soft; killed 14469 by 15 (ForkPoolWorker-4)",
        "kill -15 a child": "task proj.import_orders; killed 14541 by 15 (ForkPoolWorker-5); lost by 15",
    },
    "dramatiq-2.2.1": {
        "start": "version 2.2.1",
        "kill -9 a worker": "killed 16967 by 9",
    },
    "gunicorn-19.9.0": {
        "start": "version 19.9.0; booted 14105; booted 14106",
        "kill -9 a worker": "booted 14165",
        "kill -15 a worker": "exiting 14165; booted 14188",
        "kill -11 a worker": "booted 14189",
        "a worker that sleeps over its timeout": "timeout 14105; exiting 14105; booted 14193",
        "a worker deaf to SIGABRT over its timeout": "timeout 14189; booted 14219",
        "a worker that exits with 1": "booted 14224",
        "stop": "exiting 14193; exiting 14224",
    },
    "gunicorn-20.0.4": {
        "start": "version 20.0.4; booted 14288; booted 14289",
        "kill -9 a worker": "booted 14291",
        "kill -15 a worker": "exiting 14291; booted 14292",
        "kill -11 a worker": "booted 14392",
        "a worker that sleeps over its timeout": "timeout 14288; exiting 14288; booted 14398",
        "a worker deaf to SIGABRT over its timeout": "timeout 14398; booted 14472",
        "a worker that exits with 1": "booted 14493",
        "stop": "exiting 14493; exiting 14392",
    },
    "gunicorn-20.1.0": {
        "start": "version 20.1.0; booted 14539; booted 14540",
        "kill -9 a worker": "killed 14540 by 9; booted 14577",
        "kill -15 a worker": "exiting 14577; booted 14585",
        "kill -11 a worker": "killed 14585 by 11; booted 14589",
        "a worker that sleeps over its timeout": "timeout 14539; exiting 14539; booted 14598",
        "a worker deaf to SIGABRT over its timeout": "timeout 14589; killed 14589 by 9; booted 14615",
        "a worker that exits with 1": "booted 14617",
        "stop": "exiting 14617; exiting 14598",
    },
    "gunicorn-21.2.0": {
        "start": "version 21.2.0; booted 14663; booted 14664",
        "kill -9 a worker": "killed 14664 by 9; booted 14665",
        "kill -15 a worker": "exiting 14665; booted 14673",
        "kill -11 a worker": "killed 14673 by 11; booted 14697",
        "a worker that sleeps over its timeout": "timeout 14697; exiting 14697; exiting 14697; exiting 14697; booted 14760",
        "a worker deaf to SIGABRT over its timeout": "timeout 14663; killed 14663 by 9; booted 14841",
        "a worker that exits with 1": "exiting 14760; exiting 14760; booted 14843",
        "stop": "exiting 14841; exiting 14843",
    },
    "gunicorn-22.0.0": {
        "start": "version 22.0.0; booted 14889; booted 14890",
        "kill -9 a worker": "killed 14890 by 9; booted 14891",
        "kill -15 a worker": "exiting 14891; booted 14903",
        "kill -11 a worker": "killed 14903 by 11; booted 14979",
        "a worker that sleeps over its timeout": "timeout 14979; exiting 14979; booted 15060",
        "a worker deaf to SIGABRT over its timeout": "timeout 14889; killed 14889 by 9; booted 15180",
        "a worker that exits with 1": "exiting 15060; exiting 15060; booted 15232",
        "stop": "exiting 15232; exiting 15180",
    },
    "gunicorn-23.0.0": {
        "start": "version 23.0.0; booted 13219; booted 13220",
        "kill -9 a worker": "killed 13220 by 9; booted 13221",
        "kill -15 a worker": "exiting 13221; booted 13222",
        "kill -11 a worker": "killed 13222 by 11; booted 13223",
        "a worker that sleeps over its timeout": "timeout 13219; exiting 13219; booted 13296",
        "a worker deaf to SIGABRT over its timeout": "timeout 13296; killed 13296 by 9; booted 13336",
        "a worker that exits with 1": "exiting 13336; exiting 13336; booted 13338",
        "stop": "exiting 13338; exiting 13223",
    },
    "gunicorn-24.1.1": {
        "start": "version 24.1.1; booted 15377; booted 15378",
        "kill -9 a worker": "killed 15378 by 9; booted 15390",
        "kill -15 a worker": "exiting 15390; booted 15391",
        "kill -11 a worker": "killed 15391 by 11; booted 15392",
        "a worker that sleeps over its timeout": "timeout 15392; exiting 15392; booted 15451",
        "a worker deaf to SIGABRT over its timeout": "timeout 15377; killed 15377 by 9; booted 15474",
        "a worker that exits with 1": "exiting 15474; booted 15477",
        "stop": "exiting 15477; exiting 15451",
    },
    "gunicorn-25.3.0": {
        "start": "version 25.3.0; booted 15550; booted 15551",
        "kill -9 a worker": "killed 15551 by 9; booted 15553",
        "kill -15 a worker": "exiting 15553; booted 15557",
        "kill -11 a worker": "killed 15557 by 11; booted 15559",
        "a worker that sleeps over its timeout": "timeout 15550; exiting 15550; booted 15658",
        "a worker deaf to SIGABRT over its timeout": "timeout 15658; killed 15658 by 9; booted 15717",
        "a worker that exits with 1": "exiting 15717; booted 15776",
        "stop": "exiting 15559; exiting 15776",
    },
    "gunicorn-27.0.1": {
        "start": "version 27.0.1; booted 15841; booted 15842",
        "kill -9 a worker": "killed 15842 by 9; booted 15851",
        "kill -15 a worker": "exiting 15851; booted 15868",
        "kill -11 a worker": "killed 15868 by 11; booted 15991",
        "a worker that sleeps over its timeout": "timeout 15991; exiting 15991; booted 16310",
        "a worker deaf to SIGABRT over its timeout": "timeout 16310; killed 16310 by 9; booted 16392",
        "a worker that exits with 1": "exiting 15841; booted 16440",
        "stop": "exiting 16392; exiting 16440",
    },
    "nginx-1.22.1": {
        "kill -9 a worker": "killed 2746 by 9 (worker process)",
        "kill -11 a worker": "killed 2816 by 11 (worker process)",
    },
    "php-fpm-8.2": {
        "kill -9 a child": "killed 687 by 9",
        "kill -15 a child": "killed 713 by 15",
        "kill -11 a child": "killed 773 by 11",
        "a request over request_terminate_timeout": "timeout 686; killed 686 by 15",
        "the same with quotes and a line feed in its path": "timeout 838; killed 838 by 15",
    },
    "php-fpm-8.2-syslog": {
        "kill -9 a child": "killed 1624 by 9",
        "kill -15 a child": "killed 1676 by 15",
        "kill -11 a child": "killed 1795 by 11",
        "a request over request_terminate_timeout": "timeout 1621; killed 1621 by 15",
        "the same with quotes and a line feed in its path": "timeout 1832; killed 1832 by 15",
    },
    "postgresql-15": {
        "kill -9 a session": "killed 7972 by 9 (server process)",
        "kill -11 a session": "killed 8513 by 11 (server process)",
        "kill -9 the background writer": "killed 8539 by 9 (background writer process)",
    },
    "postgresql-15-ru": {
        "kill -9 a session": "killed 9264 by 9 (процесс сервера)",
        "kill -11 a session": "killed 9767 by 11 (процесс сервера)",
        "kill -9 the background writer": "killed 9796 by 9 (процесс фоновой записи)",
    },
    "postgresql-15-syslog": {
        "kill -9 a session": "killed 19086 by 9 (server process)",
        "kill -11 a session": "killed 19440 by 11 (server process)",
        "kill -9 the background writer": "killed 19483 by 9 (background writer process)",
    },
    "postgresql-15-t": {
        "kill -9 a session": "killed 10524 by 9 (server process)",
        "kill -11 a session": "killed 11021 by 11 (server process)",
        "kill -9 the background writer": "killed 11080 by 9 (background writer process)",
    },
    "puma-5.6.5": {
        "start": "booted 11680; booted 11681",
        "kill -9 a worker": "booted 11767",
        "kill -15 a worker": "booted 11782",
        "a worker that stands still (SIGSTOP) over worker_timeout": "timeout 11782; booted 12144",
    },
    "redis-7.0.15": {
        "kill -9 the child that saves": "booted 16149 (rdb); killed by 9 (rdb)",
        "kill -9 the child that rewrites the append-only file": "booted 16326 (aof); killed by 9 (aof)",
        "a save that ends well": "booted 16489 (rdb); exiting (rdb)",
    },
    "rq-3.0.0": {
        "kill -9 the work horse": "task jobs.work; lost by 9; killed 2841 by 9",
        "kill -15 the work horse": "task jobs.work; lost by 15; killed 3117 by 15",
        "a job over its time, deaf to it": "task jobs.deaf; limit 3409; lost by 9",
    },
    "supervisord-4.2.5": {
        "start": "booted 3587 (deaf); booted 3588 (once); booted 3593 (pool_00); booted 3594 (pool_01); booted 3596 (site); booted 3598 (talks); exiting (once)",
        "kill -9 a program": "killed by 9 (site); booted 3720 (site)",
        "kill -15 a program": "killed by 15 (site); booted 4012 (site)",
        "kill -11 a program": "killed by 11 (site); booted 4186 (site)",
        "kill -9 one of a pool": "killed by 9 (pool_01); booted 4258 (pool_01)",
        "restart one deaf to SIGTERM": "forced 3587 (deaf); killed by 9 (deaf); booted 4597 (deaf)",
        "stop": "killed by 15 (talks); killed by 15 (site); killed by 15 (pool_00); killed by 15 (pool_01); forced 4597 (deaf); killed by 9 (deaf)",
    },
    "uvicorn-0.54.0": {
        "kill -9 a worker": "died 12276",
        "kill -15 a worker": "died 12513",
        "a worker that answers nothing (SIGSTOP)": "died 12662",
    },
    "uwsgi-2.0.21": {
        "start": "version 2.0.21-debian; booted 15164 (worker 1); booted 15166 (worker 2)",
        "kill -9 an idle worker": "killed 15166 by 9 (worker 2); booted 15178 (worker 2)",
        "a request over its harakiri": "timeout 15164 (worker 1); killed 15164 by 9 (worker 1); booted 15380 (worker 1)",
        "a request deaf to signals over its harakiri": "timeout 15380 (worker 1); killed 15380 by 9 (worker 1); booted 15393 (worker 1)",
        "kill -9 the first worker, another one at work": "killed 15178 by 9 (worker 2); booted 15397 (worker 2); timeout 15393 (worker 1); killed 15393 by 9 (worker 1); booted 15456 (worker 1)",
        "kill -9 all workers, one at work": "killed 15397 by 9 (worker 2); booted 15470 (worker 2); killed 15456 by 9 (worker 1); booted 15471 (worker 1)",
        "kill -15 a worker": "exiting 15471 (worker 1); booted 15504 (worker 1)",
        "kill -11 a worker": "exiting 15504 (worker 1); booted 15555 (worker 1)",
        "a worker that grows over evil-reload-on-rss": "recycled 15555 95424512 B (worker 1); killed 15555 by 9 (worker 1); booted 15654 (worker 1)",
        "a worker that exits with 1": "exiting 15654 (worker 1); booted 15661 (worker 1)",
        "reload, a worker deaf to it (--worker-reload-mercy)": "exiting (worker 2); timeout 15661 (worker 1); exiting (worker 1); version 2.0.21-debian; booted 15782 (worker 1); booted 15784 (worker 2)",
        "stop": "exiting (worker 1); exiting (worker 2)",
    },
    "uwsgi-2.0.21-recycled": {
        "start": "version 2.0.21-debian; booted 21663 (worker 1)",
        "more work than one worker does (cheaper), and less again": "booted 21788 (worker 2); booted 21911 (worker 3); exiting 21663 (worker 1); booted 22104 (worker 1); exiting 21788 (worker 2); exiting 21911 (worker 3)",
        "chain reload": "exiting 22104 (worker 1); booted 22364 (worker 1)",
        "reload, a worker deaf to it (worker-reload-mercy 2)": "forced 22364; exiting (worker 1); version 2.0.21-debian; booted 22585 (worker 1)",
        "stop": "exiting (worker 1)",
    },
    "uwsgi-2.0.31": {
        "start": "version 2.0.31; booted 29546 (worker 1); booted 29553 (worker 2)",
        "kill -9 an idle worker": "killed 29553 by 9 (worker 2); booted 29805 (worker 2)",
        "a request over its harakiri": "timeout 29805 (worker 2); killed 29805 by 9 (worker 2); booted 30468 (worker 2)",
        "a request deaf to signals over its harakiri": "timeout 30468 (worker 2); killed 30468 by 9 (worker 2); booted 30993 (worker 2)",
        "kill -9 the first worker, another one at work": "killed 29546 by 9 (worker 1); booted 31275 (worker 1)",
        "kill -9 all workers, one at work": "killed 30993 by 9 (worker 2); booted 32013 (worker 2); killed 31275 by 9 (worker 1); booted 32014 (worker 1)",
        "kill -15 a worker": "exiting 32014 (worker 1); booted 32358 (worker 1)",
        "kill -11 a worker": "exiting 32358 (worker 1); booted 32623 (worker 1)",
        "a worker that grows over evil-reload-on-rss": "recycled 32013 95412224 B (worker 2); killed 32013 by 9 (worker 2); booted 678 (worker 2)",
        "a worker that exits with 1": "exiting 678 (worker 2); booted 884 (worker 2)",
        "reload, a worker deaf to it (--worker-reload-mercy)": "timeout 32623 (worker 1); exiting (worker 1); exiting (worker 2); version 2.0.31; booted 2138 (worker 1); booted 2139 (worker 2)",
        "stop": "exiting (worker 1); exiting (worker 2)",
    },
}

# Whose recording it is, where the file is called otherwise than the kind.
KINDS = {"celery": "celery-worker", "dockerd": "docker", "postgresql": "postgres"}
# The first says nothing at all when a worker is killed: it stops the others and ends, with code 0. What the second says is read
# with the other daemons' words (remote/findings/daemons.py).
SILENT = {"hypercorn-0.18.0", "dockerd-20.10.24"}


def kind_of(name: str) -> str:
    first = name.removesuffix("-syslog").rsplit("-", 1)[0] if name.startswith("php") else name.split("-", maxsplit=1)[0]
    return KINDS.get(first, first)


def signs_of(entry: Entry) -> list[tuple[str, Sign]]:
    return [(kind.name, sign) for kind in kinds().values() if (sign := kind.sign(entry)) is not None]


RECORDED = [line for name in names() for line in lines(name)]
TOLD = [line for line in RECORDED if signs_of(line.entry)]
# One line of each sort.
SHAPES = list({(kind, sign.what, line.text[:1]): line for line in TOLD for kind, sign in signs_of(line.entry)}.values())


@pytest.mark.parametrize("name", names())
def test_what_a_real_program_printed_is_read(name: str) -> None:
    found: dict[str, list[str]] = {}
    for line in lines(name):
        for kind, sign in signs_of(line.entry):
            assert kind == kind_of(name)
            found.setdefault(line.part, []).append(short(sign))

    assert {part: "; ".join(said) for part, said in found.items()} == SIGNS.get(name, {})
    assert (name in SIGNS) != (name in SILENT)


@pytest.mark.parametrize("name", [name for name in names() if name not in SILENT])
def test_the_processes_of_a_recording_are_recognised_and_their_main_one_speaks(name: str) -> None:
    ran = processes(name)
    found = roles_by_pid(Processes(ran, BOOT))
    main = unit("site.service", "/srv/start", ran[0].pid)

    assert [role.service for role in found[ran[0].pid]] == [kind_of(name)]
    assert [pid for pid, roles in found.items() if any(role.master for role in roles)] == [ran[0].pid]
    assert [one.pid for one in speakers(Units((main,)), Processes(ran, BOOT))] == [ran[0].pid]


@pytest.mark.parametrize("name", ["uvicorn-0.54.0", "gunicorn-23.0.0"])
def test_a_recorded_master_behind_a_launcher_speaks(name: str) -> None:
    group = "/system.slice/site.service"
    ran = tuple(replace(one, cgroup=group) for one in processes(name))
    launcher = replace(ran[0], pid=5, command=unit("x", "/usr/bin/uv run site").exec_start, exe="/usr/bin/uv", cgroup=group)
    site = unit("site.service", "/usr/bin/uv run site", 5)

    assert [one.pid for one in speakers(Units((site,)), Processes((launcher, *ran), BOOT))] == [ran[0].pid]


def test_no_recorded_line_says_anything_of_the_process_that_visitors_named() -> None:
    named = [line for line in RECORDED if "414" in line.text and not line.text.count("15414")]

    assert len(named) > 20
    assert [line for line in named for _, sign in signs_of(line.entry) if sign.pid == 414] == []


@pytest.mark.parametrize("flags", ["-E", "-P"])
def test_on_the_host_every_line_that_is_read_is_let_through(flags: str) -> None:
    """By grep as by journalctl's PCRE2, over JSON, in the C locale that a question is asked in."""
    raw = "".join(json.dumps({"MESSAGE": line.text}, ensure_ascii=False) + "\n" for line in TOLD)
    command = ["grep", "-c", flags, "--", "|".join(tellings())]
    done = subprocess.run(command, input=raw, text=True, capture_output=True, check=False, env={"LC_ALL": "C"})

    assert (done.stdout.strip(), done.stderr) == (str(len(TOLD)), "")


def test_each_kind_lets_its_own_lines_through() -> None:
    for name in names():
        raw = [line.text for line in lines(name) if signs_of(line.entry)]
        if raw:
            kind = kinds()[kind_of(name)]
            command = ["grep", "-cE", "--", "|".join((*kind.tellings, *kind.asides))]
            done = subprocess.run(command, input="\n".join(raw), text=True, capture_output=True, check=False)
            assert int(done.stdout) == len(raw), name


def test_few_other_lines_are_let_through() -> None:
    command = ["grep", "-cE", "--", "|".join(tellings())]
    raw = "\n".join(line.text for line in RECORDED if not signs_of(line.entry))
    done = subprocess.run(command, input=raw, text=True, capture_output=True, check=False)

    assert int(done.stdout) <= 30


def test_the_lines_of_every_task_can_be_left_out() -> None:
    pattern = re.compile("|".join(tellings(asides=False)))
    without = [line for line in TOLD if not pattern.search(line.text)]

    assert {sign.what for line in without for _, sign in signs_of(line.entry)} == {"task"}
    assert sum(sign.what == "task" for line in TOLD for _, sign in signs_of(line.entry)) == len(without)


LEADING = ("x", "\t", "- ", "127.0.0.1 - - ", "[2026-11-25 10:00:00 +0000] [1] [INFO] ", "[1-2] ", "\n", "A sentence\n")
TRAILING = ("\n", "\nmore", ' HTTP/1.1" 200 1 "-"', ").", "]", "' FROM nothing", '")')


@pytest.mark.parametrize("before", LEADING)
def test_a_sentence_with_text_before_it_says_nothing(before: str) -> None:
    assert [line.text for line in TOLD if signs_of(said(before + line.text, line.pid))] == []


@pytest.mark.parametrize("after", TRAILING)
def test_a_sentence_with_text_after_it_says_nothing(after: str) -> None:
    assert [line.text for line in TOLD if signs_of(said(line.text + after, line.pid))] == []


def test_a_sentence_that_starts_later_says_the_same_or_nothing() -> None:
    """The date may be left out (uWSGI) and PostgreSQL syslog's number; all else belongs to the format."""
    for line in SHAPES:
        whole = signs_of(line.entry)
        assert all(signs_of(said(line.text[at:], line.pid)) in ([], whole) for at in range(1, len(line.text)))


def test_a_sentence_with_a_line_feed_in_it_says_nothing() -> None:
    for line in SHAPES:
        halves = ((line.text[:at], line.text[at:]) for at in range(len(line.text) + 1))
        assert [before for before, after in halves if signs_of(said(f"{before}\n{after}", line.pid))] == []


ACCESS = (
    '127.0.0.1 - - [25/Nov/2026:10:22:21 +0000] "GET /?q={} HTTP/1.1" 200 1 "-" "curl"',
    '127.0.0.1 - - [25/Nov/2026:10:22:21 +0000] "GET / HTTP/1.1" 200 1 "-" "{}"',
    'INFO:     127.0.0.1:43856 - "GET /{} HTTP/1.1" 200 OK',
    "[pid: 15661|app: 0|req: 7/1] 127.0.0.1 () {{26 vars in 496 bytes}} [Wed Nov 25 10:21:58 2026] GET /?q={} => generated 1 bytes",
    "Wed Nov 25 10:32:37 2026 - HARAKIRI [core 0] 127.0.0.1 - GET /{} since 1795602755",
    "2026-11-25 10:00:00.000 UTC [{pid}] DETAIL:  Failed process was running: {}",
    "2026-11-25 10:00:00.000 UTC [{pid}] app@db LOG:  {}",
    "[2026-11-25 10:00:00 +0000] [{pid}] [ERROR] Error handling request {}",
    "[2026-11-25 10:00:00,000: WARNING/ForkPoolWorker-1] {}",
    "[2026-11-25 10:00:00,000: WARNING/MainProcess] {}",
    "[2026-11-25 10:00:00,000: ERROR/ForkPoolWorker-1/MainProcess] {}",
    '[25-Nov-2026 10:00:00] WARNING: [pool www] child 5 said into stderr: "{}"',
    '2026/11/25 10:00:00 [error] {pid}#{pid}: *1 open() "{}" failed (2: No such file or directory)',
    'time="2026-11-25T10:00:00.0Z" level=error msg="Handler for GET /{} returned error"',
    "2026-11-25 10:00:00,000 INFO success: {} entered RUNNING state",
)


@pytest.mark.parametrize("access", ACCESS)
def test_a_line_that_repeats_a_visitors_words_says_nothing(access: str) -> None:
    forged = [said(access.format(line.text, pid=line.pid), line.pid) for line in TOLD]

    assert [entry.message for entry in forged if signs_of(entry)] == []


BRACKETED = ("gunicorn", "postgres", "nginx", "redis", "puma", "dramatiq")


def test_a_sentence_from_another_process_than_it_names_says_nothing() -> None:
    lines_of = {kind: [line for name in names() if kind_of(name) == kind for line in lines(name)] for kind in BRACKETED}

    assert all(len(found) > 1 for found in lines_of.values())
    for line in chain.from_iterable(lines_of.values()):
        assert signs_of(said(line.text, line.pid + 1)) == []
        assert signs_of(said(line.text, None)) == []


@pytest.mark.parametrize("kind", kinds())
def test_a_master_that_boots_in_another_ones_name_says_nothing(kind: str) -> None:
    """A worker of gunicorn speaks of itself; nobody else can say it boots or exits."""
    text = "[2026-11-23 23:50:56 +0000] [364] [INFO] Booting worker with pid: 365"

    assert kinds()[kind].sign(said(text, 364)) is None
    assert kinds()[kind].sign(said(text, 365)) is None
    assert kinds()[kind].sign(said("[2026-11-23 23:50:56 +0000] [364] [INFO] Worker exiting (pid: 365)", 364)) is None


OTHER_VERSIONS = (
    # 21 to 23: a raw wait status; gunicorn src arbiter.py
    ("[2026-11-23 23:50:56 +0000] [364] [ERROR] Worker (pid:415) was sent code 139!", "killed 415 by 11"),
    ("[2026-11-23 23:50:56 +0000] [364] [INFO] Worker (pid:415) was sent SIGTERM!", "killed 415 by 15"),
    ("[2026-11-23 23:50:56 +0000] [364] [ERROR] Worker (pid:415) was sent SIGNOTHING!", ""),
    ("[2026-11-23 23:50:56 +0000] [364] [ERROR] Worker (pid:415) was sent code 0!", ""),
    # billiard 3.6.3 and before; Python 3.6's repr; a status lost in a storm
    (
        (
            "[2026-11-23 20:29:14,193: ERROR/MainProcess] Task handler raised error: "
            "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL).',)"
        ),
        "lost by 9",
    ),
    (
        (
            "[2026-11-23 20:29:14,193: ERROR/MainProcess] Task handler raised error: "
            "WorkerLostError('Worker exited prematurely: exitcode 0 Job: 7.')"
        ),
        "lost by 9",
    ),
    (
        "[2026-11-23 20:29:14,193: ERROR/MainProcess] Process 'PoolWorker-5' pid:451 exited with 'exitcode 70'",
        "exiting 451 (PoolWorker-5)",
    ),
    ("[2026-11-23 20:29:14,193: ERROR/MainProcess] Hard time limit (3.5s) exceeded for a.b[1-2]", "limit after 3.5 s a.b"),
    # PostgreSQL 18; pgBadger's prefix; a prefix with neither user nor database
    (
        "2026-11-25 10:00:00.000 CET [364] LOG:  client backend (PID 290) was terminated by signal 9: Killed",
        "killed 290 by 9 (client backend)",
    ),
    (
        "2026-11-25 10:00:00 UTC [364]: [5-1] user=,db=,app=,client= LOG:  server process (PID 290) was terminated by signal 9: Killed",
        "killed 290 by 9 (server process)",
    ),
    (
        "2026-11-25 10:00:00 UTC [364] @ LOG:  autovacuum worker (PID 290) was terminated by signal 9: Killed",
        "killed 290 by 9 (autovacuum worker)",
    ),
    (
        "2026-11-25 10:00:00 UTC [364]: [5-1] user=u,db=d,app=,client= LOG:  server process (PID 290) was terminated by signal 9: Killed",
        "",
    ),
    ("[5-2] 2026-11-25 10:00:00.000 UTC [364] LOG:  server process (PID 290) was terminated by signal 9: Killed", ""),
    ("2026-11-25 10:00:00.000 UTC [364] СООБЩЕНИЕ:  server process (PID 290) was terminated by signal 9: Killed", ""),
    (
        "2026-11-25 10:00:00.000 UTC [364] LOG:  proceso de servidor (PID 290) fue terminado por una señal 9: Killed",
        "killed 290 by 9 (proceso de servidor)",
    ),
    (
        "2026-11-25 10:00:00.000 UTC [364] 日志:  服务器进程（PID 290）被信号 9 终止: Killed",
        "killed 290 by 9 (服务器进程)",
    ),
    # uWSGI 1.9 and before; a master that had to; --log-date
    ("*** HARAKIRI ON WORKER 3 (pid: 415) ***", "timeout 415 (worker 3)"),
    ("worker 3 (pid: 415) is taking too much time to die...NO MERCY !!!", "forced 415"),
    ("DAMN ! worker 3 (pid: 415) MYSTERIOUSLY killed by signal 9 :( trying respawn ...", "killed 415 by 9 (worker 3)"),
    (
        "Wed Nov  5 10:00:00 2026 - DAMN ! worker 3 (pid: 415) died, killed by signal 9 :( trying respawn ...",
        "killed 415 by 9 (worker 3)",
    ),
    ("*** EVIL RELOAD ON WORKER 1 ADDRESS SPACE: 95424512 (pid: 415) ***", "recycled 415 (worker 1)"),
    # php-fpm
    (
        (
            "[25-Nov-2026 10:00:00.123456] WARNING: [pool www] child 415 exited on signal 11 (SIGSEGV - core dumped) after 50.938617 "
            "seconds from start"
        ),
        "killed 415 by 11",
    ),
    ("[25-Nov-2026 10:00:00] NOTICE: [pool www] child 415 exited with code 0 after 50.938617 seconds from start", ""),
    # supervisord 3
    ("2026-11-25 10:00:00,123 INFO exited: site (terminated by SIGKILL; not expected)", "killed by 9 (site)"),
    ("2026-11-25 10:00:00,123 INFO exited: site (terminated by SIGSEGV (core dumped); not expected)", "killed by 11 (site)"),
    ("2026-11-25 10:00:00,123 INFO exited: site (terminated by signal 64; not expected)", "killed by 64 (site)"),
    ("2026-11-25 10:00:00,123 INFO exited: site (terminated by SIGNOTHING; not expected)", ""),
    ("2026-11-25 10:00:00,123 INFO exited: site (exit status 0; expected)", "exiting (site)"),
    # puma 6, 4 and 2
    ("[364] ! Terminating timed out worker (Worker 1 failed to check in within 60 seconds): 415", "timeout 415 (worker 1)"),
    ("[364] ! Terminating timed out worker (worker failed to boot within 60 seconds): 415", "timeout 415"),
    ("[364] ! Terminating timed out worker: 415", "timeout 415"),
    ("[364] - Worker 1 (pid: 415) booted, phase: 0", "booted 415"),
    # rq 1 and before
    (
        "10:00:00 Moving job to FailedJobRegistry (Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); )",
        "lost by 9",
    ),
    ("10:00:00 Moving job to FailedJobRegistry (Work-horse terminated unexpectedly; waitpid returned 139; )", "lost by 11"),
    ("10:00:00 Moving job to FailedJobRegistry (Work-horse terminated unexpectedly; waitpid returned 256; )", ""),
    ("10:00:00 Killed horse pid 415", "limit 415"),
    ("10:00:00 Work horse killed for job a-b: retpid=415, ret_val=0", "exiting 415"),
    ("10:00:00 high: jobs.work('it is', 2) (e3399fd6)", "task jobs.work"),
    # dramatiq
    (
        (
            "[2026-11-25 10:29:25,473] [PID 364] [MainThread] [dramatiq.MainProcess] [CRITICAL] "
            "Worker with PID 415 exited unexpectedly (code 3). Shutting down..."
        ),
        "exiting 415",
    ),
    # Redis
    ("364:S 25 Nov 2026 10:25:43.142 # Background transfer terminated by signal 9", "killed by 9 (rdb)"),
    ("364:X 25 Nov 2026 10:25:43.142 # Background saving terminated by signal 9", ""),
    # nginx
    (
        "2026/11/25 10:00:00 [alert] 364#364: cache manager process 415 exited on signal 9",
        "killed 415 by 9 (cache manager process)",
    ),
    (
        "2026/11/25 10:00:00 [alert] 364#364: worker process 415 exited on signal 11 (core dumped)",
        "killed 415 by 11 (worker process)",
    ),
    ("2026/11/25 10:00:00 [notice] 364#364: worker process 415 exited on signal 9", ""),
)


@pytest.mark.parametrize(("text", "expected"), OTHER_VERSIONS)
def test_what_other_versions_print_by_their_source(text: str, expected: str) -> None:
    assert "; ".join(short(sign) for _, sign in signs_of(said(text, 364))) == expected


def journal_line(message: object, pid: int = 364) -> bytes:
    """As `journalctl -o json` gives it: what is not printable comes as a list of bytes."""
    raw = {"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "1795602755000000", "_PID": str(pid), "MESSAGE": message}
    return json.dumps(raw).encode()


COLOURED = (
    ("\x1b[31;1m[2026-11-23 20:29:14,193: ERROR/MainProcess] Process 'W-1' pid:451 exited with 'signal 9 (SIGKILL)'\x1b[0m", 451),
    ("\x1b[32mINFO\x1b[0m:     Child process [451] died", 451),
    ("[2026-11-23 23:50:56 +0000] [364] [\x1b[1;31mERROR\x1b[0m] Worker (pid:451) was sent SIGKILL! Perhaps out of memory?", 451),
)


@pytest.mark.parametrize(("text", "pid"), COLOURED)
def test_a_coloured_line_which_the_journal_gives_as_bytes_is_read(text: str, pid: int) -> None:
    entry = parse_entry(journal_line(list(text.encode())))

    assert entry is not None
    assert [sign.pid for _, sign in signs_of(entry)] == [pid]


@pytest.mark.parametrize("ends", [("", "\n"), ("\n", ""), ("x\n", ""), ("\x1b[31mx", "\x1b[0m"), ("\xff", ""), ("", "\x00")])
def test_a_forged_line_given_as_bytes_says_nothing(ends: tuple[str, str]) -> None:
    for line in TOLD:
        entry = parse_entry(journal_line(list(f"{ends[0]}{line.text}{ends[1]}".encode("latin-1", "replace")), line.pid))
        assert entry is not None
        assert signs_of(entry) == []


@given(st.text(max_size=200), st.one_of(st.none(), st.integers(0, 2**32)))
def test_any_text_is_survived(text: str, pid: int | None) -> None:
    assert signs_of(said(text, pid)) == []


@given(st.sampled_from(TOLD), st.data())
def test_any_change_of_a_real_line_is_survived(line: Line, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(line.text)))
    end = data.draw(st.integers(start, len(line.text)))
    put = data.draw(st.text(max_size=12))

    for _, sign in signs_of(said(line.text[:start] + put + line.text[end:], line.pid)):
        assert sign.pid is None or sign.pid >= 0
        assert 0 <= sign.signal < 1000
        assert "\n" not in sign.name + sign.task + sign.version
