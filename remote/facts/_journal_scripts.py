"""The journal's scripts, in parts: what they look for, and how they read it. POSIX sh for dash, bash and busybox ash.

Where a part stands between `@` signs, `remote.facts.journal` puts a checked value.
"""

from __future__ import annotations

from remote.facts._journal_entry import FIELDS

# What may tell of a kill, as extended regular expressions for grep -E and for PCRE2 alike, over a message, and where there
# is no PCRE2 over raw JSON: so no quote, no backslash and no anchor in them. They narrow on the host what is sent; who may
# be believed is judged afterwards.
KERNEL_TELLINGS = (
    "[Oo]ut of [Mm]emory", "oom-kill:", "Killed process", "killed as a result of limit", "oom_reaper:", "invoked oom-killer",
    "(memory|swap|memory[+]swap|kmem): usage [0-9]+kB", "Memory cgroup stats for", "memory[.]oom[.]group",
    "Tasks state", "[[] *pid *[]] +uid +tgid", "[[] *[0-9]+[]] +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ ",
    "Manual OOM execution", "OOM victim", "Missed [0-9]+ kernel",
)  # fmt: skip
_SYSTEMD_TELLINGS = (
    "killed by the OOM killer", "systemd-oomd killed", "(Main|Control) process exited", "Failed with result",
    "Scheduled restart job", "Killing process", "timed out", "Watchdog timeout", "Start request repeated", "Sending SIG",
    "(Started|Stopping|Stopped) ", "memory peak", "Killed /", "Suppressed [0-9]+ messages",
)  # fmt: skip
# The kernel's numbers of kill, tkill, tgkill and pidfd_send_signal on x86-64, arm64 and x86.
_AUDIT_TELLINGS = (
    "arch=c000003e syscall=(62|200|234|424) ", "arch=c00000b7 syscall=(129|130|131|424) ",
    "arch=40000003 syscall=(37|238|270|424) ", "opid=[0-9]+ ",
)  # fmt: skip
_OTHER_TELLINGS = (
    # earlyoom, nohang
    "sending SIG", "escalating to SIGKILL", "low memory! at or below", "corrective action", "The victim died",
    # people
    "COMMAND=.*(kill|systemctl|docker|podman)",
    # docker, containerd
    "TaskOOM", "using the force", "OOMKilled", "exit_status:137",
)  # fmt: skip
SYSTEM_TELLINGS = (*KERNEL_TELLINGS, *_SYSTEMD_TELLINGS, *_AUDIT_TELLINGS, *_OTHER_TELLINGS)
_KILLERS = ("systemd-oomd", "earlyoom", "nohang", "nohang-desktop")
# Only what they say themselves: what a container writes may reach the journal through them, by another transport.
CONTAINERS = ("docker.service", "snap.docker.dockerd.service", "containerd.service")
# sudo may be sudo-rs, and the old one sudo.ws (Ubuntu 25.10); `_EXE` is journald's own word, and only root can lay a program
# there.
SUDO = (
    "/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo", "/usr/bin/sudo.ws", "/usr/bin/sudo-rs", "/usr/lib/cargo/bin/sudo",
)  # fmt: skip
# SYSCALL and OBJ_PID.
_AUDIT_TYPES = (1300, 1318)
SYSTEM_MATCHES = " + ".join(
    (
        "_TRANSPORT=kernel",
        "_TRANSPORT=driver",  # journald's own word of what was lost
        "_PID=1",
        " ".join(f"_SYSTEMD_UNIT={unit}.service" for unit in _KILLERS),
        " ".join(("_TRANSPORT=stdout", *(f"_SYSTEMD_UNIT={unit}" for unit in CONTAINERS))),
        " ".join(f"_EXE={path}" for path in SUDO),
        " ".join(("_TRANSPORT=audit", *(f"_AUDIT_TYPE={number}" for number in _AUDIT_TYPES))),
    )
)

