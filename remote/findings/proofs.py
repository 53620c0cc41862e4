"""What the lines of one death say together: pure functions over its proofs."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Literal

from remote.facts.journal import Entry
from remote.findings.cases import Case, Own, Proof, Told
from remote.findings.daemons import ContainerKill, DaemonKill, UnitSaid, without_command
from remote.findings.kill import LINE_CHARACTERS, LINES
from remote.findings.lines import Reaped, Summary, Victim
from remote.findings.people import Asked
from remote.findings.reports import Report
from remote.redact import redact

_SIGKILL = 9


def report_of(proofs: list[Proof]) -> Report | None:
    """The newest report of the kernel's around its lines."""
    return next((proof.report for proof in reversed(proofs) if proof.report is not None), None)


def memory_of(proofs: list[Proof]) -> Literal["", "machine", "group", "unsaid"]:
    """Whose memory ran out, by the kernel's lines about this process and the reports around them."""
    lines = [proof for proof in proofs if isinstance(proof.said, Victim | Summary | Reaped)]
    if not lines:
        return ""
    own = (proof.said.memcg for proof in lines if isinstance(proof.said, Victim | Summary))
    around = (proof.report.memcg for proof in lines if proof.report is not None)
    said = next((memcg for memcg in (*own, *around) if memcg is not None), None)
    return "unsaid" if said is None else "group" if said else "machine"


def has(case: Case, what: str) -> bool:
    """Whether PID 1 said this of it."""
    return any(isinstance(proof.said, UnitSaid) and proof.said.what == what for proof in case.proofs)


def fits(case: Case, unit_case: Case) -> bool:
    """Whether a unit's word may be about this process: an OOM kill about a victim of the kernel's, an end by a signal about
    whom a daemon sent that signal."""
    if has(unit_case, "oom") and memory_of(case.proofs):
        return True
    hunted = any(isinstance(proof.said, DaemonKill) for proof in case.proofs)
    ends = {p.said.signal for p in unit_case.proofs if isinstance(p.said, UnitSaid) and p.said.what == "main"}
    return hunted and signal_of(case.sorted()) in ends


def is_told(case: Case) -> bool:
    """Whether a program found it dead, and nobody else says more."""
    return any(isinstance(proof.said, Told) for proof in case.proofs) and not memory_of(case.proofs)


def speaker(word: Own | None) -> str:
    """Who said it, as people call it."""
    return "" if word is None else word.entry.comm or word.entry.identifier


def is_oomd(proof: Proof) -> bool:
    """Whether systemd-oomd did it, by its own word or PID 1's."""
    said = proof.said
    return (isinstance(said, UnitSaid) and said.what == "oomd") or (isinstance(said, DaemonKill) and said.by == "systemd-oomd")


def in_container(asked: Asked, container: str) -> bool:
    """Whether a command named this container by its id."""
    return bool(container) and any(len(word) > 3 and word.startswith(container[: len(word)]) for word in asked.containers)  # noqa: PLR2004 - as many digits of an id as people type


def signal_of(proofs: list[Proof]) -> int:
    """The last and hardest signal that was sent."""
    if any(isinstance(proof.said, Victim | Summary | Reaped | ContainerKill) for proof in proofs):
        return _SIGKILL
    hunted = [proof.said for proof in proofs if isinstance(proof.said, DaemonKill)]
    if hunted:
        return min(said.signal for said in hunted)
    ends = [proof.said.signal for proof in proofs if isinstance(proof.said, UnitSaid | Told)]
    return next((signal for signal in ends if signal), _SIGKILL)


def rss_of(proofs: list[Proof]) -> int | None:
    """What it held in memory."""
    sizes = [proof.said.rss_bytes for proof in proofs if isinstance(proof.said, Victim | DaemonKill)]
    return next((size for size in sizes if size is not None), None)


def uid_of(proofs: list[Proof]) -> int | None:
    """Whose it was."""
    uids = [proof.said.uid for proof in proofs if isinstance(proof.said, Victim | Summary | DaemonKill)]
    return next((uid for uid in uids if uid is not None), None)


def limited_of(proofs: list[Proof]) -> str:
    """The cgroup whose pressure made systemd-oomd act."""
    return next((proof.said.limited for proof in proofs if isinstance(proof.said, DaemonKill) and proof.said.limited), "")


def lines_of(entries: list[Entry]) -> tuple[str, ...]:
    """The proof, oldest first, redacted; each line once."""
    each = dict.fromkeys(sorted((entry.monotonic_us, entry.message) for entry in entries))
    return tuple(_shown(message) for _, message in islice(each, LINES))


@lru_cache(maxsize=4096)
def _shown(message: str) -> str:
    return redact(without_command(message))[:LINE_CHARACTERS]
