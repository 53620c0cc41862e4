"""/kills: what was killed, a line each."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.cards.inquest import DAY, inquire, length
from handlers.cards.kill import KillData, kill_data
from handlers.cards.timetable import timetable
from handlers.command import Command
from handlers.every import Part, every
from handlers.ports.clock import Clock
from handlers.ports.history import History
from handlers.ports.hosts import Hosts
from handlers.reply import Button, Reply, Title
from handlers.request import Request
from handlers.words import names, split_window
from remote.text import Mono, N, T


@dataclass(frozen=True, slots=True)
class KillsData:
    """The JSON of /kills: one entry a killed process or cgroup, newest first, never merged."""

    kills: tuple[KillData, ...]


async def run(request: Request, *, hosts: Hosts, clock: Clock, history: History) -> Reply:
    """List the kills of the last 24 h, or of the time that was named."""
    words, asked = split_window(request.words, names(request, hosts))
    window = asked or DAY

    async def look(host: str) -> Part:
        found = await inquire(hosts, history, host, clock.now(), window)
        data = KillsData(tuple(map(kill_data, found.kills)))
        if not found.kills:
            return Part(data, tuple(found.nothing()), ((Button(T("Memory"), f"/mem {host}"),),))
        title = N(
            "{host}: {n} kill in the last {time}",
            "{host}: {n} kills in the last {time}",
            len(found.kills), host=Mono(host), time=length(window),
        )  # fmt: skip
        blocks = (Title(title), *timetable(found.kills, clock.now()), *found.gaps())
        return Part(data, blocks, ((Button(T("Top"), f"/top {host}"), Button(T("Why"), f"/why {host}")),))

    return await every(hosts.choose(request, words), look)


COMMAND = Command(
    "kills", T("What was killed lately, a line each"), "/kills [HOST…] [24h]", run, ("/kills prod", "/kills prod 7d")
)
