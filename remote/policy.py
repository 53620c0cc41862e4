"""What the settings say about judging and mending a host, as plain values (remote never reads settings)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sizing:
    """The runbook's rule as a ceiling, see design "Sizing". Sizes in bytes."""

    gunicorn_workers_per_gib: float = 1.0
    celery_processes_per_gib: float = 0.5
    gunicorn_threads: int = 4
    gunicorn_max_requests: int = 500
    celery_max_tasks_per_child: int = 100
    gunicorn_memory_max_bytes: int = 600 * MIB


@dataclass(frozen=True, slots=True)
class Policy:
    """One host's policy: which twins to keep, what never to touch, thresholds, sizing.

    `keep` stays by the settings, `chosen` by the word of whoever asks for this one plan; neither is ever an extra.
    """

    keep: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    never_touch: tuple[str, ...] = ()
    health: Mapping[str, str] = field(default_factory=dict)
    memory_percent: float = 90.0
    clear_percent: float = 85.0
    critical_percent: float = 96.0
    critical_available_bytes: int = 100 * MIB
    celery_stop_timeout_s: int = 600
    sizing: Sizing = Sizing()

    @property
    def version(self) -> str:
        """Changes with all in the settings that a plan is drawn by (32 hex digits): an approval is for those."""
        drawn_by = [self.keep, self.never_touch, sorted(self.health.items()), self.celery_stop_timeout_s]
        return hashlib.sha256(json.dumps(drawn_by).encode()).hexdigest()[:32]
