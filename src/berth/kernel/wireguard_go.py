"""wireguard-go, for kernels without WireGuard: the tap, the process behind it, and the socket that it is told by.

The tap is made persistent, so that it outlives the process, with its addresses and the tunnels that lead through it:
without a process it has no carrier, and nothing gets through. The process outlives who starts it, and ends with the
tap. Whoever comes later finds it by its socket, whose directory is the machine's, not the namespace's.

Sources: https://www.wireguard.com/xplatform/; Documentation/networking/tuntap.rst of the kernel.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable

from berth import x25519
from berth.errors import Refused, Unsupported
from berth.kernel.wireguard_told import Peer, Told

_SOCKETS = "/var/run/wireguard"  # wireguard-go's own choice
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFREQ = struct.Struct("=16sH22x")
_TUN, _NO_PI = 0x0001, 0x1000
_PATIENCE = 2.0  # seconds for an answer
_START = 10.0  # seconds until it is at work; one before it on a tap of the same name may be about to end
NONE = "this kernel has no WireGuard, and no wireguard-go is installed: install it, or leave -o encrypt out"


def make(name: str) -> None:
    """A tap that stays, without anybody behind it. Raises `Unsupported`, `OSError`."""
    if _program() is None:
        raise Unsupported(NONE)
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unsupported("this kernel has neither WireGuard nor taps (CONFIG_TUN): leave -o encrypt out") from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _TUN | _NO_PI))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def start(name: str) -> None:
    """Have a process at work behind the tap. Raises `Unsupported`, `Refused`."""
    program = _program()
    if program is None:
        raise Unsupported(NONE)
    end = time.monotonic() + _START
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # It goes into the background by itself once its socket is there, in a session of its own: it outlives us.
    while (done := subprocess.run([program, name], start_new_session=True, cwd="/", **quiet)).returncode != 0:  # type: ignore[call-overload]  # mypy cannot see into the dict
        if time.monotonic() > end:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise Refused(f"cannot start wireguard-go for {name}: {last}")
        time.sleep(0.05)


def _program() -> str | None:
    return shutil.which("wireguard-go", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def answers(name: str) -> bool:
    """Whether a process is at work behind the tap. Raises `Refused` for one that does not answer."""
    try:
        _ask(name, "get=1\n")
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def told(name: str) -> Told:
    """What the process knows; without one, nothing. Raises `Refused` for one that does not answer."""
    try:
        lines = _ask(name, "get=1\n")
    except (FileNotFoundError, ConnectionRefusedError):
        return Told()
    public, port, peers = "", 0, list[Peer]()
    for key, value in lines:
        match key:
            case "private_key":
                public = x25519.public(_base64(value))
            case "listen_port":
                port = int(value)
            case "public_key":
                peers.append(Peer(_base64(value)))
            case "endpoint":
                peers[-1].endpoint = value
            case "allowed_ip":
                peers[-1].allowed.append(value)
    return Told(public, port, peers)


def set_device(name: str, private: str, port: int) -> None:
    """Give it a key and a port. Raises `Refused`, `OSError`."""
    _set(name, (("private_key", _hex(private)), ("listen_port", str(port))))


def set_peer(name: str, peer: Peer) -> None:
    """Add a peer, or change it. Raises `Refused`, `OSError`."""
    about = [("public_key", _hex(peer.public)), ("endpoint", peer.endpoint), ("replace_allowed_ips", "true")]
    _set(name, (*about, *(("allowed_ip", each) for each in peer.allowed)))


def remove_peer(name: str, public: str) -> None:
    """Remove a peer; one that is gone already is fine. Raises `Refused`, `OSError`."""
    _set(name, (("public_key", _hex(public)), ("remove", "true")))


def _set(name: str, lines: Iterable[tuple[str, str]]) -> None:
    _ask(name, "set=1\n" + "".join(f"{key}={value}\n" for key, value in lines))


def _ask(name: str, text: str) -> list[tuple[str, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(f"{_SOCKETS}/{name}.sock")
        connection.sendall(text.encode() + b"\n")
        said = bytearray()
        try:
            while not said.endswith(b"\n\n"):
                part = connection.recv(1 << 16)
                if not part:
                    raise ConnectionRefusedError  # it has just ended
                said += part
        except TimeoutError:
            raise Refused(f"wireguard-go for {name} does not answer: kill it, and the daemon starts another") from None
    lines = [(key, value) for key, _, value in (line.partition("=") for line in said.decode().split())]
    code = int(dict(lines).get("errno", "0"))
    if code:
        raise OSError(abs(code), os.strerror(abs(code)))
    return lines


def _hex(key: str) -> str:
    return b64decode(key).hex()


def _base64(key: str) -> str:
    return b64encode(bytes.fromhex(key)).decode()
