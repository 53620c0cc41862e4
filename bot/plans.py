"""Plans and their approvals: states and transitions in one place, each one transaction with its audit row and its notice."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import insert, select, update

from bot.store.tables import approvals, audit, plans, steps
from handlers.cards.plan import plan_card
from handlers.command import Refused
from handlers.ports.plans import FINAL, Measure, Plan, State, StepRecord, StepState
from remote.remedies.base import Draft, dump_draft, load_draft
from remote.remedies.plan import undo
from remote.text import Mono, N, T, Text, Value, When

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.outbox import Outbox
    from bot.settings import ApprovalSettings
    from bot.store import Store
    from handlers.ports.clock import Clock
    from handlers.request import Request
    from remote.findings.kill import Kill
    from remote.policy import Policy

log = structlog.get_logger(__name__)

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that two people would read differently
RECENT = 20

# From which states a plan may come into each; a change that is not here does not happen.
COMES_FROM: Mapping[State, frozenset[State]] = {
    "approved": frozenset({"proposed"}),
    "declined": frozenset({"proposed"}),
    "expired": frozenset({"proposed"}),
    "superseded": frozenset({"proposed"}),
    "running": frozenset({"approved"}),
    "verified": frozenset({"running"}),
    "rolled-back": frozenset({"running"}),
    "failed": frozenset({"approved", "running"}),
    "interrupted": frozenset({"approved", "running"}),
    "undone": frozenset({"verified", "failed", "interrupted"}),
}
UNDOABLE: frozenset[State] = frozenset({"verified", "failed", "interrupted"})


def plan_key(plan_id: str) -> str:
    """The key of a plan's living message."""
    return f"plan:{plan_id}"


