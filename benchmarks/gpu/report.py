"""The report of a run on a GPU: what ran, what failed, what was cut."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.stages import Result

FLOAT32 = (
    "All arithmetic is float32 or float64 on ordinary cores: TF32 is off in CuPy (`CUPY_TF32=0`), "
    "and in PyTorch, for products and convolutions."
)


def write_report(facts: Mapping[str, str], results: Sequence[Result], folder: Path) -> str:
    """Return the report as Markdown.

    Args:
        facts: of the machine and the software, by name.
        results: of all stages, those to come included.
        folder: of their logs; tables in Markdown that stages have printed are taken over.
    """
    lines = ["# On a GPU", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    lines += ["", FLOAT32, "", f"{summary(results)}.", ""]
    lines += ["| stage | shows that, or shows | outcome | seconds |", "|---|---|---|---:|"]
    for result in results:
        stage = result.stage
        log = folder / f"{stage.name}.log"
        name = f"[{stage.name}]({log.name})" if log.exists() else stage.name
        outcome = f"{result.outcome}: {result.detail}" if result.detail else result.outcome
        seconds = f"{result.seconds:.0f}" if result.seconds else ""
        lines.append(f"| {name} | {stage.shows} | {outcome} | {seconds} |")
    for result in results:
        if table := _table(folder / f"{result.stage.name}.log"):
            lines += ["", f"## {result.stage.name.capitalize()}", "", *table]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result]) -> str:
    """Return how many stages ended how."""
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _table(log: Path) -> list[str]:
    """Return the lines of Markdown tables in a log."""
    if not log.exists():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.startswith(("| ", "|--"))]
