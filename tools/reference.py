"""What the documents say of the code, written from the code: docs/settings.md and the README's table of commands.

`python -m tools.reference` writes both; tests/test_docs.py fails when either is stale.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bot import settings
from bot.i18n import render
from bot.settings import Settings
from handlers import discover

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "docs" / "settings.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- commands: written by python -m tools.reference -->\n", "<!-- end of commands -->"

HEAD = """# Settings

Written from `bot/settings.py` by `python -m tools.reference`; do not edit by hand.

One TOML file: `--config FILE`, else `./memwarden.toml`, else `/etc/memwarden/memwarden.toml`, else the built-in default: the
console, this machine as host `local`, its user an admin. An example: [memwarden.toml.example](../deploy/memwarden.toml.example).

- A value can come from the environment instead: `MEMWARDEN_` and the path with `__`, for example `MEMWARDEN_TELEGRAM__TOKEN` or
  `MEMWARDEN_HOSTS__PROD__PORT`. The environment wins over the file, over a `KEY_file` in it too. It knows no upper and lower
  case: `PROD` may be `[hosts.Prod]` in the file.
- In `[telegram]`, `[slack]` and the parts of `[hooks]`, `KEY_file = "PATH"` reads the value of KEY from a file. A path that is
  not absolute is looked up in `$CREDENTIALS_DIRECTORY` when that is set (systemd's `LoadCredential=`).
- An unknown key is an error that names the nearest right one. `memwarden check` reads the settings, tries the chats,
  hosts and hooks, and looks whether the units they name are there.
- A duration is `"90s"`, `"15m"`, `"4h"` or `"1d"`; a plain number is seconds. A size is `"600M"` (K, M, G, T, of 1024); a
  plain number is bytes. An id can be written as a number or a string. Where a list stands, one word may stand alone.
"""

# The heading of each part, what is told under it, and where its model is; ROOT's own keys come first.
PARTS: tuple[tuple[str, str, str, type[BaseModel]], ...] = (
    ("", "At the top of the file", "These stand before the first `[part]`.", Settings),
    ("telegram", "[telegram]", "The Telegram bot. Without this part Telegram is not even imported.", settings.TelegramSettings),
    ("slack", "[slack]", "The Slack app, in Socket Mode. Without this part Slack is not even imported.", settings.SlackSettings),
    (
        "chats",
        "[chats.NAME]",
        "One known chat. It has exactly one of `telegram`, `slack` and `console`. Other groups and channels are not answered.",
        settings.ChatSettings,
    ),
    (
        "people",
        "[people.NAME]",
        "One known person. Everybody else is a stranger. Without this part whoever runs memwarden is an admin at the console.",
        settings.PersonSettings,
    ),
    (
        "hosts",
        "[hosts.NAME]",
        "One server. A name may not also be a group's, nor `all`. Without this part there is one, `local`: this machine.",
        settings.HostSettings,
    ),
    (
        "alerts",
        "[alerts]",
        "When memory is an alert. `clear_percent` < `memory_percent` <= `critical_percent`. A host's own: `[hosts.NAME.alerts]`.",
        settings.AlertSettings,
    ),
    ("approvals", "[approvals]", "Who must say yes to a plan.", settings.ApprovalSettings),
    (
        "sizing",
        "[sizing]",
        "How many workers a server bears, by RAM rounded to the nearest GiB. More are a finding of `/mem` and `/fix`.",
        settings.SizingSettings,
    ),
    (
        "hooks",
        "[hooks]",
        "Where others may ask memwarden to look at a host: [hooks.md](hooks.md). Without this part nothing listens.",
        settings.HookSettings,
    ),
    (
        "hooks.sentry",
        "[hooks.sentry]",
        "`POST /hooks/sentry`: the webhook of a Sentry internal integration.",
        settings.SentryHookSettings,
    ),
    (
        "hooks.alertmanager",
        "[hooks.alertmanager]",
        "`POST /hooks/alertmanager`: a webhook receiver of Prometheus Alertmanager.",
        settings.AlertmanagerHookSettings,
    ),
)

MEANING = {
    "language": "The language of chats and people that have none of their own.",
    "store": "What memwarden must remember: `sqlite:///FILE` (relative) or `sqlite:////DIR/FILE` (absolute); mode 0600.",
    "celery_stop_timeout": "How long a stopped celery worker may go on with the task in hand: longer than your longest.",
    "log": "What goes to stderr. Tokens are never in it.",
    "telegram.token": "The bot's token from @BotFather.",
    "telegram.api_base": "A Bot API server of your own, for example `http://127.0.0.1:8081`.",
    "telegram.light": "Build aiogram's models on first use: about 100 MB less memory. `check` says when it does not work.",
    "slack.bot_token": "The bot token, `xoxb-…`.",
    "slack.app_token": "The app-level token with `connections:write`, `xapp-…`.",
    "slack.base_url": "A proxy in front of Slack's Web API, with a slash at its end.",
    "chats.telegram": "The chat's id. A group's is negative. The bot tells it to a known person who asks in an unknown chat.",
    "chats.slack": "The channel's id, `C0123ABCD`.",
    "chats.console": "`true` for the console: what is seen from there, and whether alerts are printed.",
    "chats.topic": "The id of a forum topic in the Telegram group. Alerts go there.",
    "chats.hosts": "The hosts and groups that can be seen and mended from this chat; every host when left out.",
    "chats.alerts": "Whether alerts about these hosts go to this chat.",
    "chats.language": "This chat's language.",
    "people.telegram": "The person's numeric Telegram user id.",
    "people.slack": "The person's Slack user: `U0123` for a member of the app's own team, `T0123/U0123` for anybody else.",
    "people.console": "Whether this person may use `memwarden ask` and the console.",
    "people.role": "`viewer` looks and proposes, `approver` also approves and declines, `admin` may do everything.",
    "people.language": "The language of this person's private chat and toasts.",
    "hosts.address": "Name or IP address; `local` is this machine, without SSH.",
    "hosts.port": "sshd's port.",
    "hosts.user": "Whom to log in as. What each right is for: [target.md](target.md).",
    "hosts.key": "A private key's path, no passphrase. Left out: the agent, `~/.ssh/id_ed25519`, `id_ecdsa`, `id_rsa`.",
    "hosts.host_key": 'The host\'s public key, `"ssh-ed25519 AAAA…"`, or several while keys are changed. Another key is refused.',
    "hosts.known_hosts": "Path of a known_hosts file to take the host's key from, instead of or beside `host_key`.",
    "hosts.jump": "The name of another host to go through.",
    "hosts.groups": "Groups this host is in. `web` and `@web` both name the group.",
    "hosts.keep": "Units that always stay when they have duplicates.",
    "hosts.never_touch": "Units that no plan may stop or restart.",
    "hosts.health": "A URL a unit, fetched with curl on the host itself: the unit counts as well only when it answers. "
    '`{ "site.service" = "http://127.0.0.1:8000/" }`',
    "hosts.alerts": "Keys of `[alerts]` that are different for this host.",
    "hosts.connect_timeout": "How long connecting and logging in may take.",
    "alerts.memory_percent": "Used memory (of MemTotal, `1 - MemAvailable/MemTotal`) from which it is an alert…",
    "alerts.clear_percent": "Below this the alert ends.",
    "alerts.critical_percent": "From here on it is critical, at once.",
    "alerts.critical_available": "With this much or less available it is critical too, at once; on a small server no more than "
    "10 % of its memory counts. It is over once 1.25 times as much is available.",
    "alerts.hold": "…once it has lasted so long.",
    "alerts.every": "How often memory is looked at.",
    "alerts.repeat": "After so long an alert that is still open is told again, in a new message. One that becomes critical is "
    "a new message too.",
    "approvals.expire": "How long a proposed plan can be approved.",
    "approvals.reviewers": "2 is the two-person rule.",
    "approvals.self_approve": "With one reviewer: whether who asked for a plan may approve it.",
    "sizing.gunicorn_workers_per_gib": "gunicorn workers a GiB of RAM.",
    "sizing.celery_processes_per_gib": "celery pool processes a GiB of RAM.",
    "sizing.gunicorn_threads": "Threads a gunicorn worker should have. Nothing uses it yet.",
    "sizing.gunicorn_max_requests": "Requests after which a gunicorn worker should be replaced. Nothing uses it yet.",
    "sizing.celery_max_tasks_per_child": "Tasks after which a celery pool process should be replaced. Nothing uses it yet.",
    "sizing.gunicorn_memory_max": "The least MemoryMax of a gunicorn unit.",
    "hooks.listen": 'IP address and port, `"127.0.0.1:8090"` or `"[::1]:8090"`.',
    "hooks.public": "`true` allows an address that is not loopback. There is no TLS here: put a proxy in front.",
    "hooks.sentry.secret": "The integration's Client Secret, which signs its webhooks.",
    "hooks.sentry.hosts": 'Which host a project runs on, by the project\'s slug or id: `{ "teaching-panel" = "prod" }`.',
    "hooks.sentry.words": 'Look only when an issue has one of these in its title or message: `["SIGKILL", "out of memory"]`.',
    "hooks.sentry.organization": "The organization's slug, for links and notes.",
    "hooks.sentry.base_url": "Where your Sentry is. Links lead there, and notes are sent nowhere else.",
    "hooks.sentry.token": "An auth token with `event:write`: what was found is left as a note at the issue.",
    "hooks.alertmanager.token": "What Alertmanager must send as `Authorization: Bearer …`.",
    "hooks.alertmanager.hosts": 'Which host a label\'s value means: `{ "203.0.113.7:9100" = "prod" }`.',
    "hooks.alertmanager.label": "The label to look at.",
    "hooks.alertmanager.base_url": "Where your Alertmanager is, for links.",
}

# The readers of bot/settings.py, and what they read.
READERS = {"_duration": "duration", "_size": "size", "_text": "id", "_several": "list of words"}
WORDS: dict[object, str] = {str: "text", bool: "true or false", int: "whole number", float: "number", SecretStr: "secret text"}


def settings_reference() -> str:
    """docs/settings.md as it should be. Raises KeyError for a key whose meaning nobody wrote down."""
    return "\n".join([HEAD, *(_part(*part) for part in PARTS)])


def commands_table() -> str:
    """The README's table of commands."""
    rows = [f"| `{one.usage.replace('|', '/')}` | {render(one.summary, 'en')} |" for one in discover().values()]
    return "\n".join(["| say | to |", "| --- | --- |", *rows, ""])


def with_commands(readme: str) -> str:
    """The README with the table between its marks brought up to date."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError("README.md has lost the marks around its table of commands")
    return f"{before}{BEGIN}{commands_table()}{END}{after}"


def parts_of_settings() -> Iterator[str]:
    """Every key as MEANING names it."""
    for name, _, _, model in PARTS:
        for key in _own_keys(name, model):
            yield f"{name}.{key}" if name else key


def _own_keys(name: str, model: type[BaseModel]) -> list[str]:
    parts = {part for part, *_ in PARTS}
    return [key for key in model.model_fields if (f"{name}.{key}" if name else key) not in parts]


def _part(name: str, heading: str, told: str, model: type[BaseModel]) -> str:
    rows = [_row(name, key, model.model_fields[key]) for key in _own_keys(name, model)]
    return "\n".join(
        [f"## {heading}", "", told, "", "| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    )


def _row(name: str, key: str, field: FieldInfo) -> str:
    meaning = MEANING[f"{name}.{key}" if name else key]
    return f"| `{key}` | {_type(field)} | {_default(field)} | {meaning} |"


def _type(field: FieldInfo) -> str:
    for extra in _metadata(field):
        reader = getattr(getattr(extra, "func", None), "__name__", "")
        if reader in READERS:
            return READERS[reader]
    return _word(field.annotation)


def _metadata(field: FieldInfo) -> Iterator[Any]:
    """Of the field, and of what stands beside `None` in it."""
    yield from field.metadata
    for inner in typing.get_args(field.annotation):
        yield from getattr(inner, "__metadata__", ())


def _word(kind: Any) -> str:  # noqa: ANN401 - a type
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin in {typing.Union, types.UnionType}:
        return _word(next(one for one in arguments if one is not type(None)))
    if origin is typing.Annotated:
        return _word(arguments[0])
    return "table" if origin is dict else WORDS[kind]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "needed"
    if value in (None, "", (), {}):
        return ""
    reader = _type(field)
    if reader == "duration":
        return f'`"{_duration(value)}"`'
    if reader == "size":
        return f'`"{value >> 20}M"`'
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if not isinstance(value, str) else f'`"{value}"`'


def _duration(seconds: float) -> str:
    for unit, length_s in (("h", 3600), ("m", 60)):
        if seconds % length_s == 0:
            return f"{seconds / length_s:g}{unit}"
    return f"{seconds:g}s"


def main() -> None:
    """Write both."""
    SETTINGS.write_text(settings_reference(), encoding="utf-8")
    README.write_text(with_commands(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
