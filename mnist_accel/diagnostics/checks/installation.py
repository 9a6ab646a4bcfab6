"""Checks of Python and the installed packages."""

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import mnist_accel
from backends import pip
from mnist_accel.diagnostics.findings import Finding

# The dependencies in pyproject.toml.
PACKAGES = (
    "argcomplete",
    "array-api-compat",
    "matplotlib",
    "msgspec",
    "numba",
    "numpy",
    "pillow",
    "platformdirs",
    "pooch",
    "rich",
    "safetensors",
    "scipy",
    "threadpoolctl",
)


def python() -> Iterator[Finding]:
    """Report the versions of Python, the operating system and this program."""
    yield Finding("Python", "ok", f"{platform.python_version()}, {platform.platform()}")
    folder = Path(mnist_accel.__file__).parent
    yield Finding("mnist-accel", "ok", f"{mnist_accel.__version__}, {folder}")


def packages() -> Iterator[Finding]:
    """Check that the dependencies are installed."""
    versions = {name: _version(name) for name in PACKAGES}
    found = [f"{name} {version}" for name, version in versions.items() if version]
    # A missing Numba is no problem here: some systems have no wheel. The backend check reports it.
    missing = [name for name, version in versions.items() if not version and name != "numba"]
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        names = " ".join(missing)
        yield Finding("packages", "problem", f"missing: {names}", pip("install", *missing))


def cupy_wheels() -> Iterator[Finding]:
    """Check that at most one wheel of CuPy is installed."""
    names = {str(d.metadata["Name"]).lower().replace("_", "-") for d in metadata.distributions()}
    wheels = sorted(n for n in names if re.fullmatch(r"(amd-)?cupy(-cuda\d+x?|-rocm[-\d]+)?", n))
    if len(wheels) > 1:
        keep = max((n for n in wheels if n.startswith("cupy-cuda")), default="cupy-cuda12x")
        yield Finding(
            "CuPy wheels",
            "problem",
            f"{' and '.join(wheels)} overwrite each other's files",
            f"{pip('uninstall', '-y', *wheels)} && {pip('install', f'{keep}[ctk]')}",
        )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
