"""The host itself: what it is, and what may be read and done there."""

from __future__ import annotations

from dataclasses import dataclass

from remote.errors import Unparsable
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import bare_boot_id, decimal, whole


@dataclass(frozen=True, slots=True)
class Machine:
    """Kernel, distribution, and our rights. `root` is `uid` when we are root, `sudo` when `sudo -n` works, else `no`.

    `journal` is `all`, `own` (no more than our own messages may be read) or `none` (there is none). `cgroup_version` is 0 where
    none is mounted.
    """

    boot_id: str
    hostname: str
    kernel: str
    distribution: str
    cgroup_version: int
    systemd_version: int | None
    uid: int
    root: str
    journal: str
    clock_s: float
    memory_bytes: int


# journalctl is asked without -q and without -o (json and cat imply -q): only then does it say that others' messages are
# hidden (systemd's journal-util.c). sudo is tried only where it is, and only without a password.
SCRIPT = r"""
value() { if IFS= read -r v <"$2"; then printf '%s %s\n' "$1" "$v"; fi; }
value boot_id /proc/sys/kernel/random/boot_id
value hostname /proc/sys/kernel/hostname
value kernel /proc/sys/kernel/osrelease
for f in /etc/os-release /usr/lib/os-release; do
  [ -r "$f" ] || continue
  while IFS= read -r v; do
    case $v in PRETTY_NAME=*) printf 'distribution %s\n' "${v#PRETTY_NAME=}" ;; esac
  done <"$f"
  break
done
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo 'cgroup 2'
elif grep -q ' cgroup ' /proc/mounts; then echo 'cgroup 1'
else echo 'cgroup 0'; fi
if [ -d /run/systemd/system ] && v=$(systemctl --version 2>/dev/null); then
  v=${v#systemd }
  printf 'systemd %s\n' "${v%%[!0-9]*}"
fi
uid=$(id -u)
printf 'uid %s\n' "$uid"
if [ "$uid" = 0 ]; then echo 'root uid'
elif command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then echo 'root sudo'
else echo 'root no'; fi
if command -v journalctl >/dev/null 2>&1; then
  v=$(journalctl -n 0 --no-pager 2>&1 >/dev/null)
  case $v in
    *'not seeing messages'*|*'insufficient permissions'*|*'ermission denied'*) echo 'journal own' ;;
    *'No journal files'*|*'ailed to'*) echo 'journal none' ;;
    *) echo 'journal all' ;;
  esac
else echo 'journal none'; fi
printf 'clock %s\n' "$(date +%s)"
while read -r k v u; do
  case $k in MemTotal:) printf 'memory %s\n' "$v"; break ;; esac
done </proc/meminfo
exit 0
"""


def parse(output: str) -> Machine | Unreadable:
    """The script's `name value` lines."""
    values: dict[str, str] = {}
    for line in output.split("\n"):
        name, _, value = line.partition(" ")
        values[name] = value
    for needed in ("boot_id", "uid", "clock", "memory"):
        if not values.get(needed):
            raise Unparsable(f"no {needed}")
    systemd = values.get("systemd")
    return Machine(
        boot_id=bare_boot_id(values["boot_id"]),
        hostname=values.get("hostname", ""),
        kernel=values.get("kernel", ""),
        distribution=values.get("distribution", "").strip("'\""),
        cgroup_version=whole(values.get("cgroup", "0")),
        systemd_version=whole(systemd) if systemd else None,
        uid=whole(values["uid"]),
        root=_one_of(values.get("root", ""), "uid", "sudo", "no"),
        journal=_one_of(values.get("journal", ""), "all", "own", "none"),
        clock_s=decimal(values["clock"]),
        memory_bytes=whole(values["memory"]) * 1024,
    )


def _one_of(word: str, *known: str) -> str:
    if word not in known:
        raise Unparsable(word)
    return word


MACHINE: Fact[Machine] = Fact("machine", SCRIPT, parse, deadline_s=10.0, cap_bytes=64 << 10)
