"""The stand-in journalctl: what it does by itself, and that it does what the real one does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.emulators.journal_store import JournalStore
from tests.remote.facts.real_journal import read_journal, write_journal

AT = 1_795_477_675_000_000
OTHER_BOOT = "a8782d3e3ac14b53839ea89be36068a9"


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    store = JournalStore(tmp_path / "journal")
    store.install(tmp_path / "bin")
    return store


def shown(store: JournalStore, *arguments: str) -> list[str]:
    program = store.folder.parent / "bin/journalctl"
    done = subprocess.run([program, "-o", "json", *arguments], capture_output=True, check=True, timeout=60)
    return [json.loads(line)["MESSAGE"] for line in done.stdout.splitlines()]


@contextmanager
def followed(store: JournalStore, *arguments: str) -> Iterator[Iterator[str]]:
    program = store.folder.parent / "bin/journalctl"
    words: list[str | Path] = [program, "-f", "--no-tail", "-o", "json", *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        try:
            yield (json.loads(line)["MESSAGE"] for line in running.stdout)
        finally:
            running.kill()


def test_it_goes_on_from_a_cursor(store: JournalStore) -> None:
    cursors = [store.write(f"m{number}", at_us=AT + number) for number in range(5)]
    assert shown(store, f"--cursor={cursors[3]}") == ["m3", "m4"]
    assert shown(store, f"--cursor={cursors[1]}", "-n", "1") == ["m1"]
    assert shown(store, f"--after-cursor={cursors[3]}") == ["m4"]
    assert shown(store, "-n", "2") == ["m3", "m4"]
    assert shown(store, "-r", "-n", "2") == ["m4", "m3"]


def test_it_shows_what_comes_over_a_rotation_and_a_vacuum(store: JournalStore) -> None:
    first = store.write("m0", at_us=AT)
    with followed(store, f"--cursor={first}") as lines:
        assert next(lines) == "m0"
        store.write("m1", at_us=AT + 1)
        assert next(lines) == "m1"
        store.rotate()
        store.write("m2", at_us=AT + 2)
        assert next(lines) == "m2"
        store.vacuum()
        store.write("m3", at_us=AT + 3)
        assert next(lines) == "m3"
        store.crash()
        store.write("m4", at_us=AT + 4)
        assert next(lines) == "m4"
        store.die()
        assert list(lines) == []


def test_a_line_counts_when_it_is_whole(store: JournalStore) -> None:
    store.write("m0", at_us=AT)
    text = store.path().read_bytes()
    store.path().write_bytes(text[:50])
    with followed(store) as lines:
        with store.path().open("ab") as file:
            file.write(text[50:])
        assert next(lines) == "m0"


def test_it_is_quick_enough_for_a_flood(store: JournalStore) -> None:
    """Faster than 5,000 lines a second by far, what does not match told nobody."""
    with followed(store, "-o", "json", "_TRANSPORT=kernel", "--grep=wanted") as lines:
        flood = [
            json.dumps({"__CURSOR": f"s=1;i={i:x};b=2;m=1;t=1;x=1", "MESSAGE": "x" * 200, "_TRANSPORT": "stdout"})
            for i in range(20_000)
        ]
        with store.path().open("a") as file:
            file.write("\n".join(flood) + "\n")
        store.kernel("wanted", at_us=AT)
        assert next(lines) == "wanted"


@pytest.mark.parametrize(
    ("version", "argument"),
    [("219 -PCRE2", "--output-fields=A"), ("241 +PCRE2", "--namespace=*"), ("252 -PCRE2", "--grep=x"), ("252 +PCRE2", "--wat")],
)
def test_what_it_does_not_know_ends_it(store: JournalStore, version: str, argument: str) -> None:
    (store.folder / "version").write_text(f"systemd {version}\n")
    done = subprocess.run([store.folder.parent / "bin/journalctl", argument], capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr


def entry(number: int, boot: str, at_us: int, **fields: object) -> dict[str, object]:
    return {
        "__REALTIME_TIMESTAMP": str(at_us),
        "__MONOTONIC_TIMESTAMP": str(1_000_000 + number * 1000),
        "_BOOT_ID": boot,
        "MESSAGE": f"m{number}",
        **fields,
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JournalStore]:
    """The same journal twice: two boots in two files, the second with a clock that was set back for a while."""
    folder = tmp_path_factory.mktemp("real")
    one = JournalStore(folder / "stand-in").boot_id
    transports = ("kernel", "stdout", "journal")
    kinds = [{"_TRANSPORT": transports[number % 3], "_PID": str(1 + number % 2)} for number in range(20)]
    write_journal(folder / "real/a.journal", [entry(i, one, AT + i * 1_000_000, **kinds[i]) for i in range(20)])
    write_journal(
        folder / "real/b.journal", [entry(100 + i, OTHER_BOOT, AT + 10_500_000 + i * 1_000_000, **kinds[i]) for i in range(20)]
    )
    store = JournalStore(folder / "stand-in")
    for name in ("a", "b"):
        lines = [json.dumps(found) + "\n" for found in read_journal(f"--file={folder / 'real' / name}.journal")]
        store.path(name).write_text("".join(lines))
    store.install(folder / "bin")
    return folder / "real", store


FUTURE = f"s=00000000000000000000000000000001;i=1;b={OTHER_BOOT[::-1]};m=1;t=7fffffffffff0;x=1"


@pytest.mark.openssh
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-n", "3"],
        ["-r"],
        ["-r", "-n", "4"],
        ["--cursor={a5}"],
        ["--cursor={a5}", "-n", "1"],
        ["--cursor={a5}", "_TRANSPORT=stdout"],
        ["--cursor={a5}", "_TRANSPORT=stdout", "_PID=1", "+", "_TRANSPORT=kernel"],
        ["_TRANSPORT=stdout", "_TRANSPORT=kernel", "_PID=2"],
        ["--after-cursor={a5}"],
        ["--after-cursor={a5}", "_TRANSPORT=journal"],
        ["--after-cursor={a4}", "_TRANSPORT=journal"],
        ["--cursor={b0}"],
        ["--cursor={b7}", "-n", "1"],
        ["--cursor={b19}"],
        [f"--cursor={FUTURE}"],
        [f"--cursor={FUTURE.replace('7fffffffffff0', f'{AT + 5_500_000:x}')}"],
        [f"--cursor={FUTURE.replace('7fffffffffff0', f'{AT + 25_500_000:x}')}", "-n", "1"],
        [f"--since=@{AT // 1_000_000 + 12}"],
        [f"--since=@{AT // 1_000_000 + 12}", "-r", "_TRANSPORT=kernel"],
        [f"--boot={OTHER_BOOT}", "_TRANSPORT=kernel"],
        [f"--boot={OTHER_BOOT[::-1]}"],
        ["--grep=m1[0-5]"],
        ["--grep=M1"],
        ["--grep=m1", "--case-sensitive=yes"],
    ],
    ids=" ".join,
)
def test_it_does_what_the_real_one_does(both: tuple[Path, JournalStore], arguments: list[str]) -> None:
    folder, store = both
    cursors = {
        f"{name}{number}": str(found["__CURSOR"])
        for name in "ab"
        for number, found in enumerate(read_journal(f"--file={folder / name}.journal"))
    }
    words = [argument.format(**cursors) for argument in arguments]
    program = store.folder.parent / "bin/journalctl"
    done = subprocess.run([program, "-o", "json", *words], capture_output=True, check=False, timeout=60)
    mine = [json.loads(line) for line in done.stdout.splitlines()]

    assert mine == read_journal(f"--directory={folder}", *words)
