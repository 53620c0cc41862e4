"""How soon a kill is told: from its line coming out of the target's journal to the request leaving for the chat; also in a flood."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench.table import show
from tests.chaos.kills import TOLD_S, World, pids, world
from tests.chaos.nursery import Nursery
from tests.chaos.process import cpu_s, status_bytes
from tests.chaos.recording import Fields, recorded

pytestmark = [pytest.mark.bench, pytest.mark.asyncio(loop_scope="session")]

MB: Final = 1 << 20
KILLS, WARM, QUIET_S = 60, 5, 0.3
MEDIAN_LIMIT_S, P95_LIMIT_S = 0.025, 0.060
FLOOD: Final = Path(__file__).with_name("flood.py")
FLOOD_S: Final = float(os.environ.get("MEMWARDEN_FLOOD_S") or 600)
RATE: Final = 5000
KILL_EVERY_S: Final = 20.0
DELAY_LIMIT_S, CPU_LIMIT, GROWTH_LIMIT_BYTES = 1.0, 0.10, 8 * MB
GUNICORN: Final = "teaching_panel.service"


def final(one: World, pid: int) -> bool:
    """Whether the message that tells of this kill waits for nothing more."""
    return any(pid in pids(message.text) and "This verdict is final." in message.text for message in one.shown())


async def test_a_kill_is_told_at_once(tmp_path: Path, lives: Nursery, template: Path) -> None:
    async with world(tmp_path / "world", lives, template, random.Random(1), every_s=15, direct=True) as one:
        one.machine.stamp()
        one.machine.journal.noise(3)
        await one.begin()
        await one.listens()
        victims = []
        for _ in range(WARM + KILLS):
            victims.append(one.machine.happen("cgroup-oom"))
            await one.all_told()
            one.clock.go(minutes=10)  # so that each has a message of its own
            await one.telegram.wait_for(functools.partial(final, one, victims[-1]), TOLD_S)
            await one.quiet(QUIET_S)
        stamps = one.machine.stamps()
        delays_s = sorted(one.told_at(pid) - stamps[one.machine.journal.cursor_of(pid)] for pid in victims[WARM:])
        sent = len(one.shown())
        await one.end()
    median, p95 = statistics.median(delays_s), delays_s[int(len(delays_s) * 0.95)]
    rows = [[f"{1000 * delay:.1f}" for delay in (delays_s[0], median, p95, delays_s[-1])]]
    title = f"From a kill's line leaving journalctl to the request for the chat, {KILLS} kills, {sent} messages, loopback"
    show(f"{title} (limits: median {1000 * MEDIAN_LIMIT_S:.0f} ms, p95 {1000 * P95_LIMIT_S:.0f} ms)",
         ["best ms", "median", "p95", "worst"], rows)  # fmt: skip
    assert sent >= KILLS
    assert median <= MEDIAN_LIMIT_S
    assert p95 <= P95_LIMIT_S


def _application(message: str, pid: int) -> Fields:
    """A line that the site's gunicorn writes, or a worker of it."""
    line = next(entry for entry in recorded("gunicorn-timeout") if entry.get("_SYSTEMD_UNIT") == GUNICORN)
    kept: dict[str, Any] = {name: value for name, value in line.items() if not name.startswith("__")}
    return {**kept, "MESSAGE": message, "_PID": str(pid)}


def _times(one: World) -> str:
    return one.clock.now().strftime("[%Y-%m-%d %H:%M:%S +0000]")


MAIN, WORKER = 364, 366
FLOODS: Final = {
    # A worker that says what its master would, and a master that says nothing of kills: neither leaves the host.
    "dropped-on-the-host": (
        ("@T@ [366] [CRITICAL] WORKER TIMEOUT (pid:@N@)", WORKER),
        ('10.0.0.@N@ - - "GET /lessons/@N@/ HTTP/1.1" 200 5316', MAIN),
        ("Worker (pid:@N@) was sent SIGKILL! Perhaps out of memory?", WORKER),
    ),
    # A master that is not the one it was: each line passes all that narrows.
    "of-a-hostile-main-process": (
        ("@T@ [364] [CRITICAL] WORKER TIMEOUT (pid:@N@)", MAIN),
        ("@T@ [364] [ERROR] Worker (pid:@N@) was sent SIGKILL! Perhaps out of memory?", MAIN),
    ),
}


