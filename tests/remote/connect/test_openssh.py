"""The same against a real sshd, with accounts whose login shell is dash, bash and busybox ash (root, `.ci/run`)."""

from __future__ import annotations

import asyncio
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote.connect import Target
from remote.errors import HostError
from tests.emulators.proxy import proxied
from tests.remote.connect.conftest import Opener, eventually, fact, running, said, unlikely_seconds
from tests.remote.connect.server import CLIENT_KEY, HOST_KEY, line_of

pytestmark = pytest.mark.openssh

SHELLS = {"mwdash": "/bin/dash", "mwbash": "/bin/bash", "mwash": "ash"}


@dataclass(frozen=True)
class Sshd:
    """A running sshd and its accounts."""

    port: int
    key_path: str
    homes: Path

    def target(self, user: str, port: int | None = None) -> Target:
        """How to reach an account of it."""
        return Target("prod", "127.0.0.1", port or self.port, user, self.key_path, (line_of(HOST_KEY),))


@pytest.fixture(scope="module")
def accounts() -> Iterator[Path]:
    """An account of each login shell, with Debian's stock start-up files; removed afterwards."""
    homes = Path("/tmp") / f"mw-homes-{time.time_ns()}"  # sshd wants homes that only their owner and root can write
    homes.mkdir(mode=0o755)
    # busybox picks its applet by the name it is called by: the login shell's must be `ash`.
    (homes / "ash").symlink_to(shutil.which("busybox") or "/bin/busybox")
    try:
        for user, name in SHELLS.items():
            shell = str(homes / "ash") if name == "ash" else name
            subprocess.run(["useradd", "-m", "-d", str(homes / user), "-s", shell, "-p", "*", user], check=True)
        yield homes
    finally:
        for user in SHELLS:
            subprocess.run(["pkill", "-KILL", "-u", user], check=False)
            subprocess.run(["userdel", "-r", user], check=False, capture_output=True)
        shutil.rmtree(homes)


