"""What `/metrics` says: in Prometheus' text form, under names by its rules, and all that is promised."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface, ip_network

from prometheus_client.parser import text_string_to_metric_families

from berth.daemon.metrics import Facts, Metrics
from berth.engine.recorded import Recorded
from berth.events import Operation
from berth.model import (
    Contact,
    Endpoint,
    Lease,
    LeaseRecord,
    LeaseRequest,
    Network,
    Pool,
    PortMapping,
    Sandbox,
    Traffic,
)

NET = Network("n", 'a "quoted"\nname', "flat", "br0", (Pool(ip_network("10.9.0.0/28")),), 1500, "")
EP = Endpoint(
    "e", "n", "back\\slash", Sandbox("/run/netns/c1", "1"), "bv1", "eth0", "02:00:00:00:00:01",
    (ip_interface("10.9.0.2/28"),), ports=(PortMapping(None, 8080, 80), PortMapping(None, 8081, 81, "udp")),
)  # fmt: skip


def lease(key: str, acquired: float, lifetime: int, trouble: str = "") -> LeaseRecord:
    request = LeaseRequest(key, "br0", "02:00:00:00:00:01", b"")
    given = Lease(request, ip_interface("10.9.0.2/28"), ip_address("10.9.0.1").packed, acquired=acquired)
    return LeaseRecord(Lease(given.request, given.address, given.server, acquired=acquired, lifetime=lifetime),
                       trouble=trouble)  # fmt: skip


LEASES = (lease("a", 1000, 600), lease("b", 900, 0xFFFFFFFF), lease("c", 2000, 60, "lost"))
FACTS = Facts(
    Recorded((NET,), (EP,), LEASES), {"bv1": Traffic(rx_bytes=7, tx_bytes=9)}, Contact(5000, 0.25, 40, 4000, 38)
)


def said(facts: Facts = FACTS) -> str:
    metrics = Metrics()
    metrics.count(Operation("attach", 0.003))
    metrics.count(Operation("attach", 0.2, "no"))
    return metrics.text(facts).decode()


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample, by its name and the values of its labels, in the order of the labels' names."""
    families = list(text_string_to_metric_families(text))
    samples = [sample for family in families for sample in family.samples]
    found = {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value for sample in samples
    }
    assert len(found) == len(samples), "no sample twice"
    return found


def test_all_that_is_promised_is_there() -> None:
    found = values(said())
    net, ep = NET.name, EP.name
    expected = {
        ("berth_operation_seconds_count", ("attach",)): 2,
        ("berth_operation_seconds_bucket", ("0.005", "attach")): 1,
        ("berth_operation_failures_total", ("attach",)): 1,
        ("berth_endpoints", (net,)): 1,
        ("berth_published_ports", (net,)): 2,
        ("berth_pool_used", (net, "10.9.0.0/28")): 1,
        ("berth_pool_size", (net, "10.9.0.0/28")): 16,
        ("berth_leases", ("br0", "ok")): 2,
        ("berth_leases", ("br0", "trouble")): 1,
        ("berth_lease_next_expiry_timestamp_seconds", ("br0",)): 1600,
        ("berth_endpoint_received_bytes_total", (ep, net)): 9,
        ("berth_endpoint_sent_bytes_total", (ep, net)): 7,
        ("berth_etcd_answered_timestamp_seconds", ()): 5000,
        ("berth_etcd_round_trip_seconds", ()): 0.25,
        ("berth_etcd_revision", ()): 40,
        ("berth_etcd_heard_timestamp_seconds", ()): 4000,
        ("berth_etcd_heard_revision", ()): 38,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_what_nobody_asked_for_or_is_not_there_is_left_out() -> None:
    text = said(Facts(Recorded()))
    assert "berth_endpoint_" not in text and "berth_etcd" not in text and "berth_endpoints" in text


def test_the_form_is_what_promtool_asks_for() -> None:
    """Every line of the exposition format; names, units and types as `promtool check metrics` has them."""
    text = said()
    assert text.endswith("\n")
    sample = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)+\})? -?[0-9.e+]+')
    for line in text.splitlines():
        assert line.startswith("# ") or sample.fullmatch(line), line
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"berth_[a-z_]+", family.name), family.name
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search(r"_(milliseconds|ms|kilobytes|kb|percent)$", family.name)
        assert family.type == "counter" or not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        if family.type == "counter":
            assert all(each.name.endswith(("_total", "_created")) for each in family.samples), family.name
