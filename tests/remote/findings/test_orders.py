"""In which order the lines of different senders come, how they are cut into pieces, how often they are read: it changes nothing."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from remote.facts.journal import Entry
from remote.facts.witness import Witness
from remote.findings import death
from remote.findings.death import Autopsy
from remote.findings.kill import Kill, join, same_kill
from tests.remote.findings.journal_scene import (
    MASTER,
    RSS,
    START,
    celery,
    dump,
    earlyoom,
    entry,
    gunicorn,
    invocation,
    kernel,
    said,
    sigkill,
    systemd,
)
from tests.remote.findings.scene import BOOT

STAMP = 'time="2022-07-28T10:53:07.730207608+08:00" level=info msg='
Row = tuple[int | None, str | None, str, str, str, int]


def _unit(n: int) -> str:
    return f"u{n}.service"


def _group(n: int) -> str:
    return f"/system.slice/{_unit(n)}"


def _limit(at_s: float, n: int) -> list[Entry]:
    oom = systemd(at_s + 0.2, f"{_unit(n)}: A process of this unit has been killed by the OOM killer.")
    return [
        *dump(at_s, 1000 + n, cgroup=_group(n)),
        oom,
        _told(at_s + 0.5, n),
        systemd(at_s + 2, f"{_unit(n)}: Failed with result 'oom-kill'."),
    ]


def _told(at_s: float, n: int) -> Entry:
    return gunicorn(at_s, sigkill(1000 + n), unit_name=_unit(n))


def _machine(at_s: float, n: int) -> list[Entry]:
    rest = f"nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg={_group(n)},task=a,pid={1000 + n},uid=33"
    victim = kernel(at_s + 0.001, f"Out of memory: Killed process {1000 + n} (a) {RSS}")
    return [kernel(at_s, f"oom-kill:constraint=CONSTRAINT_NONE,{rest}"), victim]


def _bare(at_s: float, n: int) -> list[Entry]:
    return [kernel(at_s, f"Memory cgroup out of memory: Killed process {1000 + n} (a) {RSS}")]


def _hung(at_s: float, n: int) -> list[Entry]:
    return [gunicorn(at_s, f"WORKER TIMEOUT (pid:{1000 + n})", unit_name=_unit(n)), _told(at_s + 1, n)]


def _over_time(at_s: float, n: int) -> list[Entry]:
    dead = celery(at_s + 0.3, f"Process 'ForkPoolWorker-1' pid:{1000 + n} exited with 'signal 9 (SIGKILL)'", _unit(n))
    lost = celery(
        at_s + 10, "Task handler raised error: WorkerLostError('Worker exited prematurely: exitcode 0 Job: 0.')", _unit(n)
    )
    return [celery(at_s, "Hard time limit (30s) exceeded for app.tasks.a[1-2]", _unit(n)), dead, lost]


def _stop(at_s: float, n: int) -> list[Entry]:
    texts = (
        "State 'stop-sigterm' timed out. Killing.",
        f"Killing process {1000 + n} (gunicorn) with signal SIGKILL.",
        "Main process exited, code=killed, status=9/KILL",
        "Failed with result 'timeout'.",
    )
    return [systemd(at_s + at / 10, f"{_unit(n)}: {text}") for at, text in enumerate(texts)]


def _hunted(at_s: float, n: int) -> list[Entry]:
    low = earlyoom(at_s, "low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%")
    return [low, earlyoom(at_s + 0.1, f'sending SIGTERM to process {1000 + n} uid 33 "a": badness 800, VmRSS 512 MiB')]


def _whole(at_s: float, n: int) -> list[Entry]:
    oomd = said(at_s, f"Killed {_group(n)} due to memory used (9) / total (10) being more than 90.00%", "systemd-oomd.service")
    texts = (
        "systemd-oomd killed 4 process(es) in this unit.",
        "Main process exited, code=killed, status=9/KILL",
        "Failed with result 'oom-kill'.",
    )
    return [oomd, *(systemd(at_s + 0.1 + at / 10, f"{_unit(n)}: {text}") for at, text in enumerate(texts))]


def _asked(at_s: float, n: int) -> list[Entry]:
    line = f"alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/kill -9 {1000 + n}"
    return [entry(at_s, line, transport="syslog", exe="/usr/bin/sudo", uid=0, pid=900, identifier="sudo"), _told(at_s + 0.4, n)]


def _container(at_s: float, n: int) -> list[Entry]:
    text = f'{STAMP}"Container failed to exit within 10s of signal 15 - using the force" container={n:064x}'
    return [said(at_s, text.replace(f"{n:064x}", f"{n:012x}" + "0" * 52), "docker.service", 814)]


def _alone(at_s: float, n: int) -> list[Entry]:
    return [_told(at_s, n)]


def _ended(at_s: float, n: int) -> list[Entry]:
    return [systemd(at_s, f"{_unit(n)}: Main process exited, code=killed, status=9/KILL")]


KINDS: dict[str, tuple[Callable[[float, int], list[Entry]], str, str, bool]] = {
    "limit": (_limit, "cgroup-limit", "certain", True),
    "machine": (_machine, "kernel-oom", "certain", True),
    "bare": (_bare, "cgroup-limit", "certain", True),
    "hung": (_hung, "worker-timeout", "certain", True),
    "over_time": (_over_time, "time-limit", "certain", True),
    "stop": (_stop, "stop-timeout", "certain", True),
    "hunted": (_hunted, "userspace-oom", "certain", True),
    "whole": (_whole, "systemd-oomd", "certain", False),
    "asked": (_asked, "manual", "likely", True),
    "container": (_container, "container", "certain", False),
    "alone": (_alone, "unknown", "guess", True),
    "ended": (_ended, "unknown", "guess", False),
}
WRITERS = {invocation(_unit(n)): MASTER for n in range(64)}
_LOG = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=24)


def log(kinds: Iterable[str], gap_s: float, units: int = 64) -> list[Entry]:
    """One kill of each kind after the other, in so many units, all lines in the order of their times."""
    made = [line for n, kind in enumerate(kinds) for line in KINDS[kind][0](100 + n * gap_s, n)]
    lines = [_moved(line, units) for line in made]
    return sorted(lines, key=lambda line: line.monotonic_us)


def _moved(line: Entry, units: int) -> Entry:
    """The line as if its unit were one of so many."""
    renamed = _NUMBER.sub(lambda found: f"u{int(found[1]) % units}.service", line.message)
    unit = _NUMBER.sub(lambda found: f"u{int(found[1]) % units}.service", line.system_unit)
    return replace(line, message=renamed, system_unit=unit, invocation=invocation(unit))


_NUMBER = re.compile(r"\bu(\d{1,2})\.service")


def expected(kinds: Iterable[str]) -> list[tuple[int | None, str, str]]:
    told = [(1000 + n if KINDS[kind][3] else None, *KINDS[kind][1:3]) for n, kind in enumerate(kinds)]
    return sorted(told, key=str)


def rows(kills: Iterable[Kill]) -> list[tuple[int | None, str, str]]:
    return sorted(((kill.pid, kill.cause, kill.confidence) for kill in kills), key=str)


def told(entries: Iterable[Entry]) -> tuple[Kill, ...]:
    return death.kills(entries, first_writers=WRITERS)


def shuffled(lines: list[Entry], chance: random.Random) -> list[Entry]:
    """Each sender's lines keep their order (the journal keeps it), the senders are mixed at will."""
    senders: dict[tuple[str, str], list[Entry]] = {}
    for line in lines:
        senders.setdefault((line.transport, line.system_unit), []).append(line)
    left = list(senders.values())
    mixed = []
    while left:
        queue = chance.choice(left)
        mixed.append(queue.pop(0))
        left = [one for one in left if one]
    return mixed


