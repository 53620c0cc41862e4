"""What is shipped: the wheel, in a bare environment elsewhere, with the locked versions of what it needs."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HEAVY = ("aiogram", "aiohttp", "alembic", "asyncssh", "matplotlib", "slack_bolt", "slack_sdk", "sqlalchemy")
CYRILLIC_WORD = re.compile(r"[а-яё]{4,}", re.IGNORECASE)
PIN = re.compile(r"^([\w.-]+==\S+)(?: ; (.*?))? \\$", re.MULTILINE)
HELP_CPU_S = 2.0


def environment() -> dict[str, str]:
    """This process's, without what would let the clone or its virtual environment in."""
    ours = ("PYTHON", "VIRTUAL_ENV", "COVERAGE_", "COV_", "MEMWARDEN_", "UV_PROJECT")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def call(*command: str | Path, cwd: Path) -> str:
    """Run to its end; what it wrote to stdout, or an assertion with all it wrote."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", dist, cwd=REPOSITORY)
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that holds the wheel and what it needs, and nothing of the clone."""
    home = tmp_path_factory.mktemp("elsewhere")
    pins = home / "constraints.txt"
    pins.write_text("".join(f"{pin}{f' ; {when}' if when else ''}\n" for pin, when in locked()))
    python = home / "venv/bin/python"
    if uv := shutil.which("uv"):
        call(uv, "venv", "--quiet", "--no-project", "--python", sys.executable, home / "venv", cwd=home)
        call(uv, "pip", "install", "--quiet", "--python", python, "--constraint", pins, wheel, cwd=home)
    else:
        call(sys.executable, "-m", "venv", home / "venv", cwd=home)
        call(python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--constraint", pins, wheel, cwd=home)
    return python.parent


def locked() -> list[tuple[str, str]]:
    """Each pin of requirements.lock with its marker."""
    text = (REPOSITORY / "requirements.lock").read_text()
    return [(found[1], found[2] or "") for found in PIN.finditer(text)]


def test_lock_pins_everything_by_hash_and_names_no_registry() -> None:
    text = (REPOSITORY / "requirements.lock").read_text()
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]

    assert len(blocks) == len(locked())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


def test_wheel_holds_catalogues_and_migrations_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "bot/locales/ru/LC_MESSAGES/memwarden.mo" in names
    assert any(re.fullmatch(r"bot/store/migrations/versions/\w+\.py", name) for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bot", "handlers", "remote", "memwarden"}


def test_help_is_quick_and_imports_no_sdk(installed: Path, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = f"""
import runpy, sys
sys.argv = ["memwarden", "--help"]
try:
    runpy.run_path({str(installed / "memwarden")!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", sorted(set({HEAVY!r}) & set(sys.modules)))
"""

    said = call(installed / "python", "-c", script, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert "ask" in said
    assert said.splitlines()[-1] == "heavy: []"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < HELP_CPU_S


def test_installed_elsewhere_it_migrates_and_answers_in_russian(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "memwarden.toml").write_text('language = "ru"\nstore = "sqlite:///memwarden.db"\n')

    said = call(installed / "memwarden", "ask", "/mem", cwd=tmp_path)

    assert CYRILLIC_WORD.search(said), said
    assert migrated_to(tmp_path / "memwarden.db") == newest_migration(installed)


def migrated_to(store: Path) -> str:
    """The revision that the store's tables are at."""
    with sqlite3.connect(store) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    return str(revision)


def newest_migration(installed: Path) -> str:
    """The one revision of the installed wheel that no other follows."""
    (versions,) = installed.parent.glob("lib/python*/site-packages/bot/store/migrations/versions")
    text = "\n".join(path.read_text() for path in versions.glob("*.py"))
    revisions = set(re.findall(r"^revision\b.*?=\s*[\"'](.+?)[\"']", text, re.MULTILINE))
    followed = set(re.findall(r"^down_revision\b.*?=\s*[\"'](.+?)[\"']", text, re.MULTILINE))
    (newest,) = revisions - followed
    return str(newest)


def test_a_skipped_test_fails_the_run_where_ci_asks(tmp_path: Path) -> None:
    (tmp_path / "test_skip.py").write_text("import pytest\ndef test_skipped(): pytest.skip('not here')\n")
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull]
    command += ["--rootdir", tmp_path, tmp_path]
    done = [
        subprocess.run([*command, *more], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
        for more in ((), ("--fail-on-skip",))
    ]

    assert [run.returncode for run in done] == [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED], done
    assert "skipped: " in done[1].stdout
