"""Schedules: cron lines and timers that restart a service by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from remote.facts.base import Fact


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron line or a timer that restarts `unit` (as named there). `where` is `/etc/cron.d/x:3`, `crontab of root` or the
    timer's name; `when` is its schedule as written; `condition` says whether the command tests memory first."""

    unit: str
    where: str
    when: str
    tests_memory: bool


@dataclass(frozen=True, slots=True)
class Schedules:
    """All that were found, and which places could not be read."""

    all: tuple[Schedule, ...]
    unread: tuple[str, ...] = ()


# Crontabs whole (they are short), timers with their services' commands, and the small scripts that a line which does
# not itself restart anything calls, one level deep. Files come through awk with their name before each line, so that no
# line can pass for another file's. /dev and /proc hold no scripts, and reading a pipe would wait for ever: `-f` first.
SCRIPT = r"""
spool='/var/spool/cron/crontabs /var/spool/cron'
for d in /etc/cron.d $spool; do
  [ ! -d "$d" ] || { [ -r "$d" ] && [ -x "$d" ]; } || printf 'unread %s\n' "$d"
done
show() {
  for f in "$@"; do
    [ -f "$f" ] || continue
    if [ -r "$f" ]; then printf '%s\n' "$f"; else printf 'unread %s\n' "$f" >&3; fi
  done | awk -v kind="$kind" '{
    file = $0; n = 0
    while (n < 2000 && (getline line < file) > 0) {
      n++
      if (kind == "script" && n == 1 && line !~ /^#!/ && file !~ /\.(sh|py)$/) break
      if (line ~ /^[ \t]*(#|$)/) continue
      if (kind == "script" && line !~ /restart|mem|free|Mem|^[ \t]*(export |local |readonly )?[A-Za-z_0-9]+=/) continue
      print kind "\t" file "\t" n "\t" substr(line, 1, 2000)
    }
    close(file)
  }'
}
exec 3>&1
out=$(
  kind=cron
  show /etc/crontab /etc/cron.d/*
  kind=user
  show /var/spool/cron/crontabs/* /var/spool/cron/*
  if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
    timers=$(systemctl show --no-pager -p Id,Unit,TimersCalendar,TimersMonotonic,LoadState,ActiveState -- '*.timer' 2>/dev/null)
    printf '%s\n' "$timers" | awk '{ print "timer\t" $0 }'
    services=$(printf '%s\n' "$timers" | awk '/^Unit=[^ ]+\.service$/ { print substr($0, 6) }')
    set -f
    [ -z "$services" ] || systemctl show --no-pager -p Id,ExecStart -- $services 2>/dev/null | awk '{ print "service\t" $0 }'
    set +f
  fi
)
printf '%s\n' "$out"
kind=script
printf '%s\n' "$out" | awk '
  /systemctl|service / && /restart/ { next }
  {
    gsub(/[^A-Za-z0-9_.\/@:+-]/, " ")
    n = split($0, word, " ")
    for (i = 1; i <= n; i++)
      if (word[i] ~ /^\/.*\/.*/ && word[i] !~ /^\/(dev|proc|sys|var\/spool\/cron|etc\/cron)/ && !seen[word[i]]++) print word[i]
  }' | head -n 100 | while read -r f; do show "$f"; done
exit 0
"""

_Line = tuple[str, str, str]
_Lines = dict[str, list[_Line]]


def parse(output: str) -> Schedules:
    r"""Lines `KIND\tFILE\tNUMBER\tTEXT` of files, `KIND\tKEY=VALUE` of timers and their services, `unread PATH`."""
    unread: list[str] = []
    files: list[_Line] = []
    scripts: dict[str, str] = {}
    shown: dict[str, list[str]] = {"timer": [], "service": []}
    for line in output.split("\n"):
        kind, tab, rest = line.partition("\t")
        if not tab:
            unread += [line.removeprefix("unread ")] if line.startswith("unread ") else []
        elif kind in shown:
            shown[kind].append(rest)
        else:
            path, _, numbered = rest.partition("\t")
            number, _, text = numbered.partition("\t")
            if kind == "script":
                scripts[path] = scripts.get(path, "") + text + "\n"
            else:
                files.append((_where(kind, path, number), kind, text))
    found = [*_from_crontabs(files, scripts), *_from_timers(shown["timer"], shown["service"], scripts)]
    return Schedules(tuple(dict.fromkeys(found)), tuple(dict.fromkeys(unread)))


