"""A server made by hand: units and processes with what matters for a judgement, all else plain."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.secret import CommandLine

MIB = 1 << 20
BOOT = "b" * 32
PYTHON = "/usr/bin/python3.11"
SESSION = "/user.slice/user-0.slice/session-3.scope"


def process(pid: int, line: str | tuple[str, ...], **given: Any) -> Process:  # noqa: ANN401 - any field
    """A process of www-data in /srv/app run by Python, unless said otherwise; `line` is split at spaces."""
    argv = tuple(line.split()) if isinstance(line, str) else line
    fields: dict[str, Any] = {
        "ppid": 1,
        "start_ticks": pid * 100,
        "started_at": datetime(2026, 11, 23, tzinfo=UTC),
        "name": argv[0].rsplit("/", 1)[-1][:15] if argv else "",
        "uid": 33,
        "user": "www-data",
        "rss_bytes": 120 * MIB,
        "swap_bytes": 0,
        "pss_bytes": 100 * MIB,
        "cgroup": SESSION,
        "exe": PYTHON,
        "cwd": "/srv/app",
        **given,
    }
    return Process(pid=pid, command=CommandLine(argv), **fields)


def unit(name: str, line: str, main_pid: int = 0, **given: Any) -> Unit:  # noqa: ANN401 - any field
    """An enabled unit of www-data in /srv/app, running when it has a main process, unless said otherwise."""
    relations = {"WantedBy": ("multi-user.target",), **given.pop("relations", {})}
    environment = given.pop("environment", "")
    fields: dict[str, Any] = {
        "names": (name,),
        "description": "A service",
        "load_state": "loaded",
        "active_state": "active" if main_pid else "inactive",
        "sub_state": "running" if main_pid else "dead",
        "unit_file_state": "enabled",
        "result": "success",
        "restarts": 0,
        "invocation_id": "",
        "control_group": f"/system.slice/{name}" if main_pid else "",
        "fragment_path": f"/etc/systemd/system/{name}",
        "drop_in_paths": (),
        "needs_reload": False,
        "kill_mode": "control-group",
        "restart": "always",
        "oom_policy": "stop",
        "user": "www-data",
        "working_directory": "/srv/app",
        "stop_timeout_s": 90.0,
        "memory_max_bytes": None,
        "memory_high_bytes": None,
        "used_bytes": None,
        "links": (),
        "settings_hash": "",
        "fragment_mtime_s": 1000.0,
        "delegate": False,
        **given,
    }
    return Unit(
        id=name,
        main_pid=main_pid,
        exec_start=CommandLine(tuple(line.split())),
        environment=CommandLine(tuple(environment.split())),
        relations=relations,
        **fields,
    )


class Scene:
    """A host to which units (with a main process and its children) and strays are added."""

    def __init__(self) -> None:
        self._units: list[Unit] = []
        self._processes: list[Process] = []

    def runs(self, name: str, line: str, pid: int, children: int = 1, **given: Any) -> Scene:  # noqa: ANN401 - any field
        """A running unit: `line` under Python with so many children. `exe`, `uid`, `cwd`, `user` go to its processes."""
        own: dict[str, Any] = {key: given.pop(key) for key in ("exe", "uid", "cwd", "pss_bytes", "rss_bytes") if key in given}
        if "user" in given:
            own["user"] = given["user"]
        self._units.append(unit(name, line, pid, **given))
        argv = f"python3 {line}"
        group = self._units[-1].control_group
        self._processes.append(process(pid, argv, cgroup=group, **own))
        for child in range(pid + 1, pid + 1 + children):
            self._processes.append(process(child, argv, ppid=pid, cgroup=group, **own))
        return self

    def has(self, name: str, line: str, **given: Any) -> Scene:  # noqa: ANN401 - any field
        """A unit that does not run."""
        self._units.append(unit(name, line, **given))
        return self

    def stray(self, pid: int, line: str | tuple[str, ...], children: int = 0, **given: Any) -> Scene:  # noqa: ANN401 - any field
        """A process with no unit, and its children."""
        self._processes.append(process(pid, line, **given))
        for child in range(pid + 1, pid + 1 + children):
            self._processes.append(process(child, line, **{**given, "ppid": pid}))
        return self

    @property
    def processes(self) -> Processes:
        """The processes as a fact."""
        return Processes(tuple(self._processes), BOOT)

    @property
    def units(self) -> Units:
        """The units as a fact."""
        return Units(tuple(self._units))


WORKER = "/usr/bin/celery -A app worker -c 1"
BEAT = "/usr/bin/celery -A app beat"
BOTH = "/usr/bin/celery -A app worker -B -c 1"


def runbook() -> Scene:
    """The first user's server: five celery units of which two are wanted, a stray, and the site."""
    return (
        Scene()
        .runs("teaching_panel.service", "/usr/bin/gunicorn -w 3 app.wsgi", 100, children=3)
        .runs("celery.service", WORKER, 200)
        .runs("celery_worker.service", WORKER, 300)
        .runs("celery-beat.service", BEAT, 400, children=0)
        .runs("celery_beat.service", BEAT, 500, children=0, description="Celery beat (old)")
        .runs("celery-combined.service", BOTH, 600, children=2)
        .stray(700, f"python3 {WORKER}", children=1)
    )
