"""`python -m tests.chaos.bot`: the bot with a clock of the test's own, as many lives as are asked for.

It imports all once and forks for each life, so that a life begins in a blink. Each line on stdin, JSON with `settings`, `log`
and `control` (paths), begins one; stdout says `begun PID`, and `ended PID STATUS` (negative: the signal) when it is over. All
lives end with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

# First, as in the product: it keeps structlog from importing rich.
from bot import process  # isort: skip

import aiosqlite  # noqa: F401 - so that no life imports it
import asyncssh  # noqa: F401
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite

from bot import doorway as doorway  # noqa: PLC0414 - the same
from bot import logs
from bot import watch as watch  # noqa: PLC0414 - the same
from bot.app import build, serve
from bot.chat import _deferred
from bot.settings import load
from remote.connect import ssh  # noqa: F401
from tests.chaos.control import Control

if TYPE_CHECKING:
    from bot.settings import Settings

PR_SET_PDEATHSIG = 1


def count_commits(control: Control) -> None:
    """Let the control count the store's transactions, and end the process at one."""
    plain = SQLiteDialect_aiosqlite.do_commit

    def do_commit(self: Any, connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        control.committing()
        plain(self, connection)  # type: ignore[no-untyped-call]
        control.committed()

    SQLiteDialect_aiosqlite.do_commit = do_commit  # type: ignore[method-assign]


async def live(settings: Settings, control: Control) -> int:
    """One life; gives its exit status."""
    async with build(settings, process.remote_chats(settings), control) as app:
        await serve(app, asyncio.Event())
    return app.status


def _child(order: Mapping[str, str]) -> None:
    """The child's side: never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        devnull = os.open(os.devnull, os.O_RDWR)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor, source in ((0, devnull), (1, devnull), (2, log)):
            os.dup2(source, descriptor)
        settings, control = load(Path(order["settings"])), Control(Path(order["control"]))
        logs.configure("info")
        count_commits(control)
        status = asyncio.run(live(settings, control))
    except BaseException:  # noqa: BLE001 - it is said, and the process ends
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def _bury() -> None:
    """Tell of all lives that are over."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _say("ended", pid, os.waitstatus_to_exitcode(status))


def main() -> None:
    """Serve until stdin ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _deferred.load(light=True)
    importlib.import_module("bot.chat.telegram")
    gc.freeze()
    _say("ready")
    orders = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _bury()
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            orders += data
            while b"\n" in orders:
                line, _, orders = orders.partition(b"\n")
                pid = os.fork()
                if pid == 0:
                    _child(json.loads(line))
                _say("begun", pid)


if __name__ == "__main__":
    main()
