"""Berth's services under a real systemd: killed, they are back, and what the kernel translates has not noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berth.lab.session import Lab
from berth.lab.topology import home
from vm.payload import make_payload

from .booted import Booted

_HOST = "192.168.2.2"
_SERVER = """import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
socketserver.ThreadingTCPServer(("0.0.0.0", 80), Echo).serve_forever()
"""
# One connection that says something a thousand times a second until there is no more to read; prints how many answers
# it had.
_CLIENT = """import select, socket, sys
with socket.create_connection((sys.argv[1], 8081), 30) as client:
    print("begun", flush=True)
    count = 0
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        client.sendall(b"%09d" % count)
        assert client.recv(9, socket.MSG_WAITALL) == b"%09d" % count
        count += 1
print(count)
"""
# Asks through the proxy until it is answered; prints the seconds that this took since a given time.
_ASK = """import socket, sys, time
begun = float(sys.argv[1])
while time.time() < begun + 30:
    try:
        with socket.create_connection(("::1", 8080), 1) as client:
            client.settimeout(1)
            client.sendall(b"x")
            if client.recv(1) == b"x":
                break
    except OSError:
        time.sleep(0.005)
print(time.time() - begun)
"""


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    directory = tmp_path / "payload"
    directory.mkdir()
    make_payload(directory)
    return directory


def test_killed_services_come_back_and_what_is_translated_goes_on(
    payload: Path, record_property: Callable[[str, object], None]
) -> None:
    with Lab(home()) as lab, Booted(lab, "host", payload) as debian:
        _kill_each(debian, lab, record_property)


def _kill_each(debian: Booted, lab: Lab, record_property: Callable[[str, object], None]) -> None:
    debian.sh("berth install systemd && systemctl daemon-reload && systemctl enable --now berth.socket berth.service")
    debian.until("systemctl is-active berth-proxy.service")
    debian.sh("berth network create back && ip netns add c1 && berth attach back c1 -p [::1]:8080:80 -p 8081:80")
    debian.sh(f"cat >/root/server.py <<'END'\n{_SERVER}END\ncat >/root/ask.py <<'END'\n{_ASK}END")
    debian.sh("systemd-run --unit echo nsenter --net=/run/netns/c1 python3 /root/server.py")
    assert float(debian.sh("python3 /root/ask.py $(date +%s.%N)")) < 30
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with lab.popen("laptop", [sys.executable, "-c", _CLIENT, _HOST], **pipes) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begun\n"
        for unit in ("berth-proxy.service", "berth.service"):
            before = debian.sh(f"systemctl show -P MainPID {unit}").strip()
            took = float(debian.sh(f"begun=$(date +%s.%N); systemctl kill -s KILL {unit}; python3 /root/ask.py $begun"))
            record_property(f"{unit} killed, the proxy answers after", f"{took:.3f} s")
            assert took < 30
            debian.until(f"[ $(systemctl show -P MainPID {unit}) != {before} ] && systemctl is-active {unit}")
        time.sleep(0.1)
        said, _ = client.communicate("\n", timeout=60)
    assert int(said) > 100
    assert debian.sh("berth port ls").count("8080") == 1
