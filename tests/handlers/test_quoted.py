"""Log lines that people paste: which process they speak of, and that nothing else is taken for one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.quoted import LOOKED_AT, quoted

GUNICORN = "Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?"


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        (GUNICORN, 689792),
        (f"[2026-11-23 14:02:10 +0000] [100] [ERROR] {GUNICORN}", 689792),
        ("Worker with pid 13932 was terminated due to signal 9", 13932),
        ("[CRITICAL] WORKER TIMEOUT (pid:29223)", 29223),
        ("Worker (pid:12) exited with code 1", 12),
        ("Memory cgroup out of memory: Killed process 689792 (gunicorn: worke) total-vm:1kB, anon-rss:1kB", 689792),
        ("Out of memory: Kill process 4015 (python) score 1923 or sacrifice child", 4015),
        ("Killed process 28712, UID 503, (celery) total-vm:2048760kB", 28712),
        ("Killed process 45465 (a) b, pid=1), UID 0, total-vm:7582132kB", 45465),
        (
            (
                "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=X,mems_allowed=0,oom_memcg=/A,task_memcg=/A/B,"
                "task=php-fpm,pid=3902942,uid=1000"
            ),
            3902942,
        ),
        ("oom_reaper: reaped process 77 (java), now anon-rss:0kB", 77),
        ("[ERROR/MainProcess] Process 'ForkPoolWorker-1' pid:451 exited with 'signal 9 (SIGKILL)'", 451),
        ("Process \u2018ForkPoolWorker-1\u2019 pid:451 exited with \u2018signal 9 (SIGKILL)\u2019", 451),
        ("LOG:  server process (PID 290) was terminated by signal 9: Killed", 290),
        ("client backend (PID 291) was terminated by signal 9: Killed", 291),
        ("WARNING: [pool www] child 429 exited on signal 9 (SIGKILL) after 50.938617 seconds from start", 429),
        ("worker process 30 exited on signal 9", 30),
        ("DAMN ! worker 2 (pid: 4242) died, killed by signal 9 :( trying respawn ...", 4242),
        ("DAMN ! worker 2 (pid: 4242) MYSTERIOUSLY killed by signal 9 :( trying respawn ...", 4242),
        ("*** HARAKIRI ON WORKER 1 (pid: 88, try: 1, graceful: no) ***", 88),
        ("site.service: Killing process 123 (python3) with signal SIGKILL.", 123),
        ('sending SIGTERM to process 123 uid 1000 "python3": oom_score 800', 123),
        ("! Terminating timed out worker (Worker 0 failed to check in within 60 seconds): 901", 901),
        ("Worker with PID 777 exited unexpectedly (code -9). Shutting down...", 777),
        (f"look at this please:\n> {GUNICORN}\nagain!", 689792),
        (f"{GUNICORN}\nOut of memory: Killed process 5 (x)", 689792),
        (f"<b>{GUNICORN}</b>", 689792),
    ],
)
def test_the_pid_of_a_pasted_line(line: str, pid: int) -> None:
    assert quoted(line) == pid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mem prod",
        f"/approve K7QX {GUNICORN}",
        f"  /approve K7QX {GUNICORN}",
        "the worker was killed, pid 689792",
        "Worker (pid:) was sent SIGKILL!",
        "Worker (pid:0) was sent SIGKILL!",
        "Worker (pid:1) was sent SIGKILL!",
        "Worker (pid:9999999) was sent SIGKILL!",
        "Worker (pid:12345678901) was sent SIGKILL!",
        "Booting worker with pid: 5",
        "A process of this unit has been killed by the OOM killer.",
        "x" * LOOKED_AT + GUNICORN,
    ],
)
def test_other_text_is_no_line(text: str) -> None:
    assert quoted(text) is None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert quoted(text) is None or text


@pytest.mark.parametrize("part", ["oom-kill:constraint=", "Terminating timed out worker (", "Worker (pid:1", "Kill process 1 "])
def test_a_text_made_for_it_takes_no_time(part: str) -> None:
    began = time.monotonic()
    assert quoted(part * 20_000) is None
    assert time.monotonic() - began < 5
