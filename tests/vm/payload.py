"""Berth as it is in this checkout, installed for the Debian of the virtual machine."""

from __future__ import annotations

import sys
from pathlib import Path

import hosts

from .image import call

_PYTHON = "3.11"  # bookworm's
_CHECKOUT = Path(__file__).resolve().parents[2]
_LAUNCHER = """#!/opt/berth/bin/python3
import sys

from berth.cli.main import main

sys.exit(main())
"""


def make_payload(directory: Path) -> None:
    """Make of a directory a virtual environment that will be at /opt/berth, with Berth in it."""
    packages = directory / f"lib/python{_PYTHON}/site-packages"
    argv: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-warn-conflicts", "--no-compile", "--only-binary=:all:", "--python-version", _PYTHON]
    argv += ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    call(*argv, "--target", packages, _CHECKOUT)
    scripts = directory / "bin"
    scripts.mkdir()
    (scripts / "python3").symlink_to("/usr/bin/python3")
    (directory / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {_PYTHON}\n"
    )
    launcher = scripts / "berth"
    launcher.write_text(_LAUNCHER)
    launcher.chmod(0o755)
    _compile(packages)


def _compile(packages: Path) -> None:
    """Compile with the machine's own Python: on a disk that cannot be written to, each start would do it again."""
    compiler = "/usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash"
    script = f'mount --bind "$1" "$2/mnt" && exec chroot "$2" {compiler} /mnt'
    call("unshare", "--mount", "sh", "-ec", script, "compile", packages, hosts.net_tree())
