"""The commands' ports, in memory: plain and typed, nothing patched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from handlers.cards.kill import Past, newest_first
from handlers.command import Command, Refused, Usage
from handlers.ports.plans import Plan, StepRecord
from handlers.reply import Reply
from handlers.request import Person, Request, Role, Room
from remote.errors import HostError
from remote.facts.base import Answers, Fact, Unreadable
from remote.findings.kill import Kill
from remote.policy import Policy
from remote.remedies.base import Draft
from remote.remedies.plan import undo
from remote.text import Mono, T

NOW = datetime(2026, 11, 23, 14, 2, tzinfo=UTC)
TOO_LONG = Unreadable("timeout", T("{what} took too long", what="it"))


@dataclass
class TestClock:
    """A clock that stands until it is told to go on."""

    __test__ = False

    moment: datetime = NOW

    def now(self) -> datetime:
        """The moment."""
        return self.moment


@dataclass
class TestHosts:
    """Hosts whose facts are values by the fact's name; a HostError is raised instead of an answer."""

    __test__ = False

    worlds: Mapping[str, Mapping[str, Any] | HostError]
    policies: Mapping[str, Policy] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    since: list[datetime] = field(default_factory=list)
    """From when on each question about kills asks: the full hour before it."""
    answers_within: timedelta = timedelta.max
    """One that goes further back takes too long."""

    def choose(self, request: Request, words: tuple[str, ...]) -> tuple[str, ...]:
        """As bot/hosts.py, with the one group `all`."""
        visible = self.visible(request)
        if not words:
            if len(visible) == 1:
                return visible
            raise Refused("which-host", T("Which host?"))
        for word in words:
            if word != "all" and word not in visible:
                raise Usage(T("There is no host {word}.", word=Mono(word)))
        return visible if "all" in words else tuple(dict.fromkeys(words))

    def visible(self, request: Request) -> tuple[str, ...]:
        """What the room sees."""
        return request.room.hosts

    def groups(self, host: str) -> tuple[str, ...]:
        """Hosts called web… are in a group."""
        return ("web",) if host.startswith("web") else ()

    def address(self, host: str) -> str:
        """Somewhere."""
        return f"root@{host}.example:22"

    def policy(self, host: str) -> Policy:
        """The default unless the test says otherwise."""
        return self.policies.get(host, Policy())

    def host_key(self, host: str) -> str:
        """A fingerprint."""
        return f"SHA256:{host}"

    def key(self) -> bytes:
        """Of no store."""
        return b"k" * 32

    async def ask(self, host: str, *facts: Fact[Any]) -> Answers:
        """The world's values."""
        self.asked.append((host, tuple(fact.name for fact in facts)))
        world = self.worlds[host]
        if isinstance(world, HostError):
            raise world
        return Answers({fact: world[fact.name.removeprefix("own-")] if self._in_time(fact) else TOO_LONG for fact in facts})

    def _in_time(self, fact: Fact[Any]) -> bool:
        start = re.search(r"@(\d{9,})", fact.script)
        if fact.name != "kills" or start is None:
            return True
        self.since.append(datetime.fromtimestamp(int(start[1]), UTC))
        return NOW - self.since[-1] <= self.answers_within


