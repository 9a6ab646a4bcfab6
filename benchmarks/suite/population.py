"""Prepares the rows of a population: chooses its length, checks it, and measures its memory."""

import time
from pathlib import Path

import msgspec

from benchmarks.contenders.base import Contender, PopulationSession
from benchmarks.suite.cases import PopulationCase
from benchmarks.suite.checks import STEPS
from benchmarks.suite.costs import training_cost
from benchmarks.suite.members import (
    check_members,
    first_batches,
    population_tasks,
)
from benchmarks.suite.preparer import (
    MAX_LENGTHS,
    Clock,
    NotComparableError,
    Row,
    own_peak_bytes,
    peak_bytes,
    require_available,
    row_info,
    seconds_of,
)

# Seconds of a call, without and for each member. The fixed cost of a member of ours, 2 ms, is then
# at most 2 % of its time, as in a whole training.
BASE_S, MEMBER_S = 0.6, 0.05


def prepare_population(
    case: PopulationCase,
    contender: Contender,
    expected: str,
    *,
    known_steps: int | None = None,
    clock: Clock = time.perf_counter,
) -> Row:
    """Return a row that is ready to be timed; arguments and errors as `preparer.prepare`.

    A call trains all members from their initial weights. Slow contenders have shorter epochs.
    """
    require_available(contender)
    steps = STEPS
    session, phases_s = _timed_session(case, contender, steps, clock)
    members = population_tasks(case, steps)
    batches = first_batches(members, steps)
    check = check_members(session, members, batches, expected)
    seconds = seconds_of(lambda: session.updates(batches), clock)
    fitting = known_steps or _fitting_steps(case, steps, seconds)
    for attempt in range(MAX_LENGTHS):
        steps = fitting
        del session  # frees its memory first
        session, _ = _timed_session(case, contender, steps, clock)
        compile_s = seconds_of(session.compile, clock)
        first_call = seconds_of(session.run, clock)
        phases_s |= {"compile": max(phases_s["compile"], compile_s), "first_call": first_call}
        if known_steps or attempt == MAX_LENGTHS - 1:
            break
        fitting = _fitting_steps(case, steps, seconds_of(session.run, clock))
        if steps / 2 <= fitting <= steps * 2:
            break
    task = members[0]
    images = case.members * steps * case.batch
    cost = training_cost(task.model, task.images.dtype.itemsize) * images
    info = msgspec.structs.replace(
        row_info(case, contender, cost, phases_s, check, task.model),
        images=images,
        steps=steps,
        members=case.members,
        sweeps=case.sweeps,
        peak_host_bytes=_peak_with_children(),
        peak_device_bytes=contender.peak_device_bytes(),
    )
    return Row(session.run, info, clock)


def _timed_session(
    case: PopulationCase, contender: Contender, steps: int, clock: Clock
) -> tuple[PopulationSession, dict[str, float]]:
    """Return a session for epochs of this length, and the seconds that making it took."""
    members = population_tasks(case, steps)
    if reason := contender.skip_reason(members[0]):
        raise NotComparableError(reason)
    started = clock()
    try:
        session = contender.population(members)
    except NotImplementedError as error:
        raise NotComparableError(str(error)) from error
    return session, {"setup": clock() - started, "transfer": 0.0, "compile": 0.0}


def _fitting_steps(case: PopulationCase, steps: int, seconds: float) -> int:
    """Return the steps that fit into a call, at most those of the case."""
    wanted = BASE_S + MEMBER_S * case.members
    return max(1, min(case.steps, int(steps * wanted / seconds)))


def _peak_with_children() -> int | None:
    """Return the sum of the peak memory of this process and of its children; None if unknown."""
    own = own_peak_bytes()
    children = Path("/proc/self/task").glob("*/children")
    numbers = [number for file in children for number in file.read_text().split()]
    peaks = [peak_bytes(Path("/proc") / number / "status") for number in numbers]
    return None if own is None else own + sum(peaks)
