"""Settings under /proc/sys, of the namespace the thread is in (for net.*)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from berth.state import Sysctl

_SWAP = str.maketrans("./", "/.")
#: Where /proc/sys/net can be written, if not there: Docker makes /proc/sys read-only for its managed plugins.
_NET = os.environ.get("BERTH_SYSCTL_NET") or "/proc/sys/net"


def _file(name: str) -> str:
    """The file of a setting: dots separate, and a slash stands for a dot inside a link's name (sysctl(8))."""
    return name.translate(_SWAP)


def read(name: str) -> str | None:
    """The value; None where this kernel or namespace has no such setting."""
    return content(f"/proc/sys/{_file(name)}")


def content(file: str) -> str | None:
    """What a small file under /proc says; None where there is none."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 4096).decode().strip()
    except OSError:
        return None
    finally:
        os.close(fd)


def write(settings: Iterable[Sysctl]) -> Iterator[tuple[Sysctl, OSError]]:
    """Set values; what was refused, and why.

    The way to /proc/sys/net is gone once for all: the kernel searches it among those of all namespaces that were
    ever looked at, some 0.9 ms for 1,000.
    """
    net = os.open(_NET, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for setting in settings:
            try:
                _write(_file(setting.name.removeprefix("net.")), setting.value, net)
            except OSError as error:
                yield setting, error
    finally:
        os.close(net)


def _write(file: str, value: str, directory: int) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
