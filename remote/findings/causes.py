"""What may have killed a process, and how sure that is."""

from __future__ import annotations

from typing import Literal

# Memory ran out, or was about to.
OfMemory = Literal["kernel-oom", "cgroup-limit", "systemd-oomd", "userspace-oom"]
Other = Literal["worker-timeout", "stop-timeout", "time-limit", "container", "plan", "manual", "unknown"]
Cause = Literal[OfMemory, Other]
Confidence = Literal["certain", "likely", "guess"]
