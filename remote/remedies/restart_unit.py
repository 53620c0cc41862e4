"""Restart one unit, letting a celery worker finish its task first; it must be healthy afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote.remedies import shell
from remote.remedies.base import Remedy, Step
from remote.text import Listing, Mono, N, Span, T, Text

if TYPE_CHECKING:
    from remote.facts.units import Unit

KIND = "restart-unit"
QUICK_STOP_S = 90  # systemd's DefaultTimeoutStopSec
STARTS_S = 90.0


def propose(unit: Unit, *, celery: bool, stop_timeout_s: int, health_url: str = "", others: tuple[str, ...] = ()) -> Step:
    """Restart `unit`. `celery`: its task in hand may finish, for at most `stop_timeout_s` seconds. `others` restart with it."""
    name = shell.unit_name(unit.id)
    restart = f"systemctl restart {name}"
    soft_timeout_s = shell.patience_s(unit, stop_timeout_s) if celery and unit.active else 0
    commands = (*shell.softly(unit.id, soft_timeout_s), restart) if soft_timeout_s else (restart,)
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
        interrupts=_interrupts(unit.id, soft_timeout_s, others),
        cannot_undo=T("A restart cannot be undone"),
        deadline_s=soft_timeout_s + 60.0 if soft_timeout_s else shell.patience_s(unit, QUICK_STOP_S) + STARTS_S,
        params={"unit": unit.id, "invocation_id": before, "others": others},
    )


def _interrupts(unit: str, soft_timeout_s: int, others: tuple[str, ...]) -> Text:
    if others:
        return N(
            "{unit} does not answer while it restarts, nor does {others}, which stops and starts with it",
            "{unit} does not answer while it restarts, nor do {others}, which stop and start with it",
            len(others), unit=Mono(unit), others=Listing(tuple(Mono(other) for other in others)),
        )  # fmt: skip
    if soft_timeout_s:
        return T(
            "{unit} takes no new task; the one in hand may finish, for up to {time}", unit=Mono(unit), time=Span(soft_timeout_s)
        )
    return T("{unit} does not answer while it restarts", unit=Mono(unit))


REMEDY = Remedy(kind=KIND, title=T("Restart a unit"), order=90)
