"""A witness: which main process a unit runs, which processes are gone, and what the kernel has counted.

A program's line about its own children is a claim until the host itself bears it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Main:
    """The main process that a unit runs now (0: none), in this invocation."""

    unit: str
    invocation: str
    pid: int
    control_group: str


@dataclass(frozen=True, slots=True)
class Living:
    """A process that is there: when it started, in microseconds since boot, and its cgroup."""

    started_us: int
    cgroup: str


@dataclass(frozen=True, slots=True)
class Witness:
    """What the host itself says. `living` has those of the asked pids that are there; `oom_kills` is /proc/vmstat's, None before
    Linux 4.13; `unit_oom_kills` the units' own counts (memory.events.local, else memory.events) by unit."""

    boot_id: str
    uptime_s: float
    mains: Mapping[str, Main]
    living: Mapping[int, Living]
    oom_kills: int | None
    unit_oom_kills: Mapping[str, int]
