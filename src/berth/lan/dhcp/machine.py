"""The life of one lease (RFC 2131 4.4; RFC 8415 18.2 has the same for DHCPv6, under other names).

Pure: `step` takes a state, what happened and when, and says what to do.
Times are seconds of CLOCK_BOOTTIME: nobody sets that clock, and it goes on while the machine sleeps. Real time is only
written into the lease, for the process that takes over after a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf
from random import Random
from typing import TypeAlias

from berth.lan.dhcp.frames import Datagram
from berth.lan.dhcp.messages import Kind, Malformed, Message
from berth.lan.dhcp.speech import SPEECH, Speech
from berth.lan.dhcp.terms import FOREVER
from berth.model import Address, Lease, LeaseRequest

_TRIES = 4  # of a REQUEST, before the client begins anew: 1 + 2 + 4 + 8 seconds
_XID = 24  # bits: DHCPv6 has no more
_LONGEST_PAUSE = 64.0  # seconds between two DISCOVERs (RFC 2131 4.1)
_OTHER_OFFERS = 0.2  # seconds to wait whether another server has the wanted address
_AFTER_CONFLICT = 10.0  # seconds (RFC 2131 3.1.5); after the first one a single second, since somebody is waiting
_SHORTEST_REPEAT = 60.0  # seconds between renewals (RFC 2131 4.4.5), less only for leases of minutes


class Stage(Enum):
    """Where a client is (RFC 2131, figure 5), CHECKING between the ACK and the use of the address."""

    INIT = auto()
    SELECTING = auto()
    REQUESTING = auto()
    CHECKING = auto()
    BOUND = auto()
    RENEWING = auto()
    REBINDING = auto()
    REBOOTING = auto()


class Verdict(Enum):
    """Whether somebody else has an address."""

    SILENT = auto()  # nobody who is awake
    FREE = auto()
    HELD = auto()


@dataclass(frozen=True, slots=True)
class Client:
    """One client's state. `wake` is when it wants to be woken."""

    request: LeaseRequest
    stage: Stage = Stage.INIT
    wake: float = 0.0
    xid: int = 0
    began: float = 0.0  # when this exchange was begun: a lease counts from there
    tries: int = 0  # messages of this exchange
    secs: int = 0  # what the last DISCOVER said, which the REQUEST repeats (RFC 2131 4.4.1)
    setbacks: int = 0  # refusals and conflicts since there was a lease
    offer: Message | None = None
    hint: Address | None = None  # the address to ask for
    lease: Lease | None = None  # in force
    since: float = 0.0  # what the lease in force counts from
    trouble: str = ""  # why there is no lease yet
    asked: Address | None = None  # of which the LAN is or was asked who has it
    verdict: Verdict | None = None  # what it has said so far
    holder: str = ""  # whose MAC that has it


@dataclass(frozen=True, slots=True)
class Now:
    """An instant by both clocks, in seconds."""

    boot: float
    real: float


@dataclass(frozen=True, slots=True)
class Woken:
    """The time that the client wanted has come."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message for this client, from a MAC."""

    message: Message
    mac: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Who holds the address that was to be checked; None: nobody, or, before that is `final`, nobody yet."""

    address: Address
    holder: str | None
    final: bool = True


@dataclass(frozen=True, slots=True)
class Changed:
    """The client is to say something else of itself."""

    request: LeaseRequest


@dataclass(frozen=True, slots=True)
class Send:
    """Send this."""

    datagram: Datagram


@dataclass(frozen=True, slots=True)
class Probe:
    """Find out whether somebody holds the address."""

    address: Address


@dataclass(frozen=True, slots=True)
class Bound:
    """This lease is in force from now on, or was prolonged."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Gone:
    """This lease is over."""

    lease: Lease
    reason: str


Event: TypeAlias = Woken | Heard | Checked | Changed
Action: TypeAlias = Send | Probe | Bound | Gone
Step: TypeAlias = tuple[Client, tuple[Action, ...]]


def farewell(client: Client, chance: Random) -> Datagram | None:
    """What a client says when it goes; None where it has nothing to give back."""
    return None if client.lease is None else _speech(client).release(client.lease, chance.getrandbits(_XID))


