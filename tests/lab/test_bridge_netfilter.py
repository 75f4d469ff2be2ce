"""Where br_netfilter hands bridged frames to others' FORWARD chains, which drop them: Berth warns, and goes round."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_ground import HOST, HOST6, INTERNET, INTERNET6, LAPTOP, LAPTOP6, ROUTER, ROUTER6, Ground

pytestmark = pytest.mark.timeout(60)

LAN = "network create --driver flat --ipv6 -o parent=br0 lan"
_INET = """nft 'add table inet theirs
add chain inet theirs forward { type filter hook forward priority 0; policy drop; }
add rule inet theirs forward ip saddr 198.51.100.7 accept'"""


@dataclass(frozen=True)
class Foreign:
    """Somebody else's firewall."""

    make: str
    unmake: str
    versions: tuple[int, ...]  # of IP whose frames it drops
    named: str  # as what a warning knows it


def _iptables(tool: str, version: int, named: str) -> Foreign:
    script = f"{tool} -P FORWARD DROP; {tool} -A FORWARD -s 198.51.100.7 -j ACCEPT"
    if version == 6:
        script = script.replace("198.51.100.7", "2001:db8:ffff::7")
    return Foreign(script, f"{tool} -P FORWARD ACCEPT; {tool} -F FORWARD", (version,), named)


FOREIGN = {
    "iptables-nft": _iptables("iptables-nft", 4, "ip filter FORWARD"),
    "ip6tables-nft": _iptables("ip6tables-nft", 6, "ip6 filter FORWARD"),
    "iptables-legacy": _iptables("iptables-legacy", 4, "iptables-legacy -S FORWARD"),
    "ip6tables-legacy": _iptables("ip6tables-legacy", 6, "ip6tables-legacy -S FORWARD"),
    "nft-inet": Foreign(_INET, "nft delete table inet theirs", (4, 6), "inet theirs forward"),
}


class Blocked:
    """A lab host whose FORWARD chains drop what crosses its bridge."""

    def __init__(self, ground: Ground, foreign: Foreign) -> None:
        self.ground, self.foreign = ground, foreign

    def begin(self) -> None:
        """From now on frames are dropped."""
        on = "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"
        self.ground.until_end(on, on.replace("=1", "=0"))
        self.ground.until_end(self.foreign.make, self.foreign.unmake)
        self.rules = self.look()

    def look(self) -> str:
        """All rules but Berth's."""
        tables = self.ground.sh("nft list tables").splitlines()
        listed = [self.ground.sh(f"nft list {line}") for line in tables if "berth" not in line]
        legacy = self.ground.sh("iptables-legacy -S; ip6tables-legacy -S") if "legacy" in self.foreign.named else ""
        return "".join(listed) + legacy

    def attach(self, name: str, *, warned: bool) -> list[str]:
        """Attach a sandbox; its addresses. The warning has to name the one who drops."""
        self.ground.sandbox(name)
        done = self.ground.tried(f"attach lan {name} --json")
        assert done.returncode == 0, done
        complaints = [line for line in done.stderr.splitlines() if self.foreign.named in line]
        assert bool(complaints) == warned, done.stderr
        return [
            address.partition("/")[0]
            for ep in self.ground.told("endpoint ls")
            if ep["name"] == name
            for address in ep["addresses"]
        ]

    def unreached(self, web: list[str], db: list[str], *, wait: int = 2) -> list[tuple[str, str]]:
        """Which of all the ways between container, router, laptop, internet, host and second container fail."""
        everybody = (ROUTER, LAPTOP, INTERNET, HOST, ROUTER6, LAPTOP6, INTERNET6, HOST6)
        out = [("web", address) for address in (*everybody, *db)]
        back = [(node, address) for node in ("router", "laptop", "host", "db") for address in web]
        return self.ground.pings(*out, *back, wait=wait)

    def dropped(self, web: list[str], db: list[str]) -> bool:
        """Whether what crosses the bridge, in the versions concerned, is dropped."""
        left = self.unreached(web, db, wait=1)
        want = [address for address in (ROUTER, ROUTER6) if (6 if ":" in address else 4) in self.foreign.versions]
        return all(("web", address) in left for address in want) and len(left) >= 5 * len(want)


@pytest.fixture(params=FOREIGN)
def blocked(ground: Ground, request: pytest.FixtureRequest) -> Blocked:
    """One firewall after the other, not yet in force."""
    if not Path("/proc/sys/net/bridge").exists():
        pytest.skip("br_netfilter is not loaded: `modprobe br_netfilter`")
    return Blocked(ground, FOREIGN[request.param])


def test_reconcile_leads_an_older_network_round_it(blocked: Blocked) -> None:
    ground = blocked.ground
    ground.berth(LAN)
    web = blocked.attach("web", warned=False)
    blocked.begin()
    db = blocked.attach("db", warned=True)
    assert blocked.dropped(web, db)
    ground.berth("reconcile")
    # Who was not found a moment ago is looked for anew, which takes up to a second (RFC 4861 section 10).
    left = blocked.unreached(web, db) and blocked.unreached(web, db)
    assert left == []
    with ground.serving("web", "laptop"):
        assert ground.ask("laptop", *web) == [LAPTOP, LAPTOP6]
        assert ground.ask("web", LAPTOP, LAPTOP6, proto="udp") == web
    blocked.attach("third", warned=False)
    assert blocked.look() == blocked.rules


def test_a_newer_network_works_at_once(blocked: Blocked) -> None:
    blocked.begin()
    blocked.ground.berth(LAN)
    web, db = (blocked.attach(name, warned=False) for name in ("web", "db"))
    assert blocked.unreached(web, db) == []
    for name in ("web", "db"):
        blocked.ground.berth(f"detach lan {name}")
    blocked.ground.berth("network rm lan")
    assert blocked.look() == blocked.rules
    assert "berth" not in blocked.ground.sh("nft list tables")


@pytest.mark.parametrize("blocked", ["iptables-nft", "nft-inet"], indirect=True)
def test_bypass_never_warns_and_stays_out_of_it(blocked: Blocked) -> None:
    blocked.begin()
    blocked.ground.berth(f"{LAN} -o bypass=never")
    web, db = (blocked.attach(name, warned=True) for name in ("web", "db"))
    blocked.ground.berth("reconcile")
    assert blocked.dropped(web, db)
    assert blocked.look() == blocked.rules


@pytest.mark.parametrize("blocked", ["nft-inet"], indirect=True)
def test_bypass_always_needs_no_reason(blocked: Blocked) -> None:
    blocked.ground.berth(f"{LAN} -o bypass=always")
    web, db = (blocked.attach(name, warned=False) for name in ("web", "db"))
    assert blocked.unreached(web, db) == []
    blocked.begin()
    assert blocked.unreached(web, db) == []
