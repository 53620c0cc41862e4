"""Whose a cgroup is: a unit's, a container's, a user's. A path below user.slice or a Delegate= unit is its user's to choose."""

from __future__ import annotations

import re
from dataclasses import dataclass

from remote.facts.units import Units


@dataclass(frozen=True, slots=True)
class Place:
    """`unit` is None where no service of the system holds the cgroup. `container` is the id (12 digits) or the name (LXC) of the
    container; `staged` says that it is below user.slice, where anybody may make groups and limits."""

    unit: str | None = None
    container: str = ""
    staged: bool = False


# docker and podman, with systemd's and with cgroupfs' driver; containerd and CRI-O below kubepods; LXC 3 and 4.
_CONTAINER = re.compile(
    r"(?:(?:docker|cri-containerd|crio|libpod|libpod-payload|nerdctl)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?|lxc\.payload\.(?P<name>[\w.-]{1,64})"
)
_LXC = re.compile(r"[\w.-]{1,64}")
# What starts containers does not hold them: they outlive it.
_RUNTIMES = {
    "docker.service",
    "containerd.service",
    "crio.service",
    "podman.service",
    "k3s.service",
    "lxc.service",
    "lxd.service",
}
_USERS = "/user.slice"


def place(cgroup: str, units: Units | None) -> Place:
    """Where a process of this cgroup is at home."""
    if f"{cgroup}/".startswith(f"{_USERS}/"):
        return Place(staged=True, container=_container(cgroup)[0])
    container, above = _container(cgroup)
    if not container:
        return Place(_unit(cgroup, units))
    unit = _unit(above, units)
    return Place(None if unit in _RUNTIMES else unit, container)


def _container(cgroup: str) -> tuple[str, str]:
    """The innermost container of a path, and the path above it."""
    parts = cgroup.strip("/").split("/")
    for at in range(len(parts) - 1, -1, -1):
        above = "/" + "/".join(parts[:at])
        if found := _CONTAINER.fullmatch(parts[at]):
            return (found["id"] or found["name"])[:12] if found["id"] else found["name"], above
        if at and parts[at - 1] == "lxc" and _LXC.fullmatch(parts[at]):
            return parts[at], above
    return "", cgroup


def _unit(cgroup: str, units: Units | None) -> str | None:
    known = units.of_cgroup(cgroup) if units else None
    if known is not None:
        return known.id
    name = unit_of_path(cgroup)
    unit = units.by_name(name) if units and name else None
    if unit is not None and unit.delegate and not cgroup.endswith(f"/{name}"):
        return None  # the paths below it are not systemd's
    return unit.id if unit is not None else name


def unit_of_path(cgroup: str) -> str | None:
    """The first service of a cgroup's path below slices of the system; None below user.slice, where anybody names them."""
    for at, part in enumerate(cgroup.strip("/").split("/")):
        if part.endswith(".service"):
            return part
        if not part.endswith(".slice") or (at == 0 and part in {"user.slice", "machine.slice"}):
            return None
    return None
