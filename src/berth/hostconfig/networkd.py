"""systemd-networkd: a .netdev for the bridge, its .network with the NIC's addresses, and the NIC's own as a port.

The NIC keeps the file that is for it alone. One that is for others too is left alone: a file that sorts before it
takes the NIC out of it, and the bridge gets a copy of what it says about addresses.

The lease stays. By default networkd tells a DHCP server a client identifier made of the device's IAID, which a bridge
does not share with its port, however equal their MACs. The IAID of the running lease is therefore written into the
bridge's file (it is for DHCPv6 too); where there is none to be known, the identifier becomes the MAC, which is also
what a server sees in the requests of clients that send none.
"""

from __future__ import annotations

from typing import ClassVar

from berth.errors import Invalid
from berth.hostconfig import Commands, Edits, File, Files, cloudinit
from berth.hostconfig.ini import Entry, Ini, Section
from berth.hostconfig.networkd_match import DIRECTORIES, ETC, Link, Network, first_for, networks
from berth.model import Addressing, Uplink, UplinkRoute

_LEASES = "run/systemd/netif/leases"
LEASE_GLOBS = (f"{_LEASES}/*", "sys/class/net/*/ifindex")  # what `client_id` looks at
#: A bridge by its switch, as a [Match] sees it.
_LOOKS = {"bridge": {"type": "bridge", "kind": "bridge"}, "ovs": {"type": "ether", "kind": "openvswitch"}}
_MAIN = 254  # the routing table
_YES = ("yes", "true", "on", "1")

#: What [Network] says about a link's addresses, and about what is built upon them: systemd.network(5).
_MOVED_KEYS = frozenset(
    [
        "Address",
        "BindCarrier",
        "ConfigureWithoutCarrier",
        "DHCP",
        "DHCPPrefixDelegation",
        "DHCPServer",
        "DHCPv6PrefixDelegation",
        "DNS",
        "DNSDefaultRoute",
        "DNSOverTLS",
        "DNSSEC",
        "DNSSECNegativeTrustAnchors",
        "DefaultRouteOnDevice",
        "Domains",
        "Gateway",
        "IPForward",
        "IPMasquerade",
        "IPVLAN",
        "IPVTAP",
        "IPv4AcceptLocal",
        "IPv4DuplicateAddressDetectionTimeoutSec",
        "IPv4Forwarding",
        "IPv4LLRoute",
        "IPv4LLStartAddress",
        "IPv4ProxyARP",
        "IPv4ProxyARPPrivateVLAN",
        "IPv4ReversePathFilter",
        "IPv4RouteLocalnet",
        "IPv6AcceptRA",
        "IPv6DuplicateAddressDetection",
        "IPv6Forwarding",
        "IPv6HopLimit",
        "IPv6LinkLocalAddressGenerationMode",
        "IPv6MTUBytes",
        "IPv6PrefixDelegation",
        "IPv6PrivacyExtensions",
        "IPv6ProxyNDP",
        "IPv6ProxyNDPAddress",
        "IPv6RetransmissionTimeSec",
        "IPv6SendRA",
        "IPv6StableSecretAddress",
        "IgnoreCarrierLoss",
        "KeepConfiguration",
        "LLMNR",
        "LinkLocalAddressing",
        "MACVLAN",
        "MACVTAP",
        "MPLSRouting",
        "MulticastDNS",
        "NTP",
        "Tunnel",
        "UseDomains",
        "VRF",
        "VXLAN",
        "Xfrm",
    ]
)
_MOVED_SECTIONS = frozenset(
    [
        "Address",
        "DHCP",
        "DHCPPrefixDelegation",
        "DHCPServer",
        "DHCPServerStaticLease",
        "DHCPv4",
        "DHCPv6",
        "DHCPv6PrefixDelegation",
        "IPv6AcceptRA",
        "IPv6AddressLabel",
        "IPv6PREF64Prefix",
        "IPv6Prefix",
        "IPv6PrefixDelegation",
        "IPv6RoutePrefix",
        "IPv6SendRA",
        "Neighbor",
        "NextHop",
        "Route",
        "RoutingPolicyRule",
    ]
)
_MOVED_LINK_KEYS = ("RequiredForOnline", "RequiredFamilyForOnline")  # a port is never routable


