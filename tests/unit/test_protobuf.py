"""The protobuf wire format, against examples of its documentation."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.store.protobuf import Many, Message, field, fields


@pytest.mark.parametrize(
    ("number", "value", "encoded"),
    [(1, 150, "089601"), (2, b"testing", "120774657374696e67"), (3, b"\x08\x96\x01", "1a03089601")],
)
def test_as_documented(number: int, value: int | bytes, encoded: str) -> None:
    assert field(number, value).hex() == encoded
    assert list(fields(bytes.fromhex(encoded))) == [(number, value)]


def test_fixed_numbers_are_passed_over_and_given_as_bytes() -> None:
    message = bytes.fromhex("0d01020304") + bytes.fromhex("110102030405060708") + field(3, 7)
    assert list(fields(message)) == [(1, bytes([1, 2, 3, 4])), (2, bytes(range(1, 9))), (3, 7)]


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.integers(0, 2**64 - 1) | st.binary())))
def test_there_and_back(message: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(b"".join(field(*each) for each in message))) == message


@given(st.binary())
def test_nonsense_is_a_value_error(message: bytes) -> None:
    with suppress(ValueError):
        list(fields(message))


@pytest.mark.parametrize("message", ["08", "0a05616263", "0b", "ffffffffffffffffffff01", "0d0102"])
def test_what_is_cut_off_or_unknown_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match="protobuf"):
        list(fields(bytes.fromhex(message)))


_INNER = Message(number=(1, int), data=(2, bytes))
_OUTER = Message(text=(1, str), one=(2, _INNER), many=(3, Many(_INNER)), numbers=(4, Many(int)))


def test_a_message_by_its_fields_names() -> None:
    said = {
        "text": "Hafen ⚓",
        "one": {"number": -1, "data": b""},
        "many": [{"number": 7, "data": b"x"}],
        "numbers": [3, 0],
    }
    encoded = _OUTER.encode({**said, "one": {"number": 2**64 - 1}})  # as the wire has it
    assert _OUTER.decode(encoded) == said


def test_what_a_message_leaves_out() -> None:
    assert _OUTER.decode(b"") == {"text": "", "many": [], "numbers": []}
    assert _INNER.decode(field(9, 1) + field(8, b"newer")) == {"number": 0, "data": b""}


@pytest.mark.parametrize("message", [field(1, 7), field(2, 7), field(4, b"7"), field(1, b"\xff")])
def test_a_field_of_another_kind_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        _OUTER.decode(message)


def test_a_field_that_there_is_not_is_not_sent() -> None:
    with pytest.raises(KeyError):
        _INNER.encode({"nunber": 7})


@given(st.binary())
def test_nonsense_is_no_message(message: bytes) -> None:
    with suppress(ValueError):
        _OUTER.decode(message)
