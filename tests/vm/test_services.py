"""Berth's services under a real systemd: killed, they are back, and what the kernel translates has not noticed.

How soon is measured where the machine is not emulated: `tests/kernel/test_proxy.py`, and systemd waits 0.1 s.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from berth.lab.session import Lab

from .conftest import Power
from .setups import ADDRESS, SETUPS

_SERVER = """import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
socketserver.ThreadingTCPServer(("0.0.0.0", 80), Echo).serve_forever()
"""
# One connection, for as long as the words "enough" have not come; prints how many answers it had.
_CLIENT = """import socket, sys
with socket.create_connection((sys.argv[1], 8081), 30) as client:
    count = 0
    print("begun", flush=True)
    for line in sys.stdin:
        client.sendall(line.encode())
        assert client.recv(100).decode() == line
        count += 1
print(count)
"""
_ASK = (
    'python3 -c \'import socket; c = socket.create_connection(("::1", 8080), 5); c.settimeout(5);'
    ' c.sendall(b"x"); assert c.recv(1) == b"x"\''
)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_services_come_back_and_what_is_translated_goes_on(machine: Power, lab: Lab) -> None:
    with machine(SETUPS["ifupdown-static"]) as guest:
        guest.sh("berth install systemd && systemctl daemon-reload", timeout=120)
        guest.sh("systemctl enable --now berth.socket berth.service", timeout=240)
        guest.until("systemctl is-active berth-proxy.service", within=120)
        guest.sh("berth network create back", timeout=120)
        guest.sh("ip netns add c1; berth attach back c1 -p [::1]:8080:80 -p 8081:80", timeout=120)
        guest.sh(f"cat >/root/server.py <<'END'\n{_SERVER}END")
        guest.sh("systemd-run --unit echo nsenter --net=/run/netns/c1 python3 /root/server.py")
        guest.until(_ASK, within=120)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with lab.popen("laptop", [sys.executable, "-c", _CLIENT, ADDRESS], **pipes) as client:
            assert client.stdin is not None and client.stdout is not None
            assert client.stdout.readline() == "begun\n"
            for unit in ("berth-proxy.service", "berth.service"):
                before = guest.sh(f"systemctl show -P MainPID {unit}")
                guest.sh(f"systemctl kill -s KILL {unit}")
                client.stdin.write(f"while {unit} is away\n")
                client.stdin.flush()
                guest.until(
                    f"systemctl is-active {unit} && [ $(systemctl show -P MainPID {unit}) != {before.strip()} ]", 120
                )
                guest.until(_ASK, within=120)
            said, _ = client.communicate(timeout=60)
        assert said == "2\n"
        assert guest.sh("berth port ls", timeout=120).count("8080") == 1
