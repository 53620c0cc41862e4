"""A stand-in for journalctl over JSON lines that may grow, be rotated, vacuumed or replaced while it follows them.

Use. `JournalStore(folder)` of `tests.emulators.journal_store` keeps the files and `install(folder_of_programs)` puts a
`journalctl` there, to stand first in PATH (our channels start with `env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin`: a target
of the tests has to set its own). Alone: `python3 -I journalctl.py STORE [ARGUMENTS OF journalctl]`.

A store is a folder:
- `NAME.jsonl`: one journal file, a line an entry as `journalctl -o json` prints it, oldest first; a line counts once its line feed
  is there. All files of the folder are one journal. Append to it, rename it (rotation), remove it (vacuum), put another in its
  place, at any time.
- `NAME.ns/*.jsonl`: the journal of the namespace NAME.
- `version`: what `--version` says (`systemd 252 …` with +PCRE2 if the file is not there): before 236 there is no --output-fields,
  before 237 or with -PCRE2 no --grep, before 245 no --namespace.
- `hint`: what a call without -q says on stderr (the hint about hidden messages, `No journal files were found.`).
- `die`: touch it, and all that follow now end with `Bad message`, as during a rotation (systemd#43649).

True to systemd 252 (tests/emulators/test_journalctl.py compares it with the real one on real journal files):
- `--cursor` is inclusive. A cursor that is not there is no error: by sequence number in files of the same sequence, else by the
  kernel's time in files that have its boot, else by the wall clock. One from the future gives nothing, for ever.
- `--after-cursor` with a filter loses an entry (systemd#30288).
- Fields match as `A=1 B=2 + C=3` do: the same field is or, others are and, `+` is or.
- `-f` shows the last ten unless --no-tail, --since or -n is given.
What it does not know ends it with status 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

VERSION = "systemd 252 (252.39-1~deb12u2)\n+PAM +AUDIT +SELINUX +PCRE2 -BPF_FRAMEWORK default-hierarchy=unified"
_ALWAYS = ("__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID")
_VALUED = {"-n": "lines", "-o": "output", "-u": "unit", "--unit": "unit", "--lines": "lines", "--output": "output"}
_VALUED |= {f"--{name}": name for name in ("cursor", "after-cursor", "since", "until", "output-fields", "grep", "case-sensitive")}
_VALUED |= {f"--{name}": name for name in ("namespace", "boot")}
_FLAGS = {"-f": "follow", "--follow": "follow", "-r": "reverse", "--reverse": "reverse", "-q": "quiet", "--no-tail": "no-tail"}
_FLAGS |= {"--no-pager": "", "--version": "version", "--quiet": "quiet"}
_WATCHED = 0x2 | 0x40 | 0x80 | 0x100 | 0x200  # IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE


class Options:
    """The command line."""

    def __init__(self, words: list[str]) -> None:
        self.values: dict[str, str] = {}
        self.flags: set[str] = set()
        self.matches: list[list[tuple[str, str]]] = [[]]
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            name, equals, value = word.partition("=")
            if word in _FLAGS:
                self.flags.add(_FLAGS[word])
            elif word == "+":
                self.matches.append([])
            elif word in _VALUED and waiting:
                self.values[_VALUED[word]] = waiting.pop(0)
            elif word.startswith("--") and equals and name in _VALUED:
                self.values[_VALUED[name]] = value
            elif not word.startswith("-") and equals:
                self.matches[-1].append((name, value))
            else:
                fail(f"journalctl: unrecognized option '{word}'")

    def accepts(self) -> Callable[[dict[str, Any]], bool] | None:
        """What the fields' matches let through; None for all."""
        groups = []
        for pairs in self.matches:
            fields: dict[str, set[str]] = {}
            for name, value in pairs:
                fields.setdefault(name, set()).add(value)
            if fields:
                groups.append(list(fields.items()))
        unit, boot = self.values.get("unit"), self.values.get("boot")
        if unit:
            groups += [[("_SYSTEMD_UNIT", {unit})], [("UNIT", {unit}), ("_PID", {"1"})]]
        if not groups and not boot:
            return None

        def accepted(entry: dict[str, Any]) -> bool:
            if boot and entry.get("_BOOT_ID") != boot:
                return False
            return not groups or any(all(has(entry, name, values) for name, values in group) for group in groups)

        return accepted


def has(entry: dict[str, Any], name: str, values: set[str]) -> bool:
    value = entry.get(name)
    return value in values if isinstance(value, str) else isinstance(value, list) and any(one in values for one in value)


