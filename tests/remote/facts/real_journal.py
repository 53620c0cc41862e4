"""Journal files of systemd's own making, for its own journalctl: from entries as `journalctl -o json` prints them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

REMOTE = "/lib/systemd/systemd-journal-remote"
JOURNALCTL = "/usr/bin/journalctl"


def write_journal(path: Path, entries: Iterable[Mapping[str, object]]) -> None:
    """Append entries to a journal file (their cursors are made anew, with a sequence of the file's own)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(_exported(entry) for entry in entries)
    subprocess.run([REMOTE, "-o", str(path), "-"], input=data, check=True, capture_output=True, timeout=60)


def _exported(entry: Mapping[str, object]) -> bytes:
    """The export format of systemd: a value with a line feed or other control characters has its length before it."""
    text = b""
    for name, value in entry.items():
        for one in value if isinstance(value, list) and not all(isinstance(byte, int) for byte in value) else [value]:
            raw = bytes(one) if isinstance(one, list) else str(one).encode()
            plain = raw.isascii() and raw.decode().isprintable()
            text += name.encode() + (b"=" + raw if plain else b"\n" + len(raw).to_bytes(8, "little") + raw) + b"\n"
    return text + b"\n"


def read_journal(*arguments: str) -> list[dict[str, object]]:
    """What journalctl prints."""
    done = subprocess.run([JOURNALCTL, "-o", "json", "--no-pager", *arguments], capture_output=True, check=False, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]
