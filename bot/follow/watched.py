"""What the two streams of one host have in common."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bot.follow.ledger import Ledger
from bot.follow.voices import Voices
from remote.errors import HostError
from remote.facts.base import Unreadable
from remote.facts.witness import witness
from remote.findings.death import Autopsy

if TYPE_CHECKING:
    from bot.alerts.kills import KillRule
    from bot.parts import App
    from remote.connect.base import Host
    from remote.facts.base import Answers, Fact
    from remote.findings.kill import Kill

ASK_S = 10.0
LATE = timedelta(seconds=30)  # what happened so long before we listened was missed


@dataclass(frozen=True, slots=True)
class Since:
    """When a stream was opened: by our clock, and by the host's own (its boot, and the seconds since), where it said so."""

    at: datetime
    boot_id: str = ""
    uptime_s: float = 0.0

    def missed(self, kill: Kill) -> bool:
        """Whether this happened while nobody listened. Clocks of bot and host may differ: only what both call old is."""
        if self.at - kill.at <= LATE:
            return False
        same_boot = bool(self.boot_id) and kill.boot_id == self.boot_id
        return not same_boot or self.uptime_s - kill.monotonic_us / 1e6 > LATE.total_seconds()


class Watched:
    """A host whose journal is followed: what was heard of it, what is owed, and whom to ask."""

    def __init__(self, name: str, app: App, rule: KillRule) -> None:
        """`rule` keeps what is found."""
        self.name = name
        self.clock = app.clock
        self.rule = rule
        self.autopsy = Autopsy()
        self.ledger = Ledger(name, rule)
        self.voices = Voices(name)
        self._app = app

    @property
    def host(self) -> Host:
        """The host, to ask."""
        return self._app.fleet.host(self.name)

    async def ask(self, *facts: Fact[Any], within_s: float = ASK_S) -> Answers:
        """One question. Raises HostError, also when it takes too long."""
        return await self._app.fleet.ask_within(within_s, self.name, *facts)

    async def since(self) -> Since:
        """Now, by our clock and by the host's."""
        at, question = self.clock.now(), witness((), ())
        try:
            seen = (await self.ask(question)).readable(question)
        except HostError:
            return Since(at)
        if seen is None:
            return Since(at)
        self.autopsy.begin(seen)
        return Since(at, seen.boot_id, seen.uptime_s)

    async def ask_for_claims(self) -> tuple[Kill, ...]:
        """Ask the host about what programs claimed; gives the kills that it bears out. Raises HostError."""
        claims = self.autopsy.claims
        if not claims:
            return ()
        units = sorted({claim.unit for claim in claims})
        question = witness(units, sorted({claim.pid for claim in claims if claim.pid is not None}))
        seen = (await self.ask(question))[question]
        if isinstance(seen, Unreadable):
            raise HostError("unreadable", seen.why)
        return self.autopsy.witness(seen, self.clock.now())
