"""/decline: a plan is not to run."""

from __future__ import annotations

from handlers.cards.plan import plan_card
from handlers.command import Command
from handlers.ports.clock import Clock
from handlers.ports.plans import Plans
from handlers.reply import Reply
from handlers.request import Request
from handlers.words import one_plan
from remote.text import T


async def run(request: Request, *, plans: Plans, clock: Clock) -> Reply:
    """Decline it."""
    return plan_card(await plans.decline(request, one_plan(request.words)), clock.now())


COMMAND = Command("decline", T("Say no to a plan"), "/decline PLAN", run, ("/decline K7QX",), hidden=True, effects=True)
