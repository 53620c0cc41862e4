"""aiogram at a third of its price: each of its pydantic models is built when it is first used, not all while it is imported.

Nearly all of aiogram's import is one loop at the end of `aiogram/types/__init__.py` that rebuilds every type of the Bot API,
although they are declared with `defer_build`. While aiogram is imported here that call does nothing; afterwards each model
is built by pydantic itself on its first use, with the very namespace that loop passes. This leans on internals of both, so
it is bounded by version, tries itself out, and gives way to the plain import when anything is off.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, Optional, Union

import structlog

log = structlog.get_logger(__name__)

AIOGRAM = ((3, 31), (3, 32))  # tried with these, the upper bound left out; pyproject.toml asks for the same
PYDANTIC = ((2, 11), (2, 14))

_CHAT = {"id": -1001, "type": "supergroup", "title": "ops", "is_forum": True}
_PERSON = {"id": 1, "is_bot": False, "first_name": "A", "language_code": "en"}
_MESSAGE = {
    "message_id": 1, "date": 0, "chat": _CHAT, "from": _PERSON, "message_thread_id": 7, "is_topic_message": True, "text": "/mem",
    "entities": [{"type": "bot_command", "offset": 0, "length": 4}],
    "reply_to_message": {"message_id": 2, "date": 0, "chat": _CHAT, "text": "hi"},
    "reply_markup": {"inline_keyboard": [[{"text": "Top", "callback_data": "t"}]]},
}  # fmt: skip
_MEMBER = {"status": "member", "user": _PERSON}
_UPDATES = [
    {"update_id": 1, "message": _MESSAGE},
    {"update_id": 2, "callback_query": {"id": "1", "from": _PERSON, "message": _MESSAGE, "chat_instance": "1", "data": "t"}},
    {
        "update_id": 3,
        "my_chat_member": {
            "chat": _CHAT, "from": _PERSON, "date": 0, "old_chat_member": _MEMBER,
            "new_chat_member": {"status": "left", "user": _PERSON},
        },
    },
]  # fmt: skip

# What is read of the types that hold nearly all others; the rest of them comes as it was sent.
_READ = {
    "Update": {"update_id", "message", "callback_query", "my_chat_member"},
    "Message": {
        "message_id", "date", "chat", "from_user", "sender_chat", "forward_origin", "via_bot", "text", "caption", "entities",
        "message_thread_id", "is_topic_message", "migrate_to_chat_id", "migrate_from_chat_id",
    },
    "Chat": {"id", "type", "title", "username", "first_name", "last_name", "is_forum"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loaded:
    """How aiogram was imported. `why` says why its models are not deferred although that was wanted."""

    deferred: bool
    why: str = ""


# What the first `load` of this process did: an import cannot be taken back.
_done: list[Loaded] = []


def load(*, light: bool) -> Loaded:
    """Import aiogram, its models deferred when `light`; later calls say what the first one did. Warns of a fallback."""
    if not _done:
        _done.append(_load_light() if light else _load_plain(""))
    loaded = _done[0]
    if light and loaded.why:
        log.warning("aiogram's models are not deferred: it takes about 100 MB more", why=loaded.why)
    return loaded


def _load_plain(why: str) -> Loaded:
    importlib.import_module("aiogram")
    return Loaded(deferred=False, why=why)


def _load_light() -> Loaded:
    if "aiogram" in sys.modules:
        return Loaded(deferred=False, why="aiogram was imported before")
    if why := _out_of_bounds(version("aiogram"), AIOGRAM) or _out_of_bounds(version("pydantic"), PYDANTIC):
        return _load_plain(why)
    try:
        with _no_rebuild():
            importlib.import_module("aiogram")
        _build_on_first_use()
        _leave_unread()
        try_out()
    except Exception as trouble:  # noqa: BLE001 - whatever it was, the plain import does not need what failed
        _forget()
        return _load_plain(" ".join(f"{type(trouble).__name__}: {trouble}".split())[:300])
    return Loaded(deferred=True)


def _out_of_bounds(found: str, bounds: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """Why this version is not one that was tried; empty when it is."""
    major, minor = found.split(".")[:2]
    least, above = bounds
    return "" if least <= (int(major), int(minor)) < above else f"version {found} was not tried"


@contextmanager
def _no_rebuild() -> Iterator[None]:
    """Let `model_rebuild` of every model do nothing for the moment."""
    from pydantic import BaseModel

    plain = BaseModel.__dict__["model_rebuild"]
    try:
        setattr(BaseModel, "model_rebuild", classmethod(lambda *_, **__: None))  # noqa: B010 - mypy forbids the assignment
        yield
    finally:
        setattr(BaseModel, "model_rebuild", plain)  # noqa: B010 - as above


def _build_on_first_use() -> None:
    """Give aiogram's own bases a `model_rebuild` that finds all types of the Bot API, as the loop in aiogram.types does."""
    from aiogram import types
    from aiogram.client.default import Default
    from aiogram.methods.base import Response, TelegramMethod
    from pydantic import BaseModel

    namespace = {
        "List": list, "Optional": Optional, "Union": Union, "Literal": Literal, "Default": Default,
        **{name: getattr(types, name) for name in types.__all__},
    }  # fmt: skip
    plain = BaseModel.__dict__["model_rebuild"].__func__

    def model_rebuild(cls: type[BaseModel], /, *, _types_namespace: Mapping[str, Any] | None = None, **how: Any) -> Any:  # noqa: ANN401 - pydantic's own
        return plain(cls, _types_namespace={**namespace, **(_types_namespace or {})}, **how)

    for base in (types.TelegramObject, TelegramMethod, Response):
        setattr(base, "model_rebuild", classmethod(model_rebuild))  # noqa: B010 - mypy forbids the assignment


