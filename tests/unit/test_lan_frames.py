"""ARP and neighbour discovery: what is sent is understood, and nothing that comes in is ever too strange."""

from __future__ import annotations

import random
from ipaddress import ip_address
from pathlib import Path

import pytest

from berth.lan.frames import announcement, claim, probe
from berth.lan.vendors import vendor
from berth.model import Claim

MAC = "02:00:00:00:00:07"
ADDRESSES = [ip_address("192.168.2.50"), ip_address("fd00:2::50")]


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_what_is_sent_is_understood(address) -> None:  # type: ignore[no-untyped-def]
    assert claim(probe(address, MAC)) == Claim(address, MAC, probe=True)
    assert claim(announcement(address, MAC)) == Claim(address, MAC)


def test_a_frame_is_as_the_rfcs_have_it() -> None:
    asked = probe(ip_address("192.168.2.50"), MAC).hex()
    assert asked == "ffffffffffff 020000000007 0806 0001 0800 06 04 0001".replace(" ", "") + (
        "020000000007 00000000 000000000000 c0a80232".replace(" ", "")
    )
    six = probe(ip_address("fd00:2::50"), MAC)
    assert six[:6].hex(":") == "33:33:ff:00:00:50"
    assert (ip_address(six[22:38]), ip_address(six[38:54])) == (ip_address("::"), ip_address("ff02::1:ff00:50"))


@pytest.mark.parametrize("reply", [1, 2], ids=["request", "reply"])
def test_requests_and_replies_claim_their_senders_address(reply: int) -> None:
    frame = bytes.fromhex(f"ffffffffffff 020000000007 0806 0001 0800 06 04 000{reply} 020000000007 c0a80232")
    frame += bytes(6) + bytes.fromhex("c0a80201")
    assert claim(frame) == Claim(ADDRESSES[0], MAC)
    assert claim(frame + bytes(18)) == Claim(ADDRESSES[0], MAC)  # padded to what Ethernet carries at least
    assert all(claim(frame[:length]) is None for length in range(42))


def test_who_merely_looks_for_a_neighbour_claims_nothing() -> None:
    frame = bytearray(probe(ADDRESSES[1], MAC))
    frame[22:38] = ip_address("fe80::7").packed
    assert claim(bytes(frame)) is None


def test_no_frame_is_too_strange() -> None:
    """100,000 frames: noise, and good ones with bytes changed, cut off and added."""
    chance = random.Random(7)
    good = [make(address, MAC) for make in (probe, announcement) for address in ADDRESSES]
    understood = 0
    for _ in range(100_000):
        frame = bytearray(chance.choice(good))
        for _ in range(chance.randrange(4)):
            frame[chance.randrange(12, len(frame))] = chance.randrange(256)
        frame = frame[: chance.randrange(len(frame) + 1)] if chance.random() < 0.3 else frame
        if chance.random() < 0.2:
            frame[14:] = chance.randbytes(chance.randrange(120))
        said = claim(bytes(frame))
        understood += said is not None
        assert said is None or (len(said.mac) == 17 and not int(said.mac[:2], 16) & 1)
    assert 10_000 < understood < 90_000


@pytest.mark.parametrize(
    "line",
    ["00-50-56   (hex)\t\tVMware, Inc.", "005056 VMware, Inc.", "00:50:56\tVMware\tVMware, Inc."],
    ids=["ieee", "nmap", "wireshark"],
)
def test_a_vendor_is_found_in_the_lists_that_systems_have(tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text(f"# a list\n00-50-55   (hex)\t\tAnother\n{line}\n")
    lists = (str(tmp_path / "none"), str(tmp_path / "list"))
    assert vendor("00:50:56:aa:00:10", lists) == "VMware, Inc."
    assert vendor("00:50:57:aa:00:10", lists) == ""
    assert vendor("02:50:56:aa:00:10", lists) == ""  # made up
