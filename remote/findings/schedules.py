"""Schedules that restart a service by themselves: what they hide, and what could do it better."""

from __future__ import annotations

from remote.facts.schedules import Schedule, Schedules
from remote.facts.units import Units
from remote.findings.base import Finding
from remote.text import Mono, T


def restarters(schedules: Schedules, units: Units) -> tuple[Finding, ...]:
    """A finding `cron-restarts` for each cron line or timer that restarts a unit."""
    return tuple(_finding(schedule, units) for schedule in schedules.all)


def _finding(schedule: Schedule, units: Units) -> Finding:
    known = units.by_name(schedule.unit)
    unit = known.id if known else schedule.unit
    values = {"where": Mono(schedule.where), "unit": Mono(unit), "when": Mono(schedule.when)}
    if schedule.tests_memory:
        text = T(
            "{where} restarts {unit} when memory runs out ({when}). memwarden can replace it: it finds the cause first and asks.",
            **values,
        )
    else:
        text = T(
            "{where} restarts {unit} again and again ({when}), which hides a leak. memwarden can replace it: it asks first.",
            **values,
        )
    return Finding("cron-restarts", "warning", text, unit)
