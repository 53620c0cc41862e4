"""/why: what was killed, by whom, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from handlers.cards.inquest import DAY, EVER, WEEK, Inquest, inquire, length
from handlers.cards.kill import KillData, Past, kill_card, kill_data, past_of
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.clock import Clock
from handlers.ports.history import History
from handlers.ports.hosts import Hosts
from handlers.reply import Block, Button, Line, Reply, Title
from handlers.request import Request
from handlers.words import names, split_number
from remote.errors import HostError
from remote.findings.kill import Kill
from remote.text import Mono, N, T

Buttons = tuple[tuple[Button, ...], ...]


@dataclass(frozen=True, slots=True)
class WhyData:
    """The JSON of /why: one entry a killed process or cgroup, newest first."""

    kills: tuple[KillData, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    """What looks at a host needs."""

    hosts: Hosts
    clock: Clock
    history: History

    async def day(self, host: str) -> Part:
        """All that was killed in the last 24 h."""
        found = await inquire(self.hosts, self.history, host, self.clock.now(), DAY)
        return await self.part(found, found.kills) if found.kills else _nothing(found)

    async def week(self, host: str, pid: int) -> Part | None:
        """The kill of this pid in the last week; None where the host knows none."""
        found = await inquire(self.hosts, self.history, host, self.clock.now(), WEEK)
        kills = found.of(pid)
        return await self.part(found, kills) if kills else None

    async def ever(self, host: str, pid: int) -> Part:
        """The kill of this pid: in the last week, else as far back as the journal goes."""
        found = await inquire(self.hosts, self.history, host, self.clock.now(), WEEK)
        more: tuple[Block, ...] = ()
        if not found.of(pid):
            try:
                found = await inquire(self.hosts, self.history, host, self.clock.now(), EVER)
            except HostError as error:
                more = (Line(T("I could not look further back: {why}", why=error.text)),)
        kills = found.of(pid)
        return await self.part(found, kills) if kills else _nothing(found, pid, more)

    async def part(self, found: Inquest, kills: tuple[Kill, ...]) -> Part:
        """The card of these kills (at least one)."""
        past = await self._past(found, kills[0])
        card = kill_card(found.host, kills, self.clock.now(), past=past, machine_bytes=found.machine_bytes)
        blocks = (*card.blocks, *found.gaps())
        return Part(WhyData(tuple(map(kill_data, kills))), blocks, _elsewhere(card.buttons))

    async def _past(self, found: Inquest, last: Kill) -> Past | None:
        """How often it happened: by the bot's memory or by this journal, whichever reaches further back."""
        if last.staged or last.counted:
            return None
        told = await self.history.past(found.host, last.unit, last.name, last.at)
        read = past_of(found.kills, last)
        return read if read.week > told.week else told


async def run(request: Request, *, hosts: Hosts, clock: Clock, history: History) -> Reply:
    """The kills of the last 24 h; with a pid only that process's, from further back, and on whichever host knows it."""
    visible = hosts.visible(request)
    words, pid = split_number(request.words, names(request, hosts))
    look = _Look(hosts, clock, history)
    if pid is None:
        return await every(hosts.choose(request, words), look.day)
    if not words and len(visible) > 1:
        return await _anywhere(visible, pid, look)
    wanted = pid
    return await every(hosts.choose(request, words), lambda host: look.ever(host, wanted))


async def _anywhere(visible: Sequence[str], pid: int, look: _Look) -> Reply:
    """A pid without a host: ask all of them, and show those that know it."""
    buttons: list[Buttons] = []

    async def one(host: str) -> Part:
        part = await look.week(host, pid)
        if part is None:
            return Part(WhyData(()), ())
        buttons.append(part.buttons)
        return part

    reply = await every(visible, one)
    if buttons:
        return replace(reply, buttons=buttons[0] if len(buttons) == 1 else ())
    none = N(
        "The host knows no kill of pid {pid} in the last {time}",
        "None of {n} hosts knows a kill of pid {pid} in the last {time}",
        len(visible), pid=Mono(str(pid)), time=length(WEEK),
    )  # fmt: skip
    further = T("{command} looks further back.", command=Mono(f"/why HOST {pid}"))
    return replace(reply, blocks=(Title(none), Line(further), *reply.blocks))


def _nothing(found: Inquest, pid: int | None = None, more: tuple[Block, ...] = ()) -> Part:
    return Part(WhyData(()), (*found.nothing(pid), *more), ((Button(T("Memory"), f"/mem {found.host}"),),))


def _elsewhere(buttons: Buttons) -> Buttons:
    """The card's buttons but for the one that leads here."""
    rows = (tuple(button for button in row if not button.command.startswith("/why ")) for row in buttons)
    return tuple(row for row in rows if row)


COMMAND = Command("why", T("What was killed, by whom and why"), "/why [HOST…] [PID]", run, ("/why prod", "/why prod 689792"))
