"""One QEMU process, and its monitor over QMP."""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

# A restored snapshot makes the guest's TSC jump, and journald is then killed by its watchdog: hence the clocksource.
KERNEL_COMMAND_LINE = "root=/dev/vda rw console=ttyS0 psi=1 clocksource=acpi_pm tsc=unstable quiet"
# Never KVM: nested, it does not start a stock kernel.
MACHINE = (
    *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "2048"),
    *("-display", "none", "-nodefaults", "-no-user-config"),
    *("-device", "virtio-net-pci,netdev=net0"),
)


class QemuError(Exception):
    """QEMU did not start, or its monitor refused a command."""


def version() -> str:
    """The version of this machine's QEMU; snapshots fit only the one that made them."""
    answer = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[0]


class Qemu:
    """A running guest. Its SSH port is forwarded to `ssh_port` on 127.0.0.1."""

    def __init__(self, disk: Path, kernel: Path, initrd: Path, serial_log: Path) -> None:
        """Start the process and wait for its monitor; the guest boots meanwhile."""
        # Socket paths are limited to 107 bytes, a cache directory's is not.
        self._directory = Path(tempfile.mkdtemp(prefix="memwarden-qemu-"))
        monitor_path = self._directory / "qmp"
        self._errors_path = self._directory / "stderr"
        command = [
            # A killed test run must not leave a machine behind.
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *MACHINE),
            *("-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe"),
            *("-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", KERNEL_COMMAND_LINE),
            *("-serial", f"file:{serial_log}", "-qmp", f"unix:{monitor_path},server=on,wait=off"),
        ]
        with self._errors_path.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self._socket = self._connect(monitor_path, deadline_s=30)
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._lines.readline()  # the greeting
        self._execute("qmp_capabilities")
        self.ssh_port = self._forwarded_port()

    def monitor(self, line: str) -> str:
        """Run one line of the human monitor; raises QemuError with what it printed when it says Error."""
        printed = str(self._execute("human-monitor-command", {"command-line": line}))
        if "Error" in printed:
            raise QemuError(f"{line}: {printed.strip()}")
        return printed

    def stop(self) -> None:
        """End the process; what the guest had not written to its disk is lost."""
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._socket.close()
        shutil.rmtree(self._directory)

    def _connect(self, path: Path, deadline_s: float) -> socket.socket:
        deadline = time.monotonic() + deadline_s
        while True:
            monitor = socket.socket(socket.AF_UNIX)
            try:
                monitor.connect(str(path))
            except OSError as error:
                monitor.close()
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    raise QemuError(self._errors_path.read_text(errors="replace")) from error
                time.sleep(0.05)
            else:
                return monitor

    def _execute(self, command: str, arguments: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
        request = {"execute": command, "arguments": arguments or {}}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise QemuError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
        raise QemuError(f"{command}: {self._errors_path.read_text(errors='replace') or 'QEMU ended'}")

    def _forwarded_port(self) -> int:
        table = self.monitor("info usernet")
        match = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", table)
        if match is None:
            raise QemuError(f"no forwarded port in: {table}")
        return int(match[1])
