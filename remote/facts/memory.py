"""Memory: /proc/meminfo, PSI and the kernel's own count of OOM kills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from remote.errors import Unparsable
from remote.facts._own_count import COUNTS, QUICK_COUNTS
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import decimal, read_proc, refusal, unreadable, whole


@dataclass(frozen=True, slots=True)
class Pressure:
    """PSI of memory: share of time (percent, 10 s average) that some or all tasks waited for memory."""

    some_avg10: float
    full_avg10: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory, in bytes. Used is `1 - MemAvailable/MemTotal`, never free+buffers+cached."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    pressure: Pressure | None
    oom_kills: int | None
    uptime_s: float

    @property
    def used_percent(self) -> float:
        """What is not available, in percent of the whole. Free, buffers and cache together would count tmpfs, which the kernel
        cannot drop, as free."""
        return 100.0 * (1 - self.available_bytes / self.total_bytes) if self.total_bytes else 0.0

    @property
    def swap_used_bytes(self) -> int:
        """Swap in use."""
        return self.swap_total_bytes - self.swap_free_bytes


# Builtins only: a fork costs as much as all of this together. oom_kill is in Linux 4.13 and later, PSI in 4.20. In a container
# /proc/vmstat is the whole node's (remote/facts/_own_count.py).
SCRIPT = r"""
[ -r /proc/meminfo ] || { echo '! missing /proc/meminfo'; exit 0; }
while read -r k v u; do
  case $k in
    MemTotal:|MemAvailable:|SwapTotal:) printf '%s %s\n' "$k" "$v" ;;
    SwapFree:) printf '%s %s\n' "$k" "$v"; break ;;
  esac
done </proc/meminfo
if [ -r /proc/pressure/memory ]; then
  while read -r k v u; do printf '%s %s\n' "$k" "$v"; done </proc/pressure/memory
fi
@COUNTS@
if [ -r "$counts" ]; then
  while read -r k v; do
    case $k in oom_kill) printf '%s %s\n' "$k" "$v"; break ;; esac
  done <"$counts"
fi
read -r v u </proc/uptime && printf 'uptime %s\n' "$v"
exit 0
""".replace("@COUNTS@", QUICK_COUNTS)


def parse(output: str) -> Memory | Unreadable:
    """The script's `name value` lines. Without MemAvailable (before Linux 3.14) nothing honest can be said."""
    refused = refusal(output)
    if refused is not None:
        return refused
    values: dict[str, str] = {}
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        if not value:
            raise Unparsable(line)
        values[name.removesuffix(":")] = value
    return _memory(values)


def _memory(values: Mapping[str, str]) -> Memory | Unreadable:
    if "MemTotal" not in values:
        raise Unparsable("no MemTotal")
    if "MemAvailable" not in values:
        return unreadable("unsupported", "MemAvailable")
    uptime = values.get("uptime")
    if uptime is None:
        raise Unparsable("no uptime")
    oom_kills = values.get("oom_kill")
    return Memory(
        total_bytes=_kib(values, "MemTotal"),
        available_bytes=_kib(values, "MemAvailable"),
        swap_total_bytes=_kib(values, "SwapTotal"),
        swap_free_bytes=_kib(values, "SwapFree"),
        pressure=_pressure(values),
        oom_kills=None if oom_kills is None else whole(oom_kills),
        uptime_s=decimal(uptime),
    )


def _kib(values: Mapping[str, str], name: str) -> int:
    return whole(values.get(name, "0")) * 1024


def _pressure(values: Mapping[str, str]) -> Pressure | None:
    if "some" not in values or "full" not in values:
        return None
    return Pressure(_avg10(values["some"]), _avg10(values["full"]))


def _avg10(text: str) -> float:
    return decimal(text.removeprefix("avg10="))


def read_local() -> Memory | Unreadable:
    """This machine's memory by psutil, and by the same /proc files for what psutil does not tell."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    counts = "/sys/fs/cgroup/memory.events" if Path("/run/systemd/container").exists() else "/proc/vmstat"
    counted = dict(line.split(" ", 1) for line in (read_proc(counts) or "").splitlines())
    psi = dict(line.split(" ", 2)[:2] for line in (read_proc("/proc/pressure/memory") or "").splitlines())
    uptime = read_proc("/proc/uptime")
    if uptime is None:
        return unreadable("missing", "/proc/uptime")
    return Memory(
        total_bytes=memory.total,
        available_bytes=memory.available,
        swap_total_bytes=swap.total,
        swap_free_bytes=swap.free,
        pressure=_pressure(psi),
        oom_kills=whole(counted["oom_kill"]) if "oom_kill" in counted else None,
        uptime_s=decimal(uptime.split()[0]),
    )


MEMORY: Fact[Memory] = Fact("memory", SCRIPT, parse, cap_bytes=64 << 10, local=read_local)
OWN_MEMORY: Fact[Memory] = replace(MEMORY, name="own-memory", script=MEMORY.script.replace(QUICK_COUNTS, COUNTS), local=None)
"""The memory with the host's own `oom_kills`: to hold against its log, where /proc/vmstat of a container is its whole node's."""
