"""Benchmark files that release 0.1.0 wrote still load, and their reports show the same times.

The ratios are computed from the same passes as those of new files, so fewer of them are decided.

`results.json.gz` has some of the rows of a full run. `interrupted.json.journal` is from a run that
was killed while it wrote the last line.
"""

from pathlib import Path

from benchmarks.__main__ import main

FILES = Path(__file__).parents[1] / "fixtures" / "release-0.1.0" / "benchmarks"


def report_cells(folder: Path, name: str) -> list[list[str]]:
    """Return the cells of each table row of the report on a file."""
    assert main(["report", str(FILES / name), "--out", str(folder)]) == 0
    text = next(folder.glob("*.md")).read_text(encoding="utf-8")
    rows = (line.strip("| ") for line in text.splitlines() if line.startswith("| "))
    return [[cell.strip("* ") for cell in row.split(" | ")] for row in rows]


def test_result_file_of_release_0_1_0_gives_the_same_figures(tmp_path: Path) -> None:
    rows = report_cells(tmp_path, "results.json.gz")
    for row in (
        "cnn, batch 1|numba|12.8×|9.91–16.6|93.0 k|88.4–101 k|10.8 µs|9.93–11.3 µs|9|15 %|3e-06",
        "two-layer, batch 4096|numba|undecided|n = 3 passes|775 k|0.499–1.00 M|5.29 ms|4.09–8.20 ms"
        "|9|73 %|1e-04",
        "two-layer, batch 1|numba|undecided|n = 3 passes|77.3 k|56.3–102 k|12.9 µs|9.77–17.8 µs|9"
        "|3.6 %|6e-08",
        "two-layer, batch 64|0.554×|0.494–0.622|jax|training",
        "cnn, batch 1|numba|33.9 ms|0|–¹|10.9 ms|10.8 ms",
        "two-layer, batch 64, to 95%|numba|973 ms|0.708–1.06 s|8|0 of 3",
        "two-layer, batch|numba|0.95|0.71 to 1.18|64–4096|3",
        "cnn, batch 1|numba|265 MiB|–",
    ):
        assert row.split("|") in rows
    failed = next(row for row in rows if row[0] == "failed")
    assert failed[1:] == [
        "loops",
        "loss of update 1 is 0.2 off the float64 reference, more than 0.01",
        "training: lenet, batch 64",
    ]


def test_journal_of_release_0_1_0_gives_the_same_figures(tmp_path: Path) -> None:
    rows = report_cells(tmp_path, "interrupted.json.journal")
    row = (
        "two-layer, batch 512|numba|undecided|n = 2 passes|644 k|571–753 k|795 µs|680–897 µs|6|61 %"
    )
    assert [*row.split("|"), "3e-07"] in rows
    (runs,) = (row[1] for row in rows if row[0] == "runs")
    assert runs.startswith("interrupted.json.journal: quick (training, inference), passes 2")
    assert runs.endswith("not complete")
