"""Packs the acceptance run for a GPU machine without a network into one folder.

    tools/gpu_bundle
    tools/gpu_bundle --out bundle --python 3.13

The folder contains this checkout, the packages of benchmarks/gpu/wheels.txt for x86-64 Linux, the
four MNIST files, and the program `run`, which needs only the Python of that machine with CuPy and
PyTorch. benchmarks/gpu/offline.md describes its use. Needs git, pip and a network.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.host import BUNDLED_COMMIT, ROOT, code_version
from mnist_accel.commands.dispatcher import guarded
from mnist_accel.commands.parser import Parser
from mnist_accel.data.sources.digests import MNIST
from mnist_accel.data.sources.fetch import fetch_files
from mnist_accel.errors import UsageError

WHEELS = Path(__file__).with_name("wheels.txt")
# Files larger than this cannot be sent to every machine. Results of benchmarks are left out.
MAX_BYTES = 64_000_000
EXCLUDED = ("benchmarks/results/", "docs/images/")
# The wheels of older systems also install on newer ones.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
RUN = """#!/bin/sh
# Runs the acceptance run with the Python of this machine. Installs nothing and needs no network.
#   ./run --only preflight,smoke --out DIR        PYTHON=/path/to/python3 ./run
#   ./run preflight                               checks packages and data, also without a GPU
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit
python=${PYTHON:-python3}
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit
if [ "$found" != {python} ]; then
    echo "run: the packages are for Python {python}, but $python is Python $found; set" \\
        "PYTHON=/path/to/python{python}, or pack with --python $found" >&2
    exit 2
fi
export PYTHONPATH="$here/packages:$here/source${PYTHONPATH:+:$PYTHONPATH}"
export MNIST_ACCEL_DATA="$here/mnist"
if [ "$*" = preflight ]; then exec "$python" -P "$here/source/benchmarks/gpu/preflight.py"; fi
# If the acceptance run itself needs a package that is missing, this prints all that are.
"$python" -P -c 'import benchmarks.gpu.__main__' 2>/dev/null ||
    "$python" -P "$here/source/benchmarks/gpu/preflight.py" || exit
number=1; results=$here/results
while [ -e "$results" ]; do number=$((number + 1)); results=$here/results-$number; done
exec "$python" -P -m benchmarks.gpu --out "$results" "$@"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the bundle and return the exit code."""
    parser = Parser(prog="tools/gpu_bundle", description=__doc__, epilog="")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("build/gpu-bundle"),
        help="folder to create (default: %(default)s)",
    )
    parser.add_argument(
        "--python",
        metavar="VERSION",
        default="3.12",
        help="version of Python on that machine (default: %(default)s)",
    )
    return guarded(lambda: _write(parser.parse_args(argv)), prog=parser.prog)


def _write(args: argparse.Namespace) -> int:
    """Write the bundle, print its size, and return the exit code 0."""
    folder = args.out
    if folder.exists():
        raise UsageError(f"{folder} exists already; remove it or choose another --out")
    try:
        _copy_source(folder / "source")
        _install_packages(folder / "packages", python=args.python)
        _write_data(folder / "mnist")
        (folder / "run").write_text(RUN.replace("{python}", args.python), encoding="utf-8")
        (folder / "run").chmod(0o755)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if size > MAX_BYTES:
            raise UsageError(f"the bundle has {size / 1e6:.0f} MB, at most 64 MB are accepted")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    print(f"{folder}: {size / 1e6:.1f} MB; copy it to the machine and start {folder.name}/run")
    return 0


def _copy_source(target: Path) -> None:
    """Copy the files that git knows, and record the commit."""
    names = _output("git", "-C", str(ROOT), "ls-files", "-z").split("\0")
    for name in filter(None, names):
        if not name.startswith(EXCLUDED) and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    commit, is_changed = code_version()
    (target / BUNDLED_COMMIT.name).write_text(f"{commit}{' changed' if is_changed else ''}\n")


def _install_packages(target: Path, *, python: str) -> None:
    """Install the packages that such a machine lacks into a folder, without what they need."""
    options = ["--no-deps", "--no-compile", "--only-binary=:all:", "--implementation=cp"]
    options += [f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
    options += ["--constraint", str(ROOT / "constraints.txt"), "--target", str(target)]
    _output(*[sys.executable, "-m", "pip", "install", "--quiet"], *options, "-r", str(WHEELS))


def _write_data(folder: Path) -> None:
    """Write the four files of MNIST, compressed."""
    files, _ = fetch_files(MNIST)
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))


def _output(*command: str) -> str:
    """Return what a program prints.

    Raises:
        UsageError: it is not installed or fails; the message has its last line.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the programs are git and pip
            command, capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be started: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise UsageError(f"{' '.join(command[:4])} … failed: {lines[-1]}") from error
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
