"""Checks that every module can be imported and that MNIST can be read; prints what is missing.

    python -m benchmarks.gpu.preflight

Exit code: 0 if everything required is present, 3 if a package is missing or broken, 4 if the data
are missing. As a script, this file starts although the project itself cannot be imported.
"""

import ast
import importlib
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The project without its tests: pytest reports each of their files that cannot be imported.
FOLDERS = ("backends", "mnist_accel", "reference", "benchmarks")
# What the stages need in addition; the configuration of pytest names some of these plugins.
PROGRAMS = (
    *("cupy", "hypothesis", "jinja2", "pytest", "pytest_timeout", "xdist"),
    *("tests.acceptance", "tests.conftest"),
)
# Modules whose name contains one of these are not required. Without them, the benchmarks compare
# with fewer libraries.
OPTIONAL = ("jax", "sklearn", "torch")
# A plugin of pytest that changes CuPy's allocator when it is imported.
EXCLUDED = "benchmarks.gpu.unpooled_memory"
EXIT_NOT_IMPORTED = 3
EXIT_NO_DATA = 4


def main() -> int:
    """Print a line for each problem, and return the exit code."""
    failures = [*missing_packages(modules()), *failed_imports([*PROGRAMS, *modules()])]
    by_reason = defaultdict(list)
    for module, reason in dict.fromkeys(failures):
        by_reason[reason].append(module)
    required = [reason for reason, names in by_reason.items() if not all(map(is_optional, names))]
    for reason, names in by_reason.items():
        kind = "required" if reason in required else "optional"
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"{kind}: {reason}; needed by {names[0]}{others}")
    if required:
        return EXIT_NOT_IMPORTED
    if reason := missing_data():
        print(f"required: {reason}")
        return EXIT_NO_DATA
    print(f"{len(PROGRAMS) + len(list(modules()))} modules and the data are present")
    return 0


def is_optional(module: str) -> bool:
    """Return whether the acceptance run works without a module."""
    return any(name in module for name in OPTIONAL)


def modules() -> Iterator[str]:
    """Yield the name of each module and package of the project."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            *packages, name = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(packages if name == "__init__" else [*packages, name])
            if name != "__main__" and module != EXCLUDED:
                yield module


def missing_packages(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield modules with packages that they import and that are not installed.

    An import of a module ends at the first missing package; this finds all of them.
    """
    for name in names:
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for package in sorted(imported_packages(path) - set(FOLDERS) - {"tests"}):
            if importlib.util.find_spec(package) is None:
                yield name, f"{package} is not installed"


def imported_packages(path: Path) -> set[str]:
    """Return the packages that a module imports when it is imported."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def failed_imports(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Import modules; yield those that fail, with the reason."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            yield name, f"{error.name} is not installed"
        except Exception as error:  # a broken package may raise any exception
            text = " ".join(str(error).split())
            yield name, f"{type(error).__name__}: {text}"


def missing_data() -> str:
    """Return why MNIST cannot be read; an empty string if it can."""
    from mnist_accel.data import load_dataset

    try:
        load_dataset("mnist")
    except Exception as error:  # the report names the problem, whatever it is
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
