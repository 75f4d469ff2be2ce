"""Real etcd servers on loopback, each with a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from berth.errors import BerthError
from berth.store.gateway import Gateway, Members
from berth.store.rpc import GRANT


def free_ports(count: int) -> list[int]:
    """Ports that nobody had just now."""
    socks = [socket.socket() for _ in range(count)]
    try:
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
    finally:
        for sock in socks:
            sock.close()


class Cluster:
    """Some members of one etcd."""

    def __init__(self, directory: Path, size: int = 1, tls: tuple[str, ...] = ()) -> None:
        """`tls`: the paths of the CA's, the server's certificate and its key; clients must have one too."""
        ports = free_ports(2 * size)
        self.directory, self.tls = directory, tls
        self.clients, self._peers = ports[:size], ports[size:]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        for number in range(size):
            self.start(number)

    @property
    def where(self) -> Members:
        return Members(tuple(("127.0.0.1", port) for port in self.clients))

    @property
    def places(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.clients)

    def start(self, number: int = 0) -> None:
        """Start a member, again with what it had."""
        scheme = "https" if self.tls else "http"
        client = f"{scheme}://127.0.0.1:{self.clients[number]}"
        everybody = ",".join(f"m{i}=http://127.0.0.1:{port}" for i, port in enumerate(self._peers))
        peer = f"http://127.0.0.1:{self._peers[number]}"
        command = [
            *("etcd", "--name", f"m{number}", "--data-dir", str(self.directory / f"m{number}")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", everybody, "--heartbeat-interval", "50", "--election-timeout", "500"),
            *("--unsafe-no-fsync", "--logger", "zap", "--log-outputs", str(self.directory / f"m{number}.log")),
        ]
        if self.tls:
            ca, cert, key = self.tls
            command += ["--trusted-ca-file", ca, "--cert-file", cert, "--key-file", key, "--client-cert-auth"]
        if "--unsafe-no-fsync" not in subprocess.run(["etcd", "--help"], capture_output=True, text=True).stdout:
            command.remove("--unsafe-no-fsync")
        with open(self.directory / f"m{number}.out", "ab") as out:
            self.processes[number] = subprocess.Popen(command, stdout=out, stderr=out)

    def ready(self, where: Members | None = None) -> None:
        """Wait until writes are taken."""
        until = time.monotonic() + 30
        gateway = Gateway(where or self.where)
        while True:
            try:
                gateway.call(GRANT, {"TTL": 5})
                gateway.close()
                return
            except BerthError:
                if time.monotonic() > until:
                    raise

    def kill(self, number: int = 0) -> None:
        """End a member at once; its data stays."""
        process = self.processes.pop(number)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()

    def pause(self, number: int = 0) -> None:
        """It takes connections and answers nothing: its threads stop one by one, soon after they are told."""
        pid = self.processes[number].pid
        os.kill(pid, signal.SIGSTOP)
        until, threads = time.monotonic() + 10, Path(f"/proc/{pid}/task")
        while any(stat.read_text().rpartition(") ")[2][0] != "T" for stat in threads.glob("*/stat")):
            assert time.monotonic() < until, "a thread goes on"

    def go_on(self, number: int = 0) -> None:
        """After a pause."""
        os.kill(self.processes[number].pid, signal.SIGCONT)

    def lose_everything(self, number: int = 0) -> None:
        """As if the disk had gone."""
        shutil.rmtree(self.directory / f"m{number}")

    def leader(self) -> int:
        """The number of the member that leads."""
        for number in self.processes:
            (status,) = json.loads(self.ctl("endpoint", "status", "--write-out=json", number=number))
            if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
                return number
        raise AssertionError("nobody leads")

    def ctl(self, *args: str, number: int = 0) -> str:
        """What `etcdctl …` prints, of a member."""
        files = zip(("--cacert", "--cert", "--key"), self.tls, strict=False)
        place = f"--endpoints={'https' if self.tls else 'http'}://127.0.0.1:{self.clients[number]}"
        argv = ["etcdctl", place, *(f"{option}={path}" for option, path in files), *args]
        done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "ETCDCTL_API": "3"})
        assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """End all that runs."""
        for number in list(self.processes):
            self.kill(number)
