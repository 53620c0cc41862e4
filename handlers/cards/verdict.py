"""One kill in people's words: what died, what that did to users, who did it, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import get_args

from remote.findings.advice import WATCHDOG, Known, advice, remedy
from remote.findings.causes import Cause, OfMemory
from remote.findings.kill import Kill, Member
from remote.services import kinds
from remote.services.base import Kind
from remote.text import Mono, N, T, Text, Value

MEMORY: frozenset[Cause] = frozenset(get_args(OfMemory))
"""Memory ran out, or was about to."""

CONTAINER_ID = 12  # characters that docker itself shows

_INTERPRETER = re.compile(r"python[\d.]*$")
_OWN_LINES = (
    ("celery-worker", re.compile(r"/MainProcess\]|ForkPoolWorker|WorkerLostError")),
    ("gunicorn", re.compile(r"\] \[\d+\] \[[A-Z]+\] (?:Worker |WORKER TIMEOUT)")),
)
_VERSION = re.compile(r"[\d.]+$")  # php-fpm8.2
# A master's line about its child says which of the two it was.
_CHILD = re.compile(r"\b(?:worker|child|poolworker)\b|ForkPoolWorker", re.IGNORECASE)
_MAIN_ENDED = re.compile(r": Main process exited, code=")
_WATCHDOG = re.compile(r": Watchdog timeout|'(?:stop|final)-(?:watchdog|sigabrt)'")
_STARTED_AGAIN = re.compile(r": Scheduled restart job")


@cache
def _kinds() -> Mapping[str, Kind]:
    """The kinds by what the kernel calls their processes."""
    return {comm: kind for kind in kinds().values() for comm in (kind.name, *kind.comms)}


def kind_of(name: str) -> Kind | None:
    """The kind of program that the kernel calls `name`: `gunicorn: worke` is gunicorn's, `postgres` PostgreSQL's."""
    first = re.split(r"[:\s]", name.strip().lstrip("["), maxsplit=1)[0]
    return _kinds().get(first) or _kinds().get(_VERSION.sub("", first))


def kind_killed(kill: Kill) -> Kind | None:
    """The kind of a kill. The kernel calls what is started by `python -m` python3; its master's own lines tell more."""
    if not _INTERPRETER.match(kill.name):
        return kind_of(kill.name)
    return next((kinds()[name] for name, says in _OWN_LINES if any(says.search(line) for line in kill.evidence)), None)


def program(name: str) -> str:
    """What people call the program that the kernel calls `name`."""
    kind = kind_of(name)
    return name if kind is None else kind.called


def called(kill: Kill) -> str:
    """What people call the program of a kill."""
    kind = kind_killed(kill)
    return kill.name if kind is None else kind.called


def forks(kind: Kind | None) -> bool:
    """Whether its master forks workers."""
    return kind is not None and kind.prefork


def role(kill: Kill) -> str:
    """`master`, `worker`, or empty where nothing says which it was."""
    if ": maste" in kill.name:
        return "master"
    if ": worke" in kill.name or kill.cause == "worker-timeout":
        return "worker"
    told = (line for line in kill.evidence if kill.pid is not None and re.search(rf"\b{kill.pid}\b", line))
    if any(_CHILD.search(line) for line in told):
        return "worker"
    return role_among(kill)


def role_among(kill: Kill) -> str:
    """By the kernel's own table: of several equal names the one with the lowest pid, and the smallest by far, is the master
    that forked the others. Pids begin anew in time, so both signs are needed."""
    first = master_of([one for one in kill.members if one.name == kill.name]) if forks(kind_killed(kill)) else None
    if first is None:
        return ""
    return "master" if kill.pid == first.pid else "worker"


def master_of(same: Sequence[Member]) -> Member | None:
    """Which of these, all of one program that forks, forked the others; None where the table does not show that."""
    if len(same) < 2:  # noqa: PLR2004 - one is no family
        return None
    first = min(same, key=lambda one: one.pid)
    smallest = min(one.rss_bytes for one in same if one is not first)
    return first if first.rss_bytes * 4 < smallest * 3 else None


def what(group: Sequence[Kill], count: int) -> Value:
    """The program, and its role where that is known; the number of several stands in it."""
    kill = group[0]
    if kill.staged or kill.unit is None:
        return _several(Mono(kill.name), count)
    its = Mono(called(kill))
    roles = {role(one) for one in group}
    # A storm's kernel reports are rate-limited: what one of its kills shows stands for those that show nothing.
    match "master" if "master" in roles else "worker" if "worker" in roles else "":
        case "worker" if count > 1:
            return N("{n} {program} worker", "{n} {program} workers", count, program=its)
        case "worker":
            return T("{program} worker", program=its)
        case "master" if count == 1:
            return T("{program} master", program=its)
        case _:
            return _several(its, count)


def whole(kill: Kill) -> bool:
    """Whether all of its unit was killed at once, by a daemon that names only the unit."""
    return kill.pid is None and kill.cause == "systemd-oomd" and kill.unit is not None


def nameless(kill: Kill) -> bool:
    """Whether only the unit is known of it: systemd says so before the kernel's line is read, or where that is lost."""
    return kill.pid is None and kill.unit is not None and kill.name in {"", "?", kill.unit.removesuffix(".service")}


def watchdog(kill: Kill) -> bool:
    """Whether systemd ended a unit that gave no sign of life."""
    systemds = kill.cause in {"worker-timeout", "stop-timeout"}
    return systemds and (kill.by == WATCHDOG or any(_WATCHDOG.search(line) for line in kill.evidence))


