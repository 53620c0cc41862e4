from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remote.redact import LONGEST, clean, redact

TOKEN = "123456789:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"
UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("Connected to redis://:s3cr3t@127.0.0.1:6379/0", "s3cr3t"),
        ("amqp://joe:p@ss/w0rd@mq/vhost refused", "w0rd"),
        ("https://abcdef0123456789abcdef@sentry.io/1", "abcdef0123456789"),
        ("run --password=hunter2 --db x", "hunter2"),
        ("run --db-password hunter2 --db x", "hunter2"),
        *((f"run --password=fo{sign}hunter2 --db x", "hunter2") for sign in ",;&\"')>|}"),
        ("env DB_PASS=fo&hunter2 x", "hunter2"),
        ("DB_PASSWORD='hunter2 with spaces' next", "with spaces"),
        ("env DJANGO_SECRET_KEY=abc!def", "abc!def"),
        ('{"api_key": "k3y\\"more", "n": 1}', "more"),
        ("{'password': 'hunter2'}", "hunter2"),
        ("Authorization: Bearer abc.def.ghi", "abc"),
        ("auth Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
        (f"POST https://api.telegram.org/bot{TOKEN}/sendMessage", "AAHdqTcv"),
        (f"token {UUID} rejected", UUID),
        (f"secret is {UUID}", UUID),
        ("key xoxb-1234567890-abcdefghijkl used", "abcdefghijkl"),
        ("push with ghp_0123456789abcdef0123456789abcdef0123", "ghp_0123"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIi"),
        ("mysql -uroot -phunter2 db", "hunter2"),
        ("redis-cli -h x -a hunter2 ping", "hunter2"),
        ("redis-cli -h x -ahunter2 ping", "hunter2"),
        ("curl -ujoe:hunter2 http://x", "hunter2"),
        ("sshpass -p hunter2 ssh x", "hunter2"),
        ("curl -u joe:hunter2 http://x", "hunter2"),
        ("ALTER USER joe IDENTIFIED BY 'hunter2'", "hunter2"),
        ("ALTER USER bob PASSWORD 'hunter2'", "hunter2"),
        ("CREATE ROLE bob LOGIN PASSWORD 'two words hunter2' VALID UNTIL x", "hunter2"),
        ("al : PWD=/ ; USER=root ; ENV=REDISCLI_AUTH=hunter2 ; COMMAND=/usr/bin/kill -9 5", "hunter2"),
        ("al : PWD=/ ; USER=root ; ENV=NOTE=x hunter2 y ; COMMAND=/usr/bin/ls ; COMMAND=/usr/bin/kill -9 5", "hunter2"),
        ("al : PWD=/ ; USER=root ; ENV=PATH=/bin NOTE=hunter2", "hunter2"),
        ("COMMAND=/usr/bin/env REDISCLI_AUTH=hunter2 kill -9 5", "hunter2"),
        ("env BIND_PW=hunter2 x", "hunter2"),
        ("AUTH=hunter2", "hunter2"),
        ("x AUTH_HEADER=a,hunter2 y", "hunter2"),
        ("{'auth': 'hunter2'}", "hunter2"),
        ("etcdctl --auth hunter2 get", "hunter2"),
        ("plink -pw hunter2 host", "hunter2"),
        ("GET /reset?key=hunter2abc&sig=hunter2 HTTP/1.1", "hunter2"),
        ("GET /login?next=/&code=hunter2", "hunter2"),
        ("mysql -u root -p hunter2 -e 'kill 5'", "hunter2"),
        ("mysql -u root -p'hunter2 more' db", "more"),
        ("sshpass -phunter2 ssh x", "hunter2"),
        ("sshpass -v -p hunter2 ssh x", "hunter2"),
        ("-----BEGIN RSA PRIVATE KEY----- MIIEow", "MIIEow"),
        ("password=***hunter2", "hunter2"),
        ("pass\x1b[0mword=hunter2", "hunter2"),
        ("pass\u200bword=hunter2", "hunter2"),
    ],
)
def test_a_secret_is_hidden(line: str, secret: str) -> None:
    shown = redact(line)
    assert secret not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-23 23:48:33 +0000] [364] [CRITICAL] WORKER TIMEOUT (pid:414)",
        "[2026-11-23 23:48:33 +0000] [364] [ERROR] Worker (pid:12665) was sent SIGKILL! Perhaps out of memory?",
        "[2026-11-23 20:29:14,193: ERROR/MainProcess] Process 'ForkPoolWorker-1' pid:451 exited with 'signal 9 (SIGKILL)'",
        "Memory cgroup out of memory: Killed process 945 (python3) total-vm:116168kB, anon-rss:30320kB, UID:0 oom_score_adj:0",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task_memcg=/user.slice/session-3.scope,task=python3,pid=945,uid=0",
        "celery.service: Main process exited, code=killed, status=9/KILL",
        "pam_unix(sudo:session): session closed for user root",
        "http://127.0.0.1:8000/health answered 200",
        "auth.service: Main process exited, code=killed, status=9/KILL",
        "dovecot: auth: Fatal: service(auth): child 4711 killed with signal 9",
        "pam_unix(sudo:auth): conversation failed",
        'op=add_rule key="sigkill" list=4 res=1 author=bob exit_code=9',
        "Worker exited with code=137 key=celery, authority=local",
        "mysql -u root -p -e 'kill 5'",
        "mysql -P 3306 -h db",
        f"Task teaching_panel.tasks.touch[{UUID}] succeeded in 0.002s: None",
    ],
)
def test_what_is_needed_stays(line: str) -> None:
    assert redact(line) == line


def test_what_sudo_was_asked_to_do_stays() -> None:
    shown = redact("al : TTY=pts/0 ; USER=root ; ENV=REDISCLI_AUTH=hunter2 ; COMMAND=/usr/bin/kill -9 700")
    assert shown == "al : TTY=pts/0 ; USER=root ; ENV=*** ; COMMAND=/usr/bin/kill -9 700"


def test_a_line_is_one_printable_line() -> None:
    assert clean("\x1b[31mred\x1b[0m\x1b]0;title\x07\ta\nb\x00c\u202ed\udcff") == "red a bcd\ufffd"


def test_an_over_long_line_is_cut_at_a_word() -> None:
    shown = redact("word " * 1000 + TOKEN)
    assert len(shown) <= LONGEST
    assert shown.endswith("word …")


@given(
    st.text()
    | st.from_regex(
        r"((pass|token|secret|auth|pw| ; ENV=| ; COMMAND=|://|:|=|@|\"|'|bearer |\*\*\*|--| |abc12345678){1,4}){1,5}",
        fullmatch=True,
    )
)
@example('token=***x password="a\\')
def test_redacting_twice_changes_nothing(line: str) -> None:
    shown = redact(line)
    assert redact(shown) == shown
    shown.encode()


@given(st.sampled_from(["password=", "SECRET_KEY: ", "--token ", "redis://u:"]), st.from_regex(r"[a-z0-9]{6,20}", fullmatch=True))
def test_no_value_of_a_secret_name_is_shown(name: str, value: str) -> None:
    end = "@host" if name.startswith("redis") else ""
    assert value not in redact(f"x {name}{value}{end} y")
