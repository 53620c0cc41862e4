"""What to do about a kill, in words, with the numbers that are known."""

from __future__ import annotations

from dataclasses import dataclass

from remote.text import Mono, Size, Span, T, Text, Value

# With less than this share left for all others, one process filled the limit by itself.
_ALONE = 0.1


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a kill beyond its cause. `limited` is the name of what the limit belongs to, where it is not the
    unit itself; `limit_s` the application's own time limit, `stop_s` systemd's."""

    cause: str
    name: str
    unit: str | None = None
    rss_bytes: int | None = None
    limit_bytes: int | None = None
    limited: str = ""
    stopped_unit: bool = False
    limit_s: float | None = None
    stop_s: float | None = None


def advice(known: Known) -> Text:
    """What happened, in one sentence, and what to do next, in another."""
    match known.cause:
        case "cgroup-limit":
            return _limit(known)
        case "kernel-oom":
            return _machine(known)
        case "systemd-oomd" | "userspace-oom":
            return T(
                "{daemon} ended {name} before the memory was gone: see what uses it in /top.",
                daemon=Mono("systemd-oomd" if known.cause == "systemd-oomd" else "earlyoom"),
                name=Mono(known.unit or known.name),
            )
        case _:
            return _own_doing(known)


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
    rest_bytes = known.limit_bytes - known.rss_bytes
    if rest_bytes < known.limit_bytes * _ALONE:
        return T("{group} reached its limit of {limit}, {name} alone used {rss}: raise the limit or find what grew.", **values)
    values |= {"rest": Size(rest_bytes)}
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


def _own_doing(known: Known) -> Text:
    name = Mono(known.unit or known.name)
    match known.cause:
        case "worker-timeout":
            return T(
                "Not memory: gunicorn ended a worker of {name} that did not answer in time. Look for slow requests.", name=name
            )
        case "time-limit":
            return _time_limit(name, known.limit_s)
        case "stop-timeout":
            return _stop_timeout(name, known.stop_s)
        case "manual":
            return T("Somebody asked the kernel to kill the biggest process (SysRq): it was {name}.", name=Mono(known.name))
        case _:
            return T(
                "Nothing in the log says who killed {name}, and nothing says that memory ran out: it may have been a person.",
                name=name,
            )


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
