"""Units: systemd's services, how they stand, what ties them to others, and what memory they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remote.secret import CommandLine


@dataclass(frozen=True, slots=True)
class Unit:
    """One service unit. `names` holds its aliases too. Sizes in bytes; None where systemd says infinity or nothing.

    `used_bytes` is anon+shmem+kernel of its cgroup, never memory.current (mostly page cache). `links` are the paths
    of all symlinks that enable it (also hand-made ones in other units' .wants). `relations` maps systemd's property
    (Wants, WantedBy, Requires, RequiredBy, PartOf, ConsistsOf, BindsTo, BoundBy, Triggers, TriggeredBy, Conflicts)
    to unit names. `settings_hash` is the sha256 (hex) over fragment and drop-ins, in order. `fragment_mtime_s` is the
    unit file's age. `environment` names which of the few telling variables are set there (DJANGO_SETTINGS_MODULE and
    broker URLs as keyed by name); values are sealed in `environment`, a CommandLine of KEY=VALUE words.
    """

    id: str
    names: tuple[str, ...]
    description: str
    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str
    result: str
    main_pid: int
    restarts: int
    invocation_id: str
    control_group: str
    fragment_path: str
    drop_in_paths: tuple[str, ...]
    needs_reload: bool
    kill_mode: str
    restart: str
    oom_policy: str
    user: str
    working_directory: str
    stop_timeout_s: float | None
    memory_max_bytes: int | None
    memory_high_bytes: int | None
    used_bytes: int | None
    exec_start: CommandLine
    environment: CommandLine
    relations: Mapping[str, tuple[str, ...]]
    links: tuple[tuple[str, str], ...]
    settings_hash: str
    fragment_mtime_s: float
    delegate: bool

    @property
    def active(self) -> bool:
        """Whether it runs (or is about to)."""
        return self.active_state in {"active", "activating", "reloading"}

    @property
    def enabled(self) -> bool:
        """Whether systemd starts it by itself at boot."""
        return self.unit_file_state.startswith("enabled")


@dataclass(frozen=True, slots=True)
class Units:
    """The host's service units, loaded or not (an enabled but stopped one counts)."""

    all: tuple[Unit, ...]

    def by_name(self, name: str) -> Unit | None:
        """The unit that has this name or alias (`.service` may be left out)."""
        wanted = {name, f"{name}.service"}
        return next((unit for unit in self.all if wanted & {unit.id, *unit.names}), None)

    def of_cgroup(self, cgroup: str) -> Unit | None:
        """The unit whose ControlGroup is the longest prefix of `cgroup`; nothing below user.slice or a Delegate= unit
        (the paths there are the user's to choose) and nothing when two would claim it."""
        if cgroup.startswith("/user.slice"):
            return None
        owners = [u for u in self.all if u.control_group and f"{cgroup}/".startswith(f"{u.control_group}/")]
        if not owners:
            return None
        longest = max(len(u.control_group) for u in owners)
        best = [u for u in owners if len(u.control_group) == longest]
        if len(best) != 1 or (best[0].delegate and best[0].control_group != cgroup):
            return None
        return best[0]
