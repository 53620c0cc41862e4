"""What a finding is: something worth a person's attention, with a stable kind and words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from remote.text import Text

Severity = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is stable for scripts (`memory-high`, `duplicates`, `cron-restarts`, `over-ceiling`, `memory-max-low`…)."""

    kind: str
    severity: Severity
    text: Text
    unit: str | None = None
