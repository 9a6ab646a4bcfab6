"""The tables of the contenders and of the machine."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.cores import FAR, near_ns
from benchmarks.report import numbers
from benchmarks.report.tables import Table, contender_kind, make_table
from benchmarks.storage.results import ResultSet
from benchmarks.storage.schema import Run
from mnist_accel.util.text import count

_KINDS = {"": "this project", "baseline": "baseline", "scale": "for scale, not compared with"}


def contenders_table(results: ResultSet) -> Table:
    """Return the table of the contenders, with versions and threads."""
    rows = [
        (
            name,
            _KINDS[contender_kind(results, name)],
            _versions_text(contender.versions),
            str(contender.threads),
        )
        for name, contender in results.contenders.items()
    ]
    numba, notes = results.contenders.get("numba"), []
    if numba is not None and numba.threads > 1:
        notes.append(
            "The threads are the maximum that each may use; numba may use fewer for small batches."
        )
    return make_table(("", "kind", "versions", "threads"), {"": rows}, texts=(1, 2), notes=notes)


def host_table(results: ResultSet) -> Table:
    """Return the table of the facts about the machine, the software and the runs."""
    host = results.host
    pools = (
        f"{pool.name} {pool.version or ''}, {count(pool.threads, 'thread')}".replace(" ,", ",")
        for pool in host.blas
    )
    facts = {
        "CPU": host.cpu,
        "cores": f"{host.cores}, {host.threads} of them used",
        "vector width": f"{host.vector_width_bits} bits" if host.vector_width_bits else "unknown",
        "memory": numbers.size(host.memory_bytes) if host.memory_bytes else "unknown",
        "GPU": host.gpu or "none",
        "GPU driver": host.gpu_driver or "none",
        "operating system": host.os,
        "Python": host.python,
        "BLAS and thread pools": "; ".join(pools) or "none",
        "Numba threading layer": host.numba_threading_layer or "none",
        "load average at start and end": ", ".join(f"{load:.2f}" for load in host.load_average),
        **_barrier_facts(results.barriers_ns),
        "versions": _versions_text(host.versions),
        "commit": ", ".join(dict.fromkeys(map(_commit, results.runs))),
        **dict(_ceiling_facts(results)),
        "runs": "; ".join(
            f"{path.name}: {run.profile} ({', '.join(run.levels)}), passes {run.passes}, "
            f"seed {run.seed}, {count(run.threads, 'thread')}, {run.started} to {run.finished}"
            + ("" if run.complete else ", not complete")
            for path, run in zip(results.paths, results.runs, strict=True)
        ),
    }
    return make_table(("fact", "value"), {"": facts.items()}, texts=(1,))


def _commit(run: Run) -> str:
    changes = " with uncommitted changes" if run.host.dirty else ""
    return f"{run.host.commit or 'unknown'}{changes} ({', '.join(run.levels)})"


def _versions_text(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _barrier_facts(barriers_ns: Sequence[float]) -> dict[str, str]:
    """Return how long threads on both cores took for a barrier before the turns."""
    if not barriers_ns:
        return {}
    near = near_ns(barriers_ns)
    far = sum(ns > FAR * near for ns in barriers_ns)
    return {
        "barrier of two threads": f"{statistics.median(barriers_ns):.0f} ns (median); over "
        f"{FAR:g} times that of near cores ({near:.0f} ns) in {far} of "
        f"{count(len(barriers_ns), 'turn')}"
    }


def _ceiling_facts(results: ResultSet) -> Iterator[tuple[str, str]]:
    """Yield the highest rates of each device, and how they were measured."""
    for device, best in results.ceilings.items():
        rate = numbers.count(best.flops_per_s)
        yield f"peak arithmetic, {device.upper()}", f"{rate}FLOP/s, {best.how['flops_per_s']}"
        rate = numbers.count(best.bytes_per_s)
        yield f"peak memory bandwidth, {device.upper()}", f"{rate}B/s, {best.how['bytes_per_s']}"
