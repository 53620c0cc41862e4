"""The house: every module can be imported, what is found by its file is found, what is public says what it is."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import handlers
from bot.app import build
from bot.dispatch import prepare
from bot.settings import load
from handlers.cards import timetable, verdict
from handlers.command import Command
from handlers.ports.clock import Clock
from handlers.ports.commands import Commands
from handlers.ports.hosts import Hosts
from handlers.ports.plans import Plans
from remote import remedies, services
from remote.facts.base import Fact
from remote.findings.causes import Cause

ROOT = Path(__file__).parents[1]
FLOORS = ("remote", "handlers", "bot")
# Alembic's own: run by bot/store/migrate.py, not imported.
NOT_IMPORTED = "bot.store.migrations"
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
HEAVY = (
    "asyncssh",
    "aiogram",
    "aiohttp",
    "slack_bolt",
    "slack_sdk",
    "sqlalchemy",
    "alembic",
    "prompt_toolkit",
    "babel",
    "psutil",
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = [name for name in map(name_of, FILES) if not name.startswith(NOT_IMPORTED) and name != "bot.__main__"]


def test_there_is_a_house() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)


def test_every_module_can_be_imported() -> None:
    for name in MODULES:
        importlib.import_module(name)


@pytest.mark.parametrize("floor", FLOORS)
def test_each_module_can_be_imported_first(floor: str) -> None:
    """No module leans on another having been imported before (that hides circles)."""
    names = [name for name in MODULES if name.split(".")[0] == floor]
    script = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    for known in [known for known in sys.modules if known.split(".")[0] in ("remote", "handlers", "bot")]:
        del sys.modules[known]
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", script, json.dumps(names)], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("words", [["--help"], ["ask", "--help"], ["run", "--help"], ["check", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    script = """
import json, sys
from bot.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stderr)}

    assert "Usage: " in done.stdout
    assert loaded & set(HEAVY) == set()


def test_a_chat_that_is_not_configured_is_not_imported() -> None:
    script = """
import asyncio, json, sys
from bot import process, watch, doorway
from bot.settings import load
process.remote_chats(load(None))
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}

    assert loaded & {"aiogram", "slack_bolt", "slack_sdk", "alembic", "matplotlib", "prompt_toolkit"} == set()


def exporting(folder: str, name: str) -> set[str]:
    """The modules directly in `folder` that assign `name` at their top."""
    found = set()
    for path in (ROOT / folder).glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
            found |= {path.stem for target in targets if isinstance(target, ast.Name) and target.id == name}
    return found


def test_every_command_is_found_by_its_file() -> None:
    found = handlers.discover()

    files = exporting("handlers", "COMMAND")
    assert {command.run.__module__.rpartition(".")[2] for command in found.values()} == files
    assert len(found) == len(files)
    assert all(command.name == name for name, command in found.items())
    assert found.keys() >= {
        "mem",
        "top",
        "duplicates",
        "fix",
        "why",
        "services",
        "hosts",
        "help",
        "start",
        "whoami",
        "approve",
        "decline",
        "details",
        "undo",
        "plans",
        "restart",
        "logs",
    }


def test_every_command_has_a_file_for_each_module_that_is_not_shared() -> None:
    shared = {"__init__", "command", "every", "quoted", "reply", "request", "words"}
    assert {path.stem for path in (ROOT / "handlers").glob("*.py")} - shared == exporting("handlers", "COMMAND")


@pytest.mark.parametrize("command", handlers.discover().values(), ids=lambda command: command.name)
def test_each_command_says_how_it_is_used(command: Command) -> None:
    assert command.usage.split()[0] == f"/{command.name}"
    assert command.summary.msgid
    assert not command.summary.msgid.endswith(".")
    assert all(example.split()[0] == f"/{command.name}" for example in command.examples)
    assert command.examples or command.usage == f"/{command.name}"


async def test_every_port_that_a_command_names_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with build(load(None), {}) as app:
        assert app.commands.keys() == handlers.discover().keys()
    with pytest.raises(TypeError):
        prepare(handlers.discover(), {})
    assert len({Hosts, Plans, Clock, Commands}) == 4


def test_every_remedy_is_found_by_its_file() -> None:
    found = remedies.discover()

    assert {kind.replace("-", "_") for kind in found} == exporting("remote/remedies", "REMEDY")
    assert all(remedy.kind == kind for kind, remedy in found.items())


def test_every_kind_of_service_is_found_by_its_file() -> None:
    found = services.kinds()

    assert len(found) == len(exporting("remote/services", "KIND"))
    assert all(kind.name == name for name, kind in found.items())


def test_every_cause_of_a_kill_has_its_words() -> None:
    for known in (verdict._CAUSES, timetable._SHORT):
        assert set(known) == set(get_args(Cause))


def test_every_file_of_facts_has_a_fact_or_makes_one() -> None:
    names: list[str] = []
    for path in sorted((ROOT / "remote" / "facts").glob("*.py")):
        if path.stem.startswith("_") or path.stem in {"base", "reading"}:
            continue
        module = importlib.import_module(f"remote.facts.{path.stem}")
        facts = [value for value in vars(module).values() if isinstance(value, Fact)]
        makers = [
            value
            for value in vars(module).values()
            if getattr(value, "__annotations__", {}).get("return", "").startswith("Fact[")
        ]
        assert facts or makers, path
        names += [fact.name for fact in facts]
    assert len(names) == len(set(names))


Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


def public(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, Documented]]:
    """The public functions and classes at the top of a module, and the public methods of the latter."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{owner}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


# Callbacks whose words are asyncio's own to say.
ASYNCIO_S = {
    "connection_made", "connection_lost", "data_received", "eof_received", "pause_writing", "resume_writing", "session_started",
    "pipe_data_received", "pipe_connection_lost", "process_exited",
}  # fmt: skip


@pytest.mark.parametrize("floor", FLOORS)
def test_what_is_public_says_what_it_is(floor: str) -> None:
    silent = []
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != floor or "versions" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes: list[tuple[str, Documented]] = [("", tree), *public(tree)]
        where = path.relative_to(ROOT)
        silent += [
            f"{where}: {name}"
            for name, node in nodes
            if ast.get_docstring(node) is None and name.rpartition(".")[2] not in ASYNCIO_S
        ]

    assert silent == []


def test_nothing_is_skipped_or_left_for_later() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "pytest.mark.skip", "NotImplemented" + "Error")
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    left = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in files
        if path != Path(__file__) and "image" not in path.parts
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]

    assert left == []
