"""netplan: the NIC's addresses move into an entry of `bridges:`, each in the file where it stands.

Netplan joins all of its files, and appends lists: a file of our own could not take an address from the NIC. So the
keys move in every file that has some. Only where a NIC is configured by an entry that is for others too, or by none,
a new file is written.

The lease stays: netplan cannot say an IAID, but networkd takes a drop-in to the file that netplan generates. Where no
lease of networkd's is known, the client identifier is the MAC; NetworkManager's is that anyway.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

from berth.errors import Invalid
from berth.hostconfig import Commands, Edits, File, Files, cloudinit
from berth.hostconfig.cloudinit import kept_off
from berth.hostconfig.netplan_text import Yaml
from berth.hostconfig.networkd import LEASE_GLOBS, client_id, on_link
from berth.model import Addressing, Uplink

ETC = "etc/netplan"
NEW = f"{ETC}/90-berth.yaml"
_DIRECTORIES = ("run/netplan", ETC, "usr/lib/netplan")  # an earlier one hides files of a later one
_MOVED = frozenset(
    [
        *("accept-ra", "addresses", "critical", "dhcp-identifier", "dhcp4", "dhcp4-overrides", "dhcp6"),
        *("dhcp6-overrides", "gateway4", "gateway6", "ignore-carrier", "ipv6-address-generation"),
        *("ipv6-address-token", "ipv6-mtu", "ipv6-privacy", "link-local", "nameservers", "optional-addresses"),
        *("routes", "routing-policy"),
    ]
)
_BOTH = ("mtu", "optional", "renderer")  # the port's and the bridge's
_PORT = ["dhcp4: false", "dhcp6: false", "accept-ra: false", "link-local: []"]
_MASTERS = ("bridges", "bonds", "vrfs")

# For each of the two that runs. After a release there is neither the bridge nor its profile.
_RELOAD = """
if networkctl reload 2>/dev/null; then
    ip link set dev "$1" group default 2>/dev/null
fi
if nmcli connection reload 2>/dev/null; then
    nmcli connection show "netplan-$1" >/dev/null 2>&1 && nmcli connection up "netplan-$1"
    case $(nmcli -g GENERAL.STATE device show "$2") in
        "10 "*) ;;  # unmanaged
        *) nmcli device connect "$2" ;;
    esac
fi
true
"""


class Netplan:
    """The renderer of netplan's files."""

    name: ClassVar[str] = "netplan"
    regenerate: ClassVar[Commands] = (("netplan", "generate"),)  # its generator has run already, with what was there
    globs: ClassVar[tuple[str, ...]] = (*(f"{each}/*.yaml" for each in _DIRECTORIES), cloudinit.GLOB, *LEASE_GLOBS)

    def configures(self, files: Files, uplink: Uplink) -> bool:
        """Whether an entry of `ethernets:` is about the NIC. Raises `Invalid`."""
        return _entry_of(_read(files), uplink) is not None

    def adopt(self, files: Files, uplink: Uplink) -> Edits:
        """The edits that make the NIC a port of the bridge, which takes its addresses over.

        Raises `Invalid` where a file does not parse, with its line, and where the NIC or the bridge is spoken for.
        """
        every = _read(files)
        entry = _entry_of(every, uplink)
        if _is_adopted(every, entry, uplink):
            return {}
        if entry is None:
            edited = [_told(uplink)]
        elif _shared(every, entry):
            edited = [_apart(every, entry, uplink)]
        else:
            edited = _moved(every, entry, uplink)
        edits: Edits = {
            each.path: File(each.text, files[each.path].mode if each.path in files else 0o600) for each in edited
        }
        return edits | _lease(files, [*every, *edited], uplink) | kept_off(files, edits)

    def reload(self, uplink: Uplink) -> Commands:
        """Have netplan generate files, and networkd and NetworkManager, whichever run, take over what is so already.

        NetworkManager gives the bridge its profile, and then the NIC the one of a port: in between nothing is lost.
        """
        return (*self.regenerate, ("sh", "-c", _RELOAD, "reload", uplink.bridge, uplink.nic))


def _read(files: Files) -> list[Yaml]:
    """The files in the order in which netplan joins them."""
    paths: dict[str, str] = {}
    for directory in _DIRECTORIES:
        for path in files:
            here = PurePosixPath(path)
            if str(here.parent) == directory and here.suffix == ".yaml":
                paths.setdefault(here.name, path)
    return [Yaml(path, files[path].text) for _, path in sorted(paths.items())]