def begin(request: LeaseRequest) -> Client:
    """A client that has nothing yet."""
    return Client(request, hint=request.wanted)


def resume(lease: Lease, now: Now) -> Client:
    """A client that goes on with a lease from an earlier process.

    Where its time may be over, or real time says that the lease is from the future, the server is asked at once.
    """
    passed = now.real - lease.acquired
    client = Client(lease.request, Stage.BOUND, lease=lease, since=now.boot - max(passed, 0.0), hint=lease.address.ip)
    if 0 <= passed < _ends(lease):
        return replace(client, wake=_t1(client))
    return replace(client, stage=Stage.REBOOTING, wake=now.boot, began=now.boot)


def step(client: Client, event: Event, now: Now, chance: Random) -> Step:
    """What becomes of a client by an event, and what is to be done for it."""
    match event:
        case Woken():
            return _WOKEN[client.stage](client, now, chance)
        case Heard(message, mac):
            return _heard(client, message, mac, now, chance)
        case Checked():
            return _checked(client, event, now, chance)
        case Changed(request):
            lease = None if client.lease is None else replace(client.lease, request=request)
            told = replace(client, request=request, lease=lease)
            asks = client.stage in (Stage.BOUND, Stage.RENEWING, Stage.REBINDING)
            return _due(replace(told, stage=Stage.BOUND), now, chance) if asks else (told, ())


def _discover(client: Client, now: Now, chance: Random) -> Step:
    """INIT, and SELECTING without an offer."""
    if client.stage is Stage.INIT:
        client = replace(client, xid=chance.getrandbits(_XID), began=now.boot, tries=0, offer=None)
    elif client.offer is not None:
        return _choose(client, now, chance)
    pause = min(2.0**client.tries, _LONGEST_PAUSE) * chance.uniform(0.9, 1.1)
    secs = int(now.boot - client.began)
    message = _speech(client).discover(client.request, client.xid, secs, client.hint)
    client = replace(client, stage=Stage.SELECTING, tries=client.tries + 1, secs=secs, wake=now.boot + pause)
    return client, (Send(message),)


def _choose(client: Client, now: Now, chance: Random) -> Step:
    """REQUESTING: this offer, until it is confirmed or too many tries were in vain."""
    offer = client.offer
    assert offer is not None
    if client.stage is not Stage.REQUESTING:
        client = replace(client, stage=Stage.REQUESTING, tries=0, began=now.boot)
    if client.tries == _TRIES:
        return _anew(client, now.boot + chance.random())
    trouble = f"the DHCP server {offer.server_name} offered {offer.yiaddr} on {client.request.dev}"
    wake = now.boot + 2.0**client.tries * chance.uniform(0.9, 1.1)
    client = replace(client, tries=client.tries + 1, wake=wake, trouble=f"{trouble}, but never confirmed it")
    client, probes = _probe(client, offer.yiaddr)  # the LAN is asked while the server makes up its mind
    return client, (Send(_speech(client).choose(client.request, offer, client.secs)), *probes)


def _reboot(client: Client, now: Now, chance: Random) -> Step:
    """REBOOTING: is the lease of before still ours? Without an answer it is as long as its time lasts."""
    lease = client.lease
    assert lease is not None
    if client.tries == 0:
        client = replace(client, xid=chance.getrandbits(_XID), began=now.boot)
    if client.tries == _TRIES:
        if now.boot < client.since + _ends(lease):
            return _due(client, now, chance)
        return _lose(client, "its time was over after a restart, and no DHCP server answered", now.boot)
    wake = now.boot + 2.0**client.tries * chance.uniform(0.9, 1.1)
    secs = int(now.boot - client.began)
    client = replace(client, tries=client.tries + 1, wake=wake)
    return client, (Send(_speech(client).confirm(lease, client.xid, secs, everybody=True)),)


