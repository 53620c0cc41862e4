"""The files behind the stand-in journalctl: what a journald would write, rotate and vacuum."""

from __future__ import annotations

import json
import shlex
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

SCRIPT = Path(__file__).with_name("journalctl.py")
BOOT = "9f870fe871b944079020073e4a17f244"


class JournalStore:
    """A journal in a folder. Times in microseconds; whoever writes says them, so that a clock may jump."""

    def __init__(self, folder: Path, *, boot_id: str = BOOT) -> None:
        """An empty journal."""
        self.folder = folder
        self.boot_id = boot_id
        folder.mkdir(parents=True, exist_ok=True)
        self._sequences: dict[str, tuple[str, int]] = {}

    def install(self, programs: Path) -> Path:
        """Put a `journalctl` that reads this store into a folder for PATH."""
        programs.mkdir(parents=True, exist_ok=True)
        program = programs / "journalctl"
        words = shlex.join([sys.executable, "-I", "-S", str(SCRIPT), str(self.folder)])
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        return program

    def path(self, name: str = "system", namespace: str = "") -> Path:
        """A journal file."""
        folder = self.folder / f"{namespace}.ns" if namespace else self.folder
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.jsonl"

    def write(
        self,
        message: object,
        *,
        at_us: int,
        monotonic_us: int | None = None,
        name: str = "system",
        namespace: str = "",
        fields: Mapping[str, object] | None = None,
    ) -> str:
        """Append one entry as journald would; its cursor."""
        sequence, number = self._sequences.get(f"{namespace}/{name}", (uuid.uuid4().hex, 0))
        self._sequences[f"{namespace}/{name}"] = (sequence, number + 1)
        monotonic_us = at_us % 10**12 if monotonic_us is None else monotonic_us
        cursor = f"s={sequence};i={number + 1:x};b={self.boot_id};m={monotonic_us:x};t={at_us:x};x={number:x}"
        entry = {
            "__CURSOR": cursor,
            "__REALTIME_TIMESTAMP": str(at_us),
            "__MONOTONIC_TIMESTAMP": str(monotonic_us),
            "_BOOT_ID": self.boot_id,
            "MESSAGE": message,
            **(fields or {}),
        }
        with self.path(name, namespace).open("ab", buffering=0) as file:
            file.write(json.dumps(entry).encode() + b"\n")
        return cursor

    def kernel(self, message: str, *, at_us: int, monotonic_us: int | None = None) -> str:
        """A line of the kernel itself."""
        fields = {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel"}
        return self.write(message, at_us=at_us, monotonic_us=monotonic_us, fields=fields)

    def rotate(self, name: str = "system", namespace: str = "") -> Path:
        """Archive the file that is written; the next entry begins another of the same sequence."""
        current = self.path(name, namespace)
        number = len(list(current.parent.glob(f"{name}@*.jsonl")))
        archived = current.with_name(f"{name}@{number:04}.jsonl")
        current.rename(archived)
        current.touch()
        return archived

    def vacuum(self) -> None:
        """Remove all archived files."""
        for path in self.folder.rglob("*@*.jsonl"):
            path.unlink()

    def crash(self, name: str = "system", namespace: str = "") -> None:
        """As after a power cut: the file is put aside, and a new one begins another sequence."""
        self.rotate(name, namespace)
        self._sequences.pop(f"{namespace}/{name}", None)

    def die(self) -> None:
        """End all that follow, as a rotation may."""
        (self.folder / "die").touch()