@pytest.fixture(scope="module")
def sshd(accounts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd of our own on a free port of loopback."""
    place = tmp_path_factory.mktemp("sshd")
    HOST_KEY.write_private_key(str(place / "host_key"))
    CLIENT_KEY.write_private_key(str(place / "client_key"))
    (place / "host_key").chmod(0o600)
    for user in SHELLS:
        entry = pwd.getpwnam(user)
        ssh = Path(entry.pw_dir) / ".ssh"
        ssh.mkdir(mode=0o700)
        (ssh / "authorized_keys").write_text(line_of(CLIENT_KEY) + "\n")
        for path in (ssh, ssh / "authorized_keys"):
            shutil.chown(path, user)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    config = place / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place / 'host_key'}\nUsePAM no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100:30:200\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    daemon = subprocess.Popen([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(config)])
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield Sshd(port, str(place / "client_key"), accounts)
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.fixture(params=SHELLS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_questions_are_answered(sshd: Sshd, opened: Opener, user: str) -> None:
    host = opened(sshd.target(user))
    facts = [fact("id -un"), fact("exit 3"), fact("if then"), fact("printf x"), fact("echo slow", slow=True)]

    answers = await host.ask(*facts)

    assert [str(answers[each]) for each in (facts[0], facts[3], facts[4])] == [f"{user}\n", "x", "slow\n"]
    assert host.host_key == HOST_KEY.get_fingerprint("sha256")


async def test_a_warm_question_costs_one_round_trip(sshd: Sshd, opened: Opener, user: str) -> None:
    async with proxied(sshd.port) as proxy:
        host = opened(sshd.target(user, proxy.port))
        await said(host, "echo warm")
        proxy.count_afresh()
        for _ in range(10):
            await said(host, "echo warm")
        trips, proxy.one_way_s = proxy.round_trips, 0.1
        began = time.monotonic()
        await said(host, "echo warm")
        took_s = time.monotonic() - began
        await host.close()

    assert trips == 10
    assert 0.2 <= took_s < 0.39


async def test_thirty_stuck_questions_leave_no_process_and_no_channel(sshd: Sshd, opened: Opener, user: str) -> None:
    n = unlikely_seconds()
    host = opened(sshd.target(user))
    await said(host, "echo warm")
    before = processes_of(user)
    stuck, good = fact(f"(setsid sleep {n} &); (trap '' 15; sleep {n}) & sleep {n}", deadline_s=0.1), fact("echo good")

    for _ in range(30):
        answers = await host.ask(stuck, good)
        assert str(answers[good]) == "good\n"

    assert await eventually(lambda: not running(n))
    assert await eventually(lambda: processes_of(user) == before)
    await host.close()
    assert await eventually(lambda: processes_of(user) == 0)


def processes_of(user: str) -> int:
    """How many processes the account has, zombies left out."""
    listing = subprocess.run(["ps", "-o", "stat=", "-u", user], check=False, capture_output=True, text=True)
    return sum(not line.startswith("Z") for line in listing.stdout.split())


RC = {
    "prints": "echo welcome; printf 'no newline'",
    "reads": "read -r line",
    "traps": "trap 'echo bye' 0; trap '' 1 2 15",
}


@pytest.mark.parametrize("rc", RC.values(), ids=RC)
async def test_a_bashrc_that_meddles_gets_a_right_answer(sshd: Sshd, opened: Opener, rc: str) -> None:
    bashrc = sshd.homes / "mwbash" / ".bashrc"
    stock = bashrc.read_text()
    try:
        bashrc.write_text(rc + "\n")
        assert await said(opened(sshd.target("mwbash")), "echo right") == "right\n"
    finally:
        bashrc.write_text(stock)


@pytest.mark.parametrize("rc", ["exec cat", "exit 1", "echo no entry; exit 0", "exec sleep 3"])
async def test_a_bashrc_that_replaces_the_shell_is_no_shell(
    sshd: Sshd, opened: Opener, rc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote.connect.host.HELLO_S", 1.5)
    bashrc = sshd.homes / "mwbash" / ".bashrc"
    stock = bashrc.read_text()
    try:
        bashrc.write_text(rc + "\n")
        with pytest.raises(HostError) as caught:
            await said(opened(sshd.target("mwbash")), "echo right")
    finally:
        bashrc.write_text(stock)

    assert caught.value.kind == "no-shell"


async def test_an_account_without_keys_is_refused(sshd: Sshd, opened: Opener) -> None:
    with pytest.raises(HostError) as caught:
        await said(opened(sshd.target("nobody")), "echo right")

    assert caught.value.kind == "login-refused"


async def test_a_cut_link_leaves_nothing(sshd: Sshd, opened: Opener, user: str) -> None:
    n = unlikely_seconds()
    async with proxied(sshd.port) as proxy:
        host = opened(sshd.target(user, proxy.port))
        asking = asyncio.create_task(said(host, f"(setsid sleep {n} &); sleep {n}", deadline_s=60))
        assert await eventually(lambda: len(running(n)) == 2)
        proxy.cut()
        with pytest.raises(HostError) as caught:
            await asking
        await host.close()

    assert caught.value.kind == "cut"
    assert await eventually(lambda: not running(n) and processes_of(user) == 0)


async def test_nothing_is_left_five_seconds_after_the_bots_sigkill(sshd: Sshd, user: str) -> None:
    n = unlikely_seconds()
    program = f"""
import asyncio
from remote.connect import Target, open_host
from remote.facts.base import Fact
async def main():
    host = open_host({sshd.target(user)!r})
    await host.sample(Fact("sample", "echo", str))
    async def watch():
        async with host.stream("(setsid sleep {n} &); while :; do sleep {n}; done") as lines:
            async for line in lines: pass
    async def plan():
        async with host.converse() as conversation:
            await conversation.run("sleep {n}", deadline_s=600)
    def stuck(slow):
        return Fact("stuck", "(sleep {n} &); sleep {n}", str, deadline_s=600, slow=slow)
    await asyncio.gather(watch(), plan(), host.ask(stuck(False), stuck(True)))
asyncio.run(main())
"""
    bot = subprocess.Popen([sys.executable, "-c", program])  # noqa: ASYNC220 - starting it is quick
    try:
        assert await eventually(lambda: len(running(n)) == 7, 15)
    finally:
        bot.send_signal(signal.SIGKILL)
        bot.wait()

    assert await eventually(lambda: not running(n) and processes_of(user) == 0, 5)
