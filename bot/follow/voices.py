"""Whose lines are listened to: the main processes of services that log the end of their children, but none that floods."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from remote.facts.units import Units
from remote.services import speakers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote.facts.journal import Entry, Speaker
    from remote.facts.processes import Processes

log = structlog.get_logger(__name__)

MUTE_S = 600.0
SETTLED_S = 1.0  # a unit that starts has its main process at once; several start together
# A restart may be asked about three times (it stops, starts, has started), and a deploy may need a second one. A unit that
# changes on and on is in a crash loop: its main processes hardly live long enough to be heard, and each question costs the host
# a look at all it runs. Nothing is lost by a pause: the stream goes on from its cursor.
RESTARTS = 6
HELD_BACK_S = (4.0, 16.0, 30.0)
CALM_S = 120.0  # longer than the longest pause, else that itself would look like calm
REFRESH_S = 600.0  # a master may be replaced without a word of systemd's (gunicorn's USR2)


class Patience:
    """How long each unit's changes wait: a moment, but longer and longer for one that changes again and again without a calm."""

    def __init__(self) -> None:
        """Nobody has changed yet."""
        self._asked: dict[str, tuple[int, float]] = {}
        self._waiting: dict[str, int] = {}

    def pause_s(self, unit: str, now_s: float) -> float:
        """This unit changed: how long to wait before the host is asked because of it."""
        number, asked_s = self._asked.get(unit, (0, now_s))
        times = self._waiting.setdefault(unit, number if now_s - asked_s < CALM_S else 0)
        return SETTLED_S if times < RESTARTS else HELD_BACK_S[min(times - RESTARTS, len(HELD_BACK_S) - 1)]

    def asked(self, now_s: float) -> None:
        """The host is asked because of all that changed; who has been calm is forgotten."""
        lately = {unit: (number, at_s) for unit, (number, at_s) in self._asked.items() if now_s - at_s < CALM_S}
        self._asked = lately | {unit: (times + 1, now_s) for unit, times in self._waiting.items()}
        self._waiting.clear()


class Voices:
    """One host's speakers."""

    def __init__(self, host: str) -> None:
        """Nobody is known yet."""
        self.speakers: tuple[Speaker, ...] = ()
        self._host = host
        self._known: set[str] = set()
        self._speaking: set[str] = set()
        self._patience = Patience()
        self._stale_s = float("inf")  # when the host is to be asked again, by the loop's clock
        self._hurry = asyncio.Event()
        self._hushed: dict[str, float] = {}
        self._muted: dict[str, float] = {}

    def learn(self, units: Units, processes: Processes | None) -> bool:
        """Who the main processes are now; whether that changes whom to listen to."""
        self._known = {unit.id for unit in units.all}
        found = tuple(self._heard_less(speakers(units, processes)))
        changed, self.speakers = set(found) != set(self.speakers), found
        self._speaking = {speaker.unit for speaker in found} | _would_speak(units)
        return changed

    def heard(self, entry: Entry) -> None:
        """A service starts or ends, says systemd: who speaks for it may be another process now."""
        if not entry.from_systemd or not entry.unit.endswith(".service"):
            return
        known = entry.unit in self._known
        if not known or entry.unit in self._speaking:
            self._known.add(entry.unit)
            unit = entry.unit if known else _kind(entry.unit)
            self._stale_in(self._patience.pause_s(unit, asyncio.get_running_loop().time()))

    def mute(self, unit: str) -> None:
        """Hear less of a unit that floods, for a while: its main process alone, and if it is that one, nothing."""
        less = any(speaker.unit == unit and speaker.children for speaker in self.speakers)
        log.warning("a service says too much", host=self._host, unit=unit, heard="its main process" if less else "nothing")
        (self._hushed if less else self._muted)[unit] = asyncio.get_running_loop().time() + MUTE_S
        self._stale_in(SETTLED_S)

    async def until_stale(self) -> None:
        """Wait until somebody else may have to be listened to."""
        loop = asyncio.get_running_loop()
        unmuted_s = min((*self._muted.values(), *self._hushed.values()), default=float("inf"))
        self._stale_s = min(self._stale_s, max(loop.time() + SETTLED_S, min(loop.time() + REFRESH_S, unmuted_s)))
        while (left_s := self._stale_s - loop.time()) > 0:
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left_s)
        self._patience.asked(loop.time())
        self._stale_s = float("inf")

    def _stale_in(self, seconds: float) -> None:
        """Have the host asked then, if it would not be sooner."""
        self._stale_s = min(self._stale_s, asyncio.get_running_loop().time() + seconds)
        self._hurry.set()

    def _heard_less(self, found: tuple[Speaker, ...]) -> Iterator[Speaker]:
        now = asyncio.get_running_loop().time()
        for quiet in (self._hushed, self._muted):
            for unit in [unit for unit, until in quiet.items() if until <= now]:
                del quiet[unit]
        for speaker in found:
            if speaker.unit not in self._muted:
                yield replace(speaker, children=speaker.children and speaker.unit not in self._hushed)


def _kind(unit: str) -> str:
    """What a unit that nobody knew counts as: a service a connection, or a run of systemd-run, has a new name each time."""
    template, at, _ = unit.partition("@")
    return f"{template}@" if at else "run-" if unit.startswith("run-") else unit


def _would_speak(units: Units) -> set[str]:
    """The units without a main process, as in the pause before a restart, whose main process will be listened to: who is asked
    about in that pause must be heard when it has started."""
    idle = (replace(unit, main_pid=1) for unit in units.all if not unit.main_pid)
    return {speaker.unit for speaker in speakers(Units(tuple(idle)), None)}
