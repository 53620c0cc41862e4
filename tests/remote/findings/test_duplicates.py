"""Which units and strays do the same work, which one stays, and when nothing may be done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.findings.duplicates import Duplicates, LookAlike, find
from remote.policy import Policy
from tests.remote.findings.scene import BEAT, BOOT, BOTH, MIB, SESSION, WORKER, Scene, process, runbook

POLICY = Policy()


def groups(scene: Scene, policy: Policy = POLICY) -> tuple[Duplicates, ...]:
    return find(scene.processes, scene.units, policy)[0]


def look_alikes(scene: Scene) -> tuple[LookAlike, ...]:
    return find(scene.processes, scene.units, POLICY)[1]


def keep(group: Duplicates) -> str:
    return group.keep.unit.id if group.keep.unit else str(group.keep.processes[0].pid)


def extra(group: Duplicates) -> list[str]:
    return sorted(member.unit.id if member.unit else str(member.processes[0].pid) for member in group.extra)


def twins(**second: Any) -> Scene:  # noqa: ANN401 - any field of a unit
    """celery.service and a twin of it, b.service, that differs as said."""
    return Scene().runs("celery.service", WORKER, 200).runs("b.service", WORKER, 300, **second)


def test_the_runbook_comes_out() -> None:
    worker, beat = groups(runbook())

    assert (worker.service, worker.app, keep(worker)) == ("celery-worker", "app", "celery.service")
    assert extra(worker) == ["700", "celery-combined.service", "celery_worker.service"]
    assert (beat.service, keep(beat)) == ("celery-beat", "celery-beat.service")
    assert extra(beat) == ["celery-combined.service", "celery_beat.service"]
    assert worker.shared == beat.shared == ("celery-combined.service",)
    assert not worker.tie
    assert not beat.tie
    assert worker.refused is beat.refused is None
    assert look_alikes(runbook()) == ()


def test_what_stands_in_two_groups_frees_its_bytes_once() -> None:
    worker, beat = groups(runbook())

    assert worker.frees_bytes == (200 + 300 + 200) * MIB
    assert beat.frees_bytes == 100 * MIB


def test_a_stray_is_shown_with_its_children_its_master_first() -> None:
    (stray,) = (member for member in groups(runbook())[0].extra if member.unit is None)

    assert [one.pid for one in stray.processes] == [700, 701]
    assert stray.pss_bytes == 200 * MIB


def test_one_of_each_is_no_duplicate() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-beat.service", BEAT, 300)
    scene.runs("site.service", "/usr/bin/gunicorn app.wsgi", 400, children=4)

    assert find(scene.processes, scene.units, POLICY) == ((), ())


@pytest.mark.parametrize(
    "line",
    [
        "/usr/bin/celery -A other worker -c 1",
        "/usr/bin/celery -A app worker -Q emails",
        "/usr/bin/celery -A app worker -b redis://elsewhere/1",
    ],
)
def test_other_work_is_no_duplicate(line: str) -> None:
    scene = Scene().runs("celery.service", f"{WORKER} -b redis://here/0", 200).runs("celery_worker.service", line, 300)

    assert find(scene.processes, scene.units, POLICY) == ((), ())


@pytest.mark.parametrize("line", [f"{WORKER} -n other@%h -l debug", "/usr/bin/celery worker --app=app.celery:app -c 4"])
def test_node_name_log_and_size_tell_no_two_apart(line: str) -> None:
    (group,) = groups(Scene().runs("celery.service", WORKER, 200).runs("celery_worker.service", line, 300))

    assert extra(group) == ["celery_worker.service"]


def test_other_users_directories_and_settings_are_other_services() -> None:
    assert groups(twins(uid=1000, user="deploy")) == ()
    assert groups(twins(cwd="/srv/staging", working_directory="/srv/staging")) == ()
    other = Scene().runs("celery.service", WORKER, 200, environment="DJANGO_SETTINGS_MODULE=a")
    other.runs("b.service", WORKER, 300, environment="DJANGO_SETTINGS_MODULE=b")
    assert groups(other) == ()


def test_settings_that_fit_two_services_belong_to_neither() -> None:
    scene = Scene().runs("a.service", WORKER, 200, environment="DJANGO_SETTINGS_MODULE=a")
    scene.runs("b.service", WORKER, 300, environment="DJANGO_SETTINGS_MODULE=b").runs("c.service", WORKER, 400)
    scene.stray(500, f"python3 {WORKER}")
    found, alike = find(scene.processes, scene.units, POLICY)

    assert found == ()
    assert [one.process.pid for one in alike] == [500]


def test_instances_of_one_template_are_none_but_a_plain_unit_beside_one_is() -> None:
    instances = Scene().runs("w@1.service", WORKER, 200).runs("w@2.service", WORKER, 300)
    assert groups(instances) == ()

    (group,) = groups(instances.runs("celery-long-name.service", WORKER, 400))
    assert keep(group) == "w@1.service"
    assert extra(group) == ["celery-long-name.service"]


def test_an_alias_is_the_same_unit() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, names=("celery.service", "worker.service"))
    alias = replace(scene.units.all[0], id="worker.service")

    assert find(scene.processes, Units((*scene.units.all, alias)), POLICY) == ((), ())


def test_an_enabled_twin_that_does_not_run_is_an_extra_that_frees_nothing() -> None:
    (group,) = groups(Scene().runs("celery_worker.service", WORKER, 200).has("celery.service", WORKER))

    assert keep(group) == "celery_worker.service"
    assert extra(group) == ["celery.service"]
    assert group.frees_bytes == 0
    assert group.refused is None


@pytest.mark.parametrize("state", [{"unit_file_state": "disabled"}, {"load_state": "masked"}, {"unit_file_state": "static"}])
def test_what_neither_runs_nor_will_is_none(state: dict[str, str]) -> None:
    assert groups(Scene().runs("celery.service", WORKER, 200).has("b.service", WORKER, **state)) == ()


def test_a_unit_that_crashes_again_and_again_does_not_do_the_work() -> None:
    scene = Scene().runs("celery_worker.service", WORKER, 200)
    scene.has("celery.service", WORKER, active_state="activating", sub_state="auto-restart")

    assert keep(groups(scene)[0]) == "celery_worker.service"


def test_databases_are_never_twins() -> None:
    scene = Scene().stray(10, "/usr/bin/redis-server *:6379", exe="/usr/bin/redis-server")
    scene.runs("redis.service", "x", 20)
    replaced = [
        replace(p, command=process(1, "/usr/bin/redis-server *:6379").command, exe="/usr/bin/redis-server")
        for p in scene.processes.all
    ]

    assert find(Processes(tuple(replaced), BOOT), scene.units, POLICY) == ((), ())


# Evidence, each stronger than all below it: what makes b.service the one to keep, and the beginning of the reason.
EVIDENCE = (
    (twins(), Policy(keep=("b",)), "b.service", "the settings say so"),
    (twins(), Policy(never_touch=("b.service",)), "b.service", "never to touch it"),
    (twins(relations={"RequiredBy": ("site.target",)}), POLICY, "b.service", "other units depend on it"),
    (twins(relations={"TriggeredBy": ("b.socket",)}), POLICY, "b.service", "other units depend on it"),
    (twins(relations={"WantedBy": ("multi-user.target",)}), POLICY, "b.service", "shorter name"),
    (twins(description="Worker (old)"), POLICY, "celery.service", "old or a copy"),
    (Scene().runs("celery.service", WORKER, 200).runs("celery-bak.service", WORKER, 300), POLICY, "celery.service", "old or a copy"),
    (Scene().runs("celery.service", WORKER, 200).runs("celerz.service", WORKER, 300, fragment_mtime_s=5.0), POLICY, "celerz.service", "unit file is older"),
)  # fmt: skip


@pytest.mark.parametrize(("scene", "policy", "kept", "why"), EVIDENCE)
def test_the_twin_to_keep_is_chosen_by_evidence(scene: Scene, policy: Policy, kept: str, why: str) -> None:
    (group,) = groups(scene, policy)

    assert keep(group) == kept
    assert why in group.why.msgid
    assert not group.tie


def test_what_an_unrelated_unit_wants_stays_before_a_shorter_name() -> None:
    scene = twins().runs("site.service", "/usr/bin/gunicorn app.wsgi", 400)
    wanted = [replace(u, relations={"WantedBy": ("site.service",)}) if u.id == "celery.service" else u for u in scene.units.all]
    (group,) = find(scene.processes, Units(tuple(wanted)), POLICY)[0]

    assert keep(group) == "celery.service"


def test_a_unit_that_goes_itself_is_no_evidence_for_what_it_wants() -> None:
    scene = Scene().runs("celery.service", WORKER, 200)
    scene.runs("celery_worker.service", WORKER, 300, relations={"RequiredBy": ("celery_beat.service",)})
    scene.runs("celery-beat.service", BEAT, 400)
    scene.runs("celery_beat.service", BEAT, 500, description="beat (old)", relations={"Requires": ("celery_worker.service",)})
    worker, beat = groups(scene)

    assert (keep(worker), keep(beat)) == ("celery.service", "celery-beat.service")
    assert worker.refused is None


def test_a_unit_that_stays_is_evidence_for_what_it_needs() -> None:
    scene = Scene().runs("celery.service", WORKER, 200)
    scene.runs("celery_worker.service", WORKER, 300, relations={"RequiredBy": ("celery-beat.service",)})
    scene.runs("celery-beat.service", BEAT, 400, relations={"Requires": ("celery_worker.service",)})
    scene.runs("celery_beat.service", BEAT, 500, description="beat (old)")
    worker, beat = groups(scene)

    assert (keep(worker), keep(beat)) == ("celery_worker.service", "celery-beat.service")


def test_no_evidence_is_a_tie() -> None:
    (group,) = groups(Scene().runs("celery-a.service", WORKER, 200).runs("celery-b.service", WORKER, 300))

    assert group.tie
    assert keep(group) == "celery-a.service"


def test_what_must_not_be_touched_is_no_extra() -> None:
    policy = Policy(keep=("celery.service",), never_touch=("b",))
    assert groups(twins(), policy) == ()

    (group,) = groups(twins().runs("c.service", WORKER, 400), policy)
    assert extra(group) == ["c.service"]


def test_worker_and_beat_in_one_stays_where_it_is_the_only_beat() -> None:
    (group,) = groups(Scene().runs("celery.service", WORKER, 200).runs("celery-combined.service", BOTH, 300))

    assert keep(group) == "celery-combined.service"
    assert "one of the two is nowhere else" in group.why.msgid
    assert group.refused is None


def test_worker_and_beat_in_one_goes_where_both_exist_apart() -> None:
    scene = Scene().runs("celery-worker-long.service", WORKER, 200).runs("celery-beat-long.service", BEAT, 300)
    worker, beat = groups(scene.runs("c.service", BOTH, 400))

    assert (keep(worker), keep(beat)) == ("celery-worker-long.service", "celery-beat-long.service")
    assert extra(worker) == extra(beat) == ["c.service"]
    assert "come before one that is both" in worker.why.msgid
    assert (worker.frees_bytes, beat.frees_bytes) == (200 * MIB, 0)


def test_a_stopped_beat_of_its_own_does_not_replace_the_one_that_runs() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("c.service", BOTH, 300).has("celery-beat.service", BEAT)

    assert [keep(group) for group in groups(scene)] == ["c.service", "c.service"]


def test_what_the_settings_keep_is_kept_in_both_groups() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-beat.service", BEAT, 300).runs("both.service", BOTH, 400)
    worker, beat = groups(scene, Policy(keep=("both.service",)))

    assert (keep(worker), keep(beat)) == ("both.service", "both.service")
    assert (extra(worker), extra(beat)) == (["celery.service"], ["celery-beat.service"])


def test_evidence_for_one_role_decides_for_both() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-beat.service", BEAT, 300)
    scene.runs("both.service", BOTH, 400, relations={"RequiredBy": ("site.target",)})
    worker, beat = groups(scene)

    assert (keep(worker), keep(beat)) == ("both.service", "both.service")
    assert groups(scene, Policy(keep=("celery.service", "celery-beat.service")))[0].keep.unit is not None


def test_settings_that_would_leave_no_beat_are_refused() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-combined.service", BOTH, 300)
    (group,) = groups(scene, Policy(keep=("celery.service",)))

    assert group.refused is not None
    assert "worker and beat" in group.refused.msgid


def test_settings_that_contradict_each_other_are_refused() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-beat.service", BEAT, 300).runs("both.service", BOTH, 400)
    found = groups(scene, Policy(keep=("celery.service", "both.service")))

    assert found
    assert all(group.refused for group in found)


def test_a_kept_one_that_does_not_run_is_refused() -> None:
    scene = Scene().runs("celery_worker.service", WORKER, 200).has("celery.service", WORKER)
    (group,) = groups(scene, Policy(keep=("celery.service",)))

    assert keep(group) == "celery.service"
    assert group.refused is not None
    assert "does not run" in group.refused.msgid


def test_a_kept_one_that_would_stop_with_an_extra_is_refused() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, relations={"Requires": ("celery_worker.service",)})
    scene.runs("celery_worker.service", WORKER, 300)
    (group,) = groups(scene, Policy(keep=("celery.service",)))

    assert group.refused is not None
    assert "requires" in group.refused.msgid


def test_strays_alone_are_asked_about() -> None:
    scene = Scene().stray(10, f"python3 {WORKER}", children=1).stray(20, f"python3 {WORKER}").stray(30, f"python3 {BEAT}")
    (group,) = groups(scene)

    assert group.keep.unit is None
    assert group.tie
    assert [keep(group), *extra(group)] == ["10", "20"]


def test_a_stray_joins_the_unit_whose_settings_it_does_not_contradict() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, environment="DJANGO_SETTINGS_MODULE=a")
    (group,) = groups(scene.stray(300, f"python3 {WORKER}"))

    assert extra(group) == ["300"]
    assert "started by hand" in group.why.msgid


# What a process may differ in, and a word of the reason.
LIARS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (f"python3 {WORKER}", {"uid": 1000, "user": "deploy"}, "another user"),
    (f"python3 {WORKER}", {"exe": "/opt/py/bin/python3.12"}, "not that of"),
    ("python3 /home/me/venv/bin/celery -A app worker", {}, "not that of"),
    ("python3 -m celery -A app worker", {}, "not that of"),
    (f"python3 {WORKER}", {"cwd": "/tmp"}, "works in"),
    (f"python3 {WORKER}", {"exe": None}, "may not be read"),
    (f"python3 {WORKER}", {"cwd": None}, "may not be read"),
    (f"python3 {WORKER}", {"exe": "/usr/bin/sleep"}, "only claims"),
    ("celery -A app worker", {}, "only claims"),
    (f"python3 {WORKER}", {"cgroup": f"/system.slice/docker-{'a' * 64}.scope"}, "container"),
    (f"python3 {WORKER}", {"cgroup": f"/docker/{'a' * 64}"}, "container"),
    (f"python3 {WORKER}", {"cgroup": "/user.slice/user-33.slice/user@33.service/app.slice/mine.service"}, "does not have"),
    (f"python3 {WORKER}", {"cgroup": "/system.slice/unheard-of.service"}, "does not have"),
    (f"python3 {WORKER}", {"cgroup": "/system.slice/cron.service"}, "belongs to"),
    (f"python3 {WORKER} -b redis://elsewhere", {}, "settings"),
)  # fmt: skip


@pytest.mark.parametrize(("line", "differs", "why"), LIARS)
def test_a_look_alike_is_shown_and_never_an_extra(line: str, differs: dict[str, Any], why: str) -> None:
    scene = Scene().runs("celery.service", f"{WORKER}", 200, environment="CELERY_BROKER_URL=redis://here")
    scene.runs("cron.service", "/usr/sbin/cron -f", 20, children=0, user="root", uid=0)
    scene.stray(300, line, children=1, **differs)
    found, alike = find(scene.processes, scene.units, POLICY)

    assert found == ()
    assert [(one.process.pid, one.service) for one in alike] == [(300, "celery-worker")]
    assert why in alike[0].why.msgid


@pytest.mark.parametrize(
    "line",
    [("bash", "-c", WORKER), ("vim", "celery", "worker"), ("grep", "celery -A app worker"), ("sudo", *WORKER.split())],
)
def test_words_in_other_programs_arguments_are_nothing(line: tuple[str, ...]) -> None:
    scene = Scene().runs("celery.service", WORKER, 200).stray(300, line, exe="/usr/bin/" + line[0])

    assert find(scene.processes, scene.units, POLICY) == ((), ())


def test_a_process_in_a_session_of_a_users_manager_is_a_stray() -> None:
    scope = "/user.slice/user-33.slice/user@33.service/tmux-spawn-1.scope"
    (group,) = groups(Scene().runs("celery.service", WORKER, 200).stray(300, f"python3 {WORKER}", cgroup=scope))

    assert extra(group) == ["300"]


def test_a_unit_that_cannot_be_compared_makes_look_alikes() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, exe=None).stray(300, f"python3 {WORKER}", cgroup=SESSION)

    assert groups(scene) == ()
    assert "cannot be compared" in look_alikes(scene)[0].why.msgid


def test_a_units_bytes_are_its_cgroups_where_pss_is_unknown() -> None:
    scene = (
        Scene()
        .runs("celery.service", WORKER, 200)
        .runs("celery_worker.service", WORKER, 300, pss_bytes=None, used_bytes=90 * MIB)
    )
    assert groups(scene)[0].frees_bytes == 90 * MIB

    scene = Scene().runs("celery.service", WORKER, 200).runs("celery_worker.service", WORKER, 300, pss_bytes=None)
    assert groups(scene)[0].frees_bytes == 240 * MIB


def test_a_new_order_of_facts_changes_no_judgement() -> None:
    scene = runbook()
    backwards = find(Processes(tuple(reversed(scene.processes.all)), BOOT), Units(tuple(reversed(scene.units.all))), POLICY)[0]

    assert [(keep(g), extra(g)) for g in backwards] == [(keep(g), extra(g)) for g in groups(scene)]


def test_the_only_beat_is_not_ended_with_the_stray_that_it_is_in() -> None:
    (group,) = groups(Scene().runs("celery.service", WORKER, 200).stray(300, f"python3 {BOTH}"))

    assert extra(group) == ["300"]
    assert group.refused is not None
    assert "would be left" in group.refused.msgid


def test_a_worker_that_the_settings_keep_wins_over_what_needs_the_combined_one() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-beat.service", BEAT, 300)
    scene.runs("both.service", BOTH, 400, relations={"RequiredBy": ("site.target",)})
    worker, beat = groups(scene, Policy(keep=("celery.service",)))

    assert (keep(worker), keep(beat)) == ("celery.service", "celery-beat.service")
    assert extra(worker) == extra(beat) == ["both.service"]
    assert worker.refused is beat.refused is None


def test_of_two_that_are_both_one_stays() -> None:
    scene = Scene().runs("celery-all.service", BOTH, 200).runs("celery-everything.service", BOTH, 300)
    worker, beat = groups(scene)

    assert keep(worker) == keep(beat) == "celery-all.service"
    assert (worker.frees_bytes, beat.frees_bytes) == (200 * MIB, 0)


# A second worker's unit that does more, each as what it runs beside its main process 300 and that one's child 301.
MORE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("a beat in the background", f"python3 {BEAT} --detach", {"ppid": 1}),
    ("a beat that its shell started first", f"python3 {BEAT}", {"ppid": 300}),
    ("a worker of a queue that its shell started first", f"python3 {WORKER} -Q mail", {"ppid": 300}),
    ("a program beside it", "python3 /srv/app/mailer.py", {"ppid": 1}),
    ("a program in a cgroup of its own", "/srv/app/mailer", {"ppid": 1, "cgroup": "/system.slice/b.service/mail"}),
    ("another node", f"python3 {WORKER} -n w2@host", {"ppid": 1}),
    ("another node of another queue", f"python3 {WORKER} -n w2@host -Q mail", {"ppid": 1}),
)


@pytest.mark.parametrize("delegate", [False, True])
@pytest.mark.parametrize(("line", "given"), [one[1:] for one in MORE], ids=[one[0] for one in MORE])
def test_a_unit_that_does_more_is_shown_and_never_an_extra(line: str, given: dict[str, Any], *, delegate: bool) -> None:
    scene = twins(delegate=delegate).runs("c.service", WORKER, 400, description="Worker (old)")
    scene.stray(350, line, **{"cgroup": "/system.slice/b.service", **given})
    (group,) = groups(scene)

    assert (keep(group), extra(group)) == ("celery.service", ["c.service"])
    alike = {one.process.pid: one.why.msgid for one in look_alikes(scene)}
    assert "does other work too" in alike[300]
    assert 301 not in alike


# What may run in a unit beside its main process 300 and that one's child.
OWN: tuple[tuple[str, str | tuple[str, ...], dict[str, Any]], ...] = (
    ("its shell's pipe", "logger -t celery", {"ppid": 300, "exe": "/usr/bin/logger"}),
    ("a task's program, in another cgroup", "ffmpeg -i x", {"ppid": 301, "cgroup": "/system.slice/b.service/x"}),
    ("a child in another directory, of another user", f"python3 {WORKER}", {"ppid": 300, "cwd": "/tmp", "uid": 34}),
    ("a child with a title", ("[celeryd: celery@web:ForkPoolWorker-2]",), {"ppid": 300}),
    ("a child left behind by one that died", f"python3 {WORKER}", {"ppid": 1}),
)


@pytest.mark.parametrize(("line", "given"), [one[1:] for one in OWN], ids=[one[0] for one in OWN])
def test_what_belongs_to_its_work_leaves_a_unit_an_extra(line: str | tuple[str, ...], given: dict[str, Any]) -> None:
    scene = Scene().runs("b.service", WORKER, 300).runs("c.service", WORKER, 400, description="Worker (old)")
    (group,) = groups(scene.stray(350, line, **{"cgroup": "/system.slice/b.service", **given}))

    assert (keep(group), extra(group)) == ("b.service", ["c.service"])


def test_the_beat_in_a_worker_is_its_own_and_another_one_is_not() -> None:
    scene = Scene().runs("celery.service", WORKER, 200).runs("celery-beat.service", BEAT, 300).runs("c.service", BOTH, 400)
    assert [extra(group) for group in groups(scene)] == [["c.service"], ["c.service"]]

    scene.stray(500, f"python3 {BEAT} -s /x", ppid=1, cgroup="/system.slice/c.service")
    assert [extra(group) for group in groups(scene)] == [["c.service"], ["c.service"]]

    scene.stray(501, "python3 /usr/bin/celery -A other beat", ppid=1, cgroup="/system.slice/c.service")
    assert groups(scene) == ()


def test_a_launcher_with_its_master_is_an_extra_as_before() -> None:
    launched: dict[str, Any] = {"exe": "/usr/bin/uv", "uid": 33, "cgroup": "/system.slice/b.service"}
    scene = Scene().runs("celery.service", WORKER, 200).has(
        "b.service", f"/usr/bin/uv run {WORKER}", main_pid=300, control_group="/system.slice/b.service",
        active_state="active", sub_state="running",
    )  # fmt: skip
    scene.stray(300, f"uv run {WORKER}", **launched)
    scene.stray(301, f"python3 {WORKER}", ppid=300, cgroup="/system.slice/b.service")
    (group,) = groups(scene)

    assert {keep(group), *extra(group)} == {"celery.service", "b.service"}

    scene.stray(400, f"python3 {BEAT}", ppid=1, cgroup="/system.slice/b.service")
    assert groups(scene) == ()


MULTI = "/usr/bin/celery -A app multi start w1"


def background(line: str, *running: str, main_pid: int = 0) -> Scene:
    """celery.service, and b.service whose start leaves these in the background, from pid 300 on."""
    group = "/system.slice/b.service"
    scene = Scene().runs("celery.service", WORKER, 200)
    scene.has("b.service", line, control_group=group, active_state="active", sub_state="running", main_pid=main_pid)
    for at, one in enumerate(running):
        scene.stray(300 + 10 * at, f"python3 {one}", cgroup=group)
        scene.stray(301 + 10 * at, f"python3 {one}", cgroup=group, ppid=300 + 10 * at)
    return scene


@pytest.mark.parametrize("main_pid", [0, 300])
def test_one_worker_in_the_background_is_a_twin(main_pid: int) -> None:
    (group,) = groups(background(MULTI, f"{WORKER} -n w1@host", main_pid=main_pid))

    assert {keep(group), *extra(group)} == {"celery.service", "b.service"}


@pytest.mark.parametrize("main_pid", [0, 300])
@pytest.mark.parametrize(
    ("line", "running"),
    [
        (f"{MULTI} w2 -Q:w1 celery -Q:w2 mail", (f"{WORKER} -n w1@host", f"{WORKER} -n w2@host -Q mail")),
        (f"{MULTI} w2", (f"{WORKER} -n w1@host", f"{WORKER} -n w2@host")),
        (f"{MULTI} w2", (f"{WORKER} -n w1@host",)),
        (MULTI, (f"{WORKER} -n w1@host", f"{WORKER} -n w2@host")),
        (MULTI, (f"{WORKER} -n w1@host -Q mail", f"{BEAT} --detach")),
        ("/usr/bin/celery -A app multi start $NODES", (f"{WORKER} -n w1@host",)),
    ],
)
def test_more_than_one_in_the_background_is_none(line: str, running: tuple[str, ...], main_pid: int) -> None:
    assert groups(background(line, *running, main_pid=main_pid)) == ()


def test_what_runs_in_the_background_counts_and_not_only_what_was_configured() -> None:
    assert groups(background(MULTI, f"{WORKER} -n w1@host -Q mail")) == ()
    assert groups(background(MULTI, "/srv/app/mailer.py")) == ()


def test_several_nodes_that_are_only_enabled_are_no_extra() -> None:
    assert groups(Scene().runs("celery.service", WORKER, 200).has("b.service", f"{MULTI} w2")) == ()


def aged(scene: Scene, pid: int, age_s: float) -> Processes:
    """The processes with this one started so long before the newest."""
    newest = max(one.started_at for one in scene.processes.all)
    old = newest - timedelta(hours=1)
    started = {pid: newest - timedelta(seconds=age_s), 1000: newest}
    shell = process(1000, "sh", exe="/usr/bin/dash", started_at=newest)
    return Processes(tuple(replace(p, started_at=started.get(p.pid, old)) for p in (*scene.processes.all, shell)), BOOT)


@pytest.mark.parametrize(
    ("restarts", "age_s", "kept"),
    [
        (40, 2, "celery-worker-2.service"),
        (3, 59, "celery-worker-2.service"),
        (2, 2, "celery.service"),
        (40, 61, "celery.service"),
        (0, 0, "celery.service"),
    ],
)
def test_one_that_was_started_again_a_moment_ago_is_not_the_one_to_keep(restarts: int, age_s: float, kept: str) -> None:
    scene = Scene().runs("celery.service", WORKER, 200, restarts=restarts).runs("celery-worker-2.service", WORKER, 300)
    (group,) = find(aged(scene, 200, age_s), scene.units, POLICY)[0]

    assert keep(group) == kept
    assert group.refused is None


def test_one_that_does_not_stay_up_and_must_be_kept_is_refused() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, restarts=9).runs("b.service", WORKER, 300)
    (group,) = find(aged(scene, 200, 1), scene.units, Policy(keep=("celery",)))[0]

    assert group.refused is not None
    assert "does not stay up" in group.refused.msgid


def test_the_last_that_does_the_work_stays_where_the_one_to_keep_crashes() -> None:
    """The workers are instances of one template, so none of them is an extra there; w@2 is one among the beats."""
    scene = Scene().has("w@1.service", WORKER, active_state="activating", sub_state="auto-restart")
    scene.runs("w@2.service", BOTH, 300).runs("celery-beat.service", BEAT, 400)
    policy = Policy(keep=("w@1.service", "celery-beat.service"))
    (group,) = groups(scene, policy)

    assert extra(group) == ["w@2.service"]
    assert group.refused is not None
    assert "would be left" in group.refused.msgid

    (group,) = groups(scene.runs("w@3.service", WORKER, 500), policy)
    assert extra(group) == ["w@2.service"]
    assert group.refused is None
