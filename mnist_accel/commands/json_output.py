"""The flag `--json` and its output: one JSON object on stdout."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

from mnist_accel.util.json_text import to_json

_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')  # a list without strings, lists and objects


def add_json_argument(parser: argparse._ActionsContainer, note: str = "") -> None:
    """Add the flag that selects JSON in place of text; `note` completes its help."""
    parser.add_argument(
        "--json", action="store_true", help=f"print one JSON object in place of text{note}"
    )


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object, each list of numbers in one line. NaN and infinity become null."""
    text = to_json(content, indent=2)
    print(_NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text))
