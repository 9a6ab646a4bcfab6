"""The report says what the figures say, and its page holds up in a real browser."""

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.report import numbers, report_command
from benchmarks.report.analysis import Analysis, analyse, crossover, times_to_accuracy
from benchmarks.report.html import to_html
from benchmarks.report.markdown import BEGIN, END, readme_table, to_markdown, write_readme_table
from benchmarks.report.summary import summarise
from benchmarks.report.svg import apart, side_by_side
from benchmarks.result_files import load_results
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import Laboratory
from tests.support.headless_browser import Browser, is_installed

ROOT = Path(__file__).parents[2]
ON_GPU = ("numpy", "numba", "cupy", "torch-eager", "jax", "torch-cuda-graph")


def _analysis(folder, laboratory, change=None) -> Analysis:
    document = laboratory.document()
    if change is not None:
        change(document)
    path = folder / "results.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return analyse(load_results([path]))


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    return _analysis(tmp_path_factory.mktemp("cpu"), Laboratory())


@pytest.fixture(scope="module")
def gpu_analysis(tmp_path_factory):
    return _analysis(tmp_path_factory.mktemp("gpu"), Laboratory(contenders=ON_GPU))


class Page(HTMLParser):
    """What of a page the tests ask for: addresses, headings, and the cells of each table row."""

    def __init__(self, html):
        super().__init__()
        self.addresses, self.rows, self.tags = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        names = ("src", "href", "data", "action", "srcset", "poster", "xlink:href")
        self.addresses += [value for name, value in attributes if name in names]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_the_fastest_and_the_losses_are_named(analysis):
    summary = summarise(analysis)
    assert "faster than the best peer in all 3 recipes measured (of 7)" in summary.headline
    assert any(
        re.fullmatch(
            r"two-layer, batch 512: numba trains 8\d\d k images/s, "
            r"2\.\d+× the speed of torch-eager \([\d.]+–[\d.]+\)\.",
            sentence,
        )
        for sentence in summary.recipes
    )
    text = " ".join(summary.findings)
    assert "numpy loses to the best peer in" in text
    assert re.search(
        r"numba loses nowhere beyond noise, in \d+ rows of training, inference and operations\.",
        text,
    )
    assert "numpy has no time for training lenet, batch 4096: it failed (" in text
    assert "Absent altogether: cupy (no NVIDIA GPU; nvidia-smi finds none)" in text
    assert not summary.cautions


def test_a_draw_is_not_called_a_win(tmp_path):
    slower = {"numba": 2.05}  # as slow as torch-eager at a batch of 512
    laboratory = Laboratory(contenders=("numba", "torch-eager"), slower=slower)
    summary = summarise(_analysis(tmp_path, laboratory))
    sentence = next(text for text in summary.recipes if text.startswith("two-layer"))
    assert sentence.endswith("which noise may explain.")
    assert "not to be told apart" in summary.headline


def test_rows_that_are_slower_within_noise_are_not_hidden(tmp_path):
    def change(document):
        entries = document["benchmarks"]
        entries[:] = [one for one in entries if one["extra_info"]["level"] != "operations"]

    laboratory = Laboratory(contenders=("numba", "torch-eager"), pass_noise=0.6)
    analysis = _analysis(tmp_path, laboratory, change)
    rows = [row for row in analysis.standings.values() if not row.is_peer]
    behind = [row for row in rows if row.speed.value < 1 <= row.speed.high]
    assert len(behind) > 1
    assert not any(row.loses for row in rows)
    worst = min(behind, key=lambda row: row.speed.value)
    (sentence,) = (s for s in summarise(analysis).findings if s.startswith("numba loses nowhere"))
    assert f"in {len(rows)} rows of training and inference; undecided" in sentence
    assert f"are {len(behind)} rows where it is slower, the worst" in sentence
    assert (
        f"{worst.measurement.case.level} {worst.measurement.case.name} "
        f"({numbers.times(worst.speed.value)} the speed of torch-eager, "
        f"{numbers.interval(worst.speed)})"
    ) in sentence


