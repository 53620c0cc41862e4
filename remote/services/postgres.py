"""PostgreSQL: a main process, and children that say by their title what they do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain, wrote
from remote.services.argv import options, program
from remote.services.base import Kind, Role, Sign

_NAMES = ("postgres", "postmaster")
_TITLE = re.compile(r"postgres(?:|\s*): (?:(?P<cluster>\d+/[\w.-]+): )?\S.*", re.DOTALL)
# `%m [%p] %q%u@%d ` (Debian's), `%m [%p] ` (the default), `%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ` (pgBadger's): the
# postmaster has no user and no database. Before that syslog has the record's number and -1: further parts of a long record
# (-2 and on) start in the midst of what a client sent.
_LINE = line(
    r"(?:\[\d{1,9}-1\] )?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{3})? \S{1,40} \[(?P<pid>\d{1,9})\]:? "
    r"(?:\[\d{1,9}-1\] )?(?:@ |user=,db=(?:,app=)?(?:,client=)? )?(?P<level>[^\s:]{1,20}):  (?P<text>.+)"
)
# Levels and texts are in the language of lc_messages. From PostgreSQL 15's catalogues: po/*.po, `%s (PID %d) was terminated by
# signal %d: %s`, and `LOG`.
_WORDS = (
    ("LOG", r" \(PID (\d{1,9})\) was terminated by signal (\d{1,3}): "),
    ("СООБЩЕНИЕ", r" \(PID (\d{1,9})\) был завершён по сигналу (\d{1,3}): "),
    ("LOG", r" \(PID (\d{1,9})\) wurde von Signal (\d{1,3}) beendet: "),
    ("LOG", r" \(PID (\d{1,9})\) fue terminado por una señal (\d{1,3}): "),
    ("LOG", r" \(PID (\d{1,9})\) a été arrêté par le signal (\d{1,3}) : "),
    ("LOG", r" \(PID (\d{1,9})\) è stato terminato dal segnale (\d{1,3}): "),
    ("LOG", r" \(PID (\d{1,9})\)はシグナル(\d{1,3})で終了しました: "),
    ("ჟურნალი", r" \(PID (\d{1,9})\) დასრულდა სიგნალით: (\d{1,3}): "),
    ("로그", r" \(PID (\d{1,9})\) 프로세스가 (\d{1,3})번 시그널을 받아 종료됨: "),
    ("LOGG", r" \(PID (\d{1,9})\) terminerades av signal (\d{1,3}): "),
    ("ЗАПИСУВАННЯ", r" \(PID (\d{1,9})\) був перерваний сигналом (\d{1,3}): "),
    ("日志", r"（PID (\d{1,9})）被信号 (\d{1,3}) 终止: "),
    ("日誌", r" \(PID (\d{1,9})\) 由訊號 (\d{1,3}) 結束: "),
)
_KILLED = tuple(
    (level, line(rf"([^\x00-\x1f()（）]{{1,100}}){text}[^\x00-\x1f\"'/\[\]():;,.]{{1,60}}")) for level, text in _WORDS
)


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The main process (`postgres -D /var/lib/…`), or a child (`postgres: 15/main: checkpointer`)."""
    title = _TITLE.fullmatch(argv[0].strip()) if argv else None
    if title:
        return (Role(KIND.name, title["cluster"] or "", uid=process.uid, cwd=process.cwd or "", master=False),)
    found = program(argv, process.cwd or "")
    if found is None or found.name not in _NAMES or found.interpreted:
        return ()
    data = options(found.args, ("-i", "-l", "-S", "--single")).last("-D")
    return (Role(KIND.name, data.rstrip("/"), uid=process.uid, cwd=process.cwd or ""),)


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is PostgreSQL's."""
    return process.exe is None or process.exe.rsplit("/", 1)[-1] in _NAMES


def sign(entry: Entry) -> Sign | None:
    """`server process (PID 290) was terminated by signal 9: Killed`; from 18 on `client backend (PID 290) …`."""
    found = _LINE.fullmatch(plain(entry.message))
    if found is None or not wrote(entry, found["pid"]):
        return None
    for level, pattern in _KILLED:
        said = pattern.fullmatch(found["text"]) if level == found["level"] else None
        if said:
            return Sign("killed", int(said[2]), int(said[3]), name=said[1])
    return None


_TELLINGS = ("PID [0-9]+.*[0-9].*: ",)

KIND = Kind("postgres", "PostgreSQL", recognise, order=40, genuine=genuine, sign=sign, tellings=_TELLINGS)
