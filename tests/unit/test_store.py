"""The store where SQLite cannot go on: what was written in the transaction is gone, and the next one works."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from berth.errors import Refused
from berth.model import Network
from berth.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "berth.db")


def network(name: str, mtu: int = 1500) -> Network:
    return Network(f"{name:0>64}", name, "null", "", (), mtu, "", labels=(("long", "x" * 5000),))


def names(store: SqliteStore) -> list[str]:
    with store.read() as tx:
        return [net.name for net in tx.networks()]


def test_an_error_takes_everything_back(store: SqliteStore) -> None:
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.save_network(network("a"))
        raise ZeroDivisionError
    assert names(store) == []


def test_a_full_disk(store: SqliteStore) -> None:
    with store.write() as tx:
        tx.save_network(network("a"))
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(Refused, match="full"), store.write() as tx:
        tx.save_network(network("b"))
        tx.save_network(network("c"))
    assert names(store) == ["a"]
    store._db.execute(f"PRAGMA max_page_count={pages + 100}")
    with store.write(durable=True) as tx:
        tx.save_network(network("b"))
    assert names(store) == ["a", "b"]


def test_somebody_who_does_not_let_go(store: SqliteStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "berth.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout=10")
    with pytest.raises(Refused, match="locked"), store.write():
        pass
    other.execute("ROLLBACK")
    with store.write() as tx:
        tx.save_network(network("a"))
    assert names(store) == ["a"]
