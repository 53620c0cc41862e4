"""/details: the exact commands of a plan, and those that undo it."""

from __future__ import annotations

from handlers.cards.plan import details_card
from handlers.command import Command
from handlers.ports.clock import Clock
from handlers.ports.plans import Plans
from handlers.reply import Reply
from handlers.request import Request
from handlers.words import one_plan
from remote.text import T


async def run(request: Request, *, plans: Plans, clock: Clock) -> Reply:
    """Show it."""
    return details_card(await plans.find(request, one_plan(request.words)), clock.now())


COMMAND = Command("details", T("The exact commands of a plan"), "/details PLAN", run, ("/details K7QX",), hidden=True)
