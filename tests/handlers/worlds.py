"""The runbook's server as values, and smaller ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from remote.facts.host import Machine
from remote.facts.journal import Entry, Journal
from remote.facts.memory import Memory, Pressure
from remote.facts.processes import Process, Processes
from remote.facts.schedules import Schedule, Schedules
from remote.facts.units import Unit, Units
from remote.findings.kill import Kill
from remote.policy import GIB, MIB
from remote.remedies.base import Draft, Step
from remote.secret import CommandLine
from remote.text import Mono, Span, T
from tests.handlers.ports import NOW

BOOT = "0e2e5a4e7a1c4b8e9d0e6d9c1f0a1b2c"
SECRET = "hunter2-hunter2"
APP = "/srv/teaching_panel"

MEMORY = Memory(
    total_bytes=2 * GIB, available_bytes=145 * MIB, swap_total_bytes=2 * GIB, swap_free_bytes=2 * GIB - 310 * MIB,
    pressure=Pressure(12.34, 3.21), oom_kills=3, uptime_s=3 * 86400.0 + 7200,
)  # fmt: skip
CALM = replace(MEMORY, available_bytes=1500 * MIB, swap_free_bytes=2 * GIB, pressure=None, oom_kills=0)
MACHINE = Machine(
    boot_id=BOOT, hostname="prod", kernel="6.1.0-18-amd64", distribution="Debian GNU/Linux 12 (bookworm)", cgroup_version=2,
    systemd_version=252, uid=0, root="uid", journal="all", clock_s=NOW.timestamp(), memory_bytes=2 * GIB,
)  # fmt: skip


def process(pid: int, unit: str | None, argv: str, mib: int, *, ppid: int = 1, name: str = "") -> Process:
    """One process of the panel's user, in a unit's cgroup or a login's."""
    words = tuple(argv.split())
    program = words[0]
    script = program.startswith(APP)
    return Process(
        pid=pid, ppid=ppid, start_ticks=pid * 10, started_at=NOW - timedelta(hours=5), name=name or program.rsplit("/", 1)[-1][:15],
        # The kernel puts the interpreter of a script's first line before it.
        command=CommandLine((f"{APP}/venv/bin/python3", *words) if script else words), uid=1000, user="panel", rss_bytes=(mib + 20) * MIB, swap_bytes=0, pss_bytes=mib * MIB,
        cgroup=f"/system.slice/{unit}" if unit else "/user.slice/user-1000.slice/session-3.scope", exe="/usr/bin/python3.11" if script else program, cwd=APP,
    )  # fmt: skip


def unit(name: str, argv: str, *, pid: int = 0, limit_mib: int | None = None, mtime_s: float = 1e9, **more: Any) -> Unit:  # noqa: ANN401
    """One service unit, enabled; active when it has a main process."""
    values: dict[str, Any] = {
        "id": name, "names": (name,), "description": name, "load_state": "loaded", "active_state": "active" if pid else "inactive",
        "sub_state": "running" if pid else "dead", "unit_file_state": "enabled", "result": "success", "main_pid": pid, "restarts": 0,
        "invocation_id": f"{pid:032x}", "control_group": f"/system.slice/{name}" if pid else "",
        "fragment_path": f"/etc/systemd/system/{name}", "drop_in_paths": (), "needs_reload": False, "kill_mode": "control-group",
        "restart": "always", "oom_policy": "stop", "user": "panel", "working_directory": APP, "stop_timeout_s": 90.0,
        "memory_max_bytes": limit_mib and limit_mib * MIB, "memory_high_bytes": None, "used_bytes": 100 * MIB if pid else None,
        "exec_start": CommandLine(tuple(argv.split())), "environment": CommandLine(()), "relations": {},
        "links": ((f"/etc/systemd/system/multi-user.target.wants/{name}", f"/etc/systemd/system/{name}"),),
        "settings_hash": "ab" * 32, "fragment_mtime_s": mtime_s, "delegate": False,
    }  # fmt: skip
    return Unit(**{**values, **more})


GUNICORN = f"{APP}/venv/bin/gunicorn teaching_panel.wsgi:application --workers 3 --bind 127.0.0.1:8000"
WORKER = f"{APP}/venv/bin/celery -A teaching_panel worker --concurrency 1"
BEAT = f"{APP}/venv/bin/celery -A teaching_panel beat"
SECRETIVE = f"{WORKER} --broker redis://:{SECRET}@127.0.0.1/0"