@dataclass
class TestPlans:
    """Plans in a dict, with the transitions that commands can see."""

    __test__ = False

    clock: TestClock
    kept: dict[str, Plan] = field(default_factory=dict)

    async def propose(self, request: Request, draft: Draft) -> Plan:
        """Keep it."""
        number = len(self.kept) + 1
        plan = make_plan(draft, id=f"plan{number}", code=f"PLA{number}", proposed_by=request.person.id, at=self.clock.now())
        self.kept[plan.id] = plan
        return plan

    async def approve(self, request: Request, plan_id: str) -> Plan:
        """Once, by somebody who may."""
        return self._decide(request, plan_id, lambda plan: replace(plan, state="approved"))

    async def decline(self, request: Request, plan_id: str) -> Plan:
        """Once, by somebody who may."""
        return self._decide(request, plan_id, lambda plan: replace(plan, state="declined"))

    async def find(self, request: Request, plan_id: str) -> Plan:
        """By id or code."""
        for plan in self.kept.values():
            if plan_id in {plan.id, plan.code} and plan.draft.host in request.room.hosts:
                return plan
        raise Refused("not-found", T("There is no plan {plan} here.", plan=Mono(plan_id)))

    async def recent(self, request: Request, hosts: tuple[str, ...]) -> tuple[Plan, ...]:
        """Newest first."""
        return tuple(
            plan for plan in reversed(self.kept.values()) if plan.draft.host in hosts and plan.draft.host in request.room.hosts
        )

    async def undo_draft(self, request: Request, plan_id: str) -> Draft:
        """What takes back the steps that hold."""
        plan = await self.find(request, plan_id)
        draft = undo(plan.draft, [record.state == "done" for record in plan.steps], plan.id, plan.code, Policy())
        if draft is None:
            raise Refused("nothing-to-undo", T("Plan {plan} did nothing that can be undone.", plan=Mono(plan.code)))
        return draft

    def _decide(self, request: Request, plan_id: str, change: Callable[[Plan], Plan]) -> Plan:
        plan = self.kept.get(plan_id)
        if plan is None:
            raise Refused("not-found", T("There is no plan {plan} here.", plan=Mono(plan_id)))
        if not request.person.may("approver"):
            raise Refused("role", T("That needs the role approver or admin."))
        if plan.state != "proposed":
            raise Refused("decided", T("{who} approved plan {plan} at {at}; it is running.", who=plan.decided_by, plan="", at=""))
        self.kept[plan_id] = replace(change(plan), decided_by=request.person.id, decided_at=self.clock.now())
        return self.kept[plan_id]


@dataclass
class TestHistory:
    """What the bot remembers of kills, by unit (or name); asked for is kept."""

    __test__ = False

    weeks: Mapping[str, Past] = field(default_factory=dict)
    ours: Sequence[Kill] = ()
    asked: list[tuple[str, str | None, str, datetime]] = field(default_factory=list)

    async def past(self, host: str, unit: str | None, name: str, before: datetime) -> Past:
        """Of a unit that is not there: none."""
        self.asked.append((host, unit, name, before))
        return self.weeks.get(unit or name, Past())

    async def told(self, host: str, found: Sequence[Kill], since: datetime) -> tuple[Kill, ...]:  # noqa: ARG002 - as its port
        """What `ours` says of them, and what else it has."""
        ours = {kill.pid: kill for kill in self.ours if kill.at >= since}
        return newest_first((*(ours.pop(kill.pid, kill) for kill in found), *ours.values()))


@dataclass
class TestCommands:
    """The commands that were found."""

    __test__ = False

    found: Mapping[str, Command]

    def all(self) -> tuple[Command, ...]:
        """By name."""
        return tuple(self.found.values())

    def find(self, name: str) -> Command | None:
        """The one of this name."""
        return self.found.get(name)


def make_plan(
    draft: Draft, *, id: str = "k7qxabcdefgh", code: str = "K7QX", proposed_by: str = "owner", at: datetime = NOW
) -> Plan:
    """A proposed plan."""
    return Plan(
        id=id, code=code, digest=draft.digest, draft=draft, state="proposed",
        steps=tuple(StepRecord("waiting") for _ in draft.steps), proposed_by=proposed_by, proposed_at=at,
        expires_at=at + timedelta(minutes=15),
    )  # fmt: skip


def make_request(line: str, *, role: Role = "approver", hosts: tuple[str, ...] = ("prod",), pressed: bool = False) -> Request:
    """A typed line as a Request."""
    command, *words = line.removeprefix("/").split()
    person, room = Person("anna", "Anna", role), Room("ops", "console", hosts)
    return Request("event:1", person, room, command, tuple(words), NOW, "en", pressed=pressed)


@dataclass
class Desk:
    """Runs a command with the ports that it names."""

    hosts: TestHosts
    plans: TestPlans
    clock: TestClock
    commands: TestCommands
    history: TestHistory = field(default_factory=TestHistory)

    async def ask(self, request: Request) -> Reply:
        """The command's reply; Usage, Refused and HostError come through."""
        run = self.commands.found[request.command].run
        ports = {
            "hosts": self.hosts,
            "plans": self.plans,
            "clock": self.clock,
            "commands": self.commands,
            "history": self.history,
        }
        named = run.__kwdefaults__ or {}
        wanted = run.__code__.co_varnames[run.__code__.co_argcount :][: run.__code__.co_kwonlyargcount]
        assert not named
        return await run(request, **{name: ports[name] for name in wanted})
