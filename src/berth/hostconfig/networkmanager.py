"""NetworkManager's keyfiles: two profiles of ours, the bridge's and its port's; the NIC's waits, switched off.

The NIC's own profile is not made into the port's: its uuid then would mean something else, and what is told to a
running NetworkManager has to name profiles that are known without a look at the files. It keeps what it says and
loses only `autoconnect`. What it says of addresses is said word for word in the bridge's profile, and what it says
of the card in the port's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import ClassVar
from uuid import NAMESPACE_URL, uuid5

from berth.errors import Invalid
from berth.hostconfig import Commands, Edits, File, Files
from berth.hostconfig.ini import Entry, Ini, Section
from berth.hostconfig.switches import refuse_other_switches
from berth.model import Addressing, Uplink, UplinkRoute

DIRECTORY = "etc/NetworkManager/system-connections"
#: Where NetworkManager's own are: "Wired connection 1", which it makes for a card that has none.
VOLATILE = "run/NetworkManager/system-connections"
SHIPPED = "usr/lib/NetworkManager/system-connections"
_MEMORY = "var/lib/NetworkManager"

_ETHERNET = ("ethernet", "802-3-ethernet")  # a section's name, and a type, in either spelling
_BRIDGES = ("ipv4", "ipv6", "proxy")
_CARDS = (*_ETHERNET, "802-1x", "ethtool", "dcb", "link", "sriov", "user")
# Keys of [connection] that are about IP or names: the firewall's zone is that of the link with the addresses.
_BRIDGES_KEYS = ("zone", "metered", "stable-id", "mdns", "llmnr", "dns-over-tls", "secondaries", "gateway-ping-timeout")
_LEAVINGS = ("*~", "*.bak", "*.rpmnew", "*.rpmsave", "*.swp", ".*")

# The port is plugged in anew by its profile, so the bridge's is given the time to have its lease first. No profile
# pulls the other's up: the port would be plugged in twice, and an ARP or DHCP request that is lost meanwhile is sent
# again seconds later. Back too: once the files are what they were, the bridge's profile is gone, and the card gets its
# best one by itself; it is asked for only where none starts by itself, for to ask is to begin anew.
_RELOAD = """
nmcli connection reload
if nmcli connection show uuid "$1" >/dev/null 2>&1; then
    nmcli connection up uuid "$1"
    for try in $(seq 10); do
        case $(nmcli -g GENERAL.STATE device show "$4") in 100*) break ;; esac
        sleep 0.05
    done
    exec nmcli connection up uuid "$2"
fi
for try in $(seq 20); do
    case $(nmcli -g GENERAL.STATE,GENERAL.CON-UUID device show "$3" | tr '\\n' ' ') in
        *"$2"*) ;;
        100*) exit 0 ;;
    esac
    sleep 0.1
