"""What was found of one host, until the store has taken it: an autopsy tells a thing once, and a disk may be full for a while.

A kill that cannot be kept at all must not hold up the others for ever: it is logged and let go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import DatabaseError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from bot.alerts.staged import is_staged
from remote.findings.kill import JOIN_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bot.alerts.kills import KillRule, Mark, Sighted
    from remote.findings.kill import Kill

log = structlog.get_logger(__name__)

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

    async def pay(self, marked: Callable[[Sequence[Sighted]], Sequence[Mark]] | None = None) -> None:
        """Keep all that is owed, and with it the marks that are made of it. All of it stays owed when the store refuses it."""
        if not self._owed and marked is None:
            return
        async with self._paying:
            found = tuple(self._owed)
            marks = tuple(marked(found)) if marked else ()
            try:
                await self._rule.keep(self._host, found, *marks)
            except Exception as trouble:
                if not found or is_refusal(trouble):
                    raise
                await self._pay_apart(len(found))
                await self._rule.keep(self._host, (), *marks)
            else:
                del self._owed[: len(found)]

    async def _pay_apart(self, number: int) -> None:
        """Keep the first so many one by one, all but those that cannot be kept."""
        for one in self._owed[:number]:
            try:
                await self._rule.keep(self._host, (one,))
            except Exception as trouble:
                if is_refusal(trouble):
                    raise
                log.exception("a kill cannot be kept", host=self._host, pid=one.kill.pid, cause=one.kill.cause)
            del self._owed[0]

    def _is_new(self, kill: Kill) -> bool:
        key = (kill.boot_id, kill.cgroup if kill.pid is None else kill.pid)
        before_us = self._staged.pop(key, None)
        self._staged[key] = kill.monotonic_us
        if len(self._staged) > REMEMBERED:
            del self._staged[next(iter(self._staged))]
        return before_us is None or abs(kill.monotonic_us - before_us) > JOIN_S * 1e6


def is_refusal(trouble: Exception) -> bool:
    """Whether the store takes nothing now (full, locked, broken, out of reach), whatever it is given: that may pass."""
    # A broken file is a DatabaseError itself; its other subclasses are about the row.
    return isinstance(trouble, OSError | OperationalError | InternalError | NoConnectionError) or type(trouble) is DatabaseError
