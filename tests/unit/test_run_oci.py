"""A container's config.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from berth.run.container import has_group
from berth.run.oci import Container, config

WEB = Container(
    command=("httpd", "-f"),
    hostname="web",
    rootfs=Path("/srv/alpine"),
    bundle=Path("/run/berth/bundles/web"),
    pid_namespace="/proc/7/ns/pid",
    network_namespace="/proc/7/ns/net",
    terminal=False,
    term="xterm",
    sysfs=True,
    cgroups=True,
    tty_group=True,
)


def mounts(container: Container) -> dict[str, Any]:
    return {mount["destination"]: mount for mount in config(container)["mounts"]}


def namespaces(container: Container) -> dict[str, str | None]:
    return {ns["type"]: ns.get("path") for ns in config(container)["linux"]["namespaces"]}


def test_is_json() -> None:
    assert json.loads(json.dumps(config(WEB)))["ociVersion"].startswith("1.0")


def test_the_process() -> None:
    process = config(WEB)["process"]
    assert process["args"] == ["httpd", "-f"]
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False
    assert {"HOME=/root", "TERM=xterm", "HOSTNAME=web"} < set(process["env"])
    assert config(replace(WEB, terminal=True))["process"]["terminal"] is True


def test_lives_in_the_sandbox() -> None:
    own = {"mount": None, "uts": None, "ipc": None, "cgroup": None}
    assert namespaces(WEB) == own | {"pid": "/proc/7/ns/pid", "network": "/proc/7/ns/net"}


def test_on_the_hosts_network() -> None:
    assert "network" not in namespaces(replace(WEB, network_namespace=None))


def test_files_of_etc_come_from_the_bundle() -> None:
    bound = {path: mount["source"] for path, mount in mounts(WEB).items() if mount["type"] == "bind"}
    assert bound == {
        "/etc/resolv.conf": "/run/berth/bundles/web/resolv.conf",
        "/etc/hosts": "/run/berth/bundles/web/hosts",
        "/etc/hostname": "/run/berth/bundles/web/hostname",
    }


def test_the_kernels_file_systems() -> None:
    kinds = {path: mount["type"] for path, mount in mounts(WEB).items() if mount["type"] != "bind"}
    assert kinds == {
        "/proc": "proc",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
        "/sys": "sysfs",
        "/sys/fs/cgroup": "cgroup",
    }
    assert all("ro" in mounts(WEB)[path]["options"] for path in ("/sys", "/sys/fs/cgroup"))


def test_without_a_sysfs_there_are_no_control_groups_to_see() -> None:
    assert not {"/sys", "/sys/fs/cgroup"} & set(mounts(replace(WEB, sysfs=False)))


def test_without_control_groups_no_device_files_are_made() -> None:
    loose = config(replace(WEB, cgroups=False))
    assert config(WEB)["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "resources" not in loose["linux"]
    assert "CAP_MKNOD" in config(WEB)["process"]["capabilities"]["bounding"]
    assert "CAP_MKNOD" not in loose["process"]["capabilities"]["bounding"]
    assert "/sys/fs/cgroup" not in mounts(replace(WEB, cgroups=False))
    assert "cgroup" not in namespaces(replace(WEB, cgroups=False))


def test_capabilities_are_dockers() -> None:
    held = config(WEB)["process"]["capabilities"]
    assert held["bounding"] == held["effective"] == held["permitted"]
    assert len(held["bounding"]) == 14
    assert not {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"} & set(held["bounding"])
    assert "inheritable" not in held
    assert "ambient" not in held


def test_what_is_the_kernels_own_is_hidden() -> None:
    linux = config(WEB)["linux"]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} < set(linux["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} < set(linux["readonlyPaths"])


def test_the_group_of_terminals() -> None:
    assert "gid=5" in mounts(WEB)["/dev/pts"]["options"]
    assert "gid=5" not in mounts(replace(WEB, tty_group=False))["/dev/pts"]["options"]


@pytest.mark.parametrize(
    ("gid_map", "has"),
    [
        ("         0          0 4294967295\n", True),
        ("         0       1000          1\n", False),
        ("         0       1000          1\n         1     100000      65536\n", True),
        ("", False),
    ],
)
def test_whether_a_group_exists_in_a_user_namespace(gid_map: str, has: bool) -> None:
    assert has_group(gid_map, 5) is has
