"""Schedules: cron lines and timers that restart a service by themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron line or a timer that restarts `unit` (as named there). `where` is `/etc/cron.d/x:3`, `crontab of root` or the
    timer's name; `when` is its schedule as written; `condition` says whether the command tests memory first."""

    unit: str
    where: str
    when: str
    tests_memory: bool


@dataclass(frozen=True, slots=True)
class Schedules:
    """All that were found, and which places could not be read."""

    all: tuple[Schedule, ...]
    unread: tuple[str, ...] = ()
