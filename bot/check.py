"""`memwarden check`: look at everything that can be wrong, one line each, with what to do. Exits 1 when something is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bot import logs
from bot.hosts import Fleet
from bot.i18n import render
from bot.process import remote_chats
from bot.store import StoreError, open_store
from handlers.request import RANK
from remote.errors import HostError
from remote.facts.host import MACHINE, Machine
from remote.text import Mono, N, T, Text

if TYPE_CHECKING:
    from bot.settings import Settings

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
    told = {host for name, chat in settings.chats.items() if chat.alerts for host in settings.seen_from(name)}
    if settings.chats:
        for host in settings.hosts:
            if host not in told:
                yield False, T("No chat with alerts = true sees {host}: its alerts would reach nobody.", host=Mono(host))


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
        return [line for lines in await asyncio.gather(*(_host(fleet, name) for name in settings.hosts)) for line in lines]
    finally:
        await fleet.close()


async def _host(fleet: Fleet, name: str) -> list[Finding]:
    try:
        machine = (await fleet.ask(name, MACHINE))[MACHINE]
    except HostError as trouble:
        return [(False, T("{host}: {why}", host=Mono(name), why=trouble.text))]
    if not isinstance(machine, Machine):
        return [(False, T("{host}: {why}", host=Mono(name), why=machine.why))]
    lines: list[Finding] = [(True, T("{host}: {distribution}, Linux {kernel}", host=Mono(name), distribution=machine.distribution,
                                     kernel=machine.kernel))]  # fmt: skip
    return [*lines, *_rights(name, machine)]


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
