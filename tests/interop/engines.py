"""Real Docker engines on a lab's host.

    with Dockerd(lab, "26.1", plugins={"berth.spec": "unix:///run/berth.sock\\n"}) as engine:
        engine.docker("run", "--rm", "bb", "true")

An engine is in the lab's pid namespace and in its host's network: process ids and namespaces that Docker tells of are
right for whatever else runs on that host. Its mounts are its own. What it leaves in the host's network (docker0,
chains) goes with the lab; all else goes with `close`, however the daemon ended.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trees
from berth.errors import NotFound, Unsupported
from berth.lab.session import Inside, Session

#: The engines by version, and the Debian whose they are. Each is in a tree of its own: no Docker is installed here.
SUITES = {"20.10": "bookworm", "26.1": "trixie"}
KINDS = tuple(SUITES)
IMAGE = "bb"  # a static busybox with a link for every applet

_BUSYBOX = Path("/bin/busybox")
_CGROUPS = Path("/sys/fs/cgroup")
_NULL, _PIPE = subprocess.DEVNULL, subprocess.PIPE
_START_WITHIN, _STOP_WITHIN, _GONE_WITHIN = 60, 40, 20  # seconds

_NOISE = re.compile("loading plugin|module=grpc|level=debug")

_TREE_TOOLS = "docker-compose,iptables,nftables,iproute2,busybox-static,procps"
_TREE_PACKAGES = {"bookworm": f"docker.io,{_TREE_TOOLS}", "trixie": f"docker.io,docker-cli,{_TREE_TOOLS}"}

# $1 the engine's directory, $2 its root directory, $3 what follows. Docker pins its containers' network namespaces
# below exec/: shared, they have the same path for the host's other programs, as on a machine without a lab.
_SHARE = """
mount --bind "$1/exec" "$1/exec"
mount --make-shared "$1/exec"
exec unshare --mount --propagation unchanged sh -ec "$3" keeper "$1" "$2"
"""
# The lab's /sys shows the links of the machine, which are none of the engine's business; a new one shows those of the
# lab's host, but lacks the control groups. Docker looks for plugins in /run/docker and /etc/docker, wherever it runs.
# Kernel modules are the machine's: br_netfilter, which Docker would load, filters all of the machine's bridges.
# With another root directory by chroot alone, `docker exec` would get into the machine's own: it enters a container's
# mount namespace by the namespace's root.
_MOUNT = """
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount -t sysfs sysfs /sys
mount --move "$1/cgroup" /sys/fs/cgroup
modprobe=$(command -v modprobe) && mount --bind /bin/false "$modprobe"
mkdir -p /run/docker
mount --bind "$1/run" /run/docker
mount --bind "$2" "$2"
mount -o remount,bind,ro "$2"
mount --bind "$1/etc" "$2/etc/docker"
for each in dev proc sys run tmp etc/resolv.conf; do
    mount --rbind "/$each" "$2/$each"
