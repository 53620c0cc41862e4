"""Two sights of one kill are one; two kills never are."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from remote.facts.units import Units
from remote.findings.kill import Kill, Member, counted_kill, join, same_kill
from remote.findings.verdict import Evidence, Verdict, strength, verdict
from remote.text import T
from tests.remote.findings.journal_scene import SITE, START, dump, gunicorn, one, sigkill, systemd
from tests.remote.findings.scene import BOOT, MIB, unit

COUNTER = "memory.events: oom_kill 3, was 2"
NAMED = "Out of memory: Killed process 5 (gunicorn) total-vm:900000kB"


def kill(pid: int | None = 5, at_s: float = 0, **given: Any) -> Kill:  # noqa: ANN401 - any field
    fields: dict[str, Any] = {
        "name": "gunicorn",
        "unit": "site.service",
        "at": START + timedelta(seconds=at_s),
        "boot_id": BOOT,
        "monotonic_us": 1_000_000_000 + int(at_s * 1e6),
        "signal": 9,
        "cause": "unknown",
        "confidence": "guess",
        "limit_bytes": None,
        "rss_bytes": None,
        "evidence": ("a",),
        "advice": T("Nothing."),
        "final": False,
        **given,
    }
    return Kill(pid=pid, **fields)


def counted(at_s: float = 0, unit: str | None = "site.service", limit_bytes: int | None = None) -> Kill:
    return counted_kill(unit, BOOT, START + timedelta(seconds=at_s), 1_000_000_000 + int(at_s * 1e6), limit_bytes, COUNTER)


OOM: dict[str, Any] = {"cause": "kernel-oom", "confidence": "certain"}
SAME: tuple[tuple[Kill, Kill, bool], ...] = (
    (kill(5), kill(5, 119), True),
    (kill(5), kill(5, 121), False),
    (kill(5), kill(6), False),
    (kill(5), kill(5, boot_id="c" * 32), False),
    (kill(5), kill(5, boot_id=""), True),
    # the wall's clock was set, the kernel's was not
    (kill(5), kill(5, 500, monotonic_us=1_000_000_001), True),
    (kill(5), kill(5, 10, monotonic_us=0), True),
    # the kernel names a victim once: a pid that it names again later was used again
    (kill(5, evidence=(NAMED,)), kill(5, 11, evidence=(f"{NAMED}!",)), False),
    (kill(5, evidence=(NAMED,)), kill(5, 9, evidence=(f"{NAMED}!",)), True),
    (kill(5, evidence=("it hung", NAMED)), kill(5, 11, evidence=(NAMED,)), True),
    (kill(5, evidence=(NAMED,)), kill(5, 11), True),
    (kill(5, evidence=(NAMED,)), kill(5, 11, evidence=(f"{NAMED}!",), monotonic_us=0), True),
    # one of them knows only the unit
    (kill(None), kill(5, 59), True),
    (kill(5), kill(None, 59), True),
    (kill(None), kill(5, 61), False),
    (kill(None), kill(5, unit="other.service"), False),
    (kill(None, unit=None), kill(5, unit=None), False),
    (kill(None, final=True), kill(5, 1, final=True), False),
    (kill(None, final=True), kill(5, final=True), True),
    (kill(None, final=True), kill(5, 500, final=True, monotonic_us=1_000_000_000), True),
    (kill(None, final=True), kill(5, final=True, unit="other.service"), False),
    (kill(None, final=True, unit=None), kill(5, final=True, unit=None), False),
    (kill(None, final=True, monotonic_us=0), kill(5, final=True, monotonic_us=0), False),
    (kill(5, final=True), kill(6, final=True), False),
    (kill(None, final=True), kill(None, final=True), True),
    (kill(None, final=True), kill(None, 1, final=True), False),
    # what was ended as a whole is no process
    (kill(None, cause="systemd-oomd"), kill(5), False),
    (kill(None, cause="systemd-oomd"), kill(None, 1), True),
    (kill(None, unit=None, container="abc"), kill(None, 5, unit=None, container="abc"), True),
    (kill(None, unit=None, container="abc"), kill(None, 5, unit=None, container="abd"), False),
    # a counter
    (counted(), kill(5, -500, **OOM), True),
    (kill(5, -500, **OOM), counted(), True),
    (counted(), kill(5, -601, **OOM), False),
    (counted(), kill(5, 59, final=True, **OOM), True),
    (counted(), kill(5, 61, **OOM), False),
    (counted(), kill(5, cause="worker-timeout", confidence="certain"), False),
    (counted(), kill(5, unit="other.service", **OOM), False),
    (counted(unit=None), kill(5, unit="other.service", **OOM), True),
    (counted(), counted(), True),
    (counted(), counted(15), False),
    (counted(), counted(unit=None), False),
)


@pytest.mark.parametrize(("known", "more", "expected"), SAME)
def test_two_sights_are_one_kill_or_two(known: Kill, more: Kill, expected: bool) -> None:  # noqa: FBT001 - a case
    assert same_kill(known, more) is expected
    assert same_kill(more, known) is expected


def test_a_counted_kill_says_what_it_knows() -> None:
    machine, limited = counted(unit=None), counted(limit_bytes=512 * MIB)

    assert (machine.pid, machine.unit, machine.cause, machine.confidence, machine.counted) == (
        None,
        None,
        "kernel-oom",
        "likely",
        True,
    )
    assert (limited.name, limited.cause, limited.limit_bytes, limited.evidence) == ("site", "cgroup-limit", 512 * MIB, (COUNTER,))
    assert not limited.final


def test_the_line_absorbs_what_was_counted() -> None:
    told = one([*dump(10, 415)])
    whole = join(replace(counted(10), boot_id=BOOT), told)

    assert (whole.pid, whole.name, whole.counted, whole.cause, whole.confidence) == (
        415,
        "gunicorn",
        False,
        "cgroup-limit",
        "certain",
    )
    assert whole.evidence == (COUNTER, *told.evidence)
    assert (whole.limit_bytes, whole.limit_group, whole.members) == (512 * MIB, SITE, told.members)
    assert join(told, counted(10)) == replace(whole, evidence=(*told.evidence, COUNTER))


def test_the_stronger_verdict_stays() -> None:
    kernel = kill(5, cause="kernel-oom", confidence="certain", evidence=("k",), rss_bytes=7)
    hung = kill(5, 2, cause="worker-timeout", confidence="certain", evidence=("h",), name="", doing="GET /")
    guess = kill(5, 1, unit=None, stopped_unit=True)
    for known, more in ((kernel, hung), (hung, kernel)):
        whole = join(known, more)
        assert (whole.cause, whole.rss_bytes, whole.doing, whole.at, whole.name) == ("kernel-oom", 7, "GET /", START, "gunicorn")
        assert set(whole.evidence) == {"k", "h"}
    assert join(kernel, guess).stopped_unit
    assert join(guess, kernel).unit == "site.service"
    assert join(kill(5, cause="kernel-oom", confidence="likely"), hung).cause == "worker-timeout"
    assert (
        join(kill(5, cause="plan", confidence="certain", by="P1"), kill(5, cause="stop-timeout", confidence="certain")).by == "P1"
    )


# Each judge's word alone, the strongest first. Where the kernel names a victim without saying whose memory ran out (`unsaid`), or
# because somebody asked it to (`by_hand`), its verdict is worded as a weaker judge's: a row does not tell them apart.
ALONE: tuple[tuple[Evidence, ...], ...] = (
    (Evidence(memory="machine"), Evidence(memory="group")),
    (Evidence(hunter="earlyoom"), Evidence(oomd=True)),
    (Evidence(runtime="dockerd"),),
    (Evidence(sender="bob"),),
    (Evidence(watchdog="certain"), Evidence(stop="certain")),
    (Evidence(sudo="alice"),),
    (Evidence(hung=True), Evidence(forced="supervisord"), Evidence(over_time=True)),
    (
        *(Evidence(watchdog="likely"), Evidence(stop="likely"), Evidence(oomd_near=True)),
        *(Evidence(unit_oom=True), Evidence(unit_oom=True, limited=True)),
    ),
    (Evidence(),),
)


def both(one: Evidence, other: Evidence) -> Evidence:
    """What is known when all of either is."""
    surer = {"": 0, "likely": 1, "certain": 2}
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(Evidence)}
    return Evidence(**{name: max(pair, key=lambda value: surer.get(value, int(bool(value)))) for name, pair in pairs.items()})


def _said(evidence: Evidence) -> str:
    return "+".join(field.name for field in fields(Evidence) if getattr(evidence, field.name)) or "nothing"


@pytest.mark.parametrize(
    ("one", "other"), [(a, b) for ours, theirs in permutations(ALONE, 2) for a in ours for b in theirs], ids=_said
)
def test_joining_two_verdicts_is_judging_once(one: Evidence, other: Evidence) -> None:
    def sight(evidence: Evidence) -> Kill:
        said = verdict(evidence)
        return kill(5, cause=said.cause, confidence=said.confidence, by=said.by)

    at_once = verdict(both(one, other))
    joined = join(sight(one), sight(other))
    assert (joined.cause, joined.confidence, joined.by) == (at_once.cause, at_once.confidence, at_once.by)


def test_each_judge_outweighs_the_next_and_a_plan_weighs_as_the_audit() -> None:
    weights = [{strength(verdict(evidence)) for evidence in alike} for alike in ALONE]

    assert [weight for (weight,) in weights] == list(range(len(ALONE) - 1, -1, -1))
    assert strength(Verdict("plan", "certain", "P1")) == strength(Verdict("manual", "certain", "bob"))


def test_a_sight_of_less_takes_nothing_away() -> None:
    full = kill(
        5, members=(Member(5, "a", 1),), uid=33, cgroup=SITE, container="abc", by="alice", limit_bytes=1, limit_group=SITE,
        cause="cgroup-limit", confidence="certain", final=True,
    )  # fmt: skip
    less = kill(5, cause="cgroup-limit", confidence="certain")

    assert join(full, less) == full
    assert join(less, full) == full


def test_what_belongs_to_a_unit_is_not_staged() -> None:
    staged = kill(5, unit=None, staged=True)

    assert join(staged, kill(5, unit=None)).staged
    assert not join(staged, kill(5)).staged


def test_a_long_storms_evidence_stays_short() -> None:
    whole = kill(5)
    for n in range(100):
        whole = join(whole, kill(5, evidence=(f"line {n}",)))

    assert len(whole.evidence) == 20


def test_a_replay_that_saw_less_is_the_same_kill() -> None:
    lines = [*dump(10, 415), gunicorn(11, sigkill(415))]
    full, part = one(lines), one(lines[3:])

    assert same_kill(full, part)
    assert join(full, part) == full


def test_a_look_after_the_unit_has_restarted_sees_the_same_kill() -> None:
    def running(pid: int, invocation_id: str) -> Units:
        return Units((unit("site.service", "gunicorn app.wsgi", main_pid=pid, invocation_id=invocation_id),))

    ended = systemd(100, "site.service: Main process exited, code=killed, status=9/KILL")
    lines = [replace(ended, extra=(("INVOCATION_ID", "1" * 32),))]
    watched, looked = one(lines, units=running(4242, "1" * 32)), one(lines, units=running(5000, "2" * 32))

    assert (watched.pid, looked.pid) == (4242, None)
    assert same_kill(replace(watched, final=True), replace(looked, final=True))


def test_a_counted_kill_of_nobody_knows_where_has_no_place() -> None:
    lost = counted_kill(None, BOOT, START, 5, None, "oom_kill 3 (/proc/vmstat), and no line in the log")
    assert (
        lost.advice.msgid
        == "The kernel counted a kill, but its line is lost: a log that is kept on disk and not cut would have it."
    )
    where = counted_kill("site.service", BOOT, START, 5, None, "oom_kill 3")
    assert where.advice.msgid.startswith("The kernel counted a kill in {name}, but")
