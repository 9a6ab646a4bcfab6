"""The documentation site builds, loads nothing from elsewhere, and fits every window."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.headless_browser import Browser, is_installed

ROOT = Path(__file__).parents[1]
# One page of each kind, and the widest tables.
PAGES = (
    "docs/index",
    "docs/start",
    "docs/draw",
    "docs/tutorial/index",
    "docs/concepts/randomness",
    "docs/reference/command-line",
    "docs/reference/networks",
    "docs/benchmarks",
    "docs/glossary",
    "docs/decisions/README",
    "CHANGELOG",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs"),
    pytest.mark.skipif(not is_installed(), reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site, built without running the tutorials."""
    folder = tmp_path_factory.mktemp("build") / "docs"
    options = ["--quiet", "--fail-on-warning", "--define", "nb_execution_mode=off"]
    command = [sys.executable, "-m", "sphinx", *options, "--conf-dir", "docs/site", ".", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_the_window_and_loads_nothing_from_elsewhere(page, width, site, browser):
    browser.open(site / f"{page}.html", width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.console == []


def test_the_frame_to_draw_in_shows_the_whole_page(site, browser):
    for width in (1200, 800, 390):
        browser.open(site / "docs" / "draw.html", width=width)
        size = browser.evaluate(
            "(({width, height}) => [width, height])"
            "(document.querySelector('iframe').getBoundingClientRect())"
        )
        browser.open(site / "draw-lenet.html", width=int(size[0]), height=400)
        assert browser.evaluate("document.documentElement.scrollHeight") <= size[1]


def test_search_finds_a_function_of_the_interface(site, browser):
    browser.open(site / "search.html")
    while not browser.evaluate("Search.hasIndex()"):
        time.sleep(0.05)
    browser.evaluate("Search.performSearch('save_checkpoint')")
    results = "document.querySelector('#search-results').innerText"
    while "matching" not in browser.evaluate(results):
        time.sleep(0.05)
    assert "mnist_accel.save_checkpoint" in browser.evaluate(results)
