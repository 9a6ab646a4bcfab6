"""Writes JSON, which has neither NaN nor infinity."""

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(content: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Return an object as JSON text, with null in place of NaN and infinity.

    Args:
        content: the keys and values of the object.
        indent: spaces per level of nesting; None for a single line.
    """
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case float() if not math.isfinite(value):
            return None
    return value