done
cd "$2"
pivot_root . mnt
mount --make-rprivate /mnt
umount --lazy /mnt
echo $$
exec sleep infinity
"""


class EngineError(Exception):
    """An engine did not do what was asked of it; the message has all that it said."""


class Dockerd:
    """A dockerd on a lab's host, with its containerd, containers and files, for the length of a `with` block."""

    def __init__(
        self,
        lab: Session,
        kind: str,
        *,
        node: str = "host",
        plugins: Mapping[str, str] | None = None,
        live_restore: bool = False,
        args: Sequence[str] = (),
    ) -> None:
        """`plugins`: files of /etc/docker/plugins by name; `args`: more arguments for dockerd."""
        self.lab, self.kind, self.node = lab, kind, node
        self.name = f"berth-engine-{os.urandom(4).hex()}"
        # Not where TMPDIR says: the engine sees this path in its own root directory, and that has /tmp in any case.
        self.home = Path("/tmp", self.name)
        self.socket = self.home / "docker.sock"
        self._plugins = dict(plugins or {})
        self._args = [*(["--live-restore"] if live_restore else []), *args]
        self._keeper: Inside | None = None
        self._daemon: Inside | None = None
        self._pid = ""  # the keeper's, as the lab counts
        self._mounts: int | None = None  # its mount namespace, open: nobody else's has the same number while it is

    def __repr__(self) -> str:
        return f"<dockerd {self.kind} in {self.home}>"

    def __enter__(self) -> Self:
        try:
            self._furnish()
            self.start()
            self._import_busybox()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the log of {self}:\n{self.log()}")
        self.close()

    # --- the daemon ---

    def start(self) -> None:
        """Start the daemon, on the data that it had if it ran before, and wait until it answers."""
        argv = ["dockerd", f"--host=unix://{self.socket}", f"--pidfile={self.home}/docker.pid"]
        argv += [f"--data-root={self.home}/data", f"--exec-root={self.home}/exec"]
        # The lab has no systemd to ask for control groups. Below one of its own its containers are found and removed.
        argv += ["--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self.name}", *self._args]
        with self._log.open("ab") as log:
            self._daemon = self.popen(argv, stdin=_NULL, stdout=log, stderr=log)
        give_up = time.monotonic() + _START_WITHIN
        while not self._answers():
            if self._daemon.poll() is not None:
                raise EngineError(f"{self} ended with {self._daemon.returncode} before it answered")
            if time.monotonic() > give_up:
                raise EngineError(f"{self} does not answer after {_START_WITHIN} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Have the daemon end by itself (SIGTERM). It stops its containers, unless it is one of live restore."""
        assert self._daemon is not None
        self._daemon.terminate()
        try:
            self._daemon.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"{self} has not ended after {_STOP_WITHIN} s") from error

    def kill9(self) -> None:
        """Kill the daemon, and nothing else: its containers run on."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The daemon takes connections, but answers nothing."""
        pid = (self.home / "docker.pid").read_text()
        self.run(["kill", "-STOP", pid]).check_returncode()
        try:
            yield
        finally:
            self.run(["kill", "-CONT", pid]).check_returncode()

    def restart(self) -> None:
        """Stop the daemon and start it again."""
        self.stop()
        self.start()

    def lose_power(self) -> None:
        """After `kill9`: end the containers too, and lose what was in memory and below /run."""
        give_up = time.monotonic() + _GONE_WITHIN
        while alive := {pid: line for pid, line in self.processes().items() if line.split()[:1] != ["sleep"]}:
            if time.monotonic() > give_up:
                raise EngineError(f"{self} cannot be killed: {alive}")
            _kill(alive)
        script = (
            'for ns in "$1"/exec/netns/*; do umount "$ns" || true; done; rm -rf "$1"/exec/* "$1"/run/* "$1"/docker.*'
        )
        done = self.run(["sh", "-c", script, "reboot", str(self.home)])
        if done.returncode:
            raise EngineError(f"{self} cannot lose power: {done.stderr}")

    def lose_records(self) -> None:
        """Lose what the engine knows of networks and containers, but not its image."""
        done = self.run(["sh", "-c", 'rm -rf "$1"/data/network "$1"/data/containers', "lose", str(self.home)])
        if done.returncode:
            raise EngineError(f"{self} keeps its records: {done.stderr}")

    def plugin(self, name: str, content: str) -> None:
        """Write a file of /etc/docker/plugins: Docker reads it when the plugin is first asked for."""
        (self.home / "etc/plugins" / name).write_text(content)

    def log(self, lines: int = 60) -> str:
        """The end of what the daemon has said, without what it always says."""
        said = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join([line for line in said.splitlines() if not _NOISE.search(line)][-lines:])

    # --- what to ask of it ---

    def docker(self, *args: str, input: str | None = None, timeout: float = 60, check: bool = True) -> str:
        """What `docker …` prints, by the engine's own client; without `check`, its complaints as well."""
        return self._told(["/usr/bin/docker", *args], "/", input, timeout, check)

    def compose(self, *args: str, cwd: Path, timeout: float = 60, check: bool = True) -> str:
        """What `docker-compose …` prints in a directory, which must be below /tmp: 1.29 or 2.x, as the engine."""
        return self._told(["/usr/bin/docker-compose", *args], str(cwd), None, timeout, check)

    def api(self, method: str, path: str, body: object = None, timeout: float = 60) -> Any:
        """The answer to one request of Docker's API: of JSON the value, or else the text."""
        connection = _OverSocket(self.socket, timeout)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise EngineError(f"{method} {path} was answered with {answer.status}: {said.strip()}")
        return json.loads(said) if answer.headers.get_content_type() == "application/json" and said else said

    def run(
        self, argv: Sequence[str], *, cwd: str = "/", input: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where the daemon runs, with its root directory and mounts."""
        return self.lab.run(self.node, self._inside(argv, cwd), input=input, env=self._variables, timeout=timeout)

    def popen(self, argv: Sequence[str], **options: Any) -> Inside:
        """Start a command where the daemon runs; `options` are those of `subprocess.Popen`."""
        return self.lab.popen(self.node, self._inside(argv, "/"), env=self._variables, **options)

    def _inside(self, argv: Sequence[str], cwd: str) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--mount", f"--wdns={cwd}", "--", *argv]

    def _told(self, argv: list[str], cwd: str, input: str | None, timeout: float, check: bool) -> str:
        done = self.run(argv, cwd=cwd, input=input, timeout=timeout)
        if not check:
            return done.stdout + done.stderr
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise EngineError(f"`{shlex.join(argv)}` on {self.kind} ended with {done.returncode}:\n{said}")
        return done.stdout

    @property
    def _variables(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": f"{self.home}/config"}

    def _answers(self) -> bool:
        try:
            return bool(self.api("GET", "/_ping", timeout=_START_WITHIN) == "OK")
        except (OSError, http.client.HTTPException):
            return False

    # --- its surroundings ---

    @property
    def _log(self) -> Path:
        return self.home / "dockerd.log"

    def _furnish(self) -> None:
        """Make its directories, and the process that keeps its mount namespace while no daemon runs."""
        root = tree(self.kind)
        self.home.mkdir(mode=0o700)
        for directory in ("data", "exec", "run", "etc/plugins", "cgroup", "config"):
            (self.home / directory).mkdir(parents=True)
        for name, content in self._plugins.items():
            self.plugin(name, content)
        argv = ["sh", "-ec", _SHARE, "keeper", str(self.home), str(root), _MOUNT]
        with self._log.open("ab") as log:
            self._keeper = self.lab.popen(self.node, argv, stdin=_NULL, stdout=_PIPE, stderr=log, text=True)
        assert self._keeper.stdout is not None
        with self._keeper.stdout as said:
            self._pid = said.readline().strip()
        if not self._pid:
            raise EngineError(f"{self} cannot have mounts of its own")
        self._mounts = os.open(f"/proc/{self.lab.record.pid}/root/proc/{self._pid}/ns/mnt", os.O_RDONLY)

    def _import_busybox(self) -> None:
        archive = self.home / "bb.tar"
        _pack_busybox(archive)
        self.docker("import", "--change", 'CMD ["sh"]', str(archive), IMAGE)
        archive.unlink()

    # --- the end ---

    def processes(self) -> dict[int, str]:
        """What runs among the engine's mounts and in its containers: command lines by pid, as the machine counts."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if self._mounted(process) or self.name in (process / "cgroup").read_text():
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        return found

    def _mounted(self, process: Path) -> bool:
        """Whether a process is among the engine's mounts."""
        return self._mounts is not None and os.path.samestat(os.fstat(self._mounts), (process / "ns/mnt").stat())

    def cgroups(self) -> list[Path]:
        """The engine's control groups: in version 1 one for each controller, in version 2 one."""
        return [path for path in (*_CGROUPS.glob(f"*/{self.name}"), _CGROUPS / self.name) if path.exists()]

    def close(self) -> None:
        """Kill all that the engine started and remove all that it made outside the host's network."""
        self._kill_all()
        for process in (self._daemon, self._keeper):
            if process is not None:
                process.wait()
        if self._mounts is not None:
            os.close(self._mounts)
            self._mounts = None
        with suppress(NotFound):  # the lab has ended, and its mounts with it
            self.lab.run(self.node, ["umount", "--recursive", f"{self.home}/exec"])
        for cgroup in self.cgroups():
            _remove_cgroup(cgroup)
        if self.home.exists():
            shutil.rmtree(self.home)

    def _kill_all(self) -> None:
        """Again until none is left: one that dies may just have started another."""
        give_up = time.monotonic() + _GONE_WITHIN
        while alive := self.processes():
            if time.monotonic() > give_up:
                raise EngineError(f"{self} cannot be killed: {alive}")
            _kill(alive)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.02)


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _remove_cgroup(path: Path) -> None:
    """Remove a control group and those in it. One is busy for a moment after its last process has died."""
    give_up = time.monotonic() + _GONE_WITHIN
    for directory, _, _ in os.walk(path, topdown=False):
        while True:
            try:
                os.rmdir(directory)
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)


def _pack_busybox(archive: Path) -> None:
    """Write an image's files: /bin/busybox, a link to it for every applet, and places to mount on."""
    if not _BUSYBOX.exists():
        raise Unsupported(f"the tests' image needs {_BUSYBOX}: install the package busybox-static")
    listed = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "etc", "proc", "root", "sys", "tmp"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(directory)
        passwd = tarfile.TarInfo("etc/passwd")
        content = b"root:x:0:0:root:/root:/bin/sh\n"
        passwd.size = len(content)
        tar.addfile(passwd, io.BytesIO(content))
        tar.add(_BUSYBOX, "bin/busybox")
        for applet in sorted({*listed.stdout.split()} - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)


def tree(kind: str) -> Path:
    """A Debian with the engine of a kind."""
    suite = SUITES[kind]
    return trees.tree(suite, suite, _TREE_PACKAGES[suite], lambda made: (made / "etc/docker").mkdir(exist_ok=True))
