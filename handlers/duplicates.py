"""/duplicates: units and stray processes that do the same work twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handlers.cards.failure import needed
from handlers.cards.host import NO_UNITS, missing
from handlers.cards.twins import GroupData, extras, freed_bytes, group_data, group_lines, look_alike_fold
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Reply, Title
from handlers.request import Request
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS
from remote.findings.duplicates import Duplicates, LookAlike, find
from remote.text import Mono, N, Size, T


@dataclass(frozen=True, slots=True)
class DuplicatesData:
    """The JSON of /duplicates."""

    groups: tuple[GroupData, ...]


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Find the twins of each host."""

    async def look(host: str) -> Part:
        answers = await hosts.ask(host, PROCESSES, UNITS)
        processes, units = needed(host, answers, PROCESSES), answers.readable(UNITS) or NO_UNITS
        groups, look_alikes = find(processes, units, hosts.policy(host))
        data = DuplicatesData(tuple(group_data(group) for group in groups))
        buttons = ((Button(T("Fix"), f"/fix {host}", "good"), Button(T("Services"), f"/services {host}")),)
        return Part(data, (*_card(host, groups, look_alikes), *missing(answers, UNITS)), buttons if groups else ())

    return await every(hosts.choose(request, request.words), look)


def _card(host: str, groups: Sequence[Duplicates], look_alikes: Sequence[LookAlike]) -> tuple[Block, ...]:
    if not groups:
        title = Title(T("{host}: nothing runs twice", host=Mono(host)), "good")
        return (title, *look_alike_fold(look_alikes))
    n, size = extras(groups), Size(freed_bytes(groups))
    title = Title(
        N("{host}: {n} extra, {size} could be freed", "{host}: {n} extras, {size} could be freed", n, host=Mono(host), size=size),
        "warning",
    )
    return (title, *(line for group in groups for line in group_lines(group)), *look_alike_fold(look_alikes))


COMMAND = Command(
    "duplicates", T("What runs twice, and what that costs"), "/duplicates [HOST…]", run, ("/duplicates prod", "/duplicates all")
)
