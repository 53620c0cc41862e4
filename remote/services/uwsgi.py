"""uWSGI: a master that forks workers, and kills what hangs or grows too big when it was told to."""

from __future__ import annotations

from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, plain
from remote.services.argv import options, program, settings
from remote.services.base import Kind, Role, Sign

_NAMES = ("uwsgi", "uwsgi-core")
_FLAGS = frozenset(
    (
        *("-M", "--master", "-T", "--enable-threads", "-L", "--disable-logging", "--lazy-apps", "--lazy", "--die-on-term"),
        *("--vacuum", "--need-app", "--no-orphans", "--single-interpreter", "--thunder-lock", "--auto-procname", "-i"),
        *("--log-master", "--log-x-forwarded-for", "--honour-stdin", "--http-keepalive", "--strict", "--no-site", "-h"),
        *("--help", "--version", "--cheap", "--idle", "--py-autoreload-on-edit", "--reuse-port", "--memory-report", "-m"),
    )
)
_APPS = ("-w", "--module", "--wsgi", "--wsgi-file", "--file", "--mount", "--ini", "--yaml", "--xml", "--json", "--emperor")
# Its words stand without a date, unless uWSGI puts it (uwsgi_log_verbose, --log-date).
_DATE = r"(?:[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} - )?"
_DIED = line(
    _DATE + r"DAMN ! worker (\d{1,6}) \(pid: (\d{1,9})\) "
    r"(?:(?:died,|M[IY]STERIOUSLY) killed by signal (\d{1,3})|died) :\( trying respawn \.\.\."
)
_HARAKIRI = line(
    _DATE + r"\*\*\* HARAKIRI ON WORKER (\d{1,6}) \(pid: (\d{1,9})(?:, try: \d{1,9})?(?:, graceful: (?:yes|no))?\) \*\*\*"
)
_EVIL = line(_DATE + r"\*\*\* EVIL RELOAD ON WORKER (\d{1,6}) (RSS|ADDRESS SPACE): (\d{1,18}) \(pid: (\d{1,9})\) \*\*\*")
_MERCY = line(_DATE + r"(?:worker|mule|spooler) \d{1,6} \(pid: (\d{1,9})\) is taking too much time to die\.\.\.NO MERCY !!!")
# Recycled or asked to end: the second, of a reload, does not say the pid.
_DONE = line(_DATE + r"worker (\d{1,6}) (?:killed successfully \(pid: (\d{1,9})\)|buried after \d{1,9} seconds)")
_BOOTED = line(_DATE + r"(?:spawned|Respawned) uWSGI worker (\d{1,6}) \((?:new )?pid: (\d{1,9})(?:, cores: \d{1,6})?\)")
_VERSION = line(r"\*\*\* Starting uWSGI (\d[\w.+-]{0,40}) \(\d\dbit\) on \[[^\[\]\n]{10,40}\] \*\*\*")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The command line, which the workers share. Where options come from a file, that file is the application."""
    found = program(argv, process.cwd or "")
    if found is None or found.name not in _NAMES or found.interpreted:
        return ()
    given = options(found.args, _FLAGS)
    if given.has("-h", "--help", "--version"):
        return ()
    return (
        Role(
            KIND.name,
            given.last(*_APPS) or next(iter(given.words), ""),
            workers=given.number("-p", "--processes", "--workers"),
            threads=given.number("--threads"),
            max_requests=given.number("-R", "--max-requests"),
            settings=settings({"bind": ",".join(sorted(given.all("-s", "--socket", "--http", "--http-socket")))}),
            uid=process.uid,
            cwd=(given.last("--chdir") if not process.pid else "") or process.cwd or "",
        ),
    )


def genuine(process: Process) -> bool:
    """Whether the executable, where it may be read, is uWSGI's."""
    return process.exe is None or process.exe.rsplit("/", 1)[-1] in _NAMES


def sign(entry: Entry) -> Sign | None:
    """What the master logs of its workers: whom it found dead, and whom it kills itself (harakiri, evil reload)."""
    text = plain(entry.message)
    if said := _DIED.fullmatch(text):
        pid, name = int(said[2]), f"worker {said[1]}"
        return Sign("killed", pid, int(said[3]), name=name) if said[3] else Sign("exiting", pid, name=name)
    if said := _DONE.fullmatch(text):
        return Sign("exiting", int(said[2]) if said[2] else None, name=f"worker {said[1]}")
    if said := _HARAKIRI.fullmatch(text):
        return Sign("timeout", int(said[2]), name=f"worker {said[1]}")
    if said := _EVIL.fullmatch(text):
        return Sign("recycled", int(said[4]), rss_bytes=int(said[3]) if said[2] == "RSS" else None, name=f"worker {said[1]}")
    if said := _MERCY.fullmatch(text):
        return Sign("forced", int(said[1]))
    if said := _BOOTED.fullmatch(text):
        return Sign("booted", int(said[2]), name=f"worker {said[1]}")
    said = _VERSION.fullmatch(text)
    return Sign("version", version=said[1]) if said else None


_TELLINGS = (
    "DAMN ! worker",
    "HARAKIRI ON WORKER",
    "EVIL RELOAD ON",
    "NO MERCY",
    "pawned uWSGI worker",
    "Starting uWSGI",
    "worker [0-9]+ (killed successfully|buried after)",
)

KIND = Kind("uwsgi", "uWSGI", recognise, order=12, genuine=genuine, sign=sign, tellings=_TELLINGS, prefork=True)
