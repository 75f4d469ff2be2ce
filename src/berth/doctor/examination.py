"""Every check over the same facts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

from berth.doctor.checks import addresses, keeping, links, overlay, services, state, way
from berth.doctor.facts import Facts
from berth.doctor.report import Finding

Check: TypeAlias = Callable[[Facts], Iterable[Finding]]

#: By the name of what they find, in the order of the report.
CHECKS: Mapping[str, tuple[Check, ...]] = {
    "drift": (state.drift,),
    "orphans": (state.orphans,),
    "ip-forward-off": (state.ip_forward_off,),
    "gateway-address-on-bridge": (addresses.gateway_address_on_bridge,),
    "duplicate-gateway": (addresses.duplicate_gateway,),
    "duplicate-address": (addresses.duplicate_address,),
    "duplicate-mac": (addresses.duplicate_mac,),
    "pool-exhausted": (addresses.pool_exhausted,),
    "pool-overlaps-dhcp": (services.pool_overlaps_dhcp,),
    "stale-lease": (services.stale_lease,),
    "bridge-no-uplink": (links.bridge_no_uplink,),
    "no-carrier": (links.no_carrier,),
    "nic-addressed": (links.nic_addressed,),
    "mtu-mismatch": (links.mtu_mismatch,),
    "stp-delay": (links.stp_delay,),
    "manager-takes-nic": (keeping.manager_takes_nic,),
    "not-persistent": (keeping.not_persistent,),
    "foreign-forward-drop": (way.foreign_forward_drop, way.foreign_forward_policy, state.foreign_forward_pass),
    "docker-backend-changed": (keeping.docker_backend_changed,),
    "rp-filter": (way.rp_filter,),
    "port-nobody-listens": (way.port_nobody_listens,),
    "dns-in-sandbox": (services.dns_in_sandbox,),
    "reach-router": (way.reach_router,),
    "reach-peer": (way.reach_peer,),
    "reach-internet": (way.reach_internet,),
    "overlay-entries": (overlay.entries,),
    "overlay-port-blocked": (overlay.port_blocked,),
    "overlay-mtu": (overlay.mtu_black_hole,),
    "overlay-subnet-taken": (overlay.misfit,),
    "node-version": (overlay.other_version,),
}
#: What a silent router explains as well.
_BEHIND = frozenset({"reach-peer", "reach-internet"})
#: What keeps others from answering: found, it needs no second finding.
_SILENCING = frozenset({
    "drift", "bridge-no-uplink", "no-carrier", "nic-addressed", "foreign-forward-drop", "gateway-address-on-bridge",
    "stp-delay", "ip-forward-off",
})  # fmt: skip


def findings(facts: Facts, only: Collection[str] = ()) -> tuple[Finding, ...]:
    """All that is wrong; with `only`, of these checks."""
    found = [each for checks in CHECKS.values() for check in checks for each in check(facts)]
    if any(each.check in _SILENCING for each in found):
        found = [each for each in found if each.check not in {"reach-router", *_BEHIND}]
    elif any(each.check == "reach-router" for each in found):
        found = [each for each in found if each.check not in _BEHIND]
    return tuple(each for each in found if not only or each.check in only)
