"""Tables, probabilities and confusion matrices, on terminals and in pipes."""

import io

import numpy as np
import pytest

from mnist_accel.console.tables import format_confusion_matrix, print_probabilities, print_table
from tests.support.terminal import Terminal, without_colors

DIGITS = [str(digit) for digit in range(10)]


def _bars(stream, probabilities=(0.25, 0.5, 0.0, 0.003), names=("a", "bb", "c", "d")):
    print_probabilities(probabilities, names, stream)
    return stream.getvalue().splitlines()


def test_probabilities_are_printed_as_bars():
    assert _bars(io.StringIO()) == [
        "a     25.00%  " + "█" * 10,
        "bb    50.00%  " + "█" * 20,
        "c      0.00%",
        "d      0.30%  ▏",
    ]


def test_probabilities_are_printed_in_ascii_if_the_encoding_is_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_probabilities([0.25, 0.5], ["é", "b"], stream)
    stream.flush()
    assert stream.buffer.getvalue().decode("ascii").splitlines() == [
        "?    25.00%  " + "#" * 10,
        "b    50.00%  " + "#" * 20,
    ]


def test_the_most_probable_class_is_highlighted_on_a_terminal():
    lines = _bars(Terminal())
    assert ["\x1b[" in line for line in lines] == [False, True, False, False]


def test_a_table_in_a_pipe_is_aligned_and_never_cut():
    stream = io.StringIO()
    print_table(
        ["backend", "loss", "remark"], [["numpy", "10.5", "x" * 300], ["cupy", 1e-3, ""]], stream
    )
    lines = stream.getvalue().splitlines()
    assert lines == [
        "backend   loss  remark",
        "-------  -----  " + "-" * 300,
        "numpy     10.5  " + "x" * 300,
        "cupy     0.001",
    ]


def test_the_last_column_of_a_table_in_a_pipe_is_wrapped_between_words():
    stream = io.StringIO()
    remark = "a-remark of/several words " * 8
    print_table(["status", "remark"], [["ok", remark], ["", "short"]], stream)
    lines = stream.getvalue().splitlines()
    assert [len(line) for line in lines[:2]] == [len("status  remark"), max(map(len, lines))]
    assert max(map(len, lines)) <= 100
    assert lines[2].startswith("ok      a-remark of/several words a-remark ")
    assert lines[3].startswith("        ")
    assert " ".join(lines[2:]).split() == ["ok", *remark.split(), "short"]


def test_a_table_on_a_terminal_is_wrapped_to_its_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    print_table(["check", "remedy"], [["CuPy", "install [cuda12] " * 20]], stream)
    lines = without_colors(stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join(lines).count("[cuda12]") == 20


def test_a_table_without_rows_has_only_its_headers():
    stream = io.StringIO()
    print_table(["a", "long"], [], stream)
    assert stream.getvalue() == "a  long\n-  ----\n"


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="argument"):
        print_table(["a", "b"], [["1"]], io.StringIO())


def test_a_confusion_matrix_of_digits():
    matrix = np.diag(np.arange(10) + 995)
    matrix[3, 8] = 42
    lines = format_confusion_matrix(matrix, DIGITS).splitlines()
    assert len(lines) == 12
    assert lines[1].split() == ["true", *DIGITS]
    assert lines[2 + 3].split() == ["3", ".", ".", ".", "998", ".", ".", ".", ".", "42", "."]


@pytest.mark.parametrize("largest", [0, 9, 1000, 600_000])
def test_a_confusion_matrix_fits_into_80_columns(largest):
    names = [f"quite a long name {digit}" for digit in DIGITS]
    text = format_confusion_matrix(np.full((10, 10), largest), names)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert "\n3 " in text
