"""What was killed before: the bot's own memory, which reaches further back than many a journal."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from handlers.cards.kill import Past


class History(Protocol):
    """The kills that were told, as the store has them."""

    async def past(self, host: str, unit: str | None, name: str, before: datetime) -> Past:
        """The kills on `host` in the seven days up to and with `before` (aware), of this unit, or of processes called `name`
        where there is no unit. Of a host that was not watched: none."""
        ...
