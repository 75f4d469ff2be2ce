"""`berth install`: which files it writes and removes, and whose it leaves alone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from berth.cli.main import main

UNITS = [f"etc/systemd/system/{name}" for name in ("berth-proxy.service", "berth.service", "berth.socket")]
SPEC = "etc/docker/plugins/berth.spec"
LEASED = "etc/docker/plugins/berth-dhcp.spec"
FILES = {"systemd": UNITS, "docker": sorted([*UNITS, SPEC, LEASED])}
Install = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BERTH_RUN", raising=False)
    return tmp_path / "root"


@pytest.fixture
def install(root: Path, capsys: pytest.CaptureFixture[str]) -> Install:
    def run(*words: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(["install", *words, "--root", str(root)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def unit(path: Path) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)  # of a key that is there twice, the last one counts
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


@pytest.mark.parametrize("what", sorted(FILES))
def test_what_it_writes(root: Path, install: Install, what: str) -> None:
    code, out, err = install(what)
    assert (code, err) == (0, "") and files(root) == FILES[what]
    assert sorted(out.splitlines()) == [f"wrote {root}/{path}" for path in FILES[what]]
    for path in FILES[what]:
        assert stat.S_IMODE((root / path).stat().st_mode) == 0o644


def test_the_units(root: Path, install: Install) -> None:
    install("systemd")
    proxy, service, socket = (unit(root / path) for path in UNITS)
    listens = [line for line in (root / UNITS[2]).read_text().splitlines() if line.startswith("ListenStream=")]
    assert listens == ["ListenStream=/run/berth/berth.sock", "ListenStream=/run/berth/berth-dhcp.sock"]
    assert socket["Socket"]["SocketMode"] == "0600" and socket["Install"]["WantedBy"] == "sockets.target"
    program, command = service["Service"]["ExecStart"].split()
    assert program.startswith("/") and program.endswith("/berth") and os.access(program, os.X_OK)
    assert command == "daemon"
    assert service["Service"]["Type"] == "notify"
    assert service["Unit"]["Requires"] == "berth.socket"
    assert {"Unit", "Service", "Install"} == set(service.sections()) == set(proxy.sections())
    assert proxy["Service"]["ExecStart"] == f"{program} proxy" and proxy["Service"]["RestartSec"] == "100ms"
    assert service["Unit"]["Wants"] == "berth-proxy.service"


def test_the_plugin_file(root: Path, install: Install) -> None:
    install("docker")
    assert (root / SPEC).read_text() == "unix:///run/berth/berth.sock\n"
    assert (root / LEASED).read_text() == "unix:///run/berth/berth-dhcp.sock\n"


def test_another_place_for_the_socket(root: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_RUN", "/run/other")
    install("docker")
    assert unit(root / UNITS[2])["Socket"]["ListenStream"] == "/run/other/berth-dhcp.sock"
    assert (root / SPEC).read_text() == "unix:///run/other/berth.sock\n"
    assert install("docker", "--remove")[0] == 0 and files(root) == []


def test_twice_is_as_good_as_once(root: Path, install: Install) -> None:
    install("docker")
    before = {path: (root / path).read_text() for path in files(root)}
    code, out, _ = install("docker")
    assert code == 0 and "there already" in out
    assert {path: (root / path).read_text() for path in files(root)} == before


def test_an_older_one_of_berths_is_replaced(root: Path, install: Install) -> None:
    install("systemd")
    path = root / UNITS[1]
    new = path.read_text()
    path.write_text(new.replace("daemon", "old"))
    code, out, _ = install("systemd")
    assert (code, out) == (0, f"wrote {path}\n") and path.read_text() == new


def test_json(root: Path, install: Install) -> None:
    assert sorted(json.loads(install("docker", "--json")[1])) == [f"{root}/{path}" for path in FILES["docker"]]
    assert json.loads(install("docker", "--json")[1]) == []
    removed = json.loads(install("docker", "--remove", "--json")[1])
    assert sorted(removed) == [f"{root}/{path}" for path in FILES["docker"]]


def test_it_removes_its_files_and_no_others(root: Path, install: Install) -> None:
    install("docker")
    mine = root / "etc/systemd/system/mine.service"
    mine.write_text("[Unit]\n")
    code, out, _ = install("docker", "--remove")
    assert code == 0 and sorted(out.splitlines()) == [f"removed {root}/{path}" for path in FILES["docker"]]
    assert files(root) == ["etc/systemd/system/mine.service"]
    assert install("docker", "--remove")[:2] == (0, "nothing to remove\n")


@pytest.mark.parametrize("theirs", [*UNITS, SPEC])
@pytest.mark.parametrize("remove", [(), ("--remove",)])
def test_somebody_elses_file_stays(root: Path, install: Install, theirs: str, remove: tuple[str, ...]) -> None:
    path = root / theirs
    path.parent.mkdir(parents=True)
    path.write_text("unix:///run/other.sock\n")
    code, _, err = install("docker", *remove)
    assert code == 2 and str(path) in err and len(err.splitlines()) == 1
    assert path.read_text() == "unix:///run/other.sock\n"


@pytest.mark.parametrize("remove", [(), ("--remove",)])
def test_a_file_that_is_no_text_stays(root: Path, install: Install, remove: tuple[str, ...]) -> None:
    path = root / SPEC
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00")
    assert install("docker", *remove)[0] == 2
    assert path.read_bytes() == b"\xff\xfe\x00"


def test_what_cannot_be_written_is_said(root: Path, install: Install) -> None:
    root.mkdir()
    (root / "etc").write_text("a file")
    code, _, err = install("systemd")
    assert code in (1, 2) and err.startswith("berth: ") and len(err.splitlines()) == 1


def test_what_it_does_not_know(install: Install) -> None:
    assert install("podman")[0] == 2
