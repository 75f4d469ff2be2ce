"""Every noun through the same trials: sent and read back, changed, removed, refused, and typed by hand.

The rows are in cases.py. What Berth sends and what it prints are proven to be the same by carrying out both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from typing import get_args

import pytest

from berth.errors import Taken
from berth.firewall import tables
from berth.flows import NftFlows
from berth.kernel.linux import LinuxKernel
from berth.moved import Moved, Port, TextFile
from berth.overlaid import Fdb, Neigh
from berth.ovs import OvsBridge, OvsPort
from berth.plan import Add, Change, Del, Plan, diff
from berth.rates import Shaped
from berth.sealed import WireGuardPeer
from berth.state import HOST, Addr, Foreign, NftElement, NftPass, Obj, Route, Sysctl, Zoned

from .cases import CASES, LAN_TABLE, Case
from .conftest import C1, Host, sh, type_in


def rows(cases: Iterable[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


every = rows(CASES)
changeable = rows(case for case in CASES if case.other is not None)
disputed = rows(case for case in CASES if case.squatter)


def prepare(host: Host, case: Case) -> None:
    if case.around:
        sh(case.around)
    for name in case.sandboxes:
        host.sandbox(name)
    host.send(*map(Add, case.needs))


def other(case: Case) -> Obj:
    assert case.other is not None
    return case.other


# --- the trials -----------------------------------------------------------------------------------------


@every
def test_what_is_sent_is_what_is_read_until_it_is_removed(stage: Host, case: Case) -> None:
    prepare(stage, case)
    before = stage.everything()
    stage.send(Add(case.obj))
    found = stage.read(case.obj)
    assert found == {case.obj}
    assert not diff({case.obj}, found)
    plan = diff((), found)
    if case.obj.sticky:
        assert not plan, "a setting that is no longer wanted is left alone"
        return
    assert plan == Plan((Del(case.obj),))
    stage.send(*plan.ops)
    assert stage.read(case.obj) == frozenset()
    stage.send(*plan.ops)  # what is gone already is no error
    LinuxKernel().sweep()
    assert stage.everything() == before


@changeable
def test_a_change_sent_or_typed_leaves_exactly_the_new(stage: Host, case: Case) -> None:
    prepare(stage, case)
    old, new = case.obj, other(case)
    stage.send(Add(old))
    plan = diff({new}, stage.read(old))
    assert plan == Plan((Change(old, new),))
    stage.send(*plan.ops)
    assert stage.read(new) == {new}
    type_in(Change(new, old))
    assert stage.read(old) == {old}


@disputed
def test_what_is_somebody_elses_is_refused(stage: Host, case: Case) -> None:
    prepare(stage, case)
    sh(case.squatter)
    before, found = stage.everything(), stage.read(case.obj)
    if case.refused == "diff":
        with pytest.raises(Taken) as refusal:
            diff({case.obj}, found)
        assert case.obj.key[2] in str(refusal.value)
        assert not diff((), found), "it is not ours to remove"
    with pytest.raises(Taken) as refusal:  # an attach reads nothing first
        stage.send(Add(case.obj))
    assert case.obj.key[2] in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert stage.everything() == before


@every
def test_what_is_printed_is_what_would_be_sent(stage: Host, case: Case) -> None:
    prepare(stage, case)
    if case.obj.sticky:
        type_in(Add(other(case)))
    type_in(Add(case.obj))
    assert stage.read(case.obj) == {case.obj}
    typed = stage.everything()
    type_in(Del(case.obj))
    if case.obj.sticky:
        assert stage.read(case.obj) == {case.obj}
        stage.send(Add(other(case)))
    else:
        assert stage.read(case.obj) == frozenset()
    stage.send(Add(case.obj))
    assert stage.everything() == typed


# --- the matrix is full ---------------------------------------------------------------------------------


def test_every_noun_has_its_rows() -> None:
    # In test_ovs.py, test_moved.py, lab/test_firewalls.py and vm/test_fast_path.py.
    elsewhere = {OvsBridge, OvsPort, *get_args(Moved), Port, TextFile, Zoned, NftFlows}
    nouns = set(get_args(Obj)) - {Foreign, *elsewhere}
    assert {type(case.obj) for case in CASES} == nouns
    assert {type(case.obj) for case in CASES if case.other is not None} == nouns - {Addr, NftPass}
    settings = {type(case.obj) for case in CASES if case.obj.sticky}
    unmarked = {NftPass, Shaped, Fdb, Neigh, WireGuardPeer}
    assert {type(case.obj) for case in CASES if case.squatter} == nouns - settings - unmarked
    assert len({case.name for case in CASES}) == len(CASES)


def test_both_families_and_both_places_have_their_rows() -> None:
    addresses = {(obj.ns, ":" in obj.ip) for obj in (case.obj for case in CASES) if isinstance(obj, Addr)}
    routes = {(obj.ns, ":" in obj.dst, bool(obj.via)) for obj in (case.obj for case in CASES) if isinstance(obj, Route)}
    settings = {(obj.ns, obj.name[:8]) for obj in (case.obj for case in CASES) if isinstance(obj, Sysctl)}
    places, either = (HOST, C1), (False, True)
    assert addresses == set(product(places, either))
    assert routes >= {*product((C1,), either, either), *product(places, either, (True,))}
    assert settings == set(product(places, ("net.ipv4", "net.ipv6")))


def test_every_set_and_map_has_its_rows() -> None:
    declared = set(re.findall(r"(?:set|map) (\w+) ", tables.inet().text + LAN_TABLE.text))
    assert len(declared) == 27
    assert {case.obj.set for case in CASES if isinstance(case.obj, NftElement)} == declared | {"guard"}
