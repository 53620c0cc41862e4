"""Kinds of programs: one file each says what a command line and a log line mean."""

from __future__ import annotations

import importlib
import pkgutil
import posixpath
import re
import shlex
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

from remote.facts.journal import Speaker
from remote.facts.processes import Process, Processes
from remote.facts.units import Unit, Units
from remote.services.argv import settings
from remote.services.base import Kind, Role, agree, silent

# The modules of this package that are no kinds.
_SHARED = {"argv", "base"}
_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox"}
# Programs that start another one and do nothing themselves; the words before it that are theirs are options.
_LAUNCHERS = {
    *("env", "nice", "ionice", "nohup", "setsid", "exec", "chpst", "tini", "dumb-init", "ddtrace-run", "timeout", "time"),
    *("pipenv", "poetry", "uv", "pdm", "hatch", "newrelic-admin", "opentelemetry-instrument", "softlimit", "catchsegv"),
}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_LAUNCHER_WORDS = {"run", "run-program"}
_MOST_WORDS = 64  # of a launcher's own; what follows is not looked for any further


@cache
def kinds() -> Mapping[str, Kind]:
    """All kinds by name, in their order: each module of this package exports one KIND."""
    names = (info.name for info in pkgutil.iter_modules(__path__))
    modules = (importlib.import_module(f"{__name__}.{n}") for n in names if n not in _SHARED and not n.startswith("_"))
    found: list[Kind] = sorted((module.KIND for module in modules), key=lambda kind: (kind.order, kind.name))
    return {kind.name: kind for kind in found}


def roles(process: Process) -> tuple[Role, ...]:
    """What a process does by its command line, if its executable can be such a program; `()` for all else.

    A pool child that shares its master's command line looks like a master here: see `roles_by_pid`.
    """
    argv = process.command.open()
    return tuple(role for kind in kinds().values() if kind.genuine(process) for role in kind.recognise(argv, process))


def claims(process: Process) -> tuple[Role, ...]:
    """What a command line only claims, believed or not (`exec -a celery …`): for look-alikes, never for a step."""
    argv = process.command.open()
    unseen = replace(process, pid=0, exe=None)
    return tuple(role for kind in kinds().values() for role in kind.recognise(argv, unseen))


def roles_by_pid(processes: Processes) -> dict[int, tuple[Role, ...]]:
    """The roles of every process that has one. A child of a process of the same service is no master."""
    found = {process.pid: said for process in processes.all if (said := roles(process))}
    services = {pid: {role.service for role in said} for pid, said in found.items()}
    parents = {process.pid: process.ppid for process in processes.all}
    return {
        pid: tuple(replace(r, master=r.master and r.service not in services.get(parents[pid], ())) for r in said)
        for pid, said in found.items()
    }


def roles_of_unit(unit: Unit, processes: Processes) -> tuple[Role, ...]:
    """What a unit's main process does; where it does not run, what its ExecStart, user and directory say it would do.

    The settings of its environment belong to the roles. What a supervisor or cron runs is not that unit's own work; what
    a shell script starts is, when it starts nothing else.
    """
    configured = _configured(unit, processes)
    main = next((process for process in processes.all if unit.main_pid and process.pid == unit.main_pid), None)
    if main is None:
        return configured
    running = roles(main) or _behind_launcher(main, unit, processes)
    # Without root the directory of another user's process cannot be read; systemd tells the unit's.
    nodes = next((role.nodes for role in configured if role.nodes != 1), 1)
    said = tuple(replace(_filled(role, configured), cwd=role.cwd or _directory(unit), nodes=nodes) for role in running)
    return tuple(replace(role, settings=_merged(role.settings, _environment(unit, role))) for role in said)


def does_more(unit: Unit, said: Sequence[Role], processes: Processes) -> bool:
    """Whether stopping a unit would end more than these roles of it.

    Its own are the process that plays them, what that one (or the launcher before it) started, and what was left behind by
    one like it. Anything else in its cgroup, or in one below that, is other work: a beat that went into the background, a
    mailer, another node of `celery multi`. So is a master of another role, whoever started it.
    """
    if any(role.nodes != 1 for role in said):
        return True
    inside = _inside(unit, processes)
    main = next((process for process in processes.all if unit.main_pid and process.pid == unit.main_pid), None)
    player = main if main is not None and roles(main) else _one_master(inside, processes)
    if player is None:
        return bool(inside)
    known = roles(player)
    if main is None and not all(_alike(role, said) for role in known):
        return True
    top = (main or player).pid
    below = _below(top, processes.all)
    return not all(process.pid == top or _own(process, known, started=process.pid in below) for process in inside)


