"""The journal: entries with what makes them trustworthy, for kills and for /logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry. Only fields with a leading `_` in the journal are the kernel's or journald's own word.

    `transport`, `pid`, `system_unit`, `cgroup`, `uid` come from such trusted fields. `unit`, `identifier`,
    `message_id`, `facility` are chosen by the sender. `monotonic_us` is the kernel's own time
    (_SOURCE_MONOTONIC_TIMESTAMP) where there is one, else journald's. `extra` holds UNIT_RESULT, EXIT_CODE, EXIT_STATUS…
    """

    cursor: str
    at: datetime
    boot_id: str
    monotonic_us: int
    message: str
    transport: str = ""
    facility: int | None = None
    identifier: str = ""
    pid: int | None = None
    uid: int | None = None
    cgroup: str = ""
    system_unit: str = ""
    unit: str = ""
    message_id: str = ""
    extra: tuple[tuple[str, str], ...] = field(default=())

    @property
    def from_kernel(self) -> bool:
        """Said by the kernel: a user's write to /dev/kmsg has another facility (systemd src journald-kmsg.c)."""
        return self.transport == "kernel" and self.facility == 0

    @property
    def from_systemd(self) -> bool:
        """Said by PID 1 itself."""
        return self.pid == 1 and self.transport != "kernel"


@dataclass(frozen=True, slots=True)
class Journal:
    """Entries, oldest first. `partial` says why older or other entries may be missing (rights, volatile, vacuumed)."""

    entries: tuple[Entry, ...]
    partial: str = ""
    last_cursor: str = ""