done
exec nmcli device connect "$3"
"""


@dataclass(slots=True)
class _Profile:
    """A profile that NetworkManager would load, of an Ethernet card."""

    path: str
    mode: int
    ini: Ini
    used: int  # when it was last in use: seconds since 1970

    def get(self, key: str) -> str:
        """A key of [connection]; the empty string where it has none."""
        return self.ini.get("connection", key) or ""

    @property
    def automatic(self) -> bool:
        return self.get("autoconnect").lower() not in ("false", "0", "no", "off")

    @property
    def priority(self) -> int:
        try:
            return int(self.get("autoconnect-priority") or 0)
        except ValueError:
            told = self.get("autoconnect-priority")
            raise Invalid(f"{self.path}: `autoconnect-priority={told}` is not a number: correct the file") from None

    @property
    def rank(self) -> tuple[bool, int, int]:
        """By what NetworkManager chooses among profiles for a card."""
        return self.automatic, self.priority, self.used


class NetworkManager:
    """/etc/NetworkManager/system-connections."""

    name: ClassVar[str] = "networkmanager"
    regenerate: ClassVar[Commands] = ()  # the files are read later
    globs: ClassVar[tuple[str, ...]] = (
        *(f"{each}/*" for each in (DIRECTORY, VOLATILE, SHIPPED)),
        f"{_MEMORY}/timestamps",
        f"{_MEMORY}/internal-*.lease",
    )

    def configures(self, files: Files, uplink: Uplink) -> bool:
        """Whether a profile on the disk is for the NIC, or is one that it would get."""
        return any(not each.path.startswith(VOLATILE) for each in _fitting(files, uplink))

    def adopt(self, files: Files, uplink: Uplink) -> Edits:
        """Profiles of the bridge and of its port; those for the NIC alone no longer start by themselves.

        Raises `Invalid` for files that are no keyfiles, and for a NIC or a bridge that has a profile of another kind.
        """
        refuse_other_switches(uplink, "keyfiles")
        bridge_path, port_path = paths(uplink)
        bridge_uuid, port_uuid = uuids(uplink)
        if bridge_path in files and Ini.parse(bridge_path, files[bridge_path].text).get("connection", "uuid") == (
            bridge_uuid
        ):
            return {}
        _refuse(files, uplink)
        fitting = _fitting(files, uplink)
        best = max(fitting, key=lambda each: each.rank, default=None)
        bridge, port = _bridge(uplink, bridge_uuid), _port(uplink, port_uuid)
        if best is None:
            bridge.sections += _addressing(uplink)
            if uplink.mtu:
                port.sections.append(Section.new("ethernet", ("mtu", str(uplink.mtu))))
        else:
            _share(best.ini, bridge, port)
        shared = [each.priority for each in fitting if each.automatic and not _is_own(each, uplink)]
        if shared and max(shared) >= 0:  # what other cards need too is not switched off: the port's is preferred
            port.section("connection").set("autoconnect-priority", str(max(shared) + 1))
        port.sections.append(Section("bridge-port", ["", "[bridge-port]"]))
        edits: Edits = {bridge_path: File(bridge.text(), 0o600), port_path: File(port.text(), 0o600)}
        return edits | _switched_off(fitting, uplink) | _lease(files, best, uplink)

    def reload(self, uplink: Uplink) -> Commands:
        """The new profiles are read and brought up, the bridge's first: it takes over the bridge as it stands.

        Its IPv4 addresses are away for 30 to 100 ms meanwhile, and learnt IPv6 ones until the router has been asked.
        """
        return (("sh", "-ec", _RELOAD, "reload", *uuids(uplink), uplink.nic, uplink.bridge),)


def paths(uplink: Uplink) -> tuple[str, str]:
    """The files of the bridge's profile and of its port's."""
    return (
        f"{DIRECTORY}/{uplink.bridge}.nmconnection",
        f"{DIRECTORY}/{uplink.bridge}-{uplink.nic}.nmconnection",
    )


def uuids(uplink: Uplink) -> tuple[str, str]:
    """The uuids of the bridge's profile and of its port's: the same whenever the same NIC joins the same bridge."""
    of = f"berth:{uplink.bridge}:{uplink.nic}:{uplink.mac}"
    return str(uuid5(NAMESPACE_URL, f"{of}:bridge")), str(uuid5(NAMESPACE_URL, f"{of}:port"))


def _profiles(files: Files) -> Iterator[_Profile]:
    """All profiles that NetworkManager loads, but those that netplan makes for it."""
    used = _last_used(files)
    for path, file in sorted(files.items()):
        name = PurePosixPath(path).name
        if str(PurePosixPath(path).parent) not in (DIRECTORY, VOLATILE, SHIPPED) or name.startswith("netplan-"):
            continue
        # What others may read or write it does not load: there are passwords in them.
        if any(fnmatchcase(name, each) for each in _LEAVINGS) or (file.mode & 0o077 and not path.startswith(SHIPPED)):
            continue
        ini = Ini.parse(path, file.text)
        yield _Profile(path, file.mode, ini, used.get(ini.get("connection", "uuid") or "", 0))


def _last_used(files: Files) -> dict[str, int]:
    """When each profile was last in use, by uuid."""
    path = f"{_MEMORY}/timestamps"
    if path not in files:
        return {}
    found = Ini.parse(path, files[path].text).named("timestamps")
    return {each.key: int(each.value) for section in found for each in section.entries if each.value.isdecimal()}


def _fitting(files: Files, uplink: Uplink) -> list[_Profile]:
    """The profiles that the NIC may get."""
    return [each for each in _profiles(files) if each.get("type") in _ETHERNET and _fits(each, uplink)]


def _fits(profile: _Profile, uplink: Uplink) -> bool:
    name, mac = profile.get("interface-name"), _mac(profile)
    patterns = [each for each in (profile.ini.get("match", "interface-name") or "").split(";") if each]
    patterns = [each.lstrip("|&") for each in patterns]
    return (
        name in ("", uplink.nic)
        and mac in ("", uplink.mac.lower())
        and (not patterns or any(fnmatchcase(uplink.nic, each) for each in patterns))
    )


def _mac(profile: _Profile) -> str:
    found = (profile.ini.get(section, "mac-address") for section in _ETHERNET)
    return next((each.lower() for each in found if each), "")


def _is_own(profile: _Profile, uplink: Uplink) -> bool:
    """Whether no other card can get a profile."""
    return bool(profile.get("interface-name") or _mac(profile)) and profile.path.startswith(DIRECTORY)


def _refuse(files: Files, uplink: Uplink) -> None:
    for each in _profiles(files):
        master = each.get("master") or each.get("controller")
        if each.path in paths(uplink) or (
            each.get("interface-name") == uplink.bridge and not each.path.startswith(VOLATILE)
        ):
            raise Invalid(f"{each.path}: {uplink.bridge} has a profile already: choose another name for the bridge")
        if master and each.get("interface-name") == uplink.nic and each.automatic:
            raise Invalid(f"{each.path}: {uplink.nic} is a port of {master} already: take it out there first")


def _bridge(uplink: Uplink, uuid: str) -> Ini:
    path = paths(uplink)[0]
    connection = [("id", uplink.bridge), ("uuid", uuid), ("type", "bridge"), ("interface-name", uplink.bridge)]
    return Ini(
        path,
        sections=[
            Section.new("connection", *connection),
            # Pinned: a bridge takes its lowest port's MAC, or systemd's, and the host would get another lease.
            Section.new("ethernet", ("cloned-mac-address", uplink.mac)),
            # Its own defaults are STP and half a minute of silence.
            Section.new("bridge", ("stp", "false"), ("forward-delay", "0")),
        ],
    )


def _port(uplink: Uplink, uuid: str) -> Ini:
    path = paths(uplink)[1]
    connection = [("id", f"{uplink.bridge}-{uplink.nic}"), ("uuid", uuid), ("type", "ethernet")]
    # By their old names, which every version reads.
    connection += [("interface-name", uplink.nic), ("master", uplink.bridge), ("slave-type", "bridge")]
    return Ini(path, sections=[Section.new("connection", *connection)])


def _share(profile: Ini, bridge: Ini, port: Ini) -> None:
    """Say what a profile says of addresses for the bridge, and what it says of the card for the port."""
    for section in profile.sections:
        if section.name == "connection":
            moved = [copy.copy(each) for each in section.entries if each.key in _BRIDGES_KEYS]
            bridge.section("connection").entries += moved
        elif section.name in _BRIDGES:
            bridge.sections.append(_copied(section))
        elif section.name in _CARDS:
            port.sections.append(_copied(section))
            if section.name in _ETHERNET and (mtu := section.get("mtu")):
                bridge.named("ethernet")[0].entries.append(Entry.new("mtu", mtu))


def _copied(section: Section) -> Section:
    """A section for another file, set off by one blank line."""
    copied = copy.deepcopy(section)
    copied.head = ["", *copied.head]
    while copied.tail and not copied.tail[-1].strip():
        copied.tail.pop()
    return copied


def _switched_off(fitting: Sequence[_Profile], uplink: Uplink) -> Edits:
    """The NIC's own profiles, which no longer start by themselves."""
    edits: Edits = {}
    for each in fitting:
        if _is_own(each, uplink) and each.automatic:
            each.ini.named("connection")[0].set("autoconnect", "false")
            edits[each.path] = File(each.ini.text(), each.mode)
    return edits


