"""Settings under /proc/sys, of the namespace the thread is in (for net.*)."""

from __future__ import annotations

from pathlib import Path

_SWAP = str.maketrans("./", "/.")


def path(name: str) -> Path:
    """The file of a setting: dots separate, and a slash stands for a dot inside a link's name (sysctl(8))."""
    return Path("/proc/sys") / name.translate(_SWAP)


def read(name: str) -> str | None:
    """The value; None where this kernel or namespace has no such setting."""
    try:
        return path(name).read_text().strip()
    except OSError:
        return None


def write(name: str, value: str) -> None:
    """Set a value. Raises `OSError`."""
    with path(name).open("wb", buffering=0) as file:
        file.write(value.encode())
