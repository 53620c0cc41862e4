"""What `memwarden check` says of hooks, and that what the documents show can be used."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path

import pytest

from bot import check
from bot.i18n import render
from bot.settings import Settings, load
from tests.bot.hooks.world import World, settings
from tests.emulators.sentry import Sentry


async def said(found: Settings) -> list[tuple[bool, str]]:
    return [(good, render(text, "en")) for good, text in await check._hooks(found)]


def listening_on(port: int, host: str = "127.0.0.1") -> Settings:
    found = settings("sqlite:///x.db", Sentry())
    assert found.hooks is not None
    return found.model_copy(update={"hooks": found.hooks.model_copy(update={"listen": f"{host}:{port}"})})


async def test_a_free_address(world: World) -> None:
    port = world.hooks.port
    assert await said(listening_on(port)) == [
        (True, "Hooks: Alertmanager may ask about 1 host"),
        (True, "Hooks: Sentry may ask about 1 host"),
        (True, f"Hooks: a memwarden listens on 127.0.0.1:{port}"),
    ]
    await world.hooks.stop()
    assert (await said(listening_on(port)))[-1] == (True, f"Hooks: 127.0.0.1:{port} is free")


async def test_an_address_of_another_program() -> None:
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]

    good, text = (await said(listening_on(port)))[-1]
    assert (good, text) == (False, f"Hooks: another program listens on 127.0.0.1:{port}. Set hooks.listen to a free port.")
    other.close()


async def test_an_address_of_another_machine() -> None:
    good, text = (await said(listening_on(8090, "203.0.113.99")))[-1]

    assert not good
    assert "is no address of this machine" in text


async def test_without_hooks_nothing_is_said() -> None:
    assert await said(Settings()) == []


ROOT = Path(__file__).parents[3]
HOST = '[hosts.prod]\naddress = "203.0.113.7"\n'


def example_of_the_document() -> str:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    block = re.search(r"^    \[hooks\]\n(?:    .*\n|\n)+", text, re.MULTILINE)
    assert block
    return textwrap.dedent(block[0])


def example_of_the_settings() -> str:
    text = (ROOT / "deploy" / "memwarden.toml.example").read_text(encoding="utf-8")
    return re.sub(r"^# ?", "", text[text.index("# [hooks]") :], flags=re.MULTILINE)


@pytest.mark.parametrize("example", [example_of_the_document(), example_of_the_settings()], ids=["docs", "deploy"])
def test_what_the_documents_show_can_be_used(example: str, tmp_path: Path) -> None:
    for name in re.findall(r'"/etc/memwarden/([\w-]+)"', example):
        (tmp_path / name).write_text("0123456789abcdef\n", encoding="utf-8")
    path = tmp_path / "memwarden.toml"
    path.write_text(HOST + example.replace("/etc/memwarden", str(tmp_path)), encoding="utf-8")
    hooks = load(path).hooks

    assert hooks is not None
    assert hooks.sentry is not None
    assert hooks.alertmanager is not None
    assert hooks.sentry.organization == "acme"
    assert hooks.mapped == {"sentry": {"teaching-panel": "prod"}, "alertmanager": {"203.0.113.7:9100": "prod"}}
