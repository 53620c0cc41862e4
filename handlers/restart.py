"""/restart: propose the restart of one unit, with the same approval as every change."""

from __future__ import annotations

from handlers.cards.failure import needed, needed_units
from handlers.cards.plan import plan_card
from handlers.command import Command, Refused
from handlers.every import alone
from handlers.ports.clock import Clock
from handlers.ports.hosts import Hosts
from handlers.ports.plans import Plans
from handlers.reply import Reply
from handlers.request import Request
from handlers.words import host_and_unit, known_unit
from remote.facts.host import MACHINE
from remote.facts.memory import MEMORY
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS
from remote.remedies import plan as planning
from remote.remedies.base import CannotDraft
from remote.remedies.plan import Seen
from remote.text import T


async def run(request: Request, *, hosts: Hosts, plans: Plans, clock: Clock) -> Reply:
    """Propose a plan of one step. Raises Refused for a unit that is unknown or must not be touched."""
    host, name = host_and_unit(request, hosts, request.words)
    return await alone(host, lambda: _restart(request, host, name, hosts, plans, clock))


async def _restart(
    request: Request, host: str, name: str, hosts: Hosts, plans: Plans, clock: Clock
) -> Reply:  # fmt: skip
    answers = await hosts.ask(host, MEMORY, PROCESSES, UNITS, MACHINE)
    units = needed_units(host, answers)
    unit = known_unit(host, units, name)
    memory, processes, machine = needed(host, answers, MEMORY), needed(host, answers, PROCESSES), needed(host, answers, MACHINE)
    seen = Seen(memory, processes, units, machine, hosts.key())
    try:
        draft = planning.restart(host, unit, seen, hosts.policy(host), hosts.host_key(host))
    except CannotDraft as why:
        raise Refused("no-safe-plan", why.text) from why
    return plan_card(await plans.propose(request, draft), clock.now())


COMMAND = Command("restart", T("Propose the restart of one unit"), "/restart HOST UNIT", run, ("/restart prod celery.service",))