UNITS = Units(
    (
        unit("teaching_panel.service", GUNICORN, pid=100, limit_mib=512),
        unit("celery.service", WORKER, pid=200, mtime_s=1e9 - 1000),
        unit("celery_worker.service", WORKER, pid=210),
        unit("celery-beat.service", BEAT, pid=220),
        unit(
            "postgresql@15-main.service",
            "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main",
            pid=300,
            user="postgres",
        ),
    )
)
PROCESSES = Processes(
    (
        *(process(100 + n, "teaching_panel.service", GUNICORN, 50 + n, ppid=100 if n else 1) for n in range(4)),
        process(200, "celery.service", WORKER, 100),
        process(201, "celery.service", WORKER, 90, ppid=200),
        process(210, "celery_worker.service", WORKER, 105),
        process(211, "celery_worker.service", WORKER, 95, ppid=210),
        process(220, "celery-beat.service", BEAT, 80),
        process(300, "postgresql@15-main.service", "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main", 60),
        process(990, None, f"/usr/bin/evil_longname_программа --password {SECRET}", 30, name="evil|имя🔥длин"),
    ),
    BOOT,
)
SCHEDULES = Schedules((Schedule("teaching_panel.service", "/etc/cron.d/restart:3", "*/5 * * * *", tests_memory=True),))
QUIET = Journal(entries=(), partial="")


def entry(message: str, *, seconds: int = 0, **more: Any) -> Entry:  # noqa: ANN401
    """One line of the journal, an hour old."""
    at = NOW - timedelta(hours=1) + timedelta(seconds=seconds)
    return Entry("s=1", at, BOOT, 10**9 + seconds * 10**6, message, **more)


LOG = Journal((entry("worker: ready"), entry(f"Connected to redis://:{SECRET}@127.0.0.1:6379/0", seconds=1)))


def kill(pid: int | None = 689792, **more: Any) -> Kill:  # noqa: ANN401
    """A gunicorn worker at its unit's limit."""
    values: dict[str, Any] = {
        "pid": pid, "name": "gunicorn", "unit": "teaching_panel.service", "at": NOW - timedelta(minutes=3), "boot_id": BOOT,
        "monotonic_us": 1, "signal": 9, "cause": "cgroup-limit", "confidence": "certain", "limit_bytes": 512 * MIB,
        "rss_bytes": 310 * MIB, "evidence": ("Memory cgroup out of memory: Killed process 689792 (gunicorn)",),
        "advice": T("Nothing to do."), "limit_group": "/system.slice/teaching_panel.service",
    }  # fmt: skip
    return Kill(**{**values, **more})


def step(target: str = "celery_worker.service", *, frees_mib: int = 200, lost: bool = False) -> Step:
    """Stop an extra unit; `lost` is a stray that cannot be brought back."""
    if lost:
        return Step(
            "end-stray", "pid 990", T("End the stray {name}", name=Mono("celery-worker (pid 990)")), ("kill -TERM 990",), (),
            "true", "true", frees_bytes=frees_mib * MIB, cannot_undo=T("It was started by hand, so I cannot start it again"),
        )  # fmt: skip
    return Step(
        kind="stop-unit", target=target, text=T("Stop {unit} and do not start it at boot", unit=Mono(target)),
        commands=(f"systemctl stop {target}",), undo=(f"systemctl start {target}",), check="true", holds="true",
        frees_bytes=frees_mib * MIB, undo_text=T("Start {unit} again", unit=Mono(target)),
        interrupts=T("{unit} takes no new task; the one in hand may finish, for up to {time}", unit=Mono(target), time=Span(600)),
    )  # fmt: skip


DRAFT = Draft(
    host="prod", reason=T("Take back plan {plan}", plan=Mono("abcd")), steps=(step(), step("celery_beat.service"), step(lost=True)),
    basis={"boot_id": BOOT}, verify="true", frees_bytes=600 * MIB, findings=(T("Which host?"),),
)  # fmt: skip


def world(**more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Answers by the facts' names."""
    base: dict[str, Any] = {
        "memory": MEMORY, "processes": PROCESSES, "units": UNITS, "machine": MACHINE, "schedules": SCHEDULES, "kills": QUIET,
    }  # fmt: skip
    return {**base, **more}
