"""Numbers as text."""


def format_duration(seconds: float) -> str:
    """Format seconds as minutes and seconds, 0:07, or with hours, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def format_throughput(images_per_s: float) -> str:
    """Format images per second with three digits: 410 k, 31.2 k, 4.37 k, 850."""
    for unit, letter in ((1e6, " M"), (1e3, " k")):
        if images_per_s >= 0.9995 * unit:
            digits = f"{images_per_s / unit:.3g}"
            return f"{float(digits):g}{letter}"
    return f"{images_per_s:.3g}"
