"""/approve: let a plan run."""

from __future__ import annotations

from dataclasses import replace

from handlers.cards.plan import plan_card
from handlers.command import Command
from handlers.ports.clock import Clock
from handlers.ports.plans import Plans
from handlers.reply import Reply
from handlers.request import Request
from handlers.words import one_plan
from remote.text import T


async def run(request: Request, *, plans: Plans, clock: Clock) -> Reply:
    """Approve it; the card follows along from here."""
    plan = await plans.approve(request, one_plan(request.words))
    return replace(plan_card(plan, clock.now()), settles=plan.id)


# Viewers may call it: the refusal that they get names the role, and is kept in the audit.
COMMAND = Command("approve", T("Let a plan run"), "/approve PLAN", run, ("/approve K7QX",), hidden=True, effects=True)
