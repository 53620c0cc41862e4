"""What the bot weighs: memory and CPU of the whole process, against the limits, and what its imports cost."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.bench.table import show
from tests.bench.target import SshTarget
from tests.bench.world import OPS, OWNER, write_settings
from tests.chaos.process import ROOT, BotProcess, cpu_s, environment, status_bytes
from tests.emulators.telegram import Message, TelegramEmulator

pytestmark = pytest.mark.bench

MB = 1 << 20  # as ps, top and the measurements behind the limit have it
RSS_LIMIT_MB = 125
READY_LIMIT_S = 2.0
HOSTS = tuple(f"host{n}" for n in range(10))
EVERY_S = 0.5  # instead of 15: a second is half a minute of polling
RUN_S = 50
COMMANDS = ("mem host1", "mem all", "top host2", "services host3", "hosts", "duplicates host4", "why host5", "fix host6",
            "help", "logs host7 nginx.service", "whoami", "plans", "memm", "mem nowhere")  # fmt: skip
HEAVY = ("aiogram", "alembic", "asyncssh", "babel", "matplotlib", "prompt_toolkit", "pydantic", "rich", "slack_bolt",
         "sqlalchemy", "structlog")  # fmt: skip
# importtime's lines: self and cumulative microseconds, then the name indented by its depth.
LINE = re.compile(r"import time: +(\d+) \| +\d+ \| +([\w.]+)")


def worked(telegram: TelegramEmulator) -> tuple[int, int]:
    """How many messages and edits were shown."""
    return telegram.send_count, telegram.edit_count


def more_than(telegram: TelegramEmulator, before: int) -> bool:
    """Whether something was shown since."""
    return telegram.send_count > before


async def use(telegram: TelegramEmulator, until: float) -> tuple[int, int]:
    """Type every command and press every button that is offered, until the time is up; gives how many of each."""
    owner, pressed = telegram.people[OWNER], set[tuple[int, str]]()
    typed = itertools.count()
    for command in itertools.cycle(COMMANDS):
        if time.monotonic() > until:
            return next(typed), len(pressed)
        before = telegram.send_count
        telegram.say(OPS, owner, f"/{command}")
        next(typed)
        await telegram.wait_for(functools.partial(more_than, telegram, before), 30)
        for message, label in [(m, label) for m in telegram.shown(OPS)[-2:] for label in m.labels]:
            if (message.id, label) not in pressed:
                pressed.add((message.id, label))
                await press(telegram, message, label)
    raise AssertionError


async def press(telegram: TelegramEmulator, message: Message, label: str) -> None:
    query = telegram.press(message, label, telegram.people[OWNER], stale=True)
    await telegram.wait_for(lambda: telegram.queries[query].answered, 30)


async def test_telegram_and_ten_watched_hosts_fit_their_memory(target: SshTarget, tmp_path: Path, pycache: Path) -> None:
    async with TelegramEmulator() as telegram:
        telegram.add_group(OPS)
        telegram.add_person(OWNER, "Owner")
        # Every host is above the threshold: ten alerts, whose messages follow the figures.
        settings = write_settings(tmp_path, telegram, target, HOSTS, every_s=EVERY_S, percent=0.5)
        bot = await BotProcess.start(settings, pycache, tmp_path / "bot.log")
        try:
            await bot.ready()
            at_ready = status_bytes(bot.pid, "VmRSS")
            await telegram.wait_for(lambda: telegram.send_count >= len(HOSTS), 60)
            with_hosts, cpu = status_bytes(bot.pid, "VmRSS"), cpu_s(bot.pid)
            await use(telegram, time.monotonic() + RUN_S / 2)
            halfway = status_bytes(bot.pid, "VmRSS")
            typed, pressed = await use(telegram, time.monotonic() + RUN_S)
            rss, peak = status_bytes(bot.pid, "VmRSS"), status_bytes(bot.pid, "VmHWM")
            used = cpu_s(bot.pid) - cpu
        finally:
            status = await bot.stop()
        sent, edited = worked(telegram)
        refused = {call.outcome for call in telegram.calls if call.outcome not in {"ok", "pending"}}
    rows = [
        ["ready", f"{at_ready / MB:.1f}"],
        ["10 hosts connected, sampled and alerted", f"{with_hosts / MB:.1f}"],
        ["half of the use", f"{halfway / MB:.1f}"],
        [f"{typed} commands, {pressed} presses, {sent} messages, {edited} edits later", f"{rss / MB:.1f}"],
        ["peak", f"{peak / MB:.1f}"],
    ]
    show(
        f"RSS with Telegram and 10 hosts (limit {RSS_LIMIT_MB} MB; {used:.1f} s of CPU in {RUN_S} s of use)", ["when", "MB"], rows
    )
    assert not refused
    assert status == 0
    assert edited >= len(HOSTS)
    assert rss <= RSS_LIMIT_MB * MB


async def test_ready_and_help_cost_little_cpu(target: SshTarget, tmp_path: Path, pycache: Path) -> None:
    first: list[float] = []
    again: list[float] = []
    async with TelegramEmulator() as telegram:
        telegram.add_group(OPS)
        settings = write_settings(tmp_path, telegram, target, HOSTS, every_s=15)
        for _ in range(4):
            (tmp_path / "memwarden.db").unlink(missing_ok=True)
            for times in (first, again):
                bot = await BotProcess.start(settings, pycache, tmp_path / "bot.log")
                try:
                    times.append(await bot.ready())
                finally:
                    await bot.stop()
    plain = [cpu_of("import aiogram", pycache) for _ in range(3)]
    help_s = [
        cpu_of("import sys; sys.argv = ['memwarden', '--help']; from bot.cli import main; main()", pycache) for _ in range(4)
    ]
    nothing = [cpu_of("", pycache) for _ in range(3)]
    rows = [
        [name, f"{min(times):.2f}", f"{statistics.median(times):.2f}", f"{min(times) / min(plain):.2f}"]
        for name, times in (
            ("ready", again),
            ("ready, the first time (alembic's child included)", first[1:]),
            ("memwarden --help", help_s),
            ("python -c ''", nothing),
            ("python -c 'import aiogram', nothing deferred", plain),
        )
    ]
    show(f"CPU seconds, user and system, children included (limit {READY_LIMIT_S:.0f} s to ready)",
         ["until", "best", "median", "of aiogram's import"], rows)  # fmt: skip
    assert min(again) <= READY_LIMIT_S


def cpu_of(code: str, pycache: Path) -> float:
    """CPU seconds of a Python that runs this."""
    measured = f"import atexit, sys, time; atexit.register(lambda: print(time.process_time(), file=sys.stderr))\n{code}"
    command = [sys.executable, "-c", measured]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment(pycache))
    return float(done.stderr.split()[-1])


def modules_after(code: str, pycache: Path) -> tuple[int, list[str]]:
    """How many modules a Python that ran this has, and which heavy ones."""
    command = [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment(pycache))
    loaded = json.loads(done.stdout.splitlines()[-1])
    return len(loaded), [name for name in HEAVY if name in loaded]


def test_help_imports_no_sdk(pycache: Path) -> None:
    quiet = "import contextlib, io, sys; sys.argv = ['memwarden', '--help']\nfrom bot.cli import main\n"
    count, heavy = modules_after(
        f"{quiet}with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()", pycache
    )
    show("memwarden --help", ["modules", ""], [[str(count), ", ".join(heavy) or "none that is heavy"]])
    assert not {"asyncssh", "aiogram", "slack_bolt", "sqlalchemy", "alembic", "matplotlib"} & set(heavy)


async def test_what_stays_in_the_process(target: SshTarget, tmp_path: Path, pycache: Path) -> None:
    async with TelegramEmulator() as telegram:
        telegram.add_group(OPS)
        settings = write_settings(tmp_path, telegram, target, ["prod"], every_s=1)
        command = [sys.executable, "-X", "importtime", "-m", "bot", "--config", str(settings), "run"]
        log = tmp_path / "imports.log"
        with log.open("wb") as sink:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stderr=sink, cwd=ROOT, env=environment(pycache)
            )
        async with asyncio.timeout(60):
            while " ready " not in log.read_text(encoding="utf-8", errors="replace"):
                await asyncio.sleep(0.05)
        child.terminate()
        await child.wait()
    by_package: dict[str, list[int]] = defaultdict(list)
    for own_us, name in LINE.findall(log.read_text(encoding="utf-8", errors="replace")):
        by_package[name.partition(".")[0]].append(int(own_us))
    costly = sorted(by_package.items(), key=lambda item: -sum(item[1]))
    rows = [[name, str(len(each)), f"{sum(each) / 1000:.0f}"] for name, each in costly[:20]]
    show("What a start imports (Telegram and SSH), by package", ["package", "modules", "ms"], rows)
    assert not {"alembic", "matplotlib", "prompt_toolkit", "slack_bolt", "slack_sdk"} & set(by_package)
