"""Five hosts asked at once, four of them in trouble: one clear line each, in time, and the good one answers."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.emulators.proxy import proxied
from tests.remote.connect.server import CLIENT_KEY, HOST_KEY, LoginServer, line_of, ssh_server

ROOT = Path(__file__).parents[1]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoginServer]:
    key = tmp_path / "key"
    CLIENT_KEY.write_private_key(key)
    key.chmod(0o600)
    async with ssh_server(str(key)) as host:
        yield host


def host(name: str, server: LoginServer, **more: object) -> str:
    values: dict[str, object] = {
        "address": "127.0.0.1", "port": server.port, "user": "ops", "key": server.key_path, "host_key": line_of(HOST_KEY),
        "connect_timeout": "3s",
    }  # fmt: skip
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (values | more).items())
    return f"[hosts.{name}]\n{lines}\n"


async def ask(config: Path, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "--config", config, "ask", *words,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_one_host_s_trouble_never_hides_another_s_answer(server: LoginServer, tmp_path: Path) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with_free_port = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    dead_port = with_free_port.sockets[0].getsockname()[1]
    with_free_port.close()
    await with_free_port.wait_closed()
    async with proxied(server.port) as proxy:
        proxy.cut_after_bytes = 6000  # the login comes through, the answer is cut in its middle
        config = tmp_path / "memwarden.toml"
        config.write_text(
            f'store = "sqlite:///{tmp_path}/m.db"\n[people.me]\nconsole = true\nrole = "admin"\n'
            + host("good", server)
            + host("changed", server, host_key=line_of(stranger))
            + host("refused", server, user="nobody")
            + host("dead", server, port=dead_port)
            + host("is_cut", server, port=proxy.port)
        )
        status, out, _ = await ask(config, "--json", "/mem all")
        answer: dict[str, Any] = json.loads(out)
    assert status == 1
    assert answer["ok"] is False
    hosts = {one["host"]: one for one in answer["hosts"]}
    assert list(hosts) == ["good", "changed", "refused", "dead", "is_cut"]
    assert hosts["good"]["ok"]
    assert hosts["good"]["data"]["total_bytes"] > 0
    assert {name: one["error"]["kind"] for name, one in hosts.items() if not one["ok"]} == {
        "changed": "host-key-changed",
        "refused": "login-refused",
        "dead": "unreachable",
        "is_cut": hosts["is_cut"]["error"]["kind"],
    }
    assert hosts["is_cut"]["error"]["kind"] in {"timeout", "cut"}
    assert all("\n" not in one["error"]["text"] for one in hosts.values() if not one["ok"])
    assert "SHA256:" in hosts["changed"]["error"]["text"]


async def test_settings_that_cannot_be_read_are_still_one_object(tmp_path: Path) -> None:
    config = tmp_path / "memwarden.toml"
    config.write_text("[hots.prod]\n")
    status, out, err = await ask(config, "--json", "/mem")
    assert status == 1
    assert json.loads(out)["error"]["kind"] == "settings"
    assert "did you mean 'hosts'" in err
