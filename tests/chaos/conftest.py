from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.fixtures import lives, say, template

__all__ = ["lives", "pycache", "say", "template"]


@pytest.fixture(scope="session")
def pycache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all lives of the bot keep their byte code."""
    return tmp_path_factory.mktemp("pycache")
