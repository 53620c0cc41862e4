"""The lab's own machinery: it boots, kills, goes back and sets up the runbook's server."""

import json
import time

import pytest

from tests.lab.machine import Lab, LabError

CELERY_UNITS = {
    "celery.service",
    "celery_worker.service",
    "celery-beat.service",
    "celery_beat.service",
    "celery-combined.service",
}


def test_systemd_runs_on_cgroup_v2(lab: Lab) -> None:
    """PID 1 is systemd, the hierarchy is unified, PSI is on, nothing has failed."""
    lab.reset()

    assert lab.run("cat /proc/1/comm", check=True).stdout == "systemd\n"
    assert lab.run("stat -fc %T /sys/fs/cgroup", check=True).stdout == "cgroup2fs\n"
    assert lab.run("cat /proc/pressure/memory", check=True).stdout.startswith("some avg10=")
    assert lab.run("systemctl is-system-running").stdout == "running\n"


def test_has_two_gigabytes_and_swap_on_demand(lab: Lab) -> None:
    """Swap is off in a snapshot, 2 GiB when turned on, off again after a reset."""
    lab.reset()
    assert 1_900_000 < _meminfo_kib(lab, "MemTotal") < 2_097_152
    assert _meminfo_kib(lab, "SwapTotal") == 0

    lab.swap(on=True)
    assert _meminfo_kib(lab, "SwapTotal") == 2_097_148

    lab.reset()
    assert _meminfo_kib(lab, "SwapTotal") == 0


def test_date_is_that_of_this_machine_after_a_reset(lab: Lab) -> None:
    """A snapshot is days old, its clock is not."""
    lab.reset()

    guest_s = float(lab.run("date +%s.%N", check=True).stdout)

    assert abs(time.time() - guest_s) < 5


@pytest.mark.parametrize(("user", "may_sudo"), [("deploy", True), ("alice", False)])
def test_ordinary_users_log_in(lab: Lab, user: str, may_sudo: bool) -> None:  # noqa: FBT001 - a parameter
    """`deploy` may sudo without a password, `alice` may not, each in a session of their own."""
    lab.reset()

    cgroup = lab.run("cat /proc/self/cgroup", user, check=True).stdout

    assert "/user.slice/user-" in cgroup
    assert (lab.run("sudo -n true", user).returncode == 0) is may_sudo


def test_kernel_kills_in_a_unit_over_its_limit(lab: Lab) -> None:
    """A unit over its MemoryMax leaves the kernel's own line in the journal."""
    lab.reset()

    lab.run("systemctl start hog@0.service", check=True)
    lab.until("systemctl is-failed --quiet hog@0.service")

    lines = lab.run("journalctl -k -o json --grep 'Killed process'", check=True).stdout.splitlines()
    messages = [json.loads(line)["MESSAGE"] for line in lines]
    assert len(messages) == 1
    assert messages[0].startswith("Memory cgroup out of memory: Killed process ")
    assert lab.run("systemctl show -P Result hog@0.service").stdout == "oom-kill\n"


def test_runbook_server_has_its_twins_and_a_stray(lab: Lab) -> None:
    """Exactly five celery units are active, the site answers, one worker belongs to no unit."""
    lab.runbook()

    names = lab.run("systemctl list-units --plain --no-legend --state=active 'celery*'", check=True).stdout
    assert {line.split()[0] for line in names.splitlines()} == CELERY_UNITS
    mains = lab.run("pgrep -f '^python3 /usr/bin/celery ' -u www-data", check=True).stdout.split()
    cgroups = [lab.run(f"cat /proc/{pid}/cgroup", check=True).stdout.strip() for pid in mains]
    strays = [cgroup for cgroup in cgroups if "/user.slice/" in cgroup]
    assert len(strays) == 2  # the worker and its one child
    assert lab.run("curl -s http://127.0.0.1/", check=True).stdout.startswith("ok from ")


def test_celery_works_in_the_runbook_server(lab: Lab) -> None:
    """A task that is sent is done."""
    lab.runbook()

    send = "celery -A teaching_panel call teaching_panel.tasks.sleep_task --args '[1, \"/tmp/task\"]'"
    lab.run(f"cd /srv/teaching_panel && runuser -u www-data -- {send}", check=True)

    lab.until("grep -q finished /tmp/task")


def test_powercycle_boots_anew_and_keeps_the_journal(lab: Lab) -> None:
    """After the plug was pulled there is a new boot, and the old one's journal."""
    lab.reset()
    lab.run("logger before-the-cut && journalctl --sync && sync", check=True)

    lab.powercycle()

    assert lab.run("journalctl -b -1 -o cat -t root", check=True).stdout.endswith("before-the-cut\n")


def test_condition_that_never_holds_is_an_error(lab: Lab) -> None:
    """Waiting ends at its deadline and says for what it waited."""
    with pytest.raises(LabError, match="not within 1 s: false"):
        lab.until("false", timeout_s=1)


def _meminfo_kib(lab: Lab, key: str) -> int:
    return int(lab.run(f"awk '/^{key}:/{{print $2}}' /proc/meminfo", check=True).stdout)
