"""The life of a container with a root file system of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from berth.run import oci
from berth.run.channel import Dressed, Look
from berth.run.looks import outside
from berth.run.request import Mode, RunRequest
from berth.run.runtime import Runtime

_TTY_GROUP = 5  # by tradition, and by glibc's


def write_bundle(
    bundle: Path, request: RunRequest, sandbox: int, look: Look, dressed: Dressed, *, cgroups: bool
) -> None:
    """Write what the runtime reads: config.json and the files of /etc that are the sandbox's."""
    assert request.rootfs is not None  # or there is no container
    namespaces = Path(f"/proc/{sandbox}/ns")
    hostname = look.hostname or socket.gethostname()
    container = oci.Container(
        command=request.command,
        hostname=hostname,
        rootfs=request.rootfs.absolute(),
        bundle=bundle,
        pid_namespace=str(namespaces / "pid"),
        network_namespace=None if request.mode is Mode.HOST else str(namespaces / "net"),
        terminal=request.terminal,
        term=os.environ.get("TERM", "xterm"),
        sysfs=dressed.sysfs,
        cgroups=cgroups,
        tty_group=has_group(Path("/proc/self/gid_map").read_text(), _TTY_GROUP),
    )
    for path in oci.FILES:
        (bundle / Path(path).name).write_text(look.files.get(path) or outside(path))
    (bundle / "hostname").write_text(f"{hostname}\n")
    (bundle / "config.json").write_text(json.dumps(oci.config(container), indent=2))


def has_group(gid_map: str, group: int) -> bool:
    """Whether a group can be given to files in this user namespace."""
    spans = (line.split() for line in gid_map.splitlines())
    return any(int(first) <= group < int(first) + int(count) for first, _, count in spans)


@contextmanager
def kept(runtime: Runtime, identity: str, bundle: Path, *, remove: bool) -> Iterator[None]:
    """Keep the bundle and the runtime's record after the block, unless they are not wanted or it fails."""
    # The runtime knows no such container (any more), so a bundle of that name is a leftover.
    shutil.rmtree(bundle, ignore_errors=True)
    bundle.mkdir(parents=True, mode=0o700)
    try:
        yield
    except BaseException:
        remove = True
        raise
    finally:
        if remove:
            runtime.delete(identity)
            shutil.rmtree(bundle, ignore_errors=True)