def _joined(every: list[Yaml], kind: str, interface: str) -> dict[str, Any]:
    """An interface's keys out of all files; of those in several, the last."""
    joined: dict[str, Any] = {}
    for each in every:
        joined |= each.interface(kind, interface)
    return joined


def _entry_of(every: list[Yaml], uplink: Uplink) -> str | None:
    """The id of the entry that is about the NIC; of several, of one that names it."""
    ids = dict.fromkeys(entry for each in every for entry in each.kind("ethernets"))
    fitting = [entry for entry in ids if _fits(every, entry, uplink)]
    return next(iter(sorted(fitting, key=lambda entry: _shared(every, entry))), None)


def _fits(every: list[Yaml], entry: str, uplink: Uplink) -> bool:
    """Whether an entry is about the NIC. Raises `Invalid` where that cannot be told."""
    said = _joined(every, "ethernets", entry)
    match: Mapping[str, Any] = said.get("match") or {}
    if not match:
        return entry == uplink.nic or ("match" in said and said.get("set-name") in (None, uplink.nic))
    if "macaddress" in match and str(match["macaddress"]).lower() != uplink.mac:
        return False
    if "set-name" in said:
        return bool(said["set-name"] == uplink.nic)
    if "name" in match and not fnmatch.fnmatchcase(uplink.nic, str(match["name"])):
        return False
    if "driver" in match and "macaddress" not in match and str(match.get("name")) != uplink.nic:
        path = next(each.path for each in every if entry in each.kind("ethernets"))
        raise Invalid(
            f"{path}: whether `{entry}` is {uplink.nic} depends on its driver: match it by name or macaddress"
        )
    return True


def _shared(every: list[Yaml], entry: str) -> bool:
    """Whether an entry may be about other NICs too."""
    said = _joined(every, "ethernets", entry)
    if "match" not in said or "set-name" in said:
        return False
    match = said["match"] or {}
    return "macaddress" not in match and not set("*?[").isdisjoint(str(match.get("name", "*")))


def _is_adopted(every: list[Yaml], entry: str | None, uplink: Uplink) -> bool:
    """Whether the NIC is a port of the bridge. Raises `Invalid` where it is another's, or the bridge something else."""
    for kind in _MASTERS:
        for each in every:
            for master in each.kind(kind):
                ports = each.interface(kind, master).get("interfaces") or ()
                if {entry, uplink.nic} & {*ports}:
                    if (kind, master) == ("bridges", uplink.bridge):
                        return True
                    raise Invalid(f"{each.path}: {uplink.nic} is in {master} of `{kind}:`: take it out first")
    for each in every:
        if any(
            uplink.bridge in (each.network.get(kind) or {})
            for kind in each.network
            if kind != "version" and isinstance(each.network[kind], Mapping)
        ):
            raise Invalid(f"{each.path} configures {uplink.bridge} already: remove it or choose another with --bridge")
    return False


def _bridge(uplink: Uplink, entry: str) -> list[str]:
    """The bridge, whose MAC is pinned. Without `stp: false` it would have STP as soon as it has any parameter."""
    if uplink.switch == "ovs":
        return [f"interfaces: [{entry}]", "openvswitch: {}"]
    parameters = ["parameters:", "  stp: false", "  forward-delay: 0"]
    return [f"interfaces: [{entry}]", f'macaddress: "{uplink.mac}"', *parameters]


def _moved(every: list[Yaml], entry: str, uplink: Uplink) -> list[Yaml]:
    """The files that have keys of the entry, with those about addresses at the bridge."""
    edited: list[Yaml] = []
    for each in every:
        if entry not in each.kind("ethernets"):
            continue
        if not each.path.startswith(f"{ETC}/"):
            raise Invalid(f"{each.path} configures {uplink.nic} and is not the operator's: copy it to {ETC} first")
        here = each.block_style("ethernets", entry)
        blocks = here.blocks("ethernets", entry)
        moved = [line for key, block in blocks.items() if key in _MOVED or key in _BOTH for line in block]
        here = here.without("ethernets", entry, _MOVED)
        if not edited:
            left = here.kind("ethernets")[entry]
            here = here.added("ethernets", entry, [line for line in _PORT if line.split(":")[0] not in left])
            moved = [*_bridge(uplink, entry), *moved, *_mtu(uplink, every, entry)]
        edited.append(here.added("bridges", uplink.bridge, moved) if moved else here)
    return edited


def _mtu(uplink: Uplink, every: list[Yaml], entry: str) -> list[str]:
    return [f"mtu: {uplink.mtu}"] if uplink.mtu and "mtu" not in _joined(every, "ethernets", entry) else []


