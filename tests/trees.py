"""Debian trees for tests that need programs which must not be installed on this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from berth.errors import Unsupported


def cache() -> Path:
    """Where the trees are kept from one run to the next."""
    return Path(os.environ.get("BERTH_TEST_CACHE", "/var/cache/berth-tests")).absolute()


def tree(name: str, suite: str, packages: str, finish: Callable[[Path], None]) -> Path:
    """A Debian with these packages, made once, in a minute, by whoever comes first; the others wait.

    `finish` is called with the tree before anybody else sees it.
    """
    made = cache() / name
    if made.exists():
        return made
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for abandoned in cache().glob(f".{name}-*"):  # by one who was killed: nobody else can be at work here now
                shutil.rmtree(abandoned)
            draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache()))
            _debootstrap(suite, packages, draft)
            finish(draft)
            draft.rename(made)
    return made


def _debootstrap(suite: str, packages: str, target: Path) -> None:
    if shutil.which("debootstrap") is None:
        raise Unsupported("these tests need a Debian of their own: install the package debootstrap")
    # Its own mount namespace: what debootstrap mounts in the tree is gone with it, even if it is killed.
    argv = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", suite, str(target)]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        shutil.rmtree(target)
        raise Unsupported(f"debootstrap could not make {suite} (is there a network?):\n{done.stdout[-3000:]}")
    for package in (target / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    target.chmod(0o755)
