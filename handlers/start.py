"""/start: the first words to somebody new."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.command import Command
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Line, Reply, Title
from handlers.request import Request
from remote.text import Listing, Mono, T


@dataclass(frozen=True, slots=True)
class StartData:
    """The JSON of /start."""

    person: str
    role: str
    hosts: tuple[str, ...]


async def run(request: Request, *, hosts: Hosts) -> Reply:
    """Say what this is and what to press; a stranger is told his id and nothing else."""
    person = request.person
    if person.role == "stranger":
        return Reply((Line(T("I do not know you. Your id is {id}; the owner can add it to the settings.", id=Mono(person.id))),))
    visible = hosts.visible(request)
    blocks: tuple[Block, ...] = (
        Title(T("I watch the memory of your servers")),
        Line(T("I say when one runs out, find out who was killed and why, and propose fixes that you approve here.")),
    )
    if visible:
        blocks += (Line(T("From here you can ask {hosts}.", hosts=Listing(tuple(Mono(host) for host in visible)))),)
    buttons = ((Button(T("Memory"), "/mem"), Button(T("Hosts"), "/hosts")), (Button(T("Help"), "/help"),))
    return Reply(blocks, buttons, data=StartData(person.id, person.role, visible))


COMMAND = Command("start", T("What this bot does"), "/start", run, ("/start",), open=True)
