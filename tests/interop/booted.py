"""A Debian whose first process is a real systemd, on a lab's node, for the length of a `with` block.

What in it would reach beyond its namespaces (udev's triggers, kernel modules, settings of the whole kernel) is masked.
Its control groups are below one of its own, which goes with it.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from berth.errors import Refused
from berth.lab.session import Inside, Session
from hosts import net_tree

_APART = ("--mount", "--pid", "--uts", "--ipc")
_NULL, _PIPE = subprocess.DEVNULL, subprocess.PIPE
_MASKED = (
    "ModemManager NetworkManager NetworkManager-wait-online console-getty dhcpcd dnsmasq getty@ networking"
    " openvswitch-switch serial-getty@ systemd-journal-flush systemd-logind systemd-modules-load systemd-networkd"
    " systemd-networkd-wait-online systemd-random-seed systemd-resolved systemd-sysctl systemd-timesyncd"
    " systemd-udev-trigger systemd-udevd wpa_supplicant cloud-init cloud-init-local cloud-config cloud-final"
)
_DEVICES = "null zero full random urandom tty"

# Where systemd's control groups are: in a hierarchy of its own with cgroup v1, in the only one with v2.
_GROUPS = """
if grep -q name=systemd: /proc/self/cgroup; then kind="cgroup -o none,name=systemd"; else kind=cgroup2; fi
"""
# $1 the tree, $2 Berth, $3 the name of the control group.
_KEEPER = f"""
read pid rest </proc/self/stat
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root /mnt/groups
{_GROUPS}
mount -t $kind none /mnt/groups
mkdir "/mnt/groups/$3"
echo 0 >"/mnt/groups/$3/cgroup.procs"
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for each in {_DEVICES}; do touch "dev/$each"; mount --bind "/dev/$each" "dev/$each"; done
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir opt/berth
mount --bind "$2" opt/berth
mount -o remount,bind,ro opt/berth
ln -s /opt/berth/bin/berth usr/local/bin/berth
for each in {_MASKED}; do ln -sf /dev/null "etc/systemd/system/$each.service"; done
exec unshare --cgroup sh -ec '
    mount -t tmpfs tmpfs sys/fs/cgroup
    where=sys/fs/cgroup
    if [ "$1" != cgroup2 ]; then where=sys/fs/cgroup/systemd; mkdir $where; fi
    mount -t $1 none $where
    pivot_root . mnt
    umount --lazy /mnt
    echo "$2"
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=console
' boot "$kind" "$pid" </dev/null
"""
_CLEAR = f"""
{_GROUPS}
mount -t $kind none /mnt
for attempt in $(seq 100); do
    if find "/mnt/$1" -depth -type d -exec rmdir '{{}}' ';' 2>/dev/null; [ ! -e "/mnt/$1" ]; then exit 0; fi
    sleep 0.1  # until the last of its processes is gone
done
exit 1
"""


class Booted:
    """The Debian."""

    def __init__(self, lab: Session, node: str, berth: Path) -> None:
        """`berth`: what is to be at /opt/berth, see `vm.payload`."""
        self._lab, self._node, self._berth = lab, node, berth
        self._group = f"berth-test-{os.urandom(4).hex()}"
        self._keeper: Inside | None = None
        self._pid = ""  # systemd's, as the lab counts

    def __enter__(self) -> Self:
        apart = ["unshare", *_APART, "--fork", "--kill-child", "--propagation", "unchanged"]
        argv = [*apart, "sh", "-ec", _KEEPER, "keeper", str(net_tree()), str(self._berth), self._group]
        self._keeper = self._lab.popen(self._node, argv, stdin=_NULL, stdout=_PIPE, stderr=_NULL, text=True)
        assert self._keeper.stdout is not None
        self._pid = self._keeper.stdout.readline().strip()
        assert self._pid, "it has no root directory of its own"
        self.until("systemctl is-active multi-user.target", within=60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper is not None and self._keeper.stdout is not None
        if error is not None:
            error.add_note(self.run("systemctl --failed; journalctl --no-pager -n 60").stdout)
        self._keeper.kill()
        self._keeper.wait()
        self._keeper.stdout.close()
        subprocess.run(["unshare", "--mount", "sh", "-ec", _CLEAR, "clear", self._group], check=True)

    def run(self, script: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        enter = ["nsenter", f"--target={self._pid}", *_APART, "--cgroup", "--wdns=/", "--"]
        # Without what a lab's host tells Berth of where to keep things: here that is as it comes.
        argv = [*enter, "env", "-i", *_VARIABLES, "sh", "-ec", script]
        return self._lab.run(self._node, argv, timeout=timeout)

    def sh(self, script: str, timeout: float = 60) -> str:
        """What a script prints that must succeed."""
        done = self.run(script, timeout)
        if done.returncode:
            raise Refused(f"`{script}` ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def until(self, script: str, within: float = 30) -> None:
        """Run a script again and again until it succeeds."""
        end = time.monotonic() + within
        while (done := self.run(script)).returncode:
            if time.monotonic() > end:
                raise Refused(f"after {within} s, `{script}` ends with {done.returncode}: {done.stdout}{done.stderr}")
            time.sleep(0.05)


_VARIABLES = ("PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8")
