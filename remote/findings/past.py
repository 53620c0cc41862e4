"""What was killed in a host's past: one question and one judgement of its answers, for whoever asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from remote.facts.base import Answers, Fact
from remote.facts.journal import Journal, kills_since
from remote.facts.memory import MEMORY
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS
from remote.findings import death
from remote.findings.kill import Kill
from remote.services import tellings

BESIDE: Final[tuple[Fact[Any], ...]] = (MEMORY, UNITS, PROCESSES)
"""What `judged` wants besides the journal: how many the kernel counted, whose cgroup a path is, and who still lives."""
DAY = timedelta(days=1)
LONG_S = 120.0  # for going through more than a day of a journal


def past(now: datetime, window: timedelta) -> Fact[Journal]:
    """The question for all that may tell of a kill in the `window` before `now`. It is slow: it goes through the journal."""
    fact = kills_since(now - window, tellings(asides=False))
    return replace(fact, deadline_s=LONG_S) if window > DAY else fact


def judged(journal: Journal, answers: Answers) -> tuple[Kill, ...]:
    """The kills that the journal tells of, newest first. `answers` has the facts of `BESIDE`; any may be unreadable."""
    memory = answers.readable(MEMORY)
    return death.kills(
        journal.entries,
        units=answers.readable(UNITS),
        processes=answers.readable(PROCESSES),
        first_writers=journal.first_writers,
        counted=(memory.oom_kills if memory else None) or 0,
    )
