"""This machine as a host: psutil in a thread, a local shell for the rest, nothing left behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest

from remote.connect import Host, Target
from remote.errors import HostError, Unparsable
from remote.facts.base import Answers, Fact, Unreadable
from remote.text import T
from tests.remote.connect.conftest import Opener, eventually, fact, running, said, unlikely_seconds


@pytest.fixture
def host(opened: Opener) -> Host:
    return opened(Target("local", "local"))


def of(answers: Answers, one: Fact[str]) -> str:
    """The answer, or the kind of why there is none."""
    answer = answers[one]
    return answer.kind if isinstance(answer, Unreadable) else answer


async def test_scripts_are_answered_by_a_local_shell(host: Host) -> None:
    assert host.host_key == "local"
    assert await said(host, "echo $PATH; exit 0") == "/usr/sbin:/usr/bin:/sbin:/bin\n"


async def test_a_local_reading_needs_no_shell_and_does_not_stop_the_loop(host: Host) -> None:
    here = Fact("here", "exit 9", str, local=lambda: threading.current_thread().name)
    there = fact("echo there")

    answers = await host.ask(here, there)
    alone = await host.sample(here)

    assert threading.main_thread().name not in {of(answers, here), of(alone, here)}
    assert of(answers, there) == "there\n"


async def test_a_local_reading_that_fails_is_a_value(host: Host) -> None:
    def fail(error: Exception) -> Fact[str]:
        def read() -> str:
            raise error

        return Fact(repr(error), "", str, local=read)

    def late() -> str:
        time.sleep(0.3)
        return "late"

    errors = [PermissionError(13, "no", "/proc/1/environ"), OSError(5, "I/O error"), Unparsable("x"), IndexError(), ValueError()]
    facts = [fail(error) for error in errors]
    slow: Fact[str] = Fact("slow", "", str, deadline_s=0.05, local=late)
    says: Fact[str] = Fact("says", "", str, local=lambda: Unreadable("unsupported", T("no")))

    answers = await host.ask(*facts, slow, says)

    assert [of(answers, each) for each in facts] == ["denied", "failed", "garbled", "garbled", "garbled"]
    assert [of(answers, each) for each in (slow, says)] == ["timeout", "unsupported"]


async def test_a_stuck_script_and_a_flood_are_ended(host: Host) -> None:
    n = unlikely_seconds()
    stuck, flood, good = fact(f"(setsid sleep {n} &); sleep {n}", deadline_s=0.2), fact("yes", cap_bytes=1000), fact("echo ok")

    answers = await host.ask(stuck, flood, good)

    assert [of(answers, each) for each in (stuck, flood, good)] == ["timeout", "flood", "ok\n"]
    assert await eventually(lambda: not running(n))


async def test_a_shell_that_was_killed_is_started_again(host: Host) -> None:
    with pytest.raises(HostError):
        await said(host, "kill -9 $$; exec sh -c 'kill -9 $PPID'")

    assert await said(host, "echo well") == "well\n"


async def test_streams_and_conversations(host: Host) -> None:
    n = unlikely_seconds()

    async with host.stream(f"echo one; exec sleep {n}") as lines, host.converse() as conversation:
        assert await anext(lines) == b"one"
        assert (await conversation.run("echo done; exit 2", deadline_s=5)).status == 2

    assert await eventually(lambda: not running(n))


async def test_closing_ends_what_runs(host: Host) -> None:
    n = unlikely_seconds()
    asking = asyncio.create_task(said(host, f"sleep {n}", deadline_s=60))
    assert await eventually(lambda: bool(running(n)))

    await host.close()

    with pytest.raises(HostError):
        await asking
    assert not running(n)


async def test_nothing_is_left_five_seconds_after_a_sigkill() -> None:
    n = unlikely_seconds()
    program = f"""
import asyncio
from remote.connect import Target, open_host
from remote.facts.base import Fact
async def main():
    host = open_host(Target("local", "local"))
    async with host.stream("(setsid sleep {n} &); while :; do sleep {n}; done"):
        await host.ask(Fact("stuck", "(sleep {n} &); sleep {n}", str, deadline_s=600))
asyncio.run(main())
"""
    bot = subprocess.Popen([sys.executable, "-c", program])  # noqa: ASYNC220 - starting it is quick
    try:
        # A stream's script is started by its first reader; the question alone is two sleepers.
        assert await eventually(lambda: len(running(n)) >= 2, 10)
    finally:
        bot.send_signal(signal.SIGKILL)
        bot.wait()

    assert await eventually(lambda: not running(n), 5)
