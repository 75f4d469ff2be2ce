"""Rates and sizes as tc(8) has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.errors import Invalid
from berth.quantities import FASTEST, LARGEST, SLOWEST, rate, rate_text, size, size_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10mbit", 1_250_000),
        ("10Mbit", 1_250_000),
        ("1.5mbit", 187_500),
        ("8kbit", 1_000),
        ("8000", 1_000),
        ("8000bit", 1_000),
        ("1000bps", 1_000),
        ("1kbps", 1_000),
        ("1kibps", 1_024),
        ("8kibit", 1_024),
        ("1gbps", 10**9),
        ("100gbit", 12_500_000_000),
        ("0.1tbit", 12_500_000_000),
    ],
)
def test_rates(text: str, expected: int) -> None:
    assert rate(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("1b", 1), ("64kb", 65536), ("1.5K", 1536), ("256mb", LARGEST)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "mbit", "10 mbit", "10mbits", "-1mbit", "+1mbit", "1e6", "0x10", ".5mbit", "١mbit", "10mb"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(Invalid, match="is no rate: write it as 10mbit"):
        rate(text)


@pytest.mark.parametrize("text", ["0", "0mbit", "7999bit", "999bps", "101gbit", "999999999999999tbps"])
def test_rates_that_make_no_sense(text: str) -> None:
    with pytest.raises(Invalid, match="is out of range: give 8kbit to 100gbit"):
        rate(text)


@pytest.mark.parametrize("text", ["0", "0.5", "257mb"])
def test_sizes_that_make_no_sense(text: str) -> None:
    with pytest.raises(Invalid, match="is out of range"):
        size(text)


@given(st.integers(SLOWEST, FASTEST), st.integers(1, LARGEST))
def test_the_kept_form_is_read_as_the_same(speed: int, many: int) -> None:
    assert rate(rate_text(f"{speed}bps")) == rate(f"{speed}bps") == speed
    assert size(size_text(f"{many}")) == many


@given(st.text(max_size=12))
def test_any_text_is_a_rate_or_refused(text: str) -> None:
    try:
        assert SLOWEST <= rate(text) <= FASTEST
    except Invalid as error:
        assert str(error).isprintable()
