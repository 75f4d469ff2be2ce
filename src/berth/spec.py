"""Texts to model: the only parser of what people type. It refuses early, with one line that says what to do.

>>> network_spec(name="lan", subnets=["192.168.2.5/24"], options=["com.docker.network.driver.mtu=1400"])
NetworkSpec(name='lan', driver='bridge', subnets=(IPv4Network('192.168.2.0/24'),), ...)
>>> port_mappings("127.0.0.1:8080:80/udp")
(PortMapping(host_ip=IPv4Address('127.0.0.1'), host_port=8080, port=80, proto='udp'),)
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TypeVar

from berth.errors import Invalid
from berth.model import (
    RATES,
    Address,
    Admission,
    AttachRequest,
    NetworkSpec,
    Pairs,
    Pool,
    PortChange,
    PortMapping,
    StaticRoute,
    Subnet,
)
from berth.quantities import rate_text, size_text

DRIVERS = ("bridge", "flat", "overlay", "host", "null")
PLUGGED = ("bridge", "flat")  # the drivers that plug endpoints into one host's bridge
EVERY = (*PLUGGED, "overlay")  # those, and the one of a bridge on each of several hosts
NAT = ("bridge", "overlay")  # the drivers whose endpoints are behind the host
VNI = range(1, 1 << 24)  # RFC 7348 section 5
PROTOCOLS = ("tcp", "udp", "sctp")
SERVICES = ("dhcp", "ra")  # what an endpoint can be for a whole LAN: its DHCP server, its IPv6 router
ADMITTED = (*PROTOCOLS, "icmp", "any")  # what an entry of an allow list may be about
LONGEST_NAME = 128  # characters
LONGEST_LINK = 15  # bytes: the kernel's IFNAMSIZ is 16 with the terminating zero
LONGEST_PREFIX = 12  # bytes: leaves three digits for the number
MTU = range(68, 65536)  # bytes; RFC 791: every IPv4 link carries 68
LONGEST_ALLOW_LIST = 64  # entries: each is a rule that a packet which begins something is held against
MTU_IPV6 = 1280  # bytes; RFC 8200 section 5: every IPv6 link carries as much

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_MAC = re.compile(r"[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}")
_PUBLISH = re.compile(
    r"(?:(?:(?P<ip>\[[^\[\]]*\]|[^\[\]:]+):)?(?P<host>[0-9-]*):)?(?P<port>[0-9-]+)(?:/(?P<proto>.+))?"
)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

Part = TypeVar("Part", Address, Subnet)


def network_name(text: str) -> str:
    """A name for a new network. Raises `Invalid`."""
    if text in ("host", "none") or text.startswith("container:"):
        raise Invalid(f"network name {text!r} is a way of running a container (--network): choose another")
    return _name(text, "network name")


def endpoint_name(text: str) -> str:
    """A name for an endpoint, of the characters that Docker allows. Raises `Invalid`."""
    return _name(text, "endpoint name")


def driver_name(text: str) -> str:
    """One of `DRIVERS`. Raises `Invalid`."""
    return _one_of(text, DRIVERS, "driver")


def link_name(text: str) -> str:
    """A name that the kernel takes for an interface and that can stand in nftables rules. Raises `Invalid`."""
    raw = text.encode(errors="surrogatepass")
    if not 1 <= len(raw) <= LONGEST_LINK:
        raise Invalid(f"interface name {text!r} has {len(raw)} bytes: give it 1 to {LONGEST_LINK}")
    # "all" and "default" are directories of their own in /proc/sys/net/*/conf.
    if text in (".", "..", "all", "default"):
        raise Invalid(f"interface name {text!r} is refused by the kernel: choose another")
    # The kernel numbers names with "%" itself and takes byte 0xa0, wherever it stands, for a space; nftables has no
    # escape for quotes and backslashes, and reads "*" as any ending.
    if not text.isprintable() or b"\xa0" in raw or any(char in ' /:%*"\\' for char in text):
        raise Invalid(f'interface name {text!r} has a character it may not have: no spaces and none of / : % * " \\')
    return text


def mac(text: str) -> str:
    """A unicast MAC address, written with `:`, `-` or as Cisco does; as `02:42:c0:a8:02:03`. Raises `Invalid`."""
    lower = text.lower()
    if _MAC.fullmatch(lower) is None:
        raise Invalid(f"MAC address {text!r} is not six octets: write it as 02:42:c0:a8:02:03")
    octets = bytes.fromhex(re.sub("[:.-]", "", lower))
    if octets[0] & 1:
        raise Invalid(f"MAC address {text} is a multicast address (its first octet is odd): make the first octet even")
    if not any(octets):
        raise Invalid(f"MAC address {text} is all zero, which no interface can have: write one as 02:42:c0:a8:02:03")
    return octets.hex(":")


_read_mac = mac  # under another name for `attach_request`, which has a parameter `mac`


def _name(text: str, what: str) -> str:
    if len(text) > LONGEST_NAME:
        raise Invalid(f"{what} {text[:20]!r}… has {len(text)} characters: give it at most {LONGEST_NAME}")
    if _NAME.fullmatch(text) is None:
        raise Invalid(f"{what} {text!r} is not valid: use letters, digits and _ . -, beginning with a letter or digit")
    return text


def _one_of(text: str, known: Collection[str], what: str) -> str:
    if text in known:
        return text
    near = difflib.get_close_matches(text, known, n=1)
    advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
    raise Invalid(f"{what} {text!r} is not known: {advice}")


def _bridge(text: str) -> str:
    if text.startswith(("brt", "bv")):
        raise Invalid(f"{text!r} begins as the names that Berth makes up itself (brt…, bv…): choose another")
    return link_name(text)


def _mtu(text: str) -> str:
    if re.fullmatch("[0-9]{1,5}", text) is None or int(text) not in MTU:
        raise Invalid(f"{text!r} is no MTU: give {MTU[0]} to {MTU[-1]} bytes")
    return str(int(text))


def _boolean(text: str) -> str:
    """Docker's spellings: those of Go's strconv.ParseBool."""
    lower = text.lower()
    if lower not in ("true", "t", "1", "false", "f", "0"):
        raise Invalid(f"{text!r} is neither yes nor no: give true or false")
    return "true" if lower in ("true", "t", "1") else "false"


def _prefix(text: str) -> str:
    if len(link_name(text).encode()) > LONGEST_PREFIX:
        raise Invalid(f"{text!r} leaves no room for the number behind it: give it at most {LONGEST_PREFIX} bytes")
    return text


def static_routes(text: str) -> tuple[StaticRoute, ...]:
    """Routes as `SUBNET=ROUTER`, several with commas between. Raises `Invalid`."""
    routes = []
    for part in text.split(","):
        subnet, equals, via = part.strip().partition("=")
        if not equals:
            raise Invalid(f"route {part!r} lacks a subnet or a router: write it as 10.8.0.0/16=192.168.2.9")
        route = StaticRoute(parse_subnet(subnet, "route"), parse_address(via, f"route {part.strip()!r}: router"))
        if route.subnet.version != route.via.version:
            raise Invalid(f"route {part.strip()!r}: subnet and router are of two IP versions: give two of one")
        if not route.subnet.prefixlen:
            raise Invalid(f"route {part.strip()!r} is a default route: name the router with --gateway")
        routes.append(route)
    if len({route.subnet for route in routes}) < len(routes):
        raise Invalid(f"routes {text!r} name one subnet twice: leave one out")
    return tuple(routes)


def _routes(text: str) -> str:
    return ",".join(f"{route.subnet}={route.via}" for route in static_routes(text))


def allow_list(text: str) -> tuple[Admission, ...]:
    """Who may begin a conversation: entries `PROTO[/PORTS][@SUBNET]` with commas or spaces between; `none` for nobody.

    >>> allow_list("tcp/80-81@10.0.0.0/8")
    (Admission(proto='tcp', ports=(80, 81), source=IPv4Network('10.0.0.0/8')),)

    Raises `Invalid` for one that cannot be read, and for more than `LONGEST_ALLOW_LIST`.
    """
    entries = re.split(r"[,\s]+", text.strip())
    if entries == ["none"]:
        return ()
    if len(entries) > LONGEST_ALLOW_LIST:
        raise Invalid(f"{len(entries)} entries are too many: give at most {LONGEST_ALLOW_LIST}; a subnet may join some")
    return tuple(dict.fromkeys(map(_admission, entries)))


def _admission(text: str) -> Admission:
    what, at, where = text.partition("@")
    proto, slash, ports = what.lower().partition("/")
    if proto == "none":
        raise Invalid("none lets nobody in: give it alone, or leave it out")
    if proto not in ADMITTED:
        near = difflib.get_close_matches(proto, ADMITTED, n=1)
        advice = f"did you mean {near[0]}?" if near else "write it as tcp/80, udp/53@192.168.2.0/24 or any@fd00::5"
        raise Invalid(f"{text!r} begins with none of {', '.join(ADMITTED)}: {advice}")
    if slash and proto not in PROTOCOLS:
        raise Invalid(f"{text!r}: {proto} has no ports: write {proto}{at}{where}, or tcp and udp apart")
    span = _ports(ports, text, "entry") if slash else None
    source = None
    if at:
        source = parse_subnet(where, "source") if "/" in where else ip_network(parse_address(where, "source"))
    return Admission(proto, None if span is None else (span[0], span[-1]), source)


def _allow(text: str) -> str:
    return ",".join(map(str, allow_list(text))) or "none"


def _networks(text: str) -> str:
    return ",".join(dict.fromkeys(network_name(name.strip()) for name in text.split(",")))


def _domain(text: str) -> str:
    labels = text.lower().rstrip(".").split(".")
    if len(text) > LONGEST_NAME or not all(
        re.fullmatch("[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", part) for part in labels
    ):
        raise Invalid(f"{text[:40]!r} is no domain: write it as lan or home.example")
    return ".".join(labels)


def _servers(text: str) -> str:
    return ",".join(dict.fromkeys(str(parse_address(part.strip(), "name server")) for part in text.split(",")))


def _services(text: str) -> str:
    return ",".join(dict.fromkeys(_one_of(name.strip(), SERVICES, "service") for name in text.split(",")))


def _bypass(text: str) -> str:
    return _one_of(text, ("auto", "always", "never"), "bypass")


def _proxy(text: str) -> str:
    return _one_of(text, ("auto", "always", "never"), "proxy")


def _offload(text: str) -> str:
    if text == "auto":
        return text
    return ",".join(dict.fromkeys(link_name(name.strip()) for name in text.split(",")))


def _conflict(text: str) -> str:
    return _one_of(text, ("fast", "full", "off"), "conflict")


def _addresses(text: str) -> str:
    return _one_of(text, ("pool", "dhcp"), "addresses")


def _addresses6(text: str) -> str:
    return _one_of(text, ("pool", "dhcp", "auto"), "addresses6")


def _mode(text: str) -> str:
    return _one_of(text, EVERY, "mode")


def _vni(text: str) -> str:
    if re.fullmatch("[0-9]{1,8}", text) is None or int(text) not in VNI:
        raise Invalid(f"{text!r} is no VXLAN network number: give {VNI[0]} to {VNI[-1]:,}".replace(",", ""))
    return str(int(text))


def _udp_port(text: str) -> str:
    if re.fullmatch("[0-9]{1,5}", text) is None or not 1 <= int(text) <= 65535:
        raise Invalid(f"{text!r} is no UDP port: give 1 to 65535; 4789 is VXLAN's own")
    return str(int(text))


def _flag(text: str) -> str:
    """Docker takes such an option for said when it is there, whatever its value."""
    return _boolean(text or "true")


def _underlay(text: str) -> str:
    """A link's name, an address, or the subnet that every host has an address in."""
    for read in (ip_address, ip_network):
        with suppress(ValueError):
            return str(read(text))
    return link_name(text)


