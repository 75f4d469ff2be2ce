"""`berth install`: the files by which the host's other programs find Berth."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from berth.cli.output import json_option, print_json
from berth.errors import Denied, Refused, Taken
from berth.wire import leases_path, socket_path

_MARK = "# Written by `berth install`; `berth install … --remove` removes it.\n"

_SOCKET = """{mark}[Unit]
Description=Berth, container networking (socket)
Before=docker.service

[Socket]
ListenStream={socket}
ListenStream={leased}
SocketMode=0600
DirectoryMode=0755

[Install]
WantedBy=sockets.target
"""

_SERVICE = """{mark}[Unit]
Description=Berth, container networking
Requires=berth.socket
Wants=berth-proxy.service
After=network.target berth.socket berth-proxy.service
Before=docker.service

[Service]
Type=notify
ExecStart={program} daemon
Restart=always
RestartSec=1
KillMode=process
WatchdogSec=20
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE
StateDirectory=berth
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
"""

# It outlives the daemon, and the daemon it. What it carries, the firewall's maps say, which are there in either case.
_PROXY = """{mark}[Unit]
Description=Berth, container networking (proxy of published ports)
After=network.target

[Service]
Type=notify
ExecStart={program} proxy
Restart=always
RestartSec=100ms
LimitNOFILE=524288
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={run}
ProtectHome=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
MemoryDenyWriteExecute=yes

[Install]
WantedBy=multi-user.target
"""

UNITS = Path("etc/systemd/system")
SPEC = Path("etc/docker/plugins/berth.spec")
LEASED = Path("etc/docker/plugins/berth-dhcp.spec")


@click.command()
@click.argument("what", type=click.Choice(["docker", "systemd"]))
@click.option("--root", default="/", type=click.Path(path_type=Path), help="Write below this directory. [default: /]")
@click.option("--remove", is_flag=True, help="Remove what was written.")
@json_option
def install(what: str, root: Path, remove: bool, as_json: bool) -> None:
    """Write the files by which systemd and Docker find Berth, and say which.

    \b
    systemd   a socket unit and a service: the daemon starts when somebody asks, and systemd keeps what is asked
              while it is down, so that Docker never waits for it; and a service for the proxy
    docker    the same, and two plugin files: `docker network create -d berth …` then works, also with
              --ipam-driver berth-dhcp
    """
    files = _files(what)
    done = [root / path for path, text in files.items() if (_remove if remove else _write)(root / path, text)]
    if as_json:
        print_json([str(path) for path in done])
        return
    for path in done:
        print(f"{'removed' if remove else 'wrote'} {path}")
    if not done:
        print("nothing to remove" if remove else "all there already")
    if root == Path("/") and done:
        print("next: systemctl daemon-reload" + ("" if remove else " && systemctl enable --now berth.socket"))


def _files(what: str) -> dict[Path, str]:
    socket = socket_path()
    files = {
        UNITS / "berth.socket": _SOCKET.format(mark=_MARK, socket=socket, leased=leases_path()),
        UNITS / "berth.service": _SERVICE.format(mark=_MARK, program=_program()),
        UNITS / "berth-proxy.service": _PROXY.format(mark=_MARK, program=_program(), run=socket.parent),
    }
    if what == "docker":
        files[SPEC] = f"unix://{socket}\n"
        files[LEASED] = f"unix://{leases_path()}\n"
    return files


def _program() -> str:
    """This very program, as an absolute path; systemd has no other idea of where to look."""
    program = Path(sys.argv[0])
    installed = Path(sys.executable).with_name("berth")
    return str(program.absolute() if program.name == "berth" and os.access(program, os.X_OK) else installed)


def _write(path: Path, text: str) -> bool:
    """Write a file whole or not at all. False when it is there already. Raises `Taken` for somebody else's."""
    try:
        if path.exists():
            there = path.read_text(errors="replace")
            if there == text:
                return False
            if not _ours(there):
                raise Taken(f"{path} is there and was not written by Berth: move it away first")
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(path)
    except PermissionError:
        raise Denied(f"may not write {path}: run as root, or give --root") from None
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}") from None
    return True


def _remove(path: Path, _: str) -> bool:
    """Remove a file of Berth's. False when there is none. Raises `Taken` for somebody else's."""
    try:
        if not path.exists():
            return False
        if not _ours(path.read_text(errors="replace")):
            raise Taken(f"{path} was not written by Berth: it stays; remove it by hand")
        path.unlink()
    except PermissionError:
        raise Denied(f"may not remove {path}: run as root") from None
    except OSError as error:
        raise Refused(f"cannot remove {path}: {error.strerror}") from None
    return True


def _ours(text: str) -> bool:
    return text.startswith(_MARK) or (
        text.startswith("unix://") and text.rstrip().endswith(("/berth.sock", "/berth-dhcp.sock"))
    )
