"""Memory: /proc/meminfo, PSI and the kernel's own count of OOM kills."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pressure:
    """PSI of memory: share of time (percent, 10 s average) that some or all tasks waited for memory."""

    some_avg10: float
    full_avg10: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory, in bytes. Used is `1 - MemAvailable/MemTotal`, never free+buffers+cached."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    pressure: Pressure | None
    oom_kills: int | None
    uptime_s: float

    @property
    def used_percent(self) -> float:
        """What is not available, in percent of the whole (kills.md section 4)."""
        return 100.0 * (1 - self.available_bytes / self.total_bytes) if self.total_bytes else 0.0

    @property
    def swap_used_bytes(self) -> int:
        """Swap in use."""
        return self.swap_total_bytes - self.swap_free_bytes