# What every script here starts with. The hint about hidden messages comes only without -q, and json and cat imply -q.
# --output-fields is in systemd 236 and later, --namespace in 245. --grep needs PCRE2, which later versions load only then.
START = r"""
set -f
none= own=
if command -v journalctl >/dev/null 2>&1; then
  case $(journalctl -n 0 --no-pager 2>&1 >/dev/null) in
    *'not seeing messages'*) own=1 ;;
    *'insufficient permissions'*|*'ermission denied'*) none='denied the journal' ;;
    *'No journal files'*) none='missing the journal' ;;
  esac
else none='missing journalctl'; fi
[ -z "$own" ] || echo '= own'
fields= brief= every= pcre=
if [ -z "$none" ]; then
  machine=
  read -r machine </etc/machine-id
  if [ ! -d "/var/log/journal/$machine" ] || [ -e "/run/log/journal/$machine/system.journal" ]; then echo '= volatile'; fi
  version=$(journalctl --version)
  number=${version#systemd }
  number=${number%%[!0-9]*}
  if [ "${number:-0}" -ge 236 ]; then fields='--output-fields=@FIELDS@' brief='--output-fields=_TRANSPORT'; fi
  [ "${number:-0}" -lt 245 ] || every='--namespace=*'
  case $version in
    *+PCRE2*) case $(journalctl -n 0 --no-pager --grep=x 2>&1 >/dev/null) in *[Pp][Cc][Rr][Ee]*) ;; *) pcre=1 ;; esac ;;
  esac
fi
""".replace("@FIELDS@", ",".join(FIELDS))

# The clock: `read` and builtins but for `date`, whose +%s is in all three.
CLOCK = r"""
boot= up=0.00
read -r boot </proc/sys/kernel/random/boot_id
read -r up rest </proc/uptime
IFS=- ; set -- $boot; unset IFS
boot=$1$2$3$4$5
now=$(date +%s)
"""

# A filter that holds nothing back. mawk reads ahead, busybox' grep writes late.
NARROW = r"""
if echo x | grep --line-buffered x >/dev/null 2>&1; then narrow() { grep --line-buffered -E "$1"; }
else case $(awk -W version 2>&1 </dev/null) in
  mawk*|*'not found'*) narrow() { cat; } ;;
  *) narrow() { awk -v wanted="$1" '$0 ~ wanted { print; fflush() }'; } ;;
esac; fi
"""

# Where the journal is followed from, and why so:
# - `--cursor` is inclusive; --after-cursor together with a filter loses an entry before v256 (systemd#30288).
# - A cursor that is not in the journal any more (vacuumed, another machine's) is no error for journalctl: it seeks to the
#   nearest time, or gives nothing for ever when that is to come (systemd#6213). So it is tried first.
# - After the clock was set back, entries are found by how long ago the cursor was by the kernel's own clock.
# - What a new boot wrote may be sorted before the cursor (no clock of its own, another sequence), and its first entry may be
#   missed (systemd#38912): so the rest of the old boot is read first, then this one from its start, and on.
SEEK = r"""
look() { journalctl -o json --no-pager $fields $every "$@" @MATCHES@; }
show() {
  if [ "$pcre" ]; then look "$@" --case-sensitive=yes --grep="$telling"
  else look "$@" | narrow "MESSAGE. ?: ?[[]|$telling"; fi
}
one() { journalctl -n 1 -o json --no-pager $brief $every "$@" 2>/dev/null; }
exec 3>&1
catch_up() {
  for try in 1 2 3; do
    complaint=$(show --cursor="$cursor" 2>&1 1>&3)
    case $complaint in *'Bad message'*) ;; *) return ;; esac
  done
  echo '= lost unreadable'
}
cursor='@CURSOR@'
known() { case $(one --cursor="$cursor") in *"$cursor"*) ;; *) return 1 ;; esac; }
since=@SINCE@
if [ -z "$since" ]; then
  last=$(one)
  cursor=${last#*__CURSOR}
  cursor=${cursor#*:*\"}
  cursor=${cursor%%\"*}
  if [ "$last" ]; then
    printf '= begin %s\n' "$cursor"
    set -- --cursor="$cursor"
  else set -- --since="@$now"; fi
elif [ -z "$cursor" ]; then set -- --since="@$since"
elif [ "$((since + 60))" -gt "$((now + 2))" ]; then
  echo '= lost future'
  ago=${up%%.*}
  [ "$boot" != '@BOOT@' ] || ago=$((ago - @MONOTONIC@))
  since=$((now - ago - 60))
  [ "$since" -gt 0 ] || since=0
  if known; then catch_up; fi
  set -- --since="@$since"
elif ! known; then
  echo '= lost gone'
  set -- --since="@$since"
elif [ "$boot" = '@BOOT@' ]; then set -- --cursor="$cursor"
else
  catch_up
  set -- --since="@$((now - ${up%%.*} - 60))"
  case $(one --boot="$boot") in '{'*) set -- --boot="$boot" ;; esac
fi
"""

