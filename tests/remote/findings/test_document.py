"""docs/kills.md says of every cause how it is known, and where it was seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from remote.findings.causes import Cause

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "kills.md"
LAB = ROOT / "tests" / "lab" / "kills.py"


def rows() -> Iterator[list[str]]:
    """The cells of the table of causes."""
    table = DOCUMENT.read_text(encoding="utf-8").partition("## The table")[2].partition("\n## ")[0]
    for line in table.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.mark.parametrize("cause", get_args(Cause))
def test_every_cause_has_a_row(cause: Cause) -> None:
    assert any(f"`{cause}`" in row[0] for row in rows())


def test_no_row_has_a_cause_that_is_none() -> None:
    named = {name for row in rows() for name in re.findall(r"`([a-z-]+)`", row[0])}

    assert named == set(get_args(Cause))


def test_every_scenario_of_the_lab_is_a_rows_and_the_other_way_round() -> None:
    named = [name for row in rows() for name in re.findall(r"`(\w+)`", row[-1].partition("lab: ")[2])]
    drivers = re.findall(r"^def (\w+)\(lab: Lab(?:, [^)]*)?\) -> Killed:$", LAB.read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(named) == sorted(drivers)


def test_every_file_of_a_lines_way_is_there() -> None:
    way = DOCUMENT.read_text(encoding="utf-8").partition("way to a verdict\n")[2].partition("\n## ")[0]
    files = re.findall(r"`(\w+\.py)`", way)

    assert len(files) > 10
    assert not [name for name in files if not (ROOT / "remote" / "findings" / name).exists()]
