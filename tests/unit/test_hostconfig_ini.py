"""Files of [Section] and Key=value: what is not changed keeps every byte, what is wrong is named by its line."""

from __future__ import annotations

import pytest

from berth.errors import Invalid
from berth.hostconfig.ini import Ini, Section

FILE = """\
# the file's own

# the link
[Match]
Name=eth0

[Network]
; the address
Address = 192.0.2.1/24
Address=192.0.2.2/24
X-Unknown=yes
DNS=192.0.2.53 \\
# not part of it
  192.0.2.54

[Route]
Gateway=192.0.2.9
[Route]
Gateway=192.0.2.8
"""


@pytest.mark.parametrize(
    "text",
    [FILE, FILE.removesuffix("\n"), "", "\n", "# only\n\n", "[A]\nk=v \\\n", "[A]\nk=v \\\n# c", "[A]\r\nk=v\r\n"],
)
def test_what_is_only_read_keeps_every_byte(text: str) -> None:
    assert Ini.parse("f", text, continued=True).text() == text


def test_keys_and_sections_may_be_repeated_and_lines_go_on() -> None:
    ini = Ini.parse("f", FILE, continued=True)
    assert ini.values("Network", "Address") == ["192.0.2.1/24", "192.0.2.2/24"]
    assert ini.get("Network", "DNS") == "192.0.2.53 192.0.2.54"
    assert [each.get("Gateway") for each in ini.named("Route")] == ["192.0.2.9", "192.0.2.8"]
    assert ini.get("Network", "Gateway") is None


def test_a_moved_key_takes_the_comments_above_it_along() -> None:
    ini, other = Ini.parse("f", FILE, continued=True), Ini("g")
    other.section("Network").entries += ini.section("Network").take("Address")
    assert other.text() == "[Network]\n; the address\nAddress = 192.0.2.1/24\nAddress=192.0.2.2/24\n"
    assert ini.text() == FILE.replace("; the address\nAddress = 192.0.2.1/24\nAddress=192.0.2.2/24\n", "")


def test_a_moved_section_takes_the_comments_right_above_it_along() -> None:
    ini = Ini.parse("f", FILE, continued=True)
    (match,) = ini.take("Match")
    assert match.head == ["", "# the link", "[Match]"]
    assert ini.text().startswith("# the file's own\n\n[Network]\n")


def test_a_key_that_is_set_keeps_its_place_and_one_that_is_so_already_its_form() -> None:
    ini = Ini.parse("f", FILE, continued=True)
    ini.section("Network").set("Address", "192.0.2.3/24")
    ini.section("Match").set("Name", "eth0")
    ini.section("Network").set("Bridge", "br0")
    expected = FILE.replace("Address = 192.0.2.1/24\nAddress=192.0.2.2/24", "Address=192.0.2.3/24")
    assert ini.text() == expected.replace("  192.0.2.54\n", "  192.0.2.54\nBridge=br0\n")


def test_a_new_section_is_set_off_by_one_blank_line() -> None:
    ini = Ini.parse("f", "[A]\nk=v\n")
    ini.sections.append(Section.new("B", ("k", "v")))
    assert ini.text() == "[A]\nk=v\n\n[B]\nk=v\n"
    assert Ini("g", sections=ini.take("B")).text() == "[B]\nk=v\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[A]\nnonsense\n", "f:2: `nonsense` is not Key=value: correct the file"),
        ("[A]\n\n=1\n", "f:3: `=1` is not Key=value: correct the file"),
        ("# x\nk=v\n", "f:2: `k=v` stands before the first [Section]: correct the file"),
        ("[A\nk=v\n", "f:1: `[A` is not a [Section]: correct the file"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(text: str, complaint: str) -> None:
    with pytest.raises(Invalid) as caught:
        Ini.parse("f", text)
    assert str(caught.value) == complaint
