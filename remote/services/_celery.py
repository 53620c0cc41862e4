"""What celery's worker and beat share: one command line, one application, one log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from remote.facts.processes import Process
from remote.services.argv import Options, options, python_program, settings

FLAGS = frozenset(
    (
        *("-B", "--beat", "-C", "--no-color", "-D", "--detach", "-E", "--events", "--task-events", "-h", "--help"),
        *("-q", "--quiet", "--version", "--skip-checks", "--purge", "--discard", "--disable-prefetch", "--nosplash"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", "--verbose", "--quiet", "--traceback"),
        *("--enable-remote-control", "--no-enable-remote-control", "--no-execv", "--no-reload"),
    )
)
_COMMANDS = frozenset(
    (
        *("worker", "beat", "multi", "inspect", "control", "status", "call", "purge", "list", "report", "result"),
        *("events", "flower", "amqp", "shell", "graph", "migrate", "logtool", "upgrade", "help"),
    )
)
# celery.platforms.set_mp_process_title: `[celeryd: NODE:PROCESS] -active- (ARGUMENTS)`
_WORKER_TITLE = re.compile(r"\[celeryd: (?P<node>[^\s\]]*?):(?P<process>[\w-]+)\](?: -\w+-)?(?: \((?P<args>.*)\))?", re.DOTALL)
# `[celery beat] ARGUMENTS`, and `[celery beat]` alone for the one that a worker forks (-B).
_BEAT_TITLE = re.compile(r"\[(?:celery beat|celerybeat)(?::[\w-]+)?\](?: (?P<args>.*))?", re.DOTALL)
# What an application's own celery object is called by habit: `proj`, `proj.celery` and `proj.celery:app` are one.
_OBJECTS = (":app", ":celery", ".celery", ".app")


@dataclass(frozen=True, slots=True)
class Line:
    """A command line of celery's: the subcommand, its options, and what setproctitle's form tells beyond that."""

    command: str
    options: Options
    node: str = ""
    master: bool = True
    nodes: int = 1

    @property
    def app(self) -> str:
        """The application, told apart from the name of the object in it."""
        app = self.options.last("-A", "--app")
        for suffix in _OBJECTS:
            app = app.removesuffix(suffix)
        return app

    @property
    def settings(self) -> str:
        """A digest of the broker and the Django settings, where the line names them."""
        return settings(
            {
                "broker": self.options.last("-b", "--broker"),
                "DJANGO_SETTINGS_MODULE": self.options.last("--settings"),
            }
        )

    def cwd(self, process: Process) -> str:
        """The directory that the process works in."""
        return (self.options.last("--workdir") if not process.pid else "") or process.cwd or ""


def read(argv: Sequence[str], process: Process) -> Line | None:
    """Which of celery's commands `argv` runs; None when it is none of celery's."""
    titled = _titled(argv)
    if titled is not None:
        return titled
    found = python_program(argv, process)
    if found is None:
        return None
    if found.name == "manage.py" and found.args[:1] == ("celery",):
        return _line(found.args[1:])
    if found.name in {"celeryd", "celerybeat"}:
        return Line({"celeryd": "worker", "celerybeat": "beat"}[found.name], options(found.args, FLAGS))
    return _line(found.args) if found.name == "celery" else None


def _titled(argv: Sequence[str]) -> Line | None:
    """What setproctitle shows: all in one word."""
    title = argv[0].strip() if len(argv) == 1 else ""
    worker = _WORKER_TITLE.fullmatch(title)
    if worker:
        line = _line(_split(worker["args"] or "")) or Line("worker", options((), FLAGS))
        return Line("worker", line.options, worker["node"], worker["process"] == "MainProcess")
    beat = _BEAT_TITLE.fullmatch(title)
    if beat:
        line = _line(_split((beat["args"] or "").strip("()"))) or Line("beat", options((), FLAGS))
        return Line("beat", line.options, master=beat["args"] is not None)
    return None


def _split(args: str) -> list[str]:
    try:
        return shlex.split(args)
    except ValueError:  # celery joins its arguments without quoting them
        return args.split()


def _line(args: Sequence[str]) -> Line | None:
    found = options(args, FLAGS)
    command = next((word for word in found.words if word in _COMMANDS), "")
    if command == "multi":
        return _multi(found)
    return Line(command, found) if command else None


def _multi(given: Options) -> Line:
    """`celery multi start w1 w2`: workers in the background, one for each name."""
    after = given.words[given.words.index("multi") + 1 :]
    if after[:1] not in {("start",), ("restart",)}:
        return Line("multi", given)
    return Line("worker", given, nodes=_nodes(after[1:]))


def _nodes(names: Sequence[str]) -> int:
    """How many these are. A number alone counts them (celery.apps.multi); a variable (`$NODES`) may be any number."""
    if any("$" in name for name in names):
        return 0
    if len(names) == 1 and names[0].isascii() and names[0].isdigit():
        return int(names[0][:9])
    return len(names)
