"""The command line as scripts meet it: exit codes, one JSON object, one line on stderr, alone and through a running process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.ask import NotAllowed, console_language, who
from bot.doorway import LONGEST_PATH, socket_path
from bot.settings import ChatSettings, Language, PersonSettings, Settings, TelegramSettings

ROOT = Path(__file__).parents[2]
PEOPLE = """
[people.owner]
console = true
role = "admin"
"""
VIEWER = """
[people.vera]
console = true
role = "viewer"
"""
HOSTS = """
[hosts.here]
address = "local"
"""
LOST = """
[hosts.lost]
address = "127.0.0.1"
port = 1
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
"""


class Shop:
    """A directory with settings and a store, where memwarden is called."""

    def __init__(self, place: Path, template: Path) -> None:
        self.place = place
        shutil.copy(template, place / "memwarden.db")
        self.settings(PEOPLE, HOSTS)

    def settings(self, *parts: str) -> None:
        (self.place / "memwarden.toml").write_text("".join(parts), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("MEMWARDEN_")}
        return {**ours, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def call(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One call, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "bot", *words], cwd=self.place, env=self.environment, input=stdin, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def ask(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """`ask --json`: the exit status, the one object, stderr."""
        done = self.call("ask", "--json", *words)
        lines = done.stdout.splitlines()
        assert len(lines) == 1, done
        return done.returncode, json.loads(lines[0]), done.stderr

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """A bot on this store, ready, with an open stdin."""
        process = subprocess.Popen(
            [sys.executable, "-m", "bot", "run", "--as", "owner"], cwd=self.place, env=self.environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            while "ready" not in (line := process.stderr.readline()):
                assert line, "it ended before it was ready"
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture
def shop(tmp_path: Path, migrated: Path) -> Shop:
    return Shop(tmp_path, migrated)


SHAPE = {"command", "ok", "error", "hosts", "data", "buttons"}


def test_a_question_is_answered_as_one_object(shop: Shop) -> None:
    status, said, errors = shop.ask("/mem here")

    assert (status, errors) == (0, "")
    assert said.keys() == SHAPE
    assert (said["command"], said["ok"], said["error"], said["data"]) == ("mem", True, None, {})
    (host,) = said["hosts"]
    assert host.keys() == {"host", "ok", "error", "data"}
    assert (host["host"], host["ok"], host["error"]) == ("here", True, None)
    assert 0 < host["data"]["used_percent"] < 100
    assert isinstance(host["data"]["total_bytes"], int)
    assert {"label", "command"} == said["buttons"][0].keys()


def test_a_question_is_answered_in_words(shop: Shop) -> None:
    done = shop.call("ask", "/mem")

    assert done.returncode == 0
    assert done.stdout.startswith("here: ")
    assert done.stderr == ""


def test_a_host_that_does_not_answer_fails_in_one_line_and_the_other_answers(shop: Shop) -> None:
    shop.settings(PEOPLE, HOSTS, LOST)
    status, said, errors = shop.ask("/mem lost here")

    assert status == 1
    assert not said["ok"]
    assert said["error"] is None
    assert [(one["host"], one["ok"]) for one in said["hosts"]] == [("lost", False), ("here", True)]
    assert said["hosts"][0]["error"]["kind"] == "unreachable"
    assert len(errors.splitlines()) == 1
    assert "lost" in errors


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        (["/mme"], 2, "usage"),
        (["/mem nowhere"], 2, "usage"),
        ([" "], 2, "usage"),
        (["/approve zzzz"], 1, "not-found"),
        (["--as", "nobody", "/mem"], 1, "refused"),
    ],
)
def test_what_is_refused_is_one_object_and_one_line(words: list[str], status: int, kind: str, shop: Shop) -> None:
    code, said, errors = shop.ask(*words)

    assert code == status
    assert said.keys() == SHAPE
    assert not said["ok"]
    assert said["error"]["kind"] == kind
    assert said["error"]["text"]
    assert len(errors.splitlines()) == 1


def test_settings_that_make_no_sense_are_one_object_too(shop: Shop) -> None:
    shop.settings('langage = "ru"')
    code, said, errors = shop.ask("/mem")

    assert (code, said["error"]["kind"]) == (1, "settings")
    assert "did you mean 'language'?" in said["error"]["text"]
    assert len(errors.splitlines()) == 1


def test_each_wrong_setting_is_a_line(shop: Shop) -> None:
    shop.settings('langage = "ru"\nhorst = 1')
    code, said, errors = shop.ask("/mem")

    assert (code, said["error"]["kind"]) == (1, "settings")
    assert [one.split(": ")[1] for one in errors.splitlines()] == ["langage", "horst"]
    assert said["error"]["text"] == errors.splitlines()[0]


def test_ask_that_is_called_wrongly_says_how_it_is_called(shop: Shop) -> None:
    for words in (("ask", "--json"), ("ask", "--json", "--nope", "/mem")):
        done = shop.call(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Usage: " in done.stderr


@pytest.mark.parametrize("store", ["sqlite:////nowhere/at/all/x.db", "postgresql://db.example/x", "what is this"])
def test_a_store_that_cannot_be_opened_is_one_object_too(store: str, shop: Shop) -> None:
    shop.settings(f'store = "{store}"', PEOPLE, HOSTS)
    code, said, errors = shop.ask("/mem")

    assert (code, said["error"]["kind"]) == (1, "refused")
    assert errors.startswith("store: ")
    assert len(errors.splitlines()) == 1
    done = shop.call("run", stdin="/quit\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", errors)


def test_who_asks() -> None:
    one = Settings(people={"a": PersonSettings(console=True), "b": PersonSettings(telegram="1")})
    several = Settings(people={"a": PersonSettings(console=True), "b": PersonSettings(console=True)})
    none = Settings(people={"b": PersonSettings(telegram="1")})

    assert who(one, None) == who(one, "a") == "a"
    assert who(several, "b") == "b"
    for settings, name in [(several, None), (none, None), (none, "b"), (one, "b"), (several, "c")]:
        with pytest.raises(NotAllowed):
            who(settings, name)


def test_several_people_must_say_who_they_are_and_may_what_they_may(shop: Shop) -> None:
    shop.settings(PEOPLE, VIEWER, HOSTS)
    code, said, _ = shop.ask("/mem")
    assert (code, said["error"]["kind"]) == (1, "refused")
    assert "--as: owner, vera" in said["error"]["text"]

    code, said, _ = shop.ask("--as", "vera", "/restart here celery.service")
    assert (code, said["ok"]) == (1, False)
    code, said, _ = shop.ask("--as", "vera", "/mem")
    assert (code, said["ok"]) == (0, True)


def test_through_a_running_process_it_is_the_same(shop: Shop) -> None:
    alone = shop.ask("/hosts")
    with shop.running() as process:
        assert stat.S_IMODE((shop.place / "memwarden.db.sock").stat().st_mode) == 0o600
        running = shop.ask("/hosts")
        refused = shop.ask("/mem nowhere")
        words = shop.call("ask", "/mem")
        nobody = shop.ask("--as", "nobody", "/mem")
        second = shop.call("run", stdin="/quit\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    assert running[0] == alone[0] == 0
    assert running[1].keys() == alone[1].keys()
    assert (refused[0], refused[1]["error"]["kind"]) == (2, "usage")
    assert words.stdout.startswith("here: ")
    assert (nobody[0], nobody[1]["error"]["kind"]) == (1, "refused")
    assert (second.returncode, second.stdout) == (1, "")
    assert "another memwarden runs on it already" in second.stderr
    assert not (shop.place / "memwarden.db.sock").exists()


def test_a_socket_that_a_crash_left_behind_is_in_nobody_s_way(shop: Shop) -> None:
    with shop.running() as process:
        process.kill()
        process.wait(30)
    assert (shop.place / "memwarden.db.sock").exists()
    assert shop.ask("/hosts")[0] == 0

    with shop.running():
        assert shop.ask("/hosts")[0] == 0


RUSSIAN = """
[chats.c]
console = true
language = "ru"
"""


def test_the_console_chat_s_language_is_spoken_alone_and_through_a_running_process(shop: Shop) -> None:
    shop.settings(PEOPLE, RUSSIAN, HOSTS)
    alone, refused = shop.call("ask", "/whoami"), shop.call("ask", "/mem nowhere")
    piped = shop.call("run", stdin="/whoami\n")
    with shop.running():
        through, refused_through = shop.call("ask", "/whoami"), shop.call("ask", "/mem nowhere")
        as_json = shop.ask("/mem nowhere")

    assert alone.stdout == through.stdout
    assert alone.stdout.strip() == piped.stdout.strip()
    assert "Вы" in alone.stdout
    assert refused.stderr == refused_through.stderr
    assert refused.stderr.startswith("Сервера nowhere")
    assert as_json[1]["error"]["text"].startswith("There is no host nowhere")


def test_a_person_s_language_comes_before_the_console_chat_s_and_that_before_the_general_one() -> None:
    def spoken(own: Language | None, chat: Language | None, general: Language) -> str:
        chats = {"t": ChatSettings(telegram="1", language="ru"), "c": ChatSettings(console=True, language=chat)}
        people, telegram = {"a": PersonSettings(console=True, language=own)}, TelegramSettings.model_validate({"token": "1:a"})
        return console_language(Settings(people=people, telegram=telegram, chats=chats, language=general), "a")

    assert spoken("en", "ru", "ru") == "en"
    assert spoken(None, "ru", "en") == "ru"
    assert spoken(None, None, "en") == "en"
    assert console_language(Settings(people={"a": PersonSettings(console=True)}, language="ru"), "a") == "ru"


def test_what_is_no_question_is_answered_in_one_line(shop: Shop) -> None:
    with shop.running():
        for question in (b"\n", b"nonsense\n", b"[1]\n", b"{}\n", b'{"text": "/mem", "as": "nobody"}\n'):
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(10)
                line.connect(str(shop.place / "memwarden.db.sock"))
                line.sendall(question)
                assert json.loads(line.makefile().readline()).keys() == {"complaint"}


@pytest.mark.root
def test_another_user_may_not_ask(shop: Shop) -> None:
    """Even where the socket's mode would let them (a service's directory that somebody opened)."""
    for path in (shop.place, *shop.place.parents):
        if path not in {Path("/"), Path("/tmp")}:
            path.chmod(path.stat().st_mode | 0o711)
    client = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"text": "/mem"}\\n\'); print(s.makefile().readline())'
    )
    with shop.running():
        path = shop.place / "memwarden.db.sock"
        path.chmod(0o666)
        said = subprocess.run(
            ["/usr/bin/setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", client, str(path)],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip

    assert json.loads(said.stdout) == {"complaint": "only the service's own user or root may ask here"}


def test_lines_from_a_pipe_are_answered_in_plain_text(shop: Shop) -> None:
    done = shop.call("run", stdin="/mem\n/whoami\n/nonsense\n/quit\n")

    assert done.returncode == 0
    assert done.stdout.startswith("here: ")
    assert "owner" in done.stdout
    assert "There is no command /nonsense." in done.stdout
    assert "\x1b" not in done.stdout


def test_the_end_of_input_ends_the_process_too(shop: Shop) -> None:
    done = shop.call("run", stdin="/mem")

    assert done.returncode == 0
    assert done.stdout.startswith("here: ")


def test_everything_works_without_any_settings(tmp_path: Path, migrated: Path) -> None:
    shop = Shop(tmp_path, migrated)
    (tmp_path / "memwarden.toml").unlink()
    done = shop.call("run", stdin="/mem\n/quit\n")

    assert done.returncode == 0
    assert done.stdout.startswith("local: ")


def test_check_says_what_is_wrong_and_what_to_do(shop: Shop) -> None:
    shop.settings(VIEWER, LOST)
    done = shop.call("check")

    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert all(line.startswith(("ok   ", "BAD  ")) for line in lines), lines
    assert "BAD  Nobody may approve a fix. Give somebody under [people] the role approver or admin." in lines
    assert any(line.startswith("BAD  lost: ") for line in lines)
    assert any(line.startswith("ok   Store: ") for line in lines)


def test_check_names_settings_that_make_no_sense(shop: Shop) -> None:
    shop.settings('langage = "ru"')
    done = shop.call("check")

    assert done.returncode == 1
    assert "did you mean 'language'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use_of_the_command_line_is_2(shop: Shop) -> None:
    assert shop.call("nonsense").returncode == 2
    assert shop.call("ask").returncode == 2
    missing = shop.call("--config", "/nowhere.toml", "ask", "/mem")
    assert (missing.returncode, missing.stderr) == (1, "/nowhere.toml: No such file or directory\n")


def test_the_version_is_the_project_s(shop: Shop) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shop.settings('langage = "ru"')  # it needs none
    done = shop.call("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"memwarden {project['version']}\n", "")


def test_where_the_socket_is(tmp_path: Path) -> None:
    beside = socket_path(f"sqlite:///{tmp_path}/a.db")
    assert beside == tmp_path / "a.db.sock"
    long = socket_path(f"sqlite:///{tmp_path}/{'x' * 120}.db")
    assert len(os.fsencode(long)) <= LONGEST_PATH
    assert long != socket_path(f"sqlite:///{tmp_path}/{'x' * 121}.db")
    assert socket_path("postgresql://localhost/x").name.startswith("memwarden-")


def test_an_end_by_signal_is_quick_and_clean(shop: Shop) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with shop.running() as process:
            began = time.monotonic()
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 0
            assert time.monotonic() - began < 15
            assert "Traceback" not in errors
