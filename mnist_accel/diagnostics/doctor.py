"""Run all checks of `mnist-accel doctor`."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from mnist_accel.diagnostics.checks import computation, installation, storage
from mnist_accel.diagnostics.findings import Finding
from mnist_accel.util.text import abbreviate_home, one_line

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    installation.python,
    installation.packages,
    installation.cupy_wheels,
    computation.gpu,
    computation.backends,
    computation.numba_kernels,
    computation.compiled_training,
    computation.numba_cache,
    computation.blas,
    storage.data,
    storage.autotune_cache,
    storage.run_folder,
)


def diagnose() -> list[Finding]:
    """Return the findings of all checks, with the user's home folder shortened to `~`."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check())
        except Exception as error:  # a check that fails must not stop the others
            findings.append(
                Finding(
                    check.__name__.replace("_", " "),
                    "problem",
                    f"the check failed ({type(error).__name__}: {one_line(error)})",
                    "reinstall mnist-accel; if the problem remains, report it",
                )
            )
    return [
        replace(
            finding,
            detail=abbreviate_home(finding.detail),
            remedy=abbreviate_home(finding.remedy),
        )
        for finding in findings
    ]
