"""The settings: one TOML file, any value also from the environment (`MEMWARDEN_TELEGRAM__TOKEN`) or a file.

Unknown keys are errors that name the nearest right one. Secrets hide themselves in repr and logs.
"""

from __future__ import annotations

import difflib
import getpass
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from remote.policy import Policy, Sizing

PLACES = (Path("memwarden.toml"), Path("/etc/memwarden/memwarden.toml"))
PREFIX = "MEMWARDEN_"
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class SettingsError(Exception):
    """The settings cannot be used; one line a trouble, each saying where and what is right."""


def _duration(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value)
        if not match:
            raise ValueError('a duration is written like "15m" (s, m, h or d)')
        return float(match[1]) * _UNITS_S[match[2]]
    return value


def _size(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", value, re.IGNORECASE)
        if not match:
            raise ValueError('a size is written like "600M" (K, M, G or T)')
        return int(float(match[1]) * _UNITS_BYTES[match[2].upper()])
    return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _figure(value: object) -> object:
    """A whole number, from the environment too, where all is text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value


def _bare(groups: tuple[str, ...]) -> tuple[str, ...]:
    """Groups without the `@` that they are also called with."""
    return tuple(group.removeprefix("@") for group in groups)


def _asked(value: str) -> str:
    """A URL that curl can fetch. Raises ValueError for what is none."""
    try:
        parts = urlsplit(value)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not value.isprintable() or " " in value:
        raise ValueError('a health URL is written like "http://127.0.0.1:8000/"')
    return value


Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Id = Annotated[str, BeforeValidator(_text)]
Strings = Annotated[tuple[str, ...], BeforeValidator(_several)]
Groups = Annotated[Strings, AfterValidator(_bare)]
HealthUrl = Annotated[str, AfterValidator(_asked)]
Reviewers = Annotated[Literal[1, 2], BeforeValidator(_figure)]
PercentFigure = Annotated[float, Field(gt=0, le=100)]
# Whoever knows it can make us look at a host: an empty one, as of an empty file, would let anybody.
HookSecret = Annotated[SecretStr, Field(min_length=8)]
Language = Literal["en", "ru"]
RoleName = Literal["viewer", "approver", "admin"]


def _read_secret_files(data: Any) -> Any:  # noqa: ANN401 - raw settings
    """Replace each `x_file` by `x`, read from the file; a bare name is looked up among systemd's credentials."""
    if not isinstance(data, dict):
        return data
    for key in [key for key in data if key.endswith("_file")]:
        path = Path(str(data.pop(key)))
        if not path.is_absolute() and "CREDENTIALS_DIRECTORY" in os.environ:
            path = Path(os.environ["CREDENTIALS_DIRECTORY"]) / path
        try:
            data[key.removesuffix("_file")] = path.read_text(encoding="utf-8").strip()
        except OSError as trouble:
            raise ValueError(f"{key}: cannot read {path}: {trouble.strerror}") from None
    return data


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _WithFiles(_Part):
    """A part where `x_file` gives the value of `x`."""

    _files = model_validator(mode="before")(_read_secret_files)


class TelegramSettings(_WithFiles):
    """The Telegram bot. `api_base` is for a Bot API server of one's own; `light` defers aiogram's models (README)."""

    token: SecretStr
    api_base: str = ""
    light: bool = True


class SlackSettings(_WithFiles):
    """The Slack app, in Socket Mode. `base_url` is for a proxy, with a slash at its end."""

    bot_token: SecretStr
    app_token: SecretStr
    base_url: str = ""


class ChatSettings(_Part):
    """One known chat: exactly one platform's id, the hosts that can be seen from it, whether alerts go there."""

    telegram: Id | None = None
    slack: str | None = None
    console: bool = False
    topic: Id = ""
    hosts: Strings | None = None
    alerts: bool = True
    language: Language | None = None

    @model_validator(mode="after")
    def _one_platform(self) -> ChatSettings:
        if sum((self.telegram is not None, self.slack is not None, self.console)) != 1:
            raise ValueError("a chat has exactly one of telegram, slack, console")
        return self

    @property
    def platform(self) -> str:
        """`telegram`, `slack` or `console`."""
        return "console" if self.console else "slack" if self.slack is not None else "telegram"

    @property
    def address(self) -> str:
        """The platform's id of the chat."""
        return self.telegram or self.slack or "console"


class PersonSettings(_Part):
    """One person, with the accounts that are theirs."""

    telegram: Id | None = None
    slack: str | None = None
    console: bool = False
    role: RoleName = "viewer"
    language: Language | None = None


class AlertSettings(_Part):
    """When memory is an alert. Percents of memory used; `hold` is how long it must last; `repeat` while nothing changes."""

    memory_percent: PercentFigure = 90.0
    clear_percent: PercentFigure = 85.0
    critical_percent: PercentFigure = 96.0
    critical_available: Bytes = 100 << 20
    hold: Seconds = 60.0
    every: Seconds = 15.0
    repeat: Seconds = 4 * 3600.0

    @model_validator(mode="after")
    def _in_order(self) -> AlertSettings:
        if not self.clear_percent < self.memory_percent <= self.critical_percent:
            raise ValueError("clear_percent must be below memory_percent, and that not above critical_percent")
        return self


class HostSettings(_Part):
    """One host. Unknown keys of the server are refused, never learnt in silence."""

    address: str
    port: int = Field(22, ge=1, le=65535)
    user: str = "root"
    key: str | None = None
    host_key: Strings = ()
    known_hosts: str | None = None
    jump: str | None = None
    groups: Groups = ()
    keep: Strings = ()
    never_touch: Strings = ()
    health: dict[str, HealthUrl] = {}
    alerts: dict[str, Any] = {}
    connect_timeout: Seconds = 10.0


class ApprovalSettings(_Part):
    """Who must say yes. `expire` is how long a proposed plan may be approved."""

    expire: Seconds = 900.0
    reviewers: Reviewers = 1
    self_approve: bool = True


class SizingSettings(_Part):
    """The runbook's rule as a ceiling (docs/settings.md)."""

    gunicorn_workers_per_gib: float = Field(1.0, gt=0)
    celery_processes_per_gib: float = Field(0.5, gt=0)
    gunicorn_threads: int = Field(4, ge=1)
    gunicorn_max_requests: int = Field(500, ge=0)
    celery_max_tasks_per_child: int = Field(100, ge=0)
    gunicorn_memory_max: Bytes = 600 << 20


def _base(value: str) -> str:
    """A web address without the slash at its end. Raises ValueError for what is none."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError('a web address is written like "https://sentry.io"')
    return value.rstrip("/")


Base = Annotated[str, AfterValidator(_base)]


class SentryHookSettings(_WithFiles):
    """Hooks of a Sentry internal integration. `hosts` maps projects (slug or id) to hosts; with `token` Sentry gets a note."""

    secret: HookSecret
    hosts: dict[str, str] = Field(min_length=1)
    words: Strings = ()
    organization: str = Field("", pattern=r"^[A-Za-z0-9_-]*$")
    base_url: Base = "https://sentry.io"
    token: HookSecret | None = None

    @model_validator(mode="after")
    def _token_is_safe(self) -> SentryHookSettings:
        parts = urlsplit(self.base_url)
        if self.token is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError("base_url must begin with https:// where there is a token, which would be sent in the clear")
        return self


class AlertmanagerHookSettings(_WithFiles):
    """Webhooks of Prometheus Alertmanager. `hosts` maps values of the alerts' label `label` to hosts."""

    token: HookSecret
    hosts: dict[str, str] = Field(min_length=1)
    label: str = "instance"
    base_url: Base | None = None


class HookSettings(_Part):
    """Where others may ask memwarden to look at a host. `public` allows an address that others can reach (docs/hooks.md)."""

    listen: str
    public: bool = False
    sentry: SentryHookSettings | None = None
    alertmanager: AlertmanagerHookSettings | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> HookSettings:
        host, _ = self.address
        if not (self.public or _is_loopback(host)):
            raise ValueError(
                f"listen = {self.listen!r} can be reached by others; listen on 127.0.0.1 behind a proxy, or say public = true"
            )
        if self.sentry is None and self.alertmanager is None:
            raise ValueError("nobody may ask; add [hooks.sentry] or [hooks.alertmanager]")
        return self

    @property
    def address(self) -> tuple[str, int]:
        """The IP address and port of `listen`. Raises ValueError."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", self.listen)
        try:
            host = str(ipaddress.ip_address(match[1] or match[2])) if match else ""
        except ValueError:
            host = ""
        if match is None or not host or int(match[3]) > _LAST_PORT:
            raise ValueError('listen is written like "127.0.0.1:8090" or "[::1]:8090"')
        return host, int(match[3])

    @property
    def mapped(self) -> dict[str, dict[str, str]]:
        """The `hosts` of each source that is set."""
        sources = {"sentry": self.sentry, "alertmanager": self.alertmanager}
        return {name: one.hosts for name, one in sources.items() if one is not None}


_LAST_PORT = 65535


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Environment(EnvSettingsSource):
    """Values from the environment, on top of the file's. One that is no JSON is the plain word it is, and so is a number where
    words are wanted (`MEMWARDEN_HOSTS__PROD__GROUPS=web`)."""

    def __init__(self, settings_cls: type[BaseSettings], file: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._file = file

    def __call__(self) -> dict[str, Any]:
        return _part_over(self.settings_cls, self._file, super().__call__())

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:  # noqa: ANN401 - pydantic-settings' own
        try:
            decoded = super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
        return value if isinstance(decoded, (bool, int, float)) else decoded


def _over(kind: Any, file: Any, environment: Any) -> Any:  # noqa: ANN401 - raw settings
    """What the environment says over what the file says, both to be read as `kind`."""
    if not (isinstance(file, dict) and isinstance(environment, dict)):
        return environment
    model = _model_of(kind)
    if model is None:
        return {**file, **environment}
    if get_origin(kind) is dict:
        given = {_as_in(file, name): value for name, value in environment.items()}
        return {**file, **{name: _over(model, file.get(name), value) for name, value in given.items()}}
    return _part_over(model, file, environment)


def _part_over(model: type[BaseModel], file: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """As `_over`, for one part. `x` and `x_file` are one value: who gives either makes the file's other one void."""
    files = issubclass(model, _WithFiles)
    kept = {key: value for key, value in file.items() if not (files and _twin(key) in environment)}
    kinds = {key: field.annotation for key, field in model.model_fields.items()}
    return {**kept, **{key: _over(kinds.get(key), file.get(key), value) for key, value in environment.items()}}


def _twin(key: str) -> str:
    """The other key of the same value."""
    return key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"


def _as_in(table: dict[str, Any], name: str) -> str:
    """The name in the file's table that the environment means, where names have lost their case."""
    same = [one for one in table if one.casefold() == name.casefold()]
    return same[0] if len(same) == 1 else name


class Settings(BaseSettings):
    """Everything memwarden can be told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    language: Language = "en"
    store: str = "sqlite:///memwarden.db"
    telegram: TelegramSettings | None = None
    slack: SlackSettings | None = None
    chats: dict[str, ChatSettings] = {}
    people: dict[str, PersonSettings] = {}
    hosts: dict[str, HostSettings] = {}
    alerts: AlertSettings = AlertSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    sizing: SizingSettings = SizingSettings()
    hooks: HookSettings | None = None
    celery_stop_timeout: Seconds = 600.0
    log: Literal["debug", "info", "warning"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        del env_settings, dotenv_settings, file_secret_settings
        return (_Environment(settings_cls, init_settings()),)

    @model_validator(mode="after")
    def _names_fit(self) -> Settings:
        groups = {group for host in self.hosts.values() for group in host.groups}
        if both := sorted(groups & set(self.hosts)):
            raise ValueError(f"hosts.{both[0]}: the name is both a host's and a group's")
        if "all" in self.hosts or "all" in groups:
            raise ValueError("hosts.all: the name `all` always means every host")
        for name, chat in self.chats.items():
            self._known(f"chats.{name}.hosts", chat.hosts or (), groups | {"all"})
        for name, host in self.hosts.items():
            self._host_fits(name, host)
        for name, chat in self.chats.items():
            if chat.platform in {"telegram", "slack"} and getattr(self, chat.platform) is None:
                raise ValueError(f"chats.{name}: there is no [{chat.platform}] with its token")
        for source, hosts in (self.hooks.mapped if self.hooks else {}).items():
            self._hooks_fit(f"hooks.{source}.hosts", hosts)
        return self

    def _hooks_fit(self, where: str, hosts: dict[str, str]) -> None:
        known = set(self.hosts) or {"local"}
        for key, host in hosts.items():
            if host not in known:
                raise ValueError(f"{where}.{key}: there is no host {host!r}{_nearest(host, known)}")

    def _host_fits(self, name: str, host: HostSettings) -> None:
        try:
            self.alerts_of(name)
        except ValidationError as trouble:
            first = trouble.errors()[0]
            raise ValueError(f"hosts.{name}.alerts{_within(('alerts', *first['loc']), first)}") from None
        seen, at, jump = {name}, name, host.jump
        while jump is not None:
            if jump not in self.hosts:
                raise ValueError(f"hosts.{at}.jump: there is no host {jump!r}{_nearest(jump, set(self.hosts) - {at})}")
            if jump in seen:
                raise ValueError(f"hosts.{name}.jump: the jumps go in a circle")
            seen.add(jump)
            at, jump = jump, self.hosts[jump].jump

    def _known(self, where: str, names: tuple[str, ...], groups: set[str]) -> None:
        for name in names:
            if name.startswith("@"):
                if name.removeprefix("@") not in groups:
                    near = _nearest(name, {*self.hosts, *(f"@{group}" for group in groups)})
                    raise ValueError(f"{where}: there is no group {name!r}{near}")
            elif name not in groups and name not in self.hosts:
                raise ValueError(f"{where}: {name!r} is neither a host nor a group{_nearest(name, groups | set(self.hosts))}")

    def alerts_of(self, host: str) -> AlertSettings:
        """The alert settings of one host: the general ones with its own on top."""
        return AlertSettings.model_validate({**self.alerts.model_dump(), **self.hosts[host].alerts})

    def policy(self, host: str) -> Policy:
        """What remote and the commands need to know to judge and mend this host."""
        one, alerts = self.hosts[host], self.alerts_of(host)
        return Policy(
            keep=one.keep,
            never_touch=one.never_touch,
            health=dict(one.health),
            memory_percent=alerts.memory_percent,
            clear_percent=alerts.clear_percent,
            critical_percent=alerts.critical_percent,
            critical_available_bytes=alerts.critical_available,
            celery_stop_timeout_s=int(self.celery_stop_timeout),
            sizing=Sizing(
                gunicorn_workers_per_gib=self.sizing.gunicorn_workers_per_gib,
                celery_processes_per_gib=self.sizing.celery_processes_per_gib,
                gunicorn_threads=self.sizing.gunicorn_threads,
                gunicorn_max_requests=self.sizing.gunicorn_max_requests,
                celery_max_tasks_per_child=self.sizing.celery_max_tasks_per_child,
                gunicorn_memory_max_bytes=self.sizing.gunicorn_memory_max,
            ),
        )

    def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Hosts named by hosts, groups or `all`; each once, a group's in the settings' order."""
        found: dict[str, None] = {}
        for name in names:
            bare = name.removeprefix("@")
            if bare in self.hosts and not name.startswith("@"):
                found[bare] = None
            found.update((host, None) for host, one in self.hosts.items() if bare == "all" or bare in one.groups)
        return tuple(found)

    def seen_from(self, chat: str) -> tuple[str, ...]:
        """The hosts that can be seen from a chat, in the settings' order."""
        listed = self.chats[chat].hosts if chat in self.chats else None
        if listed is None:
            return tuple(self.hosts)
        allowed = set(self.expand(listed))
        return tuple(host for host in self.hosts if host in allowed)


def load(config: Path | None) -> Settings:
    """The settings from `config`, or the first of the usual places, or the built-in default. Raises SettingsError."""
    path = config or next((place for place in PLACES if _is_there(place)), None)
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as trouble:
            raise SettingsError(f"{path}: {trouble.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as trouble:
            raise SettingsError(f"{path}: {trouble}") from None
    if unknown := _unknown_variables():
        raise SettingsError("\n".join(unknown))
    try:
        settings = Settings(**data)
    except ValidationError as trouble:
        raise SettingsError("\n".join(_trouble(path, error) for error in trouble.errors())) from None
    return _with_defaults(settings)


def _is_there(place: Path) -> bool:
    """Whether settings are there. Ones that may not be looked at count (reading them says so), but for the directory that one
    happens to be in: `runuser -u memwarden` keeps root's."""
    try:
        return place.is_file()
    except PermissionError:
        return place.is_absolute()


def _with_defaults(settings: Settings) -> Settings:
    """Without hosts this machine is one; without people whoever sits at the console is an admin."""
    changes: dict[str, Any] = {}
    if not settings.hosts:
        changes["hosts"] = {"local": HostSettings(address="local")}
    if not settings.people:
        changes["people"] = {_user(): PersonSettings(console=True, role="admin")}
    return settings.model_copy(update=changes) if changes else settings


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in a bare container
        return f"uid{os.getuid()}"


def _nearest(word: str, known: set[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _trouble(path: Path | None, error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """One line for one of pydantic's errors: where, what, and the nearest right key for an unknown one."""
    first, *rest = (str(part) for part in error["loc"]) if error["loc"] else ("",)
    where = f"{path or 'settings'}: {first}" if first else str(path or "settings")
    return f"{where}{''.join(f'.{part}' for part in rest)}{_what(error)}"


def _within(loc: tuple[int | str, ...], error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """As `_trouble`, for an error further in, whose place in the settings is `loc`."""
    return "".join(f".{part}" for part in loc[1:]) + _what({**error, "loc": loc})


def _what(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if error["type"] == "extra_forbidden":
        return f": unknown key{_nearest(str(error['loc'][-1]), _keys_beside(error['loc']))}"
    return f": {error['msg'].removeprefix('Value error, ')}"


def _unknown_variables() -> list[str]:
    """One line for each variable of the environment that was meant for us: it has a part below it, or nearly a right name.
    Others may have a MEMWARDEN_… of their own (the lab has)."""
    known = {name.upper() for name in Settings.model_fields}
    lines = []
    for variable in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
        first, *parts = variable.upper().removeprefix(PREFIX).split("__")
        near = difflib.get_close_matches(first, known, 1, 0.75)
        if first not in known and (parts or near):
            lines.append(f"{variable}: unknown{f'; did you mean {PREFIX + near[0]!r}?' if near else ''}")
    return lines


def _keys_beside(loc: tuple[int | str, ...]) -> set[str]:
    """The keys that would have been right where `loc` has an unknown one."""
    model: type[BaseModel] = Settings
    for step in loc[:-1]:
        if step in model.model_fields:
            model = _model_of(model.model_fields[str(step)].annotation) or model
    return set(model.model_fields)


def _model_of(kind: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type
    """The part that a key holds: itself, or None, or a table of such parts by name."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((model for model in map(_model_of, get_args(kind)) if model is not None), None)
