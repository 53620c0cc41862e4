"""What command lines are recognised as, and what only looks like a service."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import services
from remote.facts.processes import Process, Processes
from remote.secret import CommandLine
from remote.services import claims, kinds, roles, roles_by_pid, roles_of_unit
from remote.services.base import Role, agree
from tests.remote.findings.scene import BOOT, BOTH, PYTHON, WORKER, Scene, process, unit

RECORDED = Path(__file__).parents[2] / "recorded" / "debian12" / "proc"

# A command line (words in a tuple, or split at spaces), and what it is: service and the fields that matter.
LINES: tuple[tuple[str | tuple[str, ...], list[dict[str, Any]]], ...] = (
    ("python3 /usr/bin/celery -A proj worker", [{"service": "celery-worker", "app": "proj", "workers": 0}]),
    ("/venv/bin/python -m celery -A proj worker -c 2", [{"service": "celery-worker", "app": "proj", "workers": 2}]),
    ("python3 -u -X dev -W error -m celery --app=proj worker -c2", [{"app": "proj", "workers": 2}]),
    ("python3 -um celery --app proj worker --concurrency=3", [{"app": "proj", "workers": 3}]),
    ("python3 -mcelery -Aproj worker", [{"app": "proj"}]),
    ("python3 /usr/bin/celery worker -A proj", [{"service": "celery-worker", "app": "proj"}]),
    ("python3 /usr/bin/celery --broker redis://x worker -A proj.celery:app", [{"app": "proj"}]),
    ("python3 /usr/bin/celery -A proj.celery worker -Q b,a -Q c", [{"app": "proj", "queues": ("a", "b", "c")}]),
    ("python3 /usr/bin/celery -A proj worker --queues=b,a", [{"queues": ("a", "b")}]),
    ("python3 /usr/bin/celery -A proj worker -n w1@%h --max-tasks-per-child=100", [{"node": "w1@%h", "max_requests": 100}]),
    ("python3 /usr/bin/celery -A proj worker --autoscale=10,3", [{"workers": 10}]),
    ("python3 /usr/bin/celery -A proj worker -P gevent -c 500", [{"workers": 1}]),
    ("python3 /usr/bin/celery -A proj worker --pool solo", [{"workers": 1}]),
    (
        "python3 /usr/bin/celery -A proj worker -B",
        [{"service": "celery-worker", "both": True}, {"service": "celery-beat", "both": True, "app": "proj"}],
    ),
    ("python3 /usr/bin/celery -A proj worker -EB -c 1", [{"both": True, "workers": 1}, {"service": "celery-beat"}]),
    ("python3 /usr/bin/celery -A proj worker --beat", [{"both": True}, {"service": "celery-beat"}]),
    ("python3 /usr/bin/celery -A proj worker -s beat -f B.log", [{"both": False}]),
    ("python3 /usr/bin/celery -A proj beat -l info", [{"service": "celery-beat", "app": "proj", "both": False}]),
    ("python3 /srv/manage.py celery worker --settings=proj.prod", [{"service": "celery-worker", "app": ""}]),
    ("python3 /usr/bin/celerybeat -A proj", [{"service": "celery-beat", "app": "proj"}]),
    ("python3 /usr/bin/celeryd -A proj -B", [{"both": True}, {"service": "celery-beat"}]),
    ("python3 /usr/bin/celery -A proj multi start w1 w2 -c 2 -Q:w1 a", [{"service": "celery-worker", "workers": 2, "nodes": 2}]),
    ("python3 /usr/bin/celery multi start w1 -A proj --pidfile=/x", [{"app": "proj", "nodes": 1}]),
    ("python3 /usr/bin/celery multi restart 3 -A proj -c 3 -c:1 10", [{"nodes": 3}]),
    ("python3 /usr/bin/celery multi start $NODES -A proj -B", [{"nodes": 0}, {"service": "celery-beat", "nodes": 0}]),
    ("python3 /usr/bin/celery multi stopwait w1 -A proj", []),
    ("python3 /usr/bin/celery -A proj inspect ping", []),
    ("python3 /usr/bin/celery -A proj call worker", []),
    ("python3 /usr/bin/celery -A proj flower", []),
    ("python3 /usr/bin/celery", []),
    # setproctitle's forms, as celery 5.7 and gunicorn 27 set them
    (
        ("[celeryd: celery@web:MainProcess] -active- (-A proj worker -c 2 -B -Q b,a)",),
        [
            {"service": "celery-worker", "app": "proj", "workers": 2, "queues": ("a", "b"), "node": "celery@web", "both": True},
            {"service": "celery-beat", "both": True},
        ],
    ),
    (("[celeryd: celery@web:ForkPoolWorker-2]",), [{"service": "celery-worker", "master": False}]),
    (("[celery beat] -A proj beat -s /x/sched",), [{"service": "celery-beat", "app": "proj", "master": True}]),
    (("[celery beat]",), [{"service": "celery-beat", "master": False}]),
    (("[celeryd: w@h:MainProcess] -active- (-A proj worker -n 'it is)",), [{"service": "celery-worker", "app": "proj"}]),
    (("gunicorn: master [proj.wsgi]",), [{"service": "gunicorn", "app": "proj.wsgi:application", "master": True}]),
    (("gunicorn: worker [proj.wsgi]",), [{"service": "gunicorn", "app": "proj.wsgi:application", "master": False}]),
    (
        "/venv/bin/python3 /venv/bin/gunicorn -w 3 --threads 4 -k gthread --max-requests=500 -b unix:/run/x -b :80 proj.wsgi:app",
        [{"service": "gunicorn", "app": "proj.wsgi:app", "workers": 3, "threads": 4, "max_requests": 500}],
    ),
    ("python3 -m gunicorn proj.wsgi --workers=2 --preload", [{"app": "proj.wsgi:application", "workers": 2}]),
    ("python3 -m gunicorn.app.wsgiapp proj.wsgi", [{"app": "proj.wsgi:application"}]),
    ("python3 /usr/bin/gunicorn -c /etc/g.py", [{"service": "gunicorn", "app": "/etc/g.py", "settings": ""}]),
    ("python3 /usr/bin/gunicorn --check-config proj.wsgi", []),
    (
        "python3 /venv/bin/uvicorn web:app --workers 2 --host 0.0.0.0 --port 80 --reload",
        [{"service": "uvicorn", "app": "web:app", "workers": 2, "master": True}],
    ),
    ("python3 -m uvicorn web:app", [{"service": "uvicorn", "app": "web:app", "workers": 0}]),
    ("python3 /venv/bin/uvicorn --version", []),
    (("python3", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()", "--multiprocessing-fork"), []),
    (
        "/usr/bin/python3 /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf",
        [{"service": "supervisord", "app": "/etc/supervisor/supervisord.conf", "master": True}],
    ),
    ("/usr/bin/python3 /usr/bin/supervisorctl status", []),
    ("/usr/bin/python3 /usr/bin/supervisord --version", []),
    ("python3 /venv/bin/rq worker --url redis://h/1 low high", [{"service": "rq", "queues": ("high", "low")}]),
    ("python3 /venv/bin/rqworker high", [{"service": "rq", "queues": ("high",)}]),
    ("python3 /srv/manage.py rqworker default --name w1", [{"service": "rq", "queues": ("default",), "node": "w1"}]),
    ("python3 /venv/bin/rq info", []),
    ("python3 /venv/bin/rq worker --help", []),
    (("rq:worker:w1: Started job at 1234",), [{"service": "rq", "node": "w1"}]),
    (
        "python3 /venv/bin/dramatiq -p 2 -t 4 jobs -Q high,low",
        [{"service": "dramatiq", "app": "jobs", "workers": 2, "threads": 4, "queues": ("high", "low")}],
    ),
    ("python3 /venv/bin/dramatiq --version", []),
    # words in other programs' arguments
    (("bash", "-c", "celery -A proj worker"), []),
    (("sh", "-c", "exec gunicorn proj.wsgi"), []),
    ("vim /etc/systemd/system/celery.service", []),
    ("grep -r celery worker", []),
    ("tail -f /var/log/celery/worker.log", []),
    ("sudo -u www-data celery -A proj worker", []),
    ("journalctl -u gunicorn -f", []),
    (("python3", "-c", "import celery; celery worker"), []),
    ("python3 -", []),
    ("python3", []),
    ("celery -A proj worker", []),
    ("/usr/bin/celery -A proj worker", []),
    ((), []),
    (("",), []),
)


@pytest.mark.parametrize(("line", "expected"), LINES, ids=lambda value: str(value)[:70] if not isinstance(value, list) else "")
def test_a_command_line_says_what_a_python_program_does(line: str | tuple[str, ...], expected: list[dict[str, Any]]) -> None:
    found = roles(process(10, line))

    assert len(found) == len(expected)
    for role, fields in zip(found, expected, strict=True):
        assert {name: getattr(role, name) for name in fields} == fields


OTHERS: tuple[tuple[str | tuple[str, ...], str, dict[str, Any] | None], ...] = (
    (
        "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c x=y",
        "/usr/lib/postgresql/15/bin/postgres",
        {"app": "/var/lib/postgresql/15/main"},
    ),
    (("postgres: 15/main: checkpointer ",), "/usr/lib/postgresql/15/bin/postgres", {"app": "15/main", "master": False}),
    (("postgres: app db 127.0.0.1(3333) idle",), "/usr/lib/postgresql/15/bin/postgres", {"master": False}),
    (("/usr/bin/redis-server 127.0.0.1:6379",), "/usr/bin/redis-check-rdb", {"app": "127.0.0.1:6379", "master": True}),
    (("redis-rdb-bgsave 127.0.0.1:6379",), "/usr/bin/redis-check-rdb", {"master": False}),
    ("/usr/bin/redis-server /etc/redis/redis.conf --daemonize no", "/usr/bin/redis-server", {"app": "/etc/redis/redis.conf"}),
    (
        ("nginx: master process /usr/sbin/nginx -g daemon on; -c /etc/n.conf",),
        "/usr/sbin/nginx",
        {"app": "/etc/n.conf", "master": True},
    ),
    (("nginx: worker process",), "/usr/sbin/nginx", {"master": False}),
    (("nginx: cache manager process",), "/usr/sbin/nginx", {"master": False}),
    ("/usr/sbin/nginx -t", "/usr/sbin/nginx", None),
    ("/usr/sbin/nginx -s reload", "/usr/sbin/nginx", None),
    ("redis-cli -a secret", "/usr/bin/redis-cli", None),
    ("psql postgres", "/usr/bin/psql", None),
    (
        "/usr/bin/uwsgi --master --processes 4 --threads 2 --socket :9000 -w site:app --max-requests 500",
        "/usr/bin/uwsgi-core",
        {"service": "uwsgi", "app": "site:app", "workers": 4, "threads": 2, "max_requests": 500},
    ),
    ("/usr/bin/uwsgi --ini /etc/uwsgi/apps-enabled/site.ini", "/usr/bin/uwsgi-core", {"app": "/etc/uwsgi/apps-enabled/site.ini"}),
    ("/venv/bin/uwsgi /etc/site.ini", "/venv/bin/uwsgi", {"app": "/etc/site.ini"}),
    ("/usr/bin/uwsgi --version", "/usr/bin/uwsgi-core", None),
    ("/usr/bin/uwsgi -w site", "/usr/bin/sleep", None),
    (
        ("php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)                      ",),
        "/usr/sbin/php-fpm8.2",
        {"service": "php-fpm", "app": "/etc/php/8.2/fpm/php-fpm.conf", "master": True},
    ),
    (("php-fpm: pool www",), "/usr/sbin/php-fpm8.2", {"app": "www", "master": False}),
    (
        "/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /etc/php/8.2/fpm/php-fpm.conf",
        "/usr/sbin/php-fpm8.2",
        {"app": "/etc/php/8.2/fpm/php-fpm.conf", "master": True},
    ),
    ("/usr/sbin/php-fpm -t", "/usr/sbin/php-fpm", None),
    (("php-fpm: pool www",), "/usr/bin/php8.2", None),
    (("puma 5.6.5 (tcp://0.0.0.0:3000) [shop]",), "/usr/bin/ruby3.1", {"service": "puma", "app": "shop", "master": True}),
    (("puma: cluster worker 0: 11677 [shop]",), "/usr/bin/ruby3.1", {"app": "shop", "master": False}),
    ("/usr/bin/ruby /usr/bin/puma -w 2 -C config/puma.rb", "/usr/bin/ruby3.1", {"app": "config/puma.rb", "workers": 2}),
    ("/usr/bin/ruby /usr/bin/bundle exec puma", "/usr/bin/ruby3.1", {"app": "", "master": True}),
    ("/usr/bin/ruby /usr/bin/puma --version", "/usr/bin/ruby3.1", None),
    ("/usr/bin/ruby /usr/bin/rake puma", "/usr/bin/ruby3.1", None),
    (("puma 5.6.5 (tcp://0.0.0.0:3000) [shop]",), "/usr/bin/sleep", None),
    ("/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock", "/usr/bin/dockerd", {"service": "docker"}),
    ("/usr/bin/dockerd --version", "/usr/bin/dockerd", None),
    ("/usr/bin/dockerd -H fd://", "/usr/bin/sleep", None),
    # exec -a
    ("/usr/sbin/nginx -g x", "/usr/bin/sleep", None),
    (("/usr/bin/redis-server 127.0.0.1:6379",), "/usr/bin/python3.11", None),
    ("postgres -D /x", "/usr/bin/sleep", None),
    ("python3 /usr/bin/celery -A proj worker", "/usr/bin/sleep", None),
    (("[celeryd: celery@web:MainProcess] -active- (-A proj worker)",), "/usr/bin/sleep", None),
)


@pytest.mark.parametrize(("line", "exe", "fields"), OTHERS, ids=lambda value: str(value)[:50])
def test_the_executable_must_be_able_to_be_what_the_line_claims(
    line: str | tuple[str, ...], exe: str, fields: dict[str, Any] | None
) -> None:
    found = roles(process(10, line, exe=exe))

    if fields is None:
        assert found == ()
    else:
        assert [{name: getattr(role, name) for name in fields} for role in found] == [fields]


def test_an_executable_that_may_not_be_read_is_believed() -> None:
    assert roles(process(10, "python3 /usr/bin/celery -A proj worker", exe=None))
    assert roles(process(10, ("nginx: worker process",), exe=None))


def test_a_claim_is_seen_without_being_believed() -> None:
    liar = process(10, "celery -A proj worker", exe="/usr/bin/sleep")

    assert roles(liar) == ()
    assert [role.service for role in claims(liar)] == ["celery-worker"]


def test_every_module_of_the_package_is_a_kind() -> None:
    modules = {info.name for info in pkgutil.iter_modules(services.__path__)} - {"argv", "base", "_celery", "_lines"}

    assert {name.replace("-", "_") for name in kinds()} == modules
    assert [kind.order for kind in kinds().values()] == sorted(kind.order for kind in kinds().values())


def test_no_two_kinds_have_a_name_in_common() -> None:
    names = [name for kind in kinds().values() for name in (kind.name, *kind.comms)]

    assert len(names) == len(set(names))
    forking = {name for name, kind in kinds().items() if kind.prefork}
    assert forking == {"gunicorn", "uwsgi", "php-fpm", "puma", "nginx", "celery-worker"}


def _recorded() -> Processes:
    found: list[Process] = []
    for path in RECORDED.glob("*.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        stat = data["files"]["stat"].rpartition(")")[2].split()
        raw = data["files"]["cmdline"].rstrip("\0")
        found.append(
            replace(
                process(int(path.stem), tuple(raw.split("\0")) if raw else ()),
                ppid=int(stat[1]),
                name=data["files"]["comm"].strip(),
                cgroup=data["files"]["cgroup"].strip().removeprefix("0::"),
                exe=data["links"].get("exe"),
                cwd=data["links"].get("cwd"),
            )
        )
    return Processes(tuple(found), BOOT)


def test_the_recorded_server_has_its_masters_and_children() -> None:
    processes = _recorded()
    found = roles_by_pid(processes)
    masters = [role for said in found.values() for role in said if role.master]

    assert sorted((role.service, role.app, role.both) for role in masters) == [
        ("celery-beat", "teaching_panel", False),
        ("celery-beat", "teaching_panel", False),
        ("celery-beat", "teaching_panel", True),
        *[("celery-worker", "teaching_panel", False)] * 3,
        ("celery-worker", "teaching_panel", True),
        ("gunicorn", "teaching_panel.wsgi:application", False),
        ("redis", "127.0.0.1:6379", False),
    ]
    assert len({pid for pid, said in found.items() if any(r.service == "gunicorn" for r in said)}) == 4


def test_children_of_a_master_are_no_masters() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, children=3)
    found = roles_by_pid(scene.processes)

    assert [found[pid][0].master for pid in (200, 201, 202, 203)] == [True, False, False, False]


UNITS: tuple[tuple[str, list[tuple[str, str]]], ...] = (
    ("/usr/bin/celery -A app worker", [("celery-worker", "app")]),
    ("/usr/bin/env A=1 /usr/bin/celery -A app beat", [("celery-beat", "app")]),
    ("/usr/bin/nice -n 5 /usr/bin/celery -A app worker", [("celery-worker", "app")]),
    ("/usr/local/bin/uv run --frozen gunicorn app.wsgi", [("gunicorn", "app.wsgi:application")]),
    ("/usr/local/bin/uv run gunicorn app.wsgi", [("gunicorn", "app.wsgi:application")]),
    ("/usr/bin/pipenv run celery -A app worker", [("celery-worker", "app")]),
    ("/usr/bin/timeout 10s python3 -m celery -A app worker", [("celery-worker", "app")]),
    ("A=1 B=2", []),
    ("/usr/bin/sleep infinity", []),
    ("", []),
)


@pytest.mark.parametrize(("line", "expected"), UNITS)
def test_a_unit_that_does_not_run_is_read_from_its_command(line: str, expected: list[tuple[str, str]]) -> None:
    found = roles_of_unit(unit("x.service", line), Scene().processes)

    assert [(role.service, role.app) for role in found] == expected
    assert all(role.cwd == "/srv/app" for role in found)


@pytest.mark.parametrize(
    "shell",
    [
        "exec /usr/bin/celery -A app worker",
        "cd /srv/app && /usr/bin/celery -A app worker",
        "sleep 1; A=1 exec /usr/bin/celery -A app worker",
    ],
)
def test_a_shell_line_of_a_unit_is_read_to_its_last_command(shell: str) -> None:
    wrapped = replace(unit("x.service", ""), exec_start=CommandLine(("/bin/sh", "-c", shell)))

    assert [role.service for role in roles_of_unit(wrapped, Scene().processes)] == ["celery-worker"]


def test_a_broken_shell_line_says_nothing() -> None:
    wrapped = replace(unit("x.service", ""), exec_start=CommandLine(("/bin/sh", "-c", "celery 'worker")))

    assert roles_of_unit(wrapped, Scene().processes) == ()


def test_a_stopped_unit_has_its_users_number_where_he_runs_anything() -> None:
    processes = Scene().stray(5, "sleep 1", uid=33, user="www-data").processes
    known = roles_of_unit(unit("a.service", WORKER), processes)[0]
    unknown = roles_of_unit(unit("a.service", WORKER, user="nobody"), processes)[0]
    other = roles_of_unit(unit("a.service", WORKER, user="games"), processes)[0]

    assert known.uid == 33
    assert roles_of_unit(unit("a.service", WORKER, user=""), processes)[0].uid == 0
    assert roles_of_unit(unit("a.service", WORKER, user="1000"), processes)[0].uid == 1000
    assert unknown.uid < -1
    assert other.uid not in {unknown.uid, -1}


def test_a_title_is_completed_from_the_unit() -> None:
    scene = Scene().has("site.service", "/usr/bin/gunicorn -w 3 --threads 4 app.wsgi")
    running = replace(scene.units.all[0], main_pid=7, active_state="active", control_group="/system.slice/site.service")
    titled = process(7, ("gunicorn: master [app.wsgi]",), cgroup="/system.slice/site.service")
    role = roles_of_unit(running, Processes((titled,), BOOT))[0]

    assert (role.workers, role.threads, role.uid) == (3, 4, 33)
    assert "bind=" in role.settings


def test_a_directory_that_may_not_be_read_is_the_units() -> None:
    scene = Scene().runs("celery.service", WORKER, 200, cwd=None)

    assert roles_of_unit(scene.units.all[0], scene.processes)[0].cwd == "/srv/app"


def test_a_supervisor_is_not_what_it_runs() -> None:
    scene = Scene().runs("supervisor.service", "/usr/bin/supervisord -n", 10, children=0)
    inside = process(11, f"python3 {WORKER}", ppid=10, cgroup="/system.slice/supervisor.service")
    processes = Processes((*scene.processes.all, inside), BOOT)

    assert [role.service for role in roles_of_unit(scene.units.all[0], processes)] == ["supervisord"]


def test_a_start_script_that_stays_is_what_it_runs_unless_it_runs_more() -> None:
    group = "/system.slice/w.service"
    scripted = unit("w.service", "/srv/app/start.sh", 10)
    shell = process(10, "/bin/bash /srv/app/start.sh", cgroup=group, exe="/usr/bin/bash")
    worker = process(11, f"python3 {WORKER}", ppid=10, cgroup=group)
    child = process(12, f"python3 {WORKER}", ppid=11, cgroup=group)
    other = process(13, "tail -f /x", ppid=10, cgroup=group, exe="/usr/bin/tail")

    assert [r.app for r in roles_of_unit(scripted, Processes((shell, worker, child), BOOT))] == ["app"]
    assert roles_of_unit(scripted, Processes((shell, worker, child, other), BOOT)) == ()

    looped = (process(15, "tail", ppid=16, cgroup=group, exe=None), process(16, "tail", ppid=15, cgroup=group, exe=None))
    assert roles_of_unit(scripted, Processes((shell, worker, *looped), BOOT)) == ()

    helper = process(14, "/usr/bin/ffmpeg -i x", ppid=12, cgroup=group, exe="/usr/bin/ffmpeg")
    assert [r.app for r in roles_of_unit(scripted, Processes((shell, worker, child, helper), BOOT))] == ["app"]


def test_settings_tell_two_apart_only_where_both_say_them() -> None:
    processes = Scene().processes

    def role(environment: str = "", line: str = WORKER) -> Role:
        return roles_of_unit(unit("a.service", line, environment=environment), processes)[0]

    plain, one, other = (
        role(),
        role("DJANGO_SETTINGS_MODULE=a CELERY_BROKER_URL=redis://:pw@h/0"),
        role("DJANGO_SETTINGS_MODULE=b"),
    )

    assert one.same_as(plain)
    assert not one.same_as(other)
    assert role(line=f"{WORKER} -b redis://h/1").same_as(role(line=f"{WORKER} -b redis://h/1 -n other -l debug"))
    assert not role(line=f"{WORKER} -b redis://h/1").same_as(role(line=f"{WORKER} -b redis://h/2"))
    assert not role(line=f"{WORKER} -b redis://h/1").same_as(role("CELERY_BROKER_URL=redis://h/2"))
    assert "pw" not in repr(one)
    assert agree("", "a=1")


def test_a_second_site_elsewhere_is_another_service() -> None:
    processes = Scene().processes

    def role(line: str) -> Role:
        return roles_of_unit(unit("a.service", line), processes)[0]

    assert not role("/usr/bin/gunicorn app.wsgi").same_as(role("/usr/bin/gunicorn -b :9000 app.wsgi"))
    assert role("/usr/bin/gunicorn app.wsgi").same_as(role("/usr/bin/gunicorn -b 127.0.0.1:8000 app.wsgi:application"))


@given(st.lists(st.text(max_size=60), max_size=8), st.sampled_from([PYTHON, None, "/usr/sbin/nginx", "/usr/bin/redis-server"]))
def test_any_command_line_gets_an_answer(words: list[str], exe: str | None) -> None:
    one = process(10, tuple(words), exe=exe)

    assert all(role.service in kinds() for role in (*roles(one), *claims(one)))
    roles_of_unit(replace(unit("a.service", ""), exec_start=one.command), Processes((one,), BOOT))


@given(
    st.lists(
        st.sampled_from(["-B", "-c", "2", "worker", "beat", "-A", "app", "celery", "-Q", "a,b", "multi", "--", "-m", "-"]),
        max_size=9,
    )
)
def test_any_order_of_celerys_words_gets_an_answer(words: list[str]) -> None:
    assert all(role.service.startswith("celery") for role in roles(process(10, ("python3", "/usr/bin/celery", *words))))


def test_a_process_started_long_ago_is_read_as_well() -> None:
    old = replace(process(10, f"python3 {BOTH}"), started_at=datetime(1970, 1, 1, tzinfo=UTC))

    assert {role.service for role in roles(old)} == {"celery-worker", "celery-beat"}
