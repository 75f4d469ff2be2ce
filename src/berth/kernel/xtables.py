"""Berth's rules in the legacy iptables' chains, by its own program; see `NftPass.legacy`.

nftables does not see those tables, and the kernel takes them only as a whole. The program runs only where such a
table is there, and never on the attach path.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator

from berth.errors import Denied, Refused, Unsupported
from berth.kernel import sysctl
from berth.state import MARK, NftPass


def loaded(family: str) -> bool:
    """Whether there is a filter table of the legacy kind: to ask iptables for one would make it.

    /proc/net would be the main thread's, which may be in a sandbox.
    """
    return "filter" in (sysctl.content(f"/proc/thread-self/net/{family}_tables_names") or "").split()


def listed(family: str) -> list[list[str]]:
    """The words of each line of `iptables-legacy -S`; none where there is no table, or nobody to ask."""
    if not loaded(family):
        return []
    try:
        done = subprocess.run([tool(family), "-w", "-S"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return [shlex.split(line) for line in done.stdout.splitlines()]


def in_the_way(lines: list[list[str]]) -> str:
    """The chain that needs a rule for each bridge; "" for none. As `passes.in_the_way`."""
    docker, forward = NftPass.chains
    if ["-N", docker] in lines:
        return docker
    rules = [line[2:] for line in lines if line[:2] == ["-A", forward]]
    stops = bool(rules) and rules[-1][:1] == ["-j"] and rules[-1][1] in ("DROP", "REJECT")
    return forward if stops or ["-P", forward, "DROP"] in lines else ""


def ours(family: str, lines: list[list[str]]) -> Iterator[NftPass]:
    """Berth's rules among the lines."""
    for line in lines:
        if line[:1] == ["-A"] and line[1] in NftPass.chains and "--comment" in line:
            mark, _, rest = line[line.index("--comment") + 1].partition(MARK)
            direction, _, dev = rest.partition(" ")
            if not mark and direction in NftPass.directions and dev:
                yield NftPass(family, dev, direction, line[1], legacy=True)


def add(entry: NftPass) -> None:
    """Put a rule before all others. Raises `Refused`, `Denied` or `Unsupported`; without the table none is needed."""
    if loaded(entry.family):
        _run(entry, ["-I", entry.chain, *entry.rule()])


def delete(entry: NftPass) -> None:
    """Delete a rule, as often as it is there. Raises as `add` does."""
    for there in ours(entry.family, listed(entry.family)):
        if there == entry:
            _run(entry, ["-D", entry.chain, *entry.rule()])


def tool(family: str) -> str:
    """The program whose tables of a family those are."""
    return "iptables-legacy" if family == "ip" else "ip6tables-legacy"


def _run(entry: NftPass, words: list[str]) -> None:
    argv = ["setpriv", "--pdeathsig", "KILL", tool(entry.family), "-w", *words]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unsupported("setpriv is missing: install util-linux") from None
    if done.returncode == 127:
        raise Unsupported(f"{tool(entry.family)} is missing, whose tables are in force: install iptables")
    complaint = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    if done.returncode == 4 and "ermission" in complaint:
        raise Denied(f"may not run `{shlex.join(argv[3:])}`: run as root (CAP_NET_ADMIN)")
    if done.returncode and "No chain" not in complaint:
        raise Refused(f"`{shlex.join(argv[3:])}`: {complaint}")
