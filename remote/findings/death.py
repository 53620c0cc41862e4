"""Cause of death: from journal entries to kills with who did it, why, and the proof."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from remote.text import Text

Cause = Literal[
    "kernel-oom", "cgroup-limit", "systemd-oomd", "userspace-oom", "worker-timeout", "stop-timeout",
    "time-limit", "container", "plan", "manual", "unknown",
]
Confidence = Literal["certain", "likely", "guess"]


@dataclass(frozen=True, slots=True)
class Kill:
    """One killed process (or cgroup: `pid` None). `evidence` are the exact log lines, redacted, oldest first.

    `limit_group` is the cgroup whose limit was hit; `limit_bytes` that limit; `stopped_unit` says that systemd stopped the
    whole unit for it (OOMPolicy=stop). `uid` is the victim's. `final` is False while more evidence may still come.
    """

    pid: int | None
    name: str
    unit: str | None
    at: datetime
    boot_id: str
    monotonic_us: int
    signal: int
    cause: Cause
    confidence: Confidence
    limit_bytes: int | None
    rss_bytes: int | None
    evidence: tuple[str, ...]
    advice: Text
    limit_group: str = ""
    uid: int | None = None
    cgroup: str = ""
    stopped_unit: bool = False
    final: bool = True