def _leave_unread() -> None:
    """Take what nobody reads as it comes: a Message holds two hundred types, whose validators weigh 6 MB and 0.1 s of CPU."""
    from aiogram import types
    from pydantic.fields import FieldInfo

    for name, read in _READ.items():
        fields = getattr(types, name).__pydantic_fields__
        if missing := read - set(fields):
            raise TypeError(f"{name} has no {min(missing)}")
        for field in set(fields) - read:
            fields[field] = FieldInfo.from_annotated_attribute(Any, None)


def try_out() -> None:
    """Build and use every model that the adapter needs, so that nothing fails, or costs its first use, while it polls."""
    from aiogram import methods, types
    from aiogram.methods.base import Response

    # From the inside out: what holds a finished model shares its validator, else each builds Telegram's whole tree anew.
    for model in (types.User, types.Chat, types.Message):
        model.model_rebuild()
    updates = Response[list[types.Update]].model_validate({"ok": True, "result": _UPDATES}).result or []
    if [update.event_type for update in updates] != ["message", "callback_query", "my_chat_member"]:
        raise TypeError("updates are not read as they should be")
    for returned, result in ((types.Message, _MESSAGE), (types.User, _PERSON), (bool, True), (types.Message | bool, True)):
        Response[returned].model_validate({"ok": True, "result": result})  # type: ignore[valid-type]
    Response[types.WebhookInfo].model_validate(
        {"ok": True, "result": {"url": "", "has_custom_certificate": False, "pending_update_count": 0}}
    )
    button = types.InlineKeyboardButton(text="Top", callback_data="t", style="danger")
    markup = types.InlineKeyboardMarkup(inline_keyboard=[[button]])
    off = types.LinkPreviewOptions(is_disabled=True)
    for method in (
        methods.GetMe(),
        methods.GetUpdates(offset=1),
        methods.GetWebhookInfo(),
        methods.DeleteWebhook(),
        methods.SetMyCommands(commands=[types.BotCommand(command="mem", description="Memory")]),
        methods.SendMessage(chat_id=1, text="t", reply_markup=markup, link_preview_options=off),
        methods.EditMessageText(chat_id=1, message_id=1, text="t", reply_markup=markup, link_preview_options=off),
        methods.AnswerCallbackQuery(callback_query_id="1", text="t"),
    ):
        method.model_dump(warnings=False)


def _forget() -> None:
    """Take back a half-good import, so that the next one starts anew."""
    for name in [name for name in sys.modules if name == "aiogram" or name.startswith("aiogram.")]:
        del sys.modules[name]
