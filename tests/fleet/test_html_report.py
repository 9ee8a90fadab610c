"""The HTML page of a check in a real browser: 1,000 hosts, filtered, sorted, on a phone, and nothing of it executed."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smallq_deploy.fleet.check.html import html_text, write_html
from smallq_deploy.fleet.check.matrix import Intended, Matrix
from smallq_deploy.fleet.hosts import Host
from tests.support.fleetfacts import NOW, RELEASE, answer, fleet

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
HOSTS = 1000

pytestmark = [
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="NO BROWSER: chromium and chromedriver; `.ci/setup dev` on Debian"
    ),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    hosts, answers = fleet(HOSTS)
    arrivals = {host.name: NOW for host in hosts}
    return Matrix.of(
        answers, hosts, now=NOW, arrivals=arrivals, inventory="clusters/npu.yaml", intended=Intended(RELEASE)
    )


@pytest.fixture(scope="module")
def page(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "check.html"
    write_html(matrix, path)
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Callable[..., Any]:
    """Opens the page at a size; ``dark`` as a system that prefers it."""

    def open_at(width: int = 1440, height: int = 1000, *, dark: bool = False, path: Path = page) -> Any:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        browser.get_log("browser")
        browser.get(path.as_uri())
        return browser

    return open_at


def hosts_shown(browser: Any) -> list[str]:
    found = browser.execute_script(
        "return [...document.querySelectorAll('tbody .open')].map((item) => item.textContent)"
    )
    return [str(name) for name in found]


def count_shown(browser: Any) -> int:
    text = browser.find_element("id", "shown").text
    return int(text.split()[0])


def click(browser: Any, selector: str, at: int = 0) -> None:
    browser.execute_script("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, at)


def column(browser: Any, title: str) -> list[str]:
    """The cells of one column, of the hosts that were asked."""
    script = (
        "return [...document.querySelectorAll('tbody td')].filter((cell) => cell.dataset.title === arguments[0])"
        ".map((cell) => cell.textContent)"
    )
    return [str(text) for text in browser.execute_script(script, title)]


def sort_by(browser: Any, title: str) -> None:
    script = "[...document.querySelectorAll('thead button')].find((item) => item.textContent === arguments[0]).click()"
    browser.execute_script(script, title)


def test_size_for_a_thousand_hosts(page: Path) -> None:
    assert page.stat().st_size < 2_000_000
    assert page.read_text().count("npu0999") < 5  # the data stands in it once, beside the lists of hosts


def test_opens_without_a_complaint_and_shows_what_differs_first(opened: Callable[..., Any], matrix: Matrix) -> None:
    browser = opened()
    assert browser.get_log("browser") == []
    assert count_shown(browser) == HOSTS
    shown = hosts_shown(browser)
    odd = {row.host for row in matrix.failed} | set(matrix.faults_by_host) | set(matrix.differs_by_host)
    assert set(shown[: len(odd)]) == odd
    text = browser.find_element("tag name", "main").text
    assert all(group.names in text for group in matrix.outliers)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_rest_appears_when_it_is_scrolled_to(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    browser = opened()
    before = len(hosts_shown(browser))
    assert before < HOSTS

    def scrolled(_: Any) -> bool:
        browser.execute_script("document.getElementById('more').scrollIntoView()")
        return len(hosts_shown(browser)) == HOSTS

    WebDriverWait(browser, 60).until(scrolled)
    assert len(set(hosts_shown(browser))) == HOSTS


def test_typing_filters(opened: Callable[..., Any], matrix: Matrix) -> None:
    browser = opened()
    query = browser.find_element("id", "query")
    query.send_keys("npu02")
    assert count_shown(browser) == len(hosts_shown(browser)) == 100
    assert all(name.startswith("npu02") for name in hosts_shown(browser))
    query.send_keys(" changed")
    expected = {row.host for row in matrix.rows if row.host.startswith("npu02") and row.state == "changed"}
    assert count_shown(browser) == len(expected)
    query.clear()
    query.send_keys("no host is called so")
    assert (count_shown(browser), hosts_shown(browser)) == (0, [])
    click(browser, "#clear")
    assert count_shown(browser) == HOSTS


def test_a_column_is_filtered_by_text_and_by_value(opened: Callable[..., Any], matrix: Matrix) -> None:
    from selenium.webdriver.support.select import Select

    browser = opened()
    Select(browser.find_element("id", "column")).select_by_visible_text("in CANN")
    Select(browser.find_element("id", "value")).select_by_visible_text("8.5.0 (3)")
    expected = {row.host for row in matrix.rows if row.cann == "8.5.0"}
    assert set(hosts_shown(browser)) == expected
    assert set(column(browser, "CANN")) == {"8.5.0"}
    Select(browser.find_element("id", "value")).select_by_index(0)
    browser.find_element("id", "query").send_keys("8.5.1")
    assert count_shown(browser) == sum(row.cann == "8.5.1" for row in matrix.rows)


def test_findings_and_tiles_choose_their_hosts(opened: Callable[..., Any], matrix: Matrix) -> None:
    browser = opened()
    click(browser, ".card.differs .pick")
    assert set(hosts_shown(browser)) == set(matrix.outliers[0].hosts)
    click(browser, ".card.wrong .pick", 1)
    assert set(hosts_shown(browser)) == set(matrix.faults[1].hosts)
    click(browser, ".tile.away")
    assert set(hosts_shown(browser)) == {row.host for row in matrix.failed}
    click(browser, ".tile.all")
    assert count_shown(browser) == HOSTS


def test_a_click_on_a_header_sorts(opened: Callable[..., Any], matrix: Matrix) -> None:
    browser = opened()
    sort_by(browser, "host")
    assert hosts_shown(browser)[:3] == ["npu0001", "npu0002", "npu0003"]
    sort_by(browser, "host")
    assert hosts_shown(browser)[0] == "npu1000"
    sort_by(browser, "free")
    free = [float(text.split()[0]) for text in column(browser, "free")]
    assert free == sorted(free) and free[0] == min(row.free for row in matrix.asked) / 2**30
    sort_by(browser, "free")
    free = [float(text.split()[0]) for text in column(browser, "free")]
    assert free == sorted(free, reverse=True)
    sorted_by = browser.find_elements("css selector", "th[aria-sort]")
    assert [(item.text.split("\n")[0], item.get_attribute("aria-sort")) for item in sorted_by] == [
        ("free", "descending")
    ]


def test_a_host_opens_to_all_that_is_known(opened: Callable[..., Any]) -> None:
    browser = opened()
    browser.find_element("id", "query").send_keys("npu0001")
    click(browser, ".open")
    text = browser.find_element("css selector", ".details").text
    assert "openEuler 22.03 (LTS-SP4)" in text and "rack00" in text
    click(browser, ".open")
    assert browser.find_elements("css selector", ".details") == []


@pytest.mark.parametrize("width", [320, 390, 760, 1024, 1440])
def test_no_width_makes_the_page_scroll_sideways(opened: Callable[..., Any], width: int) -> None:
    browser = opened(width, 844)
    click(browser, ".open")
    click(browser, ".open", 20)
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(overflow) == 0
    browser.execute_script("document.querySelector('footer').style.width = '2000px'")
    assert browser.execute_script(overflow) > 0  # it would be noticed


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("wide", 1440, False), ("dark", 1440, True), ("phone", 390, False)]
)
def test_screenshots_show_a_page(opened: Callable[..., Any], tmp_path: Path, name: str, width: int, dark: bool) -> None:
    browser = opened(width, 1000, dark=dark)
    picture = base64.b64decode(browser.get_screenshot_as_base64())
    (tmp_path / f"{name}.png").write_bytes(picture)
    background, colours, size = colours_of(browser, picture)
    assert size == [width, 1000]
    assert colours > 40
    assert (sum(background) < 200) is dark
    assert colours_of(browser, blank(browser))[1] == 1  # an empty page would be noticed


def blank(browser: Any) -> bytes:
    browser.get("about:blank")
    return base64.b64decode(browser.get_screenshot_as_base64())


def colours_of(browser: Any, picture: bytes) -> tuple[list[int], int, list[int]]:
    """The commonest colour, how many there are, and width and height: the browser itself reads the picture."""
    script = """
        const done = arguments[1];
        const image = new Image();
        image.onload = () => {
          const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const points = context.getImageData(0, 0, image.width, image.height).data;
          const counts = new Map();
          for (let at = 0; at < points.length; at += 4) {
            const key = (points[at] << 16) | (points[at + 1] << 8) | points[at + 2];
            counts.set(key, (counts.get(key) ?? 0) + 1);
          }
          const [most] = [...counts].sort((a, b) => b[1] - a[1])[0];
          done([[most >> 16, (most >> 8) & 255, most & 255], counts.size, [image.width, image.height]]);
        };
        image.src = "data:image/png;base64," + arguments[0];
    """
    browser.get("about:blank")
    most, count, size = browser.execute_async_script(script, base64.b64encode(picture).decode())
    return most, count, size


EVIL = "</script><script>window.evil=1</script><img src=x onerror='window.evil=2'><!--<script>{{evil}}"


def test_what_a_host_says_is_shown_and_not_done(opened: Callable[..., Any], tmp_path: Path) -> None:
    hosts = [Host("a"), Host("b"), Host("c"), Host("<b>d</b>")]
    answers = [answer("a", arch=EVIL, problem={"code": EVIL, "message": EVIL}), answer("b"), answer("c")]
    path = tmp_path / "evil.html"
    write_html(Matrix.of(answers, hosts, now=NOW, inventory=EVIL), path)
    browser = opened(path=path)
    click(browser, ".open", 1)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.evil") is None
    assert browser.find_elements("css selector", "img, main b b, main script") == []
    assert EVIL in browser.find_element("css selector", ".details").text
    assert "<b>d</b>" in hosts_shown(browser)


def test_the_policy_stops_what_would_get_in_all_the_same(
    opened: Callable[..., Any], tmp_path: Path, matrix: Matrix
) -> None:
    text = html_text(matrix)
    added = tmp_path / "added.html"
    added.write_text(
        text.replace("<main>", "<script>window.evil=1</script><img src='x.png' onerror='window.evil=2'><main>")
    )
    browser = opened(path=added)
    assert browser.execute_script("return window.evil") is None
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
    changed = tmp_path / "changed.html"
    changed.write_text(text.replace('"use strict";', '"use strict"; window.evil = 3;'))
    browser = opened(path=changed)
    assert browser.execute_script("return window.evil") is None
    assert hosts_shown(browser) == []
