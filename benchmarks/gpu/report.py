"""The report of an acceptance run, as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.stages import Result

PRECISION = (
    "All arithmetic is float32 or float64 without tensor cores. TF32 is disabled in CuPy "
    "(`CUPY_TF32=0`) and in PyTorch, for matrix products and convolutions."
)


def write_report(facts: Mapping[str, str], results: Sequence[Result], folder: Path) -> str:
    """Return the report as Markdown.

    Args:
        facts: facts about the machine and the software, by name.
        results: results of all stages, including those that have not run.
        folder: folder of the logs. Markdown tables in a log are copied into the report.
    """
    lines = ["# Acceptance run on a GPU", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    lines += ["", PRECISION, "", f"{summary(results)}.", ""]
    lines += ["| stage | shows | outcome | seconds |", "|---|---|---|---:|"]
    for result in results:
        stage = result.stage
        log = folder / f"{stage.name}.log"
        name = f"[{stage.name}]({log.name})" if log.exists() else stage.name
        outcome = f"{result.outcome}: {result.detail}" if result.detail else result.outcome
        seconds = f"{result.seconds:.0f}" if result.seconds else ""
        lines.append(f"| {name} | {stage.shows} | {outcome} | {seconds} |")
    for result in results:
        if table := _tables_in(folder / f"{result.stage.name}.log"):
            lines += ["", f"## {result.stage.name.capitalize()}", "", *table]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result]) -> str:
    """Return the number of stages per outcome, such as "3 passed, 1 failed"."""
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _tables_in(log: Path) -> list[str]:
    """Return the lines of the Markdown tables in a log."""
    if not log.exists():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.startswith(("| ", "|--"))]
