"""A machine whose kernel counted 57 kills, and the marks by which a container on it is known."""

from __future__ import annotations

from pathlib import Path

MARKS = ("", "systemd", "lxcfs")
"""None of them, the file of systemd's PID 1, the mount of lxcfs."""


def standing_in(script: str, root: Path, mark: str) -> str:
    """The script with this machine's files in `root` instead of its own."""
    (root / "vmstat").write_text("nr_free_pages 1\noom_kill 57\n")
    (root / "mounts").write_text(
        "lxcfs /var/lib/lxcfs fuse.lxcfs rw 0 0\n" + ("lxcfs /proc/meminfo fuse.lxcfs rw 0 0\n" if mark == "lxcfs" else "")
    )
    if mark == "systemd":
        (root / "container").write_text("lxc\n")
    places = {
        "/proc/vmstat": "vmstat",
        "/proc/mounts": "mounts",
        "/run/systemd/container": "container",
        "/sys/fs/cgroup": "cgroup",
    }
    for place, name in places.items():
        assert place in script, place
        script = script.replace(place, str(root / name))
    return script
