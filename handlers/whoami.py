"""/whoami: who you are to the bot, here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from handlers.command import Command
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Line, Reply, Title
from handlers.request import Request, Role
from remote.text import Listing, Mono, T, Text


@dataclass(frozen=True, slots=True)
class WhoamiData:
    """The JSON of /whoami."""

    person: str
    role: Role
    chat: str
    platform: str
    language: str
    hosts: tuple[str, ...]


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Person, role, chat, language and the hosts that can be seen."""
    person, room = request.person, request.room
    if person.role == "stranger":
        return Reply((Line(T("I do not know you. Your id is {id}; the owner can add it to the settings.", id=Mono(person.id))),))
    visible = hosts.visible(request)
    data = WhoamiData(person.id, person.role, room.id, room.platform, request.language, visible)
    return Reply(tuple(_card(request, visible)), data=data)


def _card(request: Request, visible: tuple[str, ...]) -> Iterator[Block]:
    yield Title(T("You are {person}", person=Mono(request.person.id)))
    yield Line(_role(request.person.role))
    yield Line(T("Chat: {chat}, {platform}", chat=Mono(request.room.id), platform=Mono(request.room.platform)))
    if visible:
        yield Line(T("From here you can ask {hosts}.", hosts=Listing(tuple(Mono(host) for host in visible))))


def _role(role: Role) -> Text:
    match role:
        case "admin":
            return T("Role: admin. You may do everything.")
        case "approver":
            return T("Role: approver. You may look, propose and approve.")
        case _:
            return T("Role: viewer. You may look and propose.")


COMMAND = Command("whoami", T("Who you are to me, here"), "/whoami", run, ("/whoami",), open=True)
