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
from handlers.words import SHOWN, host_and_unit, known_unit, names, split_number, within
from remote.facts.base import Fact
from remote.facts.journal import Entry, Journal, unit_log
from remote.facts.units import UNITS, full_name
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
    """The JSON of /logs, oldest line first. `unit` is its id, whatever alias was typed."""

    unit: str
    lines: tuple[LogLine, ...]
    partial: str


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Read the last lines of one unit on one host. Raises Refused for a service that is neither there nor in the journal."""
    words, number = split_number(request.words, names(request, hosts))
    count = within(number, LINES, MOST)
    host, name = host_and_unit(request, hosts, words)
    fact = _fact(name, count)

    async def look(host: str) -> Part:
        unit, journal = await _read(hosts, host, name, fact, count)
        lines = tuple(_line(entry) for entry in journal.entries[-count:])
        blocks = _card(host, unit, lines, journal.partial)
        return Part(LogsData(unit, lines, journal.partial), blocks, ((Button(T("Why"), f"/why {host}"),),))

    return await every((host,), look)


def _fact(name: str, count: int) -> Fact[Journal]:
    """The log of the unit of this name. Raises Usage."""
    try:
        return unit_log(full_name(name), count)
    except ValueError as error:
        raise Usage(T("{unit} is no unit's name.", unit=Mono(name[:SHOWN]))) from error


async def _read(hosts: Hosts, host: str, name: str, fact: Fact[Journal], count: int) -> tuple[str, Journal]:
    """The unit's id and its log. journalctl knows no alias, so one costs a second look. Raises HostError, Refused."""
    absent = T("There is no journal on {host}, so I can show no unit's log.", host=Mono(host))
    unit = full_name(name)
    answers = await hosts.ask(host, fact, UNITS)
    journal = needed(host, answers, fact, absent)
    units = answers.readable(UNITS)
    known = units.by_name(name) if units else None
    if known is not None and known.id != unit:
        fact = _fact(known.id, count)
        return known.id, needed(host, await hosts.ask(host, fact), fact, absent)
    # Of sockets, timers and the like the units say nothing: only the journal may know them.
    if units and not journal.entries and unit.endswith(".service"):
        known_unit(host, units, name)
    return unit, journal


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
