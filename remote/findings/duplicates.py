"""Duplicates: units and stray processes that do the same service's work, and which twin to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.findings import survey, twins
from remote.findings.survey import Doer
from remote.findings.twins import Choice
from remote.policy import Policy
from remote.services import kinds
from remote.text import Mono, T, Text


@dataclass(frozen=True, slots=True)
class Member:
    """One that does the work: a unit with its processes, or a stray (`unit` None) with its tree, its master first."""

    unit: Unit | None
    processes: tuple[Process, ...]
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """A service done more than once. `keep` does the work on; each of `extra` could go. `tie` asks a person.

    `shared` are the extras (by unit id) that also play another role (`-B`): their bytes count once over all groups.
    `refused` says why no plan may follow (it would leave no worker or no beat), None when one may.
    """

    service: str
    app: str
    why: Text
    keep: Member
    extra: tuple[Member, ...]
    tie: bool
    frees_bytes: int
    shared: tuple[str, ...] = ()
    refused: Text | None = None


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A process that claims to be of a service but is not (another user, program or directory): shown, never a step."""

    process: Process
    service: str
    why: Text


def find(processes: Processes, units: Units, policy: Policy) -> tuple[tuple[Duplicates, ...], tuple[LookAlike, ...]]:
    """Every service that is done more than once, and what only looks like one of them.

    An enabled unit that does not run counts as an extra (it will run after the next boot) that frees nothing. No
    duplicates are the instances of one template, other queues, applications or settings, an alias, and the children of
    one master. A process outside every unit is an extra only if all of its identity agrees with a member's.
    """
    seen = survey.survey(processes, units)
    choices = twins.choose(seen.groups, units, policy)
    kept = {choice.keep.name for choice in choices if choice.others}
    counted: set[str] = set()
    found = (_duplicates(choice, kept, choices, policy, counted) for choice in choices)
    return (
        tuple(group for group in found if group is not None),
        tuple(LookAlike(one.process, one.service, one.why) for one in seen.look_alikes),
    )


def _duplicates(
    choice: Choice, kept: set[str], choices: Sequence[Choice], policy: Policy, counted: set[str]
) -> Duplicates | None:
    extra = tuple(doer for doer in choice.others if _can_go(doer, choice.keep, kept, policy))
    if not extra:
        return None
    keep = choice.keep
    frees_bytes = sum(doer.pss_bytes for doer in extra if doer.name not in counted)
    counted.update(doer.name for doer in extra)
    why, tie = twins.why(choice, extra)
    return Duplicates(
        service=keep.role.service,
        app=keep.role.app,
        why=why,
        keep=_member(keep),
        extra=tuple(map(_member, extra)),
        tie=tie,
        frees_bytes=frees_bytes,
        shared=tuple(doer.unit.id for doer in extra if doer.unit and doer.role.both),
        refused=choice.refused or _refused(keep, extra, choices),
    )


def _can_go(doer: Doer, keep: Doer, kept: set[str], policy: Policy) -> bool:
    """Not what another group or anybody keeps, what must not be touched, or another instance of the kept one's template."""
    if doer.name in kept or twins.named(doer, (*policy.chosen, *policy.keep, *policy.never_touch)):
        return False
    return not (doer.template and doer.template == keep.template)


def _refused(keep: Doer, extra: Sequence[Doer], choices: Sequence[Choice]) -> Text | None:
    """Why stopping the extras would leave less than the service needs; None when it is safe."""
    if keep.unit is not None and not keep.running:
        if keep.unit.active:
            return T("{unit}, the one to keep, does not stay up: mend it first.", unit=Mono(keep.unit.id))
        return T("{unit}, the one to keep, does not run: start it first.", unit=Mono(keep.unit.id))
    for other in choices:
        gone = next((doer for doer in extra if _last(doer, other, extra)), None)
        if gone is not None:
            return T(
                "Without {name} no {service} of {app} would be left.",
                name=Mono(gone.name),
                service=kinds()[other.keep.role.service].title,
                app=Mono(other.keep.role.app or other.keep.role.cwd),
            )
    tied = next((doer for doer in extra if keep.unit and doer.unit and twins.needs(keep.unit, doer.unit)), None)
    if tied is not None and keep.unit:
        return T("{unit} stops with {other}: it requires it.", unit=Mono(keep.unit.id), other=Mono(tied.name))
    return None


def _last(doer: Doer, choice: Choice, extra: Sequence[Doer]) -> bool:
    """Whether nobody would be left to do a group's work without this one of it.

    The one that is kept there may not run, and that group have no extra, so no plan that is refused for it (instances of
    one template). Another one counts as left only if it stands in no further group, which could stop it.
    """
    if doer.name == choice.keep.name:
        return not choice.others
    if choice.keep.running or not doer.running or doer.name not in {one.name for one in choice.others}:
        return False
    gone = {one.name for one in extra}
    return not any(one.running and not one.role.both and one.name not in gone for one in choice.others)


def _member(doer: Doer) -> Member:
    return Member(doer.unit, doer.processes, doer.pss_bytes)
