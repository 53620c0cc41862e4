"""From what was read to a plan: which remedies, in which order, on which grounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote.findings.duplicates import Duplicates, Member, find
from remote.remedies import discover, end_stray, restart_unit, shell, stop_unit
from remote.remedies.base import CannotDraft, Draft, Step, invert
from remote.services import roles_of_unit
from remote.text import Mono, N, T, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remote.facts.host import Machine
    from remote.facts.memory import Memory
    from remote.facts.processes import Processes
    from remote.facts.units import Unit, Units
    from remote.policy import Policy

# What must never be a step, whatever the settings say: without them nobody can mend the host any more.
UNTOUCHABLE = ("ssh.service", "sshd.service", "dbus.service", "systemd-", "getty@", "user@", "memwarden.service")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a plan is drawn from, read afresh. `key` seals command lines (a secret of this store)."""

    memory: Memory
    processes: Processes
    units: Units
    machine: Machine
    key: bytes


def fix(host: str, seen: Seen, policy: Policy, host_key: str) -> Draft | None:
    """A plan against the duplicates of a host; None when there is nothing to fix. Raises CannotDraft when no plan is safe."""
    groups, _ = find(seen.processes, seen.units, policy)
    if not groups:
        return None
    _refuse_unsafe(groups)
    steps = _order([*_unit_steps(groups, seen, policy), *_stray_steps(groups, seen, policy)])
    if not steps:
        return None
    keep = {group.keep.unit.id: group.keep.unit for group in groups if group.keep.unit}
    return Draft(
        host=host,
        reason=N(
            "{n} unit or process does work that is done already",
            "{n} units or processes do work that is done already",
            len(steps),
        ),
        steps=steps,
        basis=_basis(seen, host_key),
        verify="\n".join(
            [*(_claim(step.holds, f"{step.target} is back") for step in steps), *(_well(unit, policy) for unit in keep.values())]
        ),
        frees_bytes=sum(step.frees_bytes for step in steps),
        findings=tuple(group.why for group in groups),
    )


def restart(host: str, unit: Unit, seen: Seen, policy: Policy, host_key: str) -> Draft:
    """A plan of one restart. Raises CannotDraft for what must not be touched or is not loaded."""
    _refuse_untouchable(unit, policy)
    if unit.load_state != "loaded":
        raise CannotDraft(T("{unit} is not loaded ({state}).", unit=Mono(unit.id), state=Mono(unit.load_state)))
    step = restart_unit.propose(
        unit,
        celery=_takes_tasks(unit, seen),
        stop_timeout_s=policy.celery_stop_timeout_s,
        health_url=_health_url(unit, policy),
    )
    return Draft(
        host=host,
        reason=T("Somebody asked for a restart of {unit}", unit=Mono(unit.id)),
        steps=(step,),
        basis=_basis(seen, host_key),
        verify=step.holds,
        frees_bytes=0,
    )


def undo(draft: Draft, held: Iterable[bool], plan_id: str, code: str) -> Draft | None:
    """The plan that takes back the steps that hold, in reverse; None when none of them can be."""
    kept = [step for step, holds in zip(draft.steps, held, strict=True) if holds]
    steps = tuple(back for step in reversed(kept) if (back := invert(step)) is not None)
    if not steps:
        return None
    return Draft(
        host=draft.host,
        reason=T("Take back plan {plan}", plan=Mono(code)),
        steps=steps,
        basis=dict(draft.basis),
        verify="\n".join(
            f"({step.holds}\n) || {{ echo {shell.quote(f'{step.target} is not as it was')}; exit 1; }}" for step in steps
        ),
        frees_bytes=0,
        undoes=plan_id,
        findings=tuple(_stays(step) for step in kept if invert(step) is None),
    )


def _stays(step: Step) -> Text:
    """What cannot come back, and why."""
    why = step.cannot_undo or T("nothing is known that would undo it")
    return T("{target} does not come back: {why}", target=Mono(step.target), why=why)


def _claim(script: str, otherwise: str) -> str:
    """A test within a script of tests, that says what is wrong when it fails."""
    return f"({script}\n) || {{ echo {shell.quote(otherwise)}; exit 1; }}"


def _well(unit: Unit, policy: Policy) -> str:
    return _claim(shell.healthy(unit.id, health_url=_health_url(unit, policy)), f"{unit.id} is not well")


def _health_url(unit: Unit, policy: Policy) -> str:
    """Where the unit answers when it is well; empty when the settings name nothing."""
    return next((url for name, url in policy.health.items() if unit.is_called({name})), "")


def _refuse_unsafe(groups: Iterable[Duplicates]) -> None:
    for group in groups:
        if group.refused is not None:
            raise CannotDraft(group.refused)
        if group.tie:
            raise CannotDraft(T("Nothing tells which twin of {app} to keep: a person must say it.", app=Mono(group.app)))


def _refuse_untouchable(unit: Unit, policy: Policy) -> None:
    if unit.is_called(policy.never_touch):
        raise CannotDraft(T("{unit} is on the never-touch list of the settings.", unit=Mono(unit.id)))
    if any(name.startswith(UNTOUCHABLE) for name in {unit.id, *unit.names}):
        raise CannotDraft(T("I never touch {unit}: without it nobody could mend the host.", unit=Mono(unit.id)))


def _unit_steps(groups: Iterable[Duplicates], seen: Seen, policy: Policy) -> list[Step]:
    """One step an extra unit, also when it stands in two groups (`-B`); its bytes count once."""
    extras: dict[str, tuple[Unit, int]] = {}
    for group in groups:
        for member in group.extra:
            if member.unit is not None:
                extras.setdefault(member.unit.id, (member.unit, member.pss_bytes))
    for unit, _ in extras.values():
        _refuse_untouchable(unit, policy)
    return [
        stop_unit.propose(
            unit,
            celery=_takes_tasks(unit, seen),
            frees_bytes=frees if unit.active else 0,
            stop_timeout_s=policy.celery_stop_timeout_s,
        )
        for unit, frees in extras.values()
        if unit.active or unit.links
    ]


def _stray_steps(groups: Iterable[Duplicates], seen: Seen, policy: Policy) -> list[Step]:
    strays: dict[int, tuple[Member, str]] = {}
    for group in groups:
        for member in group.extra:
            if member.unit is None and member.processes:
                strays.setdefault(member.processes[0].pid, (member, group.service))
    return [
        end_stray.propose(
            member.processes[0],
            boot_id=seen.processes.boot_id,
            title=service,
            frees_bytes=member.pss_bytes,
            timeout_s=policy.celery_stop_timeout_s,
            key=seen.key,
        )
        for member, service in strays.values()
    ]


def _order(steps: list[Step]) -> tuple[Step, ...]:
    """Extra units first, strays after them, restarts last; within a kind as found."""
    order = {kind: remedy.order for kind, remedy in discover().items()}
    return tuple(sorted(steps, key=lambda step: order[step.kind]))


def _takes_tasks(unit: Unit, seen: Seen) -> bool:
    return any(role.service == "celery-worker" for role in roles_of_unit(unit, seen.processes))


def _basis(seen: Seen, host_key: str) -> dict[str, str]:
    return {"boot_id": seen.machine.boot_id, "host_key": host_key, "root": seen.machine.root, "policy": "1"}
