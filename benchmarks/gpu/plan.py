"""What is proved on a GPU, the most valuable first."""

import shutil
import sys
from pathlib import Path

from benchmarks.gpu.stages import Stage
from benchmarks.journal import SUFFIX

CONTENDERS = "cupy,torch-eager,torch-compile,torch-cuda-graph"
# Without it, the benchmarks would end well and compare with nobody.
_OPPONENT = """
import sys, torch
sys.exit(0 if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no GPU")
"""
SANITIZER = "compute-sanitizer"
# The sanitizer slows kernels down, so it runs only these files: all kernels at small sizes, and
# the persistent kernels with the sizes of the recipes.
_SANITIZED = (
    *("-m", "gpu", "--require-backend", "cupy", "-p", "benchmarks.gpu.plain_memory"),
    "tests/gpu/test_every_kernel.py",
    "tests/gpu/test_persistent_cnn.py",
    "tests/gpu/test_persistent_mlp.py",
)


def plan(folder: Path) -> list[Stage]:
    """Return the stages, whose budgets are together more than there is: most take less.

    Args:
        folder: of their results.
    """
    figures, python = folder / "benchmarks.json", sys.executable
    pytest = (python, "-m", "pytest", "-p", "no:cacheprovider")
    gpu = ("-m", "gpu", "--require-backend", "cupy")
    return [
        Stage(
            "tests",
            "operations, steps and compiled epochs agree with float64 loops on this GPU",
            (*pytest, *gpu, "--numprocesses", "4", "--dist", "worksteal"),
            budget_s=180,
        ),
        Stage(
            "overheads",
            "what launches, graph nodes and barriers cost, copies and arithmetic at best",
            (python, "-m", "benchmarks.gpu.overheads", "--out", str(folder / "overheads.json")),
            budget_s=30,
        ),
        Stage(
            "accuracy",
            "every recipe, trained to its end, is as good as it must be",
            (python, "-m", "tests.acceptance", "--backends", "cupy"),
            budget_s=120,
        ),
        Stage(
            "opponent",
            "PyTorch is installed, and computes on this GPU",
            (python, "-c", _OPPONENT),
            budget_s=30,
        ),
        Stage(
            "benchmarks",
            "how fast trainings and predictions are, with PyTorch beside them",
            (
                *(python, "-m", "benchmarks", "run", "--quick", "--levels", "training,inference"),
                *("--contenders", CONTENDERS, "--out", str(figures)),
            ),
            budget_s=170,
        ),
        Stage(
            "page",
            "the benchmarks as a report of their own",
            (python, "-m", "benchmarks", "report"),
            budget_s=20,
            # The journal is there if the benchmarks were cut.
            reads=(figures, figures.with_name(figures.name + SUFFIX)),
        ),
        *(
            Stage(
                tool,
                shows,
                (
                    *(SANITIZER, "--tool", tool, "--target-processes", "all"),
                    *("--error-exitcode", "1", *pytest, *_SANITIZED),
                ),
                budget_s=70,
                missing=(
                    ""
                    if shutil.which(SANITIZER)
                    else f"{SANITIZER}, of the CUDA toolkit, is not on the PATH"
                ),
            )
            for tool, shows in (
                ("memcheck", "no kernel reads or writes beyond an array"),
                ("racecheck", "no threads of a block race for shared memory"),
            )
        ),
    ]
