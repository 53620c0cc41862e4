"""Which of several twins to keep, by evidence in a fixed order, and the reason in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from remote.facts.units import Unit, Units
from remote.findings.survey import Doer
from remote.policy import Policy
from remote.text import Listing, Mono, T, Text

# Stopping what these point at stops the unit too.
_NEEDED = ("Requires", "BindsTo", "PartOf")
# Who would miss the unit. A target that starts everything at boot does not depend on it.
_DEPENDENTS = ("RequiredBy", "BoundBy", "ConsistsOf", "WantedBy", "UpheldBy")
_BOOT = {"multi-user.target", "default.target", "graphical.target", "basic.target", "sysinit.target", "network-online.target"}
_OLD = {"old", "copy", "backup", "bak", "orig", "legacy", "deprecated", "obsolete"}
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Choice:
    """A group with the one to keep, the others, and the evidence for each by its name, best first."""

    keep: Doer
    others: tuple[Doer, ...]
    evidence: dict[str, Evidence]
    refused: Text | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a doer, the strongest first; smaller is better. The order is the design's."""

    not_named: bool  # in the settings' `keep`, or by whoever asks
    can_go: bool  # not on the settings' `never_touch`
    stray: bool
    stopped: bool
    not_needed: bool  # no other unit depends on it
    wrong_kind: bool  # worker and beat in one where both exist apart, or apart where only one of them does
    old: bool  # by name or description
    length: int
    changed_at_s: float

    @property
    def key(self) -> tuple[bool | int | float, ...]:
        """As one sortable value."""
        return tuple(getattr(self, name) for name in self.__slots__)

    def first_better(self, other: Evidence) -> str:
        """The name of the first evidence that tells this one from the other."""
        return next(name for name in self.__slots__ if getattr(self, name) != getattr(other, name))


_WHY: Mapping[str, Callable[[Mono], Text]] = {
    "not_named": lambda keep: T("{keep} stays: the settings say so.", keep=keep),
    "can_go": lambda keep: T("{keep} stays: the settings say never to touch it.", keep=keep),
    "stray": lambda keep: T("{keep} stays: systemd looks after it, the others were started by hand.", keep=keep),
    "stopped": lambda keep: T("{keep} stays: the others do not run.", keep=keep),
    "not_needed": lambda keep: T("{keep} stays: other units depend on it.", keep=keep),
    "old": lambda keep: T("{keep} stays: the others are called old or a copy.", keep=keep),
    "length": lambda keep: T("{keep} stays: it has the shorter name.", keep=keep),
    "changed_at_s": lambda keep: T("{keep} stays: its unit file is older.", keep=keep),
}


def why(choice: Choice, extra: Sequence[Doer]) -> tuple[Text, bool]:
    """The first evidence in which the kept one is better than the best extra, in words; and whether there is none."""
    kept = choice.evidence[choice.keep.name]
    other = choice.evidence[min(extra, key=lambda doer: choice.evidence[doer.name].key).name]
    if choice.keep.unit is None or kept.key == other.key:
        names = Listing(tuple(Mono(doer.name) for doer in (choice.keep, *extra)))
        return T("Nothing tells which of {names} should stay.", names=names), True
    # Against the evidence it is kept only for its other role.
    if kept.key > other.key or kept.first_better(other) == "wrong_kind":
        return _about_both(choice.keep), False
    return _WHY[kept.first_better(other)](Mono(choice.keep.name)), False


def _about_both(keep: Doer) -> Text:
    if keep.role.both:
        return T("{keep} stays: it is worker and beat, and one of the two is nowhere else.", keep=Mono(keep.name))
    return T("{keep} stays: a worker and a beat of their own come before one that is both.", keep=Mono(keep.name))


def choose(groups: Iterable[Sequence[Doer]], units: Units, policy: Policy) -> tuple[Choice, ...]:
    """Whom to keep in each group; a unit that is worker and beat stays, or goes, in both groups alike.

    Units that are extras themselves are no evidence for what they depend on, so the second round asks only those that
    the first one keeps.
    """
    every = [tuple(group) for group in groups]
    members = {doer.unit.id for group in every for doer in group if doer.unit}
    first = _round(every, units, policy, ignored=members)
    kept = {choice.keep.name for choice in first}
    return _round(every, units, policy, ignored=members - kept)


