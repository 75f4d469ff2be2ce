"""One connection on its way, and who ended it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from berth.model import Address, Endpoint, HostLink, Network


class Answer(StrEnum):
    """What became of a probe."""

    ANSWERED = "answered"
    REFUSED = "refused"  # a reset, or ICMP port unreachable
    UNREACHABLE = "unreachable"  # ICMP, or nobody answered for the next hop
    NO_ROUTE = "no-route"  # it never left the sandbox
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection is to go. `port`: 0 for a ping."""

    address: Address
    port: int = 0
    proto: str = "icmp"  # tcp | udp | icmp

    def __str__(self) -> str:
        shown = f"[{self.address}]" if self.address.version == 6 and self.port else str(self.address)
        return f"{shown}:{self.port}/{self.proto}" if self.port else shown


@dataclass(frozen=True, slots=True)
class Step:
    """What one chain of nftables did with the packet."""

    family: str
    table: str
    chain: str
    rule: str  # as nft(8) prints it; "policy" for the chain's own
    verdict: str

    @property
    def place(self) -> str:
        """The chain, as nft(8) names it."""
        return f"{self.family} {self.table} {self.chain}"


@dataclass(frozen=True, slots=True)
class Journey:
    """All that was seen of one probe."""

    endpoint: Endpoint
    network: Network
    target: Target
    answer: Answer
    cable: HostLink | None  # the outer end
    source: Address | None = None  # None: there is no route
    next_hop: Address | None = None
    next_hop_answers: bool = False
    steps: tuple[Step, ...] = ()
    filtered: int = 0  # packets that the host's reverse path filter dropped meanwhile
    largest: int = 0  # bytes of a packet that found no way, though small ones do; 0: none


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who ended a connection: a stable word, and a sentence."""

    culprit: str
    message: str

    @property
    def arrived(self) -> bool:
        """Whether nobody did."""
        return self.culprit == "none"


_TRACE = re.compile(r"trace id (\S+) (\S+) (\S+) (\S+) (packet:|rule|policy|verdict) ?(.*)")
_VERDICT = re.compile(r"(.*) \(verdict ([a-z]+)[^)]*\)$")


def steps(lines: list[str], but: str) -> tuple[Step, ...]:
    """What `nft monitor trace` printed, without the table that asked for it."""
    found: list[Step] = []
    for line in lines:
        match = _TRACE.match(line)
        if match is None or match[3] == but:
            continue
        _, family, table, chain, kind, rest = match.groups()
        if kind == "policy":
            found.append(Step(family, table, chain, "policy", rest.strip()))
        elif kind == "rule" and (told := _VERDICT.match(rest.strip())):
            found.append(Step(family, table, chain, told[1], told[2]))
    return tuple(found)


def verdict(seen: Journey) -> Verdict:
    """Who ended the connection; the nearest to the sandbox first."""
    return _of_the_cable(seen) or _of_the_sandbox(seen) or _of_the_host(seen) or _of_the_far_end(seen)


def _of_the_cable(seen: Journey) -> Verdict | None:
    net, cable = seen.network, seen.cable
    if cable is None or not cable.up:
        state = "gone" if cable is None else "down"
        return Verdict(
            "cable", f"{seen.endpoint.link}, the cable of {seen.endpoint.name}, is {state}: `berth reconcile`"
        )
    if net.switch == "bridge" and cable.master != net.bridge:
        where = f"plugged into {cable.master}" if cable.master else "plugged into nothing"
        message = f"{cable.name}, the cable of {seen.endpoint.name}, is {where} instead of {net.bridge}"
        return Verdict("bridge", f"{message}: `berth reconcile`")
    return None


def _of_the_sandbox(seen: Journey) -> Verdict | None:
    if seen.answer is not Answer.NO_ROUTE and seen.source is not None:
        return None
    name, address = seen.endpoint.name, seen.target.address
    if seen.network.internal:
        return Verdict(
            "internal", f"network {seen.network.name} of {name} is internal: there is no way out to {address}"
        )
    return Verdict("route", f"{name} has no route to {address}: see `ip route` inside, and `berth doctor`")


def _of_the_host(seen: Journey) -> Verdict | None:
    stopped = next((step for step in seen.steps if step.verdict in ("drop", "reject")), None)
    if stopped is not None and seen.answer is not Answer.ANSWERED:
        return _dropped(seen, stopped)
    if seen.answer is Answer.ANSWERED:
        return None
    if seen.filtered:
        setting = f"net.ipv4.conf.{seen.network.bridge}.rp_filter"
        return Verdict(
            "rp-filter",
            f"the host's reverse path filter on {seen.network.bridge} dropped it: the way back to {seen.source} is"
            f" another; see `ip route get {seen.source}`, or `sysctl -w {setting}=2`",
        )
    if not seen.next_hop_answers and seen.next_hop is not None:
        where = f"network {seen.network.name}"
        return Verdict(
            "neighbour", f"nobody on {where} answers for {seen.next_hop}, the next hop to {seen.target.address}"
        )
    return None


def _dropped(seen: Journey, step: Step) -> Verdict:
    rule = f"the policy of chain {step.place}" if step.rule == "policy" else f"rule `{step.rule}` of chain {step.place}"
    if not step.table.startswith("berth"):
        return Verdict("foreign-firewall", f"{rule} dropped it: that is another program's firewall")
    if step.family in ("netdev", "bridge") and not step.table.startswith("berth_guard"):
        return Verdict("anti-spoof", f"{rule} dropped it: {seen.endpoint.name} does not send as itself ({seen.source})")
    if step.table.startswith("berth_"):
        return Verdict("allow-list", f"{rule} dropped it: the allow list of an endpoint lets in others only")
    if seen.network.internal:
        return Verdict("internal", f"{rule} dropped it: network {seen.network.name} is internal")
    return Verdict("isolation", f"{rule} dropped it: Berth keeps network {seen.network.name} apart from there")


def _of_the_far_end(seen: Journey) -> Verdict:
    target = seen.target
    if seen.answer is Answer.REFUSED:
        return Verdict("listener", f"{target.address} refused it: nobody listens on port {target.port}/{target.proto}")
    if seen.answer is Answer.UNREACHABLE:
        return Verdict("unreachable", f"a router on the way said that {target.address} cannot be reached")
    if seen.answer is Answer.SILENT:
        return Verdict("beyond", f"it left by {seen.next_hop} and nothing on this host dropped it: no answer came")
    if seen.largest:
        return Verdict(
            "mtu",
            f"{target} answers, but packets of {seen.largest} bytes get lost on the way there and nobody says so:"
            " a link on the way has a smaller MTU",
        )
    return Verdict("none", f"{target} answers {seen.endpoint.name}")
