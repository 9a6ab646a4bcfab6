"""Where things are kept between one run and the next, by the convention of the operating system."""

from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of things in the user's cache."""
    import platformdirs

    return platformdirs.user_cache_path("mnist_accel", appauthor=False) / name
