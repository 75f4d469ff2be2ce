"""One row for every noun, family and place: what test_nouns.py puts through the same five trials."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from msgspec.structs import replace

from berth import spec
from berth.firewall import frames, policy, proxy, tables
from berth.model import Network, Proxied
from berth.overlaid import Fdb, Neigh, Vxlan
from berth.ovs import TxChecksums
from berth.rates import NftRate, Shaped
from berth.sealed import WireGuard, WireGuardPeer
from berth.state import (
    HOST,
    Addr,
    Bridge,
    LinkUp,
    NftElement,
    NftHook,
    NftPass,
    NftTable,
    Obj,
    Part,
    Route,
    Sysctl,
    Veth,
)

from .conftest import C1, C2

NETWORK, ENDPOINT = "berth:" + "0" * 63 + "1", "berth:" + "0" * 63 + "2"


@dataclass(frozen=True)
class Case:
    """An object and what can happen to it."""

    name: str
    obj: Obj
    other: Obj | None = None  # another value under the same key; None: the key is all there is to it
    needs: tuple[Obj, ...] = ()  # made by Berth before
    squatter: str = ""  # a shell line that puts somebody else's thing under the key; "": there can be none
    refused: str = "diff"  # who sees it: "diff", or the "kernel" where a thing has no mark
    sandboxes: tuple[str, ...] = ()  # beside c1
    around: str = ""  # a shell line that makes what somebody else has there before


def _bridges() -> list[Case]:
    def bridge(mac: int, mtu: int, alias: str = NETWORK) -> Bridge:
        return Bridge("brt0", f"02:00:00:00:00:{mac:02x}", mtu, alias)

    first = bridge(1, 1400)
    return [
        Case("bridge", first, bridge(2, 1500, ENDPOINT), squatter="ip link add brt0 type bridge"),
        Case("bridge-1500", bridge(1, 1500), bridge(1, 9000), squatter="ip link add brt0 type veth peer name x"),
        Case("bridge-smallest", bridge(1, 68), bridge(1, 65535), squatter="ip link add brt0 type bridge"),
        Case("bridge-1280", bridge(1, 1280), bridge(1, 68), squatter="ip link add brt0 type bridge"),
        Case("bridge-largest", bridge(1, 65535), bridge(1, 1280), squatter="ip link add brt0 type bridge"),
        Case("bridge-9000", bridge(1, 9000), first, squatter="ip link add brt0 alias x type bridge"),
    ]


def _cables() -> list[Case]:
    def veth(ns: str, inner: str, mac: int = 1, mtu: int = 1400, master: str = "plug") -> Veth:
        return Veth("bv0", master, mtu, ENDPOINT, ns, inner, f"02:00:00:00:02:{mac:02x}")

    there = "ip link add bv0 address 02:00:00:00:03:01 type veth peer name x address 02:00:00:00:03:02"
    long = Veth("bv0123456789ab", "plug", 1500, ENDPOINT, HOST, "bw0123456789abc", "02:00:00:00:02:01")
    return [
        Case("veth", veth(C1, "eth1"), veth(C1, "eth1", 2, 1500), squatter=there),
        Case("veth-unplugged", veth(C1, "eth1", master=""), veth(C1, "eth1"), squatter=f"{there} netns c1"),
        Case(
            "veth-plugged-elsewhere",
            veth(C1, "eth1"),
            veth(C1, "eth1", master="plug2"),
            squatter="ip link add bv0 type bridge",
        ),
        Case(
            "veth-other-sandbox",
            veth(C1, "eth1"),
            veth(C2, "eth0"),
            sandboxes=("c2",),
            squatter="ip link add bv0 type bridge",
        ),
        Case(
            "veth-smaller-inside",
            Veth("bv0", "plug", 1400, ENDPOINT, C1, "eth1", "02:00:00:00:02:01", 1300),
            veth(C1, "eth1"),
            squatter=there,
        ),
        Case(
            "handover-smaller-inside",
            veth(HOST, "bw0"),
            Veth("bv0", "plug", 1400, ENDPOINT, HOST, "bw0", "02:00:00:00:02:01", 1300),
            squatter=there,
        ),
        Case(
            "veth-hairpin",
            replace(veth(C1, "eth1"), hairpin=True),
            veth(C1, "eth1"),
        ),
        Case(
            "veth-hairpin-plugged-elsewhere",
            replace(veth(C1, "eth1"), hairpin=True),
            replace(veth(C1, "eth1", master="plug2"), hairpin=True),
        ),
        Case("handover-hairpin", veth(HOST, "bw0"), replace(veth(HOST, "bw0"), hairpin=True)),
        Case("veth-isolated", replace(veth(C1, "eth1"), isolated=True), veth(C1, "eth1"), squatter=there),
        Case(
            "veth-to-be-isolated",
            veth(C1, "eth1"),
            replace(veth(C1, "eth1", master="plug2"), isolated=True),
            squatter=there,
        ),
        Case("veth-other-name", veth(C1, "eth.1"), veth(C1, "eth.2"), squatter=there),
        Case(
            "veth-inner-name-taken",
            veth(C1, "eth1"),
            squatter="ip -n c1 link add eth1 address 02:00:00:00:03:01 type bridge",
            refused="kernel",
        ),
        Case("handover", veth(HOST, "bw0"), veth(HOST, "bw0", 2, 9000, ""), squatter=there),
        Case("handover-other-name", veth(HOST, "bw0"), veth(HOST, "bw1"), squatter=there),
        Case("handover-to-sandbox", veth(HOST, "bw0"), veth(C1, "eth1"), squatter=there),
        Case("handover-long-names", long),
        Case(
            "handover-inner-name-taken",
            veth(HOST, "bw0"),
            squatter="ip link add bw0 address 02:00:00:00:03:01 type bridge",
            refused="kernel",
        ),
    ]


def _settings() -> list[Case]:
    names = (
        (HOST, "net.ipv4.ip_forward", "1", "0"),
        (HOST, "net.ipv6.conf.all.forwarding", "1", "0"),
        (HOST, "net.ipv6.conf.plug.accept_ra", "0", "2"),
        (C1, "net.ipv4.conf.eth0.promote_secondaries", "1", "0"),
        (C1, "net.ipv4.conf.eth0/7.arp_notify", "1", "0"),
        (C1, "net.ipv6.conf.eth0/7.accept_ra", "0", "2"),
        (C1, "net.ipv6.conf.eth0.disable_ipv6", "1", "0"),
    )
    settings = [Case(f"sysctl-{_place(ns)}-{n}", Sysctl(ns, n, v), Sysctl(ns, n, o)) for ns, n, v, o in names]
    links = ((C1, "eth0"), (C1, "eth0.7"), (HOST, "plug"), (HOST, "up1"))
    for ns, dev in links:
        up, down = LinkUp(ns, dev, True), LinkUp(ns, dev, False)
        settings += [Case(f"up-{_place(ns)}-{dev}", up, down), Case(f"down-{_place(ns)}-{dev}", down, up)]
        on, off = TxChecksums(ns, dev, True), TxChecksums(ns, dev, False)
        settings += [Case(f"tx-on-{_place(ns)}-{dev}", on, off), Case(f"tx-off-{_place(ns)}-{dev}", off, on)]
    return settings


def _addresses() -> list[Case]:
    cases = []
    for ns, dev, at in ((HOST, "plug", ""), (C1, "eth0", "-n c1 ")):
        for ip in ("10.7.0.1/24", "10.7.0.1/32", "10.7.0.0/31", "fd07::1/64", "fd07::1/128", "fd07::/127"):
            there = f"ip {at}addr add {ip} dev {dev}"
            cases.append(Case(f"addr-{_place(ns)}-{ip}", Addr(ns, dev, ip), squatter=there, refused="kernel"))
    return cases


def _routes() -> list[Case]:
    def case(name: str, new: Route, other: Route, there: str, *, kind: str = "", refused: str = "kernel") -> Case:
        at = "-n c1 " if new.ns else ""
        family = 6 if ":" in new.dst else 4
        squatter = f"ip {at}-{family} route add {kind}{new.dst} metric {new.metric} {there}"
        return Case(name, new, other, squatter=squatter, refused=refused)

    def to(dst: str, via: str = "", metric: int = 0, dev: str = "eth0", ns: str = C1) -> Route:
        return Route(ns, dst, dev, via, metric)

    def host(dst: str, via: str = "", metric: int = 0, dev: str = "plug") -> Route:
        return Route(HOST, dst, dev, via, metric)

    any4, any6, hops = "0.0.0.0/0", "::/0", "nexthop via {0}3 dev {1} nexthop via {0}4 dev {1}"
    eth4, eth6 = hops.format("10.9.0.", "eth0"), hops.format("fd09::", "eth0")
    return [
        case("default4", to(any4, "10.9.0.1"), to(any4, "10.9.0.9"), "via 10.9.0.5"),
        case("default6", to(any6, "fd09::1", 1024), to(any6, "fd09::9", 1024), "via fd09::5"),
        case("default4-hops", to(any4, "10.9.0.1"), to(any4, "10.9.0.9"), eth4, refused="diff"),
        case("default6-hops", to(any6, "fd09::1", 1024), to(any6, "fd09::9", 1024), eth6, refused="diff"),
        case("default4-on-link", to(any4), to(any4, "10.9.0.1"), "", kind="blackhole "),
        case("default6-on-link", to(any6, "", 1024), to(any6, "fd09::1", 1024), "", kind="unreachable "),
        case("default4-metric", to(any4, "10.9.0.1", 77), to(any4, "10.9.0.9", 77), "dev eth0"),
        case("default6-metric", to(any6, "fd09::1", 77), to(any6, "fd09::9", 77), "dev eth0"),
        case("prefix4", to("10.5.0.0/16", "10.9.0.1"), to("10.5.0.0/16"), "dev eth0"),
        case("prefix6", to("fd05::/48", "fd09::1", 1024), to("fd05::/48", "", 1024), "dev eth0"),
        case("prefix6-router-link", to("fd05::/48", "fe80::1", 9), to("fd05::/48", "", 9), "dev eth0"),
        case("on-link4", to("10.5.0.0/16", "", 5), to("10.5.0.0/16", "10.9.0.1", 5), "via 10.9.0.9"),
        case("on-link6", to("fd05::/64", "", 5), to("fd05::/64", "fd09::1", 5), "via fd09::9"),
        case("host4", to("10.5.0.1/32", "10.9.0.1"), to("10.5.0.1/32", "10.9.0.9"), "dev eth0"),
        case("host6", to("fd05::1/128", "", 1024), to("fd05::1/128", "fd09::9", 1024), "via fd09::1"),
        case("in-host4", host(any4, "10.8.0.1"), host(any4, dev="plug2"), "via 10.8.0.7"),
        case("in-host6", host(any6, "fd08::1", 1024), host(any6, "", 1024, "plug2"), "via fd08::7"),
    ]


def table(
    family: str, name: str, rules: int, *, digest: str = "0123456789ab", sets: str = "", hooked: bool = True
) -> NftTable:
    """A table as Berth marks its own, with some rules and sets."""
    lines = [f"  {line}" for line in sets.splitlines()]
    hook = ["    type filter hook forward priority 0; policy accept;"] if hooked else []
    lines += ["  chain forward {", *hook, *["    counter"] * rules]
    lines += ["  }", "  chain stamp {", f'    return comment "{digest}"', "  }"]
    return NftTable(family, name, f"{digest}/{rules + 1}", "\n".join(lines) + "\n")


def _tables() -> list[Case]:
    ours = tables.inet()
    cases = [
        Case("table", ours, table("inet", "berth", 2), squatter="nft add table inet berth"),
        Case("table-upgraded", table("inet", "berth", 2), ours, squatter="nft 'table inet berth { chain stamp { }; }'"),
    ]
    for family in ("inet", "bridge", "ip", "ip6"):
        new, other = table(family, "t1", 1), table(family, "t1", 2, digest="ffffffffffff")
        there = f"""nft 'table {family} t1 {{ chain stamp {{ return comment ""; }}; chain x {{ counter; }}; }}'"""
        cases.append(Case(f"table-{family}", new, other, squatter=there))
    return cases


GUARD = table("bridge", "berth", 1, sets="set guard { type ifname . ether_addr . ipv6_addr; }")


def _elements() -> list[Case]:
    family, name = tables.FAMILY, tables.TABLE

    def in_set(where: str, *match: Part) -> Case:
        element = NftElement(family, name, where, match)
        text = " . ".join(f'"{value}"' for _, value in match)
        there = f"nft 'add element {family} {name} {where} {{ {text} }}'"
        return Case(f"element-{where}", element, needs=(tables.inet(),), squatter=there, refused="kernel")

    br: Part = ("ifname", "brt0123456789ab")
    cases = [in_set(where, br) for where in ("bridges", "internal", "closed", "masquerade4", "masquerade6")]
    cases += [in_set(where, br, br) for where in ("intra", "apart", "allowed")]
    for version, host, old, new in ((4, "10.8.0.2", "10.9.0.2", "10.9.0.3"), (6, "fd08::2", "fd09::2", "fd09::3")):
        for proto in ("tcp", "udp", "sctp"):
            port: tuple[Part, ...] = (("proto", proto), ("port", "8080"))
            address: Part = (f"ipv{version}", host)
            for where, match in ((f"port{version}", (address, *port)), (f"anyport{version}", port)):
                one = NftElement(family, name, where, match, ((f"ipv{version}", old), ("port", "80")))
                two = NftElement(family, name, where, match, ((f"ipv{version}", new), ("port", "65535")))
                text = " . ".join(value for _, value in match) + f" : {new} . 1"
                there = f"nft 'add element {family} {name} {where} {{ {text} }}'"
                row = Case(f"element-{where}-{proto}", one, two, (tables.inet(),), there, "kernel")
                cases.append(row)
            ranged: tuple[Part, ...] = (("proto", proto), ("port", "8000-8999"))
            for where, match in ((f"range{version}", (address, *ranged)), (f"anyrange{version}", ranged)):
                one, two = (NftElement(family, name, where, match, ((f"ipv{version}", to),)) for to in (old, new))
                text = " . ".join(value for _, value in match).replace("8000-", "8500-") + f" : {new}"  # it overlaps
                there = f"nft 'add element {family} {name} {where} {{ {text} }}'"
                cases.append(Case(f"element-{where}-{proto}", one, two, (tables.inet(),), there, "kernel"))
    for where, listen, old, new in (
        ("proxied4", "0.0.0.0", "10.9.0.2", "10.9.0.3"),
        ("proxied6", "::1", "fd09::2", "fd09::3"),
        ("proxied64", "::", "10.9.0.2", "10.9.0.3"),
    ):
        one, two = (
            proxy.element(Proxied(ip_address(listen), "tcp", 8000, 8999, ip_address(to), 80)) for to in (old, new)
        )
        there = f"nft 'add element {family} {name} {where} {{ {listen} . tcp . 8000 : {new} . 1 . 1 }}'"
        cases.append(Case(f"element-{where}", one, two, (tables.inet(),), there, "kernel"))
    parts: tuple[Part, ...] = (("ifname", "bv0"), ("mac", "02:00:00:00:02:01"), ("ipv6", "fd09::2"))
    cases.append(Case("element-bridge-family", NftElement("bridge", "berth", "guard", parts), needs=(GUARD,)))
    return cases


LAN = Network("1" * 64, "lan", "flat", "plug", (), 1500, "", bypass=True, bridge_mac="02:00:00:00:01:00", nics=("up0",))
LAN_TABLE = next(obj for obj in frames.for_network(LAN) if isinstance(obj, NftTable))


def _past_the_bridge() -> list[Case]:
    family, name = LAN_TABLE.family, LAN_TABLE.name
    hook = f"chain {family} {name} on-up1 {{ type filter hook ingress device up1 priority 5; }}"
    cases = [
        Case(
            "table-netdev", LAN_TABLE, table(family, name, 2, hooked=False), squatter=f"nft add table {family} {name}"
        ),
        Case(
            "hook",
            NftHook(name, "up1"),
            NftHook(name, "up1", "guarded"),
            needs=(LAN_TABLE,),
            squatter=f"nft 'add {hook}'",
            refused="kernel",
        ),
    ]
    mac: tuple[Part, ...] = (("mac", "02:00:00:00:02:01"),)
    for where in ("cables", "solicited"):
        one, two = (NftElement(family, name, where, mac, (("ifindex", dev),)) for dev in ("up0", "up1"))
        there = f"nft add element {family} {name} {where} '{{ {mac[0][1]} : plug }}'"
        cases.append(Case(f"element-{where}", one, two, (LAN_TABLE,), there, "kernel"))
    cable: Part = ("ifname", "bv0")
    for where in ("dhcp", "ra"):
        cases.append(Case(f"element-{where}", NftElement(family, name, where, (cable,)), needs=(LAN_TABLE,)))
    of_cable: dict[str, Part] = {
        "macs": mac[0],
        "own4": ("ipv4", "192.168.2.9"),
        "own6": ("ipv6", "fd00:2::9"),
        "about6": ("octets", "0xfd000002000000000000000000000009"),
    }
    for where, known in of_cable.items():
        cases.append(Case(f"element-{where}", NftElement(family, name, where, (cable, known)), needs=(LAN_TABLE,)))
    return cases


def _rates() -> list[Case]:
    table, hook = "netdev berth_rate_up1", "{ type filter hook ingress device up1 priority -10; }"
    slow, fast, fastest = (1_000, 65_550), (1_250_000, 131_072), (12_500_000_000, 256 << 20)
    pairs = {"slow": (slow, fast), "fast": (fast, slow), "fastest": (fastest, fast), "wide": (fast, fastest)}
    return [
        *(Case(f"shaped-{name}", Shaped("up1", *one), Shaped("up1", *two)) for name, (one, two) in pairs.items()),
        *(
            Case(
                f"rate-{name}",
                NftRate("up1", *one),
                NftRate("up1", *two),
                squatter=f"nft 'add table {table}; add chain {table} x {hook}'",
                refused="kernel",
            )
            for name, (one, two) in pairs.items()
        ),
    ]


def _guards() -> list[Case]:
    one, two = "none", "tcp/80,tcp/8000-8100@10.0.0.0/9,udp/53@2001:db8::/33,icmp,icmp@fd00::/8,sctp,any@10.8.0.0/16"
    three = "any@10.8.0.9,tcp@::/0,any"
    first, second, third = (policy.guard("up1", spec.allow_list(text)) for text in (one, two, three))
    squatter = f"nft add table {first.family} {first.table}"
    return [
        Case("guard-for-nobody", first, second, squatter=squatter),
        Case("guard", second, third, squatter=squatter),
        Case("guard-for-all", third, first, squatter=f"{squatter}; nft add chain {first.family} {first.table} x"),
    ]


def _passes() -> list[Case]:
    """As Docker leaves its chains: jumped to from FORWARD, and empty but for the way back. And a FORWARD that drops."""
    return (
        [
            Case(
                f"pass-{family}-{way}",
                NftPass(family, "plug", way),
                around=f"nft 'add table {family} filter; add chain {family} filter DOCKER-USER;"
                f" add rule {family} filter DOCKER-USER counter return'",
            )
            for family in ("ip", "ip6")
            for way in NftPass.directions
        ]
        + [
            Case(
                f"pass-{family}-{way}-forward",
                NftPass(family, "plug", way, "FORWARD"),
                around=f"nft 'add table {family} filter; add chain {family} filter FORWARD"
                " { type filter hook forward priority 0; policy drop; }'",
            )
            for family in ("ip", "ip6")
            for way in NftPass.directions
        ]
        + [
            Case(f"pass-{family}-{way}-legacy", NftPass(family, "plug", way, chain, legacy=True), around=around)
            for family, tool in (("ip", "iptables-legacy"), ("ip6", "ip6tables-legacy"))
            for way, chain, around in (
                ("in", "FORWARD", f"{tool} -P FORWARD DROP"),
                ("out", "DOCKER-USER", f"{tool} -N DOCKER-USER; {tool} -I FORWARD -j DOCKER-USER"),
            )
        ]
    )


def _tunnels() -> list[Case]:
    def vxlan(vni: int, local: str, mac: int = 1, mtu: int = 1400, master: str = "plug", port: int = 4789) -> Vxlan:
        return Vxlan("vx0", master, vni, local, port, f"02:00:00:00:04:{mac:02x}", mtu, NETWORK)

    four, six, largest = vxlan(4096, "10.8.0.2"), vxlan(4097, "fd08::2", port=14789), vxlan(16777215, "10.8.0.2")
    there = "ip link add vx0 type vxlan id 9 dstport 4789"
    cases = [
        Case("vxlan", four, vxlan(4096, "10.8.0.2", 2, 1450, "plug2"), squatter=there),
        Case("vxlan-6", six, vxlan(4097, "fd08::2", 2, 1280, port=14789), squatter=there),
        Case("vxlan-made-anew", four, six, squatter="ip link add vx0 type bridge"),
        Case("vxlan-sealed", replace(six, local="fe80::2", link="up1"), six, squatter=there),
        Case("vxlan-largest", largest, four, squatter=there),
    ]
    mac, other = "02:00:00:00:05:01", "02:00:00:00:05:02"
    for name, tunnel, old, new in (("4", four, "10.8.0.3", "10.8.0.4"), ("6", six, "fd08::3", "fd08::4")):
        cases.append(Case(f"fdb-{name}", Fdb("vx0", mac, old), Fdb("vx0", mac, new), (tunnel,)))
        cases.append(Case(f"fdb-bridge-{name}", Fdb.of_bridge("vx0", mac), needs=(tunnel,)))
        sealed = Fdb("vx0", mac, "fe80::9", via="up1")
        if ":" in old:
            over = replace(six, local="fe80::2", link="up1")
            cases.append(Case("fdb-sealed", sealed, replace(sealed, via="plug2"), (over,)))
        for ip in ("10.9.0.5", "fd09::5"):
            cases.append(Case(f"neigh-{name}-{ip}", Neigh("vx0", ip, mac), Neigh("vx0", ip, other), (tunnel,)))
    return cases


#: Two keys: the private one, the public one that belongs to it.
KEYS = (
    ("+FGEd54Y4MebU8ZsySSVoWaUDEgXu/l4RXURfAHw+0s=", "5tfsDnfjrMXz67dMstyQdgEnvrQXS3UCwh3JZDDI9G8="),
    ("6LvvACfCcpxPXK6ARal0WJlwoowV4WtjwM1F2+Ii2n0=", "AkONwo+JQ5DUOEgkHNVaF6Rnh5Lx3loP/zHACQILUkc="),
)


def _seals() -> list[Case]:
    """The files of keys are in /run, which is each test's own; a space in the name is for who types it."""
    files = [f"/run/a key {number}" for number in range(len(KEYS))]
    around = ";".join(f"printf '{private}' >'{file}'" for (private, _), file in zip(KEYS, files, strict=True))
    one, two = (
        WireGuard("bwg0", public, 51820 + number, 9200 - number, files[number])
        for number, (_, public) in enumerate(KEYS)
    )
    there = "ip tuntap add bwg0 mode tun"
    cases = [Case("seal", one, two, squatter=there, around=around)]
    for name, old, new in (("4", "192.0.2.1:51820", "192.0.2.2:1"), ("6", "[2001:db8::1]:1", "192.0.2.2:65535")):
        peer = WireGuardPeer("bwg0", KEYS[1][1], old, "fe80::9")
        cases.append(
            Case(f"seal-peer-{name}", peer, replace(peer, endpoint=new, address="fe80::a"), (one,), around=around)
        )
    return cases


def _place(ns: str) -> str:
    return "sandbox" if ns else "host"


CASES = (
    *_bridges(),
    *_cables(),
    *_settings(),
    *_addresses(),
    *_routes(),
    *_tables(),
    *_elements(),
    *_past_the_bridge(),
    *_guards(),
    *_passes(),
    *_rates(),
    *_tunnels(),
    *_seals(),
)
