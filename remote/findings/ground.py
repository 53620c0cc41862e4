"""What is known of a host beside its log: units, processes, and whose lines count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from remote.facts.journal import Entry
from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.findings.places import Place, place
from remote.services import speakers


class Ground:
    """Units and processes as they were when somebody last looked, and the first writers of the past. `boot_id` is the boot they
    are of: the one that was given, else that of the newest processes."""

    def __init__(self, boot_id: str | None, first_writers: Mapping[str, int]) -> None:
        """Nothing is known yet. Of another boot than `boot_id`, where that is given, nothing is learnt."""
        self._given_boot = bool(boot_id)
        self.boot_id = boot_id or ""
        self._first_writers = first_writers
        self._speakers: dict[tuple[str, str], set[int]] = {}
        self._mains: dict[tuple[str, str], int] = {}
        self._processes: dict[int, Process] = {}
        self._by_name: dict[str, Unit] = {}
        self._places: dict[str, Place] = {}
        self.units: Units | None = None

    def learn(self, units: Units | None, processes: Processes | None) -> None:
        """Newer facts. The main processes of former invocations stay known: their lines may still come."""
        if processes is not None:
            # Who watches a host does so over its reboots.
            self.boot_id = self.boot_id if self._given_boot else processes.boot_id
            if processes.boot_id == self.boot_id:
                self._processes = {process.pid: process for process in processes.all}
        if units is None:
            return
        self.units = units
        self._by_name = {name: unit for unit in reversed(units.all) for name in (*unit.names, unit.id)}
        self._places.clear()
        self._mains |= {(unit.id, unit.invocation_id): unit.main_pid for unit in units.all if unit.main_pid}
        for speaker in speakers(units, processes):
            self._speakers.setdefault((speaker.unit, speaker.invocation), set()).add(speaker.pid)

    def speaks(self, entry: Entry) -> bool:
        """Whether the entry was written by its unit's main process, whose word about its children counts."""
        if entry.pid is None or not entry.system_unit.endswith(".service") or entry.system_unit.startswith("user@"):
            return False
        if entry.invocation and self._first_writers.get(entry.invocation) == entry.pid:
            return True
        known = self._speakers.get((entry.system_unit, entry.invocation))
        if known is None and self.is_now(entry.boot_id):  # systemd before 232 tells no invocation
            known = self._speakers.get((entry.system_unit, ""))
        return known is not None and entry.pid in known

    def knows(self, entry: Entry) -> bool:
        """Whether it is known whose lines count in this invocation of the entry's unit."""
        return entry.invocation in self._first_writers or (entry.system_unit, entry.invocation) in self._speakers

    def runs(self, unit: str, invocation: str) -> bool:
        """Whether the unit is still in this invocation, by the facts."""
        known = self.unit(unit)
        return known is not None and bool(invocation) and known.invocation_id == invocation and known.main_pid > 0

    def main_pid(self, unit: str, invocation: str) -> int | None:
        """The main process that the unit had in this invocation, where it is known."""
        return self._mains.get((unit, invocation)) if invocation else None

    def is_now(self, boot_id: str) -> bool:
        """Whether it is the boot that the facts are of."""
        return bool(boot_id) and boot_id == self.boot_id

    def place(self, cgroup: str) -> Place:
        """Where a cgroup belongs to."""
        found = self._places.get(cgroup)
        if found is None:
            found = place(cgroup, self.units)
            if len(self._places) > _PLACES:
                self._places.clear()
            self._places[cgroup] = found
        return found

    def unit(self, name: str | None) -> Unit | None:
        """A unit by its name or alias."""
        return self._by_name.get(name) if name else None

    def limit(self, boot_id: str, name: str | None) -> int | None:
        """The unit's limit as it is now, for a kill of this boot."""
        unit = self.unit(name)
        return unit.memory_max_bytes if unit is not None and self.is_now(boot_id) else None

    def process(self, boot_id: str, pid: int | None, at: datetime) -> Process | None:
        """The process that had this pid at that time, where it was seen."""
        found = self._processes.get(pid or 0) if self.is_now(boot_id) else None
        return found if found is not None and found.started_at <= at else None

    def user(self, uid: int) -> str:
        """A login's name, from a process of that user."""
        return next((process.user for process in self._processes.values() if process.uid == uid), f"uid {uid}")


_PLACES = 4096
