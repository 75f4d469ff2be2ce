"""What is known of the hosts themselves, also of those that are gone: no lease takes it along.

node/HOST      who it is
drained/HOST   it takes no new endpoints
dead/HOST      since when it is missed, where it held addresses
format         of all that is below the prefix
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from berth import __version__, schema
from berth.errors import Unsupported
from berth.model import HostRecord, Node
from berth.store.keyspace import View

#: What hosts have to agree on, to understand what the others write.
FORMAT = "1"


def check_format(etcd: View) -> None:
    """Raise `Unsupported` where others write what this Berth does not understand; say so first where nobody has."""
    there = etcd.get("format")
    if there is None:
        etcd.put("format", FORMAT.encode())
    elif (other := there.data.decode(errors="replace")) != FORMAT:
        raise Unsupported(
            f"the records in etcd at {etcd.space.gateway.where.url} are of format {other[:20]}, and Berth {__version__}"
            f" writes format {FORMAT}: use the version that the other hosts have"
        )


def drained(host: str) -> str:
    """The key that says so."""
    return f"drained/{host}"


def save(etcd: View, host: HostRecord) -> None:
    """Remember a host."""
    etcd.put(f"node/{host.id}", schema.dump(host))


def missed(etcd: View, host: str) -> None:
    """Note that a host's lease has run out."""
    etcd.put(f"dead/{host}", datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z").encode())


def forget(etcd: View, host: str, *, alive: bool) -> None:
    """Drop all that is known of a host. That it is drained stays where it lived: it may register again."""
    for kind in ("node", "dead", "gone", "grace", *(() if alive else ("drained",))):
        if etcd.get(f"{kind}/{host}") is not None:
            etcd.delete(f"{kind}/{host}")
    for key in etcd.range("joined/"):
        if key.split("/")[2] == host:
            etcd.delete(key)


def every(etcd: View, holders: Iterable[tuple[str, str]]) -> Sequence[Node]:
    """All hosts by name. `holders`: host and endpoint of each address that is held. Raises `Away`."""
    there, known = _records(etcd, "seen/host/"), _records(etcd, "node/")
    idle = {key.partition("/")[2] for key in etcd.range("drained/")}
    dead = {key.partition("/")[2]: value.data.decode() for key, value in etcd.range("dead/").items()}
    count = Counter(host for host, _ in set(holders))
    found = []
    for ident, host in (known | there).items():
        state = "dead" if ident not in there else "drained" if ident in idle else "up"
        found.append(Node(host, state, ident in idle, dead.get(ident, ""), count[ident]))
    return sorted(found, key=lambda node: (node.host.name, node.host.id))


def _records(etcd: View, prefix: str) -> dict[str, HostRecord]:
    return {host.id: host for host in (schema.load_host(value.data) for value in etcd.range(prefix).values())}
