"""A virtual machine on a lab's switch: it boots, does what it is told, restarts, and loses its power.

    with Machine(lab, payload, files) as guest:
        guest.start()
        guest.sh("ip address show eth0")
        guest.restart()

Commands go by a virtual serial port of their own, not over the network, which is what the tests change. There is no
hardware virtualisation in it: an emulated boot takes ten seconds, and works inside other virtual machines as well.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from berth.lab.session import Inside, Session

from .image import SHELL_PORT, call, image, make_disk

MAC = "02:00:00:00:02:02"

_SWITCH = "switch"  # the lab's node that is a bridge of the same name
_BOOT_WITHIN, _END_WITHIN = 120, 20  # seconds; the other cores may be busy with other tests
_PAYLOAD_SIZE = "256M"  # sparse
# Nothing of the machine's own settings counts, and no card is there but what is named.
_BARE = "-nodefaults -no-user-config -display none -machine q35 -accel tcg,thread=multi -smp 2 -m 768 -no-reboot"
_CPU = "qemu64,rdrand=on"  # the plainest starts soonest; without random numbers of its own, a boot waits for enough
# The emulator hears of a driver's requests in the very instruction that tells of them: by an eventfd it misses some
# after a restart, and a driver that waits for its answer in a loop waits for ever (seen in one restart of five).
_DRIVERS = ("virtio-blk-pci", "virtio-net-pci", "virtio-serial-pci")
_KERNEL_ARGS = "console=ttyS0 net.ifnames=0 mitigations=off panic=-1 loglevel=4 systemd.show_status=error"


class MachineError(Exception):
    """The machine did not do what was asked of it."""


class Machine:
    """A Debian with Berth and the given files on it, for the length of a `with` block."""

    def __init__(self, lab: Session, payload: Path, files: Path) -> None:
        """`payload`: what is at /opt/berth; `files`: what is put onto the disk before the first start."""
        self.lab = lab
        self.home = Path(tempfile.mkdtemp(prefix="berth-vm-", dir="/tmp"))  # a socket's path must be short
        self._payload, self._files = payload, files
        self._tap = f"vm-{os.urandom(4).hex()}"
        self._qemu: Inside | None = None
        self._line = b""
        self._socket: socket.socket | None = None
        self._boot = ""

    def __enter__(self) -> Self:
        try:
            self._make_disks()
            tap, switch = self._tap, _SWITCH
            script = f"ip tuntap add {tap} mode tap && ip link set {tap} up master {switch}"
            self.lab.run(_SWITCH, ["sh", "-ec", script], check=True)
        except BaseException:
            shutil.rmtree(self.home)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the end of the machine's console:\n{self.console()}")
        try:
            if self._qemu is not None:
                self.cut_power()
            self.lab.run(_SWITCH, ["ip", "link", "delete", self._tap])
        finally:
            shutil.rmtree(self.home)

    # --- its power ---

    def start(self) -> None:
        """Switch the machine on and wait until it has started whatever starts with it."""
        assert self._qemu is None
        self._shell_path.unlink(missing_ok=True)
        with (self.home / "qemu.log").open("ab") as log:
            self._qemu = self.lab.popen(_SWITCH, self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._connect()
        self._wait_for_boot()

    def restart(self) -> None:
        """Have the system end all it does, reset the machine and start again.

        The reset ends the emulator, and a new one starts: one that resets itself was seen to hang after it, on a busy
        machine.
        """
        assert self._qemu is not None
        self._send("systemctl reboot")
        try:
            self._qemu.wait(_BOOT_WITHIN)
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"the machine has not ended after {_BOOT_WITHIN} s") from error
        self.cut_power()
        self.start()

    def cut_power(self) -> None:
        """Stop it between two instructions: what it had not written to its disk is lost."""
        assert self._qemu is not None
        self._qemu.kill()
        self._qemu.wait(_END_WITHIN)
        self._qemu = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- commands ---

    def run(self, script: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root to its end; what it leaves in the background must not hold its outputs open."""
        self._send(script)
        word, *fields = self._receive(timeout).split(" ")
        if word == "up":
            raise MachineError(f"the machine has started again during: {script}")
        code, out, err = fields
        return subprocess.CompletedProcess(script, int(code), _text(out), _text(err))

    def sh(self, script: str, timeout: float = 60) -> str:
        """What a script prints that must succeed."""
        done = self.run(script, timeout)
        if done.returncode:
            raise MachineError(f"in the machine, `{script}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def until(self, script: str, within: float = 30) -> None:
        """Run a script again and again until it succeeds."""
        give_up = time.monotonic() + within
        while (done := self.run(script)).returncode:
            if time.monotonic() > give_up:
                raise MachineError(f"after {within} s still, `{script}` fails: {done.stdout}{done.stderr}")
            time.sleep(0.2)

    def console(self, lines: int = 40) -> str:
        """The end of what the machine has printed, and of what the emulator had to say."""
        said = [self.home / "console.log", self.home / "qemu.log"]
        return "\n".join("\n".join(_lines(path)[-lines:]) for path in said)

    # --- inside ---

    @property
    def _shell_path(self) -> Path:
        return self.home / "shell.sock"

    @property
    def _argv(self) -> list[str]:
        made = image()
        return [
            *("qemu-system-x86_64", *_BARE.split(), "-cpu", _CPU),
            *("-kernel", str(made.kernel), "-initrd", str(made.initrd), "-append", _KERNEL_ARGS),
            *("-chardev", f"file,id=console,path={self.home}/console.log,append=on", "-serial", "chardev:console"),
            *(part for driver in _DRIVERS for part in ("-global", f"{driver}.ioeventfd=off")),
            *("-drive", f"file={self.home}/disk,format=qcow2,if=virtio,cache=writeback"),
            *("-drive", f"file={self.home}/payload,format=raw,if=virtio,readonly=on"),
            *("-netdev", f"tap,id=lan,ifname={self._tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=lan,mac={MAC},romfile="),
            *("-chardev", f"socket,id=shell,path={self._shell_path},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=shell,name={SHELL_PORT}"),
        ]

    def _make_disks(self) -> None:
        backing = image().disk
        call("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, self.home / "disk")
        content = self.home / "content"
        shutil.copytree(self._payload, content, symlinks=True)
        shutil.copytree(self._files, content / "files", symlinks=True)
        make_disk(content, self.home / "payload", _PAYLOAD_SIZE)
        shutil.rmtree(content)

    def _connect(self) -> None:
        assert self._qemu is not None
        give_up = time.monotonic() + _END_WITHIN
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(self._shell_path))
                break
            except (FileNotFoundError, ConnectionRefusedError) as error:  # it does not listen yet
                if self._qemu.poll() is not None or time.monotonic() > give_up:
                    raise MachineError(f"the emulator did not start: {self.console()}") from error
                time.sleep(0.02)
        self._line = b""

    def _wait_for_boot(self) -> None:
        """Wait for the shell's first word since a start, and then for the system to have started everything."""
        give_up = time.monotonic() + _BOOT_WITHIN
        while True:
            word, *fields = self._receive(give_up - time.monotonic()).split(" ")
            if word == "up" and fields[0] != self._boot:
                break
        self._boot = fields[0]
        self.run("systemctl is-system-running --wait", _BOOT_WITHIN)  # fails if a unit did: that is for the test

    def _send(self, script: str) -> None:
        assert self._socket is not None
        self._socket.settimeout(_END_WITHIN)
        self._socket.sendall(base64.b64encode(script.encode()) + b"\n")

    def _receive(self, timeout: float) -> str:
        """The shell's next line."""
        assert self._socket is not None
        give_up = time.monotonic() + timeout
        while b"\n" not in self._line:
            self._socket.settimeout(max(give_up - time.monotonic(), 0.001))
            try:
                heard = self._socket.recv(65536)
            except TimeoutError as error:
                raise MachineError(f"nothing was heard from the machine for {timeout:.0f} s") from error
            if not heard:
                raise MachineError("the emulator has ended")
            self._line += heard
        line, _, self._line = self._line.partition(b"\n")
        return line.decode()


def _text(coded: str) -> str:
    return base64.b64decode(coded).decode(errors="replace")


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []
