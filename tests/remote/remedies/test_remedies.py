"""The plans that are drawn, and their scripts run by a real shell against a stand-in systemctl that keeps a record."""

import os
import signal
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.facts.base import Unreadable
from remote.facts.host import MACHINE, Machine
from remote.facts.memory import MEMORY, Memory
from remote.facts.processes import PROCESSES, Process, Processes
from remote.facts.units import UNITS, Unit, Units
from remote.policy import Policy
from remote.redact import redact
from remote.remedies import discover, end_stray, restart_unit, shell, stop_unit
from remote.remedies.base import CannotDraft, Draft, Step, dump_draft, invert, load_draft
from remote.remedies.plan import Seen, fix, restart, undo
from remote.secret import CommandLine
from remote.text import Listing, Mono

RECORDED = Path(__file__).parents[2] / "recorded" / "debian12" / "facts"
KEY = b"a secret of this store"
SYSTEMCTL = """#!/bin/sh
# keeps ActiveState of each unit in a file, and every call in a log
cd {place} || exit 1
echo "$*" >>log
case $1 in
  daemon-reload) exit 0 ;;
  stop) [ ! -e "$2.deaf" ] || exit 1; echo inactive >"$2"; exit 0 ;;
  start|restart) echo active >"$2"; echo run-$$ >"$2.run"; exit 0 ;;
  show) shift
    [ "$1" = --value ] && shift
    [ "$1" = -p ] && what=$2
    for unit in "$@"; do :; done
    case $what in
      ActiveState) cat "$unit" ;;
      InvocationID) cat "$unit.run" ;;
      NeedDaemonReload) cat "$unit.reload" 2>/dev/null || echo no ;;
      FragmentPath) echo "{place}/unit" ;;
      DropInPaths) cat "$unit.dropins" 2>/dev/null ;;
      UnitFileState) cat "$unit.enabled" 2>/dev/null || echo enabled ;;
      KillMode) cat "$unit.killmode" 2>/dev/null || echo mixed ;;
      MainPID) cat "$unit.pid" 2>/dev/null || echo {pid} ;;
      Job) cat "$unit.job" 2>/dev/null ;;
    esac ;;
esac
"""


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(errors="surrogateescape")


def runbook() -> Seen:
    """The runbook's server as a real Debian 12 told it."""
    memory, processes = MEMORY.parse(recorded("memory")), PROCESSES.parse(recorded("processes"))
    units, machine = UNITS.parse(recorded("units")), MACHINE.parse(recorded("machine"))
    assert isinstance(memory, Memory)
    assert isinstance(processes, Processes)
    assert isinstance(units, Units)
    assert not isinstance(machine, Unreadable)
    return Seen(memory, processes, units, machine, KEY)


def the_plan(policy: Policy | None = None) -> Draft:
    draft = fix("prod", runbook(), policy or Policy(), "SHA256:key")
    assert draft is not None
    return draft