def _inside(unit: Unit, processes: Processes) -> list[Process]:
    """What runs in a unit's cgroup and below, also where the paths are the unit's own to choose: all of it ends with it."""
    return [p for p in processes.all if unit.control_group and f"{p.cgroup}/".startswith(f"{unit.control_group}/")]


def _one_master(inside: Sequence[Process], processes: Processes) -> Process | None:
    by_pid = roles_by_pid(Processes(tuple(inside), processes.boot_id))
    masters = [process for process in inside if any(role.master for role in by_pid.get(process.pid, ()))]
    return masters[0] if len(masters) == 1 else None


def _own(process: Process, known: Sequence[Role], *, started: bool) -> bool:
    """Whether a process is part of the work whose roles are `known`: it was started for it, or plays nothing else."""
    said = roles(process)
    if started:
        said = tuple(role for role in said if role.master)  # the title of a child does not tell the application
    elif not said:
        return False
    nodes = {role.node for role in known}
    return all(role.node in nodes and _alike(role, known) for role in said)


def _alike(role: Role, others: Iterable[Role]) -> bool:
    """Whether it is one of these by what its command line says; a child may have gone to another directory or user."""
    return any(
        (role.service, role.app, role.queues) == (other.service, other.app, other.queues) and agree(role.settings, other.settings)
        for other in others
    )


def speakers(units: Units, processes: Processes | None) -> tuple[Speaker, ...]:
    """Whose lines about their own children count: for each unit that has a main process (one that stops has it still) and
    whose kind of program logs the end of its processes, that process, or the one master behind a launcher that stays (`uv run`).

    Without `processes` it is the main process of every unit whose ExecStart is such a program: behind a launcher that stays
    nobody is found who speaks, so nothing is believed that should not be.
    """
    running = (unit for unit in units.all if unit.main_pid)
    return tuple(speaker for unit in running if (speaker := _speaker(unit, processes)) is not None)


def _speaker(unit: Unit, processes: Processes | None) -> Speaker | None:
    main = next((process for process in processes.all if process.pid == unit.main_pid), None) if processes else None
    pid: int | None = unit.main_pid
    if main is None or processes is None:
        said = _configured(unit, Processes((), ""))
    elif not (said := roles(main)):
        pid, said = _master_behind(main, unit, processes)
    spoken = [kind for kind in (kinds()[role.service] for role in said) if kind.sign is not silent]
    if pid is None or not spoken:
        return None
    return Speaker(unit.id, pid, unit.invocation_id, any(kind.children for kind in spoken))


def tellings(*, asides: bool = True) -> tuple[str, ...]:
    """What the lines that the kinds' `sign` reads have in common, as extended regular expressions: see `Kind.tellings`."""
    found = (telling for kind in kinds().values() for telling in (*kind.tellings, *(kind.asides if asides else ())))
    return tuple(dict.fromkeys(found))


def _filled(role: Role, configured: Iterable[Role]) -> Role:
    """A title (`gunicorn: master [app]`) hides the options: the unit file still has them."""
    same = next((other for other in configured if other.service == role.service and not role.workers), None)
    if same is None or (role.app and same.app and same.app != role.app):
        return role
    return replace(
        role,
        app=role.app or same.app,
        workers=same.workers,
        threads=role.threads or same.threads,
        max_requests=role.max_requests or same.max_requests,
        settings=_merged(role.settings, same.settings),
    )


def _behind_launcher(main: Process, unit: Unit, processes: Processes) -> tuple[Role, ...]:
    """What a start script that stays (`uv run`, a shell script) runs, if the unit has no other work."""
    return _master_behind(main, unit, processes)[1]