# journalctl may die while files are rotated (systemd#43649): who reads this goes on from his own last cursor. One that dies
# at once three times has met a broken entry, which is passed over.
FOLLOW = r"""
tries=0
while :; do
  began=$(date +%s)
  show -f --no-tail "$@"
  ended=$(date +%s)
  [ "$((ended - began))" -lt 5 ] || break
  tries=$((tries + 1))
  case $tries in
    1|2) sleep 1 ;;
    3) echo '= lost unreadable'; set -- --since="@$((now - 1))" ;;
    *) break ;;
  esac
done
echo '= cut'
exit 0
"""

# Where the journal cannot be read: the kernel's own buffer, whose raw form tells who wrote a line; else what a syslog
# daemon wrote, where nothing tells that. A reader of the buffer that was overrun starts over at its oldest record.
INSTEAD = r"""
instead() {
  clock="$now $up $boot"
  place='@PLACE@'
  if [ -z "$place" ]; then
    # The buffer's end by its own clock, which unlike uptime stands still while a machine sleeps.
    last=$(dmesg -r 2>/dev/null | tail -n 1)
    last=${last#*[}
    set -- ${last%%]*}
    case $1 in
      *[!0-9.]*|''|*.*.*|.*) last=0 ;;
      *.??????) last=$((${1%.*} * 1000000 + 1${1#*.} - 999999)) ;;
      *) last=0 ;;
    esac
    place="kmsg:$boot::$last:${now}000000"
    printf '= begin %s\n' "$place"
  fi
  if (: </dev/kmsg) 2>/dev/null; then
    printf '= kmsg %s %s\n' "$clock" "$place"
    (
      for try in 1 2 3 4 5 6 7 8 9 10; do
        cat /dev/kmsg 2>/dev/null
        echo '= lost overrun'
        sleep 1
      done
    ) | narrow "^= |$telling"
    return
  fi
  if dmesg -r >/dev/null 2>&1; then
    case $(dmesg --help 2>&1) in *--follow*)
      printf '= kmsg %s %s\n' "$clock" "$place"
      dmesg -r --follow 2>/dev/null | narrow "$telling"
      return ;;
    esac
  fi
  set --
  for log in /var/log/syslog /var/log/messages /var/log/kern.log; do
    if [ -f "$log" ] && [ -r "$log" ]; then set -- "$@" "$log"; fi
  done
  [ $# -gt 0 ] || { echo "= none ${none:-denied the journal}"; return; }
  printf '= syslog %s %s %s\n' "$clock" "$(unset TZ; date +%z)" "$place"
  for log in "$@"; do tail -n 20000 "$log.1" 2>/dev/null; done | grep -E "$telling"
  tail -q -n 20000 -F "$@" 2>/dev/null | narrow "$telling"
}
if [ "$none$own" ]; then instead; echo '= cut'; exit 0; fi
"""

# Without rights one's own programs may still be seen.
ALONE = r"""
[ -z "$none" ] || { echo "= none $none"; exit 0; }
"""

# Nobody speaks yet: wait until somebody does, and the stream is started anew.
SILENT = r"""
while :; do sleep 3600; done
"""

# Without the journal, or its kernel's words, what else tells of the past. It comes last: of a text file nothing leads back.
PAST_INSTEAD = r"""
if [ "$none$own" ]; then
  clock="$now $up $boot"
  if lines=$(dmesg -r 2>/dev/null) && [ "$lines" ]; then
    printf '= dmesg %s\n' "$clock"
    printf '%s\n' "$lines" | grep -E "$telling" | tail -n 4000
  else
    set --
    for log in /var/log/syslog /var/log/messages /var/log/kern.log; do
      for file in "$log.1" "$log"; do
        if [ -f "$file" ] && [ -r "$file" ]; then set -- "$@" "$file"; fi
      done
    done
    if [ $# -gt 0 ]; then
      printf '= syslog %s %s\n' "$clock" "$(unset TZ; date +%z)"
      for file in "$@"; do tail -n 100000 "$file" | grep -E "$telling" | tail -n 4000; done | tail -c 1000000
    elif [ "$none" ]; then echo "! $none"; fi
  fi
fi
exit 0
"""

