"""A log line that somebody pasted or forwarded: which process does it say was killed?

It is only a question, asked by whoever pasted it: whatever the line claims, the host's own journal answers.
"""

from __future__ import annotations

import re

LOOKED_AT = 20_000  # characters; a whole event of Sentry's may be pasted
MOST = 4_194_304  # Linux has no higher pid (PID_MAX_LIMIT)

_PID = r"(?P<pid>\d{1,7})\b"
_LINES = (
    # gunicorn, and what its workers say of each other (dramatiq too)
    rf"\bWorker \(pid: ?{_PID}\) (?:was sent|exited|was terminated)",
    rf"\bWorker with (?:pid|PID) {_PID} (?:was terminated|exited unexpectedly)",
    rf"\bWORKER TIMEOUT \(pid: ?{_PID}\)",
    # the kernel: 2.6.32 to 6.x
    rf"\bKill(?:ed)? process {_PID},? (?:UID \d+, )?\(",
    rf"\boom-kill:constraint=[^\n]*,pid={_PID},uid=\d",
    rf"\boom_reaper: reaped process {_PID}",
    # celery
    rf"\bpid: ?{_PID} exited with ['\"\u2018\u2019\u201c\u201d]?(?:signal|exitcode)",
    # PostgreSQL
    rf"\(PID {_PID}\) was terminated by signal",
    # php-fpm, nginx
    rf"\b(?:child|worker process) {_PID} exited on signal",
    # uWSGI
    rf"\bworker \d+ \(pid: {_PID}\) (?:died|MYSTERIOUSLY)",
    rf"\bHARAKIRI ON WORKER \d+ \(pid: {_PID}",
    rf"\bkilled successfully \(pid: {_PID}\)",
    # systemd, earlyoom, puma
    rf"\bKilling process {_PID} \(",
    rf"\bsending SIG(?:TERM|KILL) to process {_PID}",
    rf"\bTerminating timed out worker(?: \([^()\n]*\))?: {_PID}",
)
_TELLS = tuple(re.compile(line) for line in _LINES)


def quoted(text: str) -> int | None:
    """The pid of the first process that a log line in the text says was killed; None for any other text, and for a command."""
    if text.lstrip().startswith("/"):
        return None
    found = [match for tells in _TELLS if (match := tells.search(text, 0, LOOKED_AT))]
    pids = (int(match["pid"]) for match in sorted(found, key=re.Match.start))
    return next((pid for pid in pids if 1 < pid <= MOST), None)
