"""Restart one unit, letting a celery worker finish its task first; it must be healthy afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote.remedies import shell
from remote.remedies.base import Remedy, Step
from remote.text import Mono, Span, T

if TYPE_CHECKING:
    from remote.facts.units import Unit

KIND = "restart-unit"
QUICK_S = 180.0


def propose(unit: Unit, *, celery: bool, stop_timeout_s: int, health_url: str = "") -> Step:
    """Restart `unit`. `celery`: its task in hand may finish, for at most `stop_timeout_s` seconds."""
    name = shell.unit_name(unit.id)
    soft = celery and unit.active
    restart = f"systemctl restart {name}"
    commands = (shell.softly(unit.id, stop_timeout_s), restart, shell.no_longer_softly(unit.id)) if soft else (restart,)
    before = unit.invocation_id
    return Step(
        kind=KIND,
        target=unit.id,
        text=T("Restart {unit}", unit=Mono(unit.id)),
        commands=commands,
        undo=(),
        check=shell.unchanged(unit),
        busy=shell.job(unit.id),
        holds=f'[ "$(systemctl show --value -p InvocationID {name})" != "{before}" ] || exit 1\n'
        + shell.healthy(unit.id, health_url=health_url),
        interrupts=T(
            "{unit} takes no new task; the one in hand may finish, for up to {time}",
            unit=Mono(unit.id),
            time=Span(stop_timeout_s),
        )
        if soft
        else T("{unit} does not answer while it restarts", unit=Mono(unit.id)),
        cannot_undo=T("A restart cannot be undone"),
        deadline_s=stop_timeout_s + 60.0 if soft else QUICK_S,
        params={"unit": unit.id, "invocation_id": before},
    )


REMEDY = Remedy(kind=KIND, title=T("Restart a unit"), order=90)
