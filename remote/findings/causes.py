"""What may have killed a process, and how sure that is."""

from __future__ import annotations

from typing import Literal

Cause = Literal[
    "kernel-oom",
    "cgroup-limit",
    "systemd-oomd",
    "userspace-oom",
    "worker-timeout",
    "stop-timeout",
    "time-limit",
    "container",
    "plan",
    "manual",
    "unknown",
]
Confidence = Literal["certain", "likely", "guess"]
