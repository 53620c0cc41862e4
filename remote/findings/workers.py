"""Workers that come and go: what a program's words about new ones tell of old ones that went without a word."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# gunicorn tells of killed workers since 20.1 (b695b497): before, silence and a new worker are all there is.
_TALKS = (20, 1)
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
# All workers start together; none of them replaces another.
_START_US = 10_000_000
_MOST = 4096


@dataclass(slots=True)
class Crew:
    """The workers of one invocation of a unit, by pid; `names` is what the program calls each."""

    silent: bool = False
    started_us: int = 0
    living: dict[int, str] = field(default_factory=dict)

    def started(self, version: str, at_us: int) -> None:
        """The master starts, in this version."""
        found = _VERSION.match(version)
        self.silent = found is not None and (int(found[1]), int(found[2])) < _TALKS
        self.started_us = at_us
        self.living.clear()

    def booted(self, pid: int, name: str, at_us: int) -> tuple[int, ...]:
        """A worker is new; gives those of which one may be gone without a word: the last of its name, any of a silent crew."""
        gone = [old for old, called in self.living.items() if old != pid and self._replaced(called, name, at_us)]
        if len(self.living) < _MOST:
            self.living[pid] = name
        return tuple(gone)

    def _replaced(self, called: str, name: str, at_us: int) -> bool:
        if name:
            return called == name
        return self.silent and not called and at_us - self.started_us > _START_US

    def ended(self, pid: int) -> None:
        """Its end was told."""
        self.living.pop(pid, None)

    def named(self, name: str) -> int | None:
        """The newest worker of this name."""
        return next((pid for pid, called in reversed(self.living.items()) if called == name), None) if name else None
