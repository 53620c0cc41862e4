"""Record what a real Debian 12 prints, for parsers' tests: `python -m tests.lab.record [NAME…]`.

Writes tests/recorded/debian12/: `proc/` and `systemctl-show.txt` of the runbook's server, and a journal (`journalctl -o
json`, all fields) for each kind of kill.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import kills
from tests.lab.build import build
from tests.lab.machine import Lab

RECORDED = Path(__file__).parents[1] / "recorded" / "debian12"
UNITS = (
    *("teaching_panel.service", "celery.service", "celery_worker.service", "celery-beat.service"),
    *("celery_beat.service", "celery-combined.service", "nginx.service", "redis-server.service"),
    # An alias, one that is masked and one that does not exist.
    *("redis.service", "earlyoom.service", "no-such.service"),
)
PROPERTIES = (
    *("Id", "Names", "LoadState", "ActiveState", "SubState", "Result", "NRestarts", "MainPID"),
    *("ExecMainStartTimestamp", "InvocationID", "ControlGroup", "OOMPolicy", "KillMode", "Restart"),
    *("MemoryCurrent", "MemoryMax", "MemoryHigh", "UnitFileState", "FragmentPath", "DropInPaths"),
    *("NeedDaemonReload", "TriggeredBy", "Wants", "WantedBy", "RequiredBy", "Requires", "PartOf", "ConsistsOf"),
    *("BoundBy", "Description", "TimeoutStopUSec", "User", "WorkingDirectory", "Environment", "ExecStart"),
)
HOST_FILES = (
    *("/proc/meminfo", "/proc/pressure/memory", "/proc/vmstat", "/proc/stat", "/proc/uptime", "/proc/loadavg"),
    *("/proc/swaps", "/proc/sys/kernel/random/boot_id", "/etc/os-release"),
)
# Run by the guest's Python: all of the app's processes, PID 1 and a thread of the kernel.
READ_PROCESSES = r"""
import json, os, pwd
files = ("stat", "status", "cgroup", "cmdline", "smaps_rollup", "comm", "oom_score_adj")
found = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        owner = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
        if owner not in ("www-data", "redis") and pid not in ("1", "2"):
            continue
        one = found[pid] = {"links": {}, "errors": {}, "files": {}}
        for name in files:
            try:
                one["files"][name] = open(f"/proc/{pid}/{name}", encoding="latin-1", newline="").read()
            except OSError as error:
                one["errors"][name] = error.strerror
        for name in ("exe", "cwd"):
            try:
                one["links"][name] = os.readlink(f"/proc/{pid}/{name}")
            except OSError as error:
                one["errors"][name] = error.strerror
    except FileNotFoundError:
        found.pop(pid, None)
print(json.dumps(found))
"""


def runbook(lab: Lab) -> None:
    """The runbook's server at rest: its units, its processes, its memory."""
    lab.runbook()
    _record_units(lab, "systemctl-show.txt", *UNITS)
    for path in HOST_FILES:
        _write(path.removeprefix("/").replace("sys/kernel/random/", ""), lab.run(f"cat {path}", check=True).stdout)
    _write("uname.txt", lab.run("uname -a", check=True).stdout)
    processes = json.loads(lab.run("python3 -", check=True, stdin=READ_PROCESSES).stdout)
    for pid, process in processes.items():
        _write(f"proc/{pid}.json", json.dumps(process, indent=1) + "\n")


def cgroup_oom(lab: Lab) -> None:
    """A unit over its own MemoryMax."""
    lab.reset()
    lab.run("systemctl start hog@0.service", check=True)
    lab.until("systemctl is-failed --quiet hog@0.service")
    _record_units(lab, "systemctl-show-oom-killed.txt", "hog@0.service", "system-hog.slice")


def cgroup_oom_swap(lab: Lab) -> None:
    """A unit over its MemoryMax with swap on, which it may use 50 MiB of."""
    lab.reset()
    lab.swap(on=True)
    limits = "-p MemoryMax=100M -p MemorySwapMax=50M"
    lab.run(f"systemd-run --quiet --unit=glutton {limits} memhog 0", check=True)
    lab.until("journalctl -u glutton -o cat | grep 'Failed with result'", 120)


def session_oom(lab: Lab) -> None:
    """A job started over SSH, ended by the limit of its user's slice."""
    lab.reset()
    lab.run("systemctl set-property --runtime user-1000.slice MemoryMax=100M", check=True)
    lab.run("memhog 0", user="deploy")
    lab.until("journalctl -k -o cat | grep '^Memory cgroup out of memory'")


