"""Texts are made short and safe to show."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from mnist_accel.errors import CheckpointError, DataError, UsageError
from mnist_accel.util.text import (
    abbreviate_home,
    count,
    displayable,
    excerpt,
    one_line,
    shell_command,
)


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
    monkeypatch.setattr(Path, "home", lambda: PurePosixPath("/home/ann"))
    assert abbreviate_home(text) == short


def test_shell_passes_the_arguments_of_a_command():
    arguments = ["a b", "c&d", "(e)", "f;g", "h,i", "it's", "j\\", "k l\\", "", "ü"]
    code = "import json; import sys; print(json.dumps(sys.argv[1:]))"
    command = shell_command([sys.executable, "-c", code, *arguments])
    result = subprocess.run(command, shell=True, capture_output=True, check=True)
    assert json.loads(result.stdout) == arguments


@pytest.mark.posix
def test_arguments_that_cannot_be_printed_are_quoted_for_bash():
    name = "run\udcff1 é'\\\n\x1b[31m"
    command = shell_command(["printf", "%s", name])
    assert command.isprintable()
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert result.stdout == os.fsencode(name)


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        (r"runs\20261129-1", r"runs\20261129-1"),
        (r"C:\Python\python.exe", r"C:\Python\python.exe"),
        ("--threads=2", "--threads=2"),
        ("my run", '"my run"'),
        ("R&D (2)", '"R&D (2)"'),
        ("it's", '"it\'s"'),
        ("my folder\\", '"my folder\\\\"'),
        ('say "hi"', r'"say \"hi\""'),
        ("", '""'),
    ],
)
def test_commands_on_windows_have_double_quotes(argument, quoted, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert shell_command(["predict", argument]) == f"predict {quoted}"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "784 -> relu 2x -1 ? ..."),
        ("cp1252", "784 -> relu 2x -1 ü ..."),
        ("utf-8", "784 → relu 2× −1 ü …"),
    ],
)
def test_characters_that_an_encoding_lacks_become_simple_ones(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert displayable("784 → relu 2× −1 ü …", stream) == shown


@pytest.mark.parametrize("error", [DataError, CheckpointError, UsageError])
def test_messages_of_errors_are_short_lines_without_control_characters(error):
    assert str(error("a file")) == "a file"
    assert str(error("two\nlines")) == "two lines"
    assert str(error("\x1b[2J\x07\u202egnp.exe\x00\x9b")) == r"\x1b[2J\x07\u202egnp.exe\x00\x9b"
    message = str(error("start" + "x" * 10**6 + "remedy"))
    assert message.startswith("start")
    assert message.endswith("remedy")
    assert len(message) < 2100


def test_control_characters_are_escaped_for_streams():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert displayable("a\nb\x1b[31m\t\u2066é…", stream) == "a\nb\\x1b[31m\\t\\u2066é…"
