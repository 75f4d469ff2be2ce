"""A host in a process of its own that takes addresses until it is done or killed, and says which."""

from __future__ import annotations

import sys
from pathlib import Path

from berth.errors import Exhausted, Refused
from berth.store.gateway import Members
from berth.store.shared import SharedStore
from store.nouns import attach, detach, network


def main(directory: str, port: str, prefix: str, name: str, count: str) -> None:
    store = SharedStore(Path(directory) / f"{name}.db", Members((("127.0.0.1", int(port)),)), prefix, name)
    number = 0
    while number < int(count):
        try:
            ep = attach(store, network(), f"{name}-{number}")
        except Exhausted:
            break
        except Refused as error:
            if "too long" not in str(error):
                raise
            continue
        print(ep.name, ep.addresses[0].ip, flush=True)
        if number % 3 == 2:
            detach(store, ep.id)
            print(ep.name, "back", flush=True)
        number += 1
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
