"""A host of files and stand-ins whose journal is followed as it grows: by the stand-in journalctl, or by the real one."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from remote.facts.journal import Entry, Notice, WatchReader
from tests.emulators.journal_store import JournalStore
from tests.remote.facts.real_journal import JOURNALCTL, read_journal, write_journal

BOOT = "9f870fe871b944079020073e4a17f244"
OLD_BOOT = "a8782d3e3ac14b53839ea89be36068a9"
KERNEL = {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0"}
NOW_S = 1_795_480_000
UP_S = 4_000
BOOT_US = (NOW_S - UP_S) * 1_000_000
DEADLINE_S = 30.0


class Log(Protocol):
    """What a test writes to."""

    def write(
        self,
        message: object,
        fields: Mapping[str, str],
        *,
        up_us: int,
        boot_id: str = BOOT,
        at_us: int | None = None,
        name: str = "system",
    ) -> str:
        """Append an entry; its cursor."""
        ...

    def remove(self, name: str) -> None:
        """Lose a whole file, as vacuuming does."""
        ...


class StandIn:
    """The stand-in's files."""

    def __init__(self, host: Path) -> None:
        self.store = JournalStore(host / "journal")
        self.store.install(host / "bin")

    def write(
        self,
        message: object,
        fields: Mapping[str, str],
        *,
        up_us: int,
        boot_id: str = BOOT,
        at_us: int | None = None,
        name: str = "system",
    ) -> str:
        self.store.boot_id = boot_id
        at_us = BOOT_US + up_us if at_us is None else at_us
        return self.store.write(message, at_us=at_us, monotonic_us=up_us, name=name, fields=fields)

    def remove(self, name: str) -> None:
        self.store.path(name).unlink()


class Real:
    """Real journal files, and the real journalctl told where they lie."""

    def __init__(self, host: Path) -> None:
        self._folder = host / "journal"
        self._folder.mkdir(exist_ok=True)
        (host / "bin").mkdir(exist_ok=True)
        program = host / "bin/journalctl"
        program.write_text(f'#!/bin/sh\nexec {JOURNALCTL} --directory={self._folder} "$@"\n')
        program.chmod(0o755)

    def write(
        self,
        message: object,
        fields: Mapping[str, str],
        *,
        up_us: int,
        boot_id: str = BOOT,
        at_us: int | None = None,
        name: str = "system",
    ) -> str:
        path = self._folder / f"{name}.journal"
        at_us = BOOT_US + up_us if at_us is None else at_us
        entry = {"__REALTIME_TIMESTAMP": str(at_us), "__MONOTONIC_TIMESTAMP": str(up_us), "_BOOT_ID": boot_id, "MESSAGE": message}
        write_journal(path, [{**entry, **fields}])
        return str(read_journal(f"--file={path}", "-n", "1")[0]["__CURSOR"])

    def remove(self, name: str) -> None:
        (self._folder / f"{name}.journal").unlink()

    def fill(self, entries: Iterable[Mapping[str, object]]) -> None:
        """Append entries as they were recorded."""
        write_journal(self._folder / "system.journal", entries)


class Host:
    """Files and programs that a script finds in place of the machine's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "proc/sys/kernel/random", "etc", "var/log/journal/m", "dev"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "etc/machine-id").write_text("m\n")
        self.boot(BOOT, UP_S)
        self.clock(NOW_S)
        self.program("date", f"case $1 in +%z) echo +0300 ;; *) cat {folder}/now ;; esac")
        self.program("dmesg", "exit 1")  # never this machine's own buffer

    def boot(self, boot_id: str, up_s: int) -> None:
        """Which boot it is, and for how long."""
        dashed = "-".join((boot_id[:8], boot_id[8:12], boot_id[12:16], boot_id[16:20], boot_id[20:]))
        (self.folder / "proc/sys/kernel/random/boot_id").write_text(f"{dashed}\n")
        (self.folder / "proc/uptime").write_text(f"{up_s}.25 1.00\n")

    def clock(self, now_s: int) -> None:
        """What its clock says."""
        (self.folder / "now").write_text(f"{now_s}\n")

    def program(self, name: str, body: str) -> None:
        """A program that stands first in PATH."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def script(self, text: str) -> str:
        """The script with this host's files."""
        for name in ("/proc/", "/etc/", "/var/log", "/run/log", "/dev/kmsg"):
            text = text.replace(name, f"{self.folder}{name}")
        # A busybox that has its programs within itself does not look for them in PATH.
        for program in ("date", "sleep", "dmesg"):
            if (self.folder / "bin" / program).exists():
                text = re.sub(rf"(?<=[(\s]){program} (?=[-+0-9$])", f"{self.folder}/bin/{program} ", text)
        return text

    def environment(self, shell: tuple[str, ...]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The shell, and where it finds programs: for busybox nothing but its own and the stand-ins."""
        path = f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if shell[0] == "busybox":
            applets = self.folder / "applets"
            applets.mkdir(exist_ok=True)
            subprocess.run(["busybox", "--install", "-s", str(applets)], check=True)
            path, shell = f"{self.folder}/bin:{applets}", (str(applets / "sh"),)
        return shell, {"PATH": path, "LC_ALL": "C", "TZ": "UTC"}

    def answer(self, shell: tuple[str, ...], script: str) -> str:
        """What a script that ends prints."""
        words, environment = self.environment(shell)
        done = subprocess.run(
            [*words, "-c", self.script(script)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            check=True,
            timeout=60,
        )
        return done.stdout.decode("utf-8", "surrogateescape")

    @contextmanager
    def watching(self, shell: tuple[str, ...], script: str, cursor: str | None = None) -> Iterator[Watching]:
        """Run a script that prints for ever, and end all it started."""
        words, environment = self.environment(shell)
        running = subprocess.Popen(
            [*words, "-c", self.script(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        try:
            yield Watching(running, WatchReader(cursor))
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()


class Watching:
    """What a running script has said."""

    def __init__(self, running: subprocess.Popen[bytes], reader: WatchReader) -> None:
        self._running = running
        self._reader = reader
        self._rest = b""
        self._lines: list[bytes] = []

    def line(self) -> bytes | None:
        """The next line; None at the end. Fails when nothing comes in time."""
        assert self._running.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._running.stdout, selectors.EVENT_READ)
            while not self._lines:
                assert selector.select(DEADLINE_S), f"nothing came after {self._rest!r}"
                data = os.read(self._running.stdout.fileno(), 65536)
                if not data:
                    return None
                *self._lines, self._rest = (self._rest + data).split(b"\n")
        return self._lines.pop(0)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._running.poll() is None

    def next(self) -> Entry | Notice | None:
        """The next that is an entry or a notice; None at the end."""
        while (line := self.line()) is not None:
            said = self._reader.read(line)
            if said is not None:
                return said
        return None

    def said(self, count: int) -> list[str]:
        """So many more: entries as their messages, notices as `= word detail`."""
        return [text(self.next()) for _ in range(count)]

    def rest(self) -> list[str]:
        """All to the end."""
        said = []
        while (one := self.next()) is not None:
            said.append(text(one))
        return said


def text(said: Entry | Notice | None) -> str:
    """Short, to be compared."""
    match said:
        case Entry():
            return said.message
        case Notice(word, detail):
            return f"= {word} {detail}".strip()
        case _:
            return "(end)"
