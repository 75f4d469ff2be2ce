"""Fixtures: etcd, and hosts that share it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from berth.model import HostRecord
from berth.store.shared import SharedStore, Terms
from store.cluster import Cluster


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One server for all tests that do it no harm; each has a prefix of its own."""
    cluster = Cluster(tmp_path_factory.mktemp("etcd"))
    try:
        cluster.ready()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[Cluster]:
    """A server to stop and start."""
    (tmp_path / "etcd").mkdir()
    cluster = Cluster(tmp_path / "etcd")
    try:
        cluster.ready()
        yield cluster
    finally:
        cluster.close()


MakeHost = Callable[..., SharedStore]


@pytest.fixture
def prefix() -> str:
    return f"/{secrets.token_hex(4)}/"


@pytest.fixture
def host(tmp_path: Path, prefix: str) -> Iterator[MakeHost]:
    """Make a host that is registered with a cluster."""
    stores: list[SharedStore] = []

    def make(cluster: Cluster, name: str, terms: Terms = Terms(), *, registered: bool = True) -> SharedStore:  # noqa: B008
        store = SharedStore(tmp_path / f"{name}.db", cluster.where, prefix, name, terms)
        stores.append(store)
        if registered:
            assert store.register(HostRecord(name, name)) == ()
        return store

    yield make
    for store in stores:
        store.close()
