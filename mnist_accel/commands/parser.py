"""The argument parser of the commands."""

import argparse
from typing import NoReturn

from mnist_accel.commands.exit_codes import EXIT_CODES_HELP, EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line."""

    def __init__(
        self, *, prog: str, description: str | None = None, epilog: str = EXIT_CODES_HELP
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")
