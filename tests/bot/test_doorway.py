"""The socket's folder under /tmp: somebody else may have made one of that name first."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bot import doorway
from bot.store import StoreError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("made", ["open to all", "a link"])
async def test_nobody_speaks_through_a_folder_that_is_not_the_user_s_alone(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "memwarden-0-abc"
    if made == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setattr(doorway, "socket_path", lambda _: folder / "s")

    with pytest.raises(ConnectionError, match="belongs to somebody else"):
        await anext(doorway.through("sqlite:///x.db", "owner", "/mem", as_json=True))


async def test_of_two_that_start_at_once_one_gets_the_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'memwarden.db'}"
    settings = SimpleNamespace(store=url)
    doors = [doorway.Doorway(SimpleNamespace(settings=settings)) for _ in range(5)]  # type: ignore[arg-type]
    came_to = await asyncio.gather(*(door.open() for door in doors), return_exceptions=True)
    try:
        assert [type(one) for one in came_to if one is not None] == [StoreError] * 4
    finally:
        for door in doors:
            await door.close()
    again = doorway.Doorway(SimpleNamespace(settings=settings))  # type: ignore[arg-type]
    await again.open()
    await again.close()
