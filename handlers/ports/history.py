"""What was killed before: the bot's own memory, which reaches further back than many a journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from handlers.cards.kill import Past
from remote.findings.kill import Kill


class History(Protocol):
    """The kills that were told, as the store has them."""

    async def past(self, host: str, unit: str | None, name: str, before: datetime) -> Past:
        """The kills on `host` in the seven days up to and with `before` (aware), of this unit, or of processes called `name`
        where there is no unit. Of a host that was not watched: none."""
        ...

    async def told(self, host: str, found: Sequence[Kill], since: datetime) -> tuple[Kill, ...]:
        """What a journal tells since then (aware), each kill with what the watch saw of it (a pid that nobody tells any more;
        cause `plan` where a step of ours did it), and those that the journal does not tell any more. Newest first."""
        ...
