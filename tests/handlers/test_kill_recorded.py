"""Real kills, as the recorded server's journal tells of them, on the card that people get."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from bot.chat.console import plain as console
from bot.i18n import LANGUAGES, plain
from handlers.cards.kill import kill_card, newest_first
from handlers.reply import Reply
from remote.facts import units
from remote.facts.units import Units
from remote.findings import death
from tests.handlers.shown import texts, words
from tests.remote.findings.journal_scene import first_writers, recorded

RECORDED = Path(__file__).parents[1] / "recorded" / "debian12"
# gunicorn 20.0 says nothing of a killed worker: only a living host can bear out that one is gone.
JOURNALS = sorted({path.stem for path in (RECORDED / "journal").glob("*.jsonl")} - {"gunicorn-silent"})


def card(name: str) -> Reply:
    known = units.parse((RECORDED / "facts" / "units.txt").read_bytes().decode("utf-8", "surrogateescape"))
    assert isinstance(known, Units)
    entries = recorded(name)
    found = newest_first(death.kills(entries, units=known, first_writers=first_writers(entries)))
    return kill_card("prod", found, found[0].at + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "gunicorn-oom",
            [
                "prod: gunicorn worker of teaching_panel.service was killed",
                "For it systemd stopped all of teaching_panel.service (OOMPolicy=stop).",
                "Killed by the kernel: the memory limit of teaching_panel.service was reached",
                "3 workers of up to 219 MiB and a master of 24 MiB do not fit 512 MiB",
                "To do: fewer workers or a higher limit; OOMPolicy=continue lets the others live on.",
            ],
        ),
        (
            "gunicorn-timeout",
            [
                "prod: gunicorn worker of teaching_panel.service was killed",
                "What it had in hand is lost; its master starts a new one.",
                "Killed by its own master: it hung longer than its timeout",
            ],
        ),
        (
            "celery-oom",
            [
                "prod: celery worker of celery.service was killed",
                "For it systemd stopped all of celery.service (OOMPolicy=stop).",
                "Killed by the kernel: the memory limit of celery.service was reached",
                "1 worker of 192 MiB and a master of 60 MiB do not fit 200 MiB",
            ],
        ),
        (
            "global-oom",
            [
                "prod: memhog of glutton.service was killed",
                "It was the main process: glutton.service went down.",
                "Killed by the kernel: the whole machine was out of memory",
                "The biggest were memhog of 1.4 GiB and 11 python3 of 48 MiB",
            ],
        ),
        ("earlyoom", ["prod: memhog was killed", "Killed by earlyoom, before memory was gone"]),
        (
            "systemd-oomd",
            ["prod: all of glutton.service was killed", "Killed by systemd-oomd: too much memory pressure or swap"],
        ),
        (
            "session-oom",
            ["prod: memhog was killed", "It was in a user's own session (uid 1000), not a system service."],
        ),
        ("stop-timeout", ["prod: python3 of deaf.service was killed", "Killed by systemd: it did not stop in time"]),
    ],
)
def test_what_people_read_first(name: str, told: list[str]) -> None:
    assert words(card(name)).splitlines()[: len(told)] == told


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", JOURNALS)
def test_each_is_told_with_its_proof(name: str, language: str) -> None:
    shown = card(name)
    assert not [plain(text) for text in texts(shown) if "{" in plain(text)]
    assert len(console(shown, language).splitlines()) >= 8
    assert "This verdict is final." in words(shown)
