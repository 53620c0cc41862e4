"""What was found of one host, until the store has taken it: an autopsy tells a thing once, and a disk may be full for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bot.alerts.staged import is_staged
from remote.findings.kill import JOIN_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bot.alerts.kills import KillRule, Mark, Sighted
    from remote.findings.kill import Kill

REMEMBERED = 20_000  # staged kills, so that each counts once


class Ledger:
    """Owes what was found, and pays it in one go."""

    def __init__(self, host: str, rule: KillRule) -> None:
        """`rule` keeps it."""
        self._host = host
        self._rule = rule
        self._owed: list[Sighted] = []
        self._paying = asyncio.Lock()
        self._staged: dict[tuple[str, int | str], int] = {}

    def owe(self, found: Iterable[Sighted]) -> bool:
        """Remember what was found; whether anything is owed.

        What users staged and was counted before is left out: of those a number is kept, so more about one is not another.
        """
        self._owed += [one for one in found if not is_staged(one.kill) or self._is_new(one.kill)]
        return bool(self._owed)

    async def pay(self, mark: Callable[[Sequence[Sighted]], Mark] | None = None) -> None:
        """Keep all that is owed, and with it the mark that is made of it. All of it stays owed when that fails."""
        if not self._owed and mark is None:
            return
        async with self._paying:
            found = tuple(self._owed)
            await self._rule.keep(self._host, found, *((mark(found),) if mark else ()))
            del self._owed[: len(found)]

    def _is_new(self, kill: Kill) -> bool:
        key = (kill.boot_id, kill.cgroup if kill.pid is None else kill.pid)
        before_us = self._staged.pop(key, None)
        self._staged[key] = kill.monotonic_us
        if len(self._staged) > REMEMBERED:
            del self._staged[next(iter(self._staged))]
        return before_us is None or abs(kill.monotonic_us - before_us) > JOIN_S * 1e6