@dataclass(frozen=True, slots=True)
class Option:
    """A driver option, `-o KEY=VALUE`."""

    key: str | None  # Docker's name for it; None where Docker has none
    drivers: tuple[str, ...]
    parse: Callable[[str], str]  # the value as typed -> as it is kept; raises `Invalid`
    help: str
    same_as: str | None = None  # the option that this one is another name for


# A network asked for as `bridge` becomes flat when its bridge turns out to carry the LAN, which only the host can
# tell. So both take what Docker's own commands say to either.
OPTIONS: dict[str, Option] = {
    "bridge": Option("com.docker.network.bridge.name", PLUGGED, _bridge, "bridge that endpoints are plugged into"),
    "parent": Option("parent", ("flat",), _bridge, "bridge that carries the LAN", same_as="bridge"),
    "mtu": Option("com.docker.network.driver.mtu", EVERY, _mtu, "largest packet in bytes"),
    "masquerade": Option(
        "com.docker.network.bridge.enable_ip_masquerade", NAT, _boolean, "hide behind the host: true|false"
    ),
    "iface_prefix": Option("com.docker.network.container_iface_prefix", EVERY, _prefix, "prefix of interface names"),
    "inhibit_ipv4": Option(
        "com.docker.network.bridge.inhibit_ipv4", PLUGGED, _boolean, "leave the bridge without an address: true|false"
    ),
    "bypass": Option(
        None, PLUGGED, _bypass, "pass frames on before others' FORWARD chains can drop them: auto|always|never"
    ),
    "routes": Option(None, EVERY, _routes, "routes for the containers: SUBNET=ROUTER[,SUBNET=ROUTER…]"),
    "allow_from": Option(None, ("bridge",), _networks, "networks whose endpoints reach this one's: NAME[,NAME…]"),
    "host_access": Option(None, NAT, _boolean, "containers reach the host's own services: true|false"),
    "proxy": Option(None, NAT, _proxy, "published ports by a process: where the kernel cannot: auto; always, never"),
    "offload": Option(
        None, ("bridge",), _offload, "the kernel's fast path for what goes by these links: auto|LINK[,LINK]"
    ),
    "icc": Option("com.docker.network.bridge.enable_icc", PLUGGED, _boolean, "containers reach each other: true|false"),
    "conflict": Option(
        None, PLUGGED, _conflict, "ask a LAN who has an address before a container gets it: fast|full|off"
    ),
    "antispoof": Option(None, PLUGGED, _boolean, "containers of a LAN send as themselves only: true|false"),
    "allow_services": Option(None, PLUGGED, _services, "what containers may be for a LAN: dhcp, ra or dhcp,ra"),
    "allow": Option(
        None, EVERY, _allow, "who may begin a conversation with a container: none, or PROTO[/PORTS][@SUBNET],…"
    ),
    "addresses": Option(None, PLUGGED, _addresses, "where a LAN's endpoints have their addresses from: pool|dhcp"),
    "addresses6": Option(
        None, PLUGGED, _addresses6, "where they have their IPv6 addresses from: pool|dhcp|auto (as routers advertise)"
    ),
    "keep_lease": Option(None, PLUGGED, _boolean, "leave a lease at the server when its endpoint goes: true|false"),
    "mode": Option(None, EVERY, _mode, "driver to use instead of --driver: bridge|flat|overlay"),
    "names": Option(None, EVERY, _boolean, "answer for the names of endpoints: true|false"),
    "domain": Option(None, EVERY, _domain, "domain of the endpoints' names, as lan, which their resolvers search"),
    "dns": Option(None, EVERY, _servers, "who is asked for all other names, in place of the host's: IP[,IP…]"),
    "mdns": Option(None, PLUGGED, _boolean, "containers of a LAN are NAME.local for all of it: true|false"),
    "vni": Option(None, ("overlay",), _vni, "number of the network on the underlay; else one that is free"),
    "port": Option(None, ("overlay",), _udp_port, "UDP port of the tunnels: 4789"),
    "underlay": Option(None, ("overlay",), _underlay, "where hosts reach each other: a link, address or subnet"),
    "encrypt": Option(None, ("overlay",), _boolean, "what hosts send each other is encrypted (WireGuard): true|false"),
    "encrypted": Option("encrypted", ("overlay",), _flag, "Docker's word for it", same_as="encrypt"),
    "ingress_rate": Option(None, EVERY, rate_text, "what each endpoint may receive, as 10mbit"),
    "ingress_burst": Option(None, EVERY, size_text, "what it may receive at once, as 64kb"),
    "egress_rate": Option(None, EVERY, rate_text, "what each endpoint may send, as 10mbit"),
    "egress_burst": Option(None, EVERY, size_text, "what it may send at once, beside that of a second"),
}

