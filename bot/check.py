"""`memwarden check`: look at everything that can be wrong, one line each, with what to do. Exits 1 when something is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from bot import logs
from bot.alerts.routing import told_about
from bot.hosts import Fleet
from bot.i18n import render
from bot.process import remote_chats
from bot.store import StoreError, open_store
from handlers.cards.host import short_unit
from handlers.request import RANK
from remote.errors import HostError
from remote.facts.base import Answers, Unreadable
from remote.facts.host import MACHINE, Machine
from remote.facts.units import UNITS, Units
from remote.text import Listing, Mono, N, T, Text

if TYPE_CHECKING:
    from bot.settings import HostSettings, Settings

Finding = tuple[bool, Text]


async def run(settings: Settings) -> int:
    """Check everything and print it as it comes. Gives the exit status."""
    logs.configure("warning")
    fine = True
    parts = (_settings(settings), await _store(settings), await _hosts(settings), await _chats(settings), await _hooks(settings))
    for part in parts:
        for good, text in part:
            fine = fine and good
            sys.stdout.write(f"{'ok ' if good else 'BAD'}  {render(text, settings.language)}\n")
            sys.stdout.flush()
    return 0 if fine else 1


def _settings(settings: Settings) -> Iterable[Finding]:
    yield True, T("Settings: {hosts} hosts, {chats} chats, {people} people", hosts=len(settings.hosts), chats=len(settings.chats),
                  people=len(settings.people))  # fmt: skip
    if not any(RANK[person.role] >= RANK["approver"] for person in settings.people.values()):
        yield False, T("Nobody may approve a fix. Give somebody under [people] the role approver or admin.")
    for name, person in settings.people.items():
        if not (person.console or person.telegram or person.slack):
            yield False, T("{name} has no account. Add telegram, slack or console = true.", name=Mono(name))
    yield from _told_nobody(settings)


def _told_nobody(settings: Settings) -> Iterator[Finding]:
    """The hosts whose alerts reach nobody. Beside a messenger the console tells nobody: it need not even be open."""
    messenger = settings.telegram is not None or settings.slack is not None
    for host in settings.hosts:
        places = told_about(settings, host)
        if not places:
            yield False, T("No chat with alerts = true sees {host}: its alerts would reach nobody.", host=Mono(host))
        elif messenger and all(place.platform == "console" for place in places):
            yield False, T("Alerts of {host} would go to the console alone, where nobody may be. Add a chat that sees it under "
                           "[chats].", host=Mono(host))  # fmt: skip


async def _store(settings: Settings) -> Iterable[Finding]:
    try:
        store = await open_store(settings.store)
    except StoreError as trouble:
        return [(False, T("{trouble}", trouble=str(trouble)))]
    await store.close()
    return [(True, T("Store: {store} opens and is up to date", store=Mono(settings.store)))]


async def _hosts(settings: Settings) -> Iterable[Finding]:
    fleet = Fleet(settings, b"")
    try:
        return [line for lines in await asyncio.gather(*(_host(fleet, *one) for one in settings.hosts.items())) for line in lines]
    finally:
        await fleet.close()


async def _host(fleet: Fleet, name: str, one: HostSettings) -> list[Finding]:
    named = _named(one)
    try:
        answers = await fleet.ask(name, MACHINE, *((UNITS,) if named else ()))
    except HostError as trouble:
        return [(False, T("{host}: {why}", host=Mono(name), why=trouble.text))]
    machine = answers[MACHINE]
    if not isinstance(machine, Machine):
        return [(False, T("{host}: {why}", host=Mono(name), why=machine.why))]
    lines: list[Finding] = [(True, T("{host}: {distribution}, Linux {kernel}", host=Mono(name), distribution=machine.distribution,
                                     kernel=machine.kernel))]  # fmt: skip
    return [*lines, *_rights(name, machine), *_units(name, named, answers)]


def _named(one: HostSettings) -> dict[str, tuple[str, ...]]:
    """The units that the settings of a host name, by key; no key that names none."""
    keys = {"keep": one.keep, "never_touch": one.never_touch, "health": tuple(one.health)}
    return {key: names for key, names in keys.items() if names}


def _units(host: str, named: dict[str, tuple[str, ...]], answers: Answers) -> Iterator[Finding]:
    """The names that mean no unit of the host, so that nobody would heed them."""
    if not named:
        return
    units = answers[UNITS]
    if isinstance(units, Unreadable):
        keys = Listing(tuple(Mono(key) for key in named))
        yield False, T("{host}: whether there are the units that {keys} name cannot be told: {why}", host=Mono(host), keys=keys,
                       why=units.why)  # fmt: skip
        return
    for key, names in named.items():
        for name in names:
            if not any(unit.is_called({name}) for unit in units.all):  # as plans heed it: a template names its units too
                yield False, _no_unit(host, key, name, units)


def _no_unit(host: str, key: str, name: str, units: Units) -> Text:
    # Compared without their common ending, which would make all names alike.
    known = {short_unit(alias): unit.id for unit in units.all for alias in unit.names}
    near = get_close_matches(short_unit(name), known, 1, 0.6)
    where, word = Mono(host), Mono(name)
    if not near:
        return T("{host}: {key} names {unit}, but there is no such unit.", host=where, key=Mono(key), unit=word)
    return T("{host}: {key} names {unit}, but there is no such unit. Did you mean {near}?", host=where, key=Mono(key), unit=word,
             near=Mono(known[near[0]]))  # fmt: skip


def _rights(name: str, machine: Machine) -> Iterator[Finding]:
    if machine.journal == "own":
        yield False, T("{host}: its journal cannot be read whole, so kills may be missed. Add the user to the group "
                       "systemd-journal.", host=Mono(name))  # fmt: skip
    if machine.journal == "none":  # nothing that anybody could do about it
        yield True, T("{host}: there is no journal; I read the kernel's buffer or log files instead, so kills may be missed",
                      host=Mono(name))  # fmt: skip
    if machine.root == "no":
        yield True, T("{host}: no root and no sudo; a fix can be shown there but not applied", host=Mono(name))


async def _chats(settings: Settings) -> Iterable[Finding]:
    lines: list[Finding] = []
    for chat in remote_chats(settings).values():
        lines += await chat.check()
    return lines


async def _hooks(settings: Settings) -> Iterable[Finding]:
    """Secrets and hosts were looked at when the settings were read."""
    if settings.hooks is None:
        return []
    from bot.hooks import sources
    from bot.hooks.server import listens

    listen = Mono(settings.hooks.listen)
    hosts = {name: len(set(mapped.values())) for name, mapped in settings.hooks.mapped.items()}
    found: list[Finding] = [
        (
            True,
            N(
                "Hooks: {source} may ask about {n} host",
                "Hooks: {source} may ask about {n} hosts",
                hosts[name],
                source=source.shown,
            ),
        )
        for name, source in sources(settings.hooks).items()
    ]
    match await listens(settings.hooks.address):
        case "free":
            found.append((True, T("Hooks: {listen} is free", listen=listen)))
        case "ours":
            found.append((True, T("Hooks: a memwarden listens on {listen}", listen=listen)))
        case "taken":
            found.append(
                (False, T("Hooks: another program listens on {listen}. Set hooks.listen to a free port.", listen=listen))
            )
        case _:
            found.append(
                (False, T("Hooks: {listen} is no address of this machine, or a port that only root may take.", listen=listen))
            )
    return found