def _lease(files: Files, best: _Profile | None, uplink: Uplink) -> Edits:
    """What NetworkManager remembers of the NIC's lease, for the bridge: it then asks for that address at once."""
    if best is None:
        return {}
    path = f"{_MEMORY}/internal-{best.get('uuid')}-{uplink.nic}.lease"
    return {f"{_MEMORY}/internal-{uuids(uplink)[0]}-{uplink.bridge}.lease": files[path]} if path in files else {}


def _addressing(uplink: Uplink) -> Iterator[Section]:
    """The bridge's sections for what the uplink says."""
    for name, version, addressing in (("ipv4", 4, uplink.ipv4), ("ipv6", 6, uplink.ipv6)):
        section = Section.new(name, ("method", _method(addressing)))
        for number, address in enumerate(addressing.addresses, 1):
            section.add(f"address{number}", str(address))
        if addressing.gateway is not None:
            section.add("gateway", str(addressing.gateway))
        if servers := [str(each) for each in uplink.dns if each.version == version]:
            section.add("dns", "".join(f"{each};" for each in servers))
        if uplink.search and addressing.method != "none":
            section.add("dns-search", "".join(f"{each};" for each in uplink.search))
        for number, route in enumerate((each for each in uplink.routes if each.dst.version == version), 1):
            section.add(f"route{number}", _route(route))
            if route.table != 254:
                section.add(f"route{number}_options", f"table={route.table}")
        yield section


def _method(addressing: Addressing) -> str:
    return {"static": "manual", "auto": "auto"}.get(addressing.method, "disabled")


def _route(route: UplinkRoute) -> str:
    via = str(route.via) if route.via is not None else ("::" if route.dst.version == 6 else "0.0.0.0")
    return f"{route.dst},{via},{route.metric}" if route.metric else f"{route.dst},{via}"
