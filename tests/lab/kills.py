"""Ways to be killed: one driver each, which has the guest kill and then says what the guest's own record tells of it.

A driver finds the runbook's server (`lean` has stopped what would share celery's tasks) and leaves it so that the next can
run. Swap may be on or off. What it returns is read from the kernel's lines and counters, from systemd and the daemons, never
from the bot.
"""

import json
import re
import shlex
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab.machine import Lab

SITE = "teaching_panel.service"
GUNICORN = "gunicorn --workers 3"
# Huge pages that nobody uses take memory from the machine at once and for nothing.
BALLAST_PAGES = 680
STORM = 30
SLOW_S = 240

STORM_PROGRAM = """\
#!/usr/bin/python3
\"\"\"Fork so many hogs that grow until they are killed, wait for the last of them, say so, and stay.\"\"\"
import os, signal, sys

open("/proc/self/oom_score_adj", "w").write("-1000")
if sys.argv[2] == "together":
    own = open("/proc/self/cgroup").read().strip().partition("::")[2]
    open(f"/sys/fs/cgroup{own}/memory.oom.group", "w").write("1")
ready, go = os.pipe()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        open("/proc/self/oom_score_adj", "w").write("0")
        os.close(go)
        os.read(ready, 1)
        held = []
        while True:
            held.append(b"x" * 262144)
os.close(go)
for _ in range(int(sys.argv[1])):
    os.wait()
print("all ended", flush=True)
signal.pause()
"""
# Deaf to SIGABRT: stays in C, so that only SIGKILL ends it.
DEAF_SITE = """\
import itertools, os

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        0 in itertools.repeat(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok from %d\\n" % os.getpid()]
"""
DEAF_SERVICE = (
    "import signal; signal.signal(15, signal.SIG_IGN); signal.signal(6, signal.SIG_IGN); "
    "print('deaf', flush=True); [signal.pause() for _ in [1]*9]"
)


@dataclass(frozen=True)
class Killed:
    """What the guest tells of the kills of one unit: `pids` is empty where the killer named a cgroup only."""

    cause: str
    unit: str | None
    pids: tuple[int, ...]
    count: int = 1
    signal: int = 9
    confidence: str = "certain"
    limited: str = ""  # whose limit it was, where not the unit's
    evidence: str = ""  # what one of the lines must say


Driver = Callable[[Lab], Killed]


def lean(lab: Lab) -> None:
    """Go to the runbook's server with celery.service alone to take tasks, and the programs of the drivers on it."""
    if lab.has("lean"):
        lab.load("lean")
        return
    lab.runbook()
    lab.run("systemctl stop celery_worker celery-combined celery_beat", check=True)
    lab.run("for p in $(pgrep -u www-data -f 'celery -A'); do grep -q user.slice /proc/$p/cgroup && kill -9 $p; done; true")
    install(lab)
    start(lab, "quiet", "", "sleep infinity")
    lab.save("lean")


def install(lab: Lab) -> None:
    """What the drivers need on the server."""
    lab.put("/usr/local/bin/storm", STORM_PROGRAM, "0755")
    lab.run("mkdir -p /srv/deaf", check=True)
    lab.put("/srv/deaf/deaf.py", DEAF_SITE)


def small_swap(lab: Lab) -> None:
    """Turn on 128 MiB of swap: that much fills in seconds."""
    lab.run("[ -e /swap128 ] || { fallocate -l 128M /swap128 && chmod 600 /swap128 && mkswap /swap128; }", check=True)
    lab.run("swapon /swap128", check=True)


def now_s(lab: Lab) -> float:
    """The guest's clock."""
    return float(lab.run("date +%s.%6N", check=True).stdout)


def kernel_victims(lab: Lab, since_s: float, cgroup: str) -> list[int]:
    """The pids that the kernel's own lines since then name as killed in this cgroup, in order.

    A dump's summary names the cgroup; where the kernel left the dump away (more than ten in five seconds), the process was
    killed in the cgroup of the last summary.
    """
    # systemd may tell of the end before journald has read all of the kernel's lines.
    lab.until("journalctl -k -b -o cat -n 500 | grep -qF \"$(dmesg -t | grep 'Killed process' | tail -n 1)\"")
    lines = lab.run(f"journalctl -k -o json --since @{since_s:.6f}", check=True).stdout.splitlines()
    found: list[int] = []
    where = ""
    for line in lines:
        entry = json.loads(line)
        message = entry["MESSAGE"]
        assert entry["_TRANSPORT"] == "kernel"
        if summary := re.match(r"oom-kill:.*,task_memcg=([^,]*),task=", message):
            where = summary[1]
        if (victim := re.search(r"Killed process (\d+) \(", message)) and where == cgroup and int(victim[1]) not in found:
            found.append(int(victim[1]))
    return found


