"""Docker's daemon. What it says of containers that it kills is read with the other daemons' words (findings/daemons.py)."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.processes import Process
from remote.services.argv import options, program
from remote.services.base import Kind, Role

_FLAGS = ("-D", "--debug", "--experimental", "--icc", "--ip-forward", "--ipv6", "--live-restore", "--rootless", "-v", "--version")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The daemon itself; what runs in its containers is not its own work."""
    found = program(argv, process.cwd or "")
    if found is None or found.name != "dockerd" or found.interpreted:
        return ()
    given = options(found.args, _FLAGS)
    if given.has("-v", "--version", "--help"):
        return ()
    return (Role(KIND.name, given.last("--data-root", "-g"), uid=process.uid, cwd=process.cwd or ""),)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is Docker's daemon."""
    return process.exe is None or process.exe.rsplit("/", 1)[-1] == "dockerd"


KIND = Kind("docker", "Docker", recognise, order=70, genuine=genuine)