class Key:
    """Where an entry or a cursor stands."""

    __slots__ = ("boot", "monotonic", "number", "realtime", "sequence", "text")

    def __init__(self, cursor: str) -> None:
        self.text = cursor
        parts = dict(part.split("=", 1) for part in cursor.split(";") if "=" in part)
        self.sequence = parts.get("s", "")
        self.number = int(parts.get("i", "0"), 16)
        self.boot = parts.get("b", "")
        self.monotonic = int(parts.get("m", "0"), 16)
        self.realtime = int(parts.get("t", "0"), 16)

    def compare(self, other: Key) -> int:
        """Below, at or above 0 as sd-journal sorts: by sequence, else by the boot's clock, else by the wall's."""
        if self.sequence == other.sequence and self.number != other.number:
            return self.number - other.number
        if self.boot == other.boot and self.monotonic != other.monotonic:
            return self.monotonic - other.monotonic
        return self.realtime - other.realtime


class File:
    """One journal file: its entries that match, as far as it is written."""

    def __init__(self, path: str, accepts: Callable[[dict[str, Any]], bool] | None) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY)
        self._accepts = accepts
        self._rest = b""
        self.entries: list[tuple[Key, dict[str, Any]]] = []
        self.boots: set[str] = set()
        self.sequence = ""
        self.position = -1
        """Of the entry that was shown last; -1 before the first."""

    def grow(self) -> bool:
        """Read what was added; whether there was something."""
        data = b"".join(iter(lambda: os.read(self._fd, 1 << 20), b""))
        if not data:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            entry = json.loads(line)
            boot = entry.get("_BOOT_ID", "")
            self.boots.add(boot)
            if self._accepts is None or self._accepts(entry):
                self.entries.append((Key(entry["__CURSOR"]), entry))
            if not self.sequence:
                self.sequence = Key(entry["__CURSOR"]).sequence
        return True

    def seek(self, place: Callable[[File, Key], bool]) -> int:
        """The first entry at or behind a place."""
        return next((at for at, (key, _) in enumerate(self.entries) if place(self, key)), len(self.entries))

    def close(self) -> None:
        os.close(self._fd)


def at_cursor(cursor: Key) -> Callable[[File, Key], bool]:
    def reached(file: File, key: Key) -> bool:
        if file.sequence == cursor.sequence:
            return key.number >= cursor.number
        if cursor.boot in file.boots:
            return key.boot == cursor.boot and key.monotonic >= cursor.monotonic
        return key.realtime >= cursor.realtime

    return reached


class Journal:
    """All files, as one that is read forward from a place."""

    def __init__(self, store: str, options: Options) -> None:
        self._store = store
        self._accepts = options.accepts()
        self._every = options.values.get("namespace") == "*"
        self._files: dict[tuple[int, int], File] = {}
        self._place: Callable[[File, Key], bool] = lambda _file, _key: True
        self._shown: Key | None = None
        self.look()

    def folders(self) -> list[str]:
        spaces = [entry.path for entry in os.scandir(self._store) if entry.is_dir() and entry.name.endswith(".ns")]
        return [self._store, *sorted(spaces)] if self._every else [self._store]

    def look(self) -> None:
        """Take up files that came, leave those that went, read on in the others."""
        there: set[tuple[int, int]] = set()
        for folder in self.folders():
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                if not entry.name.endswith(".jsonl"):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    there.add((stat.st_dev, stat.st_ino))
                    if (stat.st_dev, stat.st_ino) not in self._files:
                        self._files[stat.st_dev, stat.st_ino] = File(entry.path, self._accepts)
        for gone in self._files.keys() - there:
            self._files.pop(gone).close()
        for file in self._files.values():
            file.grow()

    def boots(self) -> set[str]:
        return {boot for file in self._files.values() for boot in file.boots}

    def seek(self, place: Callable[[File, Key], bool]) -> None:
        self._place = place

    def all(self) -> list[dict[str, Any]]:
        """Everything, in order."""
        return list(self.forward())

    def forward(self) -> Iterator[dict[str, Any]]:
        """What comes next, as far as is written; may be asked again when more is."""
        while True:
            best: tuple[Key, File, int] | None = None
            for file in self._files.values():
                at = self._next(file)
                if at < len(file.entries) and (best is None or file.entries[at][0].compare(best[0]) < 0):
                    best = (file.entries[at][0], file, at)
            if best is None:
                return
            self._shown, file, file.position = best
            yield file.entries[file.position][1]

    def _next(self, file: File) -> int:
        at = file.position + 1 if file.position >= 0 else file.seek(self._place)
        while self._shown is not None and at < len(file.entries) and file.entries[at][0].compare(self._shown) <= 0:
            at += 1
        return at


def fail(text: str) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    sys.exit(1)


