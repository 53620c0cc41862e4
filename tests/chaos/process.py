"""The bot as a process of its own, that one can measure and kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]
TICKS: Final = os.sysconf("SC_CLK_TCK")
READY_S: Final = 60.0


def environment(pycache: Path) -> dict[str, str]:
    """This process' environment, with byte code kept in `pycache`: a start compiles nothing but once, as after an install."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(pycache)}


def cpu_s(pid: int) -> float:
    """User and system time of a process and of the children it has waited for, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def status_bytes(pid: int, name: str) -> int:
    """One line of /proc/PID/status, such as `VmRSS`."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


class BotProcess:
    """One life of `memwarden run`."""

    class Gone(Exception):  # noqa: N818 - it is what a killed process is
        """It ended before it was ready; with its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, began_at: int) -> None:
        """Use `start`."""
        self._process = process
        self._log = log
        self._began_at = began_at

    @classmethod
    async def start(cls, settings: Path, pycache: Path, log: Path) -> Self:
        """Run it with these settings; what it logs is appended to `log`."""
        with log.open("ab") as sink:
            began_at = sink.tell()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bot", "--config", str(settings), "run"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=sink,
                cwd=ROOT,
                env=environment(pycache),
            )
        return cls(process, log, began_at)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def said(self) -> str:
        """What it logged in this life."""
        return self._log.read_bytes()[self._began_at :].decode(errors="replace")

    async def ready(self) -> float:
        """Wait until it is; gives the seconds of CPU it took. Raises Gone when it ends instead."""
        async with asyncio.timeout(READY_S):
            while " ready " not in self.said:
                if self._process.returncode is not None:
                    raise self.Gone(self.said)
                await asyncio.sleep(0.01)
        return cpu_s(self.pid)

    async def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(30):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise
