"""The few shell sentences that remedies share. Every value that comes from a host is checked, then quoted."""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING

from remote.remedies.base import CannotDraft
from remote.text import Mono, T

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote.facts.units import Unit

# systemd.unit(5): letters, digits and :-_.\ with @ for instances; nothing else is a unit's name
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,248}\.service")
# Drop-ins hold in the order of their names, wherever they are: `systemctl edit` makes an override.conf.
DROP_IN = "zz-memwarden-stop.conf"


quote = shlex.quote


def unit_name(name: str) -> str:
    """The name, quoted for sh. Raises CannotDraft for what systemd would not take."""
    if not _UNIT.fullmatch(name) or name.startswith("-"):
        raise CannotDraft(T("{unit} is no name that I would put into a command.", unit=Mono(name[:80])))
    return shlex.quote(name)


def path(name: str) -> str:
    """An absolute path, quoted for sh. Raises CannotDraft for a relative one or one with control characters."""
    if not name.startswith("/") or "/../" in f"{name}/" or any(ord(letter) < 32 for letter in name):  # noqa: PLR2004 - controls
        raise CannotDraft(T("{path} is no path that I would put into a command.", path=Mono(name[:80])))
    return shlex.quote(name)


def unchanged(unit: Unit) -> str:
    """A script that exits 0 while the unit is what the plan was drawn from: same run, same files, no reload pending."""
    name, files = unit_name(unit.id), " ".join(path(one) for one in (unit.fragment_path, *unit.drop_in_paths) if one)
    tests = [
        (f'"$(show InvocationID)" = {shlex.quote(unit.invocation_id)}', f"{unit.id} was started or stopped since"),
        ('"$(show NeedDaemonReload)" = no', f"the files of {unit.id} changed, a daemon-reload is pending"),
        (f'"$(show FragmentPath)" = {shlex.quote(unit.fragment_path)}', f"{unit.id} comes from another file now"),
        (f'"$(show DropInPaths)" = {shlex.quote(" ".join(unit.drop_in_paths))}', f"{unit.id} has other drop-ins now"),
        (f'"$(show UnitFileState)" = {shlex.quote(unit.unit_file_state)}', f"{unit.id} was enabled or disabled since"),
    ]
    if unit.settings_hash and files:
        # As remote/facts/units.py says: over the lines of sha256sum, paths included
        tests.append(
            (f'"$(sha256sum {files} | sha256sum | cut -c1-64)" = {unit.settings_hash}', f"the files of {unit.id} changed")
        )
    lines = [f'show() {{ systemctl show --value -p "$1" {name}; }}']
    lines += [f"[ {test} ] || {{ echo {shlex.quote(why)}; exit 1; }}" for test, why in tests]
    return "\n".join(lines)


def softly(unit: str, timeout_s: int) -> tuple[str, ...]:
    """Let a celery unit finish its task when it is stopped: KillMode=control-group would end the pool child with it,
    and the task is lost (tried on systemd 252). The drop-in lives in /run, and goes when these commands end, however they do."""
    name = unit_name(unit)
    place = f"/run/systemd/system/{name}.d"
    return (
        f"trap {shlex.quote(no_longer_softly(unit))} EXIT",
        f"mkdir -p {place}; printf '[Service]\\nKillMode=mixed\\nTimeoutStopSec={timeout_s}\\n' > {place}/{DROP_IN}",
        "systemctl daemon-reload",
        f'[ "$(systemctl show --value -p KillMode {name})" = mixed ] || {{ echo "its task could not be spared"; exit 1; }}',
    )


def patience_s(unit: Unit, setting_s: int) -> int:
    """How long a task in hand may take when its unit stops: never less than the unit itself allows."""
    return max(setting_s, math.ceil(unit.stop_timeout_s or 0))


def no_longer_softly(unit: str) -> str:
    """Take the drop-in of `softly` away, whether it is there or not."""
    name = unit_name(unit)
    place = f"/run/systemd/system/{name}.d"
    return f"rm -f {place}/{DROP_IN}; rmdir {place} 2>/dev/null || :; systemctl daemon-reload"


def unlink(links: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Remove exactly these symlinks, each only while it still points where it did."""
    return tuple(f'[ "$(readlink {path(at)})" != {shlex.quote(to)} ] || rm -f {path(at)}' for at, to in links)


def relink(links: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Bring exactly these symlinks back; what somebody put there since is left alone."""
    return tuple(_relink(path(at), path(at.rsplit("/", 1)[0]), shlex.quote(to)) for at, to in links)


def _relink(at: str, folder: str, to: str) -> str:
    return f"mkdir -p {folder} && {{ [ -e {at} ] || [ -L {at} ] || ln -s {to} {at}; }}"


def state(unit: str, *states: str) -> str:
    """A test that the unit's ActiveState is one of `states`."""
    return f'case "$(systemctl show --value -p ActiveState {unit_name(unit)})" in {"|".join(states)}) ;; *) exit 1;; esac'


def job(unit: str) -> str:
    """A test that systemd is still at work on the unit: a stop goes on when the systemctl that asked for it is gone."""
    return f'case "$(systemctl show --value -p Job {unit_name(unit)})" in ""|0) exit 1;; esac'


def main_process(unit: str) -> str:
    """Prints the unit's main process: what says otherwise a moment later was started anew meanwhile."""
    return f'echo "{unit} $(systemctl show --value -p MainPID {unit_name(unit)})"'


def points(at: str, to: str) -> str:
    """A test that the symlink is there and points where it should."""
    return f'[ "$(readlink {path(at)})" = {shlex.quote(to)} ] || exit 1'


def healthy(unit: str, *, health_url: str = "") -> str:
    """A test that a unit runs, with a live main process, and answers on its health URL where one is set."""
    name = unit_name(unit)
    lines = [
        state(unit, "active"),
        # 0 where systemd knows none (Type=forking without PIDFile=); kill takes it for its own group
        f'pid=$(systemctl show --value -p MainPID {name}); [ "${{pid:-0}}" = 0 ] || kill -0 "$pid" || exit 1',
    ]
    if health_url:
        lines.append(f"curl -fsS -o /dev/null --max-time 5 {shlex.quote(health_url)} || exit 1")
    return "\n".join(lines)
