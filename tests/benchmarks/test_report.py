"""The report as Markdown and HTML, and the command that writes it."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.report import numbers, report_command
from benchmarks.report.analysis import analyze
from benchmarks.report.html import to_html
from benchmarks.report.markdown import render, to_markdown, update_tables
from benchmarks.report.sections import published_tables
from benchmarks.report.svg import apart, side_by_side
from benchmarks.storage.results import load_results
from mnist_accel.errors import UsageError
from tests.support.benchmark_files import SMALL, GeneratedResults, analyze_generated

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The addresses, tags, and cells of each table row of a page."""

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


@pytest.mark.parametrize(
    ("compiled_s", "note"),
    [
        (0.0, "¹ numba had compiled its code before: an earlier run left it in the cache on disk."),
        (20.5, "compiling took 20.5 s in other trainings of this run."),
    ],
)
def test_cached_code_has_no_compile_time(tmp_path, compiled_s, note):
    def change(document):
        for entry in document["benchmarks"]:
            info = entry["extra_info"]
            if info["contender"] in ("numba", "numpy"):
                info["phases_s"]["compile"] = 0.0
            # Only in the first pass of a row that is not a recipe, as after an interruption.
            if (info["case"], info["contender"]) == ("lenet, batch 10", "numba"):
                info["phases_s"]["compile"] = compiled_s * (info["pass"] == 0)
            info["phases_s"]["setup"] = 0.01

    generated = GeneratedResults(("numpy", "numba", "jax"), passes=2, rounds=2)
    text = to_markdown(analyze_generated(tmp_path, generated, change))
    table = text.partition("## Before the steady state")[2].partition("## Time")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")]
    compiling = {row[1]: row[4] for row in rows}
    assert compiling["numba"] == "–¹"
    assert compiling["numpy"] == "0"
    assert compiling["jax"].endswith("ms")
    assert note in table
    assert "Phases were measured once, when a case was prepared" in table


def test_page_lists_each_merged_run(tmp_path):
    paths = []
    for number, profile in enumerate(("quick", "full")):
        made = GeneratedResults(
            ("numba", "jax"), passes=1 + number, rounds=2, seed=number
        ).document()
        made["mnist_accel"] |= {"profile": profile, "started": f"2026-11-2{number}T12:00:00+00:00"}
        paths.append(tmp_path / f"{profile}.json")
        paths[-1].write_text(json.dumps(made), encoding="utf-8")
    one, both = (" ".join(to_html(analyze(load_results(p))).split()) for p in (paths[:1], paths))
    assert "2026-11-20, profile quick, 1 pass</p>" in one
    assert "2026-11-20, profile quick, 1 pass · 2026-11-21, profile full, 2 passes</p>" in both
    assert "measured in the same run." in one
    assert "measured in 2 runs." in both


def test_contenders_table_states_the_threads_of_small_batches(analysis, tmp_path):
    assert "numba may use fewer for small batches" in to_markdown(analysis)
    generated = GeneratedResults(("numpy", "jax"), passes=1, rounds=2)
    others = analyze_generated(
        tmp_path, generated, lambda made: made["mnist_accel"]["contenders"].pop("numba")
    )
    assert "may use fewer" not in to_markdown(others)


def test_phases_are_medians_if_they_differ_between_passes(analysis):
    assert "the figures are medians over the passes" in to_markdown(analysis)


def test_table_of_operations_says_why_rows_may_be_slower_than_a_baseline(analysis):
    page = to_markdown(analysis)
    assert "before it computes" not in page.partition("## Operations")[0]
    assert "takes 2 to 5 µs before it computes" in page.partition("## Operations")[2]


def test_markdown_rows_have_the_same_number_of_columns(analysis):
    text = to_markdown(analysis)
    for heading in (
        "Training the recipes",
        "Where numpy is slower",
        "Time to accuracy",
        "Machine and software",
    ):
        assert f"## {heading}" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block
    assert "| failed: the gradient of W1" in text
    assert "absent: no NVIDIA GPU" in text


