"""Things in the order of their time, to find those near a moment without going through all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

_Thing = TypeVar("_Thing")


class Timeline(Generic[_Thing]):
    """Things by their microsecond. What comes nearly in order is added and found in no time."""

    def __init__(self) -> None:
        """Empty."""
        self._keys: list[tuple[int, int]] = []
        self._things: dict[tuple[int, int], _Thing] = {}
        self._added = 0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, at_us: int, thing: _Thing) -> tuple[int, int]:
        """Gives the key to `remove` it by."""
        self._added += 1
        key = (at_us, self._added)
        self._things[key] = thing
        insort(self._keys, key)
        return key

    def remove(self, key: tuple[int, int]) -> None:
        """Take out what was added under this key, if it is still there."""
        if self._things.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def newest(self, first_us: int, last_us: int) -> Iterator[_Thing]:
        """What lies between two moments, the newest first."""
        for at in range(bisect_right(self._keys, (last_us, self._added)) - 1, -1, -1):
            key = self._keys[at]
            if key[0] < first_us:
                return
            yield self._things[key]

    def oldest(self, first_us: int, last_us: int) -> Iterator[_Thing]:
        """What lies between two moments, the oldest first."""
        for at in range(bisect_left(self._keys, (first_us, 0)), len(self._keys)):
            key = self._keys[at]
            if key[0] > last_us:
                return
            yield self._things[key]

    def forget(self, before_us: int) -> None:
        """Drop what is older."""
        cut = bisect_left(self._keys, (before_us, 0))
        for key in self._keys[:cut]:
            del self._things[key]
        del self._keys[:cut]
