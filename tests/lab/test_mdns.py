"""Names of a LAN's containers, asked for from a phone by multicast DNS."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from lab_ground import LAPTOP, NULL, Ground

pytestmark = pytest.mark.timeout(120)

PHONE = (sys.executable, str(Path(__file__).with_name("lab_phone.py")))
LAN = "network create --driver flat --ipv6 -o parent=br0 -o mdns=true lan"
PATIENCE = 30


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def daemon(ground: Ground) -> Iterator[None]:
    with ground.lab.popen("host", ["berth", "daemon"], stdin=NULL, stdout=NULL, stderr=NULL) as process:
        try:
            until(lambda: "berth.sock" in ground.sh("ls $BERTH_RUN"))
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def found(ground: Ground, name: str) -> set[str]:
    """The addresses that the phone finds."""
    return set(ground.lab.run("laptop", [*PHONE, "find", name], check=True).stdout.split())


def asked(ground: Ground, name: str, kind: str) -> str:
    """What an ordinary resolver on the phone hears."""
    return ground.lab.run("laptop", [*PHONE, "ask", name, kind], check=True).stdout.strip()


def test_a_phone_finds_a_container_until_it_leaves(ground: Ground) -> None:
    ground.berth(LAN)
    with ground.station("laptop", "hear", program=PHONE) as heard:
        ground.sandbox("c1")
        four, six = ground.attach("lan", "c1", "--name Web_1")
        until(lambda: found(ground, "web-1.local") == {four, six})
        # A resolver that knows nothing of multicast gets an answer of its own.
        assert asked(ground, "web-1.local", "A") == four
        assert asked(ground, ip_address(four).reverse_pointer, "PTR") == "web-1.local."
        assert f"web-1.local. 120 {four}" in heard()
        ground.berth("detach lan c1")
        said: list[str] = []
        until(lambda: _hears(heard, said, f"web-1.local. 0 {four}"))
    assert found(ground, "web-1.local") == set()


def _hears(heard: Callable[[], list[str]], said: list[str], line: str) -> bool:
    said += heard()
    return line in said


def test_a_name_that_is_taken(ground: Ground) -> None:
    ground.berth(LAN)
    with ground.station("laptop", "claim", "printer.local", LAPTOP, program=PHONE):
        ground.sandbox("printer")
        addresses = {*ground.attach("lan", "printer")}
        until(lambda: found(ground, "printer-2.local") == addresses)
        assert found(ground, "printer.local") == {LAPTOP}


def test_who_did_not_ask_for_it(ground: Ground) -> None:
    ground.berth(LAN.replace(" -o mdns=true", ""))
    ground.container("lan", "quiet")
    assert found(ground, "quiet.local") == set()
    assert "NAT" in ground.refused("network create -o mdns=true backend")