def _due(client: Client, now: Now, chance: Random) -> Step:
    """BOUND, RENEWING, REBINDING: what the time that has passed asks for."""
    lease = client.lease
    assert lease is not None
    t2, end = client.since + (lease.t2 or lease.lifetime * 0.875), client.since + _ends(lease)
    if now.boot >= end:
        reason = f"it ended after {lease.lifetime} s: no DHCP server on {client.request.dev} prolonged it"
        return _lose(client, reason, now.boot)
    stage, limit = (Stage.RENEWING, t2) if now.boot < t2 else (Stage.REBINDING, end)
    if client.stage is not stage:
        client = replace(client, stage=stage, xid=chance.getrandbits(_XID), began=now.boot)
    pause = max((limit - now.boot) / 2, min(_SHORTEST_REPEAT, lease.lifetime / 16))
    client = replace(client, wake=min(now.boot + pause, limit))
    secs = int(now.boot - client.began)
    return client, (Send(_speech(client).confirm(lease, client.xid, secs, everybody=stage is Stage.REBINDING)),)


def _idle(client: Client, now: Now, chance: Random) -> Step:
    """CHECKING: the check itself will come back."""
    return replace(client, wake=inf), ()


_WOKEN: dict[Stage, Callable[[Client, Now, Random], Step]] = {
    Stage.INIT: _discover,
    Stage.SELECTING: _discover,
    Stage.REQUESTING: _choose,
    Stage.CHECKING: _idle,
    Stage.BOUND: _due,
    Stage.RENEWING: _due,
    Stage.REBINDING: _due,
    Stage.REBOOTING: _reboot,
}


def _heard(client: Client, message: Message, mac: str, now: Now, chance: Random) -> Step:
    """A reply: left alone unless it is for this client, in this state, from a server that may say it."""
    if not message.reply or (message.xid, message.mac) != (client.xid, _speech(client).place(client.request)):
        return client, ()
    if message.server_id is None or message.client not in (None, client.request.client_id):
        return client, ()
    if client.stage is Stage.SELECTING and message.kind is Kind.OFFER:
        return _offered(client, message, now, chance)
    if client.stage not in (Stage.REQUESTING, Stage.RENEWING, Stage.REBINDING, Stage.REBOOTING):
        return client, ()
    if _stranger(client, message):
        return client, ()
    if message.kind is Kind.NAK:
        return _refused(client, message, now, chance)
    return _acknowledged(client, message, mac, now, chance) if message.kind is Kind.ACK else (client, ())


def _stranger(client: Client, message: Message) -> bool:
    """Whether only one server was asked and this is another."""
    if client.stage is Stage.REQUESTING:
        return client.offer is None or message.server_id != client.offer.server_id
    if client.stage is Stage.RENEWING and client.lease is not None:
        return message.server_id != client.lease.server
    return False


def _offered(client: Client, offer: Message, now: Now, chance: Random) -> Step:
    try:
        _speech(client).lease(client.request, offer, now.real)
    except Malformed as error:
        return replace(client, trouble=f"{_who(client, offer)} made an offer that is of no use: {error}"), ()
    if client.hint in (None, offer.yiaddr):
        return _choose(replace(client, offer=offer), now, chance)
    if client.offer is not None:
        return client, ()
    return replace(client, offer=offer, wake=now.boot + _OTHER_OFFERS), ()


def _refused(client: Client, message: Message, now: Now, chance: Random) -> Step:
    """NAK: begin anew, after a pause that grows: there are servers that refuse for ever."""
    trouble = f"{_who(client, message)} refuses" + (f": {message.text}" if message.text else "")
    pause = chance.random() * min(0.2 * 2**client.setbacks, _LONGEST_PAUSE)
    client = replace(client, trouble=trouble, setbacks=client.setbacks + 1, hint=None)
    if client.lease is None:
        return _anew(client, now.boot + pause)
    return _lose(client, trouble, now.boot + pause, forget=True)


