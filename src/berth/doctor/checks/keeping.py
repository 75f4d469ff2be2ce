"""What becomes of a LAN's bridge later: at a reboot, or when a network manager has its way."""

from __future__ import annotations

from collections.abc import Iterator

from berth.doctor.facts import Facts, Keeping
from berth.doctor.report import Finding, Severity


def manager_takes_nic(facts: Facts) -> Iterator[Finding]:
    """A running manager manages the bridge's port as a NIC of its own."""
    for kept in facts.keeping:
        for manager in kept.managers:
            yield Finding(
                "manager-takes-nic",
                Severity.WARNING,
                f"{manager} manages {kept.nic}, a port of {kept.bridge}, and nothing tells it of {kept.bridge}",
                f"it may take {kept.nic} out of {kept.bridge} or give it an address, and the containers lose the LAN",
                _leave_alone(manager, kept),
            )


def _leave_alone(manager: str, kept: Keeping) -> str:
    if manager == "NetworkManager":
        return f"nmcli device set {kept.nic} managed no"
    file = f"{kept.root}etc/systemd/network/05-berth-{kept.nic}.network"
    return f"printf '[Match]\\nName={kept.nic}\\n[Link]\\nUnmanaged=yes\\n' >{file} && networkctl reload"


def not_persistent(facts: Facts) -> Iterator[Finding]:
    """No configuration of the host's makes the bridge again."""
    for kept in facts.keeping:
        if kept.written:
            continue
        anew = f"berth uplink release {kept.nic} && berth uplink adopt {kept.nic} --bridge {kept.bridge}"
        by_hand = f"write {kept.bridge} with port {kept.nic} into the files that configure {kept.nic} at a boot"
        yield Finding(
            "not-persistent",
            Severity.WARNING,
            f"no file of this host's configuration names {kept.bridge}, which {kept.nic} is a port of",
            f"after a reboot there is no {kept.bridge}, and its containers have no LAN",
            anew if kept.adopted else by_hand,
            command=kept.adopted,
        )


def docker_backend_changed(facts: Facts) -> Iterator[Finding]:
    """Docker has left its rules behind in a firewall that it does not use any more."""
    for left in facts.docker[1:]:
        yield Finding(
            "docker-backend-changed",
            Severity.WARNING,
            f"Docker's rules are in {left} as well as in {facts.docker[0]}: it has changed its firewall backend",
            f"nobody keeps those in {left} up to date any more, and what they drop stays dropped",
            " && ".join(_clear(left, tool) for tool in ("iptables", "ip6tables")),
        )


def _clear(left: str, tool: str) -> str:
    """Load the rules again without Docker's: its chains, those of its bridge, and its policy."""
    tool = f"{tool}{left.removeprefix('iptables')}"
    return f"{tool}-save | sed '/docker/Id; s/^:FORWARD DROP/:FORWARD ACCEPT/' | {tool}-restore -w"
