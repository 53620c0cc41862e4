"""What real hosts answered, and the shells of this machine to ask it with."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from remote.facts.base import Fact

RECORDED = Path(__file__).parents[2] / "recorded"

SHELLS = [
    pytest.param(("sh",), id="sh"),
    pytest.param(("dash",), id="dash", marks=pytest.mark.openssh),
    pytest.param(("bash", "--posix"), id="bash", marks=pytest.mark.openssh),
    pytest.param(("busybox", "sh"), id="busybox", marks=pytest.mark.openssh),
]


def recorded(name: str) -> str:
    """An answer as a channel gives it."""
    return (RECORDED / name).read_bytes().decode("utf-8", "surrogateescape")


def asked(fact: Fact[Any], shell: tuple[str, ...], applets: Path) -> str:
    """What this machine answers in `shell`; for busybox with nothing but its own applets in PATH."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    if shell[0] == "busybox":
        subprocess.run(["busybox", "--install", "-s", str(applets)], check=True)
        path, shell = str(applets), (str(applets / "sh"),)
    environment = {"PATH": path, "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(
        [*shell, "-c", fact.script], stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=True, timeout=60
    )
    return done.stdout.decode("utf-8", "surrogateescape")
