"""/undo: propose a plan that takes another one back."""

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
    """Propose the reverse of the steps that hold; it is approved like any plan."""
    draft = await plans.undo_draft(request, one_plan(request.words))
    return plan_card(await plans.propose(request, draft), clock.now())


COMMAND = Command("undo", T("Propose to take a plan back"), "/undo PLAN", run, ("/undo K7QX",), effects=True)
