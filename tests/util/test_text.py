"""Texts are made short and safe to show."""

import pytest

from mnist_accel.util.text import abbreviate_home, count, excerpt, one_line


def test_whitespace_becomes_single_spaces():
    assert one_line(ValueError("two\n  lines ")) == "two lines"


def test_excerpts_are_short_and_printable():
    assert excerpt(ValueError("short text")) == "short text"
    assert excerpt("a\n\x1b[31mb") == r"a \x1b[31mb"
    assert excerpt("x" * 10**6) == "x" * 200 + "…"
    assert len(excerpt("\x00" * 10**6)) == 201


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 images"), (1, "1 image"), (1797, "1,797 images")]
)
def test_nouns_agree_with_their_number(number, text):
    assert count(number, "image") == text


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/ann", "~"),
        ("/home/ann/x: no; /home/ann, (/home/ann)", "~/x: no; ~, (~)"),
        ("/home/anna/x", "/home/anna/x"),
        ("/mnt/home/ann/x", "/mnt/home/ann/x"),
    ],
)
def test_only_the_home_folder_is_shortened(text, short, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert abbreviate_home(text) == short
