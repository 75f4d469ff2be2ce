"""The DHCP server of a lab's router, a real dnsmasq, with other words than the lab's own; and Berth's leases aged."""

from __future__ import annotations

from berth.lab.session import Session

_AGE = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for key, body in db.execute("SELECT key, body FROM lease").fetchall():
    record = json.loads(body)
    record["lease"]["acquired"] -= float(sys.argv[2])
    db.execute("UPDATE lease SET body = ? WHERE key = ?", (json.dumps(record).encode(), key))
db.commit()
"""
_DEAFEN = (
    "nft 'add table netdev deaf; add chain netdev deaf in { type filter hook ingress device lan0 priority 0; };"
    " add rule netdev deaf in udp dport 67 drop'"
)


class RouterDhcp:
    """The router's DHCP server."""

    def __init__(self, lab: Session) -> None:
        self.lab = lab
        self.own = lab.work / "router/dnsmasq.conf"
        self._deaf = False

    def says(self, *lines: str, forgets: bool = False) -> None:
        """Start it anew with these lines in place of its range."""
        kept = [line for line in self.own.read_text().splitlines() if not line.startswith("dhcp-range")]
        other = self.own.with_name("other.conf")
        other.write_text("\n".join([*kept, *lines]) + "\n")
        self._start(other, "rm -f $PWD/leases" if forgets else "true")

    def deafen(self) -> None:
        """Have it hear nobody."""
        self._sh(_DEAFEN)
        self._deaf = True

    def hear(self) -> None:
        """Have it hear again."""
        if self._deaf:
            self._sh("nft delete table netdev deaf")
            self._deaf = False

    def back(self) -> None:
        """Start the lab's own, which hears."""
        self.hear()
        self._start(self.own, "true")

    def log(self) -> str:
        """What it has said."""
        return self.own.with_name("dnsmasq.log").read_text()

    def _start(self, config: object, before: str) -> None:
        find = "pgrep -f '[r]outer/(dnsmasq|other).conf'"
        stop = f"for p in $({find}); do kill $p; while kill -0 $p; do sleep 0.05; done; done"
        self._sh(f"{{ {stop}; }} 2>/dev/null; cd {self.own.parent}; {before}")
        self._sh(f"dnsmasq --conf-file={config} --user= --group=")

    def _sh(self, script: str) -> None:
        self.lab.run("router", ["sh", "-ec", script], check=True)


def age(lab: Session, seconds: float = 2000) -> None:
    """Make all of Berth's leases as if they had been got earlier: by default it is time to renew those of an hour."""
    database = str(lab.work / "host/state/berth.db")
    lab.run("host", ["python3", "-c", _AGE, database, str(seconds)], check=True)