def _several(its: Mono, count: int) -> Value:
    return its if count == 1 else T("{n} {program}", n=count, program=its)


def effect(kill: Kill) -> Text | None:
    """What it did to users; None where nothing says so."""
    unit = Mono(kill.unit or "")
    again = any(_STARTED_AGAIN.search(line) for line in kill.evidence)
    if kill.staged:
        return T("It was in a user's own session (uid {uid}), not a system service.", uid="?" if kill.uid is None else kill.uid)
    if kill.unit is None or kill.counted or whole(kill) or (kill.cause == "stop-timeout" and not watchdog(kill)):
        return None
    if kill.stopped_unit and again:
        return T("For it systemd stopped all of {unit} (OOMPolicy=stop) and started it again.", unit=unit)
    if kill.stopped_unit:
        return T("For it systemd stopped all of {unit} (OOMPolicy=stop).", unit=unit)
    if any(_MAIN_ENDED.search(line) for line in kill.evidence):
        if again:
            return T("It was the main process: {unit} went down, and systemd started it again.", unit=unit)
        return T("It was the main process: {unit} went down.", unit=unit)
    return _loss(kill)


def _loss(kill: Kill) -> Text | None:
    if called(kill) == "PostgreSQL":
        return T("PostgreSQL then disconnects everybody and recovers.")
    if kill.doing and kill.cause != "time-limit":
        return T("It was at work on {task}.", task=Mono(kill.doing))
    if forks(kind_killed(kill)) and role(kill) == "worker":
        return T("What it had in hand is lost; its master starts a new one.")
    return None


def killer(kill: Kill) -> Text:
    """Who killed it, and how sure that is."""
    if kill.counted:
        return T("The kernel counted it, the log lost its line.")
    match kill.confidence:
        case "certain":
            return _cause(kill)
        case "likely":
            return T("Likely: {who}", who=_cause(kill))
        case "guess":
            return T("A guess: {who}", who=_cause(kill)) if kill.cause != "unknown" else _cause(kill)


def _cause(kill: Kill) -> Text:
    who = Mono(kill.by)
    match kill.cause:
        case "cgroup-limit":
            return _limit(kill)
        case "userspace-oom" if kill.by:
            return T("Killed by {daemon}, before memory was gone", daemon=who)
        case "worker-timeout" | "stop-timeout" if watchdog(kill):
            return T("Killed by systemd: it gave no sign of life (WatchdogSec)")
        case "time-limit" if kill.doing:
            return T("Killed by celery: {task} ran over the time limit", task=Mono(kill.doing))
        case "container" if kill.container:
            return T("Killed by the stop or kill of container {id}", id=_container(kill))
        case "plan" if kill.by:
            return T("Killed by plan {plan}, which somebody approved", plan=who)
        case "manual" if kill.by:
            return T("Killed by {who}: by hand, or a script", who=who)
        case _:
            return _CAUSES[kill.cause]


def _limit(kill: Kill) -> Text:
    if kill.container:
        return T("Killed by the kernel: the memory limit of container {id} was reached", id=_container(kill))
    limited = limited_name(kill)
    if not limited:
        return T("Killed by the kernel: a memory limit was reached")
    if kill.unit and limited != kill.unit:
        return T("Killed by the kernel: the memory limit of {unit}, which it is in, was reached", unit=Mono(limited))
    return T("Killed by the kernel: the memory limit of {unit} was reached", unit=Mono(limited))


def limited_name(kill: Kill) -> str:
    """The name of what the limit belongs to; empty where nobody knows."""
    return kill.limit_group.rstrip("/").rsplit("/", 1)[-1] or kill.unit or ""


def _container(kill: Kill) -> Mono:
    return Mono(kill.container[:CONTAINER_ID])


_CAUSES: dict[Cause, Text] = {
    "kernel-oom": T("Killed by the kernel: the whole machine was out of memory"),
    "cgroup-limit": T("Killed by the kernel: a memory limit was reached"),
    "systemd-oomd": T("Killed by systemd-oomd: too much memory pressure or swap"),
    "userspace-oom": T("Killed by an OOM daemon (earlyoom or its kind)"),
    "worker-timeout": T("Killed by its own master: it hung longer than its timeout"),
    "stop-timeout": T("Killed by systemd: it did not stop in time"),
    "time-limit": T("Killed by celery: its task ran over the time limit"),
    "container": T("Killed by its container's stop or kill"),
    "plan": T("Killed by a plan that somebody approved"),
    "manual": T("Killed by a person or a script"),
    "unknown": T("Nothing says who killed it"),
}


def to_do(kill: Kill) -> Text:
    """What to do. For memory only that, since the card has the figures; the rest explains itself in its advice."""
    if watchdog(kill):
        return advice(Known(kill.cause, kill.name, kill.unit, by=WATCHDOG))
    if kill.counted:
        return advice(Known(kill.cause, kill.name, kill.unit, counted=True))
    if kill.cause not in MEMORY:
        return kill.advice
    limited = limited_name(kill) if kill.unit and limited_name(kill) != kill.unit else ""
    return remedy(
        Known(
            kill.cause, kill.name, kill.unit, kill.rss_bytes, kill.limit_bytes, limited, kill.stopped_unit,
            by=kill.by, container=kill.container,
        )
    )  # fmt: skip
