"""Integer division that rounds up."""


def ceil_div(dividend: int, divisor: int) -> int:
    """Return dividend / divisor, rounded up to an integer."""
    return -(-dividend // divisor)
