"""What real programs printed when their processes were killed: see tests/recorded/README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services.base import Sign
from tests.remote.findings.scene import process

FOLDER = Path(__file__).parents[2] / "recorded" / "programs"


@dataclass(frozen=True)
class Line:
    """One line: who wrote it, in which part of the story."""

    pid: int
    text: str
    part: str

    @property
    def entry(self) -> Entry:
        return said(self.text, self.pid)


def said(text: str, pid: int | None) -> Entry:
    """A line as journald hands it on."""
    at = datetime(2026, 11, 25, 10, tzinfo=UTC)
    return Entry("", at, "b" * 32, 0, text, transport="stdout", pid=pid, system_unit="site.service")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def lines(name: str) -> Iterator[Line]:
    part = ""
    for raw in _raw(name):
        if raw.startswith("## "):
            part = raw.removeprefix("## ")
        elif raw[:1].isdigit():
            pid, _, text = raw.partition(" ")
            yield Line(int(pid), text, part)


def processes(name: str) -> tuple[Process, ...]:
    """The processes that ran, the main one first; the first is everybody else's parent."""
    found: list[Process] = []
    for raw in _raw(name):
        if raw.startswith("@ "):
            _, pid, exe, argv = raw.split(" ", 3)
            found.append(process(int(pid), tuple(json.loads(argv)), exe=exe, ppid=found[0].pid if found else 1))
    return tuple(found)


def _raw(name: str) -> list[str]:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("\n")


def short(sign: Sign) -> str:
    """A sign in one line, for expectations that can be read beside the recording."""
    told = [
        str(sign.pid or ""),
        f"by {sign.signal}" if sign.what in {"killed", "lost"} else "",
        f"after {sign.limit_s:g} s" if sign.limit_s else "",
        f"{sign.rss_bytes} B" if sign.rss_bytes else "",
        f"({sign.name})" if sign.name else "",
        sign.task or sign.version,
    ]
    return " ".join(word for word in (sign.what, *told) if word)
