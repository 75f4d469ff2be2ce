"""Debian's ifupdown: the NIC's stanzas become the bridge's, in place.

The bridge is made by the bridge_* options where bridge-utils is installed, as Debian's people expect it, and else by
`ip` in pre-up and post-down lines, which needs no package. Its MAC is given in either case: the bridge would take
that of the lowest port, which changes with the containers' cables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar

from berth.errors import Invalid
from berth.hostconfig import Commands, Edits, File, Files
from berth.hostconfig.interfaces import DIRECTORIES, MAIN, Interfaces, Line, Stanza, made, read
from berth.hostconfig.switches import refuse_other_switches
from berth.model import Addressing, Uplink, UplinkRoute

#: There where the package bridge-utils is installed: what carries out the bridge_* options.
BRIDGE_UTILS = "lib/bridge-utils/ifupdown.sh"

_HOOKS = ("pre-up", "up", "post-up", "down", "pre-down", "post-down")
# Options of the card itself: of ifupdown, ethtool, wireless-tools, wpasupplicant, ifenslave and vlan.
_NICS = re.compile(r"hwaddress|(ethtool|ethernet|link|hardware|offload|driver|wireless|wpa|bond|vlan)-.*")
_NICS_COMMAND = re.compile(
    r"\b(ethtool|mii-tool|iwconfig|iw|tc|devlink)\b|\bip\s+(-\S+\s+)*l(i(nk?)?)?\s|/sys/class/net/"
    r"|\bifconfig\s+\S+\s+(mtu|txqueuelen|-?promisc|up)\b"
)
_BRIDGES_COMMAND = re.compile(
    r"\bip\s+(-\S+\s+)*(a(ddr(ess)?)?|r(o(ute)?)?|ru(le)?|n(eigh)?)\s|\broute\s|\b(ip6?tables|nft|resolvectl|sysctl)\b"
)


#: In ifupdown's records the one of both is up that carries the addresses: the bridge, where there is one.
_IN_PLACE = """
cd /run/network && [ -e ifstate ] || exit 0
up=$1
if ip link show dev "$2" >/dev/null 2>&1; then up=$2; fi
sed -i -e "/^$1=/d" -e "/^$2=/d" ifstate
echo "$up=$up" >>ifstate
echo "$up" >"ifstate.$up"
"""


class Ifupdown:
    """/etc/network/interfaces and interfaces.d."""

    name: ClassVar[str] = "ifupdown"
    regenerate: ClassVar[Commands] = ()  # the files are read later
    globs: ClassVar[tuple[str, ...]] = (MAIN, *(f"{each}/*" for each in DIRECTORIES), BRIDGE_UTILS)

    def configures(self, files: Files, uplink: Uplink) -> bool:
        """Whether a stanza is about the NIC, or has it as a bridge's port."""
        return any(
            stanza.kind == "iface" and (uplink.nic in stanza.names or _has_port(stanza, uplink.nic))
            for parsed in read(files)
            for stanza in parsed.stanzas
        )

    def adopt(self, files: Files, uplink: Uplink) -> Edits:
        """The NIC's stanzas turned into the bridge's; written anew where none gives it addresses.

        Raises `Invalid` for files that ifupdown does not take, for a bridge that has a stanza already, for a NIC
        that is another bridge's port or configured in ways that have no counterpart for a bridge.
        """
        refuse_other_switches(uplink, "/etc/network/interfaces")
        loaded = read(files)
        as_read = {parsed.path: parsed.text() for parsed in loaded}
        if any(_is_done(each, uplink) for parsed in loaded for each in parsed.stanzas):
            return {}
        for parsed in loaded:
            for stanza in parsed.stanzas:
                _refuse(parsed, stanza, uplink)
        move = _Move(uplink, BRIDGE_UTILS in files)
        for parsed in loaded:
            move.turn(parsed)
        if move.first is None:
            move.write(_main(loaded))
        move.finish(loaded)
        texts = {parsed.path: parsed.text() for parsed in loaded}
        return {
            path: File(text, files[path].mode if path in files else 0o644)
            for path, text in texts.items()
            if text != as_read.get(path)
        }

    def reload(self, uplink: Uplink) -> Commands:
        """Nothing runs that could read the files; what is said is which link is up, for a later `ifdown`."""
        return (("sh", "-ec", _IN_PLACE, "ifstate", uplink.nic, uplink.bridge),)