class Host:
    """A folder that stands for a host: one unit, its file, its link, and the stand-in systemctl."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "bin").mkdir()
        program = place / "bin" / "systemctl"
        program.write_text(SYSTEMCTL.format(place=place, pid=os.getpid()))
        program.chmod(0o755)
        (place / "unit").write_text("[Service]\n")
        (place / "x.service").write_text("active\n")
        (place / "x.service.run").write_text("run-1\n")
        self.link = place / "wants" / "x.service"
        self.link.parent.mkdir()
        self.link.symlink_to(place / "unit")

    def unit(self, **more: object) -> Unit:
        some = runbook().units.by_name("celery_beat.service")
        assert some is not None
        changed: dict[str, object] = {
            "id": "x.service", "names": ("x.service",), "invocation_id": "run-1", "fragment_path": str(self.place / "unit"),
            "drop_in_paths": (), "settings_hash": self.hash(), "links": ((str(self.link), str(self.place / "unit")),),
        }  # fmt: skip
        return replace(some, **{**changed, **more})  # type: ignore[arg-type]

    def hash(self) -> str:
        return self.run(f"sha256sum {self.place}/unit | sha256sum | cut -c1-64").stdout.strip()

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.place}/bin:{os.environ['PATH']}"
        return subprocess.run(
            ["/bin/sh", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=False, timeout=60
        )

    def log(self) -> list[str]:
        log = self.place / "log"
        return [line for line in log.read_text().splitlines() if not line.startswith("show")] if log.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def stopped(unit: Unit, *, celery: bool = False) -> Step:
    return stop_unit.propose(unit, celery=celery, frees_bytes=1, stop_timeout_s=600)


def test_the_runbook_s_plan_names_exactly_the_extras() -> None:
    targets = [step.target for step in the_plan().steps]
    assert set(targets[:3]) == {"celery_worker.service", "celery-combined.service", "celery_beat.service"}
    assert targets[3].startswith("pid ")


def test_a_worker_may_finish_its_task_and_a_beat_has_none() -> None:
    steps = {step.target: step for step in the_plan().steps}
    worker, beat = "\n".join(steps["celery_worker.service"].commands), "\n".join(steps["celery_beat.service"].commands)
    assert worker.index("KillMode=mixed") < worker.index("systemctl stop")
    assert "TimeoutStopSec=600" in worker
    assert "KillMode" not in beat


def test_what_must_not_be_touched_makes_no_plan() -> None:
    kept = fix("prod", runbook(), Policy(never_touch=("celery_worker.service",)), "")
    assert kept is None or "celery_worker.service" not in {step.target for step in kept.steps}


@pytest.mark.parametrize("name", ["ssh.service", "systemd-journald.service", "dbus.service"])
def test_without_these_nobody_could_mend_the_host(name: str) -> None:
    seen = runbook()
    unit = replace(seen.units.all[0], id=name, names=(name,), load_state="loaded")
    with pytest.raises(CannotDraft):
        restart("prod", unit, seen, Policy(), "")


def test_the_digest_covers_what_is_done_and_never_wording() -> None:
    draft = the_plan()
    reworded = replace(draft, reason=draft.steps[0].text, findings=())
    assert reworded.digest == draft.digest
    steps = (replace(draft.steps[0], commands=("true",)), *draft.steps[1:])
    assert replace(draft, steps=steps).digest != draft.digest
    assert replace(draft, basis={**draft.basis, "boot_id": "another"}).digest != draft.digest


def test_a_plan_survives_its_row() -> None:
    draft = the_plan()
    again = load_draft(dump_draft(draft))
    assert again == draft
    assert again.digest == draft.digest


def test_no_command_line_is_in_a_plan() -> None:
    seen = runbook()
    secret = "--password=hunter2"
    processes = tuple(replace(one, command=CommandLine((*one.command.open(), secret))) for one in seen.processes.all)
    draft = fix("prod", replace(seen, processes=replace(seen.processes, all=processes)), Policy(), "")
    assert draft is not None
    assert secret not in str(dump_draft(draft))


def test_nothing_extra_makes_no_plan() -> None:
    seen = runbook()
    assert fix("prod", replace(seen, processes=Processes((), "b"), units=Units(())), Policy(), "") is None


def test_stopping_and_undoing_a_unit(host: Host) -> None:
    step = stopped(host.unit())
    back = invert(step)
    assert back is not None
    assert host.run(step.check).returncode == 0
    assert host.run(step.holds).returncode != 0
    assert host.run("set -e\n" + "\n".join(step.commands)).returncode == 0
    assert host.run(step.holds).returncode == 0
    assert not host.link.is_symlink()
    assert host.log() == ["stop x.service", "daemon-reload"]

    assert host.run(back.holds).returncode != 0
    undoing = "\n".join(command for command in back.commands if "/run/systemd" not in command)
    assert host.run("set -e\n" + undoing).returncode == 0
    assert host.run(back.holds).returncode == 0
    assert host.link.readlink() == host.place / "unit"


def test_a_link_that_leads_elsewhere_by_now_is_left_alone(host: Host) -> None:
    step = stopped(host.unit())
    host.link.unlink()
    host.link.symlink_to("/somewhere/else")
    host.run("set -e\n" + "\n".join(step.commands))
    assert host.link.readlink() == Path("/somewhere/else")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("echo run-2 >x.service.run", "started or stopped"),
        ("echo yes >x.service.reload", "daemon-reload"),
        ("echo '# edited' >>unit", "changed"),
        ("echo /etc/systemd/system/x.service.d/override.conf >x.service.dropins", "other drop-ins"),
        ("echo disabled >x.service.enabled", "enabled or disabled"),
    ],
)
def test_a_unit_that_changed_since_is_not_touched(host: Host, change: str, word: str) -> None:
    step = stopped(host.unit())
    host.run(f"cd {host.place}; {change}")
    look = host.run(step.check)
    assert look.returncode == 1
    assert word in look.stdout


def test_systemd_s_job_outlives_who_asked_for_it(host: Host) -> None:
    step = stopped(host.unit())
    assert host.run(step.busy).returncode == 1
    (host.place / "x.service.job").write_text("77\n")
    assert host.run(step.busy).returncode == 0


@pytest.mark.parametrize("state", sorted(stop_unit.FIXED))
def test_a_unit_that_is_more_than_files_and_links_is_refused(host: Host, state: str) -> None:
    with pytest.raises(CannotDraft):
        stopped(host.unit(unit_file_state=state))


def test_a_restart_must_be_healthy_and_new(host: Host) -> None:
    step = restart_unit.propose(host.unit(), celery=False, stop_timeout_s=600)
    assert invert(step) is None
    assert host.run(step.holds).returncode != 0
    host.run("\n".join(step.commands))
    assert host.run(step.holds).returncode == 0
    (host.place / "x.service").write_text("failed\n")
    assert host.run(step.holds).returncode != 0


def sleeper() -> tuple[subprocess.Popen[bytes], Process]:
    """A real process and what the fact says of it."""
    running = subprocess.Popen(["sleep", "600"])
    stat = Path(f"/proc/{running.pid}/stat").read_text().rsplit(")", 1)[1].split()
    cgroup = Path(f"/proc/{running.pid}/cgroup").read_text().splitlines()[-1].split(":", 2)[2]
    seen = Process(
        running.pid, os.getpid(), int(stat[19]), datetime.now(UTC), "sleep", CommandLine(("sleep", "600")), os.getuid(), "root", 1, 0,
        None, cgroup, str(Path(f"/proc/{running.pid}/exe").readlink()), "/",
    )  # fmt: skip
    return running, seen


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")


def ended(process: Process, timeout_s: int = 20) -> Step:
    return end_stray.propose(process, boot_id=boot_id(), title="celery-worker", frees_bytes=1, timeout_s=timeout_s, key=KEY)


def test_a_stray_ends_by_its_whole_identity(host: Host) -> None:
    running, process = sleeper()
    step = ended(process)
    assert host.run(step.check).returncode == 0
    assert host.run(step.holds).returncode != 0
    ending = subprocess.Popen(["/bin/sh", "-c", "\n".join(step.commands)])
    assert running.wait(30) == -signal.SIGTERM
    assert ending.wait(30) == 0
    assert host.run(step.holds).returncode == 0
    assert invert(step) is None


@pytest.mark.parametrize(
    "wrong",
    [{"start_ticks": 1}, {"uid": 65533}, {"cgroup": "/another"}, {"exe": "/bin/other"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_another_process_with_that_pid_is_never_signalled(host: Host, wrong: dict[str, object]) -> None:
    running, process = sleeper()
    try:
        step = ended(replace(process, **wrong), timeout_s=1)  # type: ignore[arg-type]
        assert host.run(step.check).returncode == 1
        assert host.run("\n".join(step.commands)).returncode == 1
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


def test_another_boot_s_pid_is_never_signalled(host: Host) -> None:
    running, process = sleeper()
    try:
        step = end_stray.propose(process, boot_id="another", title="x", frees_bytes=1, timeout_s=1, key=KEY)
        assert host.run("\n".join(step.commands)).returncode == 1
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


def test_the_command_line_is_looked_at_once_more() -> None:
    running, process = sleeper()
    running.kill()
    running.wait()
    same, step = discover()["end-stray"].same, ended(process)
    assert same is not None
    assert same(step, Processes((process,), "b"), KEY)
    other = replace(process, command=CommandLine(("sleep", "601")))
    assert not same(step, Processes((other,), "b"), KEY)
    assert not same(step, Processes((), "b"), KEY)
    assert not same(step, Processes((process,), "b"), b"another key")


def test_undo_takes_back_what_holds_in_reverse() -> None:
    draft = the_plan()
    back = undo(draft, [True, False, True, True], "planid", "CODE", Policy())
    assert back is not None
    assert [step.target for step in back.steps] == [draft.steps[2].target, draft.steps[0].target]
    assert len(back.findings) == 1, "the stray does not come back, and that is said"
    assert undo(draft, [False, False, False, True], "planid", "CODE", Policy()) is None


@given(st.text(max_size=40))
def test_only_a_unit_s_name_comes_into_a_command(name: str) -> None:
    try:
        quoted = shell.unit_name(name)
    except CannotDraft:
        return
    words = subprocess.run(["/bin/sh", "-c", f"printf %s {quoted}"], capture_output=True, text=True, check=True).stdout
    assert words == name
    assert redact(name) is not None


@given(st.text(max_size=40))
def test_only_an_absolute_path_comes_into_a_command(name: str) -> None:
    try:
        quoted = shell.path(name)
    except CannotDraft:
        return
    assert name.startswith("/")
    out = subprocess.run(["/bin/sh", "-c", f"printf %s {quoted}"], capture_output=True, check=True).stdout
    assert out == os.fsencode(name)


def test_every_remedy_is_found() -> None:
    assert set(discover()) == {"stop-unit", "end-stray", "restart-unit"}
    orders = [remedy.order for remedy in discover().values()]
    assert len(set(orders)) == len(orders)


def test_the_machine_s_rights_are_part_of_the_plan() -> None:
    seen = runbook()
    assert isinstance(seen.machine, Machine)
    weak = replace(seen, machine=replace(seen.machine, root="no"))
    draft = fix("prod", weak, Policy(), "")
    assert draft is not None
    assert draft.basis["root"] == "no"


@pytest.mark.parametrize(
    ("state", "links", "said"),
    [("active", True, "do not start it at boot"), ("active", False, "Stop {unit}"), ("inactive", True, "Do not start")],
)
def test_only_what_is_there_is_taken_away(host: Host, state: str, *, links: bool, said: str) -> None:
    more = {} if links else {"links": ()}
    step = stopped(host.unit(active_state=state, **more))
    assert said in step.text.msgid
    assert ("systemctl stop" in "\n".join(step.commands)) == (state == "active")
    assert ("rm -f" in "\n".join(step.commands)) == links
    assert (step.interrupts is None) == (state != "active")
    assert step.undo_text is not None
    assert ("tart" in step.undo_text.msgid) == (state == "active")


def test_a_stopped_twin_frees_nothing_and_one_without_links_is_no_step() -> None:
    seen = runbook()

    def asleep(*, links: bool) -> Draft | None:
        units = tuple(
            replace(one, active_state="inactive", main_pid=0, links=one.links if links else ())
            if one.id in {"celery_beat.service", "celery_worker.service", "celery-combined.service"}
            else one
            for one in seen.units.all
        )
        gone = {one.pid for one in seen.processes.all if "celery_" in one.cgroup or "celery-combined" in one.cgroup}
        strays = {one.pid for one in seen.processes.all if one.cgroup.startswith("/user.slice")}
        left = tuple(one for one in seen.processes.all if one.pid not in gone | strays)
        return fix("prod", replace(seen, units=Units(units), processes=replace(seen.processes, all=left)), Policy(), "")

    linked = asleep(links=True)
    assert linked is not None
    assert [step.frees_bytes for step in linked.steps] == [0] * len(linked.steps)
    assert asleep(links=False) is None


def test_a_restart_of_what_is_not_loaded_or_must_not_be_touched_is_refused() -> None:
    seen = runbook()
    unit = seen.units.by_name("celery.service")
    assert unit is not None
    assert restart("prod", unit, seen, Policy(), "").steps[0].kind == "restart-unit"
    with pytest.raises(CannotDraft):
        restart("prod", replace(unit, load_state="not-found"), seen, Policy(), "")
    aliased = replace(unit, names=(unit.id, "jobs.service"))
    for name in ("celery.service", "celery", "jobs.service", "jobs"):
        with pytest.raises(CannotDraft) as refused:
            restart("prod", aliased, seen, Policy(never_touch=(name,)), "")
        assert "never-touch" in refused.value.text.msgid


@pytest.mark.parametrize("name", ["celery.service", "celery", "jobs"])
def test_health_is_asked_whatever_name_the_settings_give_the_unit(name: str) -> None:
    seen, policy = runbook(), Policy(health={name: "http://127.0.0.1:8/"})
    units = tuple(replace(one, names=(one.id, "jobs.service")) if one.id == "celery.service" else one for one in seen.units.all)
    seen = replace(seen, units=Units(units))
    unit = seen.units.by_name("jobs")
    assert unit is not None
    assert "http://127.0.0.1:8/" in restart("prod", unit, seen, policy, "").verify
    plan = fix("prod", seen, policy, "")
    assert plan is not None
    assert "http://127.0.0.1:8/" in plan.verify


def test_a_kept_unit_that_does_not_run_makes_no_plan() -> None:
    """Stopping the extras would leave no worker: whoever keeps one that sleeps must start it first."""
    seen = runbook()
    units = tuple(
        replace(one, active_state="failed", sub_state="failed", main_pid=0) if one.id == "celery.service" else one
        for one in seen.units.all
    )
    gone = tuple(one for one in seen.processes.all if not one.cgroup.endswith("/celery.service"))
    asleep = replace(seen, units=Units(units), processes=replace(seen.processes, all=gone))
    with pytest.raises(CannotDraft):
        fix("prod", asleep, Policy(keep=("celery.service",)), "")


def test_true_twins_make_no_plan_before_a_person_chose() -> None:
    seen = runbook()
    first = seen.units.by_name("celery-beat.service")
    assert first is not None
    second = replace(
        first, id="celery-b33t.service", names=("celery-b33t.service",), main_pid=0, control_group="", description=first.description,
        active_state="inactive",
    )  # fmt: skip
    same = replace(first, active_state="inactive", main_pid=0, control_group="")
    quiet = replace(seen, units=Units((same, second)), processes=replace(seen.processes, all=()))
    with pytest.raises(CannotDraft):
        fix("prod", quiet, Policy(), "")


def test_a_unit_with_a_health_url_is_asked_on_the_host(host: Host) -> None:
    assert "curl" in shell.healthy("x.service", health_url="http://127.0.0.1:1/")
    assert host.run(shell.healthy("x.service")).returncode == 0
    assert host.run(shell.healthy("x.service", health_url="http://127.0.0.1:1/")).returncode != 0


def test_a_unit_whose_files_could_not_be_read_is_still_looked_at(host: Host) -> None:
    step = stopped(host.unit(settings_hash=""))
    assert "sha256sum" not in step.check
    assert host.run(step.check).returncode == 0


def test_a_stray_whose_program_may_not_be_read_is_held_by_the_rest(host: Host) -> None:
    running, process = sleeper()
    try:
        step = ended(replace(process, exe=None))
        assert "readlink" not in step.check
        assert host.run(step.check).returncode == 0
    finally:
        running.kill()
        running.wait()


def test_a_task_is_spared_whatever_else_is_set_and_only_while_it_stops(host: Host) -> None:
    """Drop-ins hold in the order of their names: `systemctl edit` makes an override.conf."""
    step = stopped(host.unit(stop_timeout_s=90.0), celery=True)
    script = "set -e\n" + "\n".join(step.commands).replace("/run/systemd/system", str(host.place / "run"))
    folder = host.place / "run" / "x.service.d"
    assert shell.DROP_IN > "override.conf"
    assert "TimeoutStopSec=600" in script

    (host.place / "x.service.deaf").touch()
    assert host.run(script).returncode != 0
    assert not folder.exists(), "what a failed stop leaves would change every later one"
    (host.place / "x.service.deaf").unlink()
    (host.place / "x.service.killmode").write_text("control-group\n")
    refused = host.run(script)
    assert (refused.returncode, refused.stdout) == (1, "its task could not be spared\n")
    assert "stop x.service" not in host.log()[-2:]
    (host.place / "x.service.killmode").unlink()
    assert host.run(script).returncode == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("own_s", "celery", "deadline_s"), [(3600.0, True, 3660), (90.0, True, 660), (300.0, False, 360), (None, False, 150)]
)
def test_a_unit_has_the_time_that_it_allows_itself(host: Host, own_s: float | None, *, celery: bool, deadline_s: float) -> None:
    step = stopped(host.unit(stop_timeout_s=own_s), celery=celery)
    assert step.deadline_s == deadline_s
    again = restart_unit.propose(host.unit(stop_timeout_s=own_s), celery=celery, stop_timeout_s=600)
    assert again.deadline_s >= (own_s or 0) + 60


def test_a_unit_without_a_known_main_process_is_not_taken_for_this_shell(host: Host) -> None:
    (host.place / "x.service.pid").write_text("0\n")
    assert host.run(shell.healthy("x.service")).returncode == 0
    (host.place / "x.service.pid").write_text("4194305\n")  # beyond every pid
    assert host.run(shell.healthy("x.service")).returncode != 0


def related(name: str, **relations: tuple[str, ...]) -> Seen:
    """The runbook's server with one more tie."""
    seen = runbook()
    units = tuple(replace(one, relations={**one.relations, **relations}) if one.id == name else one for one in seen.units.all)
    return replace(seen, units=Units(units))