def test_loops_are_for_scale_and_never_the_best_peer(tmp_path):
    """Not even where they are the fastest, or the only ones that are not of this project."""

    def change(document):
        renamed = json.dumps(document).replace('"jax"', '"loops"')
        document.clear()
        document.update(json.loads(renamed))

    fastest = {"jax": 0.001}
    laboratory = Laboratory(("numba", "torch-eager", "jax"), passes=2, rounds=3, slower=fastest)
    analysis = _analysis(tmp_path, laboratory, change)
    assert {row.peer for row in analysis.standings.values()} == {"torch-eager"}
    assert "| loops | for scale" in to_markdown(analysis)
    alone = _analysis(tmp_path, Laboratory(("numba", "jax"), passes=2, rounds=3), change)
    assert all(row.speed is None for row in alone.standings.values())
    summary = summarise(alone)
    assert "There is no peer to compare with" in summary.headline
    assert all("no peer to compare it with" in sentence for sentence in summary.recipes)


def _seconds_to_95(document, seconds_of):
    """Let trainings reach 95 % in their only epoch after these seconds; None: not at all."""
    document["mnist_accel"]["accuracy"] = [
        {
            "network": "lenet",
            "contender": contender,
            "is_peer": contender == "jax",
            "batch": 64,
            "seed": seed,
            "target": 0.95,
            "seconds": [second or 1.0],
            "accuracy": [0.5 if second is None else 0.96],
        }
        for contender, seconds in seconds_of.items()
        for seed, second in enumerate(seconds)
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (
            {"numba": (2.0, 2.1, 2.2), "jax": (3.0, 3.1, 3.2)},
            "soonest with numba: 2.10 s, 1 epochs, medians of all 3 seeds (2.00–2.20 s).",
        ),
        (
            {"numba": (2.0, 2.1, 3.3), "jax": (3.0, 3.1, 3.2)},
            "soonest with numba: 2.10 s, 1 epochs, medians of all 3 seeds (2.00–3.30 s); "
            "seeds of jax were as fast, so chance may have decided.",
        ),
        (
            {"numba": (2.0, 2.1, None), "jax": (3.0, 3.1, 3.2)},
            "soonest with jax: 3.10 s, 1 epochs, medians of all 3 seeds (3.00–3.20 s); "
            "numba needed 2.05 s, medians of the 2 of 3 seeds that did (2.00–2.10 s).",
        ),
        (
            {"numba": (2.0, None, None), "jax": (None, None, None)},
            "soonest with numba: 2.00 s, 1 epochs, medians of the 1 of 3 seeds that did "
            "(2.00–2.00 s).",
        ),
    ],
)
def test_who_is_soonest_depends_on_all_seeds(tmp_path, seconds, expected):
    laboratory = Laboratory(contenders=("numba", "jax"), passes=2, rounds=2)
    made_up = _analysis(tmp_path, laboratory, lambda document: _seconds_to_95(document, seconds))
    (sentence,) = (s for s in summarise(made_up).findings if s.startswith("lenet, batch 64, reach"))
    assert sentence == f"lenet, batch 64, reaches 95% on the validation split {expected}"


