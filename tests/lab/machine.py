"""The lab's server as tests use it: run commands over SSH, go back to a snapshot, pull the plug."""

import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.qemu import Qemu

BOOT_DEADLINE_S = 300.0
LOAD_DEADLINE_S = 90.0
MASTER_END_S = 5.0


class LabError(Exception):
    """The guest did not do in time what was asked."""


class Lab:
    """One guest on a disk of its own; use it as a context manager, or `start` and `stop` it.

    Every wait has a deadline. Times in the guest are about ten times those of the machine.
    """

    def __init__(self, image: Path, *, own_disk: bool = True) -> None:
        """Take an image that `build` made; without `own_disk` changes go into the image itself."""
        self.client_key_path = image / "client_key"
        self.host_key = (image / "host_key.pub").read_text().strip()
        self._image = image
        self._own_disk = own_disk
        self._directory = Path(tempfile.mkdtemp(prefix="memwarden-lab-"))
        self.serial_log = self._directory / "serial.log"
        self._masters: dict[str, subprocess.Popen[bytes]] = {}
        self._running: Qemu | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def ssh_port(self) -> int:
        """The guest's sshd on 127.0.0.1 of this machine."""
        return self._qemu.ssh_port

    def start(self, snapshot: str = "ready") -> None:
        """Start the guest and go to a snapshot: `ready` (nothing but the system) or `runbook`."""
        self._start_qemu()
        self.load(snapshot)

    def boot(self) -> None:
        """Start the guest from its disk, without a snapshot."""
        self._start_qemu()
        self._wait_for_boot()

    def stop(self) -> None:
        """End the guest at once and remove its disk."""
        self._close_masters()
        if self._running is not None:
            self._running.stop()
            self._running = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(
        self, command: str, user: str = "root", timeout_s: float = 120.0, *, check: bool = False, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the guest as `root`, `deploy` (may sudo) or `alice` (may nothing).

        With `check`, raises LabError when it fails. A command that leaves a daemon behind must
        redirect the daemon's three streams, or this waits for the daemon.
        """
        self._open_master(user, deadline_s=LOAD_DEADLINE_S)
        arguments = ["ssh", *self._options(user), "-o", "ControlMaster=no", f"{user}@127.0.0.1", "--", command]
        done = subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            raise LabError(f"{command!r} gave {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def put(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file in the guest, as root."""
        quoted = shlex.quote(path)
        self.run(f"cat > {quoted} && chmod {mode} {quoted}", check=True, stdin=text)

    def until(self, condition: str, timeout_s: float = 60.0, user: str = "root") -> None:
        """Wait in the guest until a shell condition holds; raises LabError when it does not in time."""
        loop = f"until {{ {condition}\n}}; do sleep 0.2; done"
        command = f"timeout {timeout_s} bash -c {shlex.quote(loop)}"
        done = self.run(command, user, timeout_s=timeout_s + 30)
        if done.returncode != 0:
            raise LabError(f"not within {timeout_s} s: {condition}\n{done.stdout}{done.stderr}")

    def load(self, snapshot: str) -> None:
        """Go to a snapshot: disk, memory and processes as they were, the date as it is now."""
        self._close_masters()
        self._qemu.monitor(f"loadvm {snapshot}")
        self._open_master("root", deadline_s=LOAD_DEADLINE_S)
        self.run(f"date --set=@{time.time():.3f}", check=True)

    def reset(self) -> None:
        """Go back to the system with nothing of ours running."""
        self.load("ready")

    def runbook(self) -> None:
        """Go to the runbook's server: five celery units, a stray worker, three gunicorn workers, Redis."""
        self.load("runbook")

    def save(self, snapshot: str) -> None:
        """Make a snapshot that lives as long as this lab; SSH connections do not survive it."""
        self._close_masters()
        self._qemu.monitor(f"savevm {snapshot}")

    def has(self, snapshot: str) -> bool:
        """Whether there is such a snapshot (QEMU stays stopped after one that is not)."""
        return snapshot in self._qemu.monitor("info snapshots").split()

    def powercycle(self) -> None:
        """Pull the plug and boot again (45 s); what was not synced in the guest may be lost."""
        before = self._boot_id()
        self._close_masters()
        self._qemu.monitor("system_reset")
        self._wait_for_boot()
        if self._boot_id() == before:
            raise LabError("the guest did not boot anew")

    def swap(self, *, on: bool) -> None:
        """Turn the guest's 2 GiB of swap on or off; it is off in the snapshots."""
        self.run("swapon /swapfile" if on else "swapoff -a", check=True)

    @property
    def _qemu(self) -> Qemu:
        if self._running is None:
            raise LabError("the lab is not started")
        return self._running

    def _start_qemu(self) -> None:
        disk = self._image / "disk.qcow2"
        if self._own_disk:
            copy = self._image / f"{self._directory.name}.qcow2"
            subprocess.run(["cp", "--reflink=auto", disk, copy], check=True)
            disk = copy
        try:
            self._running = Qemu(disk, self._image / "vmlinuz", self._image / "initrd", self.serial_log)
        finally:
            if self._own_disk:
                disk.unlink()  # QEMU holds it open: gone with the process, however that ends
        known = f"[127.0.0.1]:{self.ssh_port} {self.host_key}\n"
        (self._directory / "known_hosts").write_text(known)

    def _wait_for_boot(self) -> None:
        self._open_master("root", deadline_s=BOOT_DEADLINE_S)
        state = self.run("systemctl is-system-running --wait", timeout_s=BOOT_DEADLINE_S).stdout.strip()
        if state != "running":
            failed = self.run("systemctl --failed --no-legend").stdout
            raise LabError(f"the guest is {state}: {failed}")

    def _boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id", check=True).stdout.strip()

    def _options(self, user: str) -> list[str]:
        return [
            *("-F", "/dev/null", "-p", str(self.ssh_port), "-i", str(self.client_key_path)),
            *("-S", str(self._directory / user), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self._directory / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"),
        ]

    def _open_master(self, user: str, deadline_s: float) -> None:
        """Have one SSH connection per user, so that a command costs one channel and no login."""
        deadline = time.monotonic() + deadline_s
        while not self._master_is_open(user):
            if time.monotonic() > deadline:
                errors = (self._directory / "ssh.log").read_text(errors="replace")[-500:]
                raise LabError(f"no login as {user} in {deadline_s:.0f} s: {errors}")
            time.sleep(0.1)

    def _master_is_open(self, user: str) -> bool:
        master = self._masters.get(user)
        if master is None or master.poll() is not None:
            (self._directory / user).unlink(missing_ok=True)  # one that was killed leaves it
            command = ["ssh", *self._options(user), "-o", "ControlMaster=yes", "-N", f"{user}@127.0.0.1"]
            with (self._directory / "ssh.log").open("ab") as log:
                self._masters[user] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            return False
        return (self._directory / user).exists()

    def _close_masters(self) -> None:
        for user, master in self._masters.items():
            master.terminate()
            try:
                master.wait(MASTER_END_S)
            except subprocess.TimeoutExpired:  # seen on a busy machine: ssh had been told to end and did not
                master.kill()
                master.wait()
            (self._directory / user).unlink(missing_ok=True)
        self._masters.clear()
