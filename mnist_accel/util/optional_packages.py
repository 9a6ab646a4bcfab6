"""The error if a package is missing that only some purposes need."""

from backends import pip
from mnist_accel.errors import MissingPackageError
from mnist_accel.util.text import one_line


def missing(
    purpose: str, package: str, *, extra: str, error: ImportError | None = None, otherwise: str = ""
) -> MissingPackageError:
    """Return the error: what needs which package, and the command that installs it.

    Args:
        purpose: what needs the package, such as "--log tensorboard".
        package: name of the package.
        extra: name of the extra in pyproject.toml that installs it.
        error: error of the import, if it was tried.
        otherwise: what to do without the package.
    """
    problem = "is not installed: " + pip("install", f"mnist-accel[{extra}]")
    if error is not None and not isinstance(error, ModuleNotFoundError):
        command = pip("install", "--force-reinstall", package)
        problem = f"cannot be imported ({one_line(error)}); reinstall it: {command}"
    end = f"; or {otherwise}" if otherwise else ""
    return MissingPackageError(f"{purpose} needs the package {package}, which {problem}{end}")
