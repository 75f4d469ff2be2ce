"""This host's key: the arithmetic by the RFC's own examples, and the file that it is in."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from berth import x25519
from berth.errors import Invalid
from berth.store.keys import KeyFile

# RFC 7748 section 6.1.
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICES = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOBS = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


def coded(text: str) -> str:
    return b64encode(bytes.fromhex(text)).decode()


@pytest.mark.parametrize(("private", "public"), [(ALICE, ALICES), (BOB, BOBS)])
def test_the_public_half_is_the_rfcs(private: str, public: str) -> None:
    assert x25519.public(coded(private)) == coded(public)


@pytest.mark.parametrize("text", ["", "no key", coded(ALICE[:-2]), coded(ALICE)[:-1]])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        x25519.public(text)


def test_a_host_keeps_its_key_until_it_is_renewed(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "sub" / "berth.wireguard", 51820)
    first = keys.current()
    assert keys.current() == first == KeyFile(keys.path, 51820).current()
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert first.public not in keys.path.read_text()
    assert keys.renew().public != first.public
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in keys.path.parent.iterdir()] == ["berth.wireguard"]


def test_a_file_that_holds_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nothing")
    with pytest.raises(Invalid, match=r"key holds no key of WireGuard's: remove it"):
        KeyFile(tmp_path / "key", 51820).current()
