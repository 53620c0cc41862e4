"""What each of our shells is told first: how to end all it started, when asked to and when its stdin ends.

The choice, and why. A channel is one `/bin/sh` that reads its commands from the channel itself. A question runs beside it
(`{ …; } &`), each section of it in a subshell, so while a section runs the shell sits in `read` and sees two things at
once that it would otherwise see too late: the end of its stdin (the link is cut, the bot was killed), and a line that
tells it to end the running section. That costs one fork a question and nothing between questions: no supervisor
process, no fifo, no temporary file, no polling, and ending a stuck section needs neither another channel nor another
login, which a host without free sessions or memory would refuse. If the shell itself does not obey, the connection
is renewed: the end of stdin is the last word, and the host's sshd speaks it.

What is ended: every descendant of the shell (parents read from /proc/PID/stat after the last `)`, since a name may
hold anything), then whatever carries the channel's mark in its environment, which finds what has detached itself
(double fork, setsid) as well. The tree goes first: reading the environment of a process that hangs in the kernel may hang.
A plan's shell carries no mark: what it starts on purpose (an init script's daemon) must outlive it.
"""

from __future__ import annotations

MARK = "MEMWARDEN_CHANNEL"
"""The environment variable whose value is the same for all that one channel starts."""

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# A signal's trap ends everything itself: dash runs it inside the exit trap when it came before the end of stdin, and its
# `exit` would leave that trap halfway.
# What is set here is seen by subshells but exported to nobody. POSIX only: dash, bash and busybox ash read it.
SUPERVISOR = r"""exec 2>/dev/null
mw_scan() {
mw_all=
for mw_p in /proc/[0-9]*; do
mw_s=
while read -r mw_l; do mw_s="$mw_s $mw_l"; done 2>/dev/null <"$mw_p/stat"
set -- ${mw_s##*)}
case "$1" in ''|Z|X|x) ;; *) mw_all="$mw_all ${mw_p#/proc/}:$2" ;; esac
done
}
mw_tree() {
mw_in=" $mw_keep "
mw_more=1
while [ "$mw_more" = 1 ]; do
mw_more=0
for mw_e in $mw_all; do
case "$mw_in" in *" ${mw_e%%:*} "*) continue ;; esac
case "$mw_in" in *" ${mw_e#*:} "*) mw_in="$mw_in${mw_e%%:*} "; mw_more=1; mw_kill="$mw_kill ${mw_e%%:*}" ;; esac
done
done
}
mw_marked() {
[ "$MEMWARDEN_CHANNEL" ] || return 0
for mw_p in $(grep -ls "MEMWARDEN_CHANNEL=$MEMWARDEN_CHANNEL" /proc/[0-9]*/environ); do
mw_p=${mw_p#/proc/}
mw_p=${mw_p%%/*}
case " $mw_keep " in *" $mw_p "*) continue ;; esac
case "$mw_all " in *" $mw_p:"*) mw_kill="$mw_kill $mw_p" ;; esac
done
}
mw_reap() {
mw_keep="$*"
for mw_round in 1 2 3 4 5 6 7 8 9 10 11 12; do
mw_kill=
mw_scan
mw_tree
[ "$mw_kill" ] || mw_marked
[ "$mw_kill" ] || return 0
kill -9 $mw_kill
done
return 1
}
mw_q=
mw_bye() {
trap '' 1 2 13 15
mw_reap $$
}
trap mw_bye 0
trap 'mw_bye; trap - 0; exit 0' 1 2 13 15
"""


def start_command(mark: str) -> str:
    """What is run in place of whatever login shell the account has; understood by csh and fish too."""
    return f"exec env -i PATH={PATH} HOME=/ LC_ALL=C TZ=UTC {MARK}={mark} /bin/sh"


def environment(mark: str) -> dict[str, str]:
    """The same environment, for a shell that is started without a login."""
    return {"PATH": PATH, "HOME": "/", "LC_ALL": "C", "TZ": "UTC", MARK: mark}


def end_section(nonce: str) -> str:
    """One line that ends what the running section has started and says so; the question goes on with the next section.

    The question's own shell is stopped meanwhile, else it would go on to the next section under the killer's hands.
    """
    return f"kill -STOP $mw_q; mw_reap $$ $mw_q; printf '\\n{nonce} ! %d\\n' $?; kill -CONT $mw_q\n"
