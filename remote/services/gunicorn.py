"""gunicorn: a master that forks workers and restarts them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote.facts.journal import Entry
from remote.facts.processes import Process
from remote.services.argv import Options, by_python, options, plain, python_program, settings
from remote.services.base import Kind, Role, Sign

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
# stderr: `[2026-11-23 23:50:56 +0000] [364] [ERROR] …`; the number is the master's, and journald knows who spoke.
_LINE = re.compile(r"\[[^\]]{1,40}\] \[(?P<pid>\d{1,9})\] \[\w{1,10}\] (?P<text>.*)", re.DOTALL)
_KILLED = (
    re.compile(r"Worker \(pid:(\d{1,9})\) was sent SIGKILL!"),  # 21 and later
    re.compile(r"Worker with pid (\d{1,9}) was terminated due to signal 9"),  # 20.1
)
_TIMEOUT = re.compile(r"WORKER TIMEOUT \(pid:(\d{1,9})\)")


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
    """What the master logs of a dead or hung worker. "Perhaps out of memory?" is a guess it prints for every SIGKILL."""
    line = _LINE.fullmatch(plain(entry.message))
    if line is None or int(line["pid"]) != entry.pid:
        return None
    if found := _TIMEOUT.match(line["text"]):
        return Sign("timeout", int(found[1]))
    found = next((found for pattern in _KILLED if (found := pattern.match(line["text"]))), None)
    return Sign("killed", int(found[1])) if found else None


_TELLINGS = ("was sent (SIG|code)", "was terminated due to signal", "WORKER TIMEOUT")

KIND = Kind("gunicorn", "gunicorn", recognise, order=10, genuine=by_python, twins=True, sign=sign, tellings=_TELLINGS)
