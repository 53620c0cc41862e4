"""What is said about a hook: in the chats that see the host, and to who asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bot.i18n import render
from handlers.cards.journal import partial_lines
from handlers.cards.kill import kill_card, newest_first
from handlers.reply import Block, Button, Line, Reply, Title
from remote.findings.kill import Kill
from remote.redact import redact
from remote.text import Mono, N, T, Text

REPORTS = 5
NOTE_LINES, NOTE = 12, 4000  # lines of evidence in a note, and characters of it


@dataclass(frozen=True, slots=True)
class Report:
    """What one hook was about: `what` for people and hostile, `link` of the settings' own making or empty. `named` says that it
    names the very process that was killed."""

    source: str
    what: str
    link: str = ""
    named: bool = False


def reported(host: str, kills: Sequence[Kill], reports: Sequence[Report], now: datetime, *, whole: bool) -> Reply:
    """Who else reports these kills (at least one). `whole` tells the kills too, where no card of theirs was posted."""
    card = kill_card(host, kills, now)
    title = card.blocks[0]
    told: tuple[Block, ...] = card.blocks if whole else (replace(title, tone="plain"),) if isinstance(title, Title) else ()
    lines = [line for report in reports[:REPORTS] for line in _lines(_says(report), report.link)]
    if len(reports) > REPORTS:
        lines.append(Line(N("and {n} more report", "and {n} more reports", len(reports) - REPORTS)))
    pid = kills[0].pid if len(kills) == 1 else None
    why = f"/why {host}" if pid is None else f"/why {host} {pid}"
    return Reply((*told, *lines), ((Button(T("Why"), why),),))


def _says(report: Report) -> Text:
    if report.named:
        return T("{source} reports it too: {what}", source=report.source, what=Mono(report.what))
    return T("{source} reports at the same time: {what}", source=report.source, what=Mono(report.what))


def nothing(host: str, report: Report, partial: str) -> Reply:
    """The host was looked at in vain; `partial` says what could not be seen (`Journal.partial`)."""
    text = T(
        "{source} reports {what} on {host}; I looked and found no kill.",
        source=report.source, what=Mono(report.what), host=Mono(host),
    )  # fmt: skip
    return Reply((*_lines(text, report.link), *partial_lines(partial)))


def not_looked(host: str, report: Report, why: Text) -> Reply:
    """The host could not be looked at, for as long as that was of use."""
    text = T(
        "{source} reports {what} on {host}; I could not look: {why}",
        source=report.source, what=Mono(report.what), host=Mono(host), why=why,
    )  # fmt: skip
    return Reply(tuple(_lines(text, report.link)))


def _lines(text: Text, link: str) -> Iterator[Line]:
    yield Line(text)
    if link:
        yield Line(T("{link}", link=link))


def note(host: str, kills: Sequence[Kill], now: datetime, language: str) -> str:
    """What the asker is told, redacted: the card's sentences and the log's lines, in a block in which Markdown means nothing."""
    card = kill_card(host, kills, now)
    lines = [render(block.text, language) for block in card.blocks if isinstance(block, Title | Line)]
    evidence = dict.fromkeys(line for kill in newest_first(kills) for line in kill.evidence)
    lines += ["", *list(evidence)[:NOTE_LINES]] if evidence else []
    text = "\n".join(redact(line).replace("`", "'") for line in lines)[:NOTE]
    return f"memwarden:\n```\n{text}\n```"