_SHORT = {key: short for short, option in OPTIONS.items() for key in (short, option.key) if key is not None}


#: What may be said of one endpoint with `--driver-opt`, Docker's and Berth's own.
ENDPOINT_OPTIONS: dict[str, Callable[[str], str]] = {
    "addresses": _addresses,  # in place of the network's
    "addresses6": _addresses6,
    "allow_services": _services,
    "antispoof": _boolean,
    "allow": _allow,  # in place of the network's; Berth's own to carry out
    "gateway": _boolean,  # false: no default route through this network
    "iface_prefix": _prefix,
    "mac": mac,
    "routes": _routes,
    **{key: OPTIONS[key].parse for key in RATES},
}
ENDPOINT_ALIASES = {"com.docker.network.container_iface_prefix": "iface_prefix"}


def endpoint_options(options: Pairs) -> Pairs:
    """The options of an endpoint, checked. Raises `Invalid`."""
    checked = {}
    for key, value in options:
        short = _one_of(ENDPOINT_ALIASES.get(key, key), ENDPOINT_OPTIONS, "endpoint option")
        try:
            checked[short] = ENDPOINT_OPTIONS[short](value)
        except Invalid as error:
            raise Invalid(f"endpoint option {key}: {error}") from None
    _refuse_lone_bursts(checked)
    return tuple(checked.items())