def systemd_oomd(lab: Lab) -> None:
    """A slice under memory pressure: systemd-oomd ends a unit of it, the kernel says nothing."""
    lab.reset()
    lab.swap(on=True)
    lab.run("mkdir /etc/systemd/oomd.conf.d", check=True)
    lab.put("/etc/systemd/oomd.conf.d/lab.conf", "[OOM]\nDefaultMemoryPressureDurationSec=2s\n")
    lab.run("systemctl unmask systemd-oomd.service systemd-oomd.socket && systemctl start systemd-oomd", check=True)
    watched = "ManagedOOMMemoryPressure=kill ManagedOOMMemoryPressureLimit=10% MemoryHigh=80M"
    lab.run(f"systemctl set-property --runtime greedy.slice {watched}", check=True)
    lab.run("systemd-run --quiet --unit=glutton --slice=greedy.slice memhog 0", check=True)
    lab.until("journalctl -u systemd-oomd -o cat | grep '^Killed '", 180)
    lab.until("journalctl -u glutton -o cat | grep 'Failed with result'", 60)


def gunicorn_oom(lab: Lab) -> None:
    """The site over its MemoryMax: OOMPolicy=stop takes the whole unit down, Restart=always brings it back."""
    lab.runbook()
    lab.run("for _ in 1 2 3 4 5 6 7 8; do curl -s -m 60 http://127.0.0.1:8000/grow; done", timeout_s=600)
    lab.until("[ $(systemctl show -P NRestarts teaching_panel) -gt 0 ] && curl -sf http://127.0.0.1:8000/", 120)


def gunicorn_timeout(lab: Lab) -> None:
    """A worker that hangs, deaf to SIGABRT: killed by its master, with no memory trouble at all."""
    lab.runbook()
    lab.run("curl -s -m 80 http://127.0.0.1:8000/hang")
    lab.until("journalctl -u teaching_panel -o cat | grep 'was sent SIGKILL'", 60)


def global_oom(lab: Lab) -> None:
    """The whole machine out of memory: a unit without a limit grows until the kernel ends it."""
    lab.runbook()
    lab.run("systemd-run --quiet --unit=glutton --remain-after-exit memhog 0", check=True)
    lab.until("journalctl -k -o cat | grep '^Out of memory: Killed process'", 240)
    lab.until("journalctl -u glutton -o cat | grep 'Failed with result'", 60)


def celery_oom(lab: Lab) -> None:
    """A task takes celery.service over a MemoryMax."""
    _leave_only_celery_service(lab)
    lab.run("systemctl set-property --runtime celery.service MemoryMax=200M", check=True)
    _python(lab, "from teaching_panel.tasks import grow; grow.delay(300)")
    lab.until("journalctl -u celery.service -o cat | grep 'killed by the OOM killer'", 120)
    lab.until("[ $(systemctl show -P NRestarts celery.service) -gt 0 ]", 120)


def celery_time_limit(lab: Lab) -> None:
    """Celery's own hard time limit, which ends in SIGKILL too."""
    _leave_only_celery_service(lab)
    _python(lab, "from teaching_panel.tasks import sleep_task; sleep_task.apply_async((99, '/tmp/t'), time_limit=3)")
    lab.until("journalctl -u celery.service -o cat | grep 'Hard time limit'", 120)
    lab.until("journalctl -u celery.service -o cat | grep -i 'sigkill'", 60)


def stop_timeout(lab: Lab) -> None:
    """A service deaf to SIGTERM, killed by systemd when its TimeoutStopSec is over."""
    lab.reset()
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); [signal.pause() for _ in [1]*9]"
    lab.run(f'systemd-run --quiet --unit=deaf -p TimeoutStopSec=3 python3 -c "{deaf}"', check=True)
    lab.until("journalctl -u deaf -o cat | grep -x deaf")
    lab.run("systemctl stop deaf.service")


def manual_kill(lab: Lab) -> None:
    """Somebody kills a gunicorn worker by hand: gunicorn guesses at memory all the same."""
    lab.runbook()
    lab.run("kill -9 $(pgrep -u www-data -n -f 'gunicorn --workers 3')", check=True)
    lab.until("journalctl -u teaching_panel -o cat | grep 'was sent SIGKILL'", 60)