def _master_behind(main: Process, unit: Unit, processes: Processes) -> tuple[int | None, tuple[Role, ...]]:
    """The one master that a start script runs: its pid and its roles."""
    argv = main.command.open()
    if not argv or not unit.control_group or posixpath.basename(argv[0]) not in _SHELLS | _LAUNCHERS:
        return None, ()
    inside = [process for process in _inside(unit, processes) if process.pid != main.pid]
    by_pid = roles_by_pid(Processes(tuple(inside), processes.boot_id))
    masters = [pid for pid, said in by_pid.items() if any(role.master for role in said)]
    if len(masters) != 1 or not by_pid.keys() | _below(masters[0], inside) >= {process.pid for process in inside}:
        return None, ()
    return masters[0], by_pid[masters[0]]


def _below(ancestor: int, among: Iterable[Process]) -> set[int]:
    """Who was started by a process, over any number of steps between."""
    children: dict[int, list[int]] = {}
    for process in among:
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    todo = children.get(ancestor, [])
    while todo:
        fresh = set(todo) - found
        found |= fresh
        todo = [child for pid in fresh for child in children.get(pid, ())]
    return found


def _configured(unit: Unit, processes: Processes) -> tuple[Role, ...]:
    argv = _unwrapped(unit.exec_start.open())
    planned = Process(
        pid=0,
        ppid=0,
        start_ticks=0,
        started_at=datetime.fromtimestamp(0, UTC),
        name="",
        command=unit.exec_start,
        uid=_uid(unit.user, processes),
        user=unit.user or "root",
        rss_bytes=0,
        swap_bytes=0,
        pss_bytes=None,
        cgroup="",
        exe=None,
        cwd=_directory(unit),
    )
    said = (role for kind in kinds().values() for role in kind.recognise(argv, planned))
    return tuple(replace(role, settings=_merged(role.settings, _environment(unit, role))) for role in said)


def _directory(unit: Unit) -> str:
    return unit.working_directory.lstrip("-!") or "/"


def _uid(user: str, processes: Processes) -> int:
    """The number of a user's name, from a process of his; a number of its own (below -1) for a name not seen."""
    if user in {"", "root"}:
        return 0
    if user.isascii() and user.isdigit():
        return int(user[:20])
    seen = next((process.uid for process in processes.all if process.user == user), None)
    return -2 - zlib.crc32(user.encode("utf-8", "surrogateescape")) if seen is None else seen


def _environment(unit: Unit, role: Role) -> str:
    """The digest of what the unit's environment says that tells this kind of service apart."""
    words = dict(word.partition("=")[::2] for word in unit.environment.open())
    pairs = {"DJANGO_SETTINGS_MODULE": words.get("DJANGO_SETTINGS_MODULE", "")}
    if role.service.startswith("celery"):
        pairs["broker"] = words.get("CELERY_BROKER_URL") or words.get("BROKER_URL") or ""
        pairs["redis"] = words.get("REDIS_URL", "")
    return settings(pairs)


def _merged(first: str, second: str) -> str:
    """Both sets of settings; a command line's wins over the environment's."""
    words = dict(word.split("=", 1) for word in f"{second} {first}".split())
    return " ".join(f"{name}={value}" for name, value in sorted(words.items()))


def _unwrapped(argv: Sequence[str]) -> tuple[str, ...]:
    """A unit's ExecStart without what only starts the program: `/bin/sh -c '…'`, `env A=1`, `nice -n 5`, `uv run`."""
    words = tuple(argv)
    for _ in range(_MOST_WORDS):
        if not words:
            break
        name = posixpath.basename(words[0])
        if name in _SHELLS and "-c" in words[1:3] and words.index("-c") + 1 < len(words):
            words = _shell(words[words.index("-c") + 1])
        elif name in _LAUNCHERS:
            words = _launched(words[1:])
        elif _ASSIGNMENT.fullmatch(words[0]):
            words = words[1:]
        else:
            break
    return words


def _shell(line: str) -> tuple[str, ...]:
    """The last command of a shell's line (`cd /srv && exec celery …`), by its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # quotes that do not close
        return ()
    last = max((at for at, word in enumerate(words) if word and set(word) <= set("&;|()")), default=-1)
    return tuple(words[last + 1 :])


def _launched(words: tuple[str, ...]) -> tuple[str, ...]:
    """A launcher's own words, its options and numbers (`-n 5`, `run`, `10s`), stand before the program."""
    at = 0
    while at < len(words) and (
        words[at].startswith("-") or words[at] in _LAUNCHER_WORDS or _ASSIGNMENT.fullmatch(words[at]) or words[at][:1].isdigit()
    ):
        at += 1
    return words[at:]
