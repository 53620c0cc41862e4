"""The socket's folder under /tmp: somebody else may have made one of that name first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot import doorway

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
