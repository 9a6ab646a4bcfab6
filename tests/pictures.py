"""Makes the pictures of the documents from new trainings: `make pictures`.

Needs MNIST, and Chromium for the picture of the drawing page. Takes about two minutes.
"""

import shutil
import tempfile
from pathlib import Path

from mnist_accel.commands import main
from tests.draw.strokes import STROKES, draw
from tests.support.headless_browser import Browser

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def run(*words: str | Path) -> None:
    """Run a command of `mnist-accel`, and stop if it fails."""
    if main([str(word) for word in words]):
        raise SystemExit(f"{words[0]} failed")


def make_pictures(folder: Path) -> None:
    """Train in a folder, and write the pictures of both runs to `docs/images/`."""
    lenet, population = folder / "lenet", folder / "population"
    run("train", "lenet", "--seed", "0", "--out", lenet)
    for name in ("curves.png", "filters.png", "mistakes.png"):
        shutil.copy(lenet / name, IMAGES)
    run("predict", lenet, "--index", "7", "--out", IMAGES / "prediction.png")
    run("draw", lenet, "--no-open", "--out", folder / "draw.html")
    with Browser() as browser:
        browser.open(folder / "draw.html", width=960, height=700)
        draw(browser, STROKES[3])
        (IMAGES / "draw.png").write_bytes(browser.screenshot())
    run("population", "cnn", "--seeds", "20", "--lr", "0.003,0.005,0.01", "--epochs", "5",
        "--out", population)  # fmt: skip
    shutil.copy(population / "spread.png", IMAGES)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary))
