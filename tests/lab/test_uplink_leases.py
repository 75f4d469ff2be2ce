"""A NIC whose address is leased: whatever leases it goes on leasing the same one for the bridge."""

from __future__ import annotations

import re

import pytest
from lab_home import NIC, Home

pytestmark = pytest.mark.timeout(120)

#: How each is started for a NIC, as Debian's ifupdown does or a person would.
CLIENTS = {
    "dhclient": (
        "dhclient -4 -v -i -pf /run/dhclient.{nic}.pid -lf /var/lib/dhcp/dhclient.{nic}.leases"
        " -df /var/lib/dhcp/dhclient6.{nic}.leases {nic}"
    ),
    "dhcpcd": "dhcpcd -4 -C resolv.conf -C hostname {nic}",
}


@pytest.fixture
def leasing(house: Home) -> Home:
    """The host without an address yet, and without anything of a DHCP client's of the machine's."""
    # What clients write is the lab's own: the machine's resolver and its leases are none of their business.
    house.sh(
        "touch $BERTH_STATE/resolv.conf; mount --bind $BERTH_STATE/resolv.conf /etc/resolv.conf;"
        "for each in /var/lib/dhcp /var/lib/dhcpcd; do mkdir -p $each; mount -t tmpfs none $each; done"
    )
    house.sh(f"ip -4 address flush dev {NIC}; ip route flush dev {NIC} || true")
    return house


def leased(house: Home, dev: str) -> str:
    """The address that a link has got from the router."""
    house.until(f"ip -4 address show dev {dev} | grep -q 'inet 192.168.2.2[0-4][0-9]'")
    found = re.search(r"inet (\S+)/24", house.sh(f"ip -4 address show dev {dev}"))
    assert found
    return found.group(1)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_lease_goes_along_and_comes_back(leasing: Home, client: str) -> None:
    house = leasing
    house.sh(CLIENTS[client].format(nic=NIC))
    address = leased(house, NIC)
    house.until("ip route show default | grep -q 192.168.2.1")
    assert client in house.berth(f"uplink plan {NIC}")
    for verb, dev, other in (("adopt", "br0", NIC), ("release", NIC, "br0")):
        granted = grants(house)
        house.berth(f"uplink {verb} {NIC}")
        house.until(f"test $(grep -c DHCPACK {log(house)}) -gt {granted}")
        assert leased(house, dev) == address
        assert f"dev {dev}" in house.sh("ip route show default")
        running = house.sh(f"ps -eo args | grep '^{client}'")
        assert dev in running
        assert other not in running
        assert other not in house.sh("ip -4 address show")
        house.sh("ping -c1 -W2 203.0.113.10")


def test_a_dhcpcd_for_all_nics_would_take_the_address_back(leasing: Home) -> None:
    house = leasing
    house.sh("dhcpcd -4 -b -C resolv.conf -C hostname")
    leased(house, NIC)
    before = house.sh("ip -4 address show")
    assert "dhcpcd serves" in house.refused(f"uplink adopt {NIC}")
    assert house.sh("ip -4 address show") == before


def log(house: Home) -> str:
    """The router's DHCP log."""
    return str(house.lab.work / "router" / "dnsmasq.log")


def grants(house: Home) -> int:
    """How often the router has granted a lease."""
    return int(house.sh(f"grep -c DHCPACK {log(house)} || true"))