# The past is read from its end, so that what is left out, when there is too much, is the oldest of its kind. Kinds have room
# of their own, since whoever may stage kills (in his own slice), start units or write lines could else push out what
# counts. Read backwards the kernel's victim line comes before the summary, which says whose it was, and the table of
# processes after both; without a summary (they are rate-limited) what is left is the user's number.
SIFT = r"""
sift() {
  command -v awk >/dev/null 2>&1 || { head -n 4000 | head -c 4000000; return; }
  awk '
    function room(kind, most) {
      if (left >= 0 && count[kind]++ < most) { left -= length($0) + 1; return left >= 0 }
      cut = 1
      return 0
    }
    function told(text, kind, most) { if (room(kind, most)) print text }
    function number(text) { sub(/[^0-9].*/, "", text); return text }
    function alone(pid,  kind) {
      kind = held[pid] ~ /UID:[0-9][0-9][0-9][0-9]/ ? "alone of a user" : "victim"
      told(held[pid], kind, kind == "victim" ? 4000 : 2000)
      delete held[pid]
    }
    BEGIN { left = 5000000; detail = "detail" }
    !/"_TRANSPORT" ?: ?"kernel"/ {
      if ($0 !~ /"_PID" ?: ?"1"/) told($0, $0 ~ /"_TRANSPORT" ?: ?"audit"/ ? "audit" : "other", 2000)
      else if ($0 ~ /"UNIT" ?: ?"(user@|session-|user-|user[.]slice)/) told($0, "unit of a user", 300)
      else if ($0 ~ /"MESSAGE" ?: ?"(Started|Stopping|Stopped) /) told($0, "life of a unit", 2000)
      else told($0, "unit", 3000)
      next
    }
    /oom-kill:constraint=/ && match($0, /,pid=[0-9]+,uid=[0-9]+/) {
      rest = $0
      while (match(rest, /,pid=[0-9]+,uid=[0-9]+/)) {
        pid = number(substr(rest, RSTART + 5, 10))
        rest = substr(rest, RSTART + 5)
      }
      mine = $0 ~ /task_memcg=.user[.]slice/
      detail = mine ? "detail of a user" : "detail"
      kind = mine ? "victim of a user" : "victim"
      told($0, kind, mine ? 1000 : 8000)
      if (pid in held) { told(held[pid], kind, mine ? 1000 : 8000); delete held[pid] }
      next
    }
    match($0, /Killed process [0-9]+/) {
      pid = number(substr($0, RSTART + 15, 10))
      if (pid in held) alone(pid)
      held[pid] = $0
      queue[++last] = pid
      while (last - first > 64) if (queue[++first] in held) alone(queue[first])
      next
    }
    { told($0, detail, detail == "detail" ? 6000 : 600) }
    END {
      while (first < last) if (queue[++first] in held) alone(queue[first])
      if (cut) print "= cut"
    }'
}
"""

# As above for programs: each process has room of its own, and what a healthy program says all day has another. A user's
# session and his own manager run no system unit.
SIFT_PROGRAMS = r"""
sift_programs() {
  command -v awk >/dev/null 2>&1 || { head -n 3000 | head -c 2000000; return; }
  awk '
    function value(name,  text) {
      if (!match($0, "\"" name "\" ?: ?\"[^\"]*\"")) return ""
      return substr($0, RSTART, RLENGTH)
    }
    BEGIN { left = 2000000 }
    { unit = value("_SYSTEMD_UNIT") }
    unit ~ /"(session-|user@)[^"]*"$/ { next }
    {
      who = unit value("_PID") ($0 ~ /Booting worker|Worker exiting/)
      if (count[who]++ < 300 && (left -= length($0) + 1) >= 0) print
      else cut = 1
    }
    END { if (cut) print "= cut" }'
}
"""

# An invocation's first line is its main process', if its start is still in the journal: what is left of a vacuumed one may
# begin with anybody's.
WRITERS = r"""
echo '= writers'
few=
[ -z "$fields" ] || few='--output-fields=_PID,_TRANSPORT,_SYSTEMD_INVOCATION_ID,INVOCATION_ID'
ended=$(($(date +%s) + 8))
for invocation in $(
  printf '%s\n' "$lines" | grep -o '"_SYSTEMD_INVOCATION_ID" \{0,1\}: \{0,1\}"[0-9a-f]\{32\}"' | grep -o '[0-9a-f]\{32\}' |
    awk '!seen[$0]++' | head -n 64
); do
  [ "$(date +%s)" -lt "$ended" ] || { echo '= cut'; break; }
  journalctl -o json --no-pager $few $every "_SYSTEMD_INVOCATION_ID=$invocation" + _PID=1 "INVOCATION_ID=$invocation" \
    MESSAGE_ID=39f53479d3a045ac8e11786248231fbf MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5 2>/dev/null | head -n 12
done
"""
