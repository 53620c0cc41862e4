"""The verdict: a pure function from what is known of one death to who did it and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from remote.findings.causes import Cause, Confidence

Told = Literal["", "likely", "certain"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one death. Only the word of somebody who may be believed stands here; who spoke first does not matter.

    `memory` is whose memory the kernel says ran out: `machine`, `group` (a cgroup's limit), `unsaid` (it names a victim
    without saying), empty where it names none. `by_hand` means that the kernel was told to kill (SysRq: `order=-1`), `asked`
    that its own line says so too; `trigger` is the daemon, `person` the sudo user who asked it to. `unit_oom` is PID 1's word
    that the kernel was at work in the unit; `limited` that the unit has a limit. `hunter` is the daemon that ended this very
    process. `oomd` and `oomd_near` tell of systemd-oomd: it ended this cgroup, or the unit in which a process was found dead.
    `runtime` ended the container. `sender` is who sent the signal by the audit records, `sudo` who asked for it by name.
    `stop` and `watchdog` are systemd's timeouts, `certain` where its own SIGKILL is logged. `hung`, `over_time` and `forced`
    (who sent SIGKILL to what did not stop when asked) are the application's own.
    """

    memory: Literal["", "machine", "group", "unsaid"] = ""
    by_hand: bool = False
    asked: bool = False
    trigger: str = ""
    person: str = ""
    unit_oom: bool = False
    limited: bool = False
    oomd: bool = False
    oomd_near: bool = False
    hunter: str = ""
    runtime: str = ""
    sender: str = ""
    sudo: str = ""
    stop: Told = ""
    watchdog: Told = ""
    hung: bool = False
    forced: str = ""
    over_time: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`by` is who did it, where somebody did."""

    cause: Cause
    confidence: Confidence
    by: str = ""


def verdict(evidence: Evidence) -> Verdict:
    """The strongest explanation: the kernel's own word, then an OOM daemon's, a container runtime's, the audit's, systemd's of
    its own SIGKILL, a person's command, the application's; last what was done in the unit without naming the process.

    What a weaker one says of the same death is not contradicted: it is how that one came to know of it.
    """
    found = (judge(evidence) for judge in _JUDGES)
    return next((said for said in found if said is not None), Verdict("unknown", "guess"))


def strength(said: Verdict) -> int:
    """How much a verdict weighs against another one of the same death, where the evidence of both is not at hand any more: by the
    place of the judge who must have said it."""
    judge = _judge_of(said)
    return len(_JUDGES) - _JUDGES.index(judge) if judge is not None else 0


def _judge_of(said: Verdict) -> _Judge | None:
    """What is only likely names no process, but for a person's command that does: sudo's."""
    match said.cause, said.confidence:
        case "unknown", _:
            return None
        case "manual", "likely":
            return _sudo
        case _, "likely" | "guess":
            return _unit
        case "kernel-oom" | "cgroup-limit", _:
            return _kernel
        case "userspace-oom" | "systemd-oomd", _:
            return _daemon
        case "container", _:
            return _container
        case "manual" | "plan", _:
            return _audit
        case _ if said.by == "systemd":
            return _systemd
        case _:
            return _application


def explained(evidence: Evidence) -> bool:
    """Whether somebody's own word explains it, so that a word about the whole unit must mean another process."""
    said = verdict(evidence)
    return said.confidence == "certain"


def by_memory(evidence: Evidence) -> bool:
    """Whether an OOM killer of the kernel's or a daemon's did it."""
    return bool(evidence.memory or evidence.hunter or evidence.oomd)


def _kernel(evidence: Evidence) -> Verdict | None:
    if not evidence.memory:
        return None
    if evidence.by_hand and evidence.trigger:
        return Verdict("userspace-oom", "certain", evidence.trigger)
    if evidence.by_hand:
        return Verdict("manual", "certain" if evidence.asked else "likely", evidence.person)
    if evidence.memory == "unsaid":
        return Verdict("cgroup-limit" if evidence.unit_oom and evidence.limited else "kernel-oom", "likely")
    return Verdict("cgroup-limit" if evidence.memory == "group" else "kernel-oom", "certain")


def _daemon(evidence: Evidence) -> Verdict | None:
    if evidence.hunter:
        return Verdict("userspace-oom", "certain", evidence.hunter)
    return Verdict("systemd-oomd", "certain", "systemd-oomd") if evidence.oomd else None


def _container(evidence: Evidence) -> Verdict | None:
    return Verdict("container", "certain", evidence.runtime) if evidence.runtime else None


def _audit(evidence: Evidence) -> Verdict | None:
    return Verdict("manual", "certain", evidence.sender) if evidence.sender else None


def _systemd(evidence: Evidence) -> Verdict | None:
    """Its own SIGKILL after its own timeout."""
    if evidence.watchdog == "certain":
        return Verdict("worker-timeout", "certain", "systemd")
    return Verdict("stop-timeout", "certain", "systemd") if evidence.stop == "certain" else None


def _sudo(evidence: Evidence) -> Verdict | None:
    return Verdict("manual", "likely", evidence.sudo) if evidence.sudo else None


def _application(evidence: Evidence) -> Verdict | None:
    if evidence.hung:
        return Verdict("worker-timeout", "certain")
    if evidence.forced:
        return Verdict("stop-timeout", "certain", evidence.forced)
    return Verdict("time-limit", "certain") if evidence.over_time else None


def _unit(evidence: Evidence) -> Verdict | None:
    """No line names the process, but something was done in its unit."""
    if evidence.watchdog:
        return Verdict("worker-timeout", "likely", "systemd")
    if evidence.stop:
        return Verdict("stop-timeout", "likely", "systemd")
    if evidence.unit_oom:
        return Verdict("cgroup-limit" if evidence.limited else "kernel-oom", "likely")
    return Verdict("systemd-oomd", "likely", "systemd-oomd") if evidence.oomd_near else None


_Judge = Callable[[Evidence], Verdict | None]
# The strongest first.
_JUDGES: tuple[_Judge, ...] = (
    _kernel, _daemon, _container, _audit, _systemd, _sudo, _application, _unit,
)  # fmt: skip
