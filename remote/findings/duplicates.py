"""Duplicates: units and stray processes that do the same service's work, and which twin to keep."""

from __future__ import annotations

from dataclasses import dataclass

from remote.facts.processes import Process
from remote.facts.units import Unit
from remote.text import Text


@dataclass(frozen=True, slots=True)
class Member:
    """One that does the work: a unit with its processes, or a stray (`unit` None) with its tree, its master first."""

    unit: Unit | None
    processes: tuple[Process, ...]
    pss_bytes: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """A service done more than once. `keep` does the work on; each of `extra` could go. `tie` asks a person.

    `shared` are the extras (by unit id) that also play another role (`-B`): their bytes count once over all groups.
    `refused` says why no plan may follow (it would leave no worker or no beat), None when one may.
    """

    service: str
    app: str
    why: Text
    keep: Member
    extra: tuple[Member, ...]
    tie: bool
    frees_bytes: int
    shared: tuple[str, ...] = ()
    refused: Text | None = None


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A process that claims to be of a service but is not (another user, program or directory): shown, never a step."""

    process: Process
    service: str
    why: Text
