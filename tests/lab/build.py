"""Build the lab's image: `python -m tests.lab.build` (root). The second call finds it in the cache.

A Debian 12 with systemd and the runbook's site, and two snapshots of it running: `ready` and `runbook`.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import qemu
from tests.lab.machine import Lab

HOST_PACKAGES = ("mmdebstrap", "qemu-system-x86", "qemu-utils", "e2fsprogs", "openssh-client", "util-linux")
GUEST_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "kmod", "udev", "util-linux", "procps", "iproute2"),
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "openssh-server", "sudo", "cron", "curl", "less"),
    *("python3", "python3-django", "celery", "redis-server", "python3-redis", "nginx-light"),
    *("earlyoom", "systemd-oomd"),
    "auditd",  # for auditctl: journald hears the kernel's audit by itself
)
# Debian 12 has 20.1, which words a kill in its own way; the runbook's line needs 21 or later.
GUNICORN = "gunicorn==23.0.0"
# 20.0 says nothing of a killed worker; it still imports pkg_resources, which newer setuptools have no more.
OLD_GUNICORN = ("gunicorn==20.0.4", "setuptools==75.8.0")
OLD_GUNICORN_PATH = "opt/gunicorn-20.0"
MIRROR = "http://deb.debian.org/debian"
USERS = ("deploy", "alice")
# The daemons start themselves when installed; a scenario that wants one unmasks it. The timers would all elapse at once
# when the date is set after a snapshot was loaded.
MASKED = (
    *("earlyoom.service", "systemd-oomd.service", "systemd-oomd.socket", "auditd.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("fstrim.timer", "logrotate.timer", "man-db.timer"),
)
DISK_SIZE = "8G"
IMAGES_KEPT = 3
HERE = Path(__file__).parent
OVERLAY = HERE / "image"
# What is copied into the image or decides what stands in it.
RECIPE = (HERE / "build.py", HERE / "qemu.py", HERE / "runbook.sh")


def cache_directory() -> Path:
    """Where images are kept."""
    named = os.environ.get("MEMWARDEN_LAB_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "memwarden-lab"


def recipe_hash() -> str:
    """A digest of all that decides what the image is."""
    digest = hashlib.sha256(qemu.version().encode())
    for path in sorted([*RECIPE, *_overlay_files()]):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(HERE)} {content}\n".encode())
    return digest.hexdigest()[:16]


def build() -> Path:
    """The directory of the image; made first if the recipe changed (about four minutes)."""
    image = cache_directory() / recipe_hash()
    image.parent.mkdir(parents=True, exist_ok=True)
    with _locked(image.parent / "lock"):
        if not image.exists():
            with tempfile.TemporaryDirectory(dir=image.parent, prefix="building-") as temporary:
                made = Path(temporary) / "image"
                made.mkdir(mode=0o755)
                _make_image(made)
                made.rename(image)
            _prune(image.parent)
    return image


def _make_image(image: Path) -> None:
    _refuse_without_tools()
    root = image / "root"
    _say("installing Debian")
    _install_debian(root)
    _say("adding the site")
    _add_overlay(root)
    _add_gunicorn(root)
    _add_users_and_keys(root, image)
    _configure(root)
    _say("making the disk")
    _make_disk(root, image)
    shutil.rmtree(root)
    _say("booting")
    _take_snapshots(image)


def _refuse_without_tools() -> None:
    if os.geteuid() != 0:
        sys.exit("building the lab's image needs root")
    tools = ("mmdebstrap", "qemu-system-x86_64", "qemu-img", "mkfs.ext4", "ssh-keygen", "setpriv")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        sys.exit(f"missing {', '.join(missing)}: apt-get install {' '.join(HOST_PACKAGES)}")


def _install_debian(root: Path) -> None:
    packages = ",".join(GUEST_PACKAGES)
    _call("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(root), MIRROR)


def _add_overlay(root: Path) -> None:
    for path in _overlay_files():
        target = root / path.relative_to(OVERLAY)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)
        # A checkout keeps only the executable bit.
        target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    for sudoers in (root / "etc/sudoers.d").iterdir():
        sudoers.chmod(0o440)


def _add_gunicorn(root: Path) -> None:
    with tempfile.TemporaryDirectory() as venv:
        _call(sys.executable, "-m", "venv", venv)
        pip = (f"{venv}/bin/pip", "install", "--quiet", "--no-compile", "--target")
        _call(*pip, str(root / "usr/local/lib/python3.11/dist-packages"), GUNICORN)
        _call(*pip, str(root / OLD_GUNICORN_PATH), *OLD_GUNICORN)


def _add_users_and_keys(root: Path, image: Path) -> None:
    _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(image / "client_key"))
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    host_key.unlink(missing_ok=True)
    _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(host_key))
    shutil.copy(f"{host_key}.pub", image / "host_key.pub")
    for user in USERS:
        _call("chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", user)
    for home, user in (("root", "root"), *((f"home/{user}", user) for user in USERS)):
        ssh = root / home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(image / "client_key.pub", ssh / "authorized_keys")
        _call("chroot", str(root), "chown", "-R", f"{user}:", f"/{home}/.ssh")


def _configure(root: Path) -> None:
    chroot = ("chroot", str(root))
    _call(*chroot, "systemctl", "enable", "--quiet", "systemd-networkd.service")
    _call(*chroot, "systemctl", "mask", "--quiet", *MASKED)
    _call(*chroot, "install", "-d", "-o", "www-data", "-g", "www-data", "/var/lib/teaching_panel")
    _call(*chroot, "install", "-d", "-g", "systemd-journal", "-m", "2755", "/var/log/journal")
    (root / "etc/machine-id").write_text("")  # made at the first boot


def _make_disk(root: Path, image: Path) -> None:
    shutil.copy(next((root / "boot").glob("vmlinuz-*")), image / "vmlinuz")
    shutil.copy(next((root / "boot").glob("initrd.img-*")), image / "initrd")
    raw = image / "disk.raw"
    _call("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", str(root), str(raw), DISK_SIZE)
    _call("qemu-img", "convert", "-O", "qcow2", str(raw), str(image / "disk.qcow2"))
    raw.unlink()


def _prune(cache: Path) -> None:
    """Remove all but the newest images: each takes 2 GB, and nobody asks for an old recipe's again."""
    images = sorted((path for path in cache.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in images[:-IMAGES_KEPT]:
        shutil.rmtree(old)


def _take_snapshots(image: Path) -> None:
    lab = Lab(image, own_disk=False)
    try:
        lab.boot()
        # In the guest: a file that mkfs makes has holes, and swapon refuses it.
        lab.run("fallocate -l 2G /swapfile && chmod 600 /swapfile && mkswap /swapfile && sync", check=True)
        lab.save("ready")
        _say("setting up the runbook's server")
        lab.run((HERE / "runbook.sh").read_text(), timeout_s=300, check=True)
        lab.save("runbook")
    finally:
        shutil.copy(lab.serial_log, image)
        lab.stop()


def _overlay_files() -> Iterator[Path]:
    return (path for path in OVERLAY.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _call(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def _say(what: str) -> None:
    print(f"lab: {what}", file=sys.stderr, flush=True)  # noqa: T201 - a command line of its own


def main() -> None:
    """Build and print the image's directory, or the packages that building needs."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.build", description="Build the lab's image.")
    parser.add_argument("--packages", action="store_true", help="print the Debian packages needed, and end")
    words = " ".join(HOST_PACKAGES) if parser.parse_args().packages else str(build())
    print(words)  # noqa: T201 - a command line of its own


if __name__ == "__main__":
    main()
