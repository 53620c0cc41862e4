"""An entry of a log, and how one line of `journalctl -o json` becomes one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry. Only fields with a leading `_` in the journal are the kernel's or journald's own word.

    `transport`, `pid`, `system_unit`, `cgroup`, `uid`, `comm`, `exe`, `invocation` (the unit's, `_SYSTEMD_INVOCATION_ID`),
    `login_uid` (who logged in, `_AUDIT_LOGINUID`; None when nobody did), `audit_type` (`_AUDIT_TYPE`) and `capable` (whether
    it had any of root's capabilities, `_CAP_EFFECTIVE`) come from such trusted fields. `unit`, `identifier`, `message_id`,
    `facility` are chosen by the sender. `source` is `journal`, `kmsg` (the kernel's own buffer) or `syslog` (a text file, where
    nothing is trusted: `transport` and `pid` are empty). `monotonic_us` is the kernel's own time (_SOURCE_MONOTONIC_TIMESTAMP)
    where there is one, else journald's. `extra` holds UNIT_RESULT, EXIT_CODE, EXIT_STATUS…
    """

    cursor: str
    at: datetime
    boot_id: str
    monotonic_us: int
    message: str
    transport: str = ""
    facility: int | None = None
    identifier: str = ""
    pid: int | None = None
    uid: int | None = None
    cgroup: str = ""
    system_unit: str = ""
    unit: str = ""
    message_id: str = ""
    invocation: str = ""
    comm: str = ""
    exe: str = ""
    login_uid: int | None = None
    audit_type: int | None = None
    capable: bool = False
    source: str = "journal"
    extra: tuple[tuple[str, str], ...] = field(default=())

    @property
    def from_kernel(self) -> bool:
        """Said by the kernel: a user's write to /dev/kmsg has another facility (systemd src journald-kmsg.c)."""
        return self.transport == "kernel" and self.facility == 0

    @property
    def from_systemd(self) -> bool:
        """Said by PID 1 itself."""
        return self.pid == 1 and self.transport != "kernel"


FIELDS = (
    "MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER", "UNIT", "_TRANSPORT", "_PID", "_UID", "_COMM",
    "_EXE", "_CAP_EFFECTIVE", "_AUDIT_LOGINUID", "_AUDIT_TYPE", "_SYSTEMD_INVOCATION_ID", "_SYSTEMD_CGROUP", "_SYSTEMD_UNIT",
    "_SOURCE_MONOTONIC_TIMESTAMP", "UNIT_RESULT", "EXIT_CODE", "EXIT_STATUS", "N_RESTARTS", "N_PROCESSES", "INVOCATION_ID",
)  # fmt: skip
_EXTRA = ("PRIORITY", "_COMM", "UNIT_RESULT", "EXIT_CODE", "EXIT_STATUS", "N_RESTARTS", "N_PROCESSES", "INVOCATION_ID")


def parse_entry(line: bytes) -> Entry | None:
    """One line of `journalctl -o json`; None for what is no entry. A value may be text, null, bytes or several."""
    try:
        raw = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    values = {str(name): _value(value) for name, value in raw.items()}
    at = _moment(values.get("__REALTIME_TIMESTAMP", ""))
    if at is None or not values.get("__CURSOR"):
        return None
    return _entry(values, at)


def _entry(values: Mapping[str, str], at: datetime) -> Entry:
    monotonic = _number(values.get("_SOURCE_MONOTONIC_TIMESTAMP", ""))
    if monotonic is None:
        monotonic = _number(values.get("__MONOTONIC_TIMESTAMP", "")) or 0
    return Entry(
        cursor=values["__CURSOR"],
        at=at,
        boot_id=values.get("_BOOT_ID", ""),
        monotonic_us=monotonic,
        message=values.get("MESSAGE", ""),
        transport=values.get("_TRANSPORT", ""),
        facility=_number(values.get("SYSLOG_FACILITY", "")),
        identifier=values.get("SYSLOG_IDENTIFIER", ""),
        pid=_number(values.get("_PID", "")),
        uid=_number(values.get("_UID", "")),
        cgroup=values.get("_SYSTEMD_CGROUP", ""),
        system_unit=values.get("_SYSTEMD_UNIT", ""),
        unit=values.get("UNIT", ""),
        message_id=values.get("MESSAGE_ID", ""),
        invocation=values.get("_SYSTEMD_INVOCATION_ID", ""),
        comm=values.get("_COMM", ""),
        exe=values.get("_EXE", ""),
        login_uid=_login(_number(values.get("_AUDIT_LOGINUID", ""))),
        audit_type=_number(values.get("_AUDIT_TYPE", "")),
        capable=bool(values.get("_CAP_EFFECTIVE", "").strip("0")),
        extra=tuple((name, values[name]) for name in _EXTRA if name in values),
    )


_NOBODY = 0xFFFFFFFF  # what the kernel keeps for who never logged in


def _login(uid: int | None) -> int | None:
    return None if uid == _NOBODY else uid


def _value(value: object) -> str:
    """A field's text: bytes come as a list of numbers, a repeated field as a list of values, an over-long one as null."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # JSON may hold half of a surrogate pair
    if not isinstance(value, list):
        return ""
    if value and all(type(one) is int and 0 <= one <= 255 for one in value):  # noqa: PLR2004 - a byte
        return bytes(value).decode("utf-8", "replace")
    return next((text for text in (_value(one) for one in value if not isinstance(one, int)) if text), "")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None  # noqa: PLR2004 - 64 bits


def _moment(microseconds: str) -> datetime | None:
    number = _number(microseconds)
    try:
        return None if number is None else EPOCH + timedelta(microseconds=number)
    except OverflowError:
        return None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
