"""What keeps open connections translated while somebody else empties the ruleset.

A connection's translation is in the kernel's table of connections, and outlives the rules it was made by. But it is
applied by hooks that go with the last chain of type nat and the last rule about connections. A packet that comes
before the rules are back would reach the host itself then, which answers with a reset. So the daemon keeps one such
chain with one such rule, which does nothing, in a table that is its own: the kernel spares it from others'
`flush ruleset`, and removes it when the daemon ends.
Source: nft(8), "flags owner"; net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

from berth.firewall import tables
from berth.kernel import nft
from berth.kernel.netlink import CREATE, EXCL, NETFILTER, Message, Netlink, nest
from berth.kernel.netlink import text as text_attr

TABLE = ("inet", "berth_steady")
_CHAIN = "prerouting"
_NEWTABLE, _NEWCHAIN, _NEWRULE = (nft.SUBSYSTEM << 8 | kind for kind in (0, 3, 6))
_TABLE_FLAGS, _OWNER = 2, 2  # NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER (Linux 5.12)
_NAME, _HOOK, _TYPE = 3, 4, 7  # NFTA_CHAIN_*
_RULE_CHAIN, _EXPRESSIONS = 2, 4  # NFTA_RULE_*
_CT_REGISTER, _CT_KEY, _CT_STATE = 1, 2, 0  # NFTA_CT_DREG, NFTA_CT_KEY, NFT_CT_STATE
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_PREROUTING, _DSTNAT = 0, -100


class Steady:
    """Holds translation as long as it is open, from when there is any of Berth's."""

    def __init__(self) -> None:
        self._owner: Netlink | None = None

    def hold(self) -> None:
        """Begin, if Berth translates. That it cannot be done is no error: what is open may then be reset by a flush."""
        if self._owner is not None or not _translates():
            return
        owner = Netlink(NETFILTER)
        head = nft.generation(TABLE[0]) + text_attr(1, TABLE[1])
        hook = nest(_HOOK, nft.be32(_HOOK_NUMBER, _PREROUTING) + nft.be32(_HOOK_PRIORITY, _DSTNAT))
        nothing = nest(_EXPRESSIONS, nft.expression("ct", nft.be32(_CT_REGISTER, 1) + nft.be32(_CT_KEY, _CT_STATE)))
        requests = [
            Message(_NEWTABLE, CREATE | EXCL, head + nft.be32(_TABLE_FLAGS, _OWNER)),
            Message(_NEWCHAIN, CREATE | EXCL, head + text_attr(_NAME, _CHAIN) + hook + text_attr(_TYPE, "nat")),
            Message(_NEWRULE, CREATE, head + text_attr(_RULE_CHAIN, _CHAIN) + nothing),
        ]
        try:
            refused = nft.transaction(requests, owner)
        except BaseException:
            owner.close()
            raise
        if refused:
            owner.close()
        else:
            self._owner = owner

    def let_go(self) -> None:
        """End it, if Berth translates no more: the last network is gone."""
        if self._owner is not None and not _translates():
            self.close()

    def close(self) -> None:
        """End it; the kernel removes the table."""
        if self._owner is not None:
            self._owner.close()
            self._owner = None


def _translates() -> bool:
    return (tables.FAMILY, tables.TABLE) in nft.tables(Netlink.kept(NETFILTER))
