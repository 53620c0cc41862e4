"""Who does which service's work: units and strays in groups of the same service, and what only claims to be one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.services import claims, does_more, kinds, roles_by_pid, roles_of_unit
from remote.services.argv import program
from remote.services.base import Role, agree
from remote.text import Listing, Mono, T, Text

# Whose paths are a container's own: the same program and directory there is another file system's.
_CONTAINER = re.compile(r"/docker[-/]|/cri-containerd-|/kubepods|/libpod[-_]|/crio-|/lxc[/.]|/machine\.slice")
_SMALL_BYTES = 1 << 20  # the PSS of smaller processes is not measured
# One that systemd started again so often, and so lately, is between two crashes.
_MANY_RESTARTS = 3
_LATELY = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Doer:
    """One that does a service's work: a unit (running or enabled), or a stray with its tree, its master first."""

    unit: Unit | None
    role: Role
    main: Process | None
    processes: tuple[Process, ...]
    pss_bytes: int
    looping: bool = False  # it crashes and is started again, and runs just now

    @property
    def name(self) -> str:
        """The unit's id, or the stray's pid."""
        return self.unit.id if self.unit else str(self.processes[0].pid)

    @property
    def running(self) -> bool:
        """Whether it does the work now; a unit that crashes and is started again and again does not."""
        return self.unit is None or (self.unit.active and self.unit.sub_state != "auto-restart" and not self.looping)

    @property
    def template(self) -> str:
        """`worker@` for worker@1.service; empty for what is no instance."""
        head, at, _ = self.unit.id.partition("@") if self.unit else ("", "", "")
        return head + at if at else ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A process that claims to be of a service but is not (or cannot be told to be)."""

    process: Process
    service: str
    why: Text


@dataclass(frozen=True, slots=True)
class Survey:
    """The groups of those that do the same (also of one), and the look-alikes."""

    groups: tuple[tuple[Doer, ...], ...]
    look_alikes: tuple[Claim, ...]


@dataclass(slots=True)
class _Seen:
    """The host's processes by what is asked of them."""

    processes: Processes
    units: Units
    roles: Mapping[int, tuple[Role, ...]]
    owners: dict[int, Unit | None] = field(default_factory=dict)
    children: dict[int, list[Process]] = field(default_factory=lambda: defaultdict(list))
    mixed: set[str] = field(default_factory=set)  # units that do more than a service's work

    def inside(self, unit: Unit) -> tuple[Process, ...]:
        return tuple(p for p in self.processes.all if (owner := self.owners[p.pid]) and owner.id == unit.id)

    @property
    def newest_at(self) -> datetime:
        """When the last process was started: about now, since the shell that asked is one of them. Never later than now."""
        return max(process.started_at for process in self.processes.all)

    def tree(self, master: Process) -> tuple[Process, ...]:
        found, todo = [master], list(self.children[master.pid])
        while todo:
            process = todo.pop()
            if process not in found and process.cgroup == master.cgroup:
                found.append(process)
                todo += self.children[process.pid]
        return tuple(found)


def survey(processes: Processes, units: Units) -> Survey:
    """Sort all that does a service's work; only of kinds where two that do the same are a waste."""
    units = _distinct(units)
    seen = _look(processes, units)
    doers = [doer for unit in units.all if _counts(unit) for doer in _unit_doers(unit, seen)]
    groups = [list(group) for group in _same(doers)]
    strays, look_alikes = _outside(groups, seen)
    for group in groups:
        group += [stray for stray in strays if _joins(stray, group)]
    joined = {id(doer) for group in groups for doer in group}
    groups += [list(group) for group in _alike([stray for stray in strays if id(stray) not in joined])]
    ordered = sorted(groups, key=lambda group: (kinds()[group[0].role.service].order, group[0].role.identity))
    return Survey(tuple(map(tuple, ordered)), tuple(look_alikes))


