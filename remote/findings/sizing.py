"""Sizing: more workers than the machine's memory bears, and limits too low for what they limit.

The rule is a ceiling (design "Sizing"): one gunicorn worker a GiB of RAM, one celery process for two. What measured
peaks allow beyond that is the capacity command's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from remote.facts.memory import Memory
from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.findings.base import Finding
from remote.policy import GIB, Policy
from remote.services import kinds, roles_by_pid, roles_of_unit
from remote.services.base import Role
from remote.text import Mono, N, Size, T

_SIZED = ("gunicorn", "celery-worker")


@dataclass(frozen=True, slots=True)
class Sized:
    """A running unit of workers: its role, how many workers it has, and what its processes use (the master first)."""

    unit: Unit
    role: Role
    workers: int
    processes: tuple[Process, ...]

    @property
    def need_bytes(self) -> int:
        """The master, and every configured worker as big as the biggest one is now."""
        master, *others = [process.memory_bytes for process in self.processes] or [0]
        return master + max(others, default=0) * max(self.workers, len(others))


def ceiling(service: str, memory: Memory, policy: Policy) -> int:
    """The most workers of a service by the rule, at least 1; RAM is rounded to the nearest GiB (MemTotal shows less)."""
    ram_gib = max(1, round(memory.total_bytes / GIB))
    per_gib = policy.sizing.gunicorn_workers_per_gib if service == "gunicorn" else policy.sizing.celery_processes_per_gib
    return max(1, int(ram_gib * per_gib))


def sizing(memory: Memory, units: Units, processes: Processes, policy: Policy) -> tuple[Finding, ...]:
    """Findings `over-ceiling` and `memory-max-low` for each running gunicorn and celery unit; what doubles do together is
    the duplicates' finding."""
    return tuple(finding for one in sized(units, processes) for finding in _findings(one, memory, policy))


def sized(units: Units, processes: Processes) -> Iterator[Sized]:
    """Every running unit of workers."""
    by_pid = roles_by_pid(processes)
    told: set[str] = set()
    for unit in units.all:
        if not unit.active or unit.id in told:
            continue
        told.add(unit.id)
        role = next((role for role in roles_of_unit(unit, processes) if role.service in _SIZED), None)
        if role is not None:
            yield _sized(unit, role, units, processes, by_pid)


def _sized(unit: Unit, role: Role, units: Units, processes: Processes, by_pid: dict[int, tuple[Role, ...]]) -> Sized:
    inside = [
        process
        for process in processes.all
        if (owner := units.of_cgroup(process.cgroup)) is not None
        and owner.id == unit.id
        and any(said.service == role.service for said in by_pid.get(process.pid, ()))
    ]
    masters = {p.pid for p in inside if any(said.master for said in by_pid[p.pid])}
    ordered = sorted(inside, key=lambda p: (p.pid not in masters, p.pid))
    # A beat in the worker (-B) is a child that works on no task.
    children = len(inside) - len(masters) - role.both
    return Sized(unit, role, role.workers or max(children, 0), tuple(ordered))


def _findings(one: Sized, memory: Memory, policy: Policy) -> Iterator[Finding]:
    most = ceiling(one.role.service, memory, policy)
    if one.workers > most:
        text = N(
            "{unit} has {n} {service} worker; {total} of memory bear at most {most}.",
            "{unit} has {n} {service} workers; {total} of memory bear at most {most}.",
            one.workers,
            unit=Mono(one.unit.id),
            service=kinds()[one.role.service].title,
            total=Size(memory.total_bytes),
            most=most,
        )
        yield Finding("over-ceiling", "warning", text, one.unit.id)
    limit = one.unit.memory_max_bytes
    if limit is None:
        return
    need = one.need_bytes
    floor = policy.sizing.gunicorn_memory_max_bytes if one.role.service == "gunicorn" else 0
    if limit < need:
        text = T(
            "MemoryMax of {unit} is {limit}, its workers need {need}: the kernel will kill them.",
            unit=Mono(one.unit.id),
            limit=Size(limit),
            need=Size(need),
        )
        yield Finding("memory-max-low", "warning", text, one.unit.id)
    elif limit < floor:
        text = T(
            "MemoryMax of {unit} is {limit}, less than the {floor} that a site needs.",
            unit=Mono(one.unit.id),
            limit=Size(limit),
            floor=Size(floor),
        )
        yield Finding("memory-max-low", "warning", text, one.unit.id)
