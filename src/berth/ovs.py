"""The nouns of Open vSwitch, as its database has them.

Berth's bridges and ports carry its mark in `external_ids:berth`; what lacks it is somebody else's.
"""

from __future__ import annotations

from typing import ClassVar

from berth.noun import HOST, MARK, Key, Noun, at

ID = "berth"  # the key in external_ids
#: The link that takes in the frames of all ports, with the kernel's datapath: their master, as the kernel sees it.
DATAPATH = "ovs-system"
KINDS = ("tun", "openvswitch")  # of a bridge's own link: with the userspace datapath, and with the kernel's


class OvsBridge(Noun, frozen=True, tag=True):
    """A bridge of Berth's own in Open vSwitch: a plain switch without STP, its MAC pinned.

    Its internal port, a link of the host's with its name, is there once the bridge is, down: see `LinkUp`. Its MTU
    follows the smallest of its ports'.
    """

    rank: ClassVar[int] = 11
    name: str
    mac: str
    datapath: str  # "": the kernel's; "netdev": in ovs-vswitchd itself
    mark: str

    @property
    def key(self) -> Key:
        return ("ovs-bridge", HOST, self.name)

    @property
    def owner(self) -> str | None:
        return self.mark

    @property
    def holds(self) -> tuple[Key, ...]:
        return (("dev", HOST, self.name), ("ovs-ports", HOST, self.name))

    def _settings(self) -> str:
        return (
            f"set bridge {self.name} datapath_type={self.datapath or 'system'} fail_mode=standalone stp_enable=false"
            f" rstp_enable=false other_config:hwaddr={self.mac} external_ids:{ID}={self.mark.removeprefix(MARK)}"
        )

    def describe(self) -> str:
        return f"ovs-vsctl add-br {self.name} -- {self._settings()}"

    def describe_removal(self) -> str:
        return f"ovs-vsctl del-br {self.name}"

    def describe_change(self, old: Noun) -> str:
        return f"ovs-vsctl {self._settings()}"


class OvsPort(Noun, frozen=True, tag=True):
    """That a link of the host's is a port of an Open vSwitch bridge.

    It outlives the link: the database keeps it, and waits for another of that name. Nothing else has to wait for it
    (see `rank`): what is there without Open vSwitch can be put right when that does not run.
    """

    rank: ClassVar[int] = 80
    bridge: str  # "" of one that was read: the switch knows it, but has not got hold of the link
    name: str
    mark: str

    @property
    def key(self) -> Key:
        return ("ovs-port", HOST, self.name)

    @property
    def owner(self) -> str | None:
        return self.mark

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("ovs-ports", HOST, self.bridge),)

    def _add(self) -> str:
        identity = self.mark.removeprefix(MARK)
        return f"add-port {self.bridge} {self.name} -- set port {self.name} external_ids:{ID}={identity}"

    def describe(self) -> str:
        return f"ovs-vsctl {self._add()}"

    def describe_removal(self) -> str:
        return f"ovs-vsctl del-port {self.name}"

    def describe_change(self, old: Noun) -> str:
        return f"ovs-vsctl del-port {self.name} && {self.describe()}"


class TxChecksums(Noun, frozen=True, tag=True):
    """Whether a link leaves the checksums of what it sends to whoever takes it over.

    Between links of one kernel nobody ever computes them. A switch outside the kernel, as Open vSwitch's userspace
    datapath, passes such packets on as they are, and their receiver drops them.
    """

    rank: ClassVar[int] = 35
    ns: str
    dev: str
    offload: bool = False
    absent: bool = False  # read where there is no such link: one that was handed over took its setting along

    @property
    def sticky(self) -> bool:
        return True

    @property
    def key(self) -> Key:
        return ("tx-checksums", self.ns, self.dev)

    @property
    def holders(self) -> tuple[Key, ...]:
        return (("dev", self.ns, self.dev),)

    def met_by(self, there: Noun) -> bool:
        return isinstance(there, TxChecksums) and (there.absent or there.offload == self.offload)

    def describe(self) -> str:
        return f"{at(self.ns)}ethtool -K {self.dev} tx {'on' if self.offload else 'off'}"

    def describe_removal(self) -> str:
        return f"# the checksums of {self.dev} stay {'unfinished' if self.offload else 'finished'}"
