"""A plan through its whole life: one card, edited in place from the proposal to its proof."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from handlers.ports.plans import Measure, Plan, State, StepRecord
from handlers.reply import Block, Button, Code, Failure, Fold, HostAnswer, Line, Reply, Title, Tone
from remote.redact import redact
from remote.remedies.base import Step
from remote.text import Mono, N, Percent, Size, T, Text, When

LAST_LINES = 12  # of a failed step's output, on the card
MARKS: Mapping[str, str] = {
    "waiting": "·", "running": "▸", "done": "✓", "failed": "✗", "skipped": "-", "unknown": "?", "undone": "↶",
}  # fmt: skip
BAD: frozenset[State] = frozenset({"failed", "rolled-back", "interrupted"})


@dataclass(frozen=True, slots=True)
class StepData:
    """One step as scripts see it while the plan is only proposed."""

    kind: str
    target: str
    text: Text
    commands: tuple[str, ...]
    undo: tuple[str, ...]
    frees_bytes: int
    interrupts: Text | None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One step with what became of it."""

    kind: str
    target: str
    text: Text
    commands: tuple[str, ...]
    undo: tuple[str, ...]
    frees_bytes: int
    interrupts: Text | None
    state: str
    output: str


@dataclass(frozen=True, slots=True)
class MeasureData:
    """Memory before or after."""

    used_percent: float
    available_bytes: int


@dataclass(frozen=True, slots=True)
class PlanData:
    """A plan's state as scripts see it. `undoes` is the id of the plan that this one takes back."""

    id: str
    state: State
    steps: tuple[StepOutcome, ...]
    before: MeasureData | None
    after: MeasureData | None
    verified: bool
    text: Text
    undoes: str | None


def step_data(step: Step) -> StepData:
    """The step of a proposal, for scripts."""
    return StepData(step.kind, step.target, step.text, step.commands, step.undo, step.frees_bytes, step.interrupts)


def plan_data(plan: Plan, now: datetime) -> PlanData:
    """The plan as it stands at `now`, for scripts."""
    plan = _as_of(plan, now)
    return PlanData(
        id=plan.id, state=plan.state, steps=tuple(_outcome(step, record) for step, record in _pairs(plan)),
        before=_measure(plan.before), after=_measure(plan.after), verified=plan.verified, text=headline(plan),
        undoes=plan.draft.undoes,
    )  # fmt: skip


def _outcome(step: Step, record: StepRecord) -> StepOutcome:
    return StepOutcome(
        step.kind, step.target, step.text, step.commands, step.undo, step.frees_bytes, step.interrupts,
        record.state, _said(record.output),
    )  # fmt: skip


def _measure(measure: Measure | None) -> MeasureData | None:
    return MeasureData(measure.used_percent, measure.available_bytes) if measure else None


def _pairs(plan: Plan) -> Iterator[tuple[Step, StepRecord]]:
    return zip(plan.draft.steps, plan.steps, strict=True)


def plan_card(plan: Plan, now: datetime) -> Reply:
    """The living message of a plan as it stands at `now`."""
    plan = _as_of(plan, now)
    blocks, buttons = _BODIES[plan.state](plan)
    text = headline(plan)
    error = Failure(plan.state, text) if plan.state in BAD else None
    return Reply(
        (Title(text, _tone(plan.state)), *blocks),
        buttons,
        hosts=(HostAnswer(plan.draft.host, plan_data(plan, now), error),),
        key=f"plan:{plan.id}",
    )


def _as_of(plan: Plan, now: datetime) -> Plan:
    """Its row is turned to expired by the next sweep; until then no card offers what can no longer be approved."""
    return replace(plan, state="expired") if plan.state == "proposed" and plan.expires_at <= now else plan


def _tone(state: State) -> Tone:
    match state:
        case "verified" | "undone":
            return "good"
        case "failed":
            return "critical"
        case "rolled-back" | "interrupted":
            return "warning"
        case _:
            return "plain"


