"""Network namespaces: finding one, knowing who it is, and stepping into it for a moment.

setns(2) moves the calling thread only. Nothing may run between the step in and the step out that could hand
the thread to other work, so every visit here is one plain `with` block.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from berth.errors import Denied, Invalid, NotFound, Refused
from berth.model import Sandbox
from berth.state import HOST

_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since Linux 5.14
_NAMES = "/run/netns"

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _home(pid: int) -> int:
    """A descriptor of the namespace this process was started in, where the first thread that asks still is."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def open_ns(path: str) -> int:
    """A descriptor of a network namespace. Raises `NotFound` (nothing there), `Invalid` (something else), `Denied`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise Denied(f"may not open the sandbox {path}: run as root") from None
    except OSError as error:
        raise NotFound(f"no sandbox at {path} ({error.strerror}): see `ip netns list`") from None
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != _NEWNET:
        os.close(fd)
        raise Invalid(f"{path} is not a network namespace: give a name as in `ip netns list`, a path or pid:N")
    return fd


@contextmanager
def inside(ns: str) -> Iterator[None]:
    """Run the block in a namespace; HOST is where the thread already is.

    Raises `NotFound` (nothing there), `Invalid` (not a network namespace), `Denied` (no CAP_SYS_ADMIN).
    """
    if ns == HOST:
        yield
        return
    home = _home(os.getpid())
    fd = open_ns(ns)
    try:
        _setns(fd)
    except OSError as error:
        raise _cannot_enter(ns, error) from None
    finally:
        os.close(fd)
    try:
        yield
    finally:
        _setns(home)


def may_enter() -> bool:
    """Whether this process may enter any sandbox."""
    try:
        _setns(_home(os.getpid()))
    except OSError:
        return False
    return True


def _cannot_enter(ns: str, error: OSError) -> Exception:
    if error.errno == errno.EPERM:
        return Denied(f"may not enter the sandbox {ns}: run as root (CAP_SYS_ADMIN)")
    return Refused(f"cannot enter the sandbox {ns}: {error.strerror}")


def who() -> str:
    """The identity of the namespace the thread is in: the boot, and the kernel's namespace cookie.

    The inode number of a namespace is given again after it is gone; its cookie is not.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return f"{boot()}:{int.from_bytes(cookie, 'little'):x}"


@cache
def boot() -> str:
    """The identity of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]


def sandbox(text: str) -> Sandbox:
    """Find a sandbox: a name as in `ip netns`, a path, `pid:N` or `docker:NAME`. See `resolve` for errors."""
    path = resolve(text)
    with inside(path):
        return Sandbox(path, who())


def resolve(text: str) -> str:
    """The path of a sandbox as typed.

    Raises `Invalid` for a text that cannot be one and `NotFound` where nothing is there.
    """
    if "\0" in text:
        raise Invalid(f"the sandbox {text!r} has a character that no path can have: leave it out")
    kind, _, rest = text.partition(":")
    if kind == "pid" and rest:
        if not rest.isdecimal():
            raise Invalid(f"pid:{rest} is not a process id: write pid:N with a number")
        path = f"/proc/{rest}/ns/net"
        if not os.path.exists(path):
            raise NotFound(f"no process {rest}: is the container still running?")
        return path
    if kind == "docker" and rest:
        return f"/proc/{_docker_pid(rest)}/ns/net"
    if "/" in text:
        if not text.startswith("/"):
            raise Invalid(f"the sandbox path {text} is not absolute: start it with /")
        return text
    if not text or text in (".", ".."):
        raise Invalid(f"{text!r} is not a sandbox: give a name as in `ip netns list`, a path, pid:N or docker:NAME")
    path = f"{_NAMES}/{text}"
    if not os.path.exists(path):
        raise NotFound(f"no sandbox named {text}: make it with `ip netns add {text}`, or give a path or pid:N")
    return path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _docker_pid(name: str) -> int:
    """The process id of a running Docker container (Docker API: GET /containers/{id}/json)."""
    if not all(c.isalnum() or c in "_.-" for c in name):
        raise Invalid(f"docker:{name} is not a container name")
    path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    connection = _UnixConnection(path)
    try:
        connection.request("GET", f"/containers/{name}/json")
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotFound(f"cannot ask Docker at {path} for {name} ({error}): is dockerd running?") from None
    finally:
        connection.close()
    pid = body.get("State", {}).get("Pid", 0) if answer.status == 200 else 0
    if not pid:
        raise NotFound(f"Docker has no running container {name}: see `docker ps`")
    return int(pid)