def _acknowledged(client: Client, message: Message, mac: str, now: Now, chance: Random) -> Step:
    took = now.boot - client.began
    try:
        lease = _speech(client).lease(client.request, message, now.real - took, mac)
    except Malformed as error:
        return replace(client, trouble=f"{_who(client, message)} confirmed what is of no use: {error}"), ()
    had = client.lease
    if had is not None and had.address.ip == lease.address.ip:
        return _bind(client, lease, client.began, chance)
    over: tuple[Action, ...] = ()
    if had is not None:
        over = (Gone(had, f"{_who(client, message)} gave {lease.address.ip} in its place"),)
    elif client.offer is None or lease.address.ip != client.offer.yiaddr:
        return client, ()
    client = replace(client, stage=Stage.CHECKING, lease=lease, since=client.began, wake=inf)
    client, probes = _probe(client, lease.address.ip)
    client, actions = _judge(client, now, chance)
    return client, (*over, *probes, *actions)


def _probe(client: Client, address: Address) -> Step:
    """Have the LAN asked for an address, unless it was asked for this one already."""
    if client.asked == address:
        return client, ()
    return replace(client, asked=address, verdict=None, holder=""), (Probe(address),)


def _checked(client: Client, said: Checked, now: Now, chance: Random) -> Step:
    """What the LAN says comes before or after the server's word, and again when an address is in use early."""
    if said.address != client.asked:
        return client, ()
    verdict = Verdict.HELD if said.holder is not None else Verdict.FREE if said.final else Verdict.SILENT
    client = replace(client, verdict=verdict, holder=said.holder or "")
    if client.stage is Stage.CHECKING:
        return _judge(client, now, chance)
    has = client.lease is not None and client.lease.address.ip == said.address
    if verdict is Verdict.HELD and has and client.stage in (Stage.BOUND, Stage.RENEWING, Stage.REBINDING):
        return _decline(client, now, chance, bound=True)
    return client, ()


def _judge(client: Client, now: Now, chance: Random) -> Step:
    """CHECKING: whether what is known of the address by now is enough."""
    assert client.lease is not None
    if client.verdict is Verdict.HELD:
        return _decline(client, now, chance, bound=False)
    if client.verdict is Verdict.FREE or (client.verdict is Verdict.SILENT and client.request.early):
        return _bind(client, client.lease, client.since, chance)
    return client, ()


def _decline(client: Client, now: Now, chance: Random, *, bound: bool) -> Step:
    """Tell the server that somebody else has its address, and ask for another one a little later."""
    lease = client.lease
    assert lease is not None
    trouble = f"{_speech(client).server(lease)} gave {lease.address.ip}, which {client.holder} has already"
    pause = _AFTER_CONFLICT if client.setbacks else 1.0
    client = replace(client, lease=None, hint=None, trouble=trouble, setbacks=client.setbacks + 1)
    client, _ = _anew(client, now.boot + pause)
    over: tuple[Action, ...] = (Gone(lease, trouble),) if bound else ()
    return client, (Send(_speech(client).decline(lease, chance.getrandbits(_XID))), *over)


def _bind(client: Client, lease: Lease, since: float, chance: Random) -> Step:
    client = replace(client, stage=Stage.BOUND, lease=lease, since=since, setbacks=0, tries=0, offer=None, trouble="")
    # A little early, so that those who began together do not renew together for ever.
    client = replace(client, hint=lease.address.ip, wake=since + (_t1(client) - since) * chance.uniform(0.9, 1.0))
    return client, (Bound(lease),)


def _lose(client: Client, reason: str, wake: float, *, forget: bool = False) -> Step:
    assert client.lease is not None
    gone = Gone(client.lease, reason)
    hint = None if forget else client.lease.address.ip
    client, _ = _anew(replace(client, lease=None, hint=hint, trouble=reason), wake)
    return client, (gone,)


def _anew(client: Client, wake: float) -> Step:
    return replace(client, stage=Stage.INIT, wake=wake, offer=None, tries=0, asked=None, verdict=None), ()


def _ends(lease: Lease) -> float:
    """How long a lease lasts, in seconds."""
    return inf if lease.lifetime == FOREVER else float(lease.lifetime)


def _t1(client: Client) -> float:
    lease = client.lease
    if lease is None or lease.lifetime == FOREVER:
        return inf
    return client.since + (lease.t1 or lease.lifetime / 2)


def _who(client: Client, message: Message) -> str:
    return f"the DHCP server {message.server_name} on {client.request.dev}"


def _speech(client: Client) -> Speech:
    return SPEECH[client.request.version]
