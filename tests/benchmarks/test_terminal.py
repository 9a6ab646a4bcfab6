"""The end of a run in the terminal: how much faster than NumPy, in 80 columns."""

import io

from benchmarks.report.terminal import headlines, print_results
from tests.support.benchmark_files import ON_GPU, GeneratedResults, analyze_generated


def printed(analysis):
    stream = io.StringIO()
    print_results(analysis, stream)
    return stream.getvalue()


def test_the_headline_compares_with_numpy(analysis):
    assert list(headlines(analysis)) == [
        "numba trains 1.6 to 2.6 times as fast as numpy on this machine."
    ]


def test_the_table_has_the_ratio_first_and_names_the_best_baseline(analysis):
    lines = printed(analysis).splitlines()
    header = next(line for line in lines if "numba / numpy" in line)
    assert header.split() == ["numba", "/", "numpy", "numpy", "numba", "best", "baseline"]
    row = next(line for line in lines if line.startswith("two-layer, batch 512"))
    ratio, numpy, numba = row.removeprefix("two-layer, batch 512").split()[:3]
    rates = [float(text.replace(",", "")) for text in (numba, numpy)]
    assert abs(float(ratio) - rates[0] / rates[1]) < 0.1
    assert row.endswith("(torch-eager)")
    assert max(map(len, lines)) <= 80


def test_each_compiled_backend_has_a_headline(tmp_path):
    analysis = analyze_generated(tmp_path, GeneratedResults(contenders=ON_GPU))
    assert [line.split()[0] for line in headlines(analysis)] == ["numba", "cupy"]


def test_without_numpy_nothing_is_compared(tmp_path):
    analysis = analyze_generated(tmp_path, GeneratedResults(contenders=("numba", "jax")))
    assert list(headlines(analysis)) == []
    assert "numba / numpy" not in printed(analysis)


def test_undecided_ratios_are_explained_in_80_columns(tmp_path, analysis):
    noisy = analyze_generated(
        tmp_path, GeneratedResults(contenders=("numpy", "numba", "jax"), pass_noise=2.0)
    )
    text = printed(noisy)
    assert "undecided (n = " in text
    assert "undecided: the 95 % interval of a ratio" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "undecided" not in printed(analysis)
