"""The host itself: what it is, and what may be read and done there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """Kernel, distribution, and our rights. `root` is `uid` when we are root, `sudo` when `sudo -n` works, else `no`.

    `journal` is `all`, `own` (only our own messages are visible) or `none`. `cgroup_version` is 0 where none is mounted.
    """

    boot_id: str
    hostname: str
    kernel: str
    distribution: str
    cgroup_version: int
    systemd_version: int | None
    uid: int
    root: str
    journal: str
    clock_s: float
    memory_bytes: int