class _Move:
    """One adoption, over all files."""

    def __init__(self, uplink: Uplink, bridge_utils: bool) -> None:
        self._uplink = uplink
        self._bridge_utils = bridge_utils
        self.first: Stanza | None = None  # the bridge's, with the lines that make it
        self._own: list[str] = []  # options that are the NIC's: only with some it has to be brought up by itself
        self._manual: Stanza | None = None  # the stanza that the NIC has for them already

    def turn(self, parsed: Interfaces) -> None:
        """Turn the stanzas that give the NIC addresses."""
        for stanza in parsed.stanzas:
            if stanza.kind != "iface" or not _is_nics(stanza, self._uplink.nic):
                continue
            if not self._addresses(parsed, stanza):
                self._manual = self._manual or stanza
                continue
            if not parsed.path.startswith("etc/"):
                raise Invalid(
                    f"{parsed.where(stanza.head)}: {self._uplink.nic} is configured by a file that is made anew at each"
                    f" boot: write its stanza to /{MAIN}"
                )
            self._take(parsed, stanza)
            stanza.head.text = self._named(stanza.head.text)
            if self.first is None and stanza.names == [self._uplink.bridge]:
                self.first = stanza

    def write(self, parsed: Interfaces) -> None:
        """Write what the uplink says as stanzas of the bridge."""
        stanzas = [made(*lines) for lines in _stanzas(self._uplink)]
        parsed.tail, stanzas[0].lead = [], [*parsed.tail, *stanzas[0].lead]
        parsed.stanzas += stanzas
        self.first = stanzas[0]
        if self._uplink.mtu:
            self._own.append(f"mtu {self._uplink.mtu}")

    def finish(self, loaded: list[Interfaces]) -> None:
        """Say how the bridge is made and that it is brought up at boot; give the NIC a stanza of its own."""
        assert self.first is not None
        self.first.put_first(*self._bridge())
        if self._manual is not None:
            self._manual.add(*self._own)
            self._own = [line.text.strip() for line in self._manual.body if line.words]
        automatic = {name for parsed in loaded for each in parsed.stanzas for name in self._rename(each)}
        above = []
        if self._manual is None:
            # Without one NetworkManager, where it is installed too, would take the NIC for its own.
            above.append(made(f"iface {self._uplink.nic} inet manual", *self._own))
        missing = ([self._uplink.nic] if self._own else []) + [self._uplink.bridge]
        if missing := [each for each in missing if each not in automatic]:
            above.insert(0, made(f"auto {' '.join(missing)}"))
        for parsed in loaded:
            # Which stanza it is counts, not what is written in it: there may be two alike.
            at = next((i for i, each in enumerate(parsed.stanzas) if each is self.first), None)
            if at is not None and above:
                above[0].lead, self.first.lead = self.first.lead or above[0].lead, above[0].lead
                parsed.stanzas[at:at] = above

    def _addresses(self, parsed: Interfaces, stanza: Stanza) -> bool:
        """Whether a stanza says anything for the bridge. One that only has the NIC ready does not."""
        return stanza.method != "manual" or any(
            line.words and not self._is_own(parsed, line) and line.key != "mtu" for line in stanza.body
        )

    def _is_own(self, parsed: Interfaces, line: Line) -> bool:
        """Whether an option is about the card, whoever has its addresses."""
        if line.key not in _HOOKS:
            return bool(_NICS.fullmatch(line.key))
        if not _NICS_COMMAND.search(line.value):
            return False
        if _BRIDGES_COMMAND.search(line.value):
            raise Invalid(
                f"{parsed.where(line)}: `{line.value}` is about {self._uplink.nic} and its addresses at once:"
                " make it two lines"
            )
        return True

    def _take(self, parsed: Interfaces, stanza: Stanza) -> None:
        """Take the NIC's options out of a stanza, and have the others speak of the bridge."""
        for line in [each for each in stanza.body if each.words]:
            own, option = self._is_own(parsed, line), line.text.strip()
            if (own or line.key == "mtu") and option not in self._own:  # another family's stanza may have it too
                self._own.append(option)
            if own:
                stanza.body = [each for each in stanza.body if each is not line]
            elif line.key in _HOOKS:
                line.text = self._named(line.text)

    def _named(self, text: str) -> str:
        """A text with the bridge for the NIC; the settings of the kernel's are paths with dots or slashes."""
        nic = re.escape(self._uplink.nic)
        return re.sub(rf"(?:(?<![\w.-])|(?<=conf\.)|(?<=neigh\.)){nic}(?![\w-])(?!\.\d)", self._uplink.bridge, text)

    def _bridge(self) -> Iterator[str]:
        nic, bridge, mac = self._uplink.nic, self._uplink.bridge, self._uplink.mac
        if self._bridge_utils:
            yield from (f"bridge_ports {nic}", f"bridge_hw {mac}", "bridge_stp off", "bridge_fd 0", "bridge_maxwait 0")
            return
        made_as = f"address {mac} type bridge stp_state 0 forward_delay 0"
        yield f"pre-up ip link show dev {bridge} >/dev/null 2>&1 || ip link add name {bridge} {made_as}"
        yield f"pre-up ip link set dev {nic} up master {bridge} addrgenmode none"
        yield f"post-down ip link delete dev {bridge}"

    def _rename(self, stanza: Stanza) -> set[str]:
        """Have the bridge brought up where the NIC is, and the NIC only if it has options; all that is brought up."""
        if not stanza.kind.startswith(("auto", "allow-", "no-")):
            return set()
        nic, plugged = self._uplink.nic, stanza.kind.startswith("allow-") and stanza.kind != "allow-auto"
        brought, bridges = list[str](), list[str]()
        for name in stanza.names:
            if name.split(":")[0] != nic:
                brought.append(name)
                continue
            if name == nic and self._own:
                brought.append(name)
            bridges.append(self._uplink.bridge + name.removeprefix(nic))
        if bridges and plugged and not brought:  # a bridge is nothing that is plugged in
            stanza.head.text = f"auto {' '.join(bridges)}\n"
        elif bridges and plugged:
            stanza.head.text, bridges = f"{stanza.kind} {' '.join(brought)}\n", []
        elif bridges:
            stanza.head.text = f"{stanza.kind} {' '.join(brought + bridges)}\n"
        return set() if stanza.kind.startswith("no-") else {*brought, *bridges}


