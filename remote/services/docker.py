"""Docker's daemon: it says when it uses force on a container, and that one is over; not how."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain
from remote.services.argv import options, program
from remote.services.base import Kind, Role, Sign

_FLAGS = ("-D", "--debug", "--experimental", "--icc", "--ip-forward", "--ipv6", "--live-restore", "--rootless", "-v", "--version")
# logfmt, as logrus writes it; other fields may follow (spanID, traceID, error).
_START = r"time=\"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)\" level=[a-z]{4,7} "
_FIELDS = r"(?: [A-Za-z_.]{1,40}=(?:[^\s\"=]{1,300}|\"(?:[^\"\\\n]|\\.){0,300}\"))*"
_FORCED = line(
    _START + r"msg=\"Container failed to exit within (\d{1,9})s of (?:signal \d{1,3} - using the force|"
    r"kill - trying direct SIGKILL)\" container=([0-9a-f]{64})" + _FIELDS
)
# Before 20.10.
_FORCED_OLD = line(
    _START + r"msg=\"Container ([0-9a-f]{64}) failed to exit within (\d{1,9}) seconds of signal \d{1,3} - using the force\""
)
_ENDED = line(
    _START + r"msg=\"ignoring event\" container=([0-9a-f]{64}) module=libcontainerd namespace=[\w.-]{1,60} "
    r"topic=/tasks/delete type=\"\*events\.TaskDelete\"" + _FIELDS
)


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


def sign(entry: Entry) -> Sign | None:
    """`using the force` is `docker stop` out of patience. `docker kill` and the kernel's kill look the same here: ended."""
    text = plain(entry.message)
    if said := _FORCED.fullmatch(text):
        return Sign("forced", limit_s=float(said[1]), container=said[2])
    if said := _FORCED_OLD.fullmatch(text):
        return Sign("forced", limit_s=float(said[2]), container=said[1])
    said = _ENDED.fullmatch(text)
    return Sign("died", container=said[1]) if said else None


_TELLINGS = ("failed to exit within", "topic=/tasks/delete")

KIND = Kind("docker", "Docker", recognise, order=70, genuine=genuine, sign=sign, tellings=_TELLINGS)
