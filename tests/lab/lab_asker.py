"""Sends queries that are damaged by chance: `lab_asker.py ADDRESS COUNT`; and as many damaged streams per thousand."""

from __future__ import annotations

import random
import socket
import sys
from contextlib import suppress

GOOD = bytes.fromhex("002a01000001000000000001 03776562 00 00010001 00 0029 04d0 00000000 0000")


def damaged(dice: random.Random) -> bytes:
    raw = bytearray(GOOD)
    for _ in range(dice.randint(1, 5)):
        raw[dice.randrange(len(raw))] = dice.randrange(256)
    return bytes(raw[: dice.randint(0, len(raw))]) + dice.randbytes(dice.randint(0, 8))


def main(address: str, count: int) -> None:
    dice = random.Random(11)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect((address, 53))
        for _ in range(count):
            asker.send(damaged(dice))
    for _ in range(count // 1000):
        with suppress(OSError), socket.create_connection((address, 53), timeout=10) as stream:
            stream.sendall(dice.randbytes(2) + damaged(dice))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