def headline(plan: Plan) -> Text:
    """The plan in one sentence: host first, then how it stands."""
    match plan.state:
        case "proposed":
            return _offer(plan)
        case "verified":
            return _proof(plan)
        case "failed":
            return _failure(plan)
        case "approved" | "running":
            return _progress(plan)
        case _:
            return _ended(plan)


def _progress(plan: Plan) -> Text:
    host, code = Mono(plan.draft.host), Mono(plan.code)
    if plan.state == "approved":
        return T("{host}: plan {code} is approved and starts", host=host, code=code)
    done = sum(record.state == "done" for record in plan.steps)
    return T("{host}: plan {code} runs, {done} of {all} steps done", host=host, code=code, done=done, all=len(plan.steps))


def _offer(plan: Plan) -> Text:
    host, n = Mono(plan.draft.host), len(plan.draft.steps)
    if plan.draft.frees_bytes:
        frees = Size(plan.draft.frees_bytes)
        return N("{host}: {n} step frees about {size}", "{host}: {n} steps free about {size}", n, host=host, size=frees)
    return N("{host}: a plan of {n} step", "{host}: a plan of {n} steps", n, host=host)


def _proof(plan: Plan) -> Text:
    host = Mono(plan.draft.host)
    if plan.before is None or plan.after is None:
        return T("{host}: plan {code} is done and checked", host=host, code=Mono(plan.code))
    before, after = Percent(plan.before.used_percent), Percent(plan.after.used_percent)
    return T("{host}: done and checked, {before} → {after} used", host=host, before=before, after=after)


def _failure(plan: Plan) -> Text:
    host, code = Mono(plan.draft.host), Mono(plan.code)
    failed = next((n for n, record in enumerate(plan.steps, 1) if record.state == "failed"), None)
    if failed is None:
        return T("{host}: plan {code} failed", host=host, code=code)
    return T("{host}: plan {code} failed at step {number}", host=host, code=code, number=failed)


def _ended(plan: Plan) -> Text:
    return replace(_ENDS[plan.state], values=(("host", Mono(plan.draft.host)), ("code", Mono(plan.code))))


_ENDS: Mapping[State, Text] = {
    "rolled-back": T("{host}: plan {code} did not help and was taken back"),
    "interrupted": T("{host}: plan {code} was interrupted"),
    "expired": T("{host}: plan {code} expired"),
    "declined": T("{host}: plan {code} was declined"),
    "superseded": T("{host}: a newer plan took the place of {code}"),
    "undone": T("{host}: plan {code} was undone"),
}


Body = tuple[tuple[Block, ...], tuple[tuple[Button, ...], ...]]


def _proposed(plan: Plan) -> Body:
    blocks: list[Block] = [Line(plan.draft.reason)]
    for number, step in enumerate(plan.draft.steps, 1):
        blocks += [Line(T("{number}. {step}", number=number, step=step.text)), *_price(step)]
    if plan.draft.findings:
        blocks.append(Fold(T("Why"), tuple(Line(text) for text in plan.draft.findings)))
    by, expires = plan.proposed_by, When(plan.expires_at)
    blocks.append(Line(T("Plan {code}, asked for by {who}, good until {at}", code=Mono(plan.code), who=by, at=expires)))
    return tuple(blocks), decision_buttons(plan)


def _price(step: Step) -> Iterator[Line]:
    """What the step frees, what it interrupts, how it is undone or that it cannot be."""
    if step.frees_bytes:
        yield Line(T("↳ frees about {size}", size=Size(step.frees_bytes)))
    if step.interrupts is not None:
        yield Line(T("↳ interrupts: {what}", what=step.interrupts))
    if step.cannot_undo is not None:
        yield Line(T("↳ cannot be undone: {why}", why=step.cannot_undo))
    elif step.undo_text is not None:
        yield Line(T("↳ undo: {how}", how=step.undo_text))
    elif step.undo:
        yield Line(T("↳ can be undone"))
    else:
        yield Line(T("↳ cannot be undone"))


