"""A memory incident through its life: one message from the first sign to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from handlers.cards.host import Use, look_buttons, swap_sentence, uses_table
from handlers.reply import Block, Line, Meter, Reply, Title
from remote.facts.memory import Memory
from remote.text import Mono, Percent, Size, Span, T, Text, When

BIGGEST = 3


@dataclass(frozen=True, slots=True)
class MemoryIncident:
    """What the card needs to know. `memory` is the newest sample; `closed_at` is set once it recovered; `uses` the biggest users
    (cards/host.py `uses`) where they are known; `advice` are findings' sentences."""

    level: Literal["warning", "critical"]
    opened_at: datetime
    closed_at: datetime | None
    worst_percent: float
    memory: Memory
    uses: tuple[Use, ...] = ()
    advice: tuple[Text, ...] = ()


def memory_card(host: str, incident: MemoryIncident, now: datetime) -> Reply:
    """The incident as it stands at `now`. It makes a sound while it is not over."""
    over = incident.closed_at is not None
    blocks: list[Block] = [
        Title(_title(host, incident), "good" if over else incident.level),
        Meter(incident.memory.used_percent),
        Line(swap_sentence(incident.memory)),
        *_course(incident, now),
    ]
    if not over:
        blocks += [uses_table(incident.uses[:BIGGEST], incident.memory.total_bytes)] if incident.uses else []
        blocks += [Line(text) for text in incident.advice]
    return Reply(tuple(blocks), look_buttons(host), loud=not over)


def _title(host: str, incident: MemoryIncident) -> Text:
    name, memory = Mono(host), incident.memory
    used, free = Percent(memory.used_percent), Size(memory.available_bytes)
    if incident.closed_at is not None:
        return T("{host}: memory is fine again, {percent} used, {free} free", host=name, percent=used, free=free)
    if incident.level == "critical":
        return T("{host}: memory is critical, {percent} used, {free} free", host=name, percent=used, free=free)
    return T("{host}: memory is high, {percent} used, {free} free", host=name, percent=used, free=free)


def _course(incident: MemoryIncident, now: datetime) -> Iterator[Line]:
    opened, worst = incident.opened_at, Percent(incident.worst_percent, 1)
    if incident.closed_at is not None:
        lasted = Span((incident.closed_at - opened).total_seconds())
        until = When(incident.closed_at)
        yield Line(T("It lasted {time}, from {since} to {until}", time=lasted, since=When(opened), until=until))
    else:
        yield Line(T("Since {at} ({time})", at=When(opened), time=Span((now - opened).total_seconds())))
    yield Line(T("Worst: {percent}", percent=worst))