class PlanBook:
    """The `Plans` port of the commands, and what the runner writes into."""

    def __init__(
        self, store: Store, outbox: Outbox, clock: Clock, rules: ApprovalSettings, policy: Callable[[str], Policy]
    ) -> None:
        """`policy` gives a host's as the settings have it now. `on_approved` is called with a plan's id once its approval is
        committed; bot/app.py sets it."""
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._rules = rules
        self._policy = policy
        self.on_approved: Callable[[str], None] = _nobody

    async def propose(self, request: Request, draft: Draft) -> Plan:
        """See handlers/ports/plans.py."""
        now = self._clock.now()
        async with self._store.begin() as tx:
            await self._expire(tx)
            waiting = select(plans).where(plans.c.host == draft.host, plans.c.state == "proposed")
            for row in (await tx.execute(waiting)).all():
                if row.digest == draft.digest:
                    return await self._load(tx, row)
                await self._move(tx, row.id, "superseded", who=request.person.id)
            plan_id = "".join(secrets.choice(ALPHABET) for _ in range(12))
            await tx.execute(
                insert(plans).values(
                    id=plan_id, code=plan_id[:4].upper(), digest=draft.digest, host=draft.host, state="proposed",
                    draft=dump_draft(draft), proposed_by=request.person.id, proposed_at=now, undoes=draft.undoes,
                    expires_at=now + timedelta(seconds=self._rules.expire),
                )
            )  # fmt: skip
            rows = [{"plan": plan_id, "n": n, "state": "waiting"} for n in range(len(draft.steps))]
            await tx.execute(insert(steps), rows)
            await self._audit(tx, request.person.id, "proposed", draft.host, plan_id, {"digest": draft.digest})
            plan = await self._get(tx, plan_id)
        self._outbox.wake()
        return plan

    async def approve(self, request: Request, plan_id: str) -> Plan:
        """See handlers/ports/plans.py."""
        async with self._store.begin() as tx:
            plan = await self._decidable(tx, request, plan_id)
            if isinstance(plan, Refused):
                refused: Refused | None = plan
            else:
                refused = await self._vote(tx, request, plan)
                plan_id = plan.id
        self._outbox.wake()
        if refused is not None:
            raise refused
        plan = await self.find(request, plan_id)
        if plan.state == "approved":
            self.on_approved(plan_id)
        return plan

    async def decline(self, request: Request, plan_id: str) -> Plan:
        """See handlers/ports/plans.py."""
        async with self._store.begin() as tx:
            plan = await self._decidable(tx, request, plan_id)
            if not isinstance(plan, Refused):
                plan_id = plan.id
                await self._move(tx, plan_id, "declined", who=request.person.id, decides=True)
        self._outbox.wake()
        if isinstance(plan, Refused):
            raise plan
        return await self.find(request, plan_id)

    async def find(self, request: Request, plan_id: str) -> Plan:
        """See handlers/ports/plans.py."""
        async with self._store.connect() as tx:
            plan = await self._named(tx, request, plan_id)
        if isinstance(plan, Refused):
            raise plan
        return plan

    async def recent(self, request: Request, hosts: tuple[str, ...]) -> tuple[Plan, ...]:
        """See handlers/ports/plans.py."""
        del request
        query = select(plans).where(plans.c.host.in_(hosts)).order_by(plans.c.proposed_at.desc()).limit(RECENT)
        async with self._store.connect() as tx:
            return tuple([await self._load(tx, row) for row in (await tx.execute(query)).all()])

    async def undo_draft(self, request: Request, plan_id: str) -> Draft:
        """See handlers/ports/plans.py."""
        plan = await self.find(request, plan_id)
        if plan.state == "undone":
            raise Refused("decided", T("Plan {plan} was already undone.", plan=Mono(plan.code)))
        if plan.draft.undoes:
            # What was stopped once is judged afresh before it is stopped again: its twin may be gone by now.
            raise Refused(
                "nothing-to-undo",
                T("Plan {plan} took another one back. {fix} looks afresh.", plan=Mono(plan.code), fix=Mono("/fix")),
            )
        held = [step.stands for step in plan.steps]
        policy = self._policy(plan.draft.host)
        draft = undo(plan.draft, held, plan.id, plan.code, policy) if plan.state in UNDOABLE else None
        if draft is None:
            raise Refused("nothing-to-undo", T("Plan {plan} did nothing that can be undone.", plan=Mono(plan.code)))
        return draft

    async def get(self, plan_id: str) -> Plan:
        """By its full id. Raises KeyError."""
        async with self._store.connect() as tx:
            return await self._get(tx, plan_id)

    async def unfinished(self) -> tuple[str, ...]:
        """Plans that were approved or running when the process ended."""
        async with self._store.connect() as tx:
            rows = await tx.execute(select(plans.c.id).where(plans.c.state.in_(("approved", "running"))))
            return tuple(row.id for row in rows)

    async def expire(self) -> None:
        """Let proposed plans expire whose time has come, and show it."""
        async with self._store.begin() as tx:
            await self._expire(tx)
        self._outbox.wake()

    async def move(self, plan_id: str, state: State, **more: Any) -> bool:  # noqa: ANN401 - columns of the plan
        """A transition by the runner, with its audit row and the card. False when the plan is not in a state it may leave so."""
        async with self._store.begin() as tx:
            moved = await self._move(tx, plan_id, state, who="memwarden", **more)
            undoes = (await tx.execute(select(plans.c.undoes).where(plans.c.id == plan_id))).scalar()
            if moved and state == "verified" and undoes:
                await self._move(tx, undoes, "undone", who="memwarden", undone_by=plan_id)
        self._outbox.wake()
        return moved

    async def step(self, plan_id: str, n: int, state: StepState, *, output: str = "", holds: bool | None = None) -> None:
        """What became of one step, kept before and after it runs, shown on the card."""
        now = self._clock.now()
        values: dict[str, Any] = {"state": state, "output": output[-4000:]}
        values |= {"started_at": now} if state == "running" else {"ended_at": now, "holds": holds}
        async with self._store.begin() as tx:
            await tx.execute(update(steps).where(steps.c.plan == plan_id, steps.c.n == n).values(**values))
            host = (await tx.execute(select(plans.c.host).where(plans.c.id == plan_id))).scalar_one()
            await self._audit(tx, "memwarden", f"step {state}", host, plan_id, {"n": n, "holds": holds})
            await self._show(tx, plan_id)
        self._outbox.wake()

    async def killed(self, tx: AsyncConnection, plan_id: str, n: int, kill: Kill) -> None:
        """A step's doing was a kill (systemd's, when what it stopped took too long): it belongs to the plan's story."""
        row = (await tx.execute(select(steps).where(steps.c.plan == plan_id, steps.c.n == n))).one()
        said = "\n".join([*([row.output] if row.output else []), *kill.evidence])
        await tx.execute(update(steps).where(steps.c.plan == plan_id, steps.c.n == n).values(output=said[-4000:]))
        detail = {"n": n, "pid": kill.pid, "unit": kill.unit}
        host = (await tx.execute(select(plans.c.host).where(plans.c.id == plan_id))).scalar_one()
        await self._audit(tx, "memwarden", "killed", host, plan_id, detail)
        await self._show(tx, plan_id)

    async def _named(self, tx: AsyncConnection, request: Request, name: str) -> Plan | Refused:
        wanted = name.strip().lower()
        query = (
            select(plans).where((plans.c.id == wanted) | (plans.c.code == wanted.upper())).order_by(plans.c.proposed_at.desc())
        )
        rows = [row for row in (await tx.execute(query)).all() if row.host in request.room.hosts]
        if not rows:
            return Refused(
                "not-found", T("There is no plan {plan} here. {plans} lists them.", plan=Mono(name[:32]), plans=Mono("/plans"))
            )
        return await self._load(tx, rows[0])

    async def _decidable(self, tx: AsyncConnection, request: Request, name: str) -> Plan | Refused:
        """The plan while it waits for a decision of somebody who may decide; else why not."""
        plan = await self._named(tx, request, name)
        if isinstance(plan, Refused):
            return plan
        if not request.person.may("approver"):
            await self._audit(tx, request.person.id, "refused press", plan.draft.host, plan.id, {"why": "role"})
            return Refused("role", T("That needs the role approver or admin."))
        if plan.state == "proposed" and plan.expires_at <= self._clock.now():
            await self._move(tx, plan.id, "expired", who="memwarden")
            plan = await self._get(tx, plan.id)
        if plan.state == "expired":
            return Refused(
                "expired", T("This plan expired at {at}. {fix} draws a new one.", at=When(plan.expires_at), fix=Mono("/fix"))
            )
        if plan.state != "proposed":
            return Refused("decided", decided(plan))
        if plan.draft.basis.get("policy") not in {None, self._policy(plan.draft.host).version}:
            await self._move(tx, plan.id, "expired", who="memwarden", detail={"why": "settings"})
            return Refused(
                "stale",
                T(
                    "The settings of {host} changed since plan {plan} was drawn.",
                    host=Mono(plan.draft.host),
                    plan=Mono(plan.code),
                ),
            )
        return plan

    async def _vote(self, tx: AsyncConnection, request: Request, plan: Plan) -> Refused | None:
        """Count this person's yes; the last one needed approves the plan."""
        me = request.person.id
        if plan.draft.basis.get("root") == "no":
            return Refused(
                "no-root",
                T("I may not change anything on {host}. Run the commands in the details by hand.", host=plan.draft.host),
            )
        if me == plan.proposed_by and self._rules.reviewers == 1 and not self._rules.self_approve:
            return Refused("self", T("Somebody else must approve what you asked for."))
        voted = {row.person for row in await tx.execute(select(approvals.c.person).where(approvals.c.plan == plan.id))}
        first = me not in voted
        if first:
            await tx.execute(insert(approvals).values(plan=plan.id, person=me, at=self._clock.now()))
            voted.add(me)
        if len(voted) < self._rules.reviewers:
            if first:
                await self._audit(tx, me, "first approval", plan.draft.host, plan.id, {})
            missing = self._rules.reviewers - len(voted)
            return Refused("more", N("One more person must approve it.", "{n} more people must approve it.", missing))
        detail = {"digest": plan.digest, "self_approved": me == plan.proposed_by, "people": sorted(voted)}
        await self._move(tx, plan.id, "approved", who=me, decides=True, detail=detail)
        return None

    async def _move(
        self, tx: AsyncConnection, plan_id: str, state: State, *, who: str, decides: bool = False,
        detail: Mapping[str, Any] | None = None, **more: Any,  # noqa: ANN401 - columns of the plan
    ) -> bool:  # fmt: skip
        """Compare and set: only from a state that leads here. The audit row and the card go with it."""
        now = self._clock.now()
        values: dict[str, Any] = {"state": state, **{name: _column(value) for name, value in more.items()}}
        if decides:
            values |= {"decided_by": who, "decided_at": now}
        if state in FINAL and state != "undone":
            values["ended_at"] = now
        done = await tx.execute(update(plans).where(plans.c.id == plan_id, plans.c.state.in_(COMES_FROM[state])).values(**values))
        if done.rowcount == 0:
            return False
        host = (await tx.execute(select(plans.c.host).where(plans.c.id == plan_id))).scalar_one()
        await self._audit(tx, who, state, host, plan_id, detail or {})
        await self._show(tx, plan_id)
        return True

    async def _expire(self, tx: AsyncConnection) -> None:
        due = select(plans.c.id).where(plans.c.state == "proposed", plans.c.expires_at <= self._clock.now())
        for row in (await tx.execute(due)).all():
            await self._move(tx, row.id, "expired", who="memwarden")

    async def _show(self, tx: AsyncConnection, plan_id: str) -> None:
        await self._outbox.repost(tx, plan_card(await self._get(tx, plan_id), self._clock.now()), plan_key(plan_id))

    async def _audit(self, tx: AsyncConnection, who: str, what: str, host: str, plan_id: str, detail: Mapping[str, Any]) -> None:
        await tx.execute(
            insert(audit).values(at=self._clock.now(), who=who, what=what, host=host, plan=plan_id, detail=dict(detail))
        )

    async def _get(self, tx: AsyncConnection, plan_id: str) -> Plan:
        row = (await tx.execute(select(plans).where(plans.c.id == plan_id))).one_or_none()
        if row is None:
            raise KeyError(plan_id)
        return await self._load(tx, row)

    async def _load(self, tx: AsyncConnection, row: Any) -> Plan:  # noqa: ANN401 - a row of plans
        kept = (await tx.execute(select(steps).where(steps.c.plan == row.id).order_by(steps.c.n))).all()
        return _plan(row, kept)


