"""Processes by what they belong to: the unit, else the service, else the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.services import roles_by_pid
from remote.services.base import Role


@dataclass(frozen=True, slots=True)
class Group:
    """Processes of one unit, or of none: then of one service, or else of one name.

    `service` is the kind's name, empty for what no kind knows; a unit's is that of its masters. `name` is the unit's id, the
    service or the processes' name, which is hostile. `pss_bytes` adds RSS where PSS is not known; `exact` says that it is.
    """

    unit: Unit | None
    service: str
    name: str
    processes: tuple[Process, ...]
    pss_bytes: int
    exact: bool

    @property
    def count(self) -> int:
        """How many processes."""
        return len(self.processes)


def by_unit(processes: Processes, units: Units) -> tuple[Group, ...]:
    """All processes in groups, the biggest first."""
    roles = roles_by_pid(processes)
    found: dict[tuple[str, str], tuple[Unit | None, list[Process]]] = {}
    for process in processes.all:
        unit = units.of_cgroup(process.cgroup)
        service = _service(roles.get(process.pid, ()))
        key = ("unit", unit.id) if unit else ("service", service) if service else ("name", process.name)
        found.setdefault(key, (unit, []))[1].append(process)
    groups = (_group(name, unit, members, roles) for (_, name), (unit, members) in found.items())
    return tuple(sorted(groups, key=lambda group: (-group.pss_bytes, group.name)))


def _service(roles: tuple[Role, ...]) -> str:
    return roles[0].service if roles else ""


def _group(name: str, unit: Unit | None, members: list[Process], roles: Mapping[int, tuple[Role, ...]]) -> Group:
    said = [role for process in members for role in roles.get(process.pid, ())]
    masters = [role for role in said if role.master] or said
    return Group(
        unit=unit,
        service=_service(tuple(masters)),
        name=name,
        processes=tuple(members),
        pss_bytes=sum(process.memory_bytes for process in members),
        exact=all(process.pss_bytes is not None for process in members),
    )
