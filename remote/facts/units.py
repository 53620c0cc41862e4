"""Units: systemd's services, how they stand, what ties them to others, and what memory they use."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from remote.errors import Unparsable
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import decimal, refusal, unescape, whole
from remote.secret import CommandLine


@dataclass(frozen=True, slots=True)
class Unit:
    """One service unit. `names` holds its aliases too. Sizes in bytes; None where systemd says infinity or nothing.

    `used_bytes` is anon+shmem+kernel of its cgroup, never memory.current (mostly page cache). `links` are the paths
    of all symlinks that enable it (also hand-made ones in other units' .wants). `relations` maps systemd's property
    (Wants, WantedBy, Requires, RequiredBy, PartOf, ConsistsOf, BindsTo, BoundBy, Triggers, TriggeredBy, Conflicts)
    to unit names. `settings_hash` is the sha256 (hex) over fragment and drop-ins, in order, as
    `sha256sum FRAGMENT DROP-INS | sha256sum` gives it; empty when one of them could not be read. `fragment_mtime_s` is
    when the unit file was last changed (seconds since 1970).
    `environment` names which of the few telling variables are set there (DJANGO_SETTINGS_MODULE and
    broker URLs as keyed by name); values are sealed in `environment`, a CommandLine of KEY=VALUE words.
    """

    id: str
    names: tuple[str, ...]
    description: str
    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str
    result: str
    main_pid: int
    restarts: int
    invocation_id: str
    control_group: str
    fragment_path: str
    drop_in_paths: tuple[str, ...]
    needs_reload: bool
    kill_mode: str
    restart: str
    oom_policy: str
    user: str
    working_directory: str
    stop_timeout_s: float | None
    memory_max_bytes: int | None
    memory_high_bytes: int | None
    used_bytes: int | None
    exec_start: CommandLine
    environment: CommandLine
    relations: Mapping[str, tuple[str, ...]]
    links: tuple[tuple[str, str], ...]
    settings_hash: str
    fragment_mtime_s: float
    delegate: bool

    @property
    def active(self) -> bool:
        """Whether it runs (or is about to)."""
        return self.active_state in {"active", "activating", "reloading"}

    def is_called(self, names: Collection[str]) -> bool:
        """Whether one of `names` is its id, an alias of it or its template (`site@.service`); `.service` may be left out."""
        mine = {self.id, *self.names}
        templates = {f"{name.partition('@')[0]}@.service" for name in mine if "@" in name}
        return not {full_name(name) for name in names}.isdisjoint(mine | templates)

    @property
    def enabled(self) -> bool:
        """Whether systemd starts it by itself at boot."""
        return self.unit_file_state.startswith("enabled")


# systemd.unit(5). A dot alone says nothing: site@example.com is a service.
_SUFFIXES = (
    ".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target", ".path", ".timer", ".slice", ".scope",
)  # fmt: skip


def full_name(name: str) -> str:
    """A unit's name with its suffix, which people leave out of services, as systemctl lets them."""
    return name if name.endswith(_SUFFIXES) else f"{name}.service"


@dataclass(frozen=True, slots=True)
class Units:
    """The host's service units, loaded or not (an enabled but stopped one counts)."""

    all: tuple[Unit, ...]

    def by_name(self, name: str) -> Unit | None:
        """The unit that has this name or alias (`.service` may be left out)."""
        wanted = full_name(name)
        return next((unit for unit in self.all if wanted in {unit.id, *unit.names}), None)

    def of_cgroup(self, cgroup: str) -> Unit | None:
        """The unit whose ControlGroup is the longest prefix of `cgroup`; nothing below user.slice or a Delegate= unit
        (the paths there are the user's to choose) and nothing when two would claim it."""
        if cgroup.startswith("/user.slice"):
            return None
        owners = [u for u in self.all if u.control_group and f"{cgroup}/".startswith(f"{u.control_group}/")]
        if not owners:
            return None
        longest = max(len(u.control_group) for u in owners)
        best = [u for u in owners if len(u.control_group) == longest]
        if len(best) != 1 or (best[0].delegate and best[0].control_group != cgroup):
            return None
        return best[0]


RELATIONS = (
    "Wants", "WantedBy", "Requires", "RequiredBy", "PartOf", "ConsistsOf", "BindsTo", "BoundBy", "Upholds", "UpheldBy",
    "Triggers", "TriggeredBy", "Conflicts",
)  # fmt: skip
# The few variables that tell two services apart.
TELLING = ("DJANGO_SETTINGS_MODULE", "CELERY_BROKER_URL", "BROKER_URL", "REDIS_URL")
_PROPERTIES = (
    "Id", "Names", "Description", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID", "NRestarts",
    "InvocationID", "ControlGroup", "FragmentPath", "DropInPaths", "NeedDaemonReload", "KillMode", "Restart", "OOMPolicy",
    "User", "WorkingDirectory", "TimeoutStopUSec", "MemoryMax", "MemoryLimit", "MemoryHigh", "ExecStart", "Environment",
    "EnvironmentFiles", "Delegate", *RELATIONS,
)  # fmt: skip

_STAT = ("anon", "shmem", "kernel", "kernel_stack", "pagetables", "percpu", "slab", "total_rss", "total_shmem")

# Unit files are named one by one because `show` with a pattern sees only what is loaded, and are found by their folders
# because list-unit-files works out presets (60 times slower than list-units: 4 to 8 s where that takes 0.2). A packaged
# file without [Install] that does not run is nobody's service, and a bare template neither. xargs unquotes, so every
# odd byte of a path (unit names hold `\x2d`) gets a backslash.
SCRIPT = (
    r"""
[ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1 || { echo '! unsupported systemd'; exit 0; }
export SYSTEMD_COLORS=0 SYSTEMD_PAGER= QUOTING_STYLE=escape
s=/etc/systemd/system
r=/run/systemd/system
links() {
  for d in "$s" "$r"; do
    ls -nd "$d"/*.service "$d"/*.wants/*.service "$d"/*.requires/*.service "$d"/*.upholds/*.service 2>/dev/null
  done | grep '^l'
}
l=/lib/systemd/system
[ -L /lib ] && l=/usr/local/lib/systemd/system
names=$(
  {
    systemctl list-units --type=service --plain --no-legend --no-pager 2>/dev/null
    printf '%s\n' "$s"/*.service "$s"/*.*/*.service "$r"/*.service "$r"/*.*/*.service
    grep -l '^\[Install\]' "$l"/*.service /usr/lib/systemd/system/*.service 2>/dev/null
  } | awk '
    { name = $1; sub(/.*\//, "", name) }
    name ~ /^[^*]+\.service$/ && name !~ /@\.service$/ && $2 != "not-found" && !seen[name]++ { print name }'
)
[ -n "$names" ] || { echo '! failed systemctl'; exit 0; }
set -f
systemctl show --no-pager -p @PROPERTIES@ -- $names 2>/dev/null | awk '
function quoted(path) { gsub(/[^A-Za-z0-9_\/.,@:-]/, "\\\\&", path); return path }
function group(path,  file) {
  file = "/sys/fs/cgroup" path "/memory.stat"
  if ((getline line < file) > 0) close(file); else file = "/sys/fs/cgroup/memory" path "/memory.stat"
  return quoted(file)
}
{ print }
/^FragmentPath=\// { files = files " " quoted(substr($0, 14)) }
/^DropInPaths=\// {
  n = split(substr($0, 13), part, " ")
  for (i = 1; i <= n; i++) files = files " " quoted(part[i])
}
/^EnvironmentFiles=\// { sub(/ \(ignore_errors=[a-z]*\)$/, ""); settings = settings " " quoted(substr($0, 18)) }
/^ControlGroup=\/./ { groups = groups " " group(substr($0, 14)) }
function each(title, list, command) {
  print "= " title; fflush()
  if (list == "") return
  print list | command
  close(command)
}
END {
  each("hashes", files, "xargs sha256sum 2>/dev/null")
  each("times", files, "xargs stat -L -c %Y:%n 2>/dev/null")
  each("memory", groups, "xargs grep -E \"^(@STAT@) \" /dev/null 2>/dev/null")
  each("settings", settings, "xargs grep -E \"^(export )?(@TELLING@)=\" /dev/null 2>/dev/null")
}'
echo '= links'
set +f
links
exit 0
""".replace("@PROPERTIES@", ",".join(_PROPERTIES))
    .replace("@STAT@", "|".join(_STAT))
    .replace("@TELLING@", "|".join(TELLING))
)

_Block = dict[str, list[str]]


@dataclass(slots=True)
class _Files:
    """What was read beside `systemctl show`."""

    hashes: dict[str, str] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    memory: dict[str, dict[str, int]] = field(default_factory=dict)
    settings: dict[str, list[str]] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)