def oom_kills(lab: Lab, cgroup: str) -> int:
    """The kernel's own count of a cgroup that still exists."""
    return int(lab.run(f"awk '/^oom_kill /{{print $2}}' /sys/fs/cgroup{cgroup}/memory.events.local", check=True).stdout)


@contextmanager
def ballast(lab: Lab, pages: int = BALLAST_PAGES) -> Iterator[None]:
    """Take most of the machine's memory away."""
    lab.run(f"echo {pages} > /proc/sys/vm/nr_hugepages", check=True)
    try:
        yield
    finally:
        lab.run("echo 0 > /proc/sys/vm/nr_hugepages", check=True)


def start(lab: Lab, unit: str, properties: str, command: str) -> None:
    """Run a command as a transient unit of this name."""
    lab.run(f"systemctl reset-failed {unit} 2>/dev/null; systemd-run --quiet --unit={unit} {properties} {command}", check=True)


def failed(lab: Lab, unit: str, timeout_s: float = SLOW_S) -> None:
    """Wait until systemd has told the end of a unit."""
    lab.until(f"systemctl is-failed --quiet {unit}", timeout_s)


def unit_limit(lab: Lab, unit: str = "hog@0.service") -> Killed:
    """A unit over its own MemoryMax."""
    since = now_s(lab)
    lab.run(f"systemctl reset-failed {unit} 2>/dev/null; systemctl set-property --runtime {unit} MemorySwapMax=20M", check=True)
    lab.run(f"systemctl start {unit}", check=True)
    failed(lab, unit)
    assert lab.run(f"systemctl show -P Result {unit}").stdout == "oom-kill\n"
    pids = kernel_victims(lab, since, f"/system.slice/system-hog.slice/{unit}")
    return Killed("cgroup-limit", unit, tuple(pids), len(pids), evidence=f"Killed process {pids[0]} ")


def parent_slice(lab: Lab) -> Killed:
    """Two units, and the limit of the slice above both."""
    since = now_s(lab)
    lab.run("systemctl stop tenant-small tenant-big tenant.slice; true")
    lab.run("systemctl set-property --runtime tenant.slice MemoryMax=70M MemorySwapMax=20M", check=True)
    start(lab, "tenant-small", "--slice=tenant.slice", "memhog 20")
    start(lab, "tenant-big", "--slice=tenant.slice", "memhog 0")
    failed(lab, "tenant-big")
    pids = kernel_victims(lab, since, "/tenant.slice/tenant-big.service")
    total = int(lab.run("awk '/^oom_kill /{print $2}' /sys/fs/cgroup/tenant.slice/memory.events").stdout)
    assert total == len(pids), "the slice's own counter"
    lab.run("systemctl stop tenant-small tenant.slice", check=True)  # the next one counts from nought
    return Killed(
        "cgroup-limit", "tenant-big.service", tuple(pids), len(pids),
        limited="tenant.slice", evidence="oom_memcg=/tenant.slice,task_memcg=/tenant.slice/tenant-big.service",
    )  # fmt: skip


def whole_machine(lab: Lab) -> Killed:
    """The machine out of memory."""
    since = now_s(lab)
    with ballast(lab):
        start(lab, "glutton", "", "memhog 0")
        failed(lab, "glutton")
    pids = kernel_victims(lab, since, "/system.slice/glutton.service")
    return Killed("kernel-oom", "glutton.service", tuple(pids), len(pids), evidence=f"Out of memory: Killed process {pids[0]} ")