class Networkd:
    """The renderer of systemd-networkd's files."""

    name: ClassVar[str] = "networkd"
    regenerate: ClassVar[Commands] = ()  # the files are read later
    globs: ClassVar[tuple[str, ...]] = (
        *(f"{directory}/{end}" for directory in DIRECTORIES for end in ("*.network", "*.netdev", "*.network.d/*.conf")),
        *LEASE_GLOBS,
        cloudinit.GLOB,
    )

    def configures(self, files: Files, uplink: Uplink) -> bool:
        """Whether a .network fits the NIC and does not say hands off; netplan's are netplan's. Raises `Invalid`."""
        found = first_for(networks(files), Link(uplink.nic, uplink.mac, permanent_mac=uplink.mac))
        return found is not None and not found.unmanaged and not _of_netplan(found)

    def adopt(self, files: Files, uplink: Uplink) -> Edits:
        """The edits that make the NIC a port of the bridge, which takes its addresses over.

        Raises `Invalid` where a file does not parse, with its line, and where the NIC or the bridge is spoken for.
        """
        every = networks(files)
        nic = Link(uplink.nic, uplink.mac, permanent_mac=uplink.mac)
        bridge = Link(uplink.bridge, uplink.mac, **_LOOKS[uplink.switch])
        said = first_for(every, nic)
        if _is_adopted(files, said, uplink):
            return {}
        _refuse(files, every, said, uplink)
        if said is not None and said.unmanaged:
            said = None
        own = said is not None and said.only_for(nic) and said.editable
        prefix = _prefix([each for each in every if not (own and each is said)], nic, bridge)
        edits = _edits(files, uplink, said, own, f"{ETC}/{prefix}berth-")
        return edits | cloudinit.kept_off(files, edits)

    def reload(self, uplink: Uplink) -> Commands:
        """Have networkd read its files again. It takes a bridge and a port that are so already as they are.

        Addresses that it did not give itself it takes away, and gives them again a few milliseconds later. Of a bridge
        that it did not make itself networkd (252) takes no notice, and so has the NIC wait for it, until the kernel
        next tells of that bridge: it does when the group is set, to what it is.
        """
        poke = f"ip link set dev {uplink.bridge} group default 2>/dev/null || true"  # after a release there is none
        return (("networkctl", "reload"), ("sh", "-c", poke))


def _is_adopted(files: Files, said: Network | None, uplink: Uplink) -> bool:
    if uplink.switch == "ovs":
        return any(path.startswith(f"{ETC}/") and path.endswith(f"berth-{uplink.bridge}.network") for path in files)
    return said is not None and said.get("Network", "Bridge") == uplink.bridge


def _edits(files: Files, uplink: Uplink, said: Network | None, own: bool, berth: str) -> Edits:
    """What to write. `said`: what there is about the NIC; `own`: it is edited; `berth`: how our files' names begin."""
    mtu = str(uplink.mtu) if uplink.mtu else None
    nic = f"{berth}{uplink.nic}.network"
    if said is None:
        moved, stays = _told(uplink), [Ini(nic)]
    else:
        mtu = said.get("Link", "MTUBytes") or mtu
        stays = said.parts if own else [part.copy(part.path) for part in said.parts]
        moved = _take(stays)
        if not own:
            rest = [each.apart() for part in stays for each in part.sections if each.name != "Match"]
            stays = [Ini(nic, sections=[Section.new("Match"), *rest])]
    if not own:
        stays[0].first = [_by(uplink)]
    _port(stays, uplink, mtu)
    bridge = _bridge(f"{berth}{uplink.bridge}.network", moved, uplink, mtu)
    if _dhcp4(bridge):
        _keep_client_id(bridge, client_id(files, uplink))
    edits: Edits = {}
    made = [] if uplink.switch == "ovs" else [_netdev(f"{berth}{uplink.bridge}.netdev", uplink)]
    for ini in (*made, bridge, *stays):
        there = files.get(ini.path)
        text = ini.text()
        if ini.path.endswith(".conf") and not any(each.entries for each in ini.sections):
            edits[ini.path] = None  # a drop-in of which all has moved
        elif there is None or there.text != text:
            edits[ini.path] = File(text, there.mode if there else 0o644)
    return edits


