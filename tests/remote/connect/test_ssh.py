"""Reaching a host and failing to: keys, logins, dead and hanging hosts, cut links, start-up files that misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from remote.connect import Host
from remote.errors import HostError
from remote.text import Listing, Mono, Text
from tests.emulators.proxy import Proxy
from tests.remote.connect.conftest import Opener, eventually, fact, running, said, unlikely_seconds
from tests.remote.connect.server import CLIENT_KEY, HOST_KEY, LoginServer, line_of, ssh_server

OTHER_KEY = asyncssh.generate_private_key("ssh-ed25519")
RSA_KEY = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
FINGERPRINT = HOST_KEY.get_fingerprint("sha256")
OTHER_FINGERPRINT = OTHER_KEY.get_fingerprint("sha256")


async def error_of(host: Host) -> HostError:
    """The error of a question."""
    with pytest.raises(HostError) as caught:
        await said(host, "echo good")
    return caught.value


def words(text: Text) -> str:
    """The sentence in plain English, roughly."""

    def plain(value: object) -> str:
        match value:
            case Text():
                return words(value)
            case Mono(literal):
                return literal
            case Listing(items):
                return ", ".join(plain(item) for item in items)
            case _:
                return str(value)

    return text.msgid.format(**{name: plain(value) for name, value in text.values})


async def test_a_pinned_key_is_proved(server: LoginServer, opened: Opener) -> None:
    host = opened(server.target())

    assert host.host_key == ""
    assert await said(host, "echo good") == "good\n"
    assert host.host_key == FINGERPRINT


async def test_a_key_may_be_pinned_beside_its_successor(server: LoginServer, opened: Opener) -> None:
    host = opened(server.target(host_keys=(line_of(OTHER_KEY), line_of(RSA_KEY), line_of(HOST_KEY) + " a comment")))

    assert await said(host, "echo good") == "good\n"


async def test_an_unknown_key_is_refused_with_what_to_do(server: LoginServer, opened: Opener) -> None:
    error = await error_of(opened(server.target(host_keys=())))

    assert error.kind == "host-key-unknown"
    assert FINGERPRINT in words(error.text)
    assert f'[hosts.prod]: host_key = "{line_of(HOST_KEY)}"' in words(error.text)
    assert server.sessions == 0


async def test_a_changed_key_is_refused_with_both_fingerprints(server: LoginServer, opened: Opener) -> None:
    error = await error_of(opened(server.target(host_keys=(line_of(OTHER_KEY),))))

    assert error.kind == "host-key-changed"
    assert FINGERPRINT in words(error.text)
    assert OTHER_FINGERPRINT in words(error.text)
    assert server.sessions == 0


async def test_a_key_changed_to_another_type_is_refused_with_both_fingerprints(server: LoginServer, opened: Opener) -> None:
    error = await error_of(opened(server.target(host_keys=(line_of(RSA_KEY),))))

    assert error.kind == "host-key-changed"
    assert FINGERPRINT in words(error.text)
    assert RSA_KEY.get_fingerprint("sha256") in words(error.text)


def hashed(name: str, key: asyncssh.SSHKey) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()} {line_of(key)}\n"


@pytest.mark.parametrize("form", ["plain", "port", "hashed", "hashed port", "pattern"])
async def test_known_hosts_are_read_in_all_their_forms(server: LoginServer, opened: Opener, tmp_path: Path, form: str) -> None:
    at_port = f"[127.0.0.1]:{server.port}"
    lines = {
        "plain": f"127.0.0.1 {line_of(HOST_KEY)}\n",
        "port": f"{at_port},other {line_of(HOST_KEY)} comment\n",
        "hashed": hashed("127.0.0.1", HOST_KEY),
        "hashed port": hashed(at_port, HOST_KEY),
        "pattern": f"127.0.0.* {line_of(HOST_KEY)}\n",
    }
    known = tmp_path / "known_hosts"
    known.write_text(f"# a comment\n\nelsewhere {line_of(OTHER_KEY)}\n" + lines[form])

    host = opened(server.target(host_keys=(), known_hosts=str(known)))

    assert await said(host, "echo good") == "good\n"


async def test_another_key_than_in_known_hosts_is_refused(server: LoginServer, opened: Opener, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"127.0.0.1 {line_of(OTHER_KEY)}\n")

    error = await error_of(opened(server.target(host_keys=(), known_hosts=str(known))))

    assert error.kind == "host-key-changed"


async def test_a_revoked_key_is_refused_though_it_is_pinned(server: LoginServer, opened: Opener, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"@revoked * {line_of(HOST_KEY)}\n")

    error = await error_of(opened(server.target(known_hosts=str(known))))

    assert (error.kind, server.sessions) == ("host-key-changed", 0)
    assert "revoked" in words(error.text)


@pytest.mark.parametrize("keys", [{"host_keys": ("nonsense",)}, {"host_keys": (), "known_hosts": "/no/such/file"}])
async def test_unreadable_keys_in_the_settings_are_said(server: LoginServer, opened: Opener, keys: dict[str, object]) -> None:
    error = await error_of(opened(server.target(**keys)))

    assert error.kind == "host-key-unknown"
    assert ("nonsense" in words(error.text)) or ("/no/such/file" in words(error.text))


async def test_a_refused_login_says_whose(server: LoginServer, opened: Opener) -> None:
    error = await error_of(opened(server.target(user="stranger")))

    assert error.kind == "login-refused"
    assert "stranger" in words(error.text)


async def test_a_key_that_cannot_be_used_is_said(server: LoginServer, opened: Opener, tmp_path: Path) -> None:
    locked, nonsense = tmp_path / "locked", tmp_path / "nonsense"
    OTHER_KEY.write_private_key(str(locked), "pkcs8-pem", passphrase="secret")
    nonsense.write_text("nonsense")

    errors = [await error_of(opened(server.target(key=str(path)))) for path in (locked, nonsense, tmp_path / "none")]

    assert {error.kind for error in errors} == {"login-refused"}
    assert "passphrase" in words(errors[0].text)


async def test_without_a_key_the_agent_and_the_default_keys_are_tried(
    server: LoginServer, opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / ".ssh"
    keys.mkdir()
    (keys / "id_ed25519").write_bytes(CLIENT_KEY.export_private_key())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    assert await said(opened(server.target(key=None)), "echo good") == "good\n"


async def test_nothing_of_the_persons_ssh_config_is_used(
    server: LoginServer, opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  ProxyCommand false\n  User nobody\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert await said(opened(server.target()), "echo good") == "good\n"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_a_dead_port_is_unreachable(server: LoginServer, opened: Opener) -> None:
    error = await error_of(opened(server.target(port=free_port())))

    assert error.kind == "unreachable"
    assert "nothing listens" in words(error.text)


async def test_an_unknown_name_is_unreachable(server: LoginServer, opened: Opener) -> None:
    error = await error_of(opened(server.target(address="no-such-host.invalid")))

    assert error.kind == "unreachable"


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
async def rude_port() -> AsyncIterator[int]:
    """Accepts, says something that is not SSH, and closes."""

    async def be_rude(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"go away\r\n")
        writer.close()

    async with await asyncio.start_server(be_rude, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def test_a_host_that_accepts_and_hangs_is_a_timeout(server: LoginServer, opened: Opener, silent_port: int) -> None:
    began = time.monotonic()

    error = await error_of(opened(server.target(port=silent_port, connect_timeout_s=0.3)))

    assert error.kind == "timeout"
    assert time.monotonic() - began < 2


async def test_what_is_not_ssh_is_unreachable(server: LoginServer, opened: Opener, rude_port: int) -> None:
    assert (await error_of(opened(server.target(port=rude_port)))).kind == "unreachable"


async def test_other_hosts_answer_while_some_do_not(
    server: LoginServer, opened: Opener, silent_port: int, rude_port: int
) -> None:
    bad = [opened(server.target(port=port, connect_timeout_s=1.0)) for port in (silent_port, rude_port, free_port())]
    good = opened(server.target())
    failing = [asyncio.create_task(error_of(host)) for host in bad]

    for _ in range(5):
        assert await said(good, "echo good") == "good\n"

    assert not failing[0].done()
    assert [(await task).kind for task in failing] == ["timeout", "unreachable", "unreachable"]


async def test_a_warm_question_costs_one_round_trip(server: LoginServer, proxy: Proxy, opened: Opener) -> None:
    host, facts = opened(server.target(port=proxy.port)), [fact("echo one"), fact("echo two"), fact("exit 3")]
    await host.ask(*facts)
    proxy.count_afresh()

    for _ in range(10):
        await host.ask(*facts)

    assert proxy.round_trips == 10


async def test_a_warm_question_takes_the_time_of_one_round_trip(server: LoginServer, proxy: Proxy, opened: Opener) -> None:
    host = opened(server.target(port=proxy.port))
    await said(host, "echo warm")
    proxy.one_way_s = 0.1

    began = time.monotonic()
    await said(host, "echo warm")

    assert 0.2 <= time.monotonic() - began < 0.39


async def test_questions_asked_at_once_share_one_connection(server: LoginServer, proxy: Proxy, opened: Opener) -> None:
    host = opened(server.target(port=proxy.port))
    quick, slow = fact("echo q"), fact("echo s", slow=True)

    await asyncio.gather(*(host.ask(quick, slow) for _ in range(5)), *(host.sample(quick) for _ in range(5)))

    assert (proxy.accepted, server.sessions) == (1, 3)


async def test_a_link_cut_anywhere_in_an_answer_is_an_error_never_half_a_fact(
    server: LoginServer, proxy: Proxy, opened: Opener
) -> None:
    first, second = fact("echo first; printf 'more of the first'"), fact("echo second")
    whole = ("first\nmore of the first", "second\n")
    host = opened(server.target(port=proxy.port))
    await host.ask(first, second)
    proxy.count_afresh()
    await host.ask(first, second)
    length, kinds = proxy.bytes_down, set[str]()

    for cut in range(0, length + 20, 7):
        await host.ask(first)
        proxy.cut_after_bytes = cut
        try:
            answers = await host.ask(first, second)
        except HostError as error:
            kinds.add(error.kind)
        else:
            assert (answers[first], answers[second]) == whole
        finally:
            proxy.cut_after_bytes = None

    assert "cut" in kinds <= {"cut", "unreachable"}
    assert await said(host, "echo well") == "well\n"


async def test_a_link_that_died_while_idle_is_opened_anew_unseen(server: LoginServer, proxy: Proxy, opened: Opener) -> None:
    host = opened(server.target(port=proxy.port))
    await said(host, "echo warm")

    proxy.cut()

    assert await said(host, "echo good") == "good\n"
    assert proxy.accepted == 2


async def test_a_host_that_hangs_in_mid_answer_is_a_timeout_and_the_next_question_connects_anew(
    server: LoginServer, proxy: Proxy, opened: Opener
) -> None:
    n = unlikely_seconds()
    host = opened(server.target(port=proxy.port))
    asking = asyncio.create_task(said(host, f"echo half; sleep {n}", deadline_s=0.5))
    assert await eventually(lambda: bool(running(n)))

    proxy.frozen = True
    with pytest.raises(HostError) as caught:
        await asking
    proxy.frozen = False

    assert caught.value.kind == "timeout"
    assert await said(host, "echo good") == "good\n"
    assert proxy.accepted == 2
    assert await eventually(lambda: not running(n))


async def test_a_question_that_hangs_does_not_cut_a_plan(server: LoginServer, proxy: Proxy, opened: Opener) -> None:
    host = opened(server.target(port=proxy.port))
    async with host.converse() as talk:
        assert (await talk.run("echo begun", deadline_s=5)).output == "begun\n"
        stuck = str(await said(host, "echo $$")).strip()
        with pytest.raises(HostError) as caught:
            await said(host, "kill -STOP $$; sleep 30", deadline_s=0.2)

        assert caught.value.kind == "timeout"
        assert (await talk.run(f"kill -CONT {stuck}; echo goes on", deadline_s=5)).output == "goes on\n"
        assert await said(host, "echo good") == "good\n"
    assert proxy.accepted == 1


async def test_a_cut_link_ends_what_ran_on_the_host(server: LoginServer, proxy: Proxy, opened: Opener) -> None:
    n, m = unlikely_seconds(), unlikely_seconds()
    host = opened(server.target(port=proxy.port))

    async def watch() -> None:
        async with host.stream(f"sleep {m}") as lines:
            async for _ in lines:
                pass

    tasks = [asyncio.create_task(said(host, f"(setsid sleep {n} &); sleep {n}", deadline_s=60)), asyncio.create_task(watch())]
    assert await eventually(lambda: bool(running(n) and running(m)))

    proxy.cut()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [result.kind for result in results if isinstance(result, HostError)] == ["cut", "cut"]
    assert await eventually(lambda: not running(n) and not running(m))


async def test_the_background_keeps_to_the_backoff_and_a_person_does_not(
    server: LoginServer, proxy: Proxy, opened: Opener
) -> None:
    port = free_port()
    host = opened(server.target(port=port))
    sample = fact("echo sample")
    with pytest.raises(HostError):
        await host.sample(sample)

    async with await asyncio.start_server(proxy.accept, "127.0.0.1", port):
        with pytest.raises(HostError):
            await host.sample(sample)
        assert proxy.accepted == 0
        assert await said(host, "echo good") == "good\n"
        assert (await host.sample(sample))[sample] == "sample\n"


async def test_a_host_behind_a_jump_host(server: LoginServer, opened: Opener, key_path: str) -> None:
    async with ssh_server(key_path, host_key=OTHER_KEY) as bastion:
        jump = bastion.target(name="bastion", host_keys=(line_of(OTHER_KEY),))

        host = opened(server.target(jump=jump))

        assert await said(host, "echo good") == "good\n"
        assert host.host_key == FINGERPRINT


async def test_hosts_behind_one_jump_host_share_the_connection_to_it(
    server: LoginServer, proxy: Proxy, opened: Opener, key_path: str
) -> None:
    jump = server.target(name="bastion", port=proxy.port)
    one, two = opened(server.target(name="one", jump=jump)), opened(server.target(name="two", jump=jump))

    assert [await said(host, "echo good") for host in (one, two)] == ["good\n", "good\n"]
    await one.close()
    assert await said(two, "echo still") == "still\n"
    assert proxy.accepted == 1


async def test_a_jump_host_that_fails_is_named(server: LoginServer, opened: Opener) -> None:
    jump = server.target(name="bastion", user="stranger")

    error = await error_of(opened(server.target(jump=jump)))

    assert error.kind == "login-refused"
    assert "bastion" in words(error.text)


async def test_a_host_that_its_jump_host_cannot_reach_is_unreachable(server: LoginServer, opened: Opener, key_path: str) -> None:
    error = await error_of(opened(server.target(port=free_port(), jump=server.target(name="bastion"))))

    assert error.kind == "unreachable"
    assert "prod" in words(error.text)


RC = {
    "prints": "echo welcome; printf 'no newline'; eval \"$0\"",
    "prints much": 'head -c 3000000 /dev/zero; eval "$0"',
    "prints something like a shell": "printf '$ # sh-5.1$ '; eval \"$0\"",
    "reads a line of our stdin": 'read -r line; eval "$0"',
    "reads and echoes": 'read -r line; echo "$line"; eval "$0"',
    "reads much of our stdin": 'for i in 1 2 3 4 5; do read -r line; done; eval "$0"',
    "is slow": 'sleep 0.8; eval "$0"',
    "sets traps": "trap 'echo bye' 0; trap '' 1 2 15; eval \"$0\"",
    "exports what changes shells": 'export ENV=/etc/passwd BASH_ENV=/etc/passwd SHELLOPTS PS4=x; eval "$0"',
    "turns tracing on": 'set -x -v; eval "$0"',
}


@pytest.mark.parametrize("login", RC.values(), ids=RC)
async def test_start_up_files_that_meddle_get_a_right_answer(opened: Opener, key_path: str, login: str) -> None:
    async with ssh_server(key_path, login=login) as server:
        host = opened(server.target())

        assert await said(host, "echo right") == "right\n"
        await host.close()


NO_SHELL = {
    "cat": "exec cat",
    "nothing": "exit 1",
    "nologin": "echo 'This account is currently not available.'; exit 1",
    "swallows": "exec cat >/dev/null",
    "sleeps": "exec sleep 4",
    "prints for ever": "exec yes",
}


@pytest.mark.parametrize("login", NO_SHELL.values(), ids=NO_SHELL)
async def test_what_replaces_the_shell_is_no_shell(
    opened: Opener, key_path: str, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote.connect.host.HELLO_S", 1.0)
    async with ssh_server(key_path, login=login) as server:
        host = opened(server.target())
        began = time.monotonic()

        error = await error_of(host)

        assert error.kind == "no-shell"
        assert time.monotonic() - began < 4
        assert "\n" not in words(error.text)
        assert ("currently not available" in words(error.text)) is ("available" in login)
        await host.close()
        assert await eventually(lambda: server.open_sessions == 0)


def test_importing_the_package_imports_no_asyncssh() -> None:
    seen = subprocess.run(
        [sys.executable, "-c", "import sys, remote.connect; print('asyncssh' in sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )

    assert seen.stdout == "False\n"
