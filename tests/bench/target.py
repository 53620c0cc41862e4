"""A target on loopback: OpenSSH's own sshd, in a mount namespace where systemd's two tools are ours (root)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remote.connect.base import Target
from tests.chaos.process import TICKS

PR_SET_CHILD_SUBREAPER: Final = 36

CONFIG: Final = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 100
MaxSessions 10
LogLevel QUIET
"""

# /run is empty but for what says that systemd is there; nothing outside of the namespace sees it. The account's start-up
# file may cost more than all that is measured, and only the peers would pay it.
ENTER: Final = """\
for rc in ~/.bashrc ~/.profile; do [ ! -e "$rc" ] || mount --bind /dev/null "$rc"; done
mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/sshd &&
mount --bind {folder}/systemctl {systemctl} && mount --bind {folder}/journalctl {journalctl} &&
{more}
exec {sshd} -D -e -f {folder}/sshd_config
"""

# While {folder}/stuck exists a question about units never ends.
SYSTEMCTL: Final = """\
#!/bin/sh
case "$1 $2" in
  list-units*) [ -e {folder}/stuck ] && exec sleep {sleep}; echo 'nginx.service loaded active running nginx' ;;
  'show --no-pager')
    printf '%s\\n' Id=nginx.service LoadState=loaded ActiveState=active SubState=running UnitFileState=enabled MainPID=1 \\
      ControlGroup=/system.slice/nginx.service Type=forking ;;
esac
"""

# Nobody was killed; who follows waits for ever, without a word, as on a healthy server.
JOURNALCTL: Final = """\
#!/bin/sh
case " $* " in
  *' --version '*) echo 'systemd 252 (252.38) +PCRE2' ;;
  *' -f '*) exec sleep {sleep} ;;
  *' -n 1 '*) echo '{{"__CURSOR":"s=1;i=1;b=1;m=1;t=1;x=1","__REALTIME_TIMESTAMP":"1790000000000000","_BOOT_ID":"1"}}' ;;
esac
"""


@dataclass(frozen=True)
class SshTarget:
    """A running sshd."""

    pid: int
    port: int
    folder: Path

    @property
    def key(self) -> str:
        """The private key's path."""
        return str(self.folder / "client_key")

    @property
    def host_key(self) -> str:
        """The host's public key, as settings have it."""
        return (self.folder / "host_key.pub").read_text(encoding="utf-8").strip()

    @property
    def stuck(self) -> Path:
        """While this file exists a question about units never ends."""
        return self.folder / "stuck"

    def target(self, port: int | None = None) -> Target:
        """How to reach it, or a proxy before it."""
        return Target("prod", "127.0.0.1", port or self.port, "root", self.key, (self.host_key,))

    def processes(self) -> dict[int, str]:
        """Everything that descends from the sshd, with its command line; what detached itself comes back to it."""
        parents = {pid: parent for pid, parent, _ in _stats()}
        mine = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        return {pid: _command(pid) for pid in mine - {self.pid}}

    def cpu_s(self) -> float:
        """Seconds of CPU of the sshd, its descendants, and those of them that are gone."""
        mine = {self.pid, *self.processes()}
        return sum(ticks for pid, _, ticks in _stats() if pid in mine) / TICKS


def _stats() -> Iterator[tuple[int, int, int]]:
    """Pid, parent and ticks of all processes but zombies."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    yield int(entry.name), int(fields[1]), sum(map(int, fields[11:15]))


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120].strip()
    return ""


def _subreaper() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextlib.asynccontextmanager
async def ssh_target(folder: Path, *, tools: Mapping[str, str] | None = None, more: str = "") -> AsyncIterator[SshTarget]:
    """An sshd with keys of its own until the block ends; it inherits what its descendants leave behind.

    `tools` are other scripts for `systemctl` and `journalctl`; `more` is sh that changes the namespace further.
    """
    for name in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("sshd", "systemctl", "journalctl")}
    assert all(paths.values()), f"needs sshd and systemd's tools: {paths}"
    values = {"folder": folder, "port": port, "sleep": f"9{os.getpid()}", "more": more, **paths}
    (folder / "sshd_config").write_text(CONFIG.format(**values), encoding="utf-8")
    scripts = tools or {"systemctl": SYSTEMCTL.format(**values), "journalctl": JOURNALCTL.format(**values)}
    for name, script in scripts.items():
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    folder.chmod(0o755)
    sshd = subprocess.Popen(["unshare", "-m", "sh", "-c", ENTER.format(**values)], preexec_fn=_subreaper)  # noqa: PLW1509
    target = SshTarget(sshd.pid, port, folder)
    try:
        await _listening(sshd, port)
        yield target
    finally:
        for pid in (sshd.pid, *target.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        sshd.wait()


async def _listening(sshd: subprocess.Popen[bytes], port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            assert sshd.poll() is None, "sshd did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return
