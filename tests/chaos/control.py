"""What a test tells a bot that runs: how late it is, and at which of its commits it dies. One small shared file."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

_FIELDS: Final = struct.Struct("=q")
_OFFSET_US, _COMMITS, _DIE_AT, _DIE_AFTER = range(4)
_SIZE: Final = 4 * _FIELDS.size


class Control:
    """The file, as both sides see it. It is also the bot's clock: this machine's, moved by what the test says."""

    def __init__(self, path: Path) -> None:
        """Open it; it is made if it is not there."""
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            self._shared = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def _get(self, field: int) -> int:
        return int(_FIELDS.unpack_from(self._shared, field * _FIELDS.size)[0])

    def _set(self, field: int, value: int) -> None:
        _FIELDS.pack_into(self._shared, field * _FIELDS.size, value)

    def now(self) -> datetime:
        """The moment, aware, in UTC: the `Clock` port."""
        return datetime.fromtimestamp(time.time(), UTC) + timedelta(microseconds=self._get(_OFFSET_US))

    def set_now(self, moment: datetime) -> None:
        """It is this time now, and goes on."""
        self._set(_OFFSET_US, (moment - datetime.now(UTC)) // timedelta(microseconds=1))

    def go(self, **units: float) -> None:
        """So much later at once, as `timedelta` has it."""
        self._set(_OFFSET_US, self._get(_OFFSET_US) + timedelta(**units) // timedelta(microseconds=1))

    @property
    def commits(self) -> int:
        """How many transactions were committed or about to be, over all lives."""
        return self._get(_COMMITS)

    def die_at_commit(self, ordinal: int, *, after: bool) -> None:
        """End the life that makes this commit (from 1, over all lives), just before or just after it; 0 is never."""
        self._set(_DIE_AFTER, after)
        self._set(_DIE_AT, ordinal)

    def committing(self) -> None:
        """The bot's side, before a commit."""
        self._set(_COMMITS, self.commits + 1)
        self._die(after=False)

    def committed(self) -> None:
        """The bot's side, after it."""
        self._die(after=True)

    def _die(self, *, after: bool) -> None:
        if self._get(_DIE_AT) == self.commits and bool(self._get(_DIE_AFTER)) == after:
            os.kill(os.getpid(), signal.SIGKILL)