@pytest.mark.parametrize(
    ("compiled_s", "note"),
    [
        (0.0, "¹ numba found its code compiled: it lay on the disk, since an earlier run."),
        (20.5, "the trainings of this run that met it first compiled for 20.5 s."),
    ],
)
def test_what_was_compiled_before_is_not_said_to_take_no_time(tmp_path, compiled_s, note):
    def change(document):
        for entry in document["benchmarks"]:
            info = entry["extra_info"]
            if info["contender"] in ("numba", "numpy"):
                info["phases_s"]["compile"] = 0.0
            # In a row that is no recipe, and in the first pass alone: the run was interrupted.
            if (info["case"], info["contender"]) == ("lenet, batch 10", "numba"):
                info["phases_s"]["compile"] = compiled_s * (info["pass"] == 0)
            info["phases_s"]["setup"] = 0.01

    laboratory = Laboratory(("numpy", "numba", "jax"), passes=2, rounds=2)
    text = to_markdown(_analysis(tmp_path, laboratory, change))
    table = text.partition("## Before the steady state")[2].partition("## Time")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")]
    compiling = {row[1]: row[4] for row in rows}
    assert compiling["numba"] == "–¹"
    assert compiling["numpy"] == "0"
    assert compiling["jax"].endswith("ms")
    assert note in table
    assert "was measured once, when a case was prepared" in table


def test_what_several_runs_were_is_said_of_each(tmp_path):
    paths = []
    for number, profile in enumerate(("quick", "full")):
        made = Laboratory(("numba", "jax"), passes=1 + number, rounds=2, seed=number).document()
        made["mnist_accel"] |= {"profile": profile, "started": f"2026-11-2{number}T12:00:00+00:00"}
        paths.append(tmp_path / f"{profile}.json")
        paths[-1].write_text(json.dumps(made), encoding="utf-8")
    one, both = (" ".join(to_html(analyse(load_results(p))).split()) for p in (paths[:1], paths))
    assert "2026-11-20, profile quick, 1 pass</p>" in one
    assert "2026-11-20, profile quick, 1 pass · 2026-11-21, profile full, 2 passes</p>" in both
    assert "measured in the same run in shuffled order" in one
    assert "measured in 2 runs, each in shuffled order" in both


def test_the_thread_that_small_batches_take_is_told(analysis, tmp_path):
    assert "numba takes one in batches of less than 32" in to_markdown(analysis)
    laboratory = Laboratory(("numpy", "jax"), passes=1, rounds=2)
    others = _analysis(
        tmp_path, laboratory, lambda made: made["mnist_accel"]["contenders"].pop("numba")
    )
    assert "takes one in batches" not in to_markdown(others)


def test_phases_that_differ_between_passes_are_medians(analysis):
    assert "these are the medians over the passes" in to_markdown(analysis)


def test_rows_whose_passes_differ_are_named(tmp_path):
    def change(document):
        slow = [one["extra_info"] | one["stats"] for one in document["benchmarks"]]
        for entry, info in zip(document["benchmarks"], slow, strict=True):
            if (info["case"], info["contender"], info["pass"]) == ("lenet, batch 64", "jax", 2):
                entry["stats"]["data"] = [3 * second for second in info["data"]]

    laboratory = Laboratory(contenders=("numba", "jax"))
    made_up = _analysis(tmp_path, laboratory, change)
    (caution,) = summarise(made_up).cautions
    assert re.fullmatch(
        r"Passes differ by more than a factor of 2 in 1 of \d+ rows \(marked †\), "
        r"training lenet, batch 64, jax \([23]\.\d+×\)\.",
        caution,
    )
    text = to_markdown(made_up)
    assert text.count("†") == 3  # in the caution, beside its n, and in the note below the table


@pytest.mark.parametrize(
    ("loads", "said"),
    [
        ([0.4, 1.9, 1.9, 2.2, 1.8, 1.4], ()),  # the measuring itself makes a load
        ([0.6, 0.1, 0.1, 2.2, 1.8, 1.4], ("not idle when the measuring began", "0.6")),
        ([0.1, 0.1, 0.1, 3.2, 1.8, 1.4], ("The machine was busy", "3.2")),
    ],
)
def test_a_machine_with_other_work_is_said(tmp_path, loads, said):
    def change(document):
        document["mnist_accel"]["host"]["load_average"] = loads

    laboratory = Laboratory(contenders=("numba", "jax"))
    cautions = summarise(_analysis(tmp_path, laboratory, change)).cautions
    assert len(cautions) == bool(said)
    assert all(words in cautions[0] for words in said)


