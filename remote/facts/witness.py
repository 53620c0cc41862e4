"""A witness: which main process a unit runs, which processes are gone, and what the kernel has counted.

A program's line about its own children is a claim until the host itself bears it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from remote.errors import Unparsable
from remote.facts._own_count import OWN_COUNT
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import PIDS, bare_boot_id, decimal, is_unit_name, refusal, whole


@dataclass(frozen=True, slots=True)
class Main:
    """The main process that a unit runs now (0: none), in this invocation."""

    unit: str
    invocation: str
    pid: int
    control_group: str


@dataclass(frozen=True, slots=True)
class Living:
    """A process that is there: when it started, in microseconds since boot, and its cgroup."""

    started_us: int
    cgroup: str


@dataclass(frozen=True, slots=True)
class Witness:
    """What the host itself says. `mains` has the asked units that run or ran, by the name that was asked; `living` those of the
    asked pids that are there (a zombie is not); `oom_kills` is /proc/vmstat's, None before Linux 4.13, of a container its root
    cgroup's, None where that has none; `unit_oom_kills` the units' own counts (memory.events.local, else memory.events, on
    cgroup v1 memory.oom_control) by unit, where they run."""

    boot_id: str
    uptime_s: float
    mains: Mapping[str, Main]
    living: Mapping[int, Living]
    oom_kills: int | None
    unit_oom_kills: Mapping[str, int]


# Builtins but for one systemctl, one getconf and one grep. systemctl prints a block for each name in the order asked, known or
# not, and a blank line between. A name may hold anything, so only what stands after the last `)` of stat is read, and a line
# feed in it makes several lines.
_SCRIPT = (
    r"""
set -f
[ -r /proc/self/stat ] || { echo '! missing /proc/self/stat'; exit 0; }
read -r v </proc/sys/kernel/random/boot_id && printf 'boot %s\n' "$v"
read -r v rest </proc/uptime && printf 'uptime %s\n' "$v"
"""
    + OWN_COUNT
    + r"""
hz=$(getconf CLK_TCK) || hz=100
printf 'hz %s\n' "${hz:-100}"
for p in @PIDS@; do
  s=
  while IFS= read -r v; do s="$s $v"; done <"/proc/$p/stat"
  [ "$s" ] || continue
  set -- ${s##*)}
  case $1 in ''|Z|X|x) continue ;; esac
  started=${20}
  group=-
  while IFS= read -r v; do
    case $v in
      *:name=systemd:*) group=${v#*:name=systemd:}; break ;;
      0::*) group=${v#0::} ;;
    esac
  done <"/proc/$p/cgroup"
  printf 'pid %s %s %s\n' "$p" "$started" "$group"
done
set -- @UNITS@
[ $# -gt 0 ] || exit 0
counted() {
  c=/sys/fs/cgroup
  for f in "$c$1/memory.events.local" "$c$1/memory.events" "$c/memory$1/memory.oom_control"; do
    [ -r "$f" ] || continue
    while read -r k v; do
      case $k in oom_kill) printf 'killed %s\n' "$v"; break ;; esac
    done <"$f"
    return
  done
}
systemctl show --no-pager -p Id,MainPID,InvocationID,ControlGroup -- "$@" | while IFS= read -r v; do
  printf 'unit %s\n' "$v"
  case $v in ControlGroup=/?*) counted "${v#ControlGroup=}" ;; esac
done
exit 0
"""
)


def witness(units: Sequence[str], pids: Sequence[int]) -> Fact[Witness]:
    """The main processes of `units` and what is left of `pids`, in one quick question.

    What can be no unit's name and no pid (a log line may name any) is not asked for, and so it is not among those that live.
    """
    asked = tuple(unit for unit in dict.fromkeys(units) if is_unit_name(unit))
    numbers = " ".join(str(pid) for pid in dict.fromkeys(pids) if pid in PIDS)
    script = _SCRIPT.replace("@PIDS@", numbers).replace("@UNITS@", " ".join(f"'{unit}'" for unit in asked))
    return Fact("witness", script, lambda output: parse(output, asked), deadline_s=10.0, cap_bytes=1 << 20)


def parse(output: str, units: Sequence[str]) -> Witness | Unreadable:
    """The script's `name value` lines; `units` as they were asked."""
    refused = refusal(output)
    if refused is not None:
        return refused
    values: dict[str, str] = {}
    living: dict[int, Living] = {}
    blocks: list[str] = []
    for line in output.split("\n"):
        name, _, value = line.partition(" ")
        match name:
            case "pid":
                pid, started, cgroup = _split(value)
                living[pid] = Living(started * 1_000_000 // whole(values.get("hz", "")), cgroup)
            case "unit" | "killed":
                blocks.append(line)
            case _:
                values[name] = value
    mains, killed = _mains(blocks, units)
    return Witness(
        boot_id=bare_boot_id(values.get("boot", "")),
        uptime_s=decimal(values.get("uptime", "")),
        mains=mains,
        living=living,
        oom_kills=whole(values["oom_kill"]) if "oom_kill" in values else None,
        unit_oom_kills=killed,
    )


def _split(value: str) -> tuple[int, int, str]:
    parts = value.split(" ", 2)
    if len(parts) != 3:  # noqa: PLR2004 - pid, ticks, cgroup
        raise Unparsable(value)
    return whole(parts[0]), whole(parts[1]), "" if parts[2] == "-" else parts[2]


def _mains(lines: Sequence[str], units: Sequence[str]) -> tuple[dict[str, Main], dict[str, int]]:
    mains: dict[str, Main] = {}
    killed: dict[str, int] = {}
    for unit, block in zip(units, _blocks(lines), strict=False):
        pid = whole(block.get("MainPID", "0"))
        if not pid and not block.get("InvocationID"):  # which systemd has since 232
            continue  # never started since boot, or unknown
        mains[unit] = Main(block.get("Id", ""), block.get("InvocationID", ""), pid, block.get("ControlGroup", ""))
        if "killed" in block:
            killed[unit] = whole(block["killed"])
    return mains, killed


def _blocks(lines: Sequence[str]) -> Iterator[dict[str, str]]:
    block: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "killed":
            block["killed"] = value
        elif value:
            key, _, word = value.partition("=")
            block[key] = word
        else:
            yield block
            block = {}
    yield block