def _where(kind: str, path: str, number: str) -> str:
    return f"{path}:{number}" if kind == "cron" else f"crontab of {path.rpartition('/')[2]}"


_CRON = re.compile(r"\s*(@[a-z]+|(?:[0-9*/,A-Za-z-]+\s+){4}[0-9*/,A-Za-z-]+)\s+(.*)", re.ASCII)


def _from_crontabs(lines: Iterable[_Line], scripts: Mapping[str, str]) -> Iterator[Schedule]:
    for where, kind, text in lines:
        found = _CRON.fullmatch(text)
        if found is None:
            continue
        command = found[2].partition(" ")[2] if kind == "cron" else found[2]  # a system crontab names the user first
        for unit, tests_memory in _restarts(command, scripts):
            yield Schedule(unit, where, " ".join(found[1].split()), tests_memory)


def _from_timers(timers: Iterable[str], services: Iterable[str], scripts: Mapping[str, str]) -> Iterator[Schedule]:
    commands = {block.get("Id", ""): block.get("ExecStart", "") for block in _blocks(services)}
    for timer in _blocks(timers):
        for unit, tests_memory in _restarts(commands.get(timer.get("Unit", ""), ""), scripts):
            yield Schedule(unit, timer.get("Id", ""), _when(timer), tests_memory)


def _blocks(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    block: dict[str, str] = {}
    for line in (*lines, ""):
        key, equals, value = line.partition("=")
        if equals:
            block[key] = f"{block[key]}\n{value}" if key in block else value
        elif block and not line:
            yield block
            block = {}


_TIMER = re.compile(r"\{ (On\w+)=(.*?) ; next_elapse=")
_BASES = {
    "OnActiveUSec": "OnActiveSec", "OnBootUSec": "OnBootSec", "OnStartupUSec": "OnStartupSec",
    "OnUnitActiveUSec": "OnUnitActiveSec", "OnUnitInactiveUSec": "OnUnitInactiveSec",
}  # fmt: skip


def _when(timer: Mapping[str, str]) -> str:
    """The timer's times as its file has them: `OnCalendar=*:0/5, OnBootSec=5min`."""
    written = _TIMER.findall(timer.get("TimersCalendar", "") + "\n" + timer.get("TimersMonotonic", ""))
    return ", ".join(f"{_BASES.get(base, base)}={value}" for base, value in written)


_SYSTEMCTL = re.compile(
    r"\bsystemctl(?:[ \t]+-{1,2}[\w=-]+)*[ \t]+(?:try-|force-)?(?:reload-or-)?(?:try-)?restart((?:[ \t]+[^\s;&|<>()]+)+)"
)
_SERVICE = re.compile(r"(?:\bservice[ \t]+|/etc/init\.d/|\binvoke-rc\.d[ \t]+)([^\s;&|<>()]+)[ \t]+(?:try-|force-)?restart\b")
_MEMORY = re.compile(r"\bfree\b|meminfo|%mem\b|\bpmem\b|memory|MemAvailable|MemFree", re.IGNORECASE)
_ASSIGNED = re.compile(r"(?:^|[\s;])(?:export\s+|local\s+|readonly\s+)?([A-Za-z_]\w*)=[\"']?([\w@.:\\-]+)", re.ASCII)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?", re.ASCII)
_PATH = re.compile(r"/[\w.@:+/-]+", re.ASCII)


def _restarts(command: str, scripts: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """The units that this command restarts, itself or through a script that it names; and whether it asks for memory."""
    for text in (command, *(scripts[path] for path in _PATH.findall(command) if path in scripts)):
        for unit in _restarted(text):
            yield unit, bool(_MEMORY.search(command) or _MEMORY.search(text))


def _restarted(text: str) -> Iterator[str]:
    values = dict(_ASSIGNED.findall(text))
    text = _VARIABLE.sub(lambda variable: values.get(variable[1], variable[0]), text)
    words = [word for units in _SYSTEMCTL.findall(text) for word in units.split() if not word.startswith("-")]
    for word in (*words, *_SERVICE.findall(text)):
        unit = word.strip("\"'`{}")
        if _UNIT.fullmatch(unit):
            yield unit


_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@*-]{0,254}", re.ASCII)

SCHEDULES: Fact[Schedules] = Fact("schedules", SCRIPT, parse, slow=True, deadline_s=15.0, cap_bytes=2 << 20)