@pytest.mark.parametrize("tie", ["Requires", "BindsTo", "PartOf"])
def test_a_plan_stops_what_its_card_names_and_nothing_else(tie: str) -> None:
    with pytest.raises(CannotDraft) as why:
        fix("prod", related("teaching_panel.service", **{tie: ("celery_worker.service",)}), Policy(keep=("celery",)), "")
    assert dict(why.value.text.values)["unit"] == Mono("teaching_panel.service")
    both = related("celery_beat.service", **{tie: ("celery_worker.service",)})
    assert fix("prod", both, Policy(keep=("celery", "celery-beat")), "") is not None, "one that goes too needs nothing"


def test_a_restart_names_what_restarts_with_it_and_spares_what_must_not_be_touched() -> None:
    seen = related("celery.service", PartOf=("teaching_panel.service",))
    seen = replace(seen, units=Units(tuple(
        replace(one, relations={**one.relations, "BindsTo": ("celery.service",)}) if one.id == "celery-beat.service" else one
        for one in seen.units.all
    )))  # fmt: skip
    unit = seen.units.by_name("teaching_panel")
    assert unit is not None
    step = restart("prod", unit, seen, Policy(), "").steps[0]
    assert step.interrupts is not None
    assert dict(step.interrupts.values)["others"] == Listing((Mono("celery.service"), Mono("celery-beat.service")))
    with pytest.raises(CannotDraft) as why:
        restart("prod", unit, seen, Policy(never_touch=("celery-beat",)), "")
    assert dict(why.value.text.values)["other"] == Mono("celery-beat.service")