def test_text_is_escaped_in_html_and_markdown(tmp_path):
    """A reason is shown as text on the page, and in one cell of the Markdown table."""
    evil = "a | b\n<script>alert(1)</script> </svg> & [x](y)"

    def change(document):
        for row in document["mnist_accel"]["absent"]:
            row["reason"] = evil

    changed = analyze_generated(
        tmp_path, GeneratedResults(contenders=("numba", "jax"), passes=1), change
    )
    page = Page(to_html(changed))
    assert "script" not in page.tags
    assert any(evil in cell for row in page.rows for cell in row)
    markdown = to_markdown(changed)
    assert r"a \| b \<script" in markdown
    assert "<script" not in markdown.replace("\\<", "")


BEGIN, END = (f"<!-- benchmark table recipes: {which} -->" for which in ("begin", "end"))


def test_tables_replace_the_text_between_their_markers(tmp_path, analysis):
    readme = tmp_path / "README.md"
    other = [line.replace("recipes", "inference") for line in (BEGIN, END)]
    link = BEGIN.replace("recipes", "report")
    readme.write_text(
        f"before\n{BEGIN}\nold\n{END}\nbetween\n{other[0]}\n{other[1]}\nafter ×\n"
        f"{link}\n{link.replace('begin', 'end')}\n",
        encoding="utf-8",
    )
    for _ in range(2):
        update_tables(readme, analysis, tmp_path / "out" / "report.md")
    text = readme.read_text(encoding="utf-8")
    make = published_tables(analysis)["recipes"]
    assert make is not None
    table = render(make())
    assert text.startswith(f"before\n{BEGIN}\n{table}{END}\nbetween\n{other[0]}\n| images/s |")
    assert text.endswith(
        f"{other[1]}\nafter ×\n{link}\nThe [full report](out/report.md) contains "
        f"every row, with its spread.\n{link.replace('begin', 'end')}\n"
    )
    line = next(line for line in text.splitlines() if line.startswith("| lenet"))
    assert re.fullmatch(
        r"\| lenet, batch 64 \|.* \*\*2\d\.\d k\*\* \|.*× \([\d.]+–[\d.]+\) \|", line
    )


def test_table_without_results_remains(tmp_path, analysis):
    readme = tmp_path / "README.md"
    begin, end = (line.replace("recipes", "populations") for line in (BEGIN, END))
    text = f"{begin}\nof another machine\n{end}\n"
    readme.write_text(text, encoding="utf-8")
    update_tables(readme, analysis, tmp_path / "report.md")
    assert readme.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("marker", [BEGIN, END, f"\n{END}\n"])
def test_markers_in_the_name_of_a_machine_or_contender_do_not_end_the_table(tmp_path, marker):
    document = SMALL.document()
    document["mnist_accel"]["host"]["cpu"] = marker
    text = json.dumps(document).replace('"jax"', json.dumps(marker))
    results = tmp_path / "a.json"
    results.write_text(text)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert report_command([results], tmp_path, [readme]) == 0
    assert readme.read_text().startswith(f"before\n{BEGIN}\n|")
    assert readme.read_text().endswith(f"\n{END}\nafter\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none", "must contain lines such as"),
        (f"{END}\n{BEGIN}", "does not belong to a pair"),
        (f"{BEGIN}\n{BEGIN}\n{END}", "does not belong to a pair"),
        (BEGIN, "in pairs"),
        (
            BEGIN.replace("recipes", "nothing"),
            "no table 'nothing'; the tables are report, recipes",
        ),
    ],
)
def test_file_without_pairs_of_markers_is_not_changed(tmp_path, analysis, text, message):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        update_tables(readme, analysis, tmp_path / "out" / "report.md")
    assert readme.read_text(encoding="utf-8") == text


