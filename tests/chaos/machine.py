"""A recorded machine behind a real sshd on loopback (root): its journal grows as the test says, and its kernel counts along."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.target import SshTarget, ssh_target
from tests.chaos.control import Control
from tests.chaos.gate import Gate, gated
from tests.chaos.recording import Recording, recorded

PYTHON: Final = shlex.quote(os.path.realpath(sys.executable))
STANDIN: Final = Path(__file__).with_name("standin.py")
SHOWN: Final = Path(__file__).resolve().parents[1] / "recorded/debian12/systemctl-show.txt"
TOOL: Final = '#!/bin/sh\nexec {python} -IS {standin} {folder} {name} "$@"\n'
# What the machine says of itself; its journal is one that outlives a boot.
ENTER: Final = """\
mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id && mount --bind {folder}/vmstat /proc/vmstat &&
mount --bind {folder}/uptime /proc/uptime && mount --bind {folder}/date {date} &&
mount --bind {folder}/cgroup /sys/fs/cgroup && mount -t tmpfs none /var/log || exit 1
[ ! -r /etc/machine-id ] || mkdir -p "/var/log/journal/$(cat /etc/machine-id)"
"""
# The target's clock is the recording's.
DATE: Final = """\
#!/bin/sh
case $1 in
  +%s) read -r now <{folder}/now; echo "$now" ;;
  +%z) echo +0000 ;;
  *) exit 1 ;;
esac
"""
TICK_S: Final = 0.05
CGROUP: Final = re.compile(r"task_memcg=(/\S*?),task=")


@dataclass
class Machine:
    """One machine, as the bot can see it."""

    target: SshTarget
    journal: Recording
    gate: Gate
    folder: Path
    clock: Control
    oom_kills: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    victims: list[int] = field(default_factory=list)

    def happen(self, kind: str, *, programs: bool = True) -> int:
        """A recorded kill happens; gives the victim's pid."""
        pid = self.journal.happen(kind, programs=programs)
        self._count(kind, [pid])
        return pid

    def storm(self, count: int) -> list[int]:
        """Many at once."""
        pids = self.journal.storm(count)
        self._count("cgroup-oom", pids)
        return pids

    def stage(self, count: int, uids: Sequence[int], *, summary_every: int) -> None:
        """Users are killed at limits of their own slices."""
        self.journal.stage(count, uids, summary_every=summary_every)
        self.oom_kills += count
        self.write_counters()

    def reboot(self) -> None:
        """All that runs ends, and the machine comes back as another boot with its counters at zero."""
        self.hang_up()
        self.journal.reboot()
        self.oom_kills, self.groups = 0, {}
        self.write_counters()
        self.write_time()

    def hang_up(self) -> None:
        """End everything but the sshd itself: each connection breaks."""
        for pid in self.target.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def restart_journald(self) -> None:
        """Whoever follows comes to an end."""
        for call in self.gate.followers:
            if call.pid in self.target.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(call.pid, signal.SIGKILL)

    def stamp(self) -> None:
        """From the next follower on, note when each line comes out of the journal."""
        (self.folder / "stamps").touch()

    def stamps(self) -> dict[str, float]:
        """When a line with this cursor came out first, by CLOCK_MONOTONIC."""
        found: dict[str, float] = {}
        for line in (self.folder / "stamps").read_text(encoding="ascii").splitlines():
            at_ns, cursor = line.split(" ")
            found.setdefault(cursor, int(at_ns) / 1e9)
        return found

    def write_time(self) -> None:
        """Now, and since when it runs. In place: they are what /proc/uptime and `date` show there."""
        now_s = self.clock.now().timestamp()
        up_s = now_s - self.journal.booted_us / 1e6
        for name, text in (("now", f"{int(now_s)}\n"), ("uptime", f"{up_s:.2f} {up_s:.2f}\n")):
            with (self.folder / name).open("r+", encoding="ascii") as file:
                file.write(text)
                file.truncate()

    async def tick(self) -> None:
        """Its clock goes on."""
        while True:
            self.write_time()
            await asyncio.sleep(TICK_S)

    def _count(self, kind: str, victims: list[int]) -> None:
        said = next(found for entry in recorded(kind) if (found := CGROUP.search(str(entry.get("MESSAGE")))))
        self.victims += victims
        self.oom_kills += len(victims)
        self.groups[said[1]] = self.groups.get(said[1], 0) + len(victims)
        self.write_counters()

    def write_counters(self) -> None:
        """What the kernel says of its kills, and which boot this is."""
        boot = self.journal.boot_id
        dashed = "-".join((boot[:8], boot[8:12], boot[12:16], boot[16:20], boot[20:]))
        (self.folder / "boot_id").write_text(f"{dashed}\n", encoding="ascii")
        (self.folder / "vmstat").write_text(f"nr_free_pages 100000\noom_kill {self.oom_kills}\n", encoding="ascii")
        for name in ("cgroup.controllers", "cgroup.procs"):
            (self.folder / "cgroup" / name).touch()
        for folder in (self.folder / "cgroup").glob("**/memory.events*"):
            folder.unlink()
        for group, kills in self.groups.items():
            folder = self.folder / "cgroup" / group.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("memory.events", "memory.events.local"):
                events = f"low 0\nhigh 0\nmax 9\noom {kills}\noom_kill {kills}\noom_group_kill 0\n"
                (folder / name).write_text(events, encoding="ascii")


@contextlib.asynccontextmanager
async def machine(folder: Path, clock: Control, chance: random.Random) -> AsyncIterator[Machine]:
    """A machine until the block ends; all of it lies in `folder`."""
    for name in ("cgroup", "log", "ssh"):
        (folder / name).mkdir(parents=True)
    values = {"python": PYTHON, "standin": shlex.quote(str(STANDIN)), "folder": folder}
    tools = {name: TOOL.format(name=name, **values) for name in ("journalctl", "systemctl")}
    _services(folder)
    journal = Recording(folder, clock, chance)
    (folder / "date").write_text(DATE.format(folder=folder), encoding="ascii")
    (folder / "date").chmod(0o755)
    for name in ("boot_id", "vmstat", "uptime", "now"):
        (folder / name).touch()
    more = ENTER.format(folder=folder, date=shutil.which("date"))
    async with gated(folder / "gate") as gate, ssh_target(folder / "ssh", tools=tools, more=more) as target:
        one = Machine(target, journal, gate, folder, clock)
        one.write_counters()
        one.write_time()
        ticking = asyncio.create_task(one.tick())
        try:
            yield one
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)


def _services(folder: Path) -> None:
    shown = SHOWN.read_text(encoding="utf-8")
    (folder / "systemctl-show").write_text(shown, encoding="utf-8")
    names = re.findall(r"^Id=(.*\.service)$", shown, re.MULTILINE)
    lines = [f"{name} loaded active running {name}" for name in names]
    (folder / "systemctl-list-units").write_text("\n".join(lines) + "\n", encoding="utf-8")
