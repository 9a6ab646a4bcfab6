"""Measures how long the drawing page takes to answer, in headless Chromium.

    python -m benchmarks.drawing_page

Prints for each recipe the time of a prediction, which docs/draw.md quotes, and of everything that
the page does after a movement of the pen. Needs Chromium.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import mnist_accel as ma
from benchmarks.host import host_facts
from mnist_accel.data.dataset import DIGIT_NAMES
from mnist_accel.draw import draw_page

BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")
MAX_SECONDS = 60
# The clock of a browser has a resolution of 0.1 ms, so several calls are timed together.
SCRIPT = """<script>
const angles = Array.from({ length: 60 }, (_, k) => k / 8);
strokes = [angles.map((a) => [140 + 60 * Math.cos(a), 140 + 85 * Math.sin(a)])]; // a zero
redraw();
const image = digitImage(ink(), SIZE, SIZE);
function milliseconds(work) {
  const times = Array.from({ length: 21 }, () => {
    const start = performance.now();
    for (let call = 0; call < 10; call++) work();
    return (performance.now() - start) / 10;
  });
  times.sort((a, b) => a - b);
  return [times[10], times[20]]; // median, and the slowest, before the scripts are compiled
}
const times = [milliseconds(() => predict(network, image)), milliseconds(redraw)];
document.title = times.flat().join(" ");
</script>"""


def measure(recipe: str, folder: Path) -> list[float]:
    """Return median and maximum of a prediction and of a whole update, in milliseconds."""
    network = ma.create_model(recipe, backend="numpy", seed=0)
    page = draw_page(network, class_names=DIGIT_NAMES, centers=True)
    file = folder / f"{recipe}.html"
    file.write_text(page.replace("</body>", f"{SCRIPT}</body>"), encoding="utf-8")
    command = [*BROWSER, f"--user-data-dir={folder / 'profile'}", file.as_uri()]
    done = subprocess.run(  # noqa: S603 - a fixed command, no shell
        command, check=True, timeout=MAX_SECONDS, capture_output=True, text=True, encoding="utf-8"
    )
    title = re.search(r"<title>([\d. ]+)</title>", done.stdout)
    if title is None:
        raise RuntimeError(f"{BROWSER[0]} did not run the page of {recipe}: {done.stderr[-500:]}")
    return [float(number) for number in title[1].split()]


def main() -> None:
    """Print the table."""
    facts = host_facts()
    print(f"{facts.cpu}, {facts.threads} cores, in milliseconds:\n")
    print("| recipe | prediction | slowest | after a movement | slowest |")
    print("|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for recipe in ma.RECIPES:
            times = measure(recipe, Path(folder))
            print(f"| {recipe} | {' | '.join(f'{time:.2f}' for time in times)} |")


if __name__ == "__main__":
    main()
