"""What is not needed is not imported, and every module can be."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import bot
import handlers
import remote

ROOT = Path(__file__).parents[1]
HEAVY = (
    "asyncssh", "aiogram", "slack_bolt", "slack_sdk", "sqlalchemy", "alembic", "apscheduler", "pydantic", "prompt_toolkit", "psutil",
    "matplotlib",
)  # fmt: skip


def modules(package: ModuleType) -> Iterator[str]:
    """Every module of a floor; a migration's environment only runs inside alembic."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(("migrations.env", "__main__")) and "._" not in module.name:
            yield module.name


def imported_by(code: str) -> set[str]:
    """Which of the heavy ones a fresh process has after running this."""
    script = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY)


@pytest.mark.parametrize("floor", [remote, handlers, bot], ids=lambda floor: floor.__name__)
def test_every_module_can_be_imported(floor: ModuleType) -> None:
    for name in modules(floor):
        importlib.import_module(name)


def test_help_imports_nothing_heavy() -> None:
    assert (
        imported_by(
            "from bot.cli import cli\nfrom typer.testing import CliRunner\nassert CliRunner().invoke(cli, ['--help']).exit_code == 0"
        )
        == set()
    )


@pytest.mark.parametrize(
    ("chat", "absent"),
    [
        ('[telegram]\ntoken = "1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"\n', {"slack_bolt", "slack_sdk"}),
        ('[slack]\nbot_token = "xoxb-1"\napp_token = "xapp-1"\n', {"aiogram"}),
        ("", {"aiogram", "slack_bolt", "slack_sdk", "asyncssh", "prompt_toolkit"}),
    ],
    ids=["telegram", "slack", "console"],
)
def test_a_chat_that_is_not_configured_is_not_imported(tmp_path: Path, chat: str, absent: set[str]) -> None:
    config = tmp_path / "m.toml"
    config.write_text(chat)
    code = (
        "from pathlib import Path\nfrom bot.process import remote_chats\nfrom bot.settings import load\n"
        f"remote_chats(load(Path({str(config)!r})))"
    )
    assert not imported_by(code) & (absent | {"alembic", "matplotlib"})


def undocumented(path: Path) -> Iterator[str]:
    """Public modules, classes and functions without a docstring (a method that implements a Protocol has the Protocol's)."""
    tree = ast.parse(path.read_text())
    if ast.get_docstring(tree) is None:
        yield str(path)
    parts = (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
    bare = (node for node in parts if not node.name.startswith("_") and ast.get_docstring(node) is None)
    yield from (f"{path}:{node.lineno} {node.name}" for node in bare)


@pytest.mark.parametrize("floor", ["remote", "handlers", "bot"])
def test_every_public_part_says_what_it_is(floor: str) -> None:
    assert [name for path in sorted((ROOT / floor).rglob("*.py")) for name in undocumented(path)] == []