@given(_LOG, st.sampled_from([0.2, 0.4, 3.0]))
def test_n_kills_are_n(kinds: list[str], gap_s: float) -> None:
    assert rows(told(log(kinds, gap_s))) == expected(kinds)


# celery's time limit names no process: in one unit with other deaths in the same second it may be put to another of them.
_WITH_PIDS = st.lists(
    st.sampled_from([kind for kind in sorted(KINDS) if KINDS[kind][3] and kind != "over_time"]), min_size=1, max_size=24
)


@given(_WITH_PIDS, st.sampled_from([0.2, 3.0]), st.integers(1, 3), st.randoms(use_true_random=False))
def test_n_kills_in_few_units_are_n(kinds: list[str], gap_s: float, units: int, chance: random.Random) -> None:
    """What names only the unit is put to those that it may mean; it makes no kill more, and none less."""
    lines = log(kinds, gap_s, units)
    found = told(shuffled(lines, chance))

    assert sorted(kill.pid or 0 for kill in found) == [1000 + n for n in range(len(kinds))]
    assert found == told(lines)
    for kill in found:
        _, cause, confidence, _ = KINDS[kinds[(kill.pid or 0) - 1000]]
        assert confidence != "certain" or (kill.cause, kill.confidence) == (cause, confidence)


@given(_LOG, st.sampled_from([0.2, 0.4, 3.0]), st.randoms(use_true_random=False))
def test_the_order_of_senders_changes_nothing(kinds: list[str], gap_s: float, chance: random.Random) -> None:
    lines = log(kinds, gap_s)

    assert told(shuffled(lines, chance)) == told(lines)


@given(_LOG, st.integers(0, 60))
def test_reading_twice_changes_nothing(kinds: list[str], again: int) -> None:
    lines = log(kinds, 0.4)

    assert told([*lines, *lines[again:]]) == told([*lines[:again], *lines]) == told(lines)


