"""The charts of the report."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from xml.etree.ElementTree import Element

from benchmarks.report import numbers, svg
from benchmarks.report.analysis import TARGETS, Analysis, crossover, rates_by_batch
from benchmarks.report.svg import Look
from benchmarks.storage.results import ResultSet
from benchmarks.storage.schema import PHASES, AccuracyRun, Ceilings

# The margins fit the largest text, which a phone shows.
WIDTH, HEIGHT = 520, 350
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 358.0, 28.0, 302.0
_NAMES = 368.0  # left edge of the names of the lines
_SCALE_HEIGHT = 50  # height of a scale and its title
_OWN_COLORS, _BASELINE_COLORS = 3, 6

Looks: TypeAlias = Mapping[str, Look]


@dataclass(frozen=True)
class Chart:
    """A chart with its title, its SVG and a note."""

    title: str
    picture: str
    note: str = ""


def looks(results: ResultSet) -> dict[str, Look]:
    """Return the look of each contender with at least one result; it is the same in all charts."""
    present = {measurement.contender for measurement in results.measurements.values()}
    present |= {run.contender for run in results.accuracy}
    chosen: dict[str, Look] = {}
    for is_baseline, first, colors in (
        (False, 0, _OWN_COLORS),
        (True, _OWN_COLORS, _BASELINE_COLORS),
    ):
        names = [
            name
            for name, contender in results.contenders.items()
            if name in present and contender.is_baseline == is_baseline
        ]
        for index, name in enumerate(names):
            chosen[name] = Look(name, first + index % colors, index, is_baseline)
    return chosen


def key(look: Look) -> str:
    """Return the mark of a contender as SVG for a legend."""
    picture = svg.picture(26, 14, "")
    picture.attrib.update({"aria-hidden": "true", "class": "key"})
    svg.line(picture, (0, 7), (26, 7), f"line {look.classes}")
    svg.mark(picture, 13, 7, look)
    return svg.markup(picture)


def speeds(analysis: Analysis, chosen: Looks) -> Chart | None:
    """Chart the training speed of each backend relative to the best baseline, by recipe."""
    ours = {}
    for case in analysis.recipes():
        rows = [row for row in analysis.of_case(case) if not row.is_baseline]
        rows.sort(key=lambda row: chosen[row.measurement.contender].mark)
        if pairs := [(row, row.speed) for row in rows if row.speed is not None]:
            ours[case] = pairs
    if not ours:
        return None
    baselines = {
        case: dict.fromkeys(f"vs. {row.baseline}" for row, _ in pairs)
        for case, pairs in ours.items()
    }
    most = max(map(len, ours.values()))
    lines = 1 + max(map(len, baselines.values()))
    left, right, top = 226.0, WIDTH - 16.0, 30.0
    row_height = max(16.0 * most, svg.LINE * lines) + 10
    bottom = top + row_height * len(ours)
    picture = svg.picture(WIDTH, int(bottom) + _SCALE_HEIGHT, "Speed relative to the best baseline")
    ends = [end for pairs in ours.values() for _, one in pairs for end in (one.low, one.high)]
    title = "speed relative to the best baseline"
    x = svg.axis([*ends, 0.9, 1.1], (left, right), title, "{:g}×".format)
    _scale_below(picture, x, top, bottom)
    svg.line(picture, (x(1), top - 6), (x(1), bottom), "even")
    svg.text(picture, x(1) - 8, top - 12, "← slower", anchor="end", kind="title")
    svg.text(picture, x(1) + 8, top - 12, "faster →", kind="title")
    for number, (case, pairs) in enumerate(ours.items()):
        middle = top + row_height * (number + 0.5)
        svg.line(picture, (0, middle + row_height / 2), (right, middle + row_height / 2), "grid")
        first = middle + 4 - svg.LINE / 2 * len(baselines[case])
        svg.text(picture, 0, first, case.name, kind="name")
        for index, baseline in enumerate(baselines[case], 1):
            svg.text(picture, 0, first + svg.LINE * index, baseline, kind="tick")
        for index, (row, speed) in enumerate(pairs):
            height = middle + 16 * (index - (len(pairs) - 1) / 2)
            look = chosen[row.measurement.contender]
            whisker = f"whisker {look.classes}"
            svg.line(picture, (x(speed.low), height), (x(speed.high), height), whisker)
            note = f"{look.name}: {numbers.times(speed.value)} ({numbers.interval(speed)})"
            svg.mark(picture, x(speed.value), height, look, note)
    note = "Marks: ratio of the medians. Whiskers: 95 % intervals."
    return Chart("Training speed relative to the best baseline", svg.markup(picture), note)


def _scale_below(picture: Element, x: svg.Axis, top: float, bottom: float) -> None:
    """Draw the horizontal scale of a chart whose rows have names."""
    for value, label in x.ticks:
        svg.line(picture, (x(value), top), (x(value), bottom), "grid")
        svg.text(picture, x(value), bottom + 17, label, anchor="middle", kind="tick")
    middle = (x.start + x.end) / 2
    svg.text(picture, middle, bottom + 40, x.title, anchor="middle", kind="title")


def throughputs(analysis: Analysis, chosen: Looks) -> Iterator[Chart]:
    """Chart images per second against batch size, for each network."""
    results = analysis.results
    scale = _Scale("Images per second", "images/s", "images/s", numbers.round_count)
    for network in dict.fromkeys(case.network for case in results.cases("training")):
        rates = rates_by_batch(results, network)
        if len({batch for points in rates.values() for batch, _ in points}) < 2:
            continue
        crossing, note = crossover(results, rates), ""
        if crossing is not None:
            note = f"The fastest GPU row overtakes the fastest CPU row at about {crossing:.0f}."
        yield Chart(network, _lines(network, "batch size", scale, rates, chosen, crossing), note)


@dataclass(frozen=True)
class _Scale:
    """The vertical scale of a chart with lines: quantity, title, unit and labels of the ticks."""

    quantity: str
    title: str
    unit: str
    label: Callable[[float], str]


def _lines(
    network: str,
    size_name: str,
    scale: _Scale,
    series: Mapping[str, Sequence[tuple[int, float]]],
    chosen: Looks,
    crossing: float | None = None,
) -> str:
    """Return a picture with a line of marks for each contender, and its name at the end.

    `series` contains sizes and values by contender. The GPU is faster from the size `crossing`.
    """
    sizes = sorted({size for points in series.values() for size, _ in points})
    values = [value for points in series.values() for _, value in points]
    picture = svg.picture(WIDTH, HEIGHT, f"{scale.quantity} against {size_name}, {network}")
    x = svg.axis(sizes, (_LEFT, _RIGHT), size_name, "{:g}".format, ticks=sizes)
    y = svg.axis(values, (_BOTTOM, _TOP), scale.title, scale.label)
    svg.draw_axes(picture, x, y)
    if crossing is not None:
        svg.line(picture, (x(crossing), _BOTTOM), (x(crossing), _TOP), "even")
        text = f"GPU faster from {crossing:.0f}"
        svg.text(picture, x(crossing) + 5, _BOTTOM - 8, text, kind="title")
    ends = []
    for name, points in series.items():
        look = chosen[name]
        places = [(x(size), y(value)) for size, value in points]
        svg.path(picture, places, f"line {look.classes}")
        for (size, value), place in zip(points, places, strict=True):
            note = f"{name}, {size_name} {size:g}: {numbers.count(value)} {scale.unit}"
            svg.mark(picture, *place, look, note)
        ends.append((look, places[-1]))
    svg.label_ends(picture, ends, _NAMES, y)
    return svg.markup(picture)


def rooflines(analysis: Analysis, chosen: Looks) -> Iterator[Chart]:
    """Chart the operations per second of the recipes on each device, with its ceilings."""
    for device, ceilings in analysis.results.ceilings.items():
        if marks := _achieved(analysis, device):
            yield _roofline(device.upper(), ceilings, marks, chosen)


_Achieved: TypeAlias = tuple[float, float, str, str]  # FLOP/byte, FLOP/s, network, contender


def _achieved(analysis: Analysis, device: str) -> list[_Achieved]:
    """Return intensity and rate of each contender in each recipe on a device."""
    results = analysis.results
    return [
        (
            row.info.flops / row.info.bytes,
            row.info.flops / row.round_seconds.median,
            case.network,
            row.contender,
        )
        for case in analysis.recipes()
        for row in results.of_case(case)
        if results.contenders[row.contender].device == device and row.info.flops and row.info.bytes
    ]


def _roofline(title: str, ceilings: Ceilings, marks: Sequence[_Achieved], chosen: Looks) -> Chart:
    """Chart operations per second against arithmetic intensity."""
    picture = svg.picture(WIDTH, 460, f"Operations per second against their intensity, {title}")
    peak, copy = ceilings.flops_per_s, ceilings.bytes_per_s
    ridge = peak / copy
    x = svg.axis(
        [*(intensity for intensity, *_ in marks), ridge / 1.2, ridge * 4],
        (_LEFT, WIDTH - 16.0),
        "arithmetic intensity, FLOP per byte",
        numbers.round_count,
    )
    rates = [rate for _, rate, *_ in marks]
    # The lowest quarter of the height is for the names of the networks.
    low, high = min(rates), max(*rates, peak * 1.3)
    y = svg.axis(
        [low / (high / low) ** (1 / 3), high], (412.0, _TOP), "FLOP/s", numbers.round_count
    )
    svg.draw_axes(picture, x, y)
    left = max(x.low, y.low / copy)
    roof = [(x(left), y(left * copy)), (x(ridge), y(peak)), (x.end, y(peak))]
    svg.path(picture, roof, "even")
    text = f"{numbers.count(peak)}FLOP/s"
    svg.text(picture, x.end - 4, y(peak) - 6, text, anchor="end", kind="name")
    (x0, y0), (x1, y1), _ = roof
    at = (x0 + x1) / 2, (y0 + y1) / 2
    text = f"{numbers.count(copy)}B/s"
    label = svg.text(picture, at[0], at[1] - 7, text, anchor="middle", kind="name")
    _turn(label, -math.degrees(math.atan2(y0 - y1, x1 - x0)), *at)
    columns = {network: x(intensity) for intensity, _, network, _ in marks}
    places = svg.apart(list(columns.values()), svg.LINE, x.start + svg.LINE, x.end - 2)
    for (network, column), place in zip(columns.items(), places, strict=True):
        svg.line(picture, (column, y.start), (column, y(peak)), "thread")
        label = svg.text(picture, place - 3, y.start - 6, network, kind="tick")
        _turn(label, -90, place - 3, y.start - 6)
    points = [(x(intensity), y(rate)) for intensity, rate, *_ in marks]
    seen = svg.side_by_side(points, x.start, x.end)
    for point, free in zip(points, seen, strict=True):
        svg.line(picture, point, free, "thread")
    for (_, rate, network, name), free in zip(marks, seen, strict=True):
        note = f"{name}, {network}: {numbers.count(rate)}FLOP/s"
        svg.mark(picture, *free, chosen[name], note)
    return Chart(
        title,
        svg.markup(picture),
        f"The line is the highest measured rate: {ceilings.how['flops_per_s']}, and "
        f"{ceilings.how['bytes_per_s']}. Operations are counted on dense data, including those "
        "that are skipped because pixels are zero, so a mark can be above the roof. Marks that "
        "would overlap are moved sideways, away from the line of their network.",
    )


def _turn(label: Element, degrees: float, x: float, y: float) -> None:
    """Rotate a label around a point."""
    label.set("transform", f"rotate({degrees:.1f} {x:g} {y:g})")


def phases(analysis: Analysis, chosen: Looks) -> Iterator[Chart]:
    """Chart the seconds of each phase of a training, for each recipe."""
    steady = len(PHASES)
    for case in analysis.recipes():
        rows = [row.measurement for row in analysis.of_case(case)]
        seconds = [
            {**{p: s for p, s in row.phases_s.items() if s > 0}, "steady": row.round_seconds.median}
            for row in rows
        ]
        left, top, row_height = 158.0, 12.0, 26.0
        bottom = top + row_height * len(rows)
        picture = svg.picture(
            WIDTH, int(bottom) + _SCALE_HEIGHT, f"Seconds of each phase, {case.name}"
        )
        every = [value for one in seconds for value in one.values()]
        x = svg.axis(every, (left, WIDTH - 16.0), "time", numbers.round_duration)
        _scale_below(picture, x, top, bottom)
        for number, (row, parts) in enumerate(zip(rows, seconds, strict=True)):
            height = top + row_height * (number + 0.5)
            svg.text(picture, left - 8, height + 4, row.contender, anchor="end", kind="name")
            places = [x(value) for value in parts.values()]
            svg.line(picture, (min(places), height), (max(places), height), "thread")
            for phase, value in parts.items():
                index = steady if phase == "steady" else PHASES.index(phase)
                note = f"{row.contender}, {_PHASE_NAMES[index]}: {numbers.duration(value)}"
                svg.mark(picture, x(value), height, PHASE_LOOKS[index], note)
        yield Chart(case.name, svg.markup(picture))


_PHASE_NAMES = ("setup", "transfer", "compile", "first call", "steady epoch")
PHASE_LOOKS = tuple(
    Look(name, color, shape, name != "steady epoch")
    for name, color, shape in zip(_PHASE_NAMES, (4, 3, 5, 1, 0), (2, 4, 3, 1, 0), strict=True)
)


def growths(analysis: Analysis, chosen: Looks) -> Iterator[Chart]:
    """Chart the time per step against width and depth."""
    scale = _Scale("Seconds per step", "time per step", "s", numbers.round_duration)
    for network, sweep in dict.fromkeys((one.network, one.sweep) for one in analysis.growth):
        if sweep != "batch":
            series = {
                one.contender: one.points
                for one in analysis.growth
                if (one.network, one.sweep) == (network, sweep)
            }
            yield Chart(f"{network}, {sweep}", _lines(network, sweep, scale, series, chosen))


def accuracies(results: ResultSet, chosen: Looks) -> Iterator[Chart]:
    """Chart validation accuracy against seconds of training, with a line per seed."""
    for network, batch in dict.fromkeys((run.network, run.batch) for run in results.accuracy):
        runs = [
            run
            for run in results.accuracy
            if (run.network, run.batch) == (network, batch) and run.seconds
        ]
        if not runs:
            continue
        title = f"{network}, batch {batch}"
        picture = svg.picture(WIDTH, HEIGHT, f"Validation accuracy against seconds, {title}")
        x = svg.axis(
            [second for run in runs for second in run.seconds],
            (_LEFT, WIDTH - 16.0),
            "seconds of training",
            numbers.round_duration,
        )
        # The scale is logarithmic in the error: 98 to 99 % halves it, and so does 90 to 95 %.
        errors = [_error(value) for run in runs for value in run.accuracy]
        ticks = [tick for tick in _ERROR_TICKS if min(errors) * 0.8 <= tick <= max(errors) * 1.2]
        y = svg.axis(
            errors,
            (_TOP, _BOTTOM),
            "validation accuracy",
            lambda error: f"{100 * (1 - error):.4g} %",
            ticks=ticks,
        )
        svg.draw_axes(picture, x, y)
        for name in dict.fromkeys(run.contender for run in runs):
            seeds = [run for run in runs if run.contender == name]
            middle = sorted(seeds, key=lambda run: run.seconds[-1])[len(seeds) // 2]
            for run in seeds:
                kind = "line" if run is middle else "seed"
                svg.path(picture, _places(run, x, y), f"{kind} {chosen[name].classes}")
            note = f"{name}, seed {middle.seed}"
            for place in _places(middle, x, y):
                svg.mark(picture, *place, chosen[name], note)
        yield Chart(title, svg.markup(picture))


_WORST_ERROR = 0.5
_ERROR_TICKS = (0.5, 0.2, 0.1, *(1 - target for target in TARGETS), 0.005, 0.002)


def _error(accuracy: float) -> float:
    """Return the fraction of wrong predictions, limited to the range of the scale."""
    return min(max(1 - accuracy, 1e-4), _WORST_ERROR)


def _places(run: AccuracyRun, x: svg.Axis, y: svg.Axis) -> list[svg.Point]:
    return [
        (x(second), y(_error(accuracy)))
        for second, accuracy in zip(run.seconds, run.accuracy, strict=True)
    ]
