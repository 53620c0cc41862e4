"""What a journal that is not whole means, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from handlers.reply import Line
from remote.text import Mono, T, Text

_WORDS: Mapping[str, Text] = {
    "own": T("I may read only my own messages in the journal: kills may be missed."),
    "volatile": T("The journal is not kept on disk: what was before the last start is lost."),
    "cut": T("The journal said more than I read."),
    "dmesg": T("There is no journal: I read the kernel's own buffer."),
    "syslog": T("There is no journal: I read log files, where anybody may write; what they say is a guess."),
}
INSTEAD = {"dmesg", "syslog"}
"""The words that say that there is no journal, and what was read in its place."""


def partial_lines(partial: str) -> Iterator[Line]:
    """One line for each reason in `Journal.partial`."""
    for word in partial.split():
        yield Line(_WORDS.get(word, T("The journal is not whole: {why}", why=Mono(word))))
