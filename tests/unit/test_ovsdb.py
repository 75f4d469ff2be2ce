"""The client of Open vSwitch's database against a peer that speaks as a stream may: in pieces, and out of turn."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from berth.errors import Refused
from berth.kernel.ovsdb import Database

ROWS: list[dict[str, Any]] = [{"rows": [{"name": "br0", "external_ids": ["map", [["who", 'Zoë } { \\ " ]']]]}]}]


class Peer:
    """Answers each request with the next of some texts, written in pieces of one size."""

    def __init__(self, piece: int) -> None:
        self.near, self._far = socket.socketpair()
        self.near.settimeout(5)
        self._piece = piece
        self.asked: list[dict[str, Any]] = []

    def answer(self, *texts: str) -> Database:
        """A conversation in which these are the answers; "" is to hang up."""
        Thread(target=self._talk, args=texts, daemon=True).start()
        return Database(self.near)

    def _talk(self, *texts: str) -> None:
        for text in texts:
            self.asked.append(json.loads(self._far.recv(1 << 20)))
            data = text.encode()
            for start in range(0, len(data), self._piece):
                self._far.sendall(data[start : start + self._piece])
        self._far.close()


@pytest.fixture(params=[1, 7, 1 << 20])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    made = Peer(request.param)
    yield made
    made.near.close()


def told(identity: int, result: Any, error: Any = None) -> str:
    return json.dumps({"id": identity, "result": result, "error": error}, ensure_ascii=False)


def test_an_answer_may_come_in_pieces(peer: Peer) -> None:
    with peer.answer(told(1, ROWS), told(2, [{"count": 1}])) as db:
        assert db.transact([{"op": "select", "table": "Bridge", "where": []}]) == ROWS
        assert db.transact([]) == [{"count": 1}]
    assert [each["params"] for each in peer.asked] == [
        ["Open_vSwitch", {"op": "select", "table": "Bridge", "where": []}],
        ["Open_vSwitch"],
    ]


def test_notices_and_late_answers_are_passed_over(peer: Peer) -> None:
    notice = json.dumps({"method": "stolen", "params": ["ovs_vswitchd"], "id": None})
    echo = json.dumps({"method": "echo", "params": [], "id": 1})
    with peer.answer(notice + echo + told(77, "late") + "\n" + told(1, ROWS)) as db:
        assert db.transact([]) == ROWS


@pytest.mark.parametrize("held", [True, False])
def test_the_switch_runs_where_its_lock_is_taken(held: bool) -> None:
    peer = Peer(1 << 20)
    with peer.answer(told(1, {"locked": not held}), told(2, {})) as db:
        assert db.switch_runs() is held
    assert [(each["method"], each["params"]) for each in peer.asked] == [
        ("lock", ["ovs_vswitchd"]),
        ("unlock", ["ovs_vswitchd"]),
    ]


def test_a_refusal_is_told(peer: Peer) -> None:
    with (
        peer.answer(told(1, None, {"error": "unknown database"})) as db,
        pytest.raises(Refused, match="unknown database"),
    ):
        db.transact([])


@pytest.mark.parametrize("said", ["", '{"id": 1, "res'], ids=["nothing", "half"])
def test_a_peer_that_hangs_up_is_told_of(said: str) -> None:
    with Peer(100).answer(said) as db, pytest.raises(Refused, match="hung up"):
        db.transact([])


def test_a_silent_peer_is_not_waited_for_for_ever() -> None:
    near, far = socket.socketpair()
    near.settimeout(0.05)
    with far, Database(near) as db, pytest.raises(Refused, match=r"did not answer `transact`: .*time"):
        db.transact([])
