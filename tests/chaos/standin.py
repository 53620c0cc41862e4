"""What a target's `journalctl` and `systemctl` run: the stand-in of tests/emulators/journalctl.py, and files of answers.

`standin.py FOLDER NAME ARGUMENTS…`, alone, without the project. Each call asks the test behind FOLDER/gate whether it may go on,
before it does anything, and once all is said (a follower: once it waits for more), so that a test counts calls and stops them.
With a file FOLDER/stamps a follower notes there when it wrote a line: nanoseconds of CLOCK_MONOTONIC, and the line's cursor.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

JOURNALCTL = os.path.join(os.path.dirname(__file__), "../emulators/journalctl.py")  # noqa: PTH118, PTH120 - pathlib is slow to import


class Gate:
    """The test's say; where nobody is at the gate all may pass."""

    def __init__(self, folder: str, words: list[str]) -> None:
        self._line: socket.socket | None = socket.socket(socket.AF_UNIX)
        try:
            self._line.connect(f"{folder}/gate")
        except OSError:
            self._line = None
            return
        self._ask(json.dumps([words[0], os.getpid(), *words[1:]]))

    def tell(self, word: str) -> None:
        """Wait to be let go on."""
        if self._line is not None:
            self._ask(word)

    def _ask(self, word: str) -> None:
        assert self._line is not None
        self._line.sendall(word.encode() + b"\n")
        if not self._line.recv(64):
            os._exit(1)


def journalctl() -> ModuleType:
    spec = importlib.util.spec_from_file_location("journalctl", JOURNALCTL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def follow(module: Any, folder: str, gate: Gate) -> None:  # noqa: ANN401 - a module
    """Let a follower tell when it waits, and when it writes."""
    wait, out = module.Bell.wait, module.Show.out
    told: list[bool] = []

    def waits(bell: object) -> None:
        if not told:
            told.append(True)
            gate.tell("following")
        wait(bell)

    def writes(show: object, lines: list[str]) -> None:
        written = []
        for line in lines:
            written.append((time.monotonic_ns(), line))
            out(show, [line])
        told_of = [f"{at_ns} {json.loads(line)['__CURSOR']}\n" for at_ns, line in written]
        os.write(stamps, "".join(told_of).encode())

    module.Bell.wait = waits
    if os.path.exists(f"{folder}/stamps"):  # noqa: PTH110 - pathlib is slow to import
        stamps = os.open(f"{folder}/stamps", os.O_WRONLY | os.O_APPEND)
        module.Show.out = writes


def systemctl(folder: str, words: list[str]) -> None:
    """Answers are files by the verb, units in blocks: FOLDER/systemctl-VERB; those that are named, all when none is."""
    verb, *named = [word for word in words if re.fullmatch(r"[\w@.\\:-]+", word) and not word.startswith("-")] or [""]
    named = [name for name in named if "." in name]
    with contextlib.suppress(FileNotFoundError), open(f"{folder}/systemctl-{verb}", encoding="utf-8") as answer:  # noqa: PTH123
        blocks = answer.read().strip("\n").split("\n\n")
        mine = [block for block in blocks if not named or any(f"\nId={name}\n" in f"\n{block}\n" for name in named)]
        sys.stdout.write("\n\n".join(mine) + "\n")
        sys.stdout.flush()


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    folder, *words = sys.argv[1:]
    gate = Gate(folder, words)
    if words[0] == "journalctl":
        module = journalctl()
        follow(module, folder, gate)
        module.main(f"{folder}/log", words[1:])
    else:
        systemctl(folder, words[1:])
    sys.stdout.flush()
    gate.tell("said")


if __name__ == "__main__":
    main()
