"""Stop a unit that does another's work, and take away the links that would start it again at boot.

The links are removed by name, not by `systemctl disable`: that would also touch the units in Also= and hand-made links of
other units, which `enable` does not bring back (tried on systemd 252). Undo puts back exactly what was there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote.remedies import shell
from remote.remedies.base import CannotDraft, Remedy, Step
from remote.text import Mono, N, Span, T, Text

if TYPE_CHECKING:
    from remote.facts.units import Unit

KIND = "stop-unit"
QUICK_STOP_S = 90  # systemd's DefaultTimeoutStopSec
FIXED = frozenset({"generated", "transient", "linked", "linked-runtime", "masked", "masked-runtime"})


def propose(unit: Unit, *, celery: bool, frees_bytes: int, stop_timeout_s: int) -> Step:
    """Stop one extra unit and undo its enablement. Raises CannotDraft for a unit that is more than files and links.

    `celery`: its task in hand may finish, for at most `stop_timeout_s` seconds. `frees_bytes` is its PSS.
    """
    if unit.unit_file_state in FIXED:
        raise CannotDraft(
            T(
                "{unit} is {state}: I cannot keep it from starting in a way that can be undone.",
                unit=Mono(unit.id),
                state=Mono(unit.unit_file_state),
            )
        )
    soft_timeout_s = shell.patience_s(unit, stop_timeout_s) if celery and unit.active else 0
    back = [f"systemctl start {shell.unit_name(unit.id)}"] if unit.active else []
    return Step(
        kind=KIND,
        target=unit.id,
        text=_text(unit),
        commands=_commands(unit, soft_timeout_s),
        undo=(*shell.relink(unit.links), shell.no_longer_softly(unit.id), *back),
        check=shell.unchanged(unit),
        busy=shell.job(unit.id),
        holds="\n".join(
            [shell.state(unit.id, "inactive", "failed"), *(f"[ ! -L {shell.path(at)} ] || exit 1" for at, _ in unit.links)]
        ),
        undone="\n".join(
            [
                shell.state(unit.id, "active" if unit.active else "inactive|failed"),
                *(shell.points(at, to) for at, to in unit.links),
            ]
        ),
        undo_text=_undo_text(unit),
        frees_bytes=frees_bytes,
        interrupts=_interrupts(unit, soft_timeout_s) if unit.active else None,
        deadline_s=(soft_timeout_s or shell.patience_s(unit, QUICK_STOP_S)) + 60.0,
        params={"unit": unit.id, "links": unit.links, "active": unit.active, "soft_timeout_s": soft_timeout_s},
    )


def _commands(unit: Unit, soft_timeout_s: int) -> tuple[str, ...]:
    commands: list[str] = []
    if unit.active:
        commands += shell.softly(unit.id, soft_timeout_s) if soft_timeout_s else ()
        commands += [f"systemctl stop {shell.unit_name(unit.id)}"]
    if unit.links:
        commands += [*shell.unlink(unit.links), "systemctl daemon-reload"]
    return tuple(commands)


def _text(unit: Unit) -> Text:
    if unit.active and unit.links:
        return T("Stop {unit} and do not start it at boot", unit=Mono(unit.id))
    if unit.active:
        return T("Stop {unit}", unit=Mono(unit.id))
    return T("Do not start {unit} at boot", unit=Mono(unit.id))


def _undo_text(unit: Unit) -> Text:
    links = len(unit.links)
    if unit.active and links:
        return N(
            "Start {unit} again and bring back its link",
            "Start {unit} again and bring back its {n} links",
            links,
            unit=Mono(unit.id),
        )
    if unit.active:
        return T("Start {unit} again", unit=Mono(unit.id))
    return N("Bring back the link of {unit}", "Bring back the {n} links of {unit}", links, unit=Mono(unit.id))


def _interrupts(unit: Unit, soft_timeout_s: int) -> Text:
    if soft_timeout_s:
        return T(
            "{unit} takes no new task; the one in hand may finish, for up to {time}",
            unit=Mono(unit.id),
            time=Span(soft_timeout_s),
        )
    return T("What {unit} is doing ends at once", unit=Mono(unit.id))


REMEDY = Remedy(kind=KIND, title=T("Stop an extra unit"), order=10)