def _is_nics(stanza: Stanza, nic: str) -> bool:
    """Whether a stanza is the NIC's or an alias's of it (eth0:1)."""
    return stanza.kind == "iface" and stanza.names[0].split(":")[0] == nic


def _has_port(stanza: Stanza, nic: str) -> bool:
    """Whether a stanza makes the NIC a bridge's port, by bridge-utils or by `ip`."""
    ports = stanza.option("bridge-ports")
    by_ip = re.compile(rf"\bip link set (dev )?{re.escape(nic)} (\S+ )*master ")
    return (ports is not None and nic in ports.words[1:]) or any(
        line.key in _HOOKS and by_ip.search(line.value) for line in stanza.body
    )


def _is_done(stanza: Stanza, uplink: Uplink) -> bool:
    """Whether a stanza is the bridge's with the NIC as its port."""
    return stanza.kind == "iface" and uplink.bridge in stanza.names and _has_port(stanza, uplink.nic)


def _refuse(parsed: Interfaces, stanza: Stanza, uplink: Uplink) -> None:
    """Refuse what the move would spoil, or could not be told from something else."""
    where, nic, bridge = parsed.where(stanza.head), uplink.nic, uplink.bridge
    if stanza.kind == "mapping" and any(fnmatchcase(nic, name) for name in stanza.names):
        raise Invalid(f"{where}: {nic} gets its stanza by a mapping: write a stanza for {nic} in its place")
    if stanza.kind != "iface":
        if any(name.startswith(f"{nic}=") for name in stanza.names):
            raise Invalid(f"{where}: {nic} gets a stanza of another name: write a stanza for {nic} in its place")
    elif _has_port(stanza, nic):
        raise Invalid(f"{where}: {nic} is a port of {stanza.names[0]} already: take it out there first")
    elif stanza.names[0] == bridge:
        raise Invalid(f"{where}: {bridge} has a stanza, without {nic}: choose another name for the bridge")


def _main(loaded: list[Interfaces]) -> Interfaces:
    """The main file; a new one, that sources what is usual, where there is none."""
    if not loaded:
        source = made(f"source /{DIRECTORIES[0]}/*")
        loaded.append(Interfaces(MAIN, [source]))
    return loaded[0]


def _stanzas(uplink: Uplink) -> Iterator[tuple[str, ...]]:
    """The bridge's stanzas for what the uplink says: one for each address, as ifupdown wants it."""
    written = [*_family(uplink, "inet", uplink.ipv4), *_family(uplink, "inet6", uplink.ipv6)]
    written = written or [[f"iface {uplink.bridge} inet manual"]]
    if uplink.mtu:
        written[0].append(_mtu(written[0][0], uplink))
    if uplink.dns:
        written[0].append(f"dns-nameservers {' '.join(map(str, uplink.dns))}")
    if uplink.search:
        written[0].append(f"dns-search {' '.join(uplink.search)}")
    for route in uplink.routes:
        family = " inet6 " if route.dst.version == 6 else " inet "
        # The last of its family: all the addresses that its router may be reached by are there then.
        stanza = next((each for each in reversed(written) if family in each[0]), written[-1])
        stanza.append(f"up {_route(route, uplink.bridge)}")
    yield from map(tuple, written)


def _mtu(head: str, uplink: Uplink) -> str:
    """The bridge's MTU: an option that not every method has."""
    has_option = head.endswith((" static", " manual"))
    return f"mtu {uplink.mtu}" if has_option else f"up ip link set dev {uplink.bridge} mtu {uplink.mtu}"


def _family(uplink: Uplink, family: str, addressing: Addressing) -> Iterator[list[str]]:
    if addressing.method == "auto":
        yield [f"iface {uplink.bridge} {family} {'dhcp' if family == 'inet' else 'auto'}"]
    for number, address in enumerate(addressing.addresses):
        options = [f"address {address}"]
        if number == 0 and addressing.gateway is not None:
            options.append(f"gateway {addressing.gateway}")
        yield [f"iface {uplink.bridge} {family} static", *options]


def _route(route: UplinkRoute, bridge: str) -> str:
    words = ["ip", *(["-6"] if route.dst.version == 6 else []), "route replace", str(route.dst)]
    words += [f"via {route.via}"] if route.via is not None else []
    words += [f"dev {bridge}"]
    words += [f"metric {route.metric}"] if route.metric else []
    words += [f"table {route.table}"] if route.table != 254 else []
    return " ".join(words)