def test_what_makes_figures_doubtful_is_said(tmp_path):
    def change(document):
        document["mnist_accel"]["complete"] = False
        document["mnist_accel"]["host"] |= {"dirty": True, "load_average": [9.0, 1.0, 1.0]}

    laboratory = Laboratory(contenders=("numba", "jax"), passes=1)
    cautions = " ".join(summarise(_analysis(tmp_path, laboratory, change)).cautions)
    for words in ("did not come to its end", "not in the commit", "single pass", "up to 9.0"):
        assert words in cautions


def test_ratio_and_floor_follow_from_the_figures(analysis):
    row = analysis.standings["training", "two-layer, batch 512", "numba"]
    peer = analysis.standings["training", "two-layer, batch 512", row.peer].measurement
    assert row.peer == "torch-eager"
    expected = peer.call_seconds.median / row.measurement.call_seconds.median
    assert row.speed.value == pytest.approx(expected)
    assert row.speed.low < expected < row.speed.high
    images = row.measurement.images
    seconds = max(159_000 * images / 2.1e11, 784 * images / 1.6e10)
    assert row.floor == pytest.approx(seconds / row.measurement.round_seconds.median)


def test_processors_and_gpus_have_their_own_best_peers(gpu_analysis):
    standings = gpu_analysis.standings
    assert standings["training", "lenet, batch 64", "cupy"].peer == "torch-cuda-graph"
    assert standings["training", "lenet, batch 64", "numba"].peer == "torch-eager"


def test_floors_are_those_of_the_device(gpu_analysis):
    for contender, flops_per_s, bytes_per_s in (("numba", 2.1e11, 1.6e10), ("cupy", 5.1e13, 4e12)):
        row = gpu_analysis.standings["training", "lenet, batch 64", contender]
        seconds = max(row.measurement.flops / flops_per_s, row.measurement.bytes / bytes_per_s)
        assert row.floor == pytest.approx(seconds / row.measurement.round_seconds.median)


def test_floor_of_a_device_without_ceilings_is_not_known(gpu_analysis):
    results = replace(gpu_analysis.results, ceilings={"cpu": gpu_analysis.results.ceilings["cpu"]})
    standings = analyse(results).standings
    assert standings["training", "lenet, batch 64", "cupy"].floor is None
    assert standings["training", "lenet, batch 64", "numba"].floor is not None


def test_the_crossover_lies_where_the_lines_meet(gpu_analysis):
    results = gpu_analysis.results
    batches = (1, 10, 100, 1000)
    rates = {"numba": [(b, 100.0) for b in batches], "cupy": [(b, 2.0 * b) for b in batches]}
    assert crossover(results, rates) == pytest.approx(50.0)
    ahead = {"numba": [(b, 1.0) for b in batches], "cupy": rates["cupy"]}
    assert crossover(results, ahead) is None
    assert crossover(results, {"numba": rates["numba"]}) is None


def test_growth_is_that_of_the_made_up_network(analysis):
    growth = {(one.network, one.sweep, one.contender): one for one in analysis.growth}
    width = growth["two-layer", "width", "numba"]
    assert [size for size, _ in width.points] == [25, 50, 100, 200, 400]
    sizes = np.array([25, 50, 100, 200, 400])
    seconds = 40 + 1.1 * 512 * (sizes / 50) ** 0.8
    expected = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    assert width.exponent.value == pytest.approx(expected, abs=0.05)
    assert width.exponent.low < expected < width.exponent.high


def test_seeds_that_fail_count(analysis):
    times = {
        (time.network, time.contender, time.target): time
        for time in times_to_accuracy(analysis.results)
    }
    small = times["two-layer", "numba", 0.95]
    assert (len(small.seconds), small.seeds) == (4, 5)
    assert ("two-layer", "numba", 0.99) not in times  # which nobody reached
    assert np.median(times["lenet", "numba", 0.95].epochs) < np.median(
        times["lenet", "numba", 0.97].epochs
    )