def worker_timeout(lab: Lab) -> Killed:
    """A gunicorn worker that hangs, deaf to SIGABRT; its master then guesses at memory."""
    unit = "deaf-site.service"
    start(
        lab, unit, "-p User=www-data -p WorkingDirectory=/srv/deaf",
        "/usr/local/bin/gunicorn --workers 2 --timeout 10 --bind 127.0.0.1:8100 deaf:application",
    )  # fmt: skip
    lab.until("curl -sf -m 30 -o /dev/null http://127.0.0.1:8100/", SLOW_S)
    lab.run("curl -s -m 60 http://127.0.0.1:8100/hang")
    lab.until(f"journalctl -u {unit} -o cat | grep -q 'was sent SIGKILL'", 60)
    said = lab.run(f"journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID {unit})", check=True).stdout
    pids = tuple(int(pid) for pid in re.findall(r"Worker \(pid:(\d+)\) was sent SIGKILL! Perhaps out of memory\?", said))
    assert pids == tuple(int(pid) for pid in re.findall(r"WORKER TIMEOUT \(pid:(\d+)\)", said)), said
    lab.run(f"systemctl stop {unit}", check=True)
    return Killed("worker-timeout", unit, pids, len(pids), evidence=rf"WORKER TIMEOUT \(pid:{pids[0]}\)")


def time_limit(lab: Lab) -> Killed:
    """A task over celery's hard time limit."""
    since = now_s(lab)
    program = "from teaching_panel.tasks import sleep_task; sleep_task.apply_async((99, '/tmp/t'), time_limit=3)"
    lab.run(f'cd /srv/teaching_panel && runuser -u www-data -- python3 -c "{program}"', check=True)
    log = f"journalctl -u celery.service -o cat --since @{since:.6f}"
    lab.until(f"{log} | grep -q 'signal 9 (SIGKILL)'", SLOW_S)
    pids = [int(pid) for pid in re.findall(r"pid:(\d+) exited with 'signal 9", lab.run(log).stdout)]
    return Killed("time-limit", "celery.service", tuple(pids), len(pids), evidence=r"Hard time limit \(3s\) exceeded")


def stop_timeout(lab: Lab) -> Killed:
    """A service deaf to SIGTERM, killed by systemd when its TimeoutStopSec is over."""
    start(lab, "deaf", "-p TimeoutStopSec=3", f"python3 -c {shlex.quote(DEAF_SERVICE)}")
    lab.until("journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID deaf) | grep -qx deaf", 60)
    pid = int(lab.run("systemctl show -P MainPID deaf", check=True).stdout)
    lab.run("systemctl stop deaf", check=True)
    assert lab.run("systemctl show -P Result deaf").stdout == "timeout\n"
    return Killed("stop-timeout", "deaf.service", (pid,), evidence="State 'stop-sigterm' timed out. Killing")