@dataclass
class Measured:
    """What is seen during a flood."""

    kills: list[tuple[int, float]] = field(default_factory=list)
    rss_bytes: list[tuple[float, int]] = field(default_factory=list)
    cpu_s: float = 0.0
    lines: int = 0
    took_s: float = 0.0


async def _flood(one: World, lines: Sequence[tuple[str, int]]) -> Measured:
    """Kills now and then while lines pour in."""
    entries = [
        {**_application(text.replace("@T@", _times(one)), pid), "_BOOT_ID": one.machine.journal.boot_id} for text, pid in lines
    ]
    offset_s = (one.clock.now() - datetime.now(UTC)).total_seconds()
    order = {
        "rate": RATE,
        "seconds": FLOOD_S,
        "offset_s": offset_s,
        "booted_us": one.machine.journal.booted_us,
        "entries": entries,
    }
    measured, pid = Measured(), one.pid
    cpu_before_s, began = cpu_s(pid), time.monotonic()
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-IS", str(FLOOD), str(one.machine.folder / "log"), json.dumps(order)), stdout=asyncio.subprocess.PIPE
    )
    told = asyncio.create_task(writer.communicate())
    while not told.done():
        measured.rss_bytes.append((time.monotonic() - began, status_bytes(pid, "VmRSS")))
        measured.kills.append((one.machine.happen("gunicorn-oom"), time.monotonic()))
        await asyncio.wait([told], timeout=min(KILL_EVERY_S, FLOOD_S / 4))
    measured.cpu_s = cpu_s(pid) - cpu_before_s
    measured.rss_bytes.append((time.monotonic() - began, status_bytes(pid, "VmRSS")))
    victims = {victim for victim, _ in measured.kills}
    await one.telegram.wait_for(lambda: one.ever_told() >= victims, TOLD_S)
    assert one.pid == pid
    assert one.died == 0
    written, took_s = (await told)[0].decode().split()
    measured.lines, measured.took_s = int(written), float(took_s)
    return measured


@pytest.mark.parametrize("name", FLOODS)
async def test_a_kill_is_told_at_once_in_a_flood(name: str, tmp_path: Path, lives: Nursery, template: Path) -> None:
    async with world(tmp_path / "world", lives, template, random.Random(1), every_s=15) as one:
        one.machine.journal.noise(3)
        await one.begin()
        await one.listens(2)
        seen = await _flood(one, FLOODS[name])
        delays_s = [one.told_at(pid) - at for pid, at in seen.kills]
        calls = len([call for call in one.telegram.calls if not call.is_poll])
        down_mb = one.proxy.bytes_down / MB
        await one.end()
    warm = next(rss for at, rss in seen.rss_bytes if at >= min(60.0, FLOOD_S / 4))
    grown, share = seen.rss_bytes[-1][1] - warm, seen.cpu_s / seen.took_s
    rows = [
        ["lines written a second", f"{seen.lines / seen.took_s:.0f}", f"{RATE}"],
        ["seconds", f"{seen.took_s:.0f}", ""],
        ["MB that left the host", f"{down_mb:.1f}", ""],
        ["kills, requests", f"{len(delays_s)}, {calls}", ""],
        ["delay of a kill: median, ms", f"{1000 * statistics.median(delays_s):.0f}", ""],
        ["delay of a kill: worst, ms", f"{1000 * max(delays_s):.0f}", f"{1000 * DELAY_LIMIT_S:.0f}"],
        ["the bot's CPU, percent of a core", f"{100 * share:.1f}", f"{100 * CPU_LIMIT:.0f}"],
        ["RSS after a minute, MB", f"{warm / MB:.1f}", ""],
        ["RSS grown since, MB", f"{grown / MB:.1f}", f"{GROWTH_LIMIT_BYTES / MB:.0f}"],
    ]
    show(f"A flood of application lines: {name}", ["what", "measured", "limit"], rows)
    assert seen.lines >= 0.95 * RATE * seen.took_s
    assert max(delays_s) < DELAY_LIMIT_S
    assert share < CPU_LIMIT
    assert grown < GROWTH_LIMIT_BYTES
