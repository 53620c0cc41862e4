"""What the kinds share: which program a command line starts, its options, and digests of settings."""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from remote.facts.processes import Process

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
# Python's own options that take a word of their own (`python -W error -m celery`).
_PYTHON_VALUES = {"-W", "-X", "--check-hash-based-pycs"}
_MODULE = re.compile(r"-[bBdEiIOPqsSuvx]*m(.*)", re.DOTALL)
_CODE = re.compile(r"-[bBdEiIOPqsSuvx]*c")
# Nobody can reverse a setting (a broker's URL holds a password) without this process' memory.
_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Program:
    """The program behind a command line: its name (`celery`), its path as far as it is told, and its arguments.

    For an interpreter it is the script or the module; `interpreted` then is True.
    """

    name: str
    path: str
    args: tuple[str, ...]
    interpreted: bool = False


def program(argv: Sequence[str], cwd: str = "") -> Program | None:
    """Which program `argv` starts; None for an empty line, `python -c`, or an interpreter without a script."""
    if not argv or not argv[0]:
        return None
    first = argv[0].removeprefix("-")
    if not _PYTHON.fullmatch(posixpath.basename(first)):
        return Program(posixpath.basename(first), _absolute(first, cwd), tuple(argv[1:]))
    return _python_program(argv, cwd)


def _python_program(argv: Sequence[str], cwd: str) -> Program | None:
    at = 1
    while at < len(argv) and argv[at].startswith("-"):
        word = argv[at]
        if found := _MODULE.fullmatch(word):
            module, rest = (found[1], argv[at + 1 :]) if found[1] else (_at(argv, at + 1), argv[at + 2 :])
            return _module(module, argv[0], tuple(rest))
        if word == "-" or _CODE.match(word):
            return None
        at += 2 if word in _PYTHON_VALUES else 1
    script = _at(argv, at)
    if not script:
        return None
    return Program(posixpath.basename(script), _absolute(script, cwd), tuple(argv[at + 1 :]), interpreted=True)


def _at(argv: Sequence[str], at: int) -> str:
    return argv[at] if at < len(argv) else ""


def _module(module: str, python: str, rest: tuple[str, ...]) -> Program | None:
    """`/venv/bin/python -m celery` is the /venv/bin/celery of that environment."""
    name = module.split(".", 1)[0]
    if not name:
        return None
    folder = posixpath.dirname(python)
    return Program(name, f"{folder}/{name}" if folder.startswith("/") else f"-m {name}", rest, interpreted=True)


def _absolute(path: str, cwd: str) -> str:
    """The path with merged-/usr's links and `..` resolved by name; a bare name stays one."""
    if "/" not in path:
        return path
    whole = posixpath.normpath(posixpath.join(cwd or "/", path))
    return f"/usr{whole}" if whole.startswith(("/bin/", "/sbin/")) else whole


def by_python(process: Process) -> bool:
    """Whether the executable, where it may be read, is a Python interpreter."""
    return process.exe is None or _PYTHON.fullmatch(posixpath.basename(process.exe)) is not None


def python_program(argv: Sequence[str], process: Process) -> Program | None:
    """The program, for kinds that are Python scripts. The kernel puts the interpreter before a script, so a running
    process whose first word is the script itself only claims to be it; a unit that does not run (pid 0) has no process."""
    found = program(argv, process.cwd or "")
    if found is None or (not found.interpreted and process.pid):
        return None
    return found


@dataclass(frozen=True, slots=True)
class Options:
    """Options by their name as written (`-c`, `--concurrency`), each with all its values, and the other words."""

    named: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]

    def last(self, *names: str) -> str:
        """The last value of the option under any of its names; empty when it was not given."""
        values = self.all(*names)
        return values[-1] if values else ""

    def all(self, *names: str) -> tuple[str, ...]:
        """All values of the option."""
        return tuple(value for name in names for value in self.named.get(name, ()))

    def number(self, *names: str) -> int:
        """The last value as a whole number; 0 when there is none."""
        value = self.last(*names)
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else 0  # noqa: PLR2004 - no more is meant

    def has(self, *names: str) -> bool:
        """Whether the option was given at all."""
        return any(name in self.named for name in names)


def options(args: Iterable[str], flags: Collection[str]) -> Options:
    """Read `-c 2`, `-c2`, `--name=value`, `--name value`, `-BE`. All options but `flags` take a value."""
    named: dict[str, list[str]] = {}
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            takes = not equals and name not in flags
            named.setdefault(name, []).append(_next(rest) if takes else value)
        else:
            _cluster(word, rest, flags, named)
    return Options({name: tuple(values) for name, values in named.items()}, tuple(words))


def _cluster(word: str, rest: list[str], flags: Collection[str], named: dict[str, list[str]]) -> None:
    """`-BE` are two flags, `-c2` an option and its value, `-c 2` and `-c:w1 2` one with the next word."""
    for at, letter in enumerate(word[1:], 2):
        name = f"-{letter}"
        if name in flags:
            named.setdefault(name, []).append("")
            continue
        value = word[at:]
        if not value or value.startswith(":"):
            named.setdefault(name + value, []).append(_next(rest))
        else:
            named.setdefault(name, []).append(value.removeprefix("="))
        return


def _next(rest: list[str]) -> str:
    return rest.pop(0) if rest else ""


def settings(pairs: Mapping[str, str]) -> str:
    """`Role.settings`: words `name=digest`, sorted; empty values left out. The digests hold for this process only."""
    return " ".join(
        f"{name}={hmac.new(_KEY, value.encode('utf-8', 'surrogateescape'), hashlib.sha256).hexdigest()[:16]}"
        for name, value in sorted(pairs.items())
        if value
    )
