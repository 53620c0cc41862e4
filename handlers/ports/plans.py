"""Plans and their approvals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from handlers.request import Request
from remote.remedies.base import Draft

State = Literal[
    "proposed",
    "approved",
    "running",
    "verified",
    "rolled-back",
    "failed",
    "expired",
    "declined",
    "superseded",
    "interrupted",
    "undone",
]
FINAL: frozenset[State] = frozenset(
    {"verified", "rolled-back", "failed", "expired", "declined", "superseded", "interrupted", "undone"}
)
StepState = Literal["waiting", "running", "done", "failed", "skipped", "unknown", "undone"]


@dataclass(frozen=True, slots=True)
class Measure:
    """Memory of the host before or after."""

    used_percent: float
    available_bytes: int


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What became of one step. `holds` is what a look at the host said after an interruption (None: not looked)."""

    state: StepState
    output: str = ""
    holds: bool | None = None

    @property
    def stands(self) -> bool:
        """Whether its effect may be on the host: it holds, or nobody knows how far it came."""
        return self.state == "unknown" or (self.state == "done" if self.holds is None else self.holds)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as its rows have it. `id` is random; `code` a short one for people; both name the same plan."""

    id: str
    code: str
    digest: str
    draft: Draft
    state: State
    steps: tuple[StepRecord, ...]
    proposed_by: str
    proposed_at: datetime
    expires_at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    ended_at: datetime | None = None
    before: Measure | None = None
    after: Measure | None = None
    output: str = ""
    undone_by: str = ""
    facts: Mapping[str, str] | None = None

    @property
    def verified(self) -> bool:
        """Whether a look at the host after the last step said that the end was reached."""
        return self.state == "verified"


class Plans(Protocol):
    """Proposing, deciding and looking at plans. Refusals are `Refused` with the sentence to show."""

    async def propose(self, request: Request, draft: Draft) -> Plan:
        """Keep a plan; an older proposed one of the same host becomes superseded. The same draft (digest) that still waits is
        given back as it is."""
        ...

    async def approve(self, request: Request, plan_id: str) -> Plan:
        """Approve and start it. Raises Refused: `not-found`, `role` (names the role needed), `decided` (who, when, what became
        of it), `expired`, `room` (the room does not see the host)."""
        ...

    async def decline(self, request: Request, plan_id: str) -> Plan:
        """Decline it. Raises Refused as `approve`."""
        ...

    async def find(self, request: Request, plan_id: str) -> Plan:
        """By id or code. Raises Refused `not-found`."""
        ...

    async def recent(self, request: Request, hosts: tuple[str, ...]) -> tuple[Plan, ...]:
        """The last 20 plans of these hosts, newest first."""
        ...

    async def undo_draft(self, request: Request, plan_id: str) -> Draft:
        """A plan of its own that takes back what the steps that hold did, in reverse. Raises Refused: `not-found`,
        `nothing-to-undo`, `decided`."""
        ...
