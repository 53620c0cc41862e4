"""Whose lines are listened to: the main processes of services that log the end of their children, but none that floods."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from remote.services import speakers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote.facts.journal import Entry, Speaker
    from remote.facts.processes import Processes
    from remote.facts.units import Units

log = structlog.get_logger(__name__)

MUTE_S = 600.0
SETTLED_S = 1.0  # a unit that starts has its main process at once; several start together
REFRESH_S = 600.0  # a master may be replaced without a word of systemd's (gunicorn's USR2)


class Voices:
    """One host's speakers."""

    def __init__(self, host: str) -> None:
        """Nobody is known yet."""
        self.speakers: tuple[Speaker, ...] = ()
        self._host = host
        self._known: set[str] = set()
        self._stale = asyncio.Event()
        self._hushed: dict[str, float] = {}
        self._muted: dict[str, float] = {}

    def learn(self, units: Units, processes: Processes | None) -> bool:
        """Who the main processes are now; whether that changes whom to listen to."""
        self._known = {unit.id for unit in units.all}
        found = tuple(self._heard_less(speakers(units, processes)))
        changed, self.speakers = set(found) != set(self.speakers), found
        return changed

    def heard(self, entry: Entry) -> None:
        """A service starts or ends, says systemd: who speaks for it may be another process now."""
        if not entry.from_systemd or not entry.unit.endswith(".service"):
            return
        if entry.unit in {speaker.unit for speaker in self.speakers} or entry.unit not in self._known:
            self._known.add(entry.unit)
            self._stale.set()

    def mute(self, unit: str) -> None:
        """Hear less of a unit that floods, for a while: its main process alone, and if it is that one, nothing."""
        less = any(speaker.unit == unit and speaker.children for speaker in self.speakers)
        log.warning("a service says too much", host=self._host, unit=unit, heard="its main process" if less else "nothing")
        (self._hushed if less else self._muted)[unit] = asyncio.get_running_loop().time() + MUTE_S
        self._stale.set()

    async def until_stale(self) -> None:
        """Wait until somebody else may have to be listened to."""
        quiet = (*self._muted.values(), *self._hushed.values())
        unmuted = min(quiet, default=float("inf")) - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stale.wait(), max(SETTLED_S, min(REFRESH_S, unmuted)))
            await asyncio.sleep(SETTLED_S)
        self._stale.clear()

    def _heard_less(self, found: tuple[Speaker, ...]) -> Iterator[Speaker]:
        now = asyncio.get_running_loop().time()
        for quiet in (self._hushed, self._muted):
            for unit in [unit for unit, until in quiet.items() if until <= now]:
                del quiet[unit]
        for speaker in found:
            if speaker.unit not in self._muted:
                yield replace(speaker, children=speaker.children and speaker.unit not in self._hushed)
