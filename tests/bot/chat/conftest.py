"""What the chats' tests share."""

from __future__ import annotations

import pytest

# Its checks are asserts that no test module holds.
pytest.register_assert_rewrite("tests.bot.chat.contract")