def test_who_stopped_at_its_own_target_has_not_failed_at_another(tmp_path):
    def change(document):
        _seconds_to_95(document, {"numba": (2.0, 2.1), "jax": (3.0, 3.1)})
        document["mnist_accel"]["accuracy"][0]["accuracy"] = [0.98]

    made_up = _analysis(tmp_path, Laboratory(("numba", "jax"), passes=2, rounds=2), change)
    times = times_to_accuracy(made_up.results)
    assert {(time.contender, time.target, time.seeds) for time in times} == {
        ("numba", 0.95, 2),
        ("jax", 0.95, 2),
    }


def test_markdown_tables_are_whole(analysis):
    text = to_markdown(analysis)
    for heading in ("Training the recipes", "Where numpy loses", "Time to accuracy", "The machine"):
        assert f"## {heading}" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block
    assert "| failed: the gradient of W1" in text
    assert "absent: no NVIDIA GPU" in text


def test_names_cannot_break_out_of_their_place(tmp_path):
    """A reason may hold anything: in the page it is text, in Markdown one cell."""
    evil = "a | b\n<script>alert(1)</script> </svg> & [x](y)"

    def change(document):
        for row in document["mnist_accel"]["absent"]:
            row["reason"] = evil

    changed = _analysis(tmp_path, Laboratory(contenders=("numba", "jax"), passes=1), change)
    page = Page(to_html(changed))
    assert "script" not in page.tags
    assert any(evil in cell for row in page.rows for cell in row)
    markdown = to_markdown(changed)
    assert r"a \| b \<script" in markdown
    assert "<script" not in markdown.replace("\\<", "")


def test_the_readme_table_replaces_what_is_between_its_marks(tmp_path, analysis):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter ×\n", encoding="utf-8")
    for _ in range(2):
        write_readme_table(readme, analysis)
    text = readme.read_text(encoding="utf-8")
    assert text == f"before\n{BEGIN}\n{readme_table(analysis)}{END}\nafter ×\n"
    line = next(line for line in text.splitlines() if line.startswith("| lenet"))
    assert re.fullmatch(
        r"\| lenet, batch 64 \|.* \*\*2\d\.\d k\*\* \|.*× \([\d.]+–[\d.]+\) \|", line
    )