def parse(output: str) -> Units | Unreadable:
    """`systemctl show` in blocks, then parts that start with `= title`."""
    refused = refusal(output)
    if refused is not None:
        return refused
    parts = _parts(output)
    files = _files(parts)
    units: dict[str, Unit] = {}
    for block in _blocks(parts[""]):
        unit = _unit(block, files)
        if unit.id and unit.load_state != "not-found":
            units.setdefault(unit.id, unit)  # an alias is shown again as the unit itself
    if not units:
        raise Unparsable(output)
    return Units(tuple(units.values()))


def _parts(output: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {"": []}
    title = ""
    for line in output.split("\n"):
        if line.startswith("= "):
            title = line.removeprefix("= ")
            parts.setdefault(title, [])
        else:
            parts[title].append(line)
    return parts


def _files(parts: Mapping[str, Sequence[str]]) -> _Files:
    files = _Files()
    for line in parts.get("hashes", ()):
        path = line.lstrip("\\").partition("  ")[2]  # sha256sum marks a line whose path it escaped by a backslash
        files.hashes[unescape(path) if line.startswith("\\") else path] = line
    for line in parts.get("times", ()):
        time, _, path = line.partition(":")
        if path:
            files.times[path] = whole(time)
    for line in parts.get("memory", ()):
        path, _, value = line.partition(":")
        name, _, number = value.partition(" ")
        if number:
            files.memory.setdefault(path, {})[name] = whole(number)
    for line in parts.get("settings", ()):
        path, _, word = line.partition(":")
        files.settings.setdefault(path, []).append(word.removeprefix("export "))
    files.links = list(_links(parts.get("links", ())))
    return files


_LINK = re.compile(r"l\S+ +\d+ +\d+ +\d+ +\d+ [^/]*(/(?:etc|run)/systemd/system/.*?) -> (.*)", re.ASCII)


def _links(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        found = _LINK.fullmatch(line)
        if found is not None:
            yield unescape(found[1]), unescape(found[2])


_KEYS = frozenset(_PROPERTIES)


def _blocks(lines: Iterable[str]) -> Iterator[_Block]:
    """Blocks between blank lines. A line that starts no property goes on with a value that holds a line feed."""
    block: _Block = {}
    last: list[str] | None = None
    ended = False
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key in _KEYS:
            if ended and block:
                yield block
                block = {}
            ended = False
            last = block.setdefault(key, [])
            last.append(value)
        elif line == "":
            ended = True
        elif last is not None:
            last[-1] += "\n" + line
        else:
            raise Unparsable(line)
    if block:
        yield block


def _unit(block: _Block, files: _Files) -> Unit:
    def one(name: str) -> str:
        value = block.get(name, [""])[0]
        return "" if value == "[not set]" else value

    def words(name: str) -> tuple[str, ...]:
        return tuple(one(name).split())

    fragment, drop_ins = one("FragmentPath"), words("DropInPaths")
    names = words("Names") or words("Id")
    return Unit(
        id=one("Id"),
        names=names,
        description=one("Description"),
        load_state=one("LoadState"),
        active_state=one("ActiveState"),
        sub_state=one("SubState"),
        unit_file_state=one("UnitFileState"),
        result=one("Result"),
        main_pid=whole(one("MainPID") or "0"),
        restarts=whole(one("NRestarts") or "0"),  # systemd 235 and later
        invocation_id=one("InvocationID"),
        control_group=one("ControlGroup"),
        fragment_path=fragment,
        drop_in_paths=drop_ins,
        needs_reload=one("NeedDaemonReload") == "yes",
        kill_mode=one("KillMode"),
        restart=one("Restart"),
        oom_policy=one("OOMPolicy"),
        user=one("User"),
        working_directory=one("WorkingDirectory").removeprefix("!"),  # `-` before a path comes out as `!`
        stop_timeout_s=_timespan_s(one("TimeoutStopUSec")),
        memory_max_bytes=_limit(one("MemoryMax"), one("MemoryLimit")),
        memory_high_bytes=_limit(one("MemoryHigh")),
        used_bytes=_used(one("ControlGroup"), files),
        exec_start=CommandLine(_argv(one("ExecStart"))),
        environment=CommandLine(_environment(block, files)),
        relations={name: words(name) for name in RELATIONS if words(name)},
        links=tuple(link for link in files.links if _enables(link, names)),
        settings_hash=_settings_hash((fragment, *drop_ins), files),
        fragment_mtime_s=float(files.times.get(fragment, 0)),
        delegate=one("Delegate") == "yes",
    )


_NO_LIMIT = 1 << 63  # the kernel's and systemd's words for infinity are all above


def _limit(*values: str) -> int | None:
    """The first value that is a limit; `infinity`, nothing and 2**64-1 are none."""
    for value in values:
        if value.isascii() and value.isdigit() and whole(value) < _NO_LIMIT:
            return whole(value)
    return None


_SECONDS = {
    "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "month": 2629800.0, "y": 31557600.0,
}  # fmt: skip
_SPAN = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(us|ms|s|min|h|d|w|month|y)", re.ASCII)


def _timespan_s(text: str) -> float | None:
    """`1min 30s` in seconds; None for infinity and for what is no time span."""
    found = [_SPAN.fullmatch(word) for word in text.split()]
    if not found:
        return None
    total_s = 0.0
    for one in found:
        if one is None:
            return None
        total_s += decimal(one[1]) * _SECONDS[one[2]]
    return total_s


def _argv(exec_start: str) -> tuple[str, ...]:
    """The words of `{ path=… ; argv[]=… ; ignore_errors=no ; … }`; quotes are kept by some versions only."""
    _, found, rest = exec_start.partition("argv[]=")
    if not found:
        return ()
    return _split(rest.rpartition(" ; ignore_errors=")[0] or rest)


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:  # a lone quote: an old version printed the words bare
        return tuple(text.split())


def _environment(block: _Block, files: _Files) -> tuple[str, ...]:
    """The telling variables as KEY=VALUE; files win over `Environment=`, as systemd has it."""
    values: dict[str, str] = {}
    for words in block.get("Environment", ()):
        values.update(_telling(_split(words)))
    for entry in block.get("EnvironmentFiles", ()):
        path = re.sub(r" \(ignore_errors=\w+\)$", "", entry)
        values.update(_telling(_unquoted(word) for word in files.settings.get(path, ())))
    return tuple(f"{name}={value}" for name, value in sorted(values.items()))


def _telling(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition("=")
        if name in TELLING:
            yield name, value


def _unquoted(word: str) -> str:
    name, _, value = word.strip().partition("=")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return f"{name}={value}"


def _used(control_group: str, files: _Files) -> int | None:
    """Sum of anon, shmem and kernel of its cgroup; before Linux 5.18 `kernel` is given in parts; v1 has rss and shmem."""
    if not control_group:
        return None
    stat = files.memory.get(f"/sys/fs/cgroup{control_group}/memory.stat")
    if stat is not None and "anon" in stat:
        kernel = sum(stat.get(name, 0) for name in ("kernel_stack", "pagetables", "percpu", "slab"))
        return stat["anon"] + stat.get("shmem", 0) + stat.get("kernel", kernel)
    stat = files.memory.get(f"/sys/fs/cgroup/memory{control_group}/memory.stat")
    if stat is None or "total_rss" not in stat:
        return None
    return stat["total_rss"] + stat.get("total_shmem", 0)


def _enables(link: tuple[str, str], names: Sequence[str]) -> bool:
    """Whether this symlink points to the unit: by its own name (an instance points to its template) or by its target's."""
    path, target = link
    return path.rpartition("/")[2] in names or target.rpartition("/")[2] in names


def _settings_hash(paths: Sequence[str], files: _Files) -> str:
    lines = [files.hashes.get(path, "") for path in paths if path]
    if not lines or "" in lines:
        return ""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")).hexdigest()


UNITS: Fact[Units] = Fact("units", SCRIPT, parse, deadline_s=15.0)
