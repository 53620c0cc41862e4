"""/logs: the last lines of a unit's log, secrets taken out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handlers.cards.failure import needed
from handlers.cards.journal import partial_lines
from handlers.command import Command, Usage
from handlers.every import Part, every
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Code, Reply, Title
from handlers.request import Request
from handlers.words import SHOWN, host_and_unit, names, split_number, within
from remote.facts.journal import Entry, unit_log
from remote.redact import redact
from remote.text import Mono, N, T

LINES = 20
MOST = 200
LONGEST = 400  # of one line; a chat's message holds about 4000 characters


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class LogsData:
    """The JSON of /logs, oldest line first."""

    unit: str
    lines: tuple[LogLine, ...]
    partial: str


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Read the last lines of one unit on one host."""
    words, number = split_number(request.words, names(request, hosts))
    count = within(number, LINES, MOST)
    host, name = host_and_unit(request, hosts, words)
    unit = name if "." in name else f"{name}.service"
    try:
        fact = unit_log(unit, count)
    except ValueError as error:
        raise Usage(T("{unit} is no unit's name.", unit=Mono(name[:SHOWN]))) from error

    async def look(host: str) -> Part:
        absent = T("There is no journal on {host}, so I can show no unit's log.", host=Mono(host))
        journal = needed(host, await hosts.ask(host, fact), fact, absent)
        lines = tuple(_line(entry) for entry in journal.entries[-count:])
        blocks = _card(host, unit, lines, journal.partial)
        return Part(LogsData(unit, lines, journal.partial), blocks, ((Button(T("Why"), f"/why {host}"),),))

    return await every((host,), look)


def _line(entry: Entry) -> LogLine:
    return LogLine(entry.at, redact(entry.message)[:LONGEST])


def _card(host: str, unit: str, lines: tuple[LogLine, ...], partial: str) -> tuple[Block, ...]:
    name = Mono(unit)
    note = tuple(partial_lines(partial))
    if not lines:
        return (Title(T("{host}: {unit} has no lines in the journal", host=Mono(host), unit=name)), *note)
    title = N("{host}: the last line of {unit}", "{host}: the last {n} lines of {unit}", len(lines), host=Mono(host), unit=name)
    shown = tuple(part for line in lines for part in f"{line.at:%H:%M:%S} {line.text}".splitlines())
    return (Title(title), Code(shown), *note)


COMMAND = Command(
    "logs",
    T("The last lines of a unit's log"),
    "/logs HOST UNIT [COUNT]",
    run,
    ("/logs prod celery.service", "/logs prod celery 50"),
)
