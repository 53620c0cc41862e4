"""The settings: what is read from where, and what is said when it makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter

from bot.settings import Bytes, HostSettings, PersonSettings, Seconds, Settings, SettingsError, load
from remote.policy import GIB, MIB

WHOLE = """
language = "ru"
store = "sqlite:///elsewhere.db"
[telegram]
token = "12345:abc"
[slack]
bot_token = "xoxb-1"
app_token = "xapp-1"
[chats.ops]
telegram = -1001234567890
topic = 7
hosts = ["prod", "web"]
[chats.dev]
slack = "C0123ABCD"
alerts = false
[people.owner]
telegram = 111111
slack = "T0123/U0123"
role = "approver"
[hosts.bastion]
address = "203.0.113.1"
[hosts.prod]
address = "203.0.113.7"
jump = "bastion"
host_key = "ssh-ed25519 AAAA"
keep = ["celery.service"]
never_touch = ["postgresql.service"]
health = { "teaching_panel.service" = "http://127.0.0.1:8000/" }
alerts = { memory_percent = 80, clear_percent = 70, hold = "2m" }
[hosts.web1]
address = "203.0.113.8"
groups = "web"
[hosts.web2]
address = "203.0.113.9"
groups = ["web", "spare"]
host_key = ["ssh-ed25519 AAAA", "ssh-ed25519 BBBB"]
[alerts]
critical_available = "200M"
repeat = "1h"
[approvals]
expire = "5m"
reviewers = 2
self_approve = false
[sizing]
gunicorn_memory_max = "1G"
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own."""
    import os

    for name in [name for name in os.environ if name.upper().startswith("MEMWARDEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


def read(text: str, tmp_path: Path) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def complaint(text: str, tmp_path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text, tmp_path)
    return str(caught.value)


def test_without_any_settings_this_machine_is_watched_and_its_user_is_an_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "panel")
    settings = load(None)

    assert settings.hosts == {"local": HostSettings(address="local")}
    assert settings.people == {"panel": PersonSettings(console=True, role="admin")}
    assert (settings.telegram, settings.slack, settings.chats) == (None, None, {})
    assert (settings.language, settings.store) == ("en", "sqlite:///memwarden.db")
    assert settings.seen_from("anything") == ("local",)


def test_the_file_in_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "memwarden.toml").write_text('language = "ru"', encoding="utf-8")

    assert load(None).language == "ru"


def test_all_of_it_is_read(tmp_path: Path) -> None:
    settings = read(WHOLE, tmp_path)

    assert settings.telegram is not None
    assert settings.telegram.token == SecretStr("12345:abc")
    assert settings.chats["ops"].address == "-1001234567890"
    assert settings.chats["ops"].topic == "7"
    assert (settings.chats["dev"].platform, settings.chats["dev"].address) == ("slack", "C0123ABCD")
    assert settings.people["owner"].telegram == "111111"
    assert settings.hosts["prod"].host_key == ("ssh-ed25519 AAAA",)
    assert settings.hosts["web1"].groups == ("web",)
    assert settings.approvals.expire == 300
    assert settings.alerts.repeat == 3600
    assert settings.sizing.gunicorn_memory_max == GIB


def test_a_chat_sees_hosts_and_groups_in_the_settings_order(tmp_path: Path) -> None:
    settings = read(WHOLE, tmp_path)

    assert settings.seen_from("ops") == ("prod", "web1", "web2")
    assert settings.seen_from("dev") == ("bastion", "prod", "web1", "web2")
    assert settings.expand(("web2", "@web", "prod")) == ("web2", "web1", "prod")
    assert settings.expand(("all",)) == ("bastion", "prod", "web1", "web2")
    assert settings.expand(("@prod", "nothing")) == ()


def test_a_group_may_be_written_with_its_sign(tmp_path: Path) -> None:
    settings = read(WHOLE.replace('groups = "web"', 'groups = ["@web"]').replace('"prod", "web"', '"@web", "@all"'), tmp_path)

    assert settings.hosts["web1"].groups == ("web",)
    assert settings.expand(("web",)) == settings.expand(("@web",)) == ("web1", "web2")


def test_all_means_every_host_in_a_chat_too(tmp_path: Path) -> None:
    settings = read(WHOLE.replace('hosts = ["prod", "web"]', 'hosts = "all"'), tmp_path)

    assert settings.seen_from("ops") == ("bastion", "prod", "web1", "web2")


def test_a_host_overrides_alerts_under_its_own_name(tmp_path: Path) -> None:
    settings = read(WHOLE, tmp_path)

    prod, web = settings.alerts_of("prod"), settings.alerts_of("web1")
    assert (prod.memory_percent, prod.clear_percent, prod.hold, prod.repeat) == (80, 70, 120, 3600)
    assert (web.memory_percent, web.clear_percent, web.hold, web.repeat) == (90, 85, 60, 3600)
    assert prod.critical_available == 200 * MIB


def test_the_policy_is_made_of_plain_values(tmp_path: Path) -> None:
    policy = read(WHOLE, tmp_path).policy("prod")

    assert policy.keep == ("celery.service",)
    assert policy.never_touch == ("postgresql.service",)
    assert policy.health == {"teaching_panel.service": "http://127.0.0.1:8000/"}
    assert (policy.memory_percent, policy.celery_stop_timeout_s) == (80, 600)
    assert policy.sizing.gunicorn_memory_max_bytes == GIB


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_TELEGRAM__TOKEN", "999:env")
    monkeypatch.setenv("MEMWARDEN_LANGUAGE", "en")
    monkeypatch.setenv("MEMWARDEN_ALERTS__HOLD", "30s")
    monkeypatch.setenv("MEMWARDEN_HOSTS__PROD__USER", "ops")
    monkeypatch.setenv("MEMWARDEN_HOSTS__WEB1__GROUPS", '["web", "new"]')
    settings = read(WHOLE, tmp_path)

    assert settings.telegram is not None
    assert settings.telegram.token.get_secret_value() == "999:env"
    assert (settings.language, settings.alerts.hold, settings.alerts.repeat) == ("en", 30, 3600)
    assert (settings.hosts["prod"].user, settings.hosts["prod"].address) == ("ops", "203.0.113.7")
    assert settings.hosts["web1"].groups == ("web", "new")


@pytest.mark.parametrize("word", ["web", "137", "1e3", "true"])
def test_a_single_word_of_the_environment_is_a_list_of_one(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_HOSTS__WEB2__GROUPS", word)

    assert read(WHOLE, tmp_path).hosts["web2"].groups == (word,)


def test_the_environment_means_the_file_s_names_whatever_their_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_HOSTS__PROD__PORT", "2222")
    monkeypatch.setenv("MEMWARDEN_HOSTS__TWIN__PORT", "2223")
    monkeypatch.setenv("MEMWARDEN_CHATS__OPS__ALERTS", "false")
    monkeypatch.setenv("MEMWARDEN_PEOPLE__OWNER__ROLE", "admin")
    settings = read(
        """
        [hosts]
        Prod = { address = "a" }
        twin = { address = "b" }
        Twin = { address = "c" }
        [chats.Ops]
        console = true
        [people.Owner]
        console = true
        """,
        tmp_path,
    )

    assert {name: host.port for name, host in settings.hosts.items()} == {"Prod": 2222, "twin": 2223, "Twin": 22}
    assert {name: chat.alerts for name, chat in settings.chats.items()} == {"Ops": False}
    assert {name: person.role for name, person in settings.people.items()} == {"Owner": "admin"}


def test_a_plain_number_of_the_environment_is_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_ALERTS__HOLD", "90")
    monkeypatch.setenv("MEMWARDEN_CELERY_STOP_TIMEOUT", "700")
    monkeypatch.setenv("MEMWARDEN_APPROVALS__EXPIRE", "901")
    monkeypatch.setenv("MEMWARDEN_HOSTS__WEB1__CONNECT_TIMEOUT", "2.5")
    monkeypatch.setenv("MEMWARDEN_HOSTS__PROD__ALERTS__HOLD", "30")
    settings = read(WHOLE, tmp_path)

    assert (settings.alerts.hold, settings.celery_stop_timeout, settings.approvals.expire) == (90, 700, 901)
    assert settings.hosts["web1"].connect_timeout == 2.5
    assert (settings.alerts_of("prod").hold, settings.alerts_of("prod").memory_percent) == (30, 80)


def test_the_two_person_rule_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_APPROVALS__REVIEWERS", "2")

    assert load(None).approvals.reviewers == 2


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_SLACK__BOT_TOKEN", "xoxb-2")
    monkeypatch.setenv("MEMWARDEN_SLACK__APP_TOKEN", "xapp-2")
    settings = load(None)

    assert settings.slack is not None
    assert settings.slack.app_token.get_secret_value() == "xapp-2"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MEMWARDEN_LANGUGE", "ru", "MEMWARDEN_LANGUGE: unknown; did you mean 'MEMWARDEN_LANGUAGE'?"),
        ("MEMWARDEN_TELEGRAM__TOKN", "1:a", "telegram.tokn: unknown key; did you mean 'token'?"),
        ("MEMWARDEN_HOSTS", "prod", "settings: hosts: Input should be a valid dictionary"),
        ("MEMWARDEN_APPROVALS__REVIEWERS", "3", "settings: approvals.reviewers: Input should be 1 or 2"),
        ("MEMWARDEN_APPROVALS__REVIEWERS", "x", "settings: approvals.reviewers: Input should be 1 or 2"),
        ("MEMWARDEN_ALERTS__HOLD", "0", "settings: alerts.hold: Input should be greater than 0"),
    ],
)
def test_the_environment_can_be_wrong_too(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_TELEGRAM__TOKEN", "999:env")
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as caught:
        load(None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variable_that_is_not_meant_for_us_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_LAB_CACHE", "/var/cache")

    assert load(None).language == "en"


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("777:file\n", encoding="utf-8")
    settings = read(WHOLE.replace('token = "12345:abc"', f'token_file = "{secret}"'), tmp_path)

    assert settings.telegram is not None
    assert settings.telegram.token.get_secret_value() == "777:file"


def test_a_bare_file_name_is_one_of_systemd_s_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "telegram").write_text("778:credential", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setenv("MEMWARDEN_TELEGRAM__TOKEN_FILE", "telegram")
    settings = load(None)

    assert settings.telegram is not None
    assert settings.telegram.token.get_secret_value() == "778:credential"


def test_a_secret_of_the_environment_wins_over_a_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMWARDEN_TELEGRAM__TOKEN", "999:env")
    monkeypatch.setenv("MEMWARDEN_SLACK__APP_TOKEN", "xapp-env")
    monkeypatch.setenv("MEMWARDEN_HOOKS__SENTRY__SECRET", "from-the-environment")
    secret = tmp_path / "secret"
    secret.write_text("from-a-file-12345", encoding="utf-8")
    text = (
        WHOLE.replace('token = "12345:abc"', 'token_file = "/nowhere/token"')
        .replace('bot_token = "xoxb-1"', f'bot_token_file = "{secret}"')
        .replace('app_token = "xapp-1"', f'app_token_file = "{secret}"')
    )
    hooks = '[hooks]\nlisten = "127.0.0.1:1"\n[hooks.sentry]\nsecret_file = "/nowhere/secret"\nhosts = { x = "prod" }'
    settings = read(f"{text}\n{hooks}", tmp_path)

    assert settings.telegram is not None
    assert settings.slack is not None
    assert settings.hooks is not None
    assert settings.hooks.sentry is not None
    assert settings.telegram.token.get_secret_value() == "999:env"
    assert settings.slack.bot_token.get_secret_value() == "from-a-file-12345"
    assert settings.slack.app_token.get_secret_value() == "xapp-env"
    assert settings.hooks.sentry.secret.get_secret_value() == "from-the-environment"


def test_a_secret_s_file_of_the_environment_wins_over_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("777:file", encoding="utf-8")
    monkeypatch.setenv("MEMWARDEN_TELEGRAM__TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("MEMWARDEN_HOSTS__WEB__USER", "ops")
    settings = read(f'{WHOLE.replace("web", "site")}[hosts.web]\naddress = "x"\n[hosts.web_file]\naddress = "y"', tmp_path)

    assert settings.telegram is not None
    assert settings.telegram.token.get_secret_value() == "777:file"
    assert {"web", "web_file"} < set(settings.hosts), "names are no secrets"


def test_a_secret_s_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = complaint('[telegram]\ntoken_file = "/nowhere/token"', tmp_path)

    assert "telegram: token_file: cannot read /nowhere/token: No such file or directory" in said


def test_a_secret_hides_itself(tmp_path: Path) -> None:
    assert "12345:abc" not in repr(read(WHOLE, tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('langage = "ru"', "langage: unknown key; did you mean 'language'?"),
        ('[telegram]\ntokn = "1:a"\ntoken = "1:a"', "telegram.tokn: unknown key; did you mean 'token'?"),
        ('[hosts.a]\naddress = "x"\nadress = "x"', "hosts.a.adress: unknown key; did you mean 'address'?"),
        ('[hosts.a]\naddress = "x"\nzzzz = 1', "hosts.a.zzzz: unknown key"),
        ('[people.a]\nrol = "admin"', "people.a.rol: unknown key; did you mean 'role'?"),
        ('[chats.a]\ntelegram = 1\nhost = "a"', "chats.a.host: unknown key; did you mean 'hosts'?"),
        ("[alerts]\nmemory_procent = 1", "alerts.memory_procent: unknown key; did you mean 'memory_percent'?"),
        ("[approvals]\nexpires = '1m'", "approvals.expires: unknown key; did you mean 'expire'?"),
        ("[sizing]\nthreads = 4", "sizing.threads: unknown key"),
        ('[hosts.a]\naddress = "x"\nalerts = { memry_percent = 5 }', "did you mean 'memory_percent'?"),
        ('[hooks]\nlisten = "127.0.0.1:1"\npublik = true', "hooks.publik: unknown key; did you mean 'public'?"),
        ('[hooks.sentry]\nsecrt = "x"', "hooks.sentry.secrt: unknown key; did you mean 'secret'?"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(text: str, said: str, tmp_path: Path) -> None:
    told = complaint(text, tmp_path)

    assert said in told
    assert told.startswith(str(tmp_path / "settings.toml"))


URL = 'a health URL is written like "http://127.0.0.1:8000/"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[hosts.a]\naddress = "x"\ngroups = ["b"]\n[hosts.b]\naddress = "y"',
            "hosts.b: the name is both a host's and a group's",
        ),
        ('[hosts.all]\naddress = "x"', "hosts.all: the name `all` always means every host"),
        ('[hosts.a]\naddress = "x"\ngroups = ["all"]', "hosts.all: the name `all` always means every host"),
        ('[hosts.a]\naddress = "x"\njump = "a"', "hosts.a.jump"),
        ('[hosts.a]\naddress = "x"\njump = "b"\n[hosts.b]\naddress = "y"\njump = "a"', "the jumps go in a circle"),
        ('[hosts.a]\naddress = "x"\njump = "b"\n[hosts.b]\naddress = "y"\njump = "c"', "hosts.b.jump: there is no host 'c'"),
        (
            '[hosts.a]\naddress = "x"\njump = "@b"\n[hosts.b]\naddress = "y"',
            "hosts.a.jump: there is no host '@b'; did you mean 'b'?",
        ),
        (
            '[hosts.a]\naddress = "x"\n[chats.o]\nconsole = true\nhosts = ["aa"]',
            "'aa' is neither a host nor a group; did you mean 'a'?",
        ),
        (
            '[hosts.one]\naddress = "x"\n[chats.o]\nconsole = true\nhosts = ["@one"]',
            "chats.o.hosts: there is no group '@one'; did you mean 'one'?",
        ),
        (
            '[hosts.one]\naddress = "x"\ngroups = "web"\n[chats.o]\nconsole = true\nhosts = ["@wbe"]',
            "chats.o.hosts: there is no group '@wbe'; did you mean '@web'?",
        ),
        ('[hosts.a]\naddress = "x"\ngroups = ["@a"]', "hosts.a: the name is both a host's and a group's"),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "127.0.0.1:8000" }', f"hosts.a.health.site: {URL}"),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "ftp://a/" }', URL),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "http:///up" }', URL),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "http://[::1/" }', URL),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "http://a:port/" }', URL),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "http://a/ b" }', URL),
        ('[hosts.a]\naddress = "x"\nhealth = { site = "http://a/\\n" }', URL),
        ("[chats.o]\nalerts = true", "a chat has exactly one of telegram, slack, console"),
        ("[chats.o]\ntelegram = 1", "chats.o: there is no [telegram] with its token"),
        ("[alerts]\nclear_percent = 95", "clear_percent must be below memory_percent"),
        ('[hosts.a]\naddress = "x"\nalerts = { memory_percent = 10 }', "clear_percent must be below memory_percent"),
        ("[alerts]\nhold = '5 years'", 'a duration is written like "15m"'),
        ("[alerts]\nhold = '0s'", "greater than 0"),
        ("[alerts]\ncritical_available = 'much'", 'a size is written like "600M"'),
        ("[alerts]\nmemory_percent = 101", "less than or equal to 100"),
        ("[approvals]\nreviewers = 3", "approvals.reviewers"),
        ('[people.a]\nrole = "root"', "people.a.role"),
        ("[hosts.a]\nport = 22", "hosts.a.address"),
        ("[hosts", "settings.toml"),
        ('language = "de"', "language"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    told = complaint(text, tmp_path)

    assert said in told
    assert len(told.splitlines()) == 1


HOOKS = """
[hosts.prod]
address = "203.0.113.7"
[hooks]
listen = "127.0.0.1:8090"
[hooks.sentry]
secret = "0123456789abcdef"
hosts = { "teaching-panel" = "prod" }
[hooks.alertmanager]
token = "fedcba9876543210"
hosts = { "203.0.113.7:9100" = "prod" }
"""


def test_hooks_are_off_unless_they_are_set(tmp_path: Path) -> None:
    assert load(None).hooks is None
    hooks = read(HOOKS, tmp_path).hooks

    assert hooks is not None
    assert hooks.address == ("127.0.0.1", 8090)
    assert hooks.mapped == {"sentry": {"teaching-panel": "prod"}, "alertmanager": {"203.0.113.7:9100": "prod"}}
    assert "0123456789abcdef" not in repr(hooks)
    assert "fedcba9876543210" not in repr(hooks)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"127.0.0.1:8090"', '"0.0.0.0:8090"', "listen = '0.0.0.0:8090' can be reached by others"),
        ('"127.0.0.1:8090"', '"[2001:db8::1]:8090"', "can be reached by others"),
        ('"127.0.0.1:8090"', '"8090"', 'listen is written like "127.0.0.1:8090"'),
        ('"127.0.0.1:8090"', '"127.0.0.1:99999"', 'listen is written like "127.0.0.1:8090"'),
        ('"127.0.0.1:8090"', '"127.0.0.999:80"', 'listen is written like "127.0.0.1:8090"'),
        ('"127.0.0.1:8090"', '"127.0.0.1:\u0663"', 'listen is written like "127.0.0.1:8090"'),
        ('listen = "127.0.0.1:8090"', "", "hooks.listen"),
        ('secret = "0123456789abcdef"', 'secret = ""', "hooks.sentry.secret"),
        ('token = "fedcba9876543210"', 'token = ""', "hooks.alertmanager.token"),
        ('secret = "0123456789abcdef"', "", "hooks.sentry.secret"),
        ('"teaching-panel" = "prod"', '"teaching-panel" = "prdo"', "there is no host 'prdo'; did you mean 'prod'?"),
        ('9100" = "prod"', '9100" = "web"', "hooks.alertmanager.hosts.203.0.113.7:9100: there is no host 'web'"),
        ('{ "teaching-panel" = "prod" }', "{}", "hooks.sentry.hosts"),
        ("[hooks.sentry]", '[hooks.sentry]\nbase_url = "sentry.io"', 'a web address is written like "https://sentry.io"'),
        ("[hooks.sentry]", '[hooks.sentry]\norganization = "../x"', "hooks.sentry.organization"),
        (
            "[hooks.sentry]",
            '[hooks.sentry]\nbase_url = "http://sentry.example.com"\ntoken = "0123456789abcdef"',
            "base_url must begin with https://",
        ),
    ],
)
def test_hooks_that_make_no_sense_are_said_in_one_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    told = complaint(HOOKS.replace(old, new), tmp_path)

    assert said in told
    assert len(told.splitlines()) == 1
    assert "0123456789abcdef" not in told


def test_hooks_that_nobody_may_use_make_no_sense(tmp_path: Path) -> None:
    assert "nobody may ask" in complaint('[hooks]\nlisten = "127.0.0.1:8090"', tmp_path)


def test_hooks_can_be_public_when_that_is_said(tmp_path: Path) -> None:
    hooks = read(HOOKS.replace('"127.0.0.1:8090"', '"[::]:8090"\npublic = true'), tmp_path).hooks

    assert hooks is not None
    assert hooks.address == ("::", 8090)


def test_a_hook_s_secret_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from-a-file-12345\n", encoding="utf-8")
    monkeypatch.setenv("MEMWARDEN_HOOKS__ALERTMANAGER__TOKEN", "from-the-environment")
    text = HOOKS.replace('secret = "0123456789abcdef"', f'secret_file = "{tmp_path / "secret"}"')
    hooks = read(text, tmp_path).hooks

    assert hooks is not None
    assert hooks.sentry is not None
    assert hooks.sentry.secret.get_secret_value() == "from-a-file-12345"
    assert hooks.alertmanager is not None
    assert hooks.alertmanager.token.get_secret_value() == "from-the-environment"


def test_each_trouble_has_a_line(tmp_path: Path) -> None:
    assert len(complaint('langage = "ru"\n[alerts]\nhold = "x"\n[people.a]\nrol = "b"', tmp_path).splitlines()) == 3


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match=r"/nowhere/at/all\.toml: No such file"):
        load(Path("/nowhere/at/all.toml"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("1.5h", 5400), (" 30 s ", 30), ("2d", 172800), ("90", 90), (60, 60)]
)
def test_durations(text: Any, seconds: float) -> None:  # noqa: ANN401
    assert TypeAdapter(Seconds).validate_python(text) == seconds


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("600M", 600 * MIB), ("1.5G", 1536 * MIB), ("2GiB", 2 * GIB), ("512k", 524288), ("1T", 1 << 40), (7, 7), ("7", 7)],
)
def test_sizes(text: Any, size_bytes: int) -> None:  # noqa: ANN401
    assert TypeAdapter(Bytes).validate_python(text) == size_bytes


@given(st.text())
def test_a_duration_is_understood_or_refused(text: str) -> None:
    try:
        seconds = TypeAdapter(Seconds).validate_python(text)
    except ValueError:
        return
    assert seconds > 0


@given(st.integers(min_value=1, max_value=10**6), st.sampled_from("KMGT"))
def test_every_size_is_its_number_of_units(number: int, unit: str) -> None:
    assert TypeAdapter(Bytes).validate_python(f"{number}{unit}") == number << {"K": 10, "M": 20, "G": 30, "T": 40}[unit]