def message(entry: dict[str, Any]) -> str | None:
    value = entry.get("MESSAGE")
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, list):
        return str(value[0]) if value else None
    return value if isinstance(value, str) else None


class Show:
    """Prints what passes."""

    def __init__(self, options: Options) -> None:
        self._fields = options.values.get("output-fields", "").split(",") if "output-fields" in options.values else None
        pattern = options.values.get("grep")
        lower = pattern is not None and pattern == pattern.lower() and options.values.get("case-sensitive") != "yes"
        self._pattern = None if pattern is None else re.compile(pattern, re.IGNORECASE if lower else 0)
        until = options.values.get("until", "")
        self._until_us = int(until.removeprefix("@")) * 1_000_000 if until else None
        self._quiet = int(options.values.get("lines", "1")) == 0

    def wanted(self, entry: dict[str, Any]) -> bool:
        if self._until_us is not None and int(entry["__REALTIME_TIMESTAMP"]) > self._until_us:
            return False
        if self._pattern is None:
            return True
        text = message(entry)
        return text is not None and self._pattern.search(text) is not None

    def line(self, entry: dict[str, Any]) -> str:
        if self._fields is not None:
            entry = {name: entry[name] for name in (*_ALWAYS, *self._fields) if name in entry}
        return json.dumps(entry, separators=(",", ":")) + "\n"

    def out(self, lines: list[str]) -> None:
        data = memoryview("".join(lines).encode())
        while data:
            data = data[os.write(1, data) :]


class Bell:
    """Wakes up when a folder of the store changes, or nobody reads any more."""

    def __init__(self, folders: list[str]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(0)
        for folder in folders:
            libc.inotify_add_watch(self._fd, folder.encode(), _WATCHED)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(1, 0)

    def wait(self) -> None:
        for fd, _ in self._poll.poll():
            if fd == 1:
                sys.exit(0)
            os.read(self._fd, 65536)


def died(store: str, since_ns: int) -> bool:
    return any(entry.name == "die" and entry.stat().st_mtime_ns > since_ns for entry in os.scandir(store))


def start(journal: Journal, options: Options) -> list[dict[str, Any]]:
    """Seek, and what is shown at once."""
    values = options.values
    follow = "follow" in options.flags
    plain = follow and not ({"since", "lines"} & values.keys()) and "no-tail" not in options.flags
    lines = 10 if plain else int(values["lines"]) if "lines" in values and values["lines"] != "all" else None
    cursor = values.get("cursor") or values.get("after-cursor")
    if cursor:
        key = Key(cursor)
        journal.seek(at_cursor(key))
        entries = journal.forward()
        if "after-cursor" in values:
            next(entries, None)
        if follow:
            return list(entries)
        return [entry for entry, _ in zip(entries, range(lines), strict=False)] if lines is not None else list(entries)
    if "since" in values:
        since_us = int(values["since"].removeprefix("@")) * 1_000_000
        journal.seek(lambda _file, key: key.realtime >= since_us)
    found = journal.all()
    return found if lines is None else found[len(found) - min(lines, len(found)) :]


def read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, encoding="utf-8") as file:
        return file.read().strip()


def check(version: str, options: Options) -> None:
    """What this version does not know ends it."""
    number = int(version.split()[1])
    for name, first in (("output-fields", 236), ("grep", 237), ("case-sensitive", 237), ("namespace", 245)):
        if name in options.values and number < first:
            fail(f"journalctl: unrecognized option '--{name}'")
    if "grep" in options.values and "+PCRE2" not in version:
        fail("Compiled without pattern matching support")


def main(store: str, words: list[str]) -> None:
    options = Options(words)
    version = read(f"{store}/version") or VERSION
    if "version" in options.flags:
        sys.stdout.write(version + "\n")
        return
    check(version, options)
    hint = read(f"{store}/hint")
    if hint and "quiet" not in options.flags:
        sys.stderr.write(hint + "\n")
    since_ns = time.time_ns()
    follow = "follow" in options.flags
    # Before the first look: nothing may come between.
    journal = Journal(store, options)
    bell = Bell(journal.folders()) if follow else None
    boot = options.values.get("boot")
    if boot and boot not in journal.boots():
        fail(f"Data from the specified boot ({boot}) is not available: No such boot ID in journal")
    show = Show(options)
    journal.look()
    found = [entry for entry in start(journal, options) if show.wanted(entry)]
    show.out([show.line(entry) for entry in (reversed(found) if "reverse" in options.flags else found)])
    while bell is not None:
        journal.look()
        show.out([show.line(entry) for entry in journal.forward() if show.wanted(entry)])
        bell.wait()
        if died(store, since_ns):
            fail("Failed to iterate through journal: Bad message")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2:])
