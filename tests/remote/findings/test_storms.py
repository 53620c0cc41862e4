"""Storms: ten thousand kills are read in time, one real kill among them is told at once, and memory has an end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from remote.facts.journal import Entry
from remote.findings.death import Autopsy
from tests.remote.findings.journal_scene import FIRST_WRITERS, RSS, START, dump, gunicorn, kernel, sigkill, systemd

MANY = 10_000
OWN = "/user.slice/user-1000.slice/session-4.scope"
BARE = "Memory cgroup out of memory: Killed process {} (php) "


def bare() -> Iterator[Entry]:
    """A storm of the kernel's, whose reports are rate-limited."""
    return (kernel(10 + n / 500, f"{BARE.format(1000 + n)}{RSS}") for n in range(MANY))


def in_one_unit() -> Iterator[Entry]:
    """All in one unit, whose main process and whose systemd speak of each."""
    for n in range(MANY // 8):
        at_s = 10 + n / 100
        yield dump(at_s, 1000 + n)[2]
        yield kernel(at_s + 0.001, f"{BARE.format(1000 + n)}{RSS}")
        yield systemd(at_s + 0.002, "site.service: A process of this unit has been killed by the OOM killer.")
        yield gunicorn(at_s + 0.003, sigkill(1000 + n))


def one_group() -> Iterator[Entry]:
    """A group that is killed whole."""
    yield from dump(10, 999)
    yield kernel(10.004, "Tasks in /system.slice/site.service are going to be killed due to memory.oom.group set")
    yield from (kernel(10.005 + n / 1e5, f"{BARE.format(1000 + n)}{RSS}") for n in range(MANY // 4))


@pytest.mark.parametrize(("storm", "count"), [(bare, MANY), (in_one_unit, MANY // 8), (one_group, MANY // 4 + 1)])
def test_a_storm_is_told_kill_by_kill(storm: type[Iterator[Entry]], count: int) -> None:
    autopsy = Autopsy(first_writers=FIRST_WRITERS)
    pids = {kill.pid for line in storm() for kill in autopsy.take(line)}

    assert len(pids) == count
    assert None not in pids
    assert len(autopsy.kills) == count


def test_a_real_kill_amid_ten_thousand_staged_ones_is_told_at_once() -> None:
    autopsy = Autopsy()
    staged = real = 0
    for n in range(MANY // 4):
        at_s = 10 + n / 100
        lines = dump(at_s, 1000 + n, cgroup=OWN) if n % 50 == 0 else [kernel(at_s, f"{BARE.format(1000 + n)}{RSS}")]
        if n == MANY // 8:
            real += sum(kill.unit == "site.service" for line in dump(at_s - 0.005, 7) for kill in autopsy.take(line))
        staged += sum(kill.staged and kill.unit is None for line in lines for kill in autopsy.take(line))

    assert (staged, real) == (MANY // 4, 1)


def test_what_is_old_is_forgotten() -> None:
    autopsy = Autopsy(first_writers=FIRST_WRITERS)
    for n in range(500):
        at_s = 10.0 + n
        for line in (
            *dump(at_s, 1000 + n),
            gunicorn(at_s + 0.2, "WORKER TIMEOUT (pid:9)"),
            gunicorn(at_s + 0.5, sigkill(1000 + n)),
        ):
            autopsy.take(line)
        autopsy.forget(START + timedelta(seconds=at_s - 60))
    (boot,) = autopsy._reader.boots.values()

    assert len(autopsy.kills) == 61
    assert len(boot.seen) < 500
    assert sum(map(len, boot.by_key.values())) == 61
    assert sum(1 for _ in boot.own["site.service", 9].newest(0, 10**12)) <= 61
    autopsy.forget(START + timedelta(days=1))
    assert autopsy.kills == ()
    assert not boot.by_key
