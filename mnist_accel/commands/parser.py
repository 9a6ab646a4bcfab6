"""The argument parser of the commands."""

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from backends import Aliases, closest_name, resolve_name, spelling
from mnist_accel.commands.exit_codes import EXIT_CODES_HELP, EXIT_USAGE
from mnist_accel.errors import printable
from mnist_accel.recipes.settings import SETTING_ALIASES

HELP_WIDTH = 78
_FLAG = re.compile(r"--|-[a-z]", re.IGNORECASE)  # a negative number is not a flag
# Flags of other programs, which are values of `--backend` here.
_DEVICE_FLAGS = dict.fromkeys(("gpu", "cuda", "usegpu", "usecuda"), "--backend cupy") | (
    dict.fromkeys(("cpu", "nogpu", "nocuda", "usecpu"), "--backend numba")
)


class Parser(argparse.ArgumentParser):
    """An argument parser that accepts other spellings of flags, and reports an error in one line.

    Case, hyphens and underscores of flags are ignored, and `SETTING_ALIASES` are accepted.

    Args:
        prog: name of the program, for messages.
        description: text for the help, filled paragraph by paragraph.
        epilog: text at the end of the help, with its own line breaks.
        examples: arguments of calls of this program, shown at the very end.
        options: options of the base class; newer Python versions add some for subparsers.
    """

    def __init__(
        self,
        *,
        prog: str,
        description: str | None = None,
        epilog: str = EXIT_CODES_HELP,
        examples: Sequence[str] = (),
        **options: Any,
    ) -> None:
        if examples:
            calls = "\n".join(f"  {prog} {example}".rstrip() for example in examples)
            epilog = f"{epilog}\n\nexamples:\n{calls}"
        super().__init__(
            prog=prog,
            description=_fill(description or ""),
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self.color = False  # since Python 3.14; control sequences of colors would be escaped

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the arguments; unlike in the base class, an unknown one is an error."""
        words = self._with_known_flags(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        for action in self._actions:
            value = getattr(parsed, action.dest, None)
            # Such as "$RUN" without this variable. As a path, it would mean the current folder.
            if value == "" or (isinstance(value, list) and "" in value):
                name = "/".join(action.option_strings) or action.metavar
                self.error(f"the value of {name} is empty; give one, or omit {name}")
        return parsed, []

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or an error; the base class ignores a stream that cannot be written."""
        (file or sys.stderr).write(message)

    @property
    def _aliases(self) -> Aliases:
        """The other names of the flags of this parser."""
        return {
            alias: (flag,)
            for alias, (name,) in SETTING_ALIASES.items()
            if (flag := "--" + name.replace("_", "-")) in self._option_string_actions
        }

    def _with_known_flags(self, words: Sequence[str]) -> list[str]:
        """Return the words, with each flag in the spelling of its definition.

        An unknown flag is an error, because its value could be taken for a positional argument.
        """
        result = list(words)
        for index, word in enumerate(result):
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                break  # only positional arguments, or the words of a subparser, follow
            if _FLAG.match(word):
                flag, equals, value = word.partition("=")
                result[index] = self._known_flag(flag, words) + equals + value
        return result

    def _known_flag(self, flag: str, words: Sequence[str]) -> str:
        known = self._option_string_actions
        try:
            return resolve_name("flag", flag, known, self._aliases)
        except ValueError:
            if not {"-h", "--help"}.isdisjoint(words):
                return flag  # the help is shown in any case
            close = closest_name(flag, known, self._aliases)
            if spelling(flag) in _DEVICE_FLAGS and "--backend" in known:
                close = _DEVICE_FLAGS[spelling(flag)]
            hint = f"; did you mean {close}?" if close else ""
            self.error(f"unknown flag {flag}{hint}")


def _fill(text: str) -> str:
    """Return a text with the lines of each paragraph filled; indented lines are kept."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(
        part if "\n " in part else textwrap.fill(part, HELP_WIDTH) for part in paragraphs
    )