def _round(every: Sequence[Sequence[Doer]], units: Units, policy: Policy, ignored: Collection[str]) -> tuple[Choice, ...]:
    choices = [_choice(group, every, units, policy, ignored) for group in every]
    for at, choice in enumerate(choices):
        for partner in range(at + 1, len(choices)):
            both = _shared(choice, choices[partner])
            if both:
                choices[at], choices[partner] = _agreed(choices[at], choices[partner], both, policy)
    return tuple(choices)


def _choice(
    group: Sequence[Doer], every: Sequence[Sequence[Doer]], units: Units, policy: Policy, ignored: Collection[str]
) -> Choice:
    apart = _apart(group, every)
    evidence = {
        doer.name: Evidence(
            not_named=not named(doer, (*policy.chosen, *policy.keep)),
            can_go=not named(doer, policy.never_touch),
            stray=doer.unit is None,
            stopped=not doer.running,
            not_needed=not (doer.unit and _needed(doer.unit, units, ignored)),
            wrong_kind=doer.role.both == apart if doer.unit else False,
            old=doer.unit is not None and _called_old(doer.unit),
            length=len(doer.unit.id) if doer.unit else 0,
            changed_at_s=doer.unit.fragment_mtime_s if doer.unit else 0.0,
        )
        for doer in group
    }
    ordered = sorted(group, key=lambda doer: (evidence[doer.name].key, doer.name))
    return Choice(ordered[0], tuple(ordered[1:]), evidence)


def named(doer: Doer, names: Collection[str]) -> bool:
    """Whether the settings name this unit, by any of its names, with or without `.service`."""
    return doer.unit is not None and doer.unit.is_called(names)


def _apart(group: Sequence[Doer], every: Sequence[Sequence[Doer]]) -> bool:
    """Whether a worker and a beat of their own both run beside those of this group that are both (or none is)."""
    both = {doer.name for doer in group if doer.role.both}
    partners = [other for other in every if other is not group and both & {doer.name for doer in other}]
    return all(any(d.unit and d.running and not d.role.both for d in side) for side in (group, *partners)) if both else True


def _shared(one: Choice, other: Choice) -> set[str]:
    """Units that stand in both groups."""
    return {d.name for d in (one.keep, *one.others) if d.unit} & {d.name for d in (other.keep, *other.others) if d.unit}


def _agreed(one: Choice, other: Choice, both: set[str], policy: Policy) -> tuple[Choice, Choice]:
    """What is kept for one role must not be stopped for the other."""
    ones, others = one.keep.name in both, other.keep.name in both
    if one.keep.name == other.keep.name or not (ones or others):
        return one, other
    if ones and others:
        return one, _kept(other, one.keep.name)
    single, double = (one, other) if others else (other, one)
    if not named(single.keep, policy.keep):
        single = _kept(single, double.keep.name)
    elif not named(double.keep, policy.keep) and (apart := _without(double, both)):
        double = _kept(double, apart)
    else:
        text = T(
            "The settings keep {one}, but {both} is worker and beat and cannot go: name a worker and a beat to keep.",
            one=Mono(single.keep.name),
            both=Mono(double.keep.name),
        )
        single, double = replace(single, refused=text), replace(double, refused=text)
    return (single, double) if others else (double, single)


def _without(choice: Choice, both: set[str]) -> str | None:
    return next((doer.name for doer in choice.others if doer.name not in both and doer.unit and doer.running), None)


def _kept(choice: Choice, name: str) -> Choice:
    everyone = (choice.keep, *choice.others)
    keep = next(doer for doer in everyone if doer.name == name)
    return replace(choice, keep=keep, others=tuple(doer for doer in everyone if doer is not keep))


def needs(unit: Unit, other: Unit) -> bool:
    """Whether stopping `other` stops `unit` too."""
    names = {other.id, *other.names}
    return any(names & set(unit.relations.get(relation, ())) for relation in _NEEDED)


def _needed(unit: Unit, units: Units, ignored: Collection[str]) -> bool:
    """Whether another unit depends on it, one that is there and is no extra itself."""
    for name in {name for relation in _DEPENDENTS for name in unit.relations.get(relation, ())}:
        dependent = units.by_name(name)
        if name in _BOOT or (dependent is None and name.endswith(".service")):
            continue
        if dependent is None or (dependent.id not in ignored and (dependent.active or dependent.enabled)):
            return True
    return any(name.endswith(".socket") for name in unit.relations.get("TriggeredBy", ()))


def _called_old(unit: Unit) -> bool:
    words = {word.lower() for text in (unit.id, unit.description) for word in _WORD.findall(text)}
    return bool(words & _OLD)
