"""Metrics in Prometheus' text form: what is counted as it happens, and what is looked up when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from berth import __version__
from berth.engine.recorded import Recorded
from berth.events import Operation
from berth.model import Contact, Traffic
from berth.topology.lent import until

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TIMES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)  # seconds


@dataclass(frozen=True, slots=True)
class Facts:
    """What is there at the moment."""

    records: Recorded
    traffic: Mapping[str, Traffic] | None = None  # by link; None: not asked for
    contact: Contact | None = None  # with the store that hosts share; None: there is none


class Metrics:
    """Counts operations, and writes everything down when asked."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._times = Histogram(
            "berth_operation_seconds", "Time that verbs took.", ["verb"], buckets=_TIMES, registry=self._registry
        )
        self._failed = Counter(
            "berth_operation_failures", "Verbs that were refused or failed.", ["verb"], registry=self._registry
        )
        Info("berth_build", "Which Berth this is.", registry=self._registry).info({"version": __version__})

    def count(self, operation: Operation) -> None:
        """Count an operation."""
        self._times.labels(operation.verb).observe(operation.seconds)
        if operation.error:
            self._failed.labels(operation.verb).inc()

    def text(self, facts: Facts) -> bytes:
        """All of it, with what is there now."""
        now = CollectorRegistry()
        now.register(_Now(facts))
        return generate_latest(self._registry) + generate_latest(now)


class _Now:
    """Gauges of what is there."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._records = facts.records

    def collect(self) -> Iterator[Metric]:
        names = {net.id: net.name for net in self._records.networks}
        count = GaugeMetricFamily("berth_endpoints", "Endpoints.", labels=["network"])
        ports = GaugeMetricFamily("berth_published_ports", "Published ports.", labels=["network"])
        for identity, name in names.items():
            mine = [ep for ep in self._records.endpoints if ep.network == identity]
            count.add_metric([name], len(mine))
            ports.add_metric([name], sum(len(ep.ports) for ep in mine))
        yield from (count, ports, *self._pools(), *self._leases())
        if self._facts.contact is not None:
            yield from self._shared(self._facts.contact)
        if self._facts.traffic is not None:
            yield from self._carried(self._facts.traffic, names)

    def _pools(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("berth_pool_used", "Addresses that endpoints have.", labels=["network", "pool"])
        size = GaugeMetricFamily("berth_pool_size", "Addresses of the pool.", labels=["network", "pool"])
        for net in self._records.networks:
            held = [address.ip for ep in self._records.endpoints if ep.network == net.id for address in ep.addresses]
            for pool in net.pools:
                labels = [net.name, str(pool.subnet)]
                used.add_metric(labels, sum(ip.version == pool.subnet.version and ip in pool.subnet for ip in held))
                size.add_metric(labels, pool.span.num_addresses)
        yield from (used, size)

    def _leases(self) -> Iterator[Metric]:
        held = GaugeMetricFamily("berth_leases", "Addresses from DHCP servers.", labels=["bridge", "state"])
        ends = GaugeMetricFamily(
            "berth_lease_next_expiry_timestamp_seconds",
            "When the first of them ends unless renewed.",
            labels=["bridge"],
        )
        records = self._records.leases
        for bridge in sorted({record.lease.request.dev for record in records}):
            here = [record for record in records if record.lease.request.dev == bridge]
            troubled = sum(bool(record.trouble) for record in here)
            held.add_metric([bridge, "ok"], len(here) - troubled)
            held.add_metric([bridge, "trouble"], troubled)
            due = [end for record in here if (end := until(record.lease))]
            if due:
                ends.add_metric([bridge], min(due))
        yield from (held, ends)

    def _shared(self, contact: Contact) -> Iterator[Metric]:
        """The difference of the revisions is how far behind this host may be; those of others' locks count in it."""
        for name, about, value in (
            ("berth_etcd_answered_timestamp_seconds", "When etcd last answered this host.", contact.answered),
            ("berth_etcd_round_trip_seconds", "How long that took.", contact.took),
            ("berth_etcd_revision", "etcd's revision as of then.", contact.revision),
            ("berth_etcd_heard_timestamp_seconds", "When the watch last heard of a change.", contact.heard),
            ("berth_etcd_heard_revision", "etcd's revision as of then.", contact.heard_revision),
        ):
            yield GaugeMetricFamily(name, about, value)

    def _carried(self, traffic: Mapping[str, Traffic], names: Mapping[str, str]) -> Iterator[Metric]:
        """Seen from the container: what the host's end of its cable receives, the container has sent."""
        labels = ["network", "endpoint"]
        received = CounterMetricFamily("berth_endpoint_received_bytes", "Bytes to an endpoint.", labels=labels)
        sent = CounterMetricFamily("berth_endpoint_sent_bytes", "Bytes from an endpoint.", labels=labels)
        for ep in self._records.endpoints:
            link = traffic.get(ep.link)
            if link is not None:
                received.add_metric([names.get(ep.network, ""), ep.name], link.tx_bytes)
                sent.add_metric([names.get(ep.network, ""), ep.name], link.rx_bytes)
        yield from (received, sent)
