"""Journal entries made by hand: who says what when, with the fields that make it trustworthy."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from remote.facts.journal import Entry, parse_entry
from remote.findings import death
from remote.findings.kill import Kill
from tests.remote.findings.scene import BOOT

RECORDED = Path(__file__).parents[2] / "recorded" / "debian12" / "journal"
START = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
RSS = "total-vm:900000kB, anon-rss:204800kB, file-rss:0kB, shmem-rss:0kB, UID:33 pgtables:44kB oom_score_adj:0"
SITE = "/system.slice/site.service"


def entry(at_s: float, message: str, **given: Any) -> Entry:  # noqa: ANN401 - any field
    fields: dict[str, Any] = {"boot_id": BOOT, **given}
    return Entry(
        cursor=f"s={at_s};{message}", at=START + timedelta(seconds=at_s), monotonic_us=int(at_s * 1e6), message=message, **fields
    )


def kernel(at_s: float, message: str, **given: Any) -> Entry:  # noqa: ANN401 - any field
    return entry(at_s, message, transport="kernel", facility=0, identifier="kernel", **given)


def systemd(at_s: float, message: str) -> Entry:
    return entry(at_s, message, transport="journal", facility=3, identifier="systemd", pid=1, system_unit="init.scope")


MASTER = 364


def invocation(unit_name: str) -> str:
    """The one invocation of a unit here; its main process is MASTER."""
    return f"invocation of {unit_name}"


FIRST_WRITERS = {
    invocation(name): MASTER for name in ("site.service", "celery.service", "liar.service", "postgresql@15-main.service")
}


def said(at_s: float, message: str, unit_name: str = "site.service", pid: int = MASTER, **given: Any) -> Entry:  # noqa: ANN401
    fields = {"transport": "stdout", "system_unit": unit_name, "pid": pid, "identifier": "gunicorn", "comm": "gunicorn"}
    return entry(at_s, message, **{**fields, "invocation": invocation(unit_name), **given})


def gunicorn(at_s: float, text: str, pid: int = 364, **given: Any) -> Entry:  # noqa: ANN401 - any field
    return said(at_s, f"[2026-11-23 20:00:00 +0000] [{pid}] [ERROR] {text}", pid=given.pop("said_by", pid), **given)


def celery(at_s: float, text: str, unit_name: str = "celery.service") -> Entry:
    return said(at_s, f"[2026-11-23 20:29:14,193: ERROR/MainProcess] {text}", unit_name, identifier="celery", comm="celery")


def dump(
    at_s: float, pid: int, name: str = "gunicorn", cgroup: str = SITE, limit_kib: int = 524288, limited: str = ""
) -> list[Entry]:
    """A unit over its limit, as a kernel of today prints it."""
    return [
        kernel(at_s, f"{name} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"),
        kernel(at_s + 0.001, f"memory: usage {limit_kib}kB, limit {limit_kib}kB, failcnt 9"),
        kernel(
            at_s + 0.002,
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
            f"oom_memcg={limited or cgroup},task_memcg={cgroup},task={name},pid={pid},uid=33",
        ),
        kernel(at_s + 0.003, f"Memory cgroup out of memory: Killed process {pid} ({name}) {RSS}"),
    ]


def sigkill(pid: int) -> str:
    return f"Worker (pid:{pid}) was sent SIGKILL! Perhaps out of memory?"


def earlyoom(at_s: float, message: str) -> Entry:
    return said(at_s, message, "earlyoom.service", 682, identifier="earlyoom")


def recorded(name: str) -> list[Entry]:
    lines = (RECORDED / f"{name}.jsonl").read_bytes().splitlines()
    return [found for line in lines if (found := parse_entry(line)) is not None]


def first_writers(entries: Iterable[Entry]) -> dict[str, int]:
    """As the journal fact reads them: who wrote first in each invocation."""
    found: dict[str, int] = {}
    for line in entries:
        if line.invocation and line.pid is not None:
            found.setdefault(line.invocation, line.pid)
    return found


def kills(entries: Iterable[Entry], **given: Any) -> tuple[Kill, ...]:  # noqa: ANN401 - as death.kills has them
    return death.kills(entries, **{"first_writers": FIRST_WRITERS, **given})


def one(entries: Iterable[Entry], **given: Any) -> Kill:  # noqa: ANN401 - as kills has them
    (kill,) = kills(entries, **given)
    return kill


def verdict(kill: Kill) -> tuple[int | None, str | None, str, str]:
    return kill.pid, kill.unit, kill.cause, kill.confidence
