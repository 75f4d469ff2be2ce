"""The page in a real browser: what it shows, how soon, at which widths, and whether everybody can use it.

Debian's Chromium runs in the namespaces of the test, where nothing but the daemon can be reached.
"""

from __future__ import annotations

import http.client
import importlib.resources
import json
import os
import re
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .conftest import Host, sh
from .running import BERTH, until

pytestmark = pytest.mark.timeout(240)

SOCKET = Path("/run/berth/berth.sock")
NETWORKS = {"lan": 8, "backend": 7, "vault": 5}  # endpoints of each
LEASED = "lan-7"  # who has its address from the router
PHONE, DESKTOP = (390, 844), (1280, 900)


def _ask(path: str, body: dict[str, Any]) -> None:
    """Twenty commands would take longer than all else."""
    connection = http.client.HTTPConnection("berth")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(SOCKET))
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    assert response.status == 200, response.read()
    connection.close()


class Ground:
    """A host with a daemon, three networks and twenty endpoints."""

    def __init__(self, state: Path) -> None:
        self.environment = {**os.environ, "BERTH_STATE": str(state), "BERTH_RUN": "/run/berth"}
        self.log = (state.parent / "log").open("wb")
        self.daemon = subprocess.Popen(
            [BERTH, "daemon"], env=self.environment, stdout=self.log, stderr=subprocess.STDOUT
        )
        self.router: subprocess.Popen[bytes] | None = None
        until(SOCKET.exists)

    def berth(self, *words: str) -> str:
        done = subprocess.run([BERTH, *words], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def furnish(self) -> None:
        sh(
            "ip link add br0 type bridge; ip netns add street; ip netns add phone\n"
            "ip link add nic0 type veth peer name away0 netns street; ip link set nic0 master br0 up\n"
            "ip addr add 192.168.7.2/24 dev br0; ip link set br0 up; ip route add default via 192.168.7.1\n"
            "ip -n street link add sw0 type bridge; ip -n street link set away0 master sw0 up\n"
            "ip -n street link add phone0 master sw0 type veth peer name wlan0 netns phone\n"
            "ip -n street link set phone0 up; ip -n street addr add 192.168.7.1/24 dev sw0\n"
            "ip -n street link set sw0 up\n"
            "ip -n phone link set wlan0 up; ip -n phone addr add 192.168.7.60/24 dev wlan0"
        )
        self.router = subprocess.Popen(
            ["nsenter", "--net=/run/netns/street", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
             "--port=0", "--interface=sw0", "--no-ping", "--user=root", "--pid-file=", "--dhcp-authoritative",
             "--dhcp-leasefile=/run/router-leases", "--dhcp-range=192.168.7.200,192.168.7.220,12h"],
            stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        for machine in ("192.168.7.1", "192.168.7.60"):
            sh(f"ping -c 1 -W 5 {machine}")
        self.berth("network", "create", "--driver", "flat", "-o", "parent=br0", "lan")
        self.berth("network", "create", "--subnet", "10.50.0.0/24", "--subnet", "fd50::/64", "backend")
        self.berth("network", "create", "--subnet", "10.60.0.0/24", "--internal", "vault")
        for net, count in NETWORKS.items():
            for number in range(count):
                sh(f"ip netns add {net}-{number}")
                ports = [f"80{number:02}:80"] if net == "backend" and number < 3 else []
                asked = {"network": net, "sandbox": f"{net}-{number}", "name": f"{net}-{number}", "ports": ports}
                _ask("/v1/endpoints", asked | ({"options": ["addresses=dhcp"]} if f"{net}-{number}" == LEASED else {}))

    def end(self) -> int:
        self.daemon.terminate()
        try:
            return self.daemon.wait(15)
        finally:
            for process in filter(None, (self.daemon, self.router)):
                process.kill()
                process.wait()
            self.log.close()


@pytest.fixture
def ground(host: Host, tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path / "state")
    try:
        ground.furnish()
        yield ground
    finally:
        ground.end()


@pytest.fixture
def browser(ground: Ground, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    for command in ("chromium", "chromedriver"):
        if shutil.which(command) is None:
            pytest.skip(f"needs {command}: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path}/profile")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def sized(browser: webdriver.Chrome, size: tuple[int, int], scheme: str = "light") -> None:
    """A viewport of that size, whatever frame a window has."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)


def live(browser: webdriver.Chrome) -> None:
    until(lambda: browser.find_element(By.ID, "live").text == "live")


def rows(browser: webdriver.Chrome) -> dict[str, str]:
    """What each endpoint's row says, by its name."""
    script = (
        "return [...document.querySelectorAll('#endpoints tbody tr')].map(r => [r.children[0].innerText, r.innerText])"
    )
    found: list[tuple[str, str]] = browser.execute_script(script)
    return dict(found)


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    """In one step: the page may put its parts in place anew at any time."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(element => element.innerText)", selector
    )
    return found


def serious(browser: webdriver.Chrome) -> list[Any]:
    """What axe-core finds that hinders people."""
    browser.execute_script((importlib.resources.files("axe_core_python") / "axe.min.js").read_text())
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    grave = [violation for violation in found["violations"] if violation["impact"] in ("serious", "critical")]
    return [(violation["id"], [node["html"][:200] for node in violation["nodes"]]) for violation in grave]


def soon(true: Callable[[], object]) -> float:
    """How long it takes until something is true."""
    start = time.monotonic()
    until(true)
    return time.monotonic() - start


def test_the_page(ground: Ground, browser: webdriver.Chrome) -> None:
    browser.get(ground.berth("web"))
    live(browser)
    assert browser.current_url.endswith("/"), "the token does not stay in the address"
    _shows_all(ground, browser)
    for size in (DESKTOP, PHONE):
        for scheme in ("light", "dark"):
            sized(browser, size, scheme)
            assert serious(browser) == [], (size, scheme)
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= size[0], "the page is to scroll in one direction only"
            _keep(browser, f"page-{'phone' if size == PHONE else 'desktop'}-{scheme}.png")
    _follows(ground, browser)
    _keyboard(browser)
    _doctor(ground, browser)
    assert not browser.find_elements(By.TAG_NAME, "form")
    said = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry["message"] for entry in said] == []


def _shows_all(ground: Ground, browser: webdriver.Chrome) -> None:
    shown = rows(browser)
    assert sorted(shown) == sorted(f"{net}-{n}" for net, count in NETWORKS.items() for n in range(count))
    assert "10.50.0.2" in shown["backend-0"] and "fd50::2" in shown["backend-0"]
    assert sorted(texts(browser, ".net h3")) == sorted(NETWORKS)
    assert "8001→80/tcp" in browser.find_element(By.ID, "ports").text
    (leased,) = (" ".join(row.split()) for row in texts(browser, "#leases tbody tr"))
    assert re.fullmatch(r"192\.168\.7\.2[012]\d lan-7 br0 192\.168\.7\.1 11 h 5\d min ok", leased), leased
    pictured = browser.find_element(By.ID, "map").get_attribute("innerHTML") or ""
    assert "192.168.7.60" in pictured, "the LAN's other machine that the kernel has met"
    _no_label_over_another(browser)


def _doctor(ground: Ground, browser: webdriver.Chrome) -> None:
    """What is wrong shows when somebody asks, with the command that mends it."""
    until(lambda: "port-nobody-listens" in (browser.find_element(By.ID, "findings").get_attribute("innerHTML") or ""))
    sh("ip link set nic0 mtu 1400")
    _look_again(browser, lambda: "mtu-mismatch" in browser.find_element(By.ID, "findings").text)
    origin = {"origin": browser.current_url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    button = "#findings .error [data-copy*=mtu]"
    browser.execute_script(f"document.querySelector('{button}').focus()")
    webdriver.ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(lambda: browser.execute_script(f"return document.querySelector('{button}')?.innerText") == "Copied")
    mend = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert mend == "ip link set dev nic0 mtu 1500"
    sh(mend)
    _look_again(browser, lambda: "mtu-mismatch" not in browser.find_element(By.ID, "findings").text)


def _look_again(browser: webdriver.Chrome, found: Callable[[], bool]) -> None:
    """By its button, as often as it takes: an examination that is under way began before."""

    def looks() -> bool:
        button = browser.find_element(By.ID, "examine")
        if button.is_enabled():
            button.send_keys(Keys.ENTER)
        return found()

    until(looks)


def _no_label_over_another(browser: webdriver.Chrome) -> None:
    """By the browser's own measure of its own fonts."""
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('#map text')].map(t => {const b = t.getBBox();"
        "return [t.textContent, b.x, b.y + 2, b.x + b.width, b.y + b.height - 2]})"
    )
    assert len(boxes) > 40
    for number, (said, left, top, right, bottom) in enumerate(boxes):
        for other, x, y, x2, y2 in boxes[:number]:
            assert not (left < x2 and x < right and top < y2 and y < bottom), (said, other)


def _follows(ground: Ground, browser: webdriver.Chrome) -> None:
    """An attach shows, in the table and on the map, and so does what the endpoint sends."""
    sh("ip netns add late")
    ground.berth("attach", "vault", "late", "--name", "late")
    took = soon(lambda: "late" in rows(browser))
    print(f"an attach shows after {took * 1000:.0f} ms")
    assert took < 5  # some tens of milliseconds on a quiet machine
    assert "late" in (browser.find_element(By.ID, "map").get_attribute("innerHTML") or "")
    sh("nsenter --net=/run/netns/late ping -c 3 -i 0.2 -s 1400 10.60.0.1")
    until(lambda: "kB" in rows(browser)["late"])
    ground.berth("detach", "vault", "late")
    until(lambda: "late" not in rows(browser))


def _keyboard(browser: webdriver.Chrome) -> None:
    """The first stop leads past the header; the filter takes words."""
    browser.execute_script("document.activeElement.blur()")
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    browser.find_element(By.ID, "filter").send_keys("vault 10.60.0.3")
    every = "[...document.querySelectorAll('#endpoints tbody tr')]"
    script = f"return {every}.filter(row => row.offsetParent).map(row => row.cells[0].innerText)"
    until(lambda: browser.execute_script(script) == ["vault-1"])


def _keep(browser: webdriver.Chrome, name: str) -> None:
    """A screenshot, where somebody wants to look at it."""
    if directory := os.environ.get("BERTH_SCREENSHOTS"):
        browser.execute_script("scrollTo(0, 0)")
        high = browser.execute_script("return document.documentElement.scrollHeight")
        wide = browser.execute_script("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": wide, "height": min(high, 3200), "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        Path(directory, name).write_bytes(b64decode(shot["data"]))


def test_the_forms(ground: Ground, browser: webdriver.Chrome) -> None:
    sh("ip netns add byhand")
    browser.get(ground.berth("web", "--write"))
    live(browser)
    sized(browser, DESKTOP)
    assert serious(browser) == []
    _fill(browser, "Create a network", name="handmade", subnets="10.77.0.0/24")
    until(lambda: "handmade" in ground.berth("network", "ls"))
    known = "return [...document.querySelectorAll('#known-networks option')].map(option => option.value)"
    until(lambda: "handmade" in browser.execute_script(known))
    _fill(browser, "Attach a sandbox", network="handmade", sandbox="byhand", name="byhand")
    until(lambda: "byhand" in rows(browser))
    _fill(browser, "Publish a port", endpoint="byhand", publish="9090:90")
    until(lambda: "9090→90/tcp" in browser.find_element(By.ID, "ports").text)
    _fill(browser, "Detach a sandbox", network="handmade", sandbox="byhand")
    until(lambda: "byhand" not in rows(browser))
    _fill(browser, "Attach a sandbox", network="none-such", sandbox="byhand")
    until(lambda: "none-such" in browser.find_element(By.ID, "said").text)
    _keep(browser, "page-write.png")


def _fill(browser: webdriver.Chrome, title: str, **fields: str) -> None:
    form = next(
        f for f in browser.find_elements(By.TAG_NAME, "form") if f.find_element(By.TAG_NAME, "h3").text == title
    )
    for name, value in fields.items():
        field = form.find_element(By.NAME, name)
        field.clear()
        field.send_keys(value)
    form.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    until(lambda: browser.find_element(By.ID, "said").text)
