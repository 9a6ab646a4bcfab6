"""Limits on the size of files, functions and packages, so that each stays readable at once.

A file or a function may exceed its limit if a comment of the form `# Long: REASON` stands on its
first line or on the line above its definition. Ruff checks the number of parameters and statements.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_CODE_LINES_PER_FILE = 400
MAX_LINES_PER_FUNCTION = 60
MAX_FILES_IN_PACKAGE_ROOT = 6
LONG = "# Long: "
# Modules that import others by name, each for a reason that its code states.
DYNAMIC_IMPORTS = {
    "backends/registry.py",
}

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="needs the list of files that git tracks"
)


def tracked(*patterns: str) -> list[str]:
    """Return the paths that git tracks, relative to the root of the repository."""
    listing = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return listing.stdout.splitlines()


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines with code: no blank lines, comments or docstrings."""
    ignored = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in ignored:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - docstring_lines(ast.parse(text))


def long_functions(text: str) -> Iterator[str]:
    """Yield the functions that exceed the limit without a stated reason."""
    source = text.splitlines()
    docstrings = docstring_lines(tree := ast.parse(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = set(range(node.lineno, (node.end_lineno or node.lineno) + 1)) - docstrings
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            excused = source[max(0, first - 2)].strip().startswith(LONG)
            if len(body) > MAX_LINES_PER_FUNCTION and not excused:
                yield f"{node.name} has {len(body)} lines"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_python_files_are_short() -> None:
    lengths = {path: len(code_lines(read(path))) for path in tracked("*.py")}
    too_long = {path for path, length in lengths.items() if length > MAX_CODE_LINES_PER_FILE}
    assert [path for path in sorted(too_long) if not read(path).startswith(LONG)] == []


def test_functions_are_short() -> None:
    found = {path: list(long_functions(read(path))) for path in tracked("*.py")}
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_cuda_files_are_short() -> None:
    too_long = []
    for path in tracked("*.cu", "*.cuh", "*.cpp", "*.h"):
        lines = [line.strip() for line in read(path).splitlines()]
        code = [line for line in lines if line and not line.startswith("//")]
        if len(code) > MAX_CODE_LINES_PER_FILE and not lines[0].startswith("// Long: "):
            too_long.append(path)
    assert too_long == []


def test_package_root_is_small() -> None:
    in_root = [path for path in tracked("mnist_accel/*.py") if path.count("/") == 1]
    assert len(in_root) <= MAX_FILES_IN_PACKAGE_ROOT, in_root


def test_no_file_hides_a_static_import() -> None:
    """`importlib.import_module` of this project's own modules stands in the allowed files only."""
    packages = ("backends", "benchmarks", "mnist_accel", "reference")
    call = re.compile(rf"""import_module\(f?["'](?:{"|".join(packages)})""")
    files = tracked(*(f"{package}/*.py" for package in packages))
    assert {path for path in files if call.search(read(path))} <= DYNAMIC_IMPORTS


def test_the_limit_on_functions_is_checked() -> None:
    body = "".join(f"    x = {number}\n" for number in range(MAX_LINES_PER_FUNCTION))
    assert list(long_functions(f"def f():\n{body}")) == ["f has 61 lines"]
    assert list(long_functions(f"{LONG}a table\ndef f():\n{body}")) == []
    assert len(code_lines('"""Doc.\n\nMore."""\n\n# comment\nx = 1\n')) == 1
