"""The whole world of a bot in one file: a Telegram, a chat, an owner, and hosts that are all the same sshd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench.target import SshTarget
from tests.emulators.telegram import TelegramEmulator

OPS: Final = -1_001_234_567_890
OWNER: Final = 111_111

SETTINGS: Final = """\
store = "sqlite:///{folder}/memwarden.db"
[telegram]
token = "{token}"
api_base = "{api}"
[chats.ops]
telegram = {chat}
[people.owner]
telegram = {owner}
role = "admin"
[alerts]
memory_percent = {percent}
clear_percent = {clear}
hold = "1s"
every = "{every_s}s"
"""

HOST: Final = """\
[hosts.{name}]
address = "127.0.0.1"
port = {port}
key = "{key}"
host_key = "{host_key}"
"""


def write_settings(
    folder: Path, telegram: TelegramEmulator, target: SshTarget, hosts: Sequence[str], *, every_s: float, percent: float = 90
) -> Path:
    """Settings for a bot that watches `hosts` and alerts above `percent` of memory."""
    text = SETTINGS.format(
        folder=folder, token=telegram.token, api=telegram.base_url, chat=OPS, owner=OWNER, every_s=every_s, percent=percent,
        clear=percent / 2,
    )  # fmt: skip
    text += "".join(HOST.format(name=name, port=target.port, key=target.key, host_key=target.host_key) for name in hosts)
    path = folder / "memwarden.toml"
    path.write_text(text, encoding="utf-8")
    return path