def _nobody(plan_id: str) -> None:
    raise RuntimeError(f"nobody runs plan {plan_id}")


def decided(plan: Plan) -> Text:
    """Who decided, when, and what became of it."""
    at = When(plan.decided_at or plan.proposed_at)
    values: tuple[tuple[str, Value], ...] = (("who", plan.decided_by), ("plan", Mono(plan.code)), ("at", at))
    sentence = _DECIDED.get(plan.state, _DECIDED["failed"])
    return replace(sentence, values=tuple(value for value in values if f"{{{value[0]}}}" in sentence.msgid))


_RUNS = T("{who} approved plan {plan} at {at}; it is running.")
_DECIDED: Mapping[State, Text] = {
    "declined": T("{who} declined plan {plan} at {at}."),
    "superseded": T("A newer plan took the place of {plan}."),
    "approved": _RUNS,
    "running": _RUNS,
    "verified": T("{who} approved plan {plan} at {at}; it was done and verified."),
    "rolled-back": T("{who} approved plan {plan} at {at}; it did not help and was taken back."),
    "interrupted": T("{who} approved plan {plan} at {at}; it was interrupted."),
    "undone": T("{who} approved plan {plan} at {at}; it was undone later."),
    "failed": T("{who} approved plan {plan} at {at}; it failed."),
}


def _column(value: Any) -> Any:  # noqa: ANN401 - a Measure or a plain column
    return asdict(value) if isinstance(value, Measure) else value


def _measure(data: Mapping[str, Any] | None) -> Measure | None:
    return Measure(float(data["used_percent"]), int(data["available_bytes"])) if data else None


def _plan(row: Any, kept: Iterable[Any]) -> Plan:  # noqa: ANN401 - rows
    return Plan(
        id=row.id, code=row.code, digest=row.digest, draft=load_draft(row.draft), state=row.state,
        steps=tuple(StepRecord(step.state, step.output, step.holds) for step in kept), proposed_by=row.proposed_by,
        proposed_at=row.proposed_at, expires_at=row.expires_at, decided_by=row.decided_by, decided_at=row.decided_at,
        ended_at=row.ended_at, before=_measure(row.before), after=_measure(row.after), output=row.output, undone_by=row.undone_by,
    )  # fmt: skip
