"""Documents are correct: examples run, links resolve, and paths exist."""

import doctest
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_accel as ma
from mnist_accel import nn
from mnist_accel.commands import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in ROOT.glob("**/*.md")
    if not any(part == "build" or part[0] == "." for part in page.relative_to(ROOT).parts)
)
# `tests/test_extending.py` runs the examples of this page.
EXTENDING = ROOT / "docs" / "extending.md"


def examples(language):
    """Return the code of each page with blocks in this language; these continue each other."""
    block = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    code = {
        page.relative_to(ROOT).as_posix(): "\n".join(block.findall(page.read_text("utf-8")))
        for page in PAGES
        if page != EXTENDING
    }
    return {page: blocks for page, blocks in code.items() if blocks}


EXAMPLES = examples("python")
SESSIONS = examples("pycon")
FOLDERS = ("backends", "benchmarks", "docs", "mnist_accel", "reference", "tests")
# Code in backticks that is a path below one of the folders, or a single source file.
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*|[\w*-]+\.(?:py|cuh?|cpp|h)")
TEST_ARGUMENTS = {
    arguments
    for page in PAGES
    for arguments in re.findall(r'make test ARGS="([^"]+)"', page.read_text(encoding="utf-8"))
}
# The changelog names files that no longer exist.
PAGES_WITH_PATHS = [page for page in PAGES if page.name != "CHANGELOG.md"]


@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_of_a_page_run(page, tmp_path, monkeypatch, own_tables):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(EXAMPLES[page], page, "exec"), names)
    if page == "README.md":
        assert names["result"].accuracy > 0.95


@pytest.mark.parametrize("page", SESSIONS)
def test_sessions_of_a_page_print_what_it_shows(page, tmp_path, monkeypatch, own_tables):
    monkeypatch.chdir(tmp_path)
    session = doctest.DocTestParser().get_doctest(SESSIONS[page], {}, page, page, 0)
    printed = io.StringIO()
    failures = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=printed.write)
    assert not failures.failed, printed.getvalue()


def test_commands_of_the_start_page_print_what_it_shows(tmp_path, monkeypatch, capsys):
    """Numbers differ from machine to machine, and "…" stands for any text."""
    monkeypatch.chdir(tmp_path)
    train = ["train", "lenet", "--iterations", "300", "--backend", "numba", "--threads", "2"]
    for words in (train, ["predict", "--index", "7"]):
        assert main(words) == 0
    printed = "".join(capsys.readouterr())
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    shown = [
        line
        for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(shown) > 15
    for line in shown:
        pattern = re.sub(r"(\\\ )*\d+", r" *\\d+", re.escape(line.rstrip(" █"))).replace("…", ".*")
        assert re.search(rf"^{pattern}[ █▏▎▍▌▋▊▉]*$", printed, re.MULTILINE), line


def test_the_reference_describes_every_public_name():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    missing = [name for name in ma.__all__ if not re.search(rf"\b(mnist_accel|ma)\.{name}\b", text)]
    missing += [
        name
        for name in nn.__all__
        if name not in ma.__all__ and not re.search(rf"\bnn\.{name}\b|`{name}\(\)`", text)
    ]
    assert missing == ["__version__"]


@pytest.mark.parametrize("arguments", sorted(TEST_ARGUMENTS))
def test_test_command_selects_tests(arguments):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run([*command, *shlex.split(arguments)], cwd=ROOT, capture_output=True)
    assert result.returncode == 0, result.stdout.decode()[-500:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES_WITH_PATHS, ids=lambda page: page.name)
def test_paths_in_backticks_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    paths = [path for path in re.findall(r"`([^`\n]+)`", text) if PATH.fullmatch(path)]
    missing = [path for path in paths if not _exists(path)]
    assert not missing, f"{page.name} names paths that do not exist: {', '.join(missing)}"


@pytest.mark.parametrize("path", ["backends/base.py", "backends/", "order.cu", "docs/*.md"])
def test_a_path_that_exists_is_found(path):
    assert PATH.fullmatch(path)
    assert _exists(path)


@pytest.mark.parametrize("path", ["backends/missing.py", "tests/missing/", "missing.cu"])
def test_a_path_that_does_not_exist_is_not_found(path):
    assert PATH.fullmatch(path)
    assert not _exists(path)


def _exists(path):
    """Return whether a path, a pattern or the name of a source file exists."""
    if "/" in path:
        return any(ROOT.glob(path))
    return any(any((ROOT / folder).rglob(path)) for folder in FOLDERS)
