"""/fix: look afresh and propose a plan that somebody can approve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from handlers.cards.failure import needed, needed_units
from handlers.cards.host import NO_SCHEDULES, by_severity, duplicate_finding, memory_sentence
from handlers.cards.plan import StepData, plan_card, step_data
from handlers.cards.twins import group_lines, keep_buttons
from handlers.command import Command, Refused, Usage
from handlers.every import alone
from handlers.ports.clock import Clock
from handlers.ports.hosts import Hosts
from handlers.ports.plans import Plan, Plans
from handlers.reply import Block, Button, HostAnswer, Line, Reply, Title
from handlers.request import Request
from handlers.words import SHOWN, one_host
from remote.facts.base import Answers
from remote.facts.host import MACHINE
from remote.facts.memory import MEMORY
from remote.facts.processes import PROCESSES
from remote.facts.schedules import SCHEDULES
from remote.facts.units import UNITS, full_name
from remote.findings import duplicates, pressure, schedules, sizing
from remote.findings.base import Finding
from remote.findings.duplicates import Duplicates
from remote.policy import Policy
from remote.remedies import plan as planning
from remote.remedies.base import CannotDraft, Draft
from remote.remedies.plan import Seen
from remote.text import Mono, N, T, Text

KEEP = "keep"


@dataclass(frozen=True, slots=True)
class PlanOffer:
    """The plan in the JSON of /fix."""

    id: str
    code: str
    digest: str
    expires_at: datetime
    steps: tuple[StepData, ...]
    frees_bytes: int
    findings: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class FixData:
    """The JSON of /fix: null when there is nothing to fix, or nothing that can be planned."""

    plan: PlanOffer | None


@dataclass(frozen=True, slots=True)
class Sight:
    """What was read for the plan, and what was found in it."""

    seen: Seen
    groups: tuple[Duplicates, ...]
    findings: tuple[Finding, ...]


async def run(request: Request, *, hosts: Hosts, plans: Plans, clock: Clock) -> Reply:
    """Read the host afresh and propose what would mend it."""
    words, kept = _kept(request.words)
    host = one_host(request, hosts, words)
    policy = replace(hosts.policy(host), chosen=kept)

    async def look() -> Reply:
        answers = await hosts.ask(host, MEMORY, PROCESSES, UNITS, MACHINE, SCHEDULES)
        sight = judge(host, answers, policy, hosts.key())
        _check_kept(policy, sight.seen)
        if any(group.tie for group in sight.groups):
            return _ask_which(host, sight.groups, kept)
        draft = _draft(host, sight, policy, hosts.host_key(host))
        if draft is None:
            return _nothing(host, sight)
        plan = await plans.propose(request, draft)
        return replace(plan_card(plan, clock.now()), hosts=(HostAnswer(host, FixData(offer(plan))),))

    return await alone(host, look)


def _draft(host: str, sight: Sight, policy: Policy, host_key: str) -> Draft | None:
    """The plan with all that was found; None when there is nothing to fix. Raises Refused when no plan is safe."""
    try:
        draft = planning.fix(host, sight.seen, policy, host_key)
    except CannotDraft as why:
        raise Refused("no-safe-plan", why.text) from why
    if draft is None:
        return None
    more = tuple(one.text for one in sight.findings if one.kind != "duplicates" and one.text not in draft.findings)
    return replace(draft, findings=(*draft.findings, *more))


def offer(plan: Plan) -> PlanOffer:
    """The plan, for scripts."""
    draft = plan.draft
    steps = tuple(step_data(step) for step in draft.steps)
    return PlanOffer(plan.id, plan.code, plan.digest, plan.expires_at, steps, draft.frees_bytes, draft.findings)


def judge(host: str, answers: Answers, policy: Policy, key: bytes) -> Sight:
    """Everything a plan is drawn from. Raises HostError when one of the facts it needs could not be read."""
    memory, processes = needed(host, answers, MEMORY), needed(host, answers, PROCESSES)
    units, machine = needed_units(host, answers), needed(host, answers, MACHINE)
    groups, _ = duplicates.find(processes, units, policy)
    found = [
        *pressure.pressure(memory, policy),
        *map(duplicate_finding, groups),
        *sizing.sizing(memory, units, processes, policy),
        *schedules.restarters(answers.readable(SCHEDULES) or NO_SCHEDULES, units),
    ]
    return Sight(Seen(memory, processes, units, machine, key), tuple(groups), by_severity(found))


def _kept(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`HOST keep UNIT…`: the words of the host, and the twins to keep."""
    if KEEP not in words:
        return words, ()
    at = words.index(KEEP)
    if not words[at + 1 :]:
        raise Usage(T("Keep which unit?"))
    return words[:at], tuple(map(full_name, words[at + 1 :]))


def _check_kept(policy: Policy, seen: Seen) -> None:
    """Whoever names a twin to keep gets no plan that stops it, nor one that stops what the settings keep."""
    groups, _ = duplicates.find(seen.processes, seen.units, replace(policy, chosen=()))
    twins = [(member.unit, group.keep.unit) for group in groups for member in (group.keep, *group.extra) if member.unit]
    for name in policy.chosen:
        found = [(unit, stays) for unit, stays in twins if unit.is_called({name})]
        if not found:
            raise Refused("not-found", T("{unit} has no twin that could go.", unit=Mono(name[:SHOWN])))
        for unit, stays in found:
            if stays and stays.id != unit.id and stays.is_called(policy.keep):
                text = T("{unit} cannot be the one to keep: the settings keep {other}.", unit=Mono(unit.id), other=Mono(stays.id))
                raise Refused("conflict", text)


def _ask_which(host: str, groups: Sequence[Duplicates], kept: Sequence[str]) -> Reply:
    """A true tie: a person says which twin stays."""
    ties = [group for group in groups if group.tie]
    title = Title(T("{host}: which one should stay?", host=Mono(host)), "warning")
    lines = tuple(line for group in ties for line in group_lines(group))
    return Reply((title, *lines), keep_buttons(host, ties[0], kept), hosts=(HostAnswer(host, FixData(None)),))


def _nothing(host: str, sight: Sight) -> Reply:
    """Nothing to fix, said in so many words, with what was looked at."""
    blocks = (Title(T("{host}: nothing to fix", host=Mono(host)), "good"), *_looked(host, sight))
    buttons = ((Button(T("Memory"), f"/mem {host}"), Button(T("Top"), f"/top {host}")),)
    return Reply(blocks, buttons, hosts=(HostAnswer(host, FixData(None)),))


def _looked(host: str, sight: Sight) -> Iterator[Block]:
    units, processes = len(sight.seen.units.all), len(sight.seen.processes.all)
    work = N("I looked at {n} process for work done twice.", "I looked at {n} processes for work done twice.", processes)
    yield Line(work)
    yield Line(N("I looked at {n} unit: no extra one.", "I looked at {n} units: no extra one.", units))
    yield Line(memory_sentence(host, sight.seen.memory))
    if sight.findings:
        yield Line(T("What I see and have no remedy for yet:"))
    yield from (Line(finding.text) for finding in sight.findings)


COMMAND = Command(
    "fix",
    T("Look afresh and propose a plan to approve"),
    "/fix [HOST] [keep UNIT…]",
    run,
    ("/fix prod", "/fix prod keep celery.service"),
)
