"""The documents say what the code does: what is generated is fresh, examples work, links lead somewhere, keys are the real ones."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import io
import json
import re
import tokenize
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.cli import cli
from bot.settings import load
from handlers import discover
from handlers.cards.plan import PlanData
from remote.findings.causes import Cause
from tools import reference

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/*/README.md")])
SHOWN = [*DOCUMENTS, *(path for path in ROOT.glob("deploy/*") if path.is_file())]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
URL = re.compile(r"https?://\S+")
NAMED = re.compile(r"(?<![\w./-])(?:(?:bot|handlers|remote|tests|tools|deploy|docs)/[\w./-]+|[\w./-]+\.md\b)")
EXAMPLE = re.compile(r"^## /(\w+)$.*?^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLANS = {"approve", "decline", "details", "restart", "undo"}
"""Commands whose data is a plan; every other one has a dataclass of its own name in its module."""


def test_the_readmes_table_of_commands_is_fresh() -> None:
    readme = README.read_text(encoding="utf-8")
    assert reference.with_commands(readme) == readme, "run: python -m tools.reference"


def test_the_settings_reference_is_fresh() -> None:
    assert reference.SETTINGS.read_text(encoding="utf-8") == reference.settings_reference(), "run: python -m tools.reference"


def test_no_meaning_is_left_over_from_a_setting_that_is_gone() -> None:
    assert set(reference.MEANING) == set(reference.parts_of_settings())


def test_the_example_settings_load(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "memwarden.toml.example").read_text(encoding="utf-8")
    for name in re.findall(r'"/etc/memwarden/([\w-]+)"', text):
        (tmp_path / name).write_text("123456:token\n")
    path = tmp_path / "memwarden.toml"
    path.write_text(text.replace("/etc/memwarden/", f"{tmp_path}/"), encoding="utf-8")
    settings = load(path)
    assert settings.telegram is not None
    assert settings.telegram.token.get_secret_value() == "123456:token"
    assert settings.seen_from("web-team") == ("prod",)


def test_every_command_of_the_command_line_is_in_the_readme() -> None:
    names = {one.name or typing.cast("Any", one.callback).__name__ for one in cli.registered_commands}
    assert names >= {"run", "ask", "check"}
    missing = {name for name in names if f"memwarden {name}" not in README.read_text(encoding="utf-8")}
    assert not missing


def test_the_readme_leads_to_every_document() -> None:
    linked = set(LINK.findall(README.read_text(encoding="utf-8")))
    assert not [path.name for path in ROOT.glob("docs/*.md") if f"docs/{path.name}" not in linked]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    assert not [link for link in LINK.findall(text) if not _leads_somewhere(document, link)]


def _leads_somewhere(document: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.exists():
        return False
    return not anchor or anchor in {_anchor(title) for title in HEADING.findall(target.read_text(encoding="utf-8"))}


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_fit(document: Path) -> None:
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    assert not [line for line in text.splitlines() if len(line) > 130 and not line.startswith("|")]


def test_every_path_of_the_architecture_is_there() -> None:
    named = re.findall(r"`((?:bot|handlers|remote|tests|tools|deploy)/[\w./-]*)", _text("docs/architecture.md"))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("folder", ["bot", "handlers", "remote", "tests", "tools"])
def test_what_comments_name_is_there(folder: str) -> None:
    """Paths and documents, each as it is called from the repository's root: a bare name tells nobody where to look."""
    code = sorted((ROOT / folder).rglob("*.py"))
    assert code
    dangling = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in code
        for said in _said(path.read_text(encoding="utf-8"))
        for name in NAMED.findall(URL.sub("", said))
        if not (ROOT / name.rstrip(".")).exists()
    ]
    assert not dangling


def _said(code: str) -> Iterator[str]:
    """The comments and docstrings of a module."""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_every_kind_of_host_error_is_in_troubleshooting() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "remote").rglob("*.py"))
    kinds = {*re.findall(r'HostError\(\s*"([a-z-]+)"', code), "cut", "flood", "unreadable"}
    assert len(kinds) >= 9
    assert not {kind for kind in kinds if f"## {kind}\n" not in _text("docs/troubleshooting.md")}


@pytest.mark.parametrize("cause", typing.get_args(Cause))
def test_every_cause_of_a_kill_is_in_the_documents(cause: str) -> None:
    rows = [
        line for line in _text("docs/kills.md").splitlines() if line.startswith("| ") and f"`{cause}`" in line.split(" | ")[0]
    ]
    assert rows, "docs/kills.md: a row with its evidence"
    assert f"`{cause}`" in _text("docs/json.md").partition("\n## /why\n")[2].partition("\n## ")[0], "docs/json.md: the word"


def test_each_command_has_its_json() -> None:
    assert set(_examples()) == set(discover())


@pytest.mark.parametrize("name", sorted(discover()))
def test_json_examples_have_the_fields_of_the_data(name: str) -> None:
    example = _examples()[name]
    assert set(example) == {"command", "ok", "error", "hosts", "data", "buttons"}
    shown = [one["data"] for one in example["hosts"]] or [example["data"]]
    module = importlib.import_module(f"handlers.{name}")
    kind = PlanData if name in PLANS else getattr(module, f"{name.capitalize()}Data")
    assert not [where for one in shown for where in _differences(one, kind, name)]


def _examples() -> dict[str, Any]:
    return {name: json.loads(text) for name, text in EXAMPLE.findall(_text("docs/json.md"))}


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _differences(value: Any, kind: Any, where: str) -> Iterator[str]:  # noqa: ANN401 - JSON, and the type it should have
    """Where a JSON value has other keys than the dataclass it shows, at any depth."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        if value is not None:
            yield from _differences(value, next(one for one in arguments if one is not type(None)), where)
    elif origin is tuple:
        for inner in value:
            yield from _differences(inner, arguments[0], where)
    elif dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        if set(value) != set(hints):
            yield f"{where}: {sorted(set(value) ^ set(hints))}"
        for key in set(value) & set(hints):
            yield from _differences(value[key], hints[key], f"{where}.{key}")
