"""From what was read to a plan: which remedies, in which order, on which grounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from remote.facts.units import full_name
from remote.findings.duplicates import Duplicates, Member, find
from remote.findings.twins import needs
from remote.remedies import discover, end_stray, restart_unit, shell, stop_unit
from remote.remedies.base import CannotDraft, Draft, Step, invert
from remote.services import roles_of_unit
from remote.text import Mono, N, T, Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from remote.facts.host import Machine
    from remote.facts.memory import Memory
    from remote.facts.processes import Processes
    from remote.facts.units import Unit, Units
    from remote.policy import Policy

# What must never be a step, whatever the settings say: without them nobody can mend the host any more.
UNTOUCHABLE = (
    *("ssh.", "ssh@", "sshd.", "sshd@", "sshd-", "dbus.", "dbus-broker.", "systemd-", "initrd-", "rescue.", "emergency."),
    *("getty@", "serial-getty@", "console-getty.", "container-getty@", "autovt@", "user@", "user-runtime-dir@", "modprobe@"),
    "memwarden.",
)


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
    _refuse_to_stop_others({step.target for step in steps}, seen.units)
    keep = {group.keep.unit.id: group.keep.unit for group in groups if group.keep.unit}
    wells = [_well(unit.id, {unit.id, *unit.names}, policy) for unit in keep.values()]
    # Whoever does the work on must do it at the moment the others end: the plan was drawn a while ago.
    steps = tuple(replace(step, check="\n".join([step.check, *wells])) for step in steps)
    return Draft(
        host=host,
        reason=N(
            "{n} unit or process does work that is done already",
            "{n} units or processes do work that is done already",
            len(steps),
        ),
        steps=steps,
        basis=_basis(seen, host_key, policy),
        verify="\n".join(
            [*(_claim(step.holds, f"{step.target} is back") for step in steps), *wells, *map(shell.main_process, keep)]
        ),
        frees_bytes=sum(step.frees_bytes for step in steps),
        findings=tuple(group.why for group in groups),
    )


def restart(host: str, unit: Unit, seen: Seen, policy: Policy, host_key: str) -> Draft:
    """A plan of one restart. Raises CannotDraft for what must not be touched or is not loaded."""
    _refuse_untouchable(unit, policy)
    others = _stopping_with({unit.id}, seen.units)
    for other in others:
        _refuse_untouchable(other, policy, stops_with=unit)
    if unit.load_state != "loaded":
        raise CannotDraft(T("{unit} is not loaded ({state}).", unit=Mono(unit.id), state=Mono(unit.load_state)))
    step = restart_unit.propose(
        unit,
        celery=_takes_tasks(unit, seen),
        stop_timeout_s=policy.celery_stop_timeout_s,
        health_url=_health_url({unit.id, *unit.names}, policy),
        others=tuple(other.id for other in others),
    )
    return Draft(
        host=host,
        reason=T("Somebody asked for a restart of {unit}", unit=Mono(unit.id)),
        steps=(step,),
        basis=_basis(seen, host_key, policy),
        verify=f"{step.holds}\n{shell.main_process(unit.id)}",
        frees_bytes=0,
    )


def undo(draft: Draft, held: Iterable[bool], plan_id: str, code: str, policy: Policy) -> Draft | None:
    """The plan that takes back the steps that hold, in reverse; None when none of them can be. What it starts must be well."""
    kept = [step for step, holds in zip(draft.steps, held, strict=True) if holds]
    steps = tuple(back for step in reversed(kept) if (back := invert(step)) is not None)
    if not steps:
        return None
    return Draft(
        host=draft.host,
        reason=T("Take back plan {plan}", plan=Mono(code)),
        steps=steps,
        basis={**draft.basis, "policy": policy.version},
        verify="\n".join(
            [
                *(_claim(step.holds, f"{step.target} is not as it was") for step in steps),
                *(_well(step.target, {step.target}, policy) for step in kept if step.undo and step.params.get("active")),
            ]
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


def _well(unit: str, names: Collection[str], policy: Policy) -> str:
    return _claim(shell.healthy(unit, health_url=_health_url(names, policy)), f"{unit} is not well")


def _health_url(names: Collection[str], policy: Policy) -> str:
    """Where a unit of these names answers when it is well; empty when the settings name nothing."""
    return next((url for name, url in policy.health.items() if full_name(name) in names), "")


def _refuse_unsafe(groups: Iterable[Duplicates]) -> None:
    for group in groups:
        if group.refused is not None:
            raise CannotDraft(group.refused)
        if group.tie:
            raise CannotDraft(T("Nothing tells which twin of {app} to keep: a person must say it.", app=Mono(group.app)))


def _refuse_untouchable(unit: Unit, policy: Policy, stops_with: Unit | None = None) -> None:
    forbidden = unit.is_called(policy.never_touch)
    if not forbidden and not any(name.startswith(UNTOUCHABLE) for name in {unit.id, *unit.names}):
        return
    if stops_with is not None:
        raise CannotDraft(
            T("{other} stops with {unit}, and must never be touched.", other=Mono(unit.id), unit=Mono(stops_with.id))
        )
    if forbidden:
        raise CannotDraft(T("{unit} is on the never-touch list of the settings.", unit=Mono(unit.id)))
    raise CannotDraft(T("I never touch {unit}: without it nobody could mend the host.", unit=Mono(unit.id)))


def _stopping_with(names: Collection[str], units: Units) -> tuple[Unit, ...]:
    """The units that run and that systemd stops with these (Requires=, BindsTo=, PartOf= of theirs, and so on)."""
    stopped = [unit for unit in units.all if unit.id in names]
    for one in stopped:  # grows while it is gone through
        stopped += [unit for unit in units.all if unit.active and unit not in stopped and needs(unit, one)]
    return tuple(unit for unit in stopped if unit.id not in names)


def _refuse_to_stop_others(names: Collection[str], units: Units) -> None:
    """A plan stops what its card names and nothing else."""
    for other in _stopping_with(names, units):
        unit = next(unit for unit in units.all if unit.id in names and other in _stopping_with({unit.id}, units))
        raise CannotDraft(T("{unit} stops with {other}: it requires it.", unit=Mono(other.id), other=Mono(unit.id)))


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


def _basis(seen: Seen, host_key: str, policy: Policy) -> dict[str, str]:
    return {"boot_id": seen.machine.boot_id, "host_key": host_key, "root": seen.machine.root, "policy": policy.version}