def _refuse(files: Files, every: list[Network], said: Network | None, uplink: Uplink) -> None:
    """Raise `Invalid` where the NIC is something else's, or something else is the bridge."""
    if said is not None:
        if _of_netplan(said):
            raise Invalid(f"{said.path} is made by netplan: use --persist netplan")
        for key in ("Bridge", "Bond", "BatmanAdvanced"):
            if master := said.get("Network", key):
                raise Invalid(
                    f"{said.path} makes {uplink.nic} a port of {master} (`{key}={master}`): remove that first"
                )
    for path in files:
        if not path.endswith(".netdev") or path.rpartition("/")[0] not in DIRECTORIES:
            continue
        if Ini.parse(path, files[path].text, continued=True).get("NetDev", "Name") == uplink.bridge:
            raise Invalid(f"{path} makes a {uplink.bridge} already: remove it or choose another with --bridge")
    for each in every:
        if each.patterns("Name") == [uplink.bridge]:
            raise Invalid(f"{each.path} configures {uplink.bridge} already: remove it or choose another with --bridge")


def _prefix(others: list[Network], nic: Link, bridge: Link) -> str:
    """What our files' names begin with, so that they come before all others that fit the NIC or the bridge."""
    rivals = [each.basename for each in others if each.fits(nic) is not False or each.fits(bridge) is not False]
    for prefix in ("10-", "00-", "00-00-", "!"):
        if all(f"{prefix}berth-{link}.network" < rival for link in (nic.name, bridge.name) for rival in rivals):
            return prefix
    raise Invalid(f"{ETC}/{min(rivals)} sorts before any name for the file of {nic.name}: rename it")


def _take(parts: list[Ini]) -> list[Section]:
    """Remove what is about addresses from a .network and its drop-ins, and return it."""
    network, link = Section.new("Network"), Section.new("Link")
    sections: list[Section] = []
    for part in parts:
        for each in part.named("Network"):
            network.entries += each.take(*_MOVED_KEYS)
        for each in part.named("Link"):
            link.entries += each.take(*_MOVED_LINK_KEYS)
            if not each.entries:
                part.sections.remove(each)
        sections += part.take(*_MOVED_SECTIONS)
    return [link, network, *sections]


def _netdev(path: str, uplink: Uplink) -> Ini:
    """The bridge. Without a MAC networkd would give it one of its own; STP would keep ports silent for 30 s."""
    bridge = Section.new("NetDev", ("Name", uplink.bridge), ("Kind", "bridge"), ("MACAddress", uplink.mac))
    return Ini(path, [_by(uplink)], [bridge, Section.new("Bridge", ("STP", "no"), ("ForwardDelaySec", "0"))])


def _bridge(path: str, moved: list[Section], uplink: Uplink, mtu: str | None) -> Ini:
    """The bridge's addresses."""
    made = Ini(path, [_by(uplink)], [Section.new("Match", ("Name", uplink.bridge)), *moved])
    if mtu:
        made.section("Link").set("MTUBytes", mtu)
    static = made.values("Network", "Address") + made.values("Address", "Address")
    network = made.section("Network")
    if static and not _dhcp4(made) and network.get("ConfigureWithoutCarrier") is None:
        network.set("ConfigureWithoutCarrier", "yes")
    made.sections = [each for each in made.sections if each.entries]
    return made


def _dhcp4(ini: Ini) -> bool:
    return (ini.get("Network", "DHCP") or "no").lower() in (*_YES, "both", "ipv4", "v4")


