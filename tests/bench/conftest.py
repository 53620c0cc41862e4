from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.bench.target import SshTarget, ssh_target


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[SshTarget]:
    """A server with OpenSSH on loopback."""
    folder = tmp_path / "target"
    folder.mkdir()
    async with ssh_target(folder) as running:
        yield running


@pytest.fixture(scope="session")
def pycache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the measured processes keep their byte code."""
    return tmp_path_factory.mktemp("pycache")
