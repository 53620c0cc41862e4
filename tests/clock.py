"""A clock that stands until it is told to go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 11, 23, 14, 2, tzinfo=UTC)


@dataclass
class StandingClock:
    """The `Clock` port of tests."""

    moment: datetime = NOW

    def now(self) -> datetime:
        """The moment."""
        return self.moment

    def go(self, seconds: float) -> datetime:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)
        return self.moment