def earlyoom(lab: Lab) -> None:
    """Debian's earlyoom ends the biggest process before the kernel must."""
    lab.runbook()
    lab.run("systemctl unmask earlyoom && systemctl start earlyoom", check=True)
    lab.run("systemd-run --quiet --unit=glutton --remain-after-exit memhog 0", check=True)
    lab.until("journalctl -u earlyoom -o cat | grep -i 'sending SIGTERM'", 240)
    lab.until("! systemctl show -P MainPID glutton | grep -qvx 0", 60)


def _on_lean_server(driver: kills.Driver, *, swap: bool = False) -> Callable[[Lab], None]:
    """A scenario of the end-to-end tests."""

    def drive(lab: Lab) -> None:
        kills.lean(lab)
        if swap:
            kills.small_swap(lab)
        print(driver(lab), file=sys.stderr)  # noqa: T201 - a command line of its own

    return drive


def forged(lab: Lab) -> None:
    """Every lie at hand of a worker that lives on, and then somebody with sudo does kill it."""
    kills.lean(lab)
    kills.access_log(lab)
    pid = kills.newest_worker(lab)
    for lie in kills.lies(pid):
        kills.tell(lab, lie)
    lab.run(f"sudo kill -9 {pid}", user="deploy", check=True)
    lab.until(f"journalctl -u {kills.SITE} -o cat | grep -q 'pid:{pid}) was sent SIGKILL'", 60)


def two_at_once(lab: Lab) -> None:
    """Two units over their limits at the same moment: the kernel's reports may lie within each other."""
    kills.lean(lab)
    print(kills.two_limits(lab), file=sys.stderr)  # noqa: T201 - a command line of its own


# Journals of the end-to-end tests' own scenarios, by name.
MORE: dict[str, Callable[[Lab], None]] = {
    "parent-slice": _on_lean_server(kills.parent_slice),
    "storm": _on_lean_server(kills.storm),
    "group-storm": _on_lean_server(kills.group_storm),
    "sudo-kill": _on_lean_server(kills.sudo_kill),
    "sudo-kill-main": _on_lean_server(kills.sudo_kill_of_a_main_process),
    "audit-kill": _on_lean_server(kills.audited_kill),
    "watchdog": _on_lean_server(kills.watchdog),
    "gunicorn-silent": _on_lean_server(kills.silent_gunicorn),
    "user-scope": _on_lean_server(kills.user_kill),
    "systemd-oomd-no-swap": _on_lean_server(kills.systemd_oomd),
    "earlyoom-swap": _on_lean_server(kills.earlyoom, swap=True),
    "global-oom-swap": _on_lean_server(kills.whole_machine, swap=True),
    "two-at-once": two_at_once,
    "forged": forged,
}
JOURNALS: tuple[Callable[[Lab], None], ...] = (
    *(
        cgroup_oom,
        cgroup_oom_swap,
        session_oom,
        systemd_oomd,
        global_oom,
        gunicorn_oom,
        gunicorn_timeout,
        celery_oom,
        celery_time_limit,
    ),
    *(stop_timeout, manual_kill, earlyoom),
)


def main() -> None:
    """Record the named scenarios, or all."""
    wanted = sys.argv[1:]
    with Lab(build()) as lab:
        if not wanted or "runbook" in wanted:
            runbook(lab)
        named = {scenario.__name__.replace("_", "-"): scenario for scenario in JOURNALS} | MORE
        for name, scenario in named.items():
            if not wanted or name in wanted:
                began_at = int(time.time())
                scenario(lab)
                # All that was logged before the scenario loaded its snapshot has an older date.
                journal = lab.run(f"journalctl --sync; journalctl -o json --since @{began_at}", check=True).stdout
                _write(f"journal/{name}.jsonl", journal)


def _record_units(lab: Lab, name: str, *units: str) -> None:
    shown = lab.run(f"LC_ALL=C TZ=UTC systemctl show -p {','.join(PROPERTIES)} -- {' '.join(units)}", check=True)
    _write(name, shown.stdout)


def _leave_only_celery_service(lab: Lab) -> None:
    lab.runbook()
    lab.run("systemctl stop celery_worker celery-combined", check=True)
    strays = "for pid in $(pgrep -u www-data -f 'celery -A'); do grep -q user.slice /proc/$pid/cgroup && kill -9 $pid; done"
    lab.run(strays)


def _python(lab: Lab, program: str) -> None:
    """Run a program of the site, as its user."""
    lab.run(f'cd /srv/teaching_panel && runuser -u www-data -- python3 -c "{program}"', check=True)


def _write(name: str, text: str) -> None:
    path = RECORDED / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