def _refuse_lone_bursts(options: Collection[str]) -> None:
    for way in ("ingress", "egress"):
        if f"{way}_burst" in options and f"{way}_rate" not in options:
            raise Invalid(f"option {way}_burst says nothing without a rate: give {way}_rate too")


def _all_of(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _chosen_driver(driver: str, options: Pairs) -> str:
    chosen = driver_name(driver)
    modes = [value for key, value in options if key == "mode"]
    # A mode that is misspelt, contradicted or not for this driver is refused with the other options.
    return modes[0] if modes and modes[0] in DRIVERS and chosen in EVERY else chosen


def _settings(options: Pairs, driver: str) -> Pairs:
    """The options under their short names, with their values checked."""
    settings: dict[str, str] = {}
    typed: dict[str, str] = {}
    for key, value in options:
        short = _SHORT[_one_of(key, _SHORT, "option")]
        option = OPTIONS[short]
        if driver not in option.drivers:
            raise Invalid(f"option {key} is only for {_all_of(option.drivers)}, not for {driver}: leave it out")
        try:
            parsed = option.parse(value)
        except Invalid as error:
            raise Invalid(f"option {key}: {error}") from None
        kept = short if option.same_as is None else option.same_as
        if settings.setdefault(kept, parsed) != parsed:
            raise Invalid(f"options {typed[kept]} and {key}={value} contradict each other: leave one out")
        typed.setdefault(kept, f"{key}={value}")
    _refuse_lone_bursts(settings)
    return tuple(settings.items())


def network_spec(
    *,
    name: str,
    driver: str = "bridge",
    subnets: Sequence[str] = (),
    ip_ranges: Sequence[str] = (),
    gateways: Sequence[str] = (),
    aux: Sequence[str] = (),
    ipv6: bool = False,
    internal: bool = False,
    labels: Sequence[str] = (),
    options: Sequence[str] = (),
) -> NetworkSpec:
    """A network as asked for with Docker's flags, from their texts.

    Host bits of a subnet or ip-range are dropped, and an IPv6 subnet asks for IPv6, as in Docker. `options` of the
    result are as typed; its `settings` go by the short names of `OPTIONS`, and `mode` replaces the driver.

    Raises `Invalid` for anything that makes no sense without looking at the host.
    """
    typed = tuple(_pair(_said(text), "option") for text in options)
    chosen = _chosen_driver(driver, typed)
    asked = NetworkSpec(
        name=network_name(name),
        driver=chosen,
        subnets=tuple(parse_subnet(text, "subnet") for text in subnets),
        ip_ranges=tuple(parse_subnet(text, "ip-range") for text in ip_ranges),
        gateways=tuple(parse_address(text, "gateway") for text in gateways),
        aux=_aux(aux),
        ipv6=ipv6 or any(":" in text for text in subnets),
        internal=internal,
        labels=_labels(labels),
        options=typed,
        settings=_settings(typed, chosen),
    )
    _refuse_overlaps(asked.subnets)
    mtu = asked.setting("mtu")
    if asked.ipv6 and mtu is not None and int(mtu) < MTU_IPV6:
        raise Invalid(f"option mtu: IPv6 needs {MTU_IPV6} bytes and {mtu} is less: give at least {MTU_IPV6}")
    if asked.subnets:
        pair_pools(asked, asked.subnets)
    return asked


def pair_pools(spec: NetworkSpec, subnets: Sequence[Subnet]) -> tuple[Pool, ...]:
    """Hand each ip-range, gateway and aux-address of a request to the subnet that holds it: a pool a subnet.

    Raises `Invalid` for what no subnet holds, and for two ip-ranges or two gateways in one subnet.
    """
    ranges = _one_each("ip-range", spec.ip_ranges, subnets)
    gateways = _one_each("gateway", spec.gateways, subnets)
    aux: dict[Subnet, list[tuple[str, Address]]] = {subnet: [] for subnet in subnets}
    for name, address in spec.aux:
        aux[_home(f"aux-address {name!r}={address}", address, subnets)].append((name, address))
    return tuple(
        Pool(subnet, ip_range=ranges.get(subnet), gateway=gateways.get(subnet), aux=tuple(aux[subnet]))
        for subnet in subnets
    )


def _one_each(what: str, parts: Sequence[Part], subnets: Sequence[Subnet]) -> dict[Subnet, Part]:
    held: dict[Subnet, Part] = {}
    for part in parts:
        home = _home(f"{what} {part}", part, subnets)
        if home in held:
            raise Invalid(f"{what}s {held[home]} and {part} are both for subnet {home}: give one a subnet")
        held[home] = part
    return held


def _home(what: str, part: Address | Subnet, subnets: Sequence[Subnet]) -> Subnet:
    block = ip_network(part)  # of an address: that one alone
    for subnet in subnets:
        if block.network_address in subnet and block.prefixlen >= subnet.prefixlen:
            return subnet
    known = ", ".join(map(str, subnets)) if subnets else "none"
    raise Invalid(f"{what} fits in no subnet of the network ({known}): correct it, or give its subnet too")


def _refuse_overlaps(subnets: Sequence[Subnet]) -> None:
    for one, other in itertools.combinations(subnets, 2):
        if one.overlaps(other):
            raise Invalid(f"subnets {one} and {other} overlap: give one of them, or two apart")


def parse_subnet(text: str, what: str) -> Subnet:
    """A subnet, without its host bits. Raises `Invalid`, which says what it was to be."""
    _, _, length = text.partition("/")
    # Python's parser also takes a bare address, a netmask behind the slash and a zone; none of them is a CIDR.
    if re.fullmatch("[0-9]{1,3}", length) is not None and "%" not in text:
        with suppress(ValueError):
            return ip_network(text, strict=False)
    raise Invalid(f"{what} {text!r} is no subnet: write it as 192.168.2.0/24 or fd00:0:0:1::/64")


def parse_address(text: str, what: str) -> Address:
    """An address, without a zone. Raises `Invalid`, which says what it was to be."""
    if "%" not in text:
        with suppress(ValueError):
            return ip_address(text)
    raise Invalid(f"{what} {text!r} is no IP address: write it as 192.168.2.1 or fd00:0:0:1::1")


def _aux(texts: Sequence[str]) -> tuple[tuple[str, Address], ...]:
    pairs = [_pair(text, "aux-address") for text in texts]
    if len(dict(pairs)) < len(pairs):
        raise Invalid(f"aux-addresses {', '.join(map(repr, texts))}: give each a name of its own")
    return tuple((name, parse_address(value, f"aux-address {name!r}:")) for name, value in pairs)


def _labels(texts: Sequence[str]) -> Pairs:
    """Label pairs; a label without `=` is empty, and the last one of a name counts, as in Docker."""
    return tuple(dict(_pair(text if "=" in text else f"{text}=", "label") for text in texts).items())


def _said(option: str) -> str:
    """An option, with its sign where Docker lets it be left out."""
    return f"{option}=" if option in OPTIONS and OPTIONS[option].parse is _flag else option


def _pair(text: str, what: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Invalid(f"{what} {text!r} lacks a name or a value: write it as NAME=VALUE")
    return key, value


def attach_request(
    *,
    network: str,
    sandbox: str,
    name: str | None = None,
    ips: Sequence[str] = (),
    mac: str | None = None,
    ifname: str | None = None,
    ports: Sequence[str] = (),
    expose: Sequence[str] = (),
    options: Sequence[str] = (),
    aliases: Sequence[str] = (),
) -> AttachRequest:
    """An endpoint as asked for, from texts; `ports` are in the grammar of `port_mappings`, `options` KEY=VALUE.

    `expose`: ports to publish on any free host port, as PORT[-PORT][/PROTO], where `ports` do not.

    Raises `Invalid` for any that cannot be read, for two addresses of one IP version, and for host ports that clash.
    """
    if not sandbox:
        raise Invalid("the sandbox is empty: give a namespace name, a path, pid:N or docker:NAME")
    addresses = tuple(parse_address(text, "address") for text in ips)
    if len({address.version for address in addresses}) < len(addresses):
        raise Invalid(f"addresses {', '.join(map(str, addresses))}: give at most one IPv4 and one IPv6 address")
    mappings = tuple(mapping for text in ports for mapping in port_mappings(text))
    published = {(mapping.port, mapping.proto) for mapping in mappings}
    exposed = dict.fromkeys(mapping for text in expose for mapping in _exposed(text))
    mappings += tuple(mapping for mapping in exposed if (mapping.port, mapping.proto) not in published)
    _refuse_clashes(mappings)
    checked = endpoint_options(tuple(_pair(text, "endpoint option") for text in options))
    macs = [*([] if mac is None else [_read_mac(mac)]), *(value for key, value in checked if key == "mac")]
    if len({*macs}) > 1:
        raise Invalid(f"MAC addresses {' and '.join(macs)} contradict each other: leave one out")
    return AttachRequest(
        network=_name(network, "network name"),
        sandbox=sandbox,
        name=None if name is None else endpoint_name(name),
        addresses=addresses,
        mac=macs[0] if macs else None,
        ifname=None if ifname is None else link_name(ifname),
        ports=mappings,
        options=checked,
        aliases=tuple(dict.fromkeys(_name(text, "alias") for text in aliases)),
    )


def port_change(
    *, endpoint: str, publish: Sequence[str] = (), unpublish: Sequence[str] = (), everything: bool = False
) -> PortChange:
    """Ports to publish and unpublish of an endpoint that is there, in the grammar of `port_mappings`.

    Raises `Invalid` for any that cannot be read, for host ports that clash, and where nothing is asked for.
    """
    new, gone = (tuple(mapping for text in texts for mapping in port_mappings(text)) for texts in (publish, unpublish))
    _refuse_clashes(new)
    if any(not mapping.host_port for mapping in gone):
        raise Invalid("a port to unpublish lacks its host port: give both, as `berth port ls` shows them")
    if not (new or gone or everything):
        raise Invalid("no port is named: give one, as in 8080:80")
    return PortChange(_name(endpoint, "endpoint"), new, gone, everything)


def port_mappings(text: str) -> tuple[PortMapping, ...]:
    """Docker's `-p`: `[IP:]HOST[-HOST]:CTR[-CTR][/tcp|udp|sctp]`, an IPv6 address in brackets; one value a port.

    An IP of 0.0.0.0 or [::] is kept: it means every address of that IP version, while no IP means every address.

    No host port, as in `80` or `127.0.0.1::80`, asks for any that is free, and is 0 in the result.

    Raises `Invalid` for anything else.
    """
    parsed = _PUBLISH.fullmatch(text)
    if parsed is None:
        raise Invalid(f"port mapping {text!r} cannot be read: write it as 8080:80 or [fd00::1]:8080:80/udp")
    proto = "tcp" if parsed["proto"] is None else parsed["proto"].lower()
    _one_of(proto, PROTOCOLS, f"port mapping {text!r}: protocol")
    host_ip = None if parsed["ip"] is None else _host_ip(parsed["ip"], text)
    ports = _ports(parsed["port"], text)
    host_ports = _ports(parsed["host"], text) if parsed["host"] else [0] * len(ports)
    if len(host_ports) != len(ports):
        raise Invalid(f"port mapping {text!r} joins {len(host_ports)} ports to {len(ports)}: give ranges of one length")
    return tuple(PortMapping(host_ip, *both, proto) for both in zip(host_ports, ports, strict=True))


def _exposed(text: str) -> tuple[PortMapping, ...]:
    if ":" in text:
        raise Invalid(f"exposed port {text!r} names a host port: write it as 80, 9000-9009 or 53/udp, or use -p")
    return port_mappings(text)


def _host_ip(text: str, whole: str) -> Address:
    address = parse_address(text.strip("[]"), f"port mapping {whole!r}:")
    if address.version == 4 and text.startswith("["):
        raise Invalid(f"port mapping {whole!r}: brackets are for IPv6: write {address} without them")
    return address


def _ports(text: str, whole: str, what: str = "port mapping") -> range:
    parsed = _PORTS.fullmatch(text)
    if parsed is not None:
        first = int(parsed[1])
        last = first if parsed[2] is None else int(parsed[2])
        if 1 <= first <= last <= 65535:
            return range(first, last + 1)
    raise Invalid(f"{what} {whole!r}: {text!r} is no port or rising range: give 1 to 65535, or two joined by -")


def _refuse_clashes(mappings: Iterable[PortMapping]) -> None:
    seen: dict[tuple[str, int], list[PortMapping]] = {}
    for new in mappings:
        if not new.host_port:
            continue  # not chosen yet
        others = seen.setdefault((new.proto, new.host_port), [])
        if any(old.clashes(new) for old in others):
            raise Invalid(f"host port {new.host_port}/{new.proto} is published twice: leave one out or choose another")
        others.append(new)
