"""What was killed in the past is asked once and judged once, for all who ask."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from remote.findings.past import DAY, past
from remote.services import kinds
from remote.services.base import Kind
from tests.clock import NOW

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_the_words_of_every_kind_of_program_are_looked_for(kind: Kind) -> None:
    script = past(NOW, DAY).script
    assert [telling for telling in kind.tellings if telling not in script] == []


def test_more_than_a_day_has_more_time() -> None:
    assert past(NOW, timedelta(days=7)).deadline_s > past(NOW, DAY).deadline_s


def test_nobody_judges_the_past_in_another_way() -> None:
    """Or a kill is told by one command and not by another."""
    judges = {
        str(path.relative_to(ROOT))
        for floor in ("bot", "handlers", "remote")
        for path in (ROOT / floor).rglob("*.py")
        if "death.kills(" in path.read_text() or "kills_since(" in path.read_text()
    }
    assert judges == {"remote/findings/past.py", "remote/facts/journal.py"}
