"""What to do about a kill, in words, with the numbers that are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from remote.findings.causes import Cause, Other
from remote.text import Mono, Size, Span, T, Text, Value

# With less than this share left for all others, one process filled the limit by itself.
_ALONE = 0.1
# `Known.by` of a unit that systemd ended because it did not say in time that it lives (WatchdogSec).
WATCHDOG = "watchdog"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a kill beyond its cause. `limited` is the name of what the limit belongs to, where it is not the
    unit itself; `limit_s` the application's own time limit, `stop_s` systemd's. `by`, `container` and `counted` are a
    Kill's: who did it, the container's id, and that only a counter knows of it."""

    cause: Cause
    name: str
    unit: str | None = None
    rss_bytes: int | None = None
    limit_bytes: int | None = None
    limited: str = ""
    stopped_unit: bool = False
    limit_s: float | None = None
    stop_s: float | None = None
    by: str = ""
    container: str = ""
    counted: bool = False

    @property
    def alone(self) -> bool:
        """Whether this one process filled the limit by itself, as far as is known."""
        if self.limit_bytes is None or self.rss_bytes is None:
            return False
        return self.limit_bytes - self.rss_bytes < self.limit_bytes * _ALONE


def advice(known: Known) -> Text:
    """What happened, in one sentence, and what to do next, in another."""
    if known.counted:
        return _counted(known)
    match known.cause:
        case "cgroup-limit":
            return _limit(known)
        case "kernel-oom":
            return _machine(known)
        case "systemd-oomd" | "userspace-oom":
            return T(
                "{daemon} ended {name} before the memory was gone: see what uses it in /top.",
                daemon=Mono("systemd-oomd" if known.cause == "systemd-oomd" else known.by or "earlyoom"),
                name=_whose(known),
            )
        case _:
            return _own_doing(known.cause, known)


def remedy(known: Known) -> Text:
    """What to do about a kill for memory, and nothing of what happened: for where the rest is said beside it."""
    match known.cause:
        case "cgroup-limit" if known.container:
            return T("To do: give the container more memory, or less to do.")
        case "cgroup-limit" if known.limited:
            return T("To do: raise the limit of {group}, or run less in it.", group=Mono(_last(known.limited)))
        case "cgroup-limit" if known.alone:
            return T("To do: raise the limit, or find what grew.")
        case "cgroup-limit" if known.stopped_unit:
            return T("To do: fewer workers or a higher limit; OOMPolicy=continue lets the others live on.")
        case "cgroup-limit":
            return T("To do: fewer workers, or a higher limit.")
        case "kernel-oom":
            return T("To do: stop what is not needed, or cap what grew. It was the biggest, not always the guilty one.")
        case _:
            return T("To do: see who holds the memory, and stop what is not needed.")


def _counted(known: Known) -> Text:
    """Of the host's own counter nobody knows where it was."""
    if known.unit is None:
        return T("The kernel counted a kill, but its line is lost: a log that is kept on disk and not cut would have it.")
    return T(
        "The kernel counted a kill in {name}, but its line is lost: a log that is kept on disk and not cut would have it.",
        name=_whose(known),
    )


def _whose(known: Known) -> Mono:
    return Mono(known.unit or known.name)


def _last(cgroup: str) -> str:
    """The group's own name; the root has only its path."""
    return cgroup.rstrip("/").rsplit("/", 1)[-1] or cgroup


def _limit(known: Known) -> Text:
    subject = Mono(known.limited or known.unit or known.name)
    if known.limit_bytes is None:
        return T(
            "{name} was killed because {group} reached its memory limit: raise the limit or give it less to do.",
            name=Mono(known.name),
            group=subject,
        )
    values: dict[str, Value] = {"group": subject, "limit": Size(known.limit_bytes), "name": Mono(known.name)}
    if known.rss_bytes is None:
        return T("{group} reached its limit of {limit}: raise the limit or run fewer workers.", **values)
    values |= {"rss": Size(known.rss_bytes)}
    if known.alone:
        return T("{group} reached its limit of {limit}, {name} alone used {rss}: raise the limit or find what grew.", **values)
    values |= {"rest": Size(known.limit_bytes - known.rss_bytes)}
    if known.stopped_unit:
        return T(
            "{group} reached its limit of {limit}: {name} used {rss}, the others and the kernel {rest}. "
            "systemd then stopped all of it (OOMPolicy=stop). Raise the limit, run fewer workers or set OOMPolicy=continue.",
            **values,
        )
    return T(
        "{group} reached its limit of {limit}: {name} used {rss}, the others and the kernel {rest}. "
        "Raise the limit or run fewer workers.",
        **values,
    )


def _machine(known: Known) -> Text:
    if known.rss_bytes is None:
        return T(
            "The whole machine ran out of memory and the kernel chose {name}: see what uses the rest in /top.",
            name=Mono(known.name),
        )
    return T(
        "The whole machine ran out of memory and the kernel chose {name}, which used {rss}: see what uses the rest in /top.",
        name=Mono(known.name),
        rss=Size(known.rss_bytes),
    )


def _own_doing(cause: Other, known: Known) -> Text:
    name = _whose(known)
    match cause:
        case "worker-timeout" | "stop-timeout" if known.by == WATCHDOG:
            return T(
                "Not memory: {name} did not tell systemd in time that it is alive (WatchdogSec). Look for what it hung on.",
                name=name,
            )
        case "worker-timeout":
            # Swapping makes a worker slow too (gunicorn#1646).
            return T(
                "Not an OOM kill: a worker of {name} did not answer in time and its master ended it. "
                "Look for slow requests, and for swapping at that time.",
                name=name,
            )
        case "time-limit":
            return _time_limit(name, known.limit_s)
        case "stop-timeout":
            return _stop_timeout(name, known.stop_s)
        case "container":
            return T(
                "Not an OOM kill: the container of {name} was stopped or killed, by a deploy, a health check or a person. "
                "Look at who stopped it.",
                name=name,
            )
        case "plan":
            return _plan(name, known.by)
        case "manual":
            return _manual(name, known.by)
        case "unknown":
            return T(
                "Nothing in the log says who killed {name}, and nothing says that memory ran out: it may have been a person.",
                name=name,
            )
        case _:
            assert_never(cause)


def _time_limit(name: Mono, limit_s: float | None) -> Text:
    if limit_s is None:
        return T("Not memory: celery ended a task of {name} that ran longer than its limit.", name=name)
    return T(
        "Not memory: celery ended a task of {name} that ran longer than its limit of {limit}.", name=name, limit=Span(limit_s)
    )


def _stop_timeout(name: Mono, stop_s: float | None) -> Text:
    if stop_s is None:
        return T("Not memory: {name} was being stopped and was not done in time. Give it more time (TimeoutStopSec).", name=name)
    return T(
        "Not memory: {name} was being stopped and was not done after {limit}. Give it more time (TimeoutStopSec).",
        name=name,
        limit=Span(stop_s),
    )


def _plan(name: Mono, plan: str) -> Text:
    if not plan:
        return T("A plan that somebody approved ended {name}: nothing is to be done.", name=name)
    return T("Plan {plan} ended {name}, as it was approved: nothing is to be done.", plan=Mono(plan), name=name)


def _manual(name: Mono, who: str) -> Text:
    if not who:
        return T("A person or a script killed {name} on purpose, by kill or by SysRq: the log lines say how.", name=name)
    return T("{who} killed {name}, or a script under that name did: ask why.", who=Mono(who), name=name)
