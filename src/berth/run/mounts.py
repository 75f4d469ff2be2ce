"""Making a mount namespace look like the sandbox's own machine. Runs in init, after unshare(CLONE_NEWNS)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from berth.run.channel import Dressed, Look
from berth.run.syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, mount, unmount

_STAGE = Path("/tmp")
_CGROUPS = Path("/sys/fs/cgroup")
_HARDENED = MS_NOSUID | MS_NODEV | MS_NOEXEC


def dress(look: Look, *, own_network: bool) -> Dressed:
    """Show the given files, this PID namespace's /proc and, unless the network is the caller's, its /sys.

    The files are written to a tmpfs that covers /tmp while this runs: nothing is left in any file system when
    the namespace ends. What the kernel refuses (in a user namespace without a full view of /proc or /sys) is
    left as it is, and told in the warnings.
    """
    warnings: list[str] = []
    mount("tmpfs", str(_STAGE), "tmpfs", _HARDENED, "mode=0700")
    try:
        for number, (path, text) in enumerate(look.files.items()):
            if refusal := _cover(Path(path), text, _STAGE / str(number)):
                warnings.append(refusal)
        sysfs = _fresh_sysfs(_STAGE / "cgroup") if own_network else _mount_sysfs(_STAGE / "sys")
    finally:
        unmount(str(_STAGE))
    if own_network and not sysfs:
        warnings.append("the kernel refused a new /sys: it shows the links of the namespace berth runs in")
    if not _fresh_proc():
        warnings.append("the kernel refused a new /proc: it shows the processes of the namespace berth runs in")
    return Dressed(sysfs, tuple(warnings))


def _cover(path: Path, text: str, source: Path) -> str:
    """Bind a file over another. What went wrong, or nothing."""
    source.write_text(text)
    source.chmod(0o644)
    try:
        # A path that is a symbolic link, as /etc/resolv.conf often is, has the file that it leads to covered.
        mount(str(source), str(path), flags=MS_BIND)
    except OSError as error:
        return f"{path} is the one outside, because it cannot be covered: {error.strerror}"
    return ""


def _fresh_sysfs(stage: Path) -> bool:
    """Mount /sys for the network namespace of this process, with the control groups where they were."""
    with suppress(OSError):
        stage.mkdir()
        mount(str(_CGROUPS), str(stage), flags=MS_BIND | MS_REC)
    done = _mount_sysfs(Path("/sys"))
    if done:
        with suppress(OSError):  # a machine without control groups has nothing to put back
            mount(str(stage), str(_CGROUPS), flags=MS_BIND | MS_REC)
    return done


def _mount_sysfs(target: Path) -> bool:
    """Whether the kernel lets /sys be mounted for the network namespace that this process is in."""
    try:
        target.mkdir(exist_ok=True)
        mount("sysfs", str(target), "sysfs", _HARDENED)
    except OSError:
        return False
    return True


def _fresh_proc() -> bool:
    try:
        mount("proc", "/proc", "proc", _HARDENED)
    except OSError:
        return False
    return True