def _apart(every: list[Yaml], entry: str, uplink: Uplink) -> Yaml:
    """A new file that takes the NIC out of an entry for several, and gives the bridge a copy of what that says."""
    blocks: dict[str, list[str]] = {}
    for each in every:
        if entry in each.kind("ethernets"):
            blocks |= each.block_style("ethernets", entry).blocks("ethernets", entry)
    # networkd takes the first of the generated files that fits: they are sorted by the entries' ids.
    own = next((name for name in (uplink.nic, f"berth-{uplink.nic}", f"00-berth-{uplink.nic}") if name < entry), None)
    if own is None:
        raise Invalid(f"`{entry}` of `ethernets:` sorts before any id for {uplink.nic}: rename it")
    port = [f"match: {{name: {uplink.nic}}}"] if own != uplink.nic else []
    port += [line for key, block in blocks.items() if key not in {*_MOVED, "match"} for line in block]
    moved = [line for key, block in blocks.items() if key in _MOVED or key in _BOTH for line in block]
    return _new(uplink, own, [*port, *_PORT], [*_bridge(uplink, own), *moved, *_mtu(uplink, every, entry)])


def _new(uplink: Uplink, entry: str, port: list[str], bridge: list[str]) -> Yaml:
    text = f"# Written by `berth uplink adopt {uplink.nic}`.\nnetwork:\n  version: 2\n"
    return Yaml(NEW, text).added("ethernets", entry, port).added("bridges", uplink.bridge, bridge)


def _told(uplink: Uplink) -> Yaml:
    """A new file with what the kernel told about the NIC's addresses."""
    port = [*([f"mtu: {uplink.mtu}"] if uplink.mtu else []), *_PORT]
    bridge = _bridge(uplink, uplink.nic)
    if uplink.mtu:
        bridge.append(f"mtu: {uplink.mtu}")
    families = (uplink.ipv4, uplink.ipv6)
    bridge.append(f"dhcp4: {str(uplink.ipv4.method == 'auto').lower()}")
    bridge.append(f"accept-ra: {str(uplink.ipv6.method == 'auto').lower()}")
    if uplink.ipv6.method == "none":
        bridge.append("link-local: []")
    bridge += _listed("addresses", [f'"{address}"' for family in families for address in family.addresses])
    routes = [_default(family) for family in families if family.gateway is not None]
    for each in uplink.routes:
        route = [f'to: "{each.dst}"', *([f'via: "{each.via}"'] if each.via else ["scope: link"])]
        routes.append(
            route
            + ([f"metric: {each.metric}"] if each.metric else [])
            + ([f"table: {each.table}"] if each.table != 254 else [])
        )
    bridge += _listed("routes", ["\n    ".join(route) for route in routes])
    servers, search = [f'"{each}"' for each in uplink.dns], [f'"{each}"' for each in uplink.search]
    named = [*_listed("addresses", servers), *_listed("search", search)]
    bridge += ["nameservers:", *(f"  {line}" for line in named)] if named else []
    return _new(uplink, uplink.nic, port, bridge)


def _default(family: Addressing) -> list[str]:
    assert family.gateway is not None
    anywhere = "0.0.0.0/0" if family.gateway.version == 4 else "::/0"
    return [f'to: "{anywhere}"', f'via: "{family.gateway}"', *([] if on_link(family) else ["on-link: true"])]


def _listed(key: str, items: list[str]) -> list[str]:
    """A key with a list in block style; nothing where that is empty."""
    return [f"{key}:", *(line for item in items for line in f"  - {item}".split("\n"))] if items else []


def _lease(files: Files, every: list[Yaml], uplink: Uplink) -> Edits:
    """What keeps the DHCP server's idea of the client. `every`: the files, those that were edited last."""
    said = _joined(every, "bridges", uplink.bridge)
    renderers = [each.network.get("renderer") for each in every] + [said.get("renderer")]
    renderer = next((each for each in reversed(renderers) if each), "networkd")
    if (
        str(said.get("dhcp4")).lower() not in ("true", "yes", "on", "y")
        or renderer != "networkd"
        or said.get("dhcp-identifier")
    ):
        return {}
    key, value = client_id(files, uplink)
    text = f"# Written by `berth uplink adopt {uplink.nic}`.\n\n[DHCPv4]\n{key}={value}\n"
    return {f"etc/systemd/network/10-netplan-{uplink.bridge}.network.d/berth.conf": File(text)}
