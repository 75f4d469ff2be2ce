"""What Docker's own bridge driver does to a LAN's bridge is found, and mended by the command that is printed."""

from __future__ import annotations

import json
import re

import pytest

from berth.lab.session import Lab

from .harbour import POST, ROUTER, Harbour

pytestmark = pytest.mark.timeout(120)

THEIRS = ("--driver=bridge", *(word for word in POST if not re.match("--(ipam-)?driver", word)))


def test_the_routers_address_on_the_bridge(fresh_lab: Lab, engine_kind: str) -> None:
    with Harbour(fresh_lab, engine_kind) as harbour:
        harbour.docker("network", "create", *THEIRS, "br0")
        assert f"inet {ROUTER}/24" in harbour.sh("ip -4 -o address show br0")
        done = fresh_lab.run("host", ["berth", "doctor", "--json"])
        found = json.loads(done.stdout)
        (finding,) = [each for each in found if each["check"] == "gateway-address-on-bridge"]
        assert (done.returncode, ROUTER in finding["message"], "br0" in finding["message"]) == (1, True, True)
        harbour.sh(finding["fix"])
        done = fresh_lab.run("host", ["berth", "doctor", "--json"])
        assert "gateway-address-on-bridge" not in done.stdout
