"""/top: the processes that hold the memory, and the services they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from handlers.cards.failure import needed
from handlers.cards.host import NO_UNITS, Use, memory_sentence, share, uses, uses_table
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Fold, Reply, Table, Title
from handlers.request import Request
from handlers.words import names, split_number, within
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES, Process
from remote.facts.units import UNITS, Units
from remote.policy import MIB
from remote.redact import clean
from remote.text import Mono, Size, T, Value

SHOWN = 10
MOST = 1000
GROUPS = 8
LEAST_BYTES = MIB


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process. `command` shows the program's name only: command lines hold passwords."""

    pid: int
    started_at: datetime
    name: str
    command: str
    user: str
    unit: str | None
    pss_bytes: int | None
    rss_bytes: int
    swap_bytes: int
    memory_percent: float


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One unit's processes, or those of one name outside all units."""

    unit: str | None
    service: str
    count: int
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class TopData:
    """The JSON of /top."""

    processes: tuple[ProcessRow, ...]
    groups: tuple[GroupRow, ...]


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Processes, biggest first; all of 1 MiB or more for scripts unless a count was asked."""
    words, number = split_number(request.words, names(request, hosts))
    shown = within(number, SHOWN, MOST)
    chosen = hosts.choose(request, words)

    async def look(host: str) -> Part:
        answers = await hosts.ask(host, MEMORY, PROCESSES, UNITS)
        memory, processes = needed(host, answers, MEMORY), needed(host, answers, PROCESSES)
        units = answers.readable(UNITS) or NO_UNITS
        big = tuple(one for one in processes.all if one.rss_bytes >= LEAST_BYTES)
        groups = uses(processes, units)
        asked = big if number is None else big[:number]
        data = TopData(tuple(_row(one, units, memory) for one in asked), _groups(groups))
        return Part(data, _card(host, memory, big[:shown], groups), _buttons(host))

    return await every(chosen, look)


def _row(process: Process, units: Units, memory: Memory) -> ProcessRow:
    owner = units.of_cgroup(process.cgroup)
    return ProcessRow(
        pid=process.pid, started_at=process.started_at, name=clean(process.name), command=str(process.command), user=process.user,
        unit=owner.id if owner else None, pss_bytes=process.pss_bytes, rss_bytes=process.rss_bytes,
        swap_bytes=process.swap_bytes, memory_percent=round(share(process.memory_bytes, memory.total_bytes).percent, 2),
    )  # fmt: skip


def _groups(groups: Iterable[Use]) -> tuple[GroupRow, ...]:
    return tuple(GroupRow(use.unit, use.service, use.count, use.pss_bytes) for use in groups)


def _card(host: str, memory: Memory, processes: Iterable[Process], groups: tuple[Use, ...]) -> tuple[Block, ...]:
    rows = tuple(_line(process, memory) for process in processes)
    return (
        Title(memory_sentence(host, memory)),
        Table(rows, (T("PSS"), T("%"), T("pid"), T("name"))),
        Fold(T("By service"), (uses_table(groups[:GROUPS], memory.total_bytes),)),
    )


def _line(process: Process, memory: Memory) -> tuple[Value, ...]:
    held = process.memory_bytes
    return (Size(held), share(held, memory.total_bytes), process.pid, Mono(clean(process.name)))


def _buttons(host: str) -> tuple[tuple[Button, ...], ...]:
    return ((Button(T("Duplicates"), f"/duplicates {host}"), Button(T("Fix"), f"/fix {host}", "good")),)


COMMAND = Command("top", T("The processes that hold the memory"), "/top [HOST…] [COUNT]", run, ("/top prod", "/top prod 20"))