def test_no_step_runs_unless_those_who_stay_are_well() -> None:
    for step in the_plan().steps:
        for keeper in ("celery.service", "celery-beat.service"):
            assert shell.healthy(keeper) in step.check


def test_two_twins_that_are_to_stay_both_stay() -> None:
    plan = the_plan(Policy(keep=("celery", "celery_worker")))
    assert {"celery.service", "celery_worker.service"}.isdisjoint(step.target for step in plan.steps)


@pytest.mark.parametrize(
    "name",
    [
        *("ssh@1", "sshd@1", "serial-getty@ttyS0", "console-getty", "container-getty@1", "autovt@tty1", "user-runtime-dir@1000"),
        *("rescue", "emergency", "dbus-broker", "modprobe@drm", "memwarden"),
    ],
)
def test_what_a_host_is_mended_with_is_never_touched(name: str) -> None:
    seen = runbook()
    unit = replace(seen.units.all[0], id=f"{name}.service", names=(f"{name}.service",))
    with pytest.raises(CannotDraft):
        restart("prod", unit, seen, Policy(), "")


@pytest.mark.parametrize("name", ["site@example.com.service", "site@example.com", "site@.service", "site@"])
def test_a_name_with_a_dot_is_no_suffix(name: str) -> None:
    seen = runbook()
    unit = replace(seen.units.all[0], id="site@example.com.service", names=("site@example.com.service",), load_state="loaded")
    with pytest.raises(CannotDraft):
        restart("prod", unit, seen, Policy(never_touch=(name,)), "")
    assert Units((unit,)).by_name("site@example.com") is unit


def test_what_an_undo_starts_must_be_well() -> None:
    draft = the_plan()
    policy = Policy(health={"celery_worker": "http://127.0.0.1:8/"})
    back = undo(draft, [True] * len(draft.steps), "planid", "CODE", policy)
    assert back is not None
    assert "http://127.0.0.1:8/" in back.verify
    assert back.basis["policy"] == policy.version


def test_a_plan_is_drawn_by_the_settings_and_not_by_who_asks() -> None:
    assert the_plan().basis["policy"] == Policy(chosen=("celery",)).version
    others = [Policy(keep=("a",)), Policy(never_touch=("a",)), Policy(health={"a": "http://b/"}), Policy(celery_stop_timeout_s=1)]
    assert len({policy.version for policy in (Policy(), *others)}) == len(others) + 1