def test_report_is_written_next_to_the_results(tmp_path, capsys):
    path = GeneratedResults(contenders=("numba",), passes=1, rounds=2).write(tmp_path / "v1.2.json")
    assert report_command([path], None) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"v1.2.{s}") for s in ("md", "html")]
    assert report_command([path], tmp_path / "new") == 0
    assert (tmp_path / "new" / "v1.2.html").read_bytes() == (tmp_path / "v1.2.html").read_bytes()
    assert "No baseline was measured" in (tmp_path / "v1.2.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [[], ["run"], ["report"], ["compare"], ["agree"]])
def test_help_lists_the_exit_codes(capsys, command):
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    codes = text.partition("exit codes:\n")[2]
    assert re.findall(r"^  (\d+) +\w", codes, re.MULTILINE) == ["0", "1", "2", "3", "4", "130"]
    assert "--fail-over" in codes
    files = {"report": ["FILE"], "compare": ["OLD", "NEW"], "agree": ["FIRST", "SECOND"]}
    named = re.findall(r"^  (OLD|NEW|FILE|FIRST|SECOND) +\w", text, re.MULTILINE)
    assert named == files.get("".join(command), [])


def test_committed_reports_equal_the_report_on_their_results(tmp_path):
    """The figures in the documents, and in the report that they link to, are generated."""
    documents = [ROOT / page for page in ("README.md", "docs/index.md", "docs/benchmarks.md")]
    texts = [document.read_text(encoding="utf-8") for document in documents]
    # Each table is from one machine; the link to "the" report is to that of the last one.
    named = sorted(set(re.findall(r"\(benchmarks/results/([\w.-]+)\.md\)", texts[0])))
    assert named
    copies = [tmp_path / document.relative_to(ROOT) for document in documents]
    for copy, text in zip(copies, texts, strict=True):
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text, encoding="utf-8")
    folder = ROOT / "benchmarks" / "results"
    made = tmp_path / folder.relative_to(ROOT)
    made.mkdir(parents=True)
    for name in named:
        # A report covers the file with its name, and the files whose names start with it.
        files = [folder / f"{name}.json.gz", *sorted(folder.glob(f"{name}-*.json.gz"))]
        assert report_command(files, made, copies) == 0
        for suffix in ("md", "html"):
            again = (made / f"{name}.{suffix}").read_bytes()
            # Compared outside of the assertion: pytest takes minutes to show how pages differ.
            same = again == (folder / f"{name}.{suffix}").read_bytes()
            made_of = " ".join(path.name for path in files)
            assert same, f"{name}.{suffix} is not what `benchmarks report` makes of {made_of}"
    assert [copy.read_text(encoding="utf-8") for copy in copies] == texts


def test_report_that_cannot_be_written_is_a_usage_error(tmp_path):
    path = GeneratedResults(contenders=("numba",), passes=1, rounds=2).write(tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"cannot write .*a\.md"):
        report_command([path], path)  # the path is a file, not a folder


def test_run_without_times_has_a_report(tmp_path):
    def change(document):
        document["benchmarks"] = []
        document["mnist_accel"]["accuracy"] = []

    empty = analyze_generated(tmp_path, GeneratedResults(contenders=("numba",)), change)
    assert "No training of this project was measured." in to_html(empty)
    assert "No training of this project was measured." in to_markdown(empty)


def test_page_has_no_external_addresses(gpu_analysis):
    html = to_html(gpu_analysis)
    page = Page(html)
    assert all(address.startswith(("#", "data:,")) for address in page.addresses)
    assert not {"script", "iframe", "img", "object", "embed", "use"} & set(page.tags)
    assert not re.search(r"https?://|@import|url\(", html)


def test_each_link_of_the_page_has_a_target(analysis):
    html = to_html(analysis)
    targets = set(re.findall(r'id="(\w+)"', html))
    links = {address.removeprefix("#") for address in Page(html).addresses if address[0] == "#"}
    assert links
    assert links <= targets


def test_numbers_have_three_digits_and_a_unit():
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


def test_labels_are_moved_apart_within_bounds():
    placed = apart([50.0, 10.0, 12.0, 99.0, 98.0], 10.0, 0.0, 100.0)
    assert placed == [50.0, 10.0, 20.0, 100.0, 90.0]


def test_overlapping_marks_are_moved_sideways():
    points = [(50.0, 10.0), (50.0, 10.0), (50.0, 12.0), (50.0, 80.0), (99.0, 80.0), (99.0, 80.0)]
    placed = side_by_side(points, 0.0, 100.0)
    assert [placed[index] for index in (0, 3, 4)] == [points[index] for index in (0, 3, 4)]
    assert [y for _, y in placed] == [y for _, y in points]
    assert min(math.dist(a, b) for a, b in combinations(placed, 2)) > 9
    assert all(abs(new - old) < 21 for (new, _), (old, _) in zip(placed, points, strict=True))
    assert all(0 <= x <= 100 for x, _ in placed)
