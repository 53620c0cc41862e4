"""What a service is: the work that a process does, read from its command line, and what makes two the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remote.facts.processes import Process


@dataclass(frozen=True, slots=True)
class Role:
    """What one process (or one unit's main process) does. Two are the same service when `same_as` holds.

    `service` is the kind's name (`gunicorn`, `celery-worker`, `celery-beat`, `postgres`, `redis`, `nginx`); `app` the
    application (`teaching_panel`, `proj.wsgi:application`), `queues` sorted, `workers` the configured number of worker
    processes (0: unknown), `node` the celery node name. `settings` is a digest of what tells two apart beyond that (broker,
    DJANGO_SETTINGS_MODULE…), empty when nothing was said. `master` is False for pool children and workers of a master.
    `both` marks a celery worker that is a beat as well (`-B`): it is listed once for each role.
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

    @property
    def identity(self) -> tuple[str, str, tuple[str, ...], int, str, str]:
        """What makes two of them the same service: role, application, queues, uid, working directory, settings."""
        return (self.service, self.app, self.queues, self.uid, self.cwd, self.settings)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of program. `recognise(argv, process)` gives the roles that this command line plays (none, one or two).

    `argv` is the opened command line, already unwrapped from setproctitle's forms where the kind knows them.
    `title` is how people call it.
    """

    name: str
    title: str
    recognise: Callable[[Sequence[str], Process], tuple[Role, ...]]
    order: int = 100
