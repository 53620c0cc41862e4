"""gunicorn: a master that forks workers and restarts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services._lines import line, numbered, plain, wrote
from remote.services.argv import Options, by_python, options, python_program, settings
from remote.services.base import Kind, Role, Sign, What

_FLAGS = frozenset(
    (
        *("--reload", "--spew", "--check-config", "--print-config", "--preload", "--no-sendfile", "--reuse-port", "-D"),
        *("--daemon", "--initgroups", "--disable-redirect-access-to-syslog", "--capture-output", "--log-syslog", "-R"),
        *("--enable-stdio-inheritance", "--enable-backlog-metric", "--suppress-ragged-eofs", "--do-handshake-on-connect"),
        *("--permit-obsolete-folding", "--strip-header-spaces", "--permit-unconventional-http-method", "-h", "--help"),
        *("--permit-unconventional-http-version", "--casefold-http-method", "--no-control-socket", "-v", "--version"),
    )
)
_NAMES = ("gunicorn", "gunicorn3", "gunicorn_paster", "gunicorn_django")
_TITLE = re.compile(r"gunicorn: (?P<part>master|worker) \[(?P<name>.*)\]", re.DOTALL)
# glogging.py's format, the default one: `[2026-11-23 23:50:56 +0000] [364] [ERROR] …`, with the pid of who logs.
_LINE = line(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[(?P<pid>\d{1,9})\] \[[A-Z]{4,8}\] (?P<text>.+)")
_TIMEOUT = line(r"WORKER TIMEOUT \(pid:(\d{1,9})\)")
# 21 and later say every signal; 24 and later as INFO or WARNING where it is not SIGKILL.
_SENT = line(r"Worker \(pid:(\d{1,9})\) was sent (SIG[A-Z0-9]{2,9}|code \d{1,3})!(?: Perhaps out of memory\?)?")
_TERMINATED = line(r"Worker with pid (\d{1,9}) was terminated due to (signal \d{1,3})")  # 20.1 only
_EXITED = line(r"Worker \(pid:(\d{1,9})\) exited with code \d{1,3}\.?")  # 21 and later
# The worker's own words. Before 20.1 they are the only ones: a worker that was killed is followed by the next one's boot.
_EXITING = line(r"Worker exiting \(pid: (\d{1,9})\)")
_BOOTED = line(r"Booting worker with pid: (\d{1,9})")
_VERSION = line(r"Starting gunicorn (\d[\w.+-]{0,30})")


def recognise(argv: Sequence[str], process: Process) -> tuple[Role, ...]:
    """The master and its workers (which share its command line), by argv or by setproctitle's form."""
    title = _TITLE.fullmatch(argv[0].strip()) if len(argv) == 1 else None
    if title:
        return (_role(_app(title["name"]), options((), _FLAGS), process, "", master=title["part"] == "master"),)
    found = python_program(argv, process)
    if found is None or found.name not in _NAMES:
        return ()
    given = options(found.args, _FLAGS)
    if given.has("-h", "--help", "-v", "--version", "--check-config", "--print-config"):
        return ()
    app = _app(given.words[0]) if given.words else given.last("--paste", "--paster") or given.last("-c", "--config")
    return (_role(app, given, process, _settings(given), master=True),)


def _role(app: str, given: Options, process: Process, told: str, *, master: bool) -> Role:
    return Role(
        service=KIND.name,
        app=app,
        workers=given.number("-w", "--workers"),
        threads=given.number("--threads"),
        max_requests=given.number("--max-requests"),
        settings=told,
        uid=process.uid,
        cwd=(given.last("--chdir") if not process.pid else "") or process.cwd or "",
        master=master,
    )


def _app(name: str) -> str:
    """The application as it is called whole: `module` stands for `module:application`."""
    return name if not name or ":" in name or "/" in name else f"{name}:application"


def _settings(given: Options) -> str:
    """Where it listens (a second one elsewhere is not the same service) and the Django settings of `--env`."""
    environment = dict(pair.partition("=")[::2] for pair in given.all("-e", "--env"))
    bind = ",".join(sorted(given.all("-b", "--bind")))
    return settings(
        {
            "bind": bind or ("" if given.has("-c", "--config") else "127.0.0.1:8000"),
            "DJANGO_SETTINGS_MODULE": environment.get("DJANGO_SETTINGS_MODULE", ""),
        }
    )


def sign(entry: Entry) -> Sign | None:
    """What the master logs of its workers, and a worker of itself. "Perhaps out of memory?" is a guess that gunicorn prints
    for every SIGKILL. Before 20.1 it says nothing of a worker's end, whatever it was."""
    found = _LINE.fullmatch(plain(entry.message))
    if found is None or not wrote(entry, found["pid"]):
        return None
    text = found["text"]
    if said := _TIMEOUT.fullmatch(text):
        return Sign("timeout", int(said[1]))
    if said := _SENT.fullmatch(text) or _TERMINATED.fullmatch(text):
        number = numbered(said[2])
        return None if number is None else Sign("killed", int(said[1]), number)
    if said := _EXITED.fullmatch(text):
        return Sign("exiting", int(said[1]))
    if said := _VERSION.fullmatch(text):
        return Sign("version", version=said[1])
    return _of_itself(entry, text)


def _of_itself(entry: Entry, text: str) -> Sign | None:
    """What a worker says in its own name."""
    own: tuple[tuple[What, re.Pattern[str]], ...] = (("booted", _BOOTED), ("exiting", _EXITING))
    for what, pattern in own:
        said = pattern.fullmatch(text)
        if said and wrote(entry, said[1]):
            return Sign(what, int(said[1]))
    return None


_TELLINGS = (
    "was sent (SIG|code )", "was terminated due to signal", "WORKER TIMEOUT", "exited with code", "Worker exiting",
    "Booting worker with pid", "Starting gunicorn",
)  # fmt: skip

KIND = Kind(
    "gunicorn", "gunicorn", recognise, order=10, genuine=by_python, twins=True, sign=sign, tellings=_TELLINGS, children=True,
    comms=("gunicorn3",), prefork=True,
)  # fmt: skip
