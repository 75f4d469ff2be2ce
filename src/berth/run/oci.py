"""A container's config.json, as the OCI runtime specification has it. No input or output here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")  # bound from the bundle, where they go by their last names

#: Docker's default.
CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

#: Docker's default: what of the kernel's own is not to be seen, and not to be written.
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Container:
    """What differs from one container to the next."""

    command: tuple[str, ...]
    hostname: str
    rootfs: Path
    bundle: Path
    pid_namespace: str  # path: the sandbox's, so that the container cannot outlive it
    network_namespace: str | None  # path; None: the caller's
    terminal: bool
    term: str  # $TERM
    sysfs: bool  # whether the kernel lets /sys be mounted for that network namespace
    cgroups: bool  # whether the runtime makes a control group
    tty_group: bool  # whether group 5 exists here, which owns terminals


def config(container: Container) -> dict[str, Any]:
    """The whole of config.json."""
    return {
        "ociVersion": "1.0.2",
        "hostname": container.hostname,
        "root": {"path": str(container.rootfs), "readonly": False},
        "process": _process(container),
        "mounts": [*_mounts(container), *(_file(container.bundle, path) for path in FILES)],
        "linux": {
            "namespaces": _namespaces(container),
            # The allowed devices (null, zero, tty, …) are the runtime's to add; without this rule all are.
            **({"resources": {"devices": [{"allow": False, "access": "rwm"}]}} if container.cgroups else {}),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }


def _process(container: Container) -> dict[str, Any]:
    # Only a control group keeps a process that may make device files from opening the host's disks by them.
    allowed = [name for name in CAPABILITIES if container.cgroups or name != "CAP_MKNOD"]
    return {
        "terminal": container.terminal,
        "user": {"uid": 0, "gid": 0},
        "args": list(container.command),
        "env": [f"PATH={PATH}", f"TERM={container.term}", "HOME=/root", f"HOSTNAME={container.hostname}"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), allowed),
        "noNewPrivileges": True,
    }


def _namespaces(container: Container) -> list[dict[str, str]]:
    kinds = ["mount", "uts", "ipc", *(["cgroup"] if container.cgroups else [])]
    joined = [{"type": "pid", "path": container.pid_namespace}]
    if container.network_namespace is not None:
        joined.append({"type": "network", "path": container.network_namespace})
    return [{"type": kind} for kind in kinds] + joined


def _mounts(container: Container) -> list[dict[str, Any]]:
    strict = ["nosuid", "noexec", "nodev"]
    group = ["gid=5"] if container.tty_group else []
    mounts = [
        _mount("/proc", "proc", *strict),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group),
        _mount("/dev/shm", "tmpfs", *strict, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", *strict),
    ]
    if container.sysfs:
        mounts.append(_mount("/sys", "sysfs", *strict, "ro"))
    if container.sysfs and container.cgroups:
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", *strict, "relatime", "ro"))
    return mounts


def _mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def _file(bundle: Path, path: str) -> dict[str, Any]:
    source = bundle / Path(path).name
    return {"destination": path, "type": "bind", "source": str(source), "options": ["bind", "rprivate"]}
