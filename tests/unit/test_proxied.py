"""The files of the proxy: what they are called, what they say, and which say nothing."""

from __future__ import annotations

import pytest

from berth.errors import Invalid
from berth.proxied import Proxied, parse

SINGLE = Proxied("tcp", "::1", 8080, 8080, "172.18.0.2", 80)
RANGE = Proxied("udp", "0.0.0.0", 8000, 8999, "fd00::2", 9000)


@pytest.mark.parametrize(
    ("proxied", "name", "text"),
    [(SINGLE, "tcp.[::1].8080", "172.18.0.2 80\n"), (RANGE, "udp.0.0.0.0.8000-8999", "fd00::2 9000\n")],
)
def test_a_file_says_it_all(proxied: Proxied, name: str, text: str) -> None:
    assert (proxied.name, proxied.text) == (name, text)
    assert parse(name, text) == proxied


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes", "172.18.0.2 80\n"),
        ("sctp.[::1].8080", "172.18.0.2 80\n"),
        ("tcp.::1.8080", "172.18.0.2 80\n"),
        ("tcp.[0::1].8080", "172.18.0.2 80\n"),
        ("tcp.[127.0.0.1].8080", "172.18.0.2 80\n"),
        ("tcp.[::ffff:127.0.0.1].8080", "172.18.0.2 80\n"),
        ("tcp.[::1].0", "172.18.0.2 80\n"),
        ("tcp.[::1].08080", "172.18.0.2 80\n"),
        ("tcp.[::1].65536", "172.18.0.2 80\n"),
        ("tcp.[::1].9000-8000", "172.18.0.2 80\n"),
        ("tcp.[::1].8000-8000", "172.18.0.2 80\n"),
        ("tcp.[::1].8000-8010", "172.18.0.2 65530\n"),
        ("tcp.[::1].8080", "172.18.0.2 80"),
        ("tcp.[::1].8080", "172.18.0.2 0\n"),
        ("tcp.[::1].8080", "172.18.0.2 80\n\n"),
        ("tcp.[::1].8080", "localhost 80\n"),
        ("tcp.[::1].8080", "172.18.0.256 80\n"),
        ("tcp.[::1].8080", ""),
    ],
)
def test_a_file_that_berth_did_not_write(name: str, text: str) -> None:
    with pytest.raises(Invalid, match="is no port for the proxy"):
        parse(name, text)


def test_what_a_person_would_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERTH_RUN", raising=False)
    assert SINGLE.describe() == (
        "echo 172.18.0.2 80 >'/run/berth/proxy/tcp.[::1].8080'"
        "  # socat TCP6-LISTEN:8080,bind=[::1],fork TCP4:172.18.0.2:80"
    )
    assert RANGE.describe().endswith(
        "socat UDP4-LISTEN:8000,bind=0.0.0.0,fork UDP6:[fd00::2]:9000, and so on until 8999"
    )
    assert SINGLE.describe_removal() == "rm '/run/berth/proxy/tcp.[::1].8080'"
