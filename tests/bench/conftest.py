from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bench.target import SshTarget, ssh_target
from tests.chaos.fixtures import lives, template
from tests.chaos.process import ROOT, environment

__all__ = ["lives", "pycache", "target", "template"]


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[SshTarget]:
    """A server with OpenSSH on loopback."""
    folder = tmp_path / "target"
    folder.mkdir()
    async with ssh_target(folder) as running:
        yield running


@pytest.fixture(scope="session")
def pycache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte code of all that the bot may import: who compiles pays for it in CPU and, for good, in memory."""
    folder = tmp_path_factory.mktemp("pycache")
    modules = "aiogram, asyncssh, slack_bolt.async_app, bot.process, bot.doorway, bot.watch, bot.chat.telegram, bot.store.migrate"
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True, cwd=ROOT, env=environment(folder))
    return folder
