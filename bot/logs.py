"""Logs: structlog to stderr, one line an event; no token ever leaves through them."""

from __future__ import annotations

import io
import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

# Tokens of both platforms, wherever they stand: Telegram's is a part of its URLs, and aiohttp's errors carry whole URLs.
TOKENS = re.compile(r"bot\d{5,}:[\w-]{10,}|\b\d{5,}:[\w-]{30,}|xox[a-z]-[\w-]+|xapp-[\w-]+")


def hide(text: str) -> str:
    """The text without the platforms' tokens."""
    return TOKENS.sub("•••", text)


def _hide_tokens(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's
    del logger, name
    return {key: hide(value) if isinstance(value, str) else value for key, value in event.items()}


class _Stderr(io.TextIOBase):
    """Whatever sys.stderr is now: while a prompt stands at the terminal, that prints above it (prompt_toolkit.patch_stdout)."""

    def write(self, text: str) -> int:
        """Pass it on."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Pass it on."""
        sys.stderr.flush()


class _Plain(logging.Formatter):
    """The libraries' own records, without tokens, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return hide(super().format(record))


def configure(level: str) -> None:
    """Send everything from `level` up to stderr."""
    number = getattr(logging, level.upper())
    stderr = cast("TextIO", _Stderr())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _hide_tokens,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stderr),
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(_Plain("%(asctime)s [%(levelname)s] %(name)s: %(message)s"))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
