"""Which of firewalld's zones a link is in; see `Zoned`.

firewalld rejects what is forwarded from links that it was not told of, and a rule of ours in its table would be
gone at its next reload, or refused: newer versions own their table. So it is told, over D-Bus as by firewall-cmd,
for as long as it runs. It is asked only where its table is in this network namespace.
Source: firewalld.dbus(5), org.fedoraproject.FirewallD1.zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from berth.errors import Denied, Refused
from berth.kernel import netns, nft
from berth.kernel.dbus import Bus, Failed
from berth.kernel.netlink import NETFILTER, Netlink
from berth.state import Zoned

_NAME, _OBJECT = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_ZONE = f"{_NAME}.zone"
_PATIENCE = 5  # seconds: it answers nobody while it reloads
_AS_WANTED = ("ZONE_ALREADY_SET", "ALREADY_ENABLED")
_NOT_THERE = ("UNKNOWN_INTERFACE", "NOT_ENABLED", "ZONE_CONFLICT")  # the last: somebody has moved it elsewhere

TABLE = ("inet", "firewalld")


def _filters() -> bool:
    """Whether firewalld is to be told. Docker's managed plugin has no way to it: there its operator does that."""
    return netns.may_enter() and TABLE in nft.tables(Netlink.kept(NETFILTER))


def read(devs: Iterable[str]) -> Iterator[Zoned]:
    """These links' zones; none of a firewalld that does not answer."""
    if not _filters():
        yield from (Zoned(dev, needless=True) for dev in devs)
        return
    try:
        with Bus(_PATIENCE) as bus:
            zones = bus.call(_NAME, _OBJECT, _ZONE, "getActiveZones").tree()
    except (Failed, OSError):
        return
    zone_of = {dev: zone for zone, what in zones.items() for dev in what.get("interfaces", ())}
    for dev in devs:
        if dev in zone_of:
            # In another zone it was put by the operator, who will have had a reason.
            yield Zoned(dev, zone_of[dev], needless=zone_of[dev] != Zoned.default)


def add(entry: Zoned) -> None:
    """Put a link into a zone. Raises `Refused` or `Denied`; without firewalld there is nothing to do."""
    if _filters():
        _call("addInterface", entry, _AS_WANTED)


def delete(entry: Zoned) -> None:
    """Take a link out of its zone; whoever does not run has forgotten it. Raises `Refused` or `Denied`."""
    if _filters():
        try:
            _call("removeInterface", entry, _NOT_THERE)
        except Refused as refused:
            if not isinstance(refused.__cause__, OSError):
                raise


def _call(method: str, entry: Zoned, fine: tuple[str, ...]) -> None:
    try:
        with Bus(_PATIENCE) as bus:
            bus.call(_NAME, _OBJECT, _ZONE, method, entry.zone, entry.dev)
    except Failed as failed:
        said = str(failed)
        if said.startswith(fine):
            return
        if "not authorized" in said.lower() or "accessdenied" in said.lower():
            raise Denied(f"firewalld refuses `{entry.describe()}`: run as root") from None
        raise Refused(f"firewalld refused `{entry.describe()}`: {said}") from None
    except OSError as error:
        raise Refused(
            f"firewalld's table filters this host, but firewalld does not answer on D-Bus ({error.strerror or error}):"
            " start it again, or remove what it left with `nft delete table inet firewalld`"
        ) from error
