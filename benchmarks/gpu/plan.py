"""The stages of the acceptance run, the most important first."""

import shutil
import sys
from pathlib import Path

from benchmarks.gpu.stages import Stage
from benchmarks.host import usable_cores
from benchmarks.storage.journal import SUFFIX

CONTENDERS = "cupy,torch-eager,torch-cuda-graph"
# torch.compile takes up to a minute per case, so it is measured in a stage of its own.
COMPILED_CONTENDERS = "cupy,torch-compile"
SANITIZER = "compute-sanitizer"
_PYTHON = sys.executable
# A line per test, so that a run that is stopped shows which tests have passed. A file that cannot
# be imported does not prevent the tests of the others.
_PYTEST = (
    *(_PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--tb=short"),
    "--continue-on-collection-errors",
)
_GPU_TESTS = ("-m", "gpu", "--require-backend", "cupy")
# The folders with tests for a GPU. Collecting all tests takes each worker twice as long.
GPU_FOLDERS = tuple(f"tests/{name}" for name in ("backends", "benchmarks", "gpu", "nn", "training"))
# A test that breaks or hangs the GPU costs its worker, which is replaced, and no other test. A
# signal would not stop a test that waits for the GPU.
_WORKERS_END = (
    *("-p", "benchmarks.gpu.fresh_context", "--max-worker-restart", "1000"),
    *("--timeout", "90", "--timeout-method", "thread"),
)
# The other cores serve NVRTC and the driver: the tests compile most kernels.
_WORKERS_PER_CORE = 3 / 4
# The benchmarks succeed without PyTorch, but then compare with nothing.
_CHECK_PYTORCH = """
import sys, torch
sys.exit(0 if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no GPU")
"""
# The sanitizer slows kernels down, so it runs only these files: all kernels at small sizes, and
# the persistent kernels with the sizes of the recipes.
_SANITIZED_FILES = (
    "tests/gpu/test_every_kernel.py",
    "tests/gpu/test_persistent_cnn.py",
    "tests/gpu/test_persistent_mlp.py",
)


def plan(folder: Path) -> list[Stage]:
    """Return the stages.

    The time limit of the run is enough for all stages up to `report`, even if each of them takes as
    long as it may. The later stages run in the time that the others leave.

    Args:
        folder: folder of the results.
    """
    workers = max(1, int(usable_cores() * _WORKERS_PER_CORE))
    return [
        Stage(
            "preflight",
            "all required packages and the data are present",
            _program("preflight"),
            limit_s=40,
            is_required=True,
        ),
        Stage(
            "smoke",
            "every recipe trains: time of the first call and per step, first and last loss",
            _program("smoke", "--out", str(folder / "smoke.json")),
            limit_s=75,
        ),
        Stage(
            "tests",
            "operations, eager and compiled training agree with the float64 reference on this GPU",
            (
                *(*_PYTEST, *_GPU_TESTS, *GPU_FOLDERS, *_WORKERS_END),
                *("--numprocesses", str(workers), "--dist", "worksteal"),
            ),
            limit_s=140,
        ),
        Stage(
            "overheads",
            "times of launches, graph nodes and barriers; peak copy and arithmetic rates",
            _program("overheads", "--out", str(folder / "overheads.json")),
            limit_s=25,
        ),
        Stage(
            "accuracy",
            "every recipe reaches its required accuracy",
            (_PYTHON, "-m", "tests.acceptance", "--backend", "cupy", "--seeds", "1"),
            limit_s=60,
        ),
        Stage(
            "pytorch",
            "PyTorch is installed and computes on this GPU",
            (_PYTHON, "-c", _CHECK_PYTORCH),
            limit_s=20,
        ),
        *_benchmark_stages("benchmarks", CONTENDERS, folder, limit_s=130),
        Stage(
            "kernels",
            "each kernel computes the same as its naive version; times of both",
            _program("bench_kernels", "--json", str(folder / "kernels.json")),
            limit_s=90,
        ),
        Stage(
            "members",
            "trainings per second of populations of 1 to 512 networks; equal results for each size",
            _program("members", "--out", str(folder / "members.json")),
            limit_s=100,
        ),
        _sanitizer_stage("memcheck", "no kernel accesses memory out of bounds"),
        _sanitizer_stage("racecheck", "no kernel has a data race in shared memory"),
        *_benchmark_stages("compiled", COMPILED_CONTENDERS, folder, limit_s=170),
    ]


def _program(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a program of benchmarks/gpu/."""
    return (_PYTHON, "-m", f"benchmarks.gpu.{name}", *arguments)


def _benchmark_stages(name: str, contenders: str, folder: Path, *, limit_s: float) -> list[Stage]:
    results = folder / f"{name}.json"
    return [
        Stage(
            name,
            f"times of training and prediction of {contenders.replace(',', ', ')}",
            (
                *(_PYTHON, "-m", "benchmarks", "run", "--quick", "--levels", "training,inference"),
                *("--contenders", contenders, "--passes", "3", "--out", str(results)),
            ),
            limit_s=limit_s,
        ),
        Stage(
            "report" if name == "benchmarks" else f"report-{name}",
            f"the stage {name} as a report with tables and charts",
            (_PYTHON, "-m", "benchmarks", "report"),
            limit_s=20,
            # If the benchmarks timed out, only their journal exists.
            inputs=(results, results.with_name(results.name + SUFFIX)),
        ),
    ]


def _sanitizer_stage(tool: str, shows: str) -> Stage:
    is_installed = shutil.which(SANITIZER) is not None
    return Stage(
        tool,
        shows,
        (
            *(SANITIZER, "--tool", tool, "--target-processes", "all", "--error-exitcode", "1"),
            *(*_PYTEST, *_GPU_TESTS, "-p", "benchmarks.gpu.unpooled_memory", *_SANITIZED_FILES),
        ),
        limit_s=70,
        skip_reason="" if is_installed else f"{SANITIZER} (CUDA toolkit) is not on the PATH",
    )