class Store:
    """Rows as the bot keeps them: each sight is joined to the row that it is a sight of, or is a new row."""

    def __init__(self) -> None:
        self.rows: list[Kill] = []

    def keep(self, found: Iterable[Kill]) -> None:
        for kill in found:
            at = next((at for at in range(len(self.rows) - 1, -1, -1) if same_kill(self.rows[at], kill)), None)
            if at is None:
                self.rows.append(kill)
            else:
                self.rows[at] = join(self.rows[at], kill)


def _gone(uptime_s: float) -> Witness:
    return Witness(BOOT, uptime_s, {}, {}, 0, {})


@settings(max_examples=60)
@given(_LOG, st.lists(st.integers(0, 120), max_size=5), st.randoms(use_true_random=False))
def test_a_stream_with_restarts_tells_the_same_set(kinds: list[str], cuts: list[int], chance: random.Random) -> None:
    """Each restart begins anew, half a minute before where it ended; what waited for a witness is asked about anew."""
    lines = log(kinds, 5.0)
    store, start = Store(), 0
    for end in [*sorted(cut for cut in cuts if cut < len(lines)), len(lines)]:
        autopsy = Autopsy(first_writers=WRITERS)
        for line in lines[start:end]:
            store.keep(autopsy.take(line))
            if autopsy.claims and chance.random() < 0.5:
                store.keep(autopsy.witness(_gone(line.monotonic_us / 1e6), line.at))
        if end == len(lines):
            store.keep(autopsy.witness(_gone(10_000), START + timedelta(hours=1)))
            store.keep(autopsy.settle())
        elif end:
            since = lines[end - 1].monotonic_us - 30_000_000
            start = next(at for at, line in enumerate(lines) if line.monotonic_us >= since)

    assert rows(store.rows) == expected(kinds)


@given(_LOG)
def test_a_stream_ends_up_where_reading_at_once_does(kinds: list[str]) -> None:
    lines = log(kinds, 0.4)
    autopsy = Autopsy(first_writers=WRITERS)
    for line in lines:
        autopsy.take(line)
    autopsy.witness(_gone(10_000), START + timedelta(hours=1))
    autopsy.settle()

    assert autopsy.kills == told(lines)


def _again() -> list[Entry]:
    """A user's bait is killed at a limit of his own, then a worker that got its pid; both masters speak late."""
    bait = "/user.slice/user-1000.slice/user@1000.service/app.slice/bait.service"
    reaped = "now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
    return [
        *dump(100, 1001, "bait", bait, limited=bait),
        kernel(100.1, f"oom_reaper: reaped process 1001 (bait), {reaped}"),
        *dump(160, 1001, "gunicorn", _group(1)),
        kernel(160.004, f"Memory cgroup out of memory: Killed process 1001 (gunicorn) {RSS}"),
        kernel(160.1, f"oom_reaper: reaped process 1001 (gunicorn), {reaped}"),
        _told(161, 1),
        systemd(160.2, f"{_unit(1)}: A process of this unit has been killed by the OOM killer."),
    ]


@given(st.randoms(use_true_random=False), st.integers(0, 14))
def test_a_pid_that_is_used_again_is_another_kill(chance: random.Random, again: int) -> None:
    lines = _again()
    gunicorn_, bait = told(shuffled([*lines, *lines[again:]], chance))

    assert (bait.name, bait.unit, bait.staged, bait.uid) == ("bait", None, True, 33)
    assert (gunicorn_.name, gunicorn_.unit, gunicorn_.staged, gunicorn_.cause) == ("gunicorn", _unit(1), False, "cgroup-limit")
    assert lines[-2].message in gunicorn_.evidence
    assert not any("gunicorn" in line or "pid:1001" in line for line in bait.evidence)
    assert not same_kill(bait, gunicorn_)


def test_of_one_pids_deaths_the_first_may_be_read_last() -> None:
    deaths = [dump(100, 1001, cgroup=_group(1)), dump(160, 1001, cgroup=_group(2))]
    first, second = (gunicorn(at_s, sigkill(1001), unit_name=_unit(n)) for at_s, n in ((101, 1), (161, 2)))
    words = [first, replace(second, message=second.message.replace("20:00:00", "20:01:00"))]
    for order in permutations((*deaths, words)):
        newer, older = told(line for part in order for line in part)
        assert (newer.unit, older.unit) == (_unit(2), _unit(1))
        assert [[word.message in kill.evidence for word in words] for kill in (older, newer)] == [[True, False], [False, True]]


def test_two_boots_are_kept_apart() -> None:
    lines = log(sorted(KINDS), 0.4)
    other = [replace(line, boot_id="c" * 32) for line in lines]

    assert len(told([*lines, *other])) == 2 * len(KINDS)
