"""Processes: who runs, in which cgroup, with how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from remote.secret import CommandLine


@dataclass(frozen=True, slots=True)
class Process:
    """One process. Its identity is (boot id, pid, start_ticks, uid, exe, cgroup, digest of argv).

    `name` is comm (at most 15 bytes, any character, hostile). `pss_bytes` is None where it may not be read or was
    not (only the biggest are measured). `exe` and `cwd` are None where they may not be read.
    """

    pid: int
    ppid: int
    start_ticks: int
    started_at: datetime
    name: str
    command: CommandLine
    uid: int
    user: str
    rss_bytes: int
    swap_bytes: int
    pss_bytes: int | None
    cgroup: str
    exe: str | None
    cwd: str | None

    @property
    def memory_bytes(self) -> int:
        """PSS where known, else RSS."""
        return self.rss_bytes if self.pss_bytes is None else self.pss_bytes


@dataclass(frozen=True, slots=True)
class Processes:
    """All processes with memory of their own (kernel threads left out), biggest first."""

    all: tuple[Process, ...]
    boot_id: str