def _look(processes: Processes, units: Units) -> _Seen:
    seen = _Seen(processes, units, roles_by_pid(processes))
    for process in processes.all:
        seen.owners[process.pid] = units.of_cgroup(process.cgroup)
        seen.children[process.ppid].append(process)
    return seen


def _distinct(units: Units) -> Units:
    """Each unit once, whatever its aliases."""
    told: set[str] = set()
    found: list[Unit] = []
    for unit in units.all:
        names = {unit.id, *unit.names}
        if not names & told:
            found.append(unit)
        told |= names
    return Units(tuple(found))


def _counts(unit: Unit) -> bool:
    """Whether it runs, or systemd will start it."""
    return unit.load_state == "loaded" and (unit.active or unit.enabled)


def _twin(role: Role) -> bool:
    return role.master and kinds()[role.service].twins


def _unit_doers(unit: Unit, seen: _Seen) -> Iterator[Doer]:
    said = roles_of_unit(unit, seen.processes)
    if not any(map(_twin, said)):
        return
    if does_more(unit, said, seen.processes):
        seen.mixed.add(unit.id)
        return
    inside = seen.inside(unit)
    for role in filter(_twin, said):
        main = next((p for p in inside if p.pid == unit.main_pid and _plays(p, role, seen)), None)
        main = main or next((p for p in inside if _plays(p, role, seen)), None)
        ordered = tuple(sorted(inside, key=lambda p: (p is not main, p.pid != unit.main_pid, p.pid)))
        yield Doer(unit, role, main, ordered, _unit_bytes(unit, inside), _loops(unit, main, seen))


def _loops(unit: Unit, main: Process | None, seen: _Seen) -> bool:
    """Whether it runs only because it was started again a moment ago, as often before.

    Where nothing was started since (so that nobody can tell the time), it counts as a moment: then another one is kept, or
    nothing is done.
    """
    return unit.restarts >= _MANY_RESTARTS and main is not None and seen.newest_at - main.started_at < _LATELY


def _plays(process: Process, role: Role, seen: _Seen) -> bool:
    return any(said.service == role.service and said.master for said in seen.roles.get(process.pid, ()))


def _unit_bytes(unit: Unit, inside: Sequence[Process]) -> int:
    """PSS where all of it is known; else the cgroup's own count, which no sum of RSS can equal."""
    if all(p.pss_bytes is not None or p.rss_bytes < _SMALL_BYTES for p in inside):
        return sum(p.memory_bytes for p in inside)
    return unit.used_bytes if unit.used_bytes is not None else sum(p.memory_bytes for p in inside)


def _same(doers: Sequence[Doer]) -> list[list[Doer]]:
    """Those that do the same. One that says less of its settings joins a group only where no other fits as well."""
    groups: list[list[Doer]] = []
    for doer in sorted(doers, key=lambda doer: -len(doer.role.settings)):
        fits = [group for group in groups if all(doer.role.same_as(other.role) for other in group)]
        if len(fits) == 1:
            fits[0].append(doer)
        else:
            groups.append([doer])
    return groups


def _outside(groups: Sequence[Sequence[Doer]], seen: _Seen) -> tuple[list[Doer], list[Claim]]:
    """What claims a service's work without being (in) a unit that does it: strays, and look-alikes of a group."""
    members = [doer for group in groups for doer in group]
    units = {doer.unit.id for doer in members if doer.unit}
    strays: list[Doer] = []
    claimed: list[Claim] = []
    for process in seen.processes.all:
        owner = seen.owners[process.pid]
        if owner is not None and owner.id in units:
            continue
        for role in _claimed(process, seen):
            why = _why_not(process, role, members, owner, seen)
            if why is None:
                tree = seen.tree(process)
                strays.append(Doer(None, role, process, tree, sum(p.memory_bytes for p in tree)))
            elif any(_looks_like(role, doer.role) for doer in members):
                claimed.append(Claim(process, role.service, why))
    return strays, claimed


