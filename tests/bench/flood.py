"""Application lines into a journal of tests/emulators/journalctl.py, at a rate: `flood.py FOLDER ORDER`, alone, without the project.

ORDER is JSON: `rate` (lines a second), `seconds`, `offset_s` (of the target's clock), `booted_us`, and `entries`, taken in turn,
whose text may hold `@N@`, which is another number in each line. The file is rotated and vacuumed as a real one would be. At the
end it says how many lines it wrote in how many seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time

STEP_S = 0.01
ROTATED_AT = 50_000  # lines


class Flood:
    """The file that grows."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._archives = 0
        self._open()

    def _open(self) -> None:
        self._file = os.open(f"{self._folder}/app.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, text: str) -> None:
        os.write(self._file, text.encode())

    def rotate(self) -> None:
        """Only the newest archive stays."""
        self._archives += 1
        os.rename(f"{self._folder}/app.jsonl", f"{self._folder}/app@{self._archives:04}.jsonl")  # noqa: PTH104 - pathlib is slow
        os.close(self._file)
        self._open()
        if self._archives > 1:
            os.unlink(f"{self._folder}/app@{self._archives - 1:04}.jsonl")  # noqa: PTH108 - the same


def main() -> None:
    folder, order = sys.argv[1], json.loads(sys.argv[2])
    bodies = [json.dumps(entry)[1:] for entry in order["entries"]]
    boot = order["entries"][0]["_BOOT_ID"]
    flood, written, began = Flood(folder), 0, time.monotonic()
    while (passed := time.monotonic() - began) < order["seconds"]:
        due = int(passed * order["rate"]) - written
        now_us = int((time.time() + order["offset_s"]) * 1e6)
        lines = []
        for n in range(due):
            at_us, number = now_us + n, written + n
            monotonic_us = at_us - order["booted_us"]
            lines.append(
                f'{{"__CURSOR":"s=f100d;i={number + 1:x};b={boot};m={monotonic_us:x};t={at_us:x};x={number:x}",'
                f'"__REALTIME_TIMESTAMP":"{at_us}","__MONOTONIC_TIMESTAMP":"{monotonic_us}",'
                + bodies[number % len(bodies)].replace("@N@", str(700_000 + number % 100_000))
                + "\n"
            )
        flood.write("".join(lines))
        if written // ROTATED_AT != (written + due) // ROTATED_AT:
            flood.rotate()
        written += due
        time.sleep(STEP_S)
    sys.stdout.write(f"{written} {time.monotonic() - began}\n")


if __name__ == "__main__":
    main()
