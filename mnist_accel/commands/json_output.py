"""The flag `--json` and its output: one JSON object on stdout."""

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any


def add_json_argument(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add the flag that selects JSON in place of text; `note` completes its help."""
    parser.add_argument(
        "--json", action="store_true", help=f"print one JSON object in place of text{note}"
    )


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object. NaN and infinity become null, because JSON has neither."""
    print(json.dumps(_finite(content), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case float() if not math.isfinite(value):
            return None
    return value