def _claimed(process: Process, seen: _Seen) -> tuple[Role, ...]:
    """The roles that a process plays or only claims, without the children of one that does."""
    said = seen.roles.get(process.pid) or claims(process)
    if not any(_twin(role) for role in said):
        return ()
    parent = next((p for p in seen.processes.all if p.pid == process.ppid), None)
    above = {role.service for role in claims(parent)} if parent else set()
    return tuple(role for role in said if _twin(role) and role.service not in above)


def _looks_like(role: Role, other: Role) -> bool:
    return (role.service, role.app, role.queues) == (other.service, other.app, other.queues)


def _why_not(process: Process, role: Role, members: Sequence[Doer], owner: Unit | None, seen: _Seen) -> Text | None:
    """Why a process is no stray; None when nothing speaks against it."""
    if process.pid not in seen.roles:
        return T("its program is {exe}: the command line only claims otherwise", exe=Mono(process.exe or "?"))
    if owner is not None and owner.id in seen.mixed:
        return T("it belongs to {unit}, which does other work too", unit=Mono(owner.id))
    if (place := _place(process, owner)) is not None:
        return place
    if process.exe is None or process.cwd is None:
        return T("its program or directory may not be read, so nobody can tell")
    alike = [doer for doer in members if _looks_like(role, doer.role)]
    same = [doer for doer in alike if _difference(process, role, doer) is None]
    if alike and not same:
        return _difference(process, role, alike[0])
    if any(not agree(one.role.settings, same[0].role.settings) for one in same):
        units = Listing(tuple(Mono(doer.name) for doer in same))
        return T("it could belong to any of {units}, which differ in their settings", units=units)
    return None


def _place(process: Process, owner: Unit | None) -> Text | None:
    """To whom a process belongs by its cgroup, if to anybody."""
    if owner is not None:
        return T("it belongs to {unit}", unit=Mono(owner.id))
    if _CONTAINER.search(process.cgroup):
        return T("it runs in a container")
    service = _own_unit(process.cgroup)
    return T("it belongs to {unit}, which the list of units does not have", unit=Mono(service)) if service else None


def _own_unit(cgroup: str) -> str | None:
    """The innermost service of a cgroup, a user's own units too (systemd would start it again)."""
    services = [part for part in cgroup.split("/") if part.endswith(".service") and not part.startswith("user@")]
    return services[-1] if services else None


def _difference(process: Process, role: Role, doer: Doer) -> Text | None:
    """In what a process differs from one that does the work, None when in nothing."""
    unit, main = Mono(doer.name), doer.main
    if role.uid != doer.role.uid:
        return T("another user runs it ({user}), not that of {unit}", user=Mono(process.user), unit=unit)
    if main is None or main.exe is None:
        return T("{unit} does not run or may not be read, so the two cannot be compared", unit=unit)
    if (process.exe, _script(process)) != (main.exe, _script(main)):
        exe = Mono(_script(process) or process.exe or "?")
        return T("its program is {exe}, not that of {unit}", exe=exe, unit=unit)
    if role.cwd != doer.role.cwd:
        return T("it works in {folder}, {unit} does not", folder=Mono(role.cwd), unit=unit)
    return None if agree(role.settings, doer.role.settings) else T("its settings are not those of {unit}", unit=unit)


def _script(process: Process) -> str:
    """For an interpreter its script; empty for a program that hides it behind a title, and for any other program."""
    found = program(process.command.open(), process.cwd or "")
    return found.path if found is not None and found.interpreted else ""


def _joins(stray: Doer, group: Sequence[Doer]) -> bool:
    return any(_equal(stray, doer) for doer in group if doer.unit)


def _alike(strays: Iterable[Doer]) -> list[list[Doer]]:
    """Strays of a service that no unit does: alike in all that a stray and a unit must be alike in."""
    groups: list[list[Doer]] = []
    for stray in strays:
        group = next((group for group in groups if _equal(stray, group[0])), None)
        if group is None:
            groups.append([stray])
        else:
            group.append(stray)
    return groups


def _equal(stray: Doer, other: Doer) -> bool:
    return _looks_like(stray.role, other.role) and _difference(stray.processes[0], stray.role, other) is None
