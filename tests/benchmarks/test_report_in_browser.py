"""The page of the report in a browser: on a screen, on a phone and on paper."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.report.html import to_html
from tests.support.headless_browser import Browser, is_installed

needs_browser = pytest.mark.skipif(not is_installed(), reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def page(request, tmp_path_factory, analysis, gpu_analysis):
    path = tmp_path_factory.mktemp("page") / "report.html"
    chosen = analysis if request.param == "cpu" else gpu_analysis
    path.write_text(to_html(chosen), encoding="utf-8")
    return path


@needs_browser
def test_browser_shows_charts_and_tables_without_errors(browser, page, request):
    browser.open(page)
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    shown = browser.evaluate(
        """({
            title: document.title,
            mode: document.compatMode,
            charts: [...document.querySelectorAll("figure svg")].filter(svg =>
                svg.getBoundingClientRect().height > 100 && svg.querySelector(".mark")).length,
            pictures: document.querySelectorAll("figure svg").length,
            rows: document.querySelectorAll("#recipes tbody tr").length,
            aligned: [...document.querySelectorAll("td.number")].every(cell =>
                getComputedStyle(cell).textAlign === "right"),
        })"""
    )
    assert shown["title"] == "Benchmarks of mnist_accel"
    assert shown["mode"] == "CSS1Compat"
    devices = {"cpu": 1, "gpu": 2}[request.node.callspec.params["page"]]
    # One chart of the speeds of all recipes, three of throughput against batch size, one roofline
    # per device, three of the phases of a step, two of time to accuracy, one of time against width.
    assert shown["charts"] == shown["pictures"] == 1 + 3 + devices + 3 + 2 + 1
    assert shown["rows"] >= 3 * 6
    assert shown["aligned"]


# Returns the texts outside of their chart, which are cut off on paper or overlap other elements.
_OUTSIDE = """[...document.querySelectorAll("figure svg")].flatMap(svg => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter(text => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 12 || own.right > box.right + 12
            || own.top < box.top - 2 || own.bottom > box.bottom + 2;
    }).map(text => text.textContent);
})"""


@needs_browser
@pytest.mark.parametrize("width", [360, 390, 1200])
def test_page_fits_the_width_of_the_window(browser, page, width):
    browser.open(page, width=width)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate(_OUTSIDE) == []
    # A wider table scrolls in its own box.
    assert browser.evaluate(
        "[...document.querySelectorAll('table')].every(table => table.closest('.scroll'))"
    )


# Returns the smallest font size of the charts in pixels, and the overlapping pairs of texts.
_LETTERS = """(() => {
    const shown = [...document.querySelectorAll("figure svg")].map(svg =>
        [...svg.querySelectorAll("text")].map(text => [text, text.getBoundingClientRect()]));
    const upright = shown.map(texts => texts.filter(([text]) => !text.hasAttribute("transform")));
    const overlap = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 2 && b.top < a.bottom - 2;
    return {
        smallest: Math.min(...shown.flat().map(([text]) =>
            parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a)),
        overlapping: upright.flatMap(texts => texts.flatMap(([a, boxA], index) =>
            texts.slice(index + 1).filter(([, boxB]) => overlap(boxA, boxB))
                .map(([b]) => a.textContent + " / " + b.textContent))),
    };
})()"""


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_text_of_charts_is_readable(browser, page, width):
    browser.open(page, width=width)
    letters = browser.evaluate(_LETTERS)
    assert letters["overlapping"] == []
    assert letters["smallest"] >= 12  # pixels


@needs_browser
def test_phone_shows_the_ratio_to_the_best_baseline(browser, page):
    browser.open(page, width=390)
    right = browser.evaluate(
        """Math.max(...[...document.querySelectorAll("#recipes tr")].map(row => row.cells[1])
            .filter(cell => cell && cell.colSpan === 1)
            .map(cell => cell.getBoundingClientRect().right))"""
    )
    assert 100 < right <= 390
    assert "× best baseline" in browser.evaluate(
        "document.querySelector('#recipes thead th:nth-child(2)').textContent"
    )


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_rows_of_the_tables_of_slower_rows_have_the_same_height(browser, page, width):
    browser.open(page, width=width)
    heights = browser.evaluate(
        "[...document.querySelectorAll('#losses tbody tr')].map(row => row.offsetHeight)"
    )
    assert len(heights) > 3
    assert max(heights) - min(heights) <= 1


@needs_browser
def test_marks_of_the_roofline_do_not_overlap(browser, page):
    browser.open(page)
    distance = browser.evaluate(
        """(() => {
            const middles = [...document.querySelectorAll("#roofline figure .mark")].map(mark => {
                const box = mark.getBoundingClientRect();
                return [box.left + box.width / 2, box.top + box.height / 2];
            });
            return Math.min(...middles.flatMap((a, index) => middles.slice(index + 1)
                .map(b => Math.hypot(a[0] - b[0], a[1] - b[1]))));
        })()"""
    )
    assert distance >= 8


# Returns the lowest contrasts with the background, as defined by WCAG 2.
_CONTRASTS = """(() => {
    const luminance = color => {
        const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const paper = luminance(getComputedStyle(document.body).backgroundColor);
    const contrast = color => {
        const [low, high] = [luminance(color), paper].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const least = (query, property) => Math.min(...[...document.querySelectorAll(query)]
        .map(one => contrast(getComputedStyle(one)[property])));
    return {
        marks: least(".mark", "stroke"),
        letters: least("svg text", "fill"),
        text: least("p, li, td, th, h2, a, summary", "color"),
    };
})()"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_sufficient_in_light_and_dark(browser, page, scheme):
    browser.open(page, scheme=scheme)
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    contrasts = browser.evaluate(_CONTRASTS)
    assert contrasts["marks"] >= 3
    assert contrasts["letters"] >= 4.5
    assert contrasts["text"] >= 4.5


@needs_browser
def test_first_screen_shows_text_and_charts(browser, page):
    browser.open(page)
    picture = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    assert picture.shape == (900, 1200, 3)
    for color in ((0, 114, 178), (213, 94, 0)):  # the marks of the first two backends
        assert (np.abs(picture.astype(int) - color).max(axis=2) < 8).sum() > 100


@needs_browser
def test_printed_page_is_light_and_shows_all_rows(browser, page):
    browser.open(page, width=760, scheme="dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('details table')].every(t => t.checkVisibility())"
    )
    # Tables fit A4 paper with margins of a centimeter.
    widest = """Math.max(...[...document.querySelectorAll("table")]
        .map(table => table.getBoundingClientRect().right))"""
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=718,
        height=1000,
        deviceScaleFactor=1,
        mobile=False,
    )
    assert browser.evaluate(widest) <= 718
    assert browser.pdf().startswith(b"%PDF")
