"""/plans: the latest plans and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from handlers.cards.choose import button_rows
from handlers.cards.plan import state_word
from handlers.command import Command
from handlers.ports.hosts import Hosts
from handlers.ports.plans import Plan, Plans, State
from handlers.reply import Block, Button, Line, Reply, Title
from handlers.request import Request
from remote.text import Mono, N, T, Text, When

SHOWN = 10
BUTTONS = 4


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan. `undoes` is the id of the plan that it takes back."""

    id: str
    code: str
    host: str
    state: State
    reason: Text
    steps: int
    frees_bytes: int
    proposed_by: str
    proposed_at: datetime
    expires_at: datetime
    decided_by: str
    decided_at: datetime | None
    ended_at: datetime | None
    undoes: str | None


@dataclass(frozen=True, slots=True)
class PlansData:
    """The JSON of /plans, newest first."""

    plans: tuple[PlanRow, ...]


async def run(request: Request, *, hosts: Hosts, plans: Plans) -> Reply:
    """The last plans of the hosts named, or of all that can be seen."""
    chosen = hosts.choose(request, request.words) if request.words else hosts.visible(request)
    recent = await plans.recent(request, chosen)
    return Reply(tuple(_card(recent)), button_rows(_buttons(recent)), data=PlansData(tuple(map(_row, recent))))


def _row(plan: Plan) -> PlanRow:
    return PlanRow(
        id=plan.id, code=plan.code, host=plan.draft.host, state=plan.state, reason=plan.draft.reason,
        steps=len(plan.draft.steps), frees_bytes=plan.draft.frees_bytes, proposed_by=plan.proposed_by,
        proposed_at=plan.proposed_at, expires_at=plan.expires_at, decided_by=plan.decided_by, decided_at=plan.decided_at,
        ended_at=plan.ended_at, undoes=plan.draft.undoes,
    )  # fmt: skip


def _card(recent: tuple[Plan, ...]) -> Iterator[Block]:
    if not recent:
        yield Title(T("No plans yet. {fix} draws one.", fix=Mono("/fix")))
        return
    yield Title(N("The last plan", "The last {n} plans", min(SHOWN, len(recent))))
    for plan in recent[:SHOWN]:
        host, code = Mono(plan.draft.host), Mono(plan.code)
        at, state = When(plan.proposed_at), state_word(plan.state)
        yield Line(T("{code} {host}, {at}: {state}", code=code, host=host, at=at, state=state))
        yield Line(T("↳ {reason}", reason=plan.draft.reason))


def _buttons(recent: Iterable[Plan]) -> list[Button]:
    """Details of those that wait, else of the newest."""
    shown = [plan for plan in recent if plan.state == "proposed"] or list(recent)
    return [Button(T("Details {code}", code=Mono(plan.code)), f"/details {plan.id}") for plan in shown[:BUTTONS]]


COMMAND = Command("plans", T("The latest plans and what became of them"), "/plans [HOST…]", run, ("/plans", "/plans prod"))
