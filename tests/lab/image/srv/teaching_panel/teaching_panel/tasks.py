"""Tasks that tests send: what they did stands in a file."""

import time
from pathlib import Path

from teaching_panel.celery import app

MIB = 1024 * 1024
LEAK: list = []


def _append(path, word):
    with Path(path).open("a") as file:
        file.write(word + "\n")


@app.task
def sleep_task(seconds, path):
    """Write `started`, work for so many seconds, write `finished`."""
    _append(path, "started")
    time.sleep(seconds)
    _append(path, "finished")


@app.task
def touch(path):
    """Make or touch a file."""
    Path(path).touch()


@app.task
def grow(mib):
    """Keep so many MiB more."""
    LEAK.append(b"x" * (mib * MIB))
    return len(LEAK[-1])
