"""Checks that every module can be imported and that MNIST can be read; prints what is missing.

    python -m benchmarks.gpu.preflight

Exit code: 0 if everything required is present, 3 if a package is missing or broken, 4 if the data
are missing.
"""

import importlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The project without its tests: pytest reports each of their files that cannot be imported.
FOLDERS = ("backends", "mnist_accel", "reference", "benchmarks")
# What the stages need in addition; the configuration of pytest names some of these plugins.
PROGRAMS = ("cupy", "hypothesis", "pytest", "pytest_timeout", "xdist", "tests.acceptance")
# Modules whose name contains one of these are not required. Without them, the benchmarks compare
# with fewer libraries.
OPTIONAL = ("jax", "sklearn", "torch")
# A plugin of pytest that changes CuPy's allocator when it is imported.
EXCLUDED = "benchmarks.gpu.unpooled_memory"
EXIT_NOT_IMPORTED = 3
EXIT_NO_DATA = 4


def main() -> int:
    """Print a line for each problem, and return the exit code."""
    failures = failed_imports([*PROGRAMS, *modules()])
    required = [module for module in failures if not any(name in module for name in OPTIONAL)]
    by_reason = defaultdict(list)
    for module, reason in failures.items():
        by_reason["required" if module in required else "optional", reason].append(module)
    for (kind, reason), names in by_reason.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"{kind}: {reason}; needed by {names[0]}{others}")
    if required:
        return EXIT_NOT_IMPORTED
    if reason := missing_data():
        print(f"required: {reason}")
        return EXIT_NO_DATA
    print(f"{len(PROGRAMS) + len(list(modules()))} modules and the data are present")
    return 0


def modules() -> Iterator[str]:
    """Yield the name of each module and package of the project."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            *packages, name = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(packages if name == "__init__" else [*packages, name])
            if name != "__main__" and module != EXCLUDED:
                yield module


def failed_imports(names: Iterable[str]) -> dict[str, str]:
    """Import modules; return the reason of each failure by the name of the module."""
    failures = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            failures[name] = f"{error.name} is not installed"
        except Exception as error:  # a broken package may raise any exception
            text = " ".join(str(error).split())
            failures[name] = f"{type(error).__name__}: {text}"
    return failures


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
