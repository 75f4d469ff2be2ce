"""What a virtual machine starts from: a disk with a Debian, its kernel, and what the kernel needs to find the disk.

Made once from the tree in `hosts`, and kept beside it. A machine never writes to it: each has a layer of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hosts
import trees
from berth.errors import Unsupported

SHELL_PORT = "berth.shell"  # the virtual serial port that takes commands

_DISK_SIZE = "2G"  # sparse
_BUSYBOX = Path("/bin/busybox")
# What the guest's kernel has as modules and needs before it can read its disk.
_MODULES = ("virtio_pci", "virtio_blk")
_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache/apt", "var/lib/apt")
#: Nobody waits for these in a test; none has to do with how the network is set up.
_MASKED = (
    "ModemManager.service",
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dnsmasq.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "openvswitch-switch.service",
    "serial-getty@.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "wpa_supplicant.service",
)
#: Each system that configures networks is switched on by the machine's own files, never all of them at once.
_MANAGERS = (
    "NetworkManager.service",
    "NetworkManager-dispatcher.service",
    "NetworkManager-wait-online.service",
    "networking.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "dhcpcd.service",
    "systemd-timesyncd.service",
)

_INIT = """#!/busybox sh
# Mounts the disk, and on the very first start puts the machine's own files onto it.
/busybox mount -t devtmpfs dev /dev
/busybox mount -t proc proc /proc
for module in {modules}; do
    /busybox insmod /$module
done
until [ -b /dev/vdb ]; do /busybox sleep 0.05; done
/busybox mount -t ext4 -o noatime,noinit_itable /dev/vda /root
/busybox mount -t ext4 -o ro /dev/vdb /root/opt/berth
if [ ! -e /root/etc/berth-machine ]; then
    /busybox cp -a /root/opt/berth/files/. /root/
    /busybox touch /root/etc/berth-machine
fi
/busybox umount /proc
exec /busybox switch_root /root /sbin/init
"""

# One line in, a script in base64; one line out: its exit code and what it said on both outputs, in base64.
_SHELL = """#!/bin/sh
exec <>/dev/virtio-ports/{port} >&0
stty raw -echo 2>/dev/null
echo "up $(cat /proc/sys/kernel/random/boot_id)"
while read -r line; do
    echo "$line" | base64 -d >/run/shell.script
    sh -e /run/shell.script >/run/shell.out 2>/run/shell.err </dev/null
    echo "done $? $(base64 -w0 /run/shell.out) $(base64 -w0 /run/shell.err)"
done
"""
_SHELL_UNIT = """[Unit]
Description=Commands from outside
DefaultDependencies=no
After=dev-virtio\\x2dports-{escaped}.device systemd-tmpfiles-setup.service
BindsTo=dev-virtio\\x2dports-{escaped}.device
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/local/sbin/outside-shell
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# What a command has left in the background stays, as after a log-out.
KillMode=process
SendSIGHUP=yes
"""
_FSTAB = "/dev/vda / ext4 noatime 0 0\n"


@dataclass(frozen=True, slots=True)
class Image:
    """A disk to make layers over, a kernel, and its first file system."""

    disk: Path
    kernel: Path
    initrd: Path


def image() -> Image:
    """The image, made by whoever comes first; one of another version of this file is another image."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    made = trees.cache() / f"vm-{digest}"
    if not made.exists():
        tree = hosts.net_tree()
        with (trees.cache() / "vm.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                for former in (*trees.cache().glob("vm-*"), *trees.cache().glob(".vm-*")):
                    shutil.rmtree(former)
                draft = Path(tempfile.mkdtemp(prefix=".vm-", dir=trees.cache()))
                _make(tree, draft)
                draft.rename(made)
    return Image(made / "disk", made / "kernel", made / "initrd")


def _make(tree: Path, made: Path) -> None:
    """Make the image's three files in a directory."""
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, made / "kernel")
    _make_initrd(tree / "lib/modules" / kernel.name.removeprefix("vmlinuz-"), made)
    root = made / "root"
    call("cp", "-a", "--reflink=auto", tree, root)
    _furnish(root)
    make_disk(root, made / "disk", _DISK_SIZE)
    shutil.rmtree(root)


def _furnish(root: Path) -> None:
    """Make of a tree in which programs are run one that starts by itself, with a shell for those outside."""
    for path in (*_LEFT_OUT, "boot"):
        shutil.rmtree(root / path, ignore_errors=True)
    (root / "boot").mkdir()
    (root / "opt/berth").mkdir(parents=True)
    (root / "usr/local/bin/berth").symlink_to("/opt/berth/bin/berth")
    (root / "etc/fstab").write_text(_FSTAB)
    (root / "etc/cloud/cloud-init.disabled").touch()
    (root / "etc/hostname").write_text("guest\n")
    (root / "etc/machine-id").write_text(hashlib.md5(b"guest").hexdigest() + "\n")
    units = root / "etc/systemd/system"
    for unit in _MASKED:
        mask(root, unit)
    for wants in units.glob("*.wants"):
        for unit in _MANAGERS:
            (wants / unit).unlink(missing_ok=True)
    shell = root / "usr/local/sbin/outside-shell"
    shell.write_text(_SHELL.format(port=SHELL_PORT))
    shell.chmod(0o755)
    (units / "outside-shell.service").write_text(_SHELL_UNIT.format(escaped=SHELL_PORT))
    enable(root, "outside-shell.service", "/etc/systemd/system")


def enable(root: Path, unit: str, directory: str = "/lib/systemd/system", target: str = "multi-user.target") -> None:
    """Have a unit started with the system, as `systemctl enable` does."""
    wants = root / f"etc/systemd/system/{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / unit).symlink_to(f"{directory}/{unit}")


def mask(root: Path, unit: str) -> None:
    """Have a unit never started, as `systemctl mask` does."""
    link = root / "etc/systemd/system" / unit
    link.unlink(missing_ok=True)
    link.symlink_to("/dev/null")


def _make_initrd(modules: Path, made: Path) -> None:
    if not _BUSYBOX.exists():
        raise Unsupported(f"a virtual machine's first file system needs {_BUSYBOX}: install the package busybox-static")
    first = made / "first"
    for directory in ("dev", "proc", "root"):
        (first / directory).mkdir(parents=True)
    shutil.copy(_BUSYBOX, first / "busybox")
    files = _with_needs(modules, _MODULES)
    for file in files:
        shutil.copy(modules / file, first)
    init = first / "init"
    init.write_text(_INIT.format(modules=" ".join(Path(file).name for file in files)))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(first)) for path in sorted(first.rglob("*")))
    with (made / "initrd").open("wb") as archive:
        argv = [str(_BUSYBOX), "cpio", "-o", "-H", "newc"]
        subprocess.run(argv, input=names.encode(), stdout=archive, stderr=subprocess.PIPE, cwd=first, check=True)
    shutil.rmtree(first)


def _with_needs(modules: Path, names: tuple[str, ...]) -> list[str]:
    """The files of kernel modules, each after those that it needs."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, needed = line.partition(":")
        needs[file] = needed.split()[::-1]
    wanted = [file for name in names for file in needs if Path(file).name == f"{name}.ko"]
    return list(dict.fromkeys(each for file in wanted for each in (*needs[file], file)))


def make_disk(root: Path, disk: Path, size: str) -> None:
    """Make a disk whose one file system holds what is below a directory."""
    call("mke2fs", "-q", "-t", "ext4", "-d", root, disk, size)


def call(*argv: str | Path) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unsupported(f"`{' '.join(map(str, argv))}` failed: {(done.stderr or done.stdout).strip()}")
