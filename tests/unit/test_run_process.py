"""How a command's end is told."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from berth.errors import BerthError, Denied, Exhausted, Refused, Unsupported
from berth.run.channel import Trouble
from berth.run.process import FORWARDED, Signals, exec_failure, exit_code
from berth.run.runtime import failure_code, has_cgroups


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143), (11 | 128, 139)]
)
def test_exit_code(status: int, code: int) -> None:
    assert exit_code(status) == code


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOENT, 127), (errno.ENOTDIR, 127), (errno.EACCES, 126), (errno.ENOEXEC, 126), (errno.E2BIG, 126)],
)
def test_commands_that_cannot_be_run(number: int, code: int) -> None:
    assert exec_failure(OSError(number, os.strerror(number))) == code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("executable file `nosuch` not found in $PATH: No such file or directory", 127),
        (
            'runc create failed: unable to start container process: exec: "nosuch": executable file not found in $PATH',
            127,
        ),
        ('exec: "/bin/nosuch": stat /bin/nosuch: no such file or directory', 127),
        ("open executable: Permission denied", 126),
        ("open executable: Operation not permitted", 126),
        ('unable to start container process: exec: "/bin": permission denied', 126),
        ('exec: "/bin": is a directory', 126),
        ("mount `proc` to `/proc`: Operation not permitted", None),
        ("", None),
    ],
)
def test_what_runtimes_say(words: str, code: int | None) -> None:
    assert failure_code(words) == code


ROOT, USER = "         0          0 4294967295\n", "         0       1000          1\n"
V1 = (
    "30 22 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n"
)
HYBRID = V1 + "40 30 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2 = "30 22 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("runtime", "mountinfo", "uid_map", "has"),
    [
        ("crun", V1, ROOT, True),
        ("crun", V2, ROOT, True),
        ("crun", HYBRID, ROOT, False),
        ("crun", V2, USER, False),
        ("crun", "22 1 0:20 / /sys rw - sysfs sysfs rw\n", ROOT, False),
        ("runc", HYBRID, USER, True),
    ],
)
def test_whether_a_runtime_makes_control_groups(runtime: str, mountinfo: str, uid_map: str, has: bool) -> None:
    assert has_cgroups(runtime, mountinfo, uid_map) is has


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, Denied),
        (errno.ENOSPC, Exhausted),
        (errno.EINVAL, Unsupported),
        (errno.EIO, Refused),
    ],
)
def test_what_init_fails_at_is_told_with_a_remedy(number: int, kind: type[BerthError]) -> None:
    error = Trouble("make the sandbox's namespaces", number).error()
    assert type(error) is kind
    assert str(error).startswith(f"cannot make the sandbox's namespaces: {os.strerror(number)}")


def test_signals_wait_until_they_are_taken() -> None:
    before = {number: signal.getsignal(number) for number in FORWARDED}
    with Signals() as signals:
        assert signals.take() == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert set(signals.take()) == {signal.SIGTERM, signal.SIGWINCH}
        assert signals.take() == []
    assert {number: signal.getsignal(number) for number in FORWARDED} == before


def test_nohup_keeps_its_word() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.take() == []
    finally:
        signal.signal(signal.SIGHUP, before)
