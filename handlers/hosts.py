"""/hosts: which hosts can be asked from here, and how each one is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from handlers.cards.choose import button_rows
from handlers.cards.failure import needed
from handlers.command import Command
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Line, Reply, Table, Title
from handlers.request import Request
from remote.errors import HostError
from remote.facts.host import MACHINE
from remote.facts.memory import MEMORY
from remote.text import Listing, Mono, N, Percent, Size, T, Text

BUTTONS = 8


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host. `error` says why it did not answer; the figures are null then."""

    host: str
    address: str
    groups: tuple[str, ...]
    ok: bool
    error: Text | None
    total_bytes: int | None
    available_bytes: int | None
    used_percent: float | None
    distribution: str | None
    kernel: str | None


@dataclass(frozen=True, slots=True)
class HostsData:
    """The JSON of /hosts, in the settings' order."""

    hosts: tuple[HostRow, ...]


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Ask every host that can be seen from here, side by side; one that does not answer is a row that says so."""
    chosen = hosts.choose(request, request.words) if request.words else hosts.visible(request)
    rows = await asyncio.gather(*(_look(host, hosts) for host in chosen))
    buttons = [Button(T("{host}", host=Mono(row.host)), f"/mem {row.host}") for row in rows[:BUTTONS]]
    return Reply(tuple(_card(rows)), button_rows(buttons), data=HostsData(tuple(rows)))


async def _look(host: str, hosts: Hosts) -> HostRow:
    address, groups = hosts.address(host), hosts.groups(host)
    try:
        answers = await hosts.ask(host, MEMORY, MACHINE)
        memory = needed(host, answers, MEMORY)
    except HostError as error:
        return HostRow(host, address, groups, ok=False, error=error.text, total_bytes=None, available_bytes=None,
                       used_percent=None, distribution=None, kernel=None)  # fmt: skip
    machine = answers.readable(MACHINE)
    return HostRow(
        host, address, groups, ok=True, error=None, total_bytes=memory.total_bytes, available_bytes=memory.available_bytes,
        used_percent=round(memory.used_percent, 2), distribution=machine.distribution if machine else None,
        kernel=machine.kernel if machine else None,
    )  # fmt: skip


def _card(rows: Iterable[HostRow]) -> Iterator[Block]:
    rows = tuple(rows)
    yield Title(N("{n} host can be asked from here", "{n} hosts can be asked from here", len(rows)))
    well = tuple(
        (Percent(row.used_percent), Size(row.available_bytes), Mono(row.host))
        for row in rows
        if row.used_percent is not None and row.available_bytes is not None
    )
    if well:
        yield Table(well, (T("used"), T("free"), T("host")))
    for row in rows:
        if row.error is not None:
            yield Line(row.error)
    for row in rows:
        yield Line(_where(row))


def _where(row: HostRow) -> Text:
    host, address = Mono(row.host), Mono(row.address)
    if not row.groups:
        return T("{host}: {address}", host=host, address=address)
    groups = Listing(tuple(Mono(f"@{group}") for group in row.groups))
    return T("{host}: {address}, in {groups}", host=host, address=address, groups=groups)


COMMAND = Command("hosts", T("Which hosts can be asked from here"), "/hosts [HOST…]", run, ("/hosts", "/hosts @web"))