def _keep_client_id(made: Ini, known: tuple[str, str]) -> None:
    """Have the DHCP server see the client that it knows, unless the files say which."""
    said = [each for name in ("DHCP", "DHCPv4") for each in made.named(name)]
    chosen = next((value for each in reversed(said) if (value := each.get("ClientIdentifier"))), None)
    if any(each.get("IAID") for each in said) or chosen in ("mac", "duid-only"):
        return
    if known[0] == "ClientIdentifier" and chosen is not None:
        return
    made.section("DHCPv4").set(*known)


def _port(stays: list[Ini], uplink: Uplink, mtu: str | None) -> None:
    """Make the NIC's file, with its drop-ins, that of a port. It is found by name: the bridge has its MAC too."""
    names = [word for part in stays for word in part.values("Match", "Name")]
    if names != [uplink.nic]:
        for each in [each for part in stays for each in part.named("Match")]:
            each.take("MACAddress", "Name")
        stays[0].section("Match").entries.insert(0, Entry.new("Name", uplink.nic))
    file = stays[0]
    if mtu and not any(part.get("Link", "MTUBytes") for part in stays):
        file.section("Link").set("MTUBytes", mtu)
    network = file.section("Network")
    if uplink.switch != "ovs":  # whose ports are in its own database, as the bridge is
        network.set("Bridge", uplink.bridge)
    network.set("LinkLocalAddressing", "no")
    network.set("IPv6AcceptRA", "no")


def _told(uplink: Uplink) -> list[Section]:
    """What the kernel told about the NIC's addresses."""
    auto = [addressing.method == "auto" for addressing in (uplink.ipv4, uplink.ipv6)]
    network = Section.new("Network", ("DHCP", "ipv4" if auto[0] else "no"))
    sections = [network]
    for addressing in (uplink.ipv4, uplink.ipv6):
        for address in addressing.addresses:
            network.add("Address", str(address))
    for addressing in (uplink.ipv4, uplink.ipv6):
        if addressing.gateway is not None and on_link(addressing):
            network.add("Gateway", str(addressing.gateway))
        elif addressing.gateway is not None:
            sections.append(Section.new("Route", ("Gateway", str(addressing.gateway)), ("GatewayOnLink", "yes")))
    for server in uplink.dns:
        network.add("DNS", str(server))
    if uplink.search:
        network.add("Domains", " ".join(uplink.search))
    network.add("LinkLocalAddressing", "no" if uplink.ipv6.method == "none" else "ipv6")
    network.add("IPv6AcceptRA", "yes" if auto[1] else "no")
    return [*sections, *(_route(each) for each in uplink.routes)]


def on_link(addressing: Addressing) -> bool:
    """Whether the gateway is in the subnet of one of the addresses, or link-local: it needs no word of its own."""
    gateway = addressing.gateway
    return gateway is None or gateway.is_link_local or any(gateway in each.network for each in addressing.addresses)


def _route(route: UplinkRoute) -> Section:
    made = Section.new("Route", ("Destination", str(route.dst)))
    if route.via is not None:
        made.add("Gateway", str(route.via))
    if route.metric:
        made.add("Metric", str(route.metric))
    if route.table != _MAIN:
        made.add("Table", str(route.table))
    return made


def client_id(files: Files, uplink: Uplink) -> tuple[str, str]:
    """What to write into [DHCPv4] so that the server knows the bridge for the NIC that it gave a lease to.

    A client identifier of type 255 is that, the IAID in four bytes, and the DUID (RFC 4361, 6.1).
    """
    index = files.get(f"sys/class/net/{uplink.nic}/ifindex")
    lease = files.get(f"{_LEASES}/{index.text.strip()}") if index else None
    for line in lease.text.splitlines() if lease else ():
        key, _, value = line.partition("=")
        if key == "CLIENTID" and value.startswith("ff"):
            return ("IAID", str(int(value[2:10], 16)))
    return ("ClientIdentifier", "mac")


def _of_netplan(found: Network) -> bool:
    return found.path.startswith("run/") and found.basename.startswith("10-netplan-")


def _by(uplink: Uplink) -> str:
    return f"# Written by `berth uplink adopt {uplink.nic}`."
