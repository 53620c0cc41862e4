"""/services: what runs on the host, with how many workers, how much memory, under which limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from handlers.cards.failure import needed
from handlers.cards.host import NO_UNITS, missing, short_unit
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Line, Reply, Table, Title
from handlers.request import Request
from remote import services
from remote.facts.processes import PROCESSES, Process, Processes
from remote.facts.units import UNITS, Unit, Units
from remote.services.base import Role
from remote.text import Listing, Mono, N, Size, T, Text, Value

Roles = Mapping[int, tuple[Role, ...]]


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One unit (or the processes of one service outside all units) that a known kind of program runs in.

    `workers` is how many run, `workers_configured` what its command line says (null: nothing). `enabled` is also true for
    one that another unit's link starts. `memory_max_bytes` is null without a limit.
    """

    unit: str | None
    service: str
    app: str
    queues: tuple[str, ...]
    active: bool
    state: str
    enabled: bool
    workers: int
    workers_configured: int | None
    pss_bytes: int
    memory_max_bytes: int | None
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServicesData:
    """The JSON of /services, biggest first."""

    services: tuple[ServiceRow, ...]


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """List the known services of each host."""

    async def look(host: str) -> Part:
        answers = await hosts.ask(host, PROCESSES, UNITS)
        processes = needed(host, answers, PROCESSES)
        rows = services_of(processes, answers.readable(UNITS) or NO_UNITS)
        buttons = ((Button(T("Duplicates"), f"/duplicates {host}"), Button(T("Top"), f"/top {host}")),)
        return Part(ServicesData(rows), (*_card(host, rows), *missing(answers, UNITS)), buttons)

    return await every(hosts.choose(request, request.words), look)


def services_of(processes: Processes, units: Units) -> tuple[ServiceRow, ...]:
    """Every unit and every group of strays that a known kind of program runs in, biggest first."""
    owned, roles = _by_unit(processes, units), services.roles_by_pid(processes)
    rows = [
        _of_unit(unit, said, owned.get(unit.id, ()), roles)
        for unit in units.all
        if (said := services.roles_of_unit(unit, processes))
    ]
    rows += _strays(owned.get(None, ()), roles)
    return tuple(sorted(rows, key=lambda row: (-row.pss_bytes, row.unit or "")))


def _by_unit(processes: Processes, units: Units) -> Mapping[str | None, tuple[Process, ...]]:
    owners: dict[str, str | None] = {}
    found: dict[str | None, tuple[Process, ...]] = {}
    for process in processes.all:
        if process.cgroup not in owners:
            owner = units.of_cgroup(process.cgroup)
            owners[process.cgroup] = owner.id if owner else None
        unit = owners[process.cgroup]
        found[unit] = (*found.get(unit, ()), process)
    return found


def _of_unit(unit: Unit, said: tuple[Role, ...], members: tuple[Process, ...], roles: Roles) -> ServiceRow:
    return ServiceRow(
        unit=unit.id, service=_kinds(said), app=said[0].app, queues=said[0].queues, active=unit.active,
        state=unit.active_state, enabled=unit.enabled or bool(unit.links), workers=_workers(members, roles),
        workers_configured=said[0].workers or None, pss_bytes=sum(one.memory_bytes for one in members),
        memory_max_bytes=unit.memory_max_bytes, pids=tuple(one.pid for one in members),
    )  # fmt: skip


def _kinds(roles: Iterable[Role]) -> str:
    """A worker that is a beat as well (`-B`) has both names."""
    return "+".join(dict.fromkeys(role.service for role in roles))


def _workers(members: Iterable[Process], roles: Roles) -> int:
    """How many do the work for a master."""
    return sum(any(not role.master for role in roles.get(process.pid, ())) for process in members)


def _strays(members: Iterable[Process], roles: Roles) -> Iterator[ServiceRow]:
    found: dict[tuple[str, str], list[tuple[Process, Role]]] = {}
    for process in members:
        for role in roles.get(process.pid, ()):
            found.setdefault((role.service, role.app), []).append((process, role))
    for (service, app), group in found.items():
        yield ServiceRow(
            unit=None, service=service, app=app, queues=group[0][1].queues, active=True, state="active", enabled=False,
            workers=sum(not role.master for _, role in group), workers_configured=None,
            pss_bytes=sum(process.memory_bytes for process, _ in group), memory_max_bytes=None,
            pids=tuple(process.pid for process, _ in group),
        )  # fmt: skip


def _card(host: str, rows: tuple[ServiceRow, ...]) -> Iterator[Block]:
    if not rows:
        yield Title(T("{host}: no service that I know", host=Mono(host)))
        known = Listing(tuple(kind.title for kind in services.kinds().values()))
        yield Line(T("I know {services}.", services=known))
        return
    yield Title(N("{host}: {n} service", "{host}: {n} services", len(rows), host=Mono(host)))
    yield Table(tuple(map(_line, rows)), (T("PSS"), T("max"), T("W"), T("AE"), T("unit")))
    yield Line(T("W workers, A active, E enabled, max is MemoryMax, * started by hand, no unit"))
    stopped = [row for row in rows if row.state == "failed"]
    yield from (Line(T("{unit} has failed", unit=Mono(row.unit or row.service))) for row in stopped)


def _line(row: ServiceRow) -> tuple[Value, ...]:
    limit: Value = "-" if row.memory_max_bytes is None else Size(row.memory_max_bytes)
    marks = f"{'A' if row.active else '-'}{'E' if row.enabled else '-'}"
    held: Value = Size(row.pss_bytes) if row.pids else "-"
    return (held, limit, row.workers or "-", marks, _name(row))


def _name(row: ServiceRow) -> Text | Mono:
    if row.unit is not None:
        return Mono(short_unit(row.unit))
    return T("{service} *", service=Mono(row.service))


COMMAND = Command(
    "services",
    T("What runs, with how many workers and which limit"),
    "/services [HOST…]",
    run,
    ("/services prod", "/services @web"),
)
