"""The host's own count of its OOM kills: parts of scripts that read it. POSIX sh for dash, bash and busybox ash.

In a container /proc/vmstat is the whole node's, while the boot and the uptime there may be the container's own. What a container
counts for itself is what its own root cgroup holds: /sys/fs/cgroup/memory.events, which only cgroup v2 has.
"""

from __future__ import annotations

# `$counts`, where the line is. PID 1 of systemd leaves the file in each container (https://systemd.io/CONTAINER_INTERFACE/), and
# lxcfs lies over /proc/meminfo where there is no systemd; anybody may read both. Docker's mark is in whole machines' images too.
COUNTS = r"""
counts=/proc/vmstat
if [ -e /run/systemd/container ] || grep -q ' /proc/meminfo ' /proc/mounts; then counts=/sys/fs/cgroup/memory.events; fi
"""

# The same without a fork, where a container without systemd may be taken for its node.
QUICK_COUNTS = r"""
counts=/proc/vmstat
[ ! -e /run/systemd/container ] || counts=/sys/fs/cgroup/memory.events
"""

# As the line `oom_kill N`, or none where it is not counted.
OWN_COUNT = (
    COUNTS
    + r"""
if [ -r "$counts" ]; then
  while read -r k v; do
    case $k in oom_kill) printf 'oom_kill %s\n' "$v"; break ;; esac
  done <"$counts"
fi
"""
)
