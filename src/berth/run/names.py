"""The texts of /etc/resolv.conf and /etc/hosts in a sandbox. No input or output here.

>>> print(resolv_conf("nameserver 127.0.0.53\\nsearch lan\\n", fallback=[ip_address("192.168.2.1")]), end="")
# Made by berth for this sandbox.
search lan
nameserver 192.168.2.1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from berth.model import Address, Lease

_HEAD = "# Made by berth for this sandbox.\n"
_LOCALHOST = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_OWN_LOOPBACK = "127.0.1.1"  # Debian's address for a host's own name when it has no other


def resolv_conf(host: str, fallback: Iterable[Address]) -> str:
    """The host's resolver settings without the name servers that cannot be reached from a sandbox.

    When none is left, `fallback` takes their place.
    """
    lines = [line for line in host.splitlines() if line.strip() and not line.startswith(("#", ";"))]
    kept = [line for line in lines if (server := _nameserver(line)) is None or _reachable(server)]
    if not any(_nameserver(line) for line in kept):
        kept += [f"nameserver {address}" for address in fallback]
    return _HEAD + "".join(f"{line}\n" for line in kept)


def leased(leases: Sequence[Lease]) -> str:
    """What the DHCP server says of name servers; "" where it names none."""
    servers = dict.fromkeys(address for lease in leases for address in lease.dns)
    search = domains([lease for lease in leases if lease.dns])
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {address}" for address in servers]
    return _HEAD + "".join(f"{line}\n" for line in lines) if servers else ""


def domains(leases: Iterable[Lease]) -> list[str]:
    """Where a DHCP server says that names are to be looked for."""
    return list(dict.fromkeys(domain for lease in leases for domain in (*lease.search, lease.domain) if domain))


def own_resolver(server: str, domains: Iterable[str], host: str) -> str:
    """Settings for the resolver that the sandbox has of its own; the host's search domains after the network's.

    `ndots:0`: the name of a container may be one without a dot, and is asked for as it is before it is with a domain.
    """
    words = [line.split() for line in host.splitlines()]
    outside = next((line[1:] for line in reversed(words) if len(line) > 1 and line[0] in ("search", "domain")), [])
    search = " ".join(dict.fromkeys(filter(None, [*domains, *outside])))
    return f"{_HEAD}nameserver {server}\n" + (f"search {search}\n" if search else "") + "options ndots:0\n"


def only_local_stub(host: str) -> bool:
    """Whether the host asks nobody but a resolver of its own, so that the real name servers stand elsewhere."""
    servers = [server for line in host.splitlines() if (server := _nameserver(line)) is not None]
    return bool(servers) and not any(map(_reachable, servers))


def hosts(name: str, addresses: Sequence[Address], aliases: Sequence[str] = ()) -> str:
    """localhost, and the sandbox's own names at its addresses, or at its loopback when it has none."""
    words = " ".join(dict.fromkeys((name, *aliases)))
    own = [str(address) for address in addresses] or [_OWN_LOOPBACK]
    return _LOCALHOST + "".join(f"{address}\t{words}\n" for address in own)


def hosts_with(host: str, name: str) -> str:
    """The host's own file, with one more name for itself."""
    return f"{host.rstrip()}\n{_OWN_LOOPBACK}\t{name}\n".lstrip()


def _nameserver(line: str) -> str | None:
    words = line.split()
    return words[1] if len(words) > 1 and words[0] == "nameserver" else None


def _reachable(server: str) -> bool:
    """Whether a name server that the host uses can be one for a sandbox.

    A link-local IPv6 address (fe80::1%eth0) is meant on a link of the host's, which the sandbox does not have.
    169.254.169.254 is routed, on the other hand: it is the name server of whole clouds.
    """
    with suppress(ValueError):
        address = ip_address(server)
        scoped = address.version == 6 and address.is_link_local
        return not (scoped or address.is_loopback or address.is_unspecified)
    return False
