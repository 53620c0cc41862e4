"""Counters: how many processes the kernel's OOM killer has ended since boot, in all and in each cgroup.

They know no name and no time, but they survive what loses a log line: a rate limit, a full buffer, a volatile journal.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from remote.errors import Unparsable
from remote.facts._own_count import OWN_COUNT
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import bare_boot_id, refusal, unreadable, whole


@dataclass(frozen=True, slots=True)
class Counters:
    """Kills since boot. `oom_kills` is /proc/vmstat's for the whole machine, None before Linux 4.13; of a container its own root
    cgroup's, None where that has none.

    `groups` has the count of each cgroup of system units, containers and slices, as long as the cgroup lives: a unit's
    starts over at 0 with every start. A count is the cgroup's own (`memory.events.local`, Linux 5.2; cgroup v1); where
    the kernel has none such `hierarchical` is true and a slice's holds those of all below it.
    """

    boot_id: str
    oom_kills: int | None
    groups: Mapping[str, int]
    hierarchical: bool = False


# One find and one grep. What lies below user.slice is the user's own; deeper than kubepods' containers nothing is ours.
# `cgroup.controllers` is at the root of cgroup v2 only: a hybrid host has memory in v1.
_SCRIPT = (
    r"""
read -r v </proc/sys/kernel/random/boot_id && printf 'boot %s\n' "$v"
"""
    + OWN_COUNT
    + r"""
root=/sys/fs/cgroup
name=memory.events
if [ ! -e "$root/cgroup.controllers" ]; then root=$root/memory; name=memory.oom_control
else for d in "$root"/*.slice; do
  if [ -e "$d/memory.events.local" ]; then name=memory.events.local; break; fi
done; fi
[ -d "$root" ] || { echo "groups -"; exit 0; }
printf 'groups %s %s\n' "$name" "$root"
find "$root" -maxdepth 6 -path "$root/user.slice/*" -type d -prune -o -name "$name" -exec grep -H '^oom_kill ' {} +
exit 0
"""
)


def parse(output: str) -> Counters | Unreadable:
    """The script's lines: `boot`, `oom_kill`, `groups FILE ROOT`, then grep's `PATH:oom_kill N`."""
    refused = refusal(output)
    if refused is not None:
        return refused
    head, _, rest = output.partition("\ngroups ")
    values = dict(line.split(" ", 1) for line in head.split("\n") if " " in line)
    first, _, counts = rest.partition("\n")
    name, _, root = first.partition(" ")
    if not name or "boot" not in values:
        raise Unparsable(output[:200])
    groups = _groups(counts, f"/{name}:oom_kill ", root)
    if not groups and "oom_kill" not in values:
        return unreadable("unsupported", "oom_kill")
    return Counters(
        boot_id=bare_boot_id(values["boot"]),
        oom_kills=whole(values["oom_kill"]) if "oom_kill" in values else None,
        groups=groups,
        hierarchical=name == "memory.events",
    )


def _groups(lines: str, mark: str, root: str) -> dict[str, int]:
    groups: dict[str, int] = {}
    for line in lines.split("\n"):
        # A cgroup's name may hold a line feed: what is left of its path then is none of ours.
        path, found, count = line.rpartition(mark)
        if found and path.startswith(f"{root}/") and posixpath.normpath(path) == path:
            groups[path.removeprefix(root)] = whole(count)
    return groups


COUNTERS: Fact[Counters] = Fact("counters", _SCRIPT, parse, deadline_s=10.0, cap_bytes=2 << 20)
