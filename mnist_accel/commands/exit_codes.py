"""Exit codes of the commands, and the errors that lead to them."""

from backends import BackendUnavailableError
from mnist_accel.errors import DataError, DivergedError, MissingPackageError, UsageError
from mnist_accel.util.startup import EXIT_NOT_INSTALLED, missing_package

EXIT_USAGE = 2
EXIT_DATA = 4
EXIT_DIVERGED = 5
EXIT_COMPARISON = 6
EXIT_SIGNAL = 128  # plus the number of the signal, the convention of shells
EXIT_INTERRUPTED = EXIT_SIGNAL + 2  # SIGINT
EXIT_BROKEN_PIPE = EXIT_SIGNAL + 13  # SIGPIPE

EXIT_CODES_HELP = """exit codes:
  0    success
  2    wrong usage, or not enough memory
  3    the requested backend cannot run, or a package is not installed
  4    data or a file is missing, corrupt or rejected, or cannot be written
  5    training diverged: the loss or a weight became NaN or infinite
  6    a comparison or a gradient check failed
  129  stopped by SIGHUP, which a terminal sends when it is closed
  130  interrupted by Ctrl-C
  141  the reader of stdout or stderr closed the pipe
  143  stopped by SIGTERM"""


def explain_error(error: BaseException) -> tuple[str, int] | None:
    """Return a message of one line and the exit code; None for an error in the program itself."""
    match error:
        case UsageError():
            return str(error), EXIT_USAGE
        case BackendUnavailableError() | MissingPackageError():
            return str(error), EXIT_NOT_INSTALLED
        case DataError():
            return str(error), EXIT_DATA
        case DivergedError():
            return str(error), EXIT_DIVERGED
        case KeyboardInterrupt():
            return "interrupted", EXIT_INTERRUPTED
        case MemoryError():
            detail = f": {error}" if str(error) else ""
            remedy = "use smaller batches or layers, or fewer images"
            return f"not enough memory{detail}; {remedy}", EXIT_USAGE
        case ModuleNotFoundError():
            missing = missing_package(error)
            return (missing, EXIT_NOT_INSTALLED) if missing else None
        case UnicodeEncodeError():
            name = ascii(error.object)[:200]
            return (
                f"{name} cannot be written in the encoding {error.encoding}, which this system "
                "uses for file names; set PYTHONUTF8=1",
                EXIT_DATA,
            )
        case OSError():
            file = f"{error.filename}: " if error.filename is not None else ""
            return f"{file}{error.strerror or error}", EXIT_DATA
    return None