def decision_buttons(plan: Plan) -> tuple[tuple[Button, ...], ...]:
    """Approve, Decline, Details."""
    n, host = len(plan.draft.steps), Mono(plan.draft.host)
    sure = N("Do this {n} step on {host} now?", "Do these {n} steps on {host} now?", n, host=host)
    return (
        (Button(T("Approve"), f"/approve {plan.id}", "good", sure), Button(T("Decline"), f"/decline {plan.id}", "danger")),
        (details_button(plan),),
    )


def details_button(plan: Plan) -> Button:
    """The exact commands."""
    return Button(T("Details"), f"/details {plan.id}")


def again_button(plan: Plan) -> Button:
    """The command that draws this plan anew."""
    host, steps = plan.draft.host, plan.draft.steps
    if plan.draft.undoes:
        command = f"/undo {plan.draft.undoes}"
    elif len(steps) == 1 and steps[0].kind == "restart-unit":
        command = f"/restart {host} {shlex.quote(steps[0].target)}"
    else:
        command = f"/fix {host}"
    return Button(T("Plan again"), command)


def undo_button(plan: Plan) -> Button:
    """Proposes what takes the plan back."""
    return Button(T("Undo"), f"/undo {plan.id}", "danger")


def _marked(plan: Plan, mark: Callable[[StepRecord], str]) -> tuple[Line, ...]:
    return tuple(
        Line(T("{mark} {number}. {step}", mark=mark(record), number=number, step=step.text))
        for number, (step, record) in enumerate(_pairs(plan), 1)
    )


def _by_state(record: StepRecord) -> str:
    return MARKS[record.state]


def _by_look(record: StepRecord) -> str:
    """What a look at the host said after an interruption, else what was written down."""
    match record.holds:
        case True:
            return MARKS["done"]
        case False:
            return MARKS[record.state] if record.state in {"waiting", "skipped", "undone"} else MARKS["failed"]
        case None:
            return MARKS[record.state]


def _decision(plan: Plan) -> Iterator[Line]:
    if plan.decided_by and plan.decided_at is not None:
        who, at, code = plan.decided_by, When(plan.decided_at), Mono(plan.code)
        yield Line(T("Plan {code}, approved by {who}, {at}", code=code, who=who, at=at))


def _undoable(plan: Plan) -> bool:
    """Whether any step that holds can be taken back."""
    return plan.draft.undoes is None and any(step.undo and record.stands for step, record in _pairs(plan))


def _running(plan: Plan) -> Body:
    return (*_marked(plan, _by_state), *_decision(plan)), ((details_button(plan),),)


def _verified(plan: Plan) -> Body:
    blocks = (*_marked(plan, _by_state), *_measures(plan), *_decision(plan))
    undo = (undo_button(plan),) if _undoable(plan) else ()
    return blocks, ((*undo, Button(T("Memory"), f"/mem {plan.draft.host}")),)


def _measures(plan: Plan) -> Iterator[Line]:
    """Before and after, in numbers."""
    if plan.before is not None:
        used, free = Percent(plan.before.used_percent, 1), Size(plan.before.available_bytes)
        yield Line(T("Before: {percent} used, {free} free", percent=used, free=free))
    if plan.after is not None:
        used, free = Percent(plan.after.used_percent, 1), Size(plan.after.available_bytes)
        yield Line(T("After: {percent} used, {free} free", percent=used, free=free))


def _failed(plan: Plan) -> Body:
    blocks = (*_marked(plan, _by_look), *_outputs(plan), *_measures(plan), *_decision(plan))
    undo = (undo_button(plan),) if _undoable(plan) else ()
    return blocks, ((*undo, again_button(plan)), (details_button(plan),))


def _outputs(plan: Plan) -> Iterator[Block]:
    """The end of what the failed steps and the last check printed."""
    said = [record.output for record in plan.steps if record.state == "failed"] + [plan.output]
    lines = [line for text in said for line in _said(text).splitlines() if line.strip()]
    if lines:
        yield Code(tuple(lines[-LAST_LINES:]), fold=True)


def _said(output: str) -> str:
    """What a command printed, fit to be shown: it comes from the host."""
    return "\n".join(redact(line) for line in output.splitlines())


