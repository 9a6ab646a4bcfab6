"""The flag `--json` and its output: one JSON object on stdout."""

import argparse
from collections.abc import Mapping
from typing import Any

from mnist_accel.util.json_text import to_json


def add_json_argument(parser: argparse._ActionsContainer, note: str = "") -> None:
    """Add the flag that selects JSON in place of text; `note` completes its help."""
    parser.add_argument(
        "--json", action="store_true", help=f"print one JSON object in place of text{note}"
    )


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object. NaN and infinity become null."""
    print(to_json(content, indent=2))