def earlyoom(lab: Lab) -> Killed:
    """Debian's earlyoom ends the biggest process before the kernel must, with SIGTERM."""
    since = now_s(lab)
    lab.run("systemctl unmask --quiet earlyoom && systemctl start earlyoom", check=True)
    try:
        # It must not be short of memory before its victim is there, nor choose a user's manager first: systemd gives those an
        # oom_score_adj of 100.
        available = int(lab.run("awk '/^MemAvailable/{print int($2 / 1024)}' /proc/meminfo", check=True).stdout)
        with ballast(lab, (available - 400) // 2):
            start(lab, "greedy", "-p OOMScoreAdjust=800", "memhog 0")
            pid = int(lab.run("systemctl show -P MainPID greedy", check=True).stdout)
            lab.until(f"[ ! -d /proc/{pid} ]", SLOW_S)
    finally:
        lab.run("systemctl stop earlyoom greedy; systemctl mask --quiet earlyoom")
    said = lab.run(f"journalctl -u earlyoom -o cat --since @{since:.6f}", check=True).stdout
    sent = re.findall(r"sending SIG(TERM|KILL) to process (\d+) uid 0", said)
    assert {int(one) for _, one in sent} == {pid}, said
    # With swap it takes its time to go, or there is too little at once.
    number = 9 if re.search(r"(sending SIGKILL to|escalating to SIGKILL)", said) else 15
    return Killed("userspace-oom", "greedy.service", (pid,), signal=number, evidence=rf"sending SIG\w+ to process {pid} ")


def systemd_oomd(lab: Lab) -> Killed:
    """A slice under memory pressure: systemd-oomd ends a unit of it, the kernel says nothing.

    Without swap only pages of files can be reclaimed, so the victim reads files for ever.
    """
    since = now_s(lab)
    unit = f"pressed{since:.0f}"  # nobody names its pids, so that it has to be another one each time
    lab.run("mkdir -p /etc/systemd/oomd.conf.d", check=True)
    lab.put("/etc/systemd/oomd.conf.d/lab.conf", "[OOM]\nDefaultMemoryPressureDurationSec=2s\n")
    lab.run("systemctl unmask --quiet systemd-oomd.service systemd-oomd.socket && systemctl start systemd-oomd", check=True)
    watched = "ManagedOOMMemoryPressure=kill ManagedOOMMemoryPressureLimit=2% MemoryHigh=80M"
    lab.run(f"systemctl set-property --runtime greedy.slice {watched}", check=True)
    program = "memhog 70 & while :; do cat /usr/lib/x86_64-linux-gnu/*.so* /boot/initrd* > /dev/null; done"
    start(lab, unit, "--slice=greedy.slice", f"sh -c {shlex.quote(program)}")
    try:
        lab.until(f"journalctl -u systemd-oomd -o cat --since @{since:.6f} | grep -q '^Killed '", SLOW_S)
        failed(lab, unit)
    finally:
        lab.run(
            f"systemctl stop {unit} systemd-oomd.socket systemd-oomd.service; systemctl mask --quiet systemd-oomd.service systemd-oomd.socket"
        )
    assert kernel_victims(lab, since, f"/greedy.slice/{unit}.service") == []
    return Killed(
        "systemd-oomd",
        f"{unit}.service",
        (),
        evidence=f"Killed /greedy.slice/{unit}.service due to memory pressure for /greedy.slice",
    )


def sudo_kill(lab: Lab) -> Killed:
    """Somebody with sudo kills a gunicorn worker: gunicorn guesses at memory all the same."""
    pid = newest_worker(lab)
    lab.run(f"sudo kill -9 {pid}", user="deploy", check=True)
    lab.until(f"journalctl -u {SITE} -o cat | grep -q 'pid:{pid}) was sent SIGKILL'", 60)
    return Killed("manual", SITE, (pid,), confidence="likely", evidence=rf"deploy : .*COMMAND=\S*kill -9 {pid}$")


def sudo_kill_of_a_main_process(lab: Lab) -> Killed:
    """The same to a unit's main process, which was there before: only systemd tells of its end."""
    pid = int(lab.run("systemctl show -P MainPID quiet", check=True).stdout)
    lab.run(f"sudo kill -KILL {pid}", user="deploy", check=True)
    failed(lab, "quiet", 60)
    start(lab, "quiet", "", "sleep infinity")
    return Killed("manual", "quiet.service", (pid,), confidence="likely", evidence=rf"COMMAND=\S*kill -KILL {pid}$")


def audited_kill(lab: Lab) -> Killed:
    """Root kills, and the kernel's audit says who."""
    pid = newest_worker(lab)
    rule = "always,exit -F arch=b64 -S kill -F a1=9 -k sigkill"
    lab.run(f"auditctl -e 1 && auditctl -a {rule}", check=True)
    lab.run(f"bash -c 'kill -9 {pid}'", check=True)
    lab.until(f"journalctl -u {SITE} -o cat | grep -q 'pid:{pid}) was sent SIGKILL'", 60)
    lab.run(f"auditctl -d {rule}", check=True)
    return Killed("manual", SITE, (pid,), evidence=f"a0={pid:x} a1=9 ")


def plain_kill(lab: Lab) -> Killed:
    """Root kills with nothing to tell of it: nobody knows who, and gunicorn's guess stays a guess."""
    pid = newest_worker(lab)
    lab.run(f"kill -9 {pid}", check=True)
    lab.until(f"journalctl -u {SITE} -o cat | grep -q 'pid:{pid}) was sent SIGKILL'", 60)
    return Killed("unknown", SITE, (pid,), confidence="guess", evidence=f"pid:{pid}")


def storm(lab: Lab) -> Killed:
    """Thirty processes of one unit, each killed for itself: the kernel leaves most of the dumps away."""
    since = now_s(lab)
    start(lab, "storm", "-p MemoryMax=60M -p MemorySwapMax=10M -p OOMPolicy=continue", f"/usr/local/bin/storm {STORM} apart")
    lab.until("journalctl -u storm -o cat | grep -q 'all ended'", SLOW_S)
    cgroup = "/system.slice/storm.service"
    pids, counted = kernel_victims(lab, since, cgroup), oom_kills(lab, cgroup)
    assert len(pids) == counted == STORM, (pids, counted)
    return Killed("cgroup-limit", "storm.service", tuple(pids), counted, evidence="Killed process")


def stop_storm(lab: Lab) -> None:
    """End what `storm` and `silent_gunicorn` leave running: until then counters are read, and a master bears its word out."""
    lab.run("systemctl stop storm silent-site 2>/dev/null; true")


def group_storm(lab: Lab) -> Killed:
    """Thirty hogs under memory.oom.group: one reason, thirty victims.

    Their parent is spared: were it killed, or the policy OOMPolicy=kill, systemd would kill too, faster than the kernel prints.
    """
    since = now_s(lab)
    start(
        lab, "group", "-p MemoryMax=150M -p MemorySwapMax=10M -p OOMPolicy=continue", f"/usr/local/bin/storm {STORM} together"
    )  # fmt: skip
    lab.until("journalctl -u group -o cat | grep -q 'all ended'", SLOW_S)
    cgroup = "/system.slice/group.service"
    pids, counted = kernel_victims(lab, since, cgroup), oom_kills(lab, cgroup)
    assert len(pids) == counted == STORM, (pids, counted)
    lab.run("systemctl stop group", check=True)
    return Killed("cgroup-limit", "group.service", tuple(pids), counted, evidence="memory.oom.group set")


def watchdog(lab: Lab) -> Killed:
    """A service that forgets its watchdog and is deaf to SIGABRT."""
    properties = "-p Type=notify -p NotifyAccess=all -p WatchdogSec=3 -p TimeoutAbortSec=3"
    start(
        lab,
        "dog",
        f"--no-block {properties}",
        f"sh -c {shlex.quote(f'systemd-notify --ready; exec python3 -c {shlex.quote(DEAF_SERVICE)}')}",
    )
    lab.until("systemctl show -P MainPID dog | grep -qvx 0", 60)
    pid = int(lab.run("systemctl show -P MainPID dog", check=True).stdout)
    failed(lab, "dog")
    return Killed("worker-timeout", "dog.service", (pid,), evidence="'stop-watchdog' timed out")


def silent_gunicorn(lab: Lab) -> Killed:
    """Gunicorn 20.0 says nothing of a worker that was killed: a new one boots, the old one never said that it exits."""
    unit = "silent-site.service"
    start(
        lab, unit, "-p User=www-data -p WorkingDirectory=/srv/deaf -p Environment=PYTHONPATH=/opt/gunicorn-20.0",
        "/usr/local/bin/gunicorn --workers 2 --timeout 60 --bind 127.0.0.1:8101 deaf:application",
    )  # fmt: skip
    lab.until("curl -sf -m 30 -o /dev/null http://127.0.0.1:8101/", SLOW_S)
    booted = f"journalctl -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID {unit}) | grep 'Booting worker with pid'"
    lab.until(f"[ $({booted} | wc -l) -eq 2 ]", 60)
    pid = int(lab.run(booted, check=True).stdout.split()[-1])
    # Workers that boot within ten seconds of the master's first word replace nobody.
    began = f"$(journalctl -u {unit} -o short-unix | grep 'Starting gunicorn' | tail -n 1 | cut -d. -f1)"
    lab.until(f"[ $(($(date +%s) - {began})) -gt 12 ]", 60)
    lab.run(f"kill -9 {pid}", check=True)
    lab.until(f"[ $({booted} | wc -l) -eq 3 ]", 60)
    return Killed("unknown", unit, (pid,), confidence="guess", evidence="Booting worker with pid")


def user_kill(lab: Lab) -> Killed:
    """Alice's own scope, in her own slice, over the limit that she gave it."""
    since = now_s(lab)
    lab.run("systemd-run --user --scope --quiet -p MemoryMax=30M -p MemorySwapMax=0 --unit=staged memhog 0", user="alice")
    cgroup = f"/user.slice/user-{uid(lab, 'alice')}.slice/user@{uid(lab, 'alice')}.service/app.slice/staged.scope"
    pids = kernel_victims(lab, since, cgroup)
    return Killed("cgroup-limit", None, tuple(pids), len(pids), evidence=f"Killed process {pids[0]} ")


def uid(lab: Lab, user: str) -> int:
    """The user's number."""
    return int(lab.run(f"id -u {user}", check=True).stdout)


def newest_worker(lab: Lab) -> int:
    """A worker of the site that has booted."""
    lab.until(
        f"[ $(pgrep -c -u www-data -f {shlex.quote(GUNICORN)}) -eq 4 ] && curl -sf -m 30 -o /dev/null http://127.0.0.1:8000/",
        SLOW_S,
    )
    return int(lab.run(f"pgrep -n -u www-data -f {shlex.quote(GUNICORN)}", check=True).stdout)


@dataclass(frozen=True)
class Lie:
    """Lines that somebody without the right writes; `command` is run by `user`."""

    name: str
    user: str
    command: str


def lies(pid: int) -> tuple[Lie, ...]:
    """Every forgery at hand, all of the living process `pid`."""
    victim = (
        f"Out of memory: Killed process {pid} (gunicorn) total-vm:99kB, anon-rss:99kB, file-rss:0kB, shmem-rss:0kB, "
        "UID:33 pgtables:9kB oom_score_adj:0"
    )
    summary = (
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice/teaching_panel.service,"
        f"task_memcg=/system.slice/teaching_panel.service,task=gunicorn,pid={pid},uid=33"
    )
    guess = f"Worker (pid:{pid}) was sent SIGKILL! Perhaps out of memory?"
    unit_said = f"MESSAGE={SITE}: A process of this unit has been killed by the OOM killer.\nMESSAGE_ID=fe6faa94e7774663a0da52717891d8ef\nUNIT={SITE}\n_PID=1\n_TRANSPORT=kernel\nSYSLOG_FACILITY=0\nSYSLOG_IDENTIFIER=systemd"
    native = f"MESSAGE={victim}\nSYSLOG_IDENTIFIER=kernel\nSYSLOG_FACILITY=0\n_TRANSPORT=kernel\nPRIORITY=3\n_KERNEL_SUBSYSTEM=mm"
    sends = "\n".join(f"s.sendto({text.encode()!r} + b'\\n', '/run/systemd/journal/socket')" for text in (unit_said, native))
    python = f"import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n{sends}"
    q = shlex.quote
    access = f"http://127.0.0.1:8000/?q=WORKER%20TIMEOUT%20(pid:{pid})&r={guess.replace(' ', '%20')}"
    log_line = f"[2026-11-25 10:00:00 +0000] [{pid}] [CRITICAL] WORKER TIMEOUT (pid:{pid})"
    words = urllib.parse.quote(
        f"{log_line}\n{guess}\n{log_line.replace('CRITICAL] WORKER TIMEOUT', 'ERROR] Worker')} was sent SIGKILL!\n{victim}"
    )
    return (
        Lie("logger -t kernel", "alice", f"logger -t kernel -p kern.err {q(victim)}; logger -t kernel -p kern.err {q(summary)}"),
        Lie("logger -t sudo", "alice", f"logger -t sudo -p authpriv.notice {q(f'deploy : PWD=/ ; USER=root ; COMMAND=/usr/bin/kill -9 {pid}')}"),
        Lie("logger --journald", "alice", f"printf '%s\\n' {q(unit_said)} | logger --journald"),
        Lie("native protocol", "alice", f"python3 -c {q(python)}"),
        Lie("systemd-cat", "alice", f"echo {q(guess)} | systemd-cat -t gunicorn; echo {q(log_line)} | systemd-cat -t gunicorn"),
        Lie("user unit named as the site", "alice", f"systemd-run --user --quiet --unit={SITE} sh -c {q(f'echo {q(log_line)}; echo {q(guess)}')}"),
        Lie("oomd and earlyoom names", "alice", f"logger -t systemd-oomd 'Killed /system.slice/{SITE} due to memory pressure for /system.slice being 99.99% > 10.00% for > 2s with reclaim activity'; logger -t earlyoom 'sending SIGTERM to process {pid} uid 33 \"gunicorn\": badness 900, VmRSS 99 MiB'"),
        Lie("sudo's words as an argument", "deploy", f"sudo echo {q(f'alice : PWD=/ ; USER=root ; COMMAND=/usr/bin/kill -9 {pid}')}"),
        Lie("root's /dev/kmsg", "root", f"echo {q(f'<3>{victim}')} > /dev/kmsg; echo {q(f'<0>{summary}')} > /dev/kmsg"),
        Lie("an address with gunicorn's words", "alice", f"curl -g -s -o /dev/null -A {q(guess)} -e {q(log_line)} {q(access)}"),
        Lie("the visitor's words in the worker's log", "alice", f"curl -g -s -o /dev/null {q(f'http://127.0.0.1:8000/say?words={words}')}"),
    )  # fmt: skip


def tell(lab: Lab, lie: Lie) -> None:
    """Write it. What refuses the lie (a unit's name, a closed socket) only answers with an error."""
    lab.run(lie.command, user=lie.user)


def two_limits(lab: Lab) -> tuple[Killed, Killed]:
    """Two units over their own limits at the same moment."""
    since = now_s(lab)
    units = ("hog@0.service", "hog@00.service")
    lab.run(f"systemctl reset-failed {' '.join(units)} 2>/dev/null; systemctl start {' '.join(units)}", check=True)
    for unit in units:
        failed(lab, unit)
    one, other = (kernel_victims(lab, since, f"/system.slice/system-hog.slice/{unit}") for unit in units)
    return (
        Killed("cgroup-limit", units[0], tuple(one), len(one), evidence=f"Killed process {one[0]} "),
        Killed("cgroup-limit", units[1], tuple(other), len(other), evidence=f"Killed process {other[0]} "),
    )


def access_log(lab: Lab) -> None:
    """Have the site log its requests to the journal, through its master's own streams."""
    lab.run("mkdir -p /etc/systemd/system/teaching_panel.service.d", check=True)
    command = "/usr/local/bin/gunicorn --workers 3 --timeout 30 --access-logfile - --bind 127.0.0.1:8000 teaching_panel.wsgi"
    lab.put("/etc/systemd/system/teaching_panel.service.d/log.conf", f"[Service]\nExecStart=\nExecStart={command}\n")
    lab.run("systemctl daemon-reload && systemctl restart teaching_panel", check=True)
    newest_worker(lab)


def alive(lab: Lab, pid: int) -> bool:
    """Whether the process is still there."""
    return lab.run(f"[ -d /proc/{pid} ]").returncode == 0


FLOOD_PROGRAM = """\
#!/usr/bin/python3
\"\"\"Have the kernel kill many of one's own processes, in a cgroup of one's own: flood ROUNDS MEMBERS.\"\"\"
import mmap, os, sys

rounds, members = int(sys.argv[1]), int(sys.argv[2])
own = "/sys/fs/cgroup" + open("/proc/self/cgroup").read().strip().partition("::")[2]
for name in ("main", "victims"):
    os.mkdir(f"{own}/{name}")
open(f"{own}/main/cgroup.procs", "w").write("0")
open(f"{own}/cgroup.subtree_control", "w").write("+memory")
for name, value in (("memory.max", "16M"), ("memory.swap.max", "0"), ("memory.oom.group", "1")):
    try:
        open(f"{own}/victims/{name}", "w").write(value)
    except OSError:
        pass
print("begun", flush=True)
for number in range(rounds):
    pids = []
    ready, go = os.pipe()
    for member in range(members):
        pid = os.fork()
        if pid == 0:
            open(f"{own}/victims/cgroup.procs", "w").write("0")
            if member < members - 1:
                os.read(ready, 1)
            area = mmap.mmap(-1, 64 << 20)
            for at in range(0, 64 << 20, 4096):
                area[at] = 1
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(ready), os.close(go)
print("done", flush=True)
"""


def flood(lab: Lab, rounds: int, members: int) -> None:
    """Begin to have alice's own processes killed, in her own slice: `members` at a time."""
    lab.put("/usr/local/bin/flood", FLOOD_PROGRAM, "0755")
    command = f"systemd-run --user --quiet --unit=flood -p Delegate=yes -p OOMPolicy=continue flood {rounds} {members}"
    lab.run(command, user="alice", check=True)


def flooded(lab: Lab) -> int:
    """How many the kernel has killed of alice's."""
    path = f"/sys/fs/cgroup/user.slice/user-{uid(lab, 'alice')}.slice/memory.events"
    return int(lab.run(f"awk '/^oom_kill /{{print $2}}' {path}", check=True).stdout)


def flood_reaches(lab: Lab, number: int, timeout_s: float) -> None:
    """Wait until so many were killed."""
    path = f"/sys/fs/cgroup/user.slice/user-{uid(lab, 'alice')}.slice/memory.events"
    lab.until(f"[ $(awk '/^oom_kill /{{print $2}}' {path}) -ge {number} ]", timeout_s)


def flood_lasts(lab: Lab, until_s: float) -> None:
    """Let it go on until then, by the guest's clock, and end it."""
    lab.until(f"[ $(date +%s) -ge {until_s:.0f} ] || journalctl _SYSTEMD_USER_UNIT=flood.service -o cat | grep -q done", 600)
    lab.run("systemctl --user stop flood", user="alice")
