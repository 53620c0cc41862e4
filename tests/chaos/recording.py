"""A journal that grows by what was recorded: tests/recorded/debian12/journal, at other times, of other processes and boots.

The kernel's victims are read from the file again by a pattern of the tests' own: they are what must be told.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.chaos.control import Control

RECORDED: Final = Path(__file__).resolve().parents[1] / "recorded/debian12/journal"
KINDS: Final = ("cgroup-oom", "cgroup-oom-swap", "gunicorn-oom", "celery-oom", "global-oom")
# What is said of a victim, and by whom: only the kernel itself.
VICTIM: Final = re.compile(r"Killed process (\d+)")

Fields = dict[str, Any]


@cache
def recorded(kind: str) -> tuple[Fields, ...]:
    """The entries of one recorded kill, oldest first."""
    lines = (RECORDED / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def victims(lines: Sequence[bytes]) -> list[int]:
    """The pids that the kernel says it has killed, in order, each once."""
    found: dict[int, None] = {}
    for line in lines:
        entry = json.loads(line)
        said = VICTIM.search(str(entry.get("MESSAGE")))
        if said is not None and entry.get("_TRANSPORT") == "kernel" and entry.get("SYSLOG_FACILITY") == "0":
            found[int(said[1])] = None
    return list(found)


class Recording:
    """The journal's files on the target (as tests/emulators/journalctl.py reads them), and all that ever stood in them."""

    def __init__(self, folder: Path, clock: Control, chance: random.Random) -> None:
        """An empty journal in `folder`/log."""
        self.path = folder / "log" / "system.jsonl"
        self.path.touch()
        self.history = folder / "history.jsonl"
        """All that ever stood in it."""
        self.history.touch()
        self.all: list[bytes] = []
        self._clock = clock
        self._chance = chance
        self._begun: dict[int, int] = {}
        self._kept = self._current = 0
        self._archives = itertools.count(1)
        self._pids = itertools.count(500_001)
        self._users_pids = itertools.count(600_001)
        self._sequence = itertools.count(0x1000)
        self._file_id = self._id()
        self._last_us = 0
        self.boot_id = ""
        self.booted_us = 0
        self.reboot()

    def _id(self) -> str:
        return f"{self._chance.getrandbits(128):032x}"

    def reboot(self) -> None:
        """A new boot."""
        self.boot_id = self._id()
        self.booted_us = self._now_us() - 5_000_000

    def _now_us(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000)

    def happen(self, kind: str, *, programs: bool = True) -> int:
        """A recorded kill happens once more, to another process, its last line now; gives its pid. Without `programs` only the
        kernel and systemd speak of it."""
        pid = next(self._pids)
        entries = [entry for entry in recorded(kind) if programs or entry["_TRANSPORT"] == "kernel" or entry.get("_PID") == "1"]
        old = victims([json.dumps(entry).encode() for entry in entries])[0]
        first_us, last_us = (int(entries[at]["__REALTIME_TIMESTAMP"]) for at in (0, -1))
        end_us = self._now_us()
        begin_us = max(end_us - (last_us - first_us), self._last_us + 1000, self.booted_us)
        scale = (end_us - begin_us) / (last_us - first_us)
        lines = []
        for entry in entries:
            at_us = begin_us + int((int(entry["__REALTIME_TIMESTAMP"]) - first_us) * scale)
            lines.append(self._line(of_another(entry, old, pid), at_us))
        self._begun[pid] = len(self.all)
        self._append(lines)
        return pid

    def storm(self, count: int, kind: str = "cgroup-oom") -> list[int]:
        """Many at once: after ten dumps in five seconds the kernel (mm/oom_kill.c) prints only the line that it does not limit."""
        bare = next(entry for entry in recorded(kind) if VICTIM.search(str(entry["MESSAGE"])))
        old = victims([json.dumps(bare).encode()])[0]
        pids = [next(self._pids) for _ in range(count)]
        self._begun |= dict.fromkeys(pids, len(self.all))
        self._append([self._line(of_another(bare, old, pid), self._now_us()) for pid in pids])
        return pids

    def stage(self, count: int, uids: Sequence[int], *, summary_every: int) -> None:
        """Users' kills in slices of their own, in turn, as one was recorded. Of the dumps that are rate-limited only the summary
        is here, and only for every so manieth: it names the cgroup."""
        said = [
            entry for entry in recorded("session-oom") if re.search("oom-kill:|Killed process|OOM killer", str(entry["MESSAGE"]))
        ]
        lines = []
        for n, pid in zip(range(count), self._users_pids, strict=False):
            uid = uids[n % len(uids)]
            for entry in said:
                if n % (summary_every * len(uids)) < len(uids) or "oom-kill:" not in str(entry["MESSAGE"]):
                    other = of_another(entry, 364, pid)
                    other["MESSAGE"] = re.sub(r"(?:(?<=user-)|(?<=UID:)|(?<=uid=))1000\b", str(uid), other["MESSAGE"])
                    lines.append(self._line(other, self._now_us()))
        self._append(lines)

    def cursor_of(self, pid: int) -> str:
        """The cursor of the first line that names it as a victim."""
        names = (f"Killed process {pid} ".encode(), f",pid={pid},uid=".encode())
        said = next(line for line in self.all if any(name in line for name in names))
        return str(json.loads(said)["__CURSOR"])

    def noise(self, count: int) -> None:
        """Lines that tell of nothing."""
        some = [entry for entry in recorded("gunicorn-oom") if "cron" in str(entry.get("_SYSTEMD_UNIT"))]
        self._append([self._line(self._chance.choice(some), self._now_us()) for _ in range(count)])

    def rotate(self) -> None:
        """What was written is archived, and another file begun."""
        self.path.rename(self.path.with_name(f"system@{next(self._archives):04}.jsonl"))
        self.path.touch()
        self._current = len(self.all)

    def crash(self) -> None:
        """As after a power cut: the file is put aside, and the next one counts anew."""
        self.rotate()
        self._file_id = self._id()

    def vacuum(self, but: Collection[int]) -> None:
        """What was archived is gone, but for what begins with the oldest of these victims' lines."""
        self.rotate()
        self._kept = max(self._kept, min([len(self.all), *(self._begun[pid] for pid in but)]))
        kept = self.all[self._kept :]
        old = list(self.path.parent.glob("system@*.jsonl"))
        if kept:
            # The followers must not see a moment without it.
            new = self.path.with_name(f"system@{next(self._archives):04}.new")
            new.write_bytes(b"".join(line + b"\n" for line in kept))
            new.rename(new.with_suffix(".jsonl"))
        for path in old:
            path.unlink()

    def _line(self, entry: Mapping[str, Any], at_us: int) -> bytes:
        at_us = self._last_us = max(at_us, self._last_us + 1)
        monotonic_us = at_us - self.booted_us
        cursor = (
            f"s={self._file_id};i={next(self._sequence):x};b={self.boot_id};m={monotonic_us:x};t={at_us:x}"
            f";x={self._chance.getrandbits(64):x}"
        )
        times = {"__REALTIME_TIMESTAMP": str(at_us), "__MONOTONIC_TIMESTAMP": str(monotonic_us)}
        if "_SOURCE_MONOTONIC_TIMESTAMP" in entry:
            times["_SOURCE_MONOTONIC_TIMESTAMP"] = str(monotonic_us)
        if "_SOURCE_REALTIME_TIMESTAMP" in entry:
            times["_SOURCE_REALTIME_TIMESTAMP"] = str(at_us)
        return json.dumps({**entry, **times, "__CURSOR": cursor, "_BOOT_ID": self.boot_id}, ensure_ascii=False).encode()

    def _append(self, lines: Sequence[bytes]) -> None:
        self.all += lines
        for path in (self.history, self.path):
            with path.open("ab") as file:
                file.write(b"".join(line + b"\n" for line in lines))


def of_another(entry: Mapping[str, Any], old: int, new: int) -> Fields:
    """The entry with another pid wherever the old one is named as one."""
    message = entry.get("MESSAGE")
    if not isinstance(message, str):
        return dict(entry)
    return {**entry, "MESSAGE": re.sub(rf"(?<![\w.]){old}(?![\w.])", str(new), message)}