def _interrupted(plan: Plan) -> Body:
    looked = all(record.holds is not None for record in plan.steps if record.state != "waiting")
    note = (
        T("The link or memwarden ended in the middle. I looked at the host: ✓ holds, ✗ does not, · was not begun.")
        if looked
        else T("The link or memwarden ended in the middle, and the host could not be looked at yet (?).")
    )
    return (Line(note), *_failed(plan)[0]), _failed(plan)[1]


def _expired(plan: Plan) -> Body:
    line = Line(T("Nobody approved it before {at}. Nothing was done.", at=When(plan.expires_at)))
    return (line,), ((again_button(plan),),)


def _declined(plan: Plan) -> Body:
    at = When(plan.decided_at or plan.proposed_at)
    line = Line(T("{who} declined it, {at}. Nothing was done.", who=plan.decided_by, at=at))
    return (line,), ((again_button(plan),),)


def _superseded(plan: Plan) -> Body:
    return (Line(T("Nothing of it was done.")),), ((Button(T("Plans"), f"/plans {plan.draft.host}"),),)


def _rolled_back(plan: Plan) -> Body:
    return _failed(plan)[0], ((again_button(plan), details_button(plan)),)


def _undone(plan: Plan) -> Body:
    lines: list[Block] = [
        Line(T("{mark} {number}. {step}", mark="↶" if step.undo else "·", number=number, step=step.text))
        for number, step in enumerate(plan.draft.steps, 1)
    ]
    lost = [step.cannot_undo for step, record in _pairs(plan) if step.cannot_undo is not None and record.state == "done"]
    lines += [Line(T("↳ cannot be undone: {why}", why=why)) for why in lost]
    return (*lines, *_decision(plan)), ((Button(T("Memory"), f"/mem {plan.draft.host}"),),)


_BODIES: Mapping[State, Callable[[Plan], Body]] = {
    "proposed": _proposed, "approved": _running, "running": _running, "verified": _verified, "rolled-back": _rolled_back,
    "failed": _failed, "expired": _expired, "declined": _declined, "superseded": _superseded, "interrupted": _interrupted,
    "undone": _undone,
}  # fmt: skip


def details_card(plan: Plan, now: datetime) -> Reply:
    """Every step with its exact commands and the commands that undo it."""
    plan = _as_of(plan, now)
    blocks: list[Block] = [Title(T("{host}: plan {code} in detail", host=Mono(plan.draft.host), code=Mono(plan.code)))]
    for number, (step, record) in enumerate(_pairs(plan), 1):
        blocks.append(Line(T("{number}. {step}", number=number, step=step.text)))
        blocks.append(Code(_lines(step.commands)))
        blocks += _undo_lines(step)
        if record.output.strip():
            blocks.append(Fold(T("What step {number} printed", number=number), (Code(tuple(_said(record.output).splitlines())),)))
    blocks.append(Line(T("State: {state}. Digest: {digest}", state=state_word(plan.state), digest=Mono(plan.digest[:16]))))
    buttons = decision_buttons(plan)[:1] if plan.state == "proposed" else ()
    return Reply(tuple(blocks), buttons, hosts=(HostAnswer(plan.draft.host, plan_data(plan, now)),))


def _undo_lines(step: Step) -> Iterator[Block]:
    if step.undo:
        yield Line(T("Undo:"))
        yield Code(_lines(step.undo), fold=True)
    elif step.cannot_undo is not None:
        yield Line(T("↳ cannot be undone: {why}", why=step.cannot_undo))
    else:
        yield Line(T("↳ cannot be undone"))


def _lines(commands: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for command in commands for line in command.splitlines())


def state_word(state: State) -> Text:
    """The state as people say it."""
    return _STATES[state]


_STATES: Mapping[State, Text] = {
    "proposed": T("waits for approval"), "approved": T("approved"), "running": T("running"), "verified": T("done and checked"),
    "rolled-back": T("taken back, it did not help"), "failed": T("failed"), "expired": T("expired"),
    "declined": T("declined"), "superseded": T("replaced by a newer plan"), "interrupted": T("interrupted"),
    "undone": T("undone"),
}  # fmt: skip