@pytest.mark.parametrize("text", ["none", f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", BEGIN])
def test_a_readme_without_the_marks_is_left_alone(tmp_path, analysis, text):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="each once, in this order"):
        write_readme_table(readme, analysis)
    assert readme.read_text(encoding="utf-8") == text


def test_the_command_writes_both_beside_the_results(tmp_path, capsys):
    path = Laboratory(contenders=("numba",), passes=1, rounds=2).write(tmp_path / "v1.2.json")
    assert report_command([path], None) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"v1.2.{s}") for s in ("md", "html")]
    assert report_command([path], tmp_path / "new") == 0
    assert (tmp_path / "new" / "v1.2.html").read_bytes() == (tmp_path / "v1.2.html").read_bytes()
    assert "There is no peer to compare with" in (tmp_path / "v1.2.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [[], ["run"], ["report"], ["compare"]])
def test_the_help_names_the_exit_codes_of_this_program(capsys, command):
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    codes = " ".join(text.partition("exit codes:\n")[2].split())
    assert re.findall(r"(?:^|; )(\d+) ", codes) == ["0", "1", "2", "4", "130"]
    assert "--fail-over" in codes
    files = {"report": ["FILE"], "compare": ["OLD", "NEW"]}.get("".join(command), [])
    assert re.findall(r"^  (OLD|NEW|FILE) +\w", text, re.MULTILINE) == files


def test_committed_reports_are_what_their_results_give(tmp_path):
    """Figures in the README and in the report it names are generated, never typed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # Their names begin with the date.
    named = sorted(set(re.findall(r"\(benchmarks/results/([\w.-]+)\.md\)", text)))
    assert named
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    # A report is of the file that it is named after, and of all that were measured beside it.
    folder, name = ROOT / "benchmarks" / "results", named[-1]
    files = [folder / f"{name}.json.gz", *sorted(folder.glob(f"{name}-*.json.gz"))]
    assert report_command(files, tmp_path, readme=readme) == 0
    assert readme.read_text(encoding="utf-8") == text
    for suffix in ("md", "html"):
        again = (tmp_path / f"{name}.{suffix}").read_bytes()
        # Compared outside of the assertion, which would take minutes to show how pages differ.
        same = again == (folder / f"{name}.{suffix}").read_bytes()
        made_of = " ".join(path.name for path in files)
        assert same, f"{name}.{suffix} is not what `python -m benchmarks report` makes of {made_of}"


def test_what_cannot_be_written_is_one_line(tmp_path):
    path = Laboratory(contenders=("numba",), passes=1, rounds=2).write(tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"cannot write .*a\.md"):
        report_command([path], path)  # which is no folder


def test_a_run_without_any_figure_still_has_a_report(tmp_path):
    def change(document):
        document["benchmarks"] = []
        document["mnist_accel"]["accuracy"] = []

    empty = _analysis(tmp_path, Laboratory(contenders=("numba",)), change)
    assert "No training of this project was measured." in to_html(empty)
    assert "No training of this project was measured." in to_markdown(empty)


def test_the_page_asks_the_network_for_nothing(gpu_analysis):
    html = to_html(gpu_analysis)
    page = Page(html)
    assert all(address.startswith(("#", "data:,")) for address in page.addresses)
    assert not {"script", "iframe", "img", "object", "embed", "use"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", html)


def test_every_link_of_the_page_leads_somewhere(analysis):
    html = to_html(analysis)
    targets = set(re.findall(r'id="(\w+)"', html))
    links = {address.removeprefix("#") for address in Page(html).addresses if address[0] == "#"}
    assert links
    assert links <= targets


def test_numbers_read_well():
    assert [numbers.count(value) for value in (0, 9.994, 999.6, 12_345, 1.5e6)] == [
        "0", "9.99", "1.00 k", "12.3 k", "1.50 M",
    ]  # fmt: skip
    assert [numbers.duration(value) for value in (4.2e-8, 6.8e-5, 0.9999, 75.0)] == [
        "42.0 ns", "68.0 µs", "1.00 s", "75.0 s",
    ]  # fmt: skip
    assert numbers.between(9.5e-4, 1.2e-3, of_time=True) == "0.950–1.20 ms"
    assert [numbers.percent(value) for value in (0.0041, 0.0996, 1.312, None)] == [
        "0.4 %", "10 %", "131 %", "–",
    ]  # fmt: skip


def test_labels_are_moved_apart_and_stay_inside():
    placed = apart([50.0, 10.0, 12.0, 99.0, 98.0], 10.0, 0.0, 100.0)
    assert placed == [50.0, 10.0, 20.0, 100.0, 90.0]


def test_marks_that_would_coincide_stand_side_by_side():
    points = [(50.0, 10.0), (50.0, 10.0), (50.0, 12.0), (50.0, 80.0), (99.0, 80.0), (99.0, 80.0)]
    placed = side_by_side(points, 0.0, 100.0)
    assert [placed[index] for index in (0, 3, 4)] == [points[index] for index in (0, 3, 4)]
    assert [y for _, y in placed] == [y for _, y in points]
    assert min(math.dist(a, b) for a, b in combinations(placed, 2)) > 9
    assert all(abs(new - old) < 21 for (new, _), (old, _) in zip(placed, points, strict=True))
    assert all(0 <= x <= 100 for x, _ in placed)


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
def test_a_browser_shows_charts_and_tables_without_complaint(browser, page, request):
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
    # Speeds, three networks by batch, rooflines, phases of three, two accuracies, one width.
    assert shown["charts"] == shown["pictures"] == 1 + 3 + devices + 3 + 2 + 1
    assert shown["rows"] >= 3 * 6
    assert shown["aligned"]


# Letters outside of their picture are cut off on paper, or lie on what is beside it.
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
def test_nothing_is_wider_than_the_window(browser, page, width):
    browser.open(page, width=width)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate(_OUTSIDE) == []
    # A table that is wider scrolls in its own box.
    assert browser.evaluate(
        "[...document.querySelectorAll('table')].every(table => table.closest('.scroll'))"
    )


# The letters of each chart: their heights on the screen, and those that lie on others.
_LETTERS = """(() => {
    const shown = [...document.querySelectorAll("figure svg")].map(svg =>
        [...svg.querySelectorAll("text")].map(text => [text, text.getBoundingClientRect()]));
    const upright = shown.map(texts => texts.filter(([text]) => !text.hasAttribute("transform")));
    const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 2 && b.top < a.bottom - 2;
    return {
        smallest: Math.min(...shown.flat().map(([text]) =>
            parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a)),
        meeting: upright.flatMap(texts => texts.flatMap(([a, boxA], index) =>
            texts.slice(index + 1).filter(([, boxB]) => meet(boxA, boxB))
                .map(([b]) => a.textContent + " / " + b.textContent))),
    };
})()"""


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_letters_of_charts_can_be_read(browser, page, width):
    browser.open(page, width=width)
    letters = browser.evaluate(_LETTERS)
    assert letters["meeting"] == []
    assert letters["smallest"] >= 12  # pixels


@needs_browser
def test_a_phone_shows_the_ratio_to_the_best_peer(browser, page):
    browser.open(page, width=390)
    right = browser.evaluate(
        """Math.max(...[...document.querySelectorAll("#recipes tr")].map(row => row.cells[1])
            .filter(cell => cell && cell.colSpan === 1)
            .map(cell => cell.getBoundingClientRect().right))"""
    )
    assert 100 < right <= 390
    assert "× best peer" in browser.evaluate(
        "document.querySelector('#recipes thead th:nth-child(2)').textContent"
    )


@needs_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_rows_of_losses_have_one_height(browser, page, width):
    browser.open(page, width=width)
    heights = browser.evaluate(
        "[...document.querySelectorAll('#losses tbody tr')].map(row => row.offsetHeight)"
    )
    assert len(heights) > 3
    assert max(heights) - min(heights) <= 1


@needs_browser
def test_no_two_marks_of_the_roofline_hide_each_other(browser, page):
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


# Contrast of two colours as the accessibility guidelines define it.
_CONTRASTS = """(() => {
    const luminance = colour => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const paper = luminance(getComputedStyle(document.body).backgroundColor);
    const contrast = colour => {
        const [low, high] = [luminance(colour), paper].sort((a, b) => a - b);
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
def test_all_stands_out_from_light_and_dark_paper(browser, page, scheme):
    browser.open(page, scheme=scheme)
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    contrasts = browser.evaluate(_CONTRASTS)
    assert contrasts["marks"] >= 3
    assert contrasts["letters"] >= 4.5
    assert contrasts["text"] >= 4.5


@needs_browser
def test_the_first_screen_holds_words_and_colours(browser, page):
    browser.open(page)
    picture = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    assert picture.shape == (900, 1200, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):  # the marks of the first two backends
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 8).sum() > 100


@needs_browser
def test_a_printed_page_is_light_and_holds_all_rows(browser, page):
    browser.open(page, width=760, scheme="dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('details table')].every(t => t.checkVisibility())"
    )
    # Tables stay within the paper: A4 less margins of a centimetre.
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
