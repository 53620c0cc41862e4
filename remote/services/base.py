"""What a service is: the work that a process does, read from its command line, and what makes two the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from remote.facts.journal import Entry
from remote.facts.processes import Process


@dataclass(frozen=True, slots=True)
class Role:
    """What one process (or one unit's main process) does. Two are the same service when `same_as` holds.

    `service` is the kind's name (`gunicorn`, `celery-worker`, `celery-beat`, `postgres`, `redis`, `nginx`…); `app` the
    application (`teaching_panel`, `proj.wsgi:application`), `queues` sorted, `workers` the configured number of worker
    processes (0: unknown), `node` the celery node name. `settings` is a digest of what tells two apart beyond that (broker,
    DJANGO_SETTINGS_MODULE…), empty when nothing was said. `master` is False for pool children and workers of a master.
    `both` marks a celery worker that is a beat as well (`-B`): it is listed once for each role. `nodes` is how many the
    command line starts at once (`celery multi`; 0: unknown), which may differ in all but the application.
    """

    service: str
    app: str
    queues: tuple[str, ...] = ()
    workers: int = 0
    threads: int = 0
    max_requests: int = 0
    node: str = ""
    settings: str = ""
    uid: int = -1
    cwd: str = ""
    master: bool = True
    both: bool = False
    nodes: int = 1

    @property
    def identity(self) -> tuple[str, str, tuple[str, ...], int, str, str]:
        """What makes two of them the same service: role, application, queues, uid, working directory, settings."""
        return (self.service, self.app, self.queues, self.uid, self.cwd, self.settings)

    def same_as(self, other: Role) -> bool:
        """Whether both do the same work. A setting that only one of them names does not tell them apart: applications
        often set it by default (`os.environ.setdefault("DJANGO_SETTINGS_MODULE", …)`)."""
        return self.identity[:-1] == other.identity[:-1] and agree(self.settings, other.settings)


def agree(settings: str, others: str) -> bool:
    """Whether two `Role.settings` (words `name=digest`) differ in nothing that both name."""
    ours, theirs = (dict(word.split("=", 1) for word in said.split()) for said in (settings, others))
    return all(theirs.get(name, value) == value for name, value in ours.items())


What = Literal[
    "killed", "timeout", "limit", "recycled", "forced", "lost", "died", "exiting", "booted", "version", "task",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sign:
    """What a program's own log line says of one of its processes: a claim of who wrote it, until the host bears it out.

    An end that the program saw:
    `killed`: `pid` was ended by `signal`. `died`: it is gone, and the program does not say how. `exiting`: it ends or
    ended by itself. `lost`: a consequence of `killed`, told later, without a pid.

    What the program does to it itself:
    `timeout`: it ends `pid`, which hung. `limit`: it ends one (`pid` None where it does not say which) that ran longer
    than `limit_s`. `recycled`: it ends `pid`, which had grown to `rss_bytes`, by design. `forced`: it sends SIGKILL to what
    did not stop when asked (within `limit_s`, where that is told).

    What tells more about those:
    `booted`: `pid` is new. `version`: the program starts, in `version`. `task`: it took `task` in hand.

    `name` is what the program calls the process (`worker 1`, `rdb`, a program of supervisord's). Where an end is told with a
    name and without a pid, the newest `booted` of that name has the pid. A `booted` has a name only where one at a time bears
    it and the program tells every end.
    """

    what: What
    pid: int | None = None
    signal: int = 9
    limit_s: float | None = None
    rss_bytes: int | None = None
    name: str = ""
    task: str = ""
    version: str = ""


def silent(entry: Entry) -> Sign | None:  # noqa: ARG001 - as Kind.sign has it
    """The `sign` of a kind whose log says nothing of killed processes."""
    return None


def any_program(process: Process) -> bool:  # noqa: ARG001 - as Kind.genuine has it
    """The `genuine` of a kind that can be any executable."""
    return True


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of program. `recognise(argv, process)` gives the roles that this command line plays (none, one or two).

    `argv` is the opened command line, setproctitle's forms too. `title` is how people call it. argv is only a claim
    (`exec -a`): `genuine(process)` says whether the executable can be such a program. `twins` says whether two that do
    the same are a waste (for a database they never are one to stop).

    `sign(entry)` reads a line that the program's main process wrote (gunicorn's workers say `booted` and `exiting`
    themselves). It must match whole, with the date, pid and level that the program puts before: a line may repeat what
    a visitor sent. A log whose format was changed is therefore not read. `tellings` are extended regular expressions
    (for grep -E and PCRE2 alike, over raw JSON too: so no quote and no backslash) of which at least one is found in every
    line that `sign` reads: they narrow on the host what is sent. `asides` are those of lines that come with every piece of
    work (`task`), and can be many. `children` says that those of the program's children are among them.

    `comms` are the kernel's names of its processes beside `name`; `program` is how people call all of it, where `title` is
    one part's. `prefork`: its master forks workers and starts a new one for each that dies, so that only what that one had
    in hand is lost.
    """

    name: str
    title: str
    recognise: Callable[[Sequence[str], Process], tuple[Role, ...]]
    order: int = 100
    genuine: Callable[[Process], bool] = any_program
    twins: bool = False
    sign: Callable[[Entry], Sign | None] = silent
    tellings: tuple[str, ...] = ()
    asides: tuple[str, ...] = ()
    children: bool = False
    comms: tuple[str, ...] = ()
    program: str = ""
    prefork: bool = False

    @property
    def called(self) -> str:
        """The program, as people call it."""
        return self.program or self.title
