"""Every check over the same facts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

from berth.doctor.checks import addresses, links, overlay, state, way
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
    "bridge-no-uplink": (links.bridge_no_uplink,),
    "no-carrier": (links.no_carrier,),
    "nic-addressed": (links.nic_addressed,),
    "mtu-mismatch": (links.mtu_mismatch,),
    "stp-delay": (links.stp_delay,),
    "foreign-forward-drop": (way.foreign_forward_drop, way.foreign_forward_policy, state.foreign_forward_pass),
    "rp-filter": (way.rp_filter,),
    "port-nobody-listens": (way.port_nobody_listens,),
    "reach-router": (way.reach_router,),
    "overlay-entries": (overlay.entries,),
    "overlay-port-blocked": (overlay.port_blocked,),
    "overlay-mtu": (overlay.mtu_black_hole,),
    "overlay-subnet-taken": (overlay.misfit,),
    "node-version": (overlay.other_version,),
}
#: What keeps a router from answering: found, it needs no second finding.
_SILENCING = frozenset({
    "drift", "bridge-no-uplink", "no-carrier", "nic-addressed", "foreign-forward-drop", "gateway-address-on-bridge",
    "stp-delay",
})  # fmt: skip


def findings(facts: Facts, only: Collection[str] = ()) -> tuple[Finding, ...]:
    """All that is wrong; with `only`, of these checks."""
    found = [each for checks in CHECKS.values() for check in checks for each in check(facts)]
    if any(each.check in _SILENCING for each in found):
        found = [each for each in found if each.check != "reach-router"]
    return tuple(each for each in found if not only or each.check in only)
