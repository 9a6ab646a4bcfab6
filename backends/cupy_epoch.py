"""Compiled epochs on the GPU: a step is captured once as a CUDA graph, and replayed.

A replay launches all kernels of some steps in one call, which takes the host as long as one launch.
The kernels find in memory what changes from step to step (see backends/cuda/steps.cu), so the host
has nothing to do between the steps of a section: it copies the order of the images and the learning
rates to the device, replays, and fetches the losses at the end.
"""

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.cuda import persistent
from backends.cuda.launches import (
    MOST_CLASSES,
    MOST_KERNEL_SIZE,
    Data,
    Filters,
    Launches,
    Maps,
    Section,
    Step,
    Windows,
)
from backends.cuda.loader import Kernels
from backends.operations.common import Array
from backends.program import CompiledEpoch, NotCompiledError, Stage, Steps, TrainingProgram

# Steps between two looks at the host: few enough that Ctrl-C is answered at once, and enough that
# fetching the losses costs nothing.
MOST_STEPS_A_SECTION = 1024
MOST_ROWS_A_SECTION = 1 << 20
# A graph holds this many steps, a second one a single step for what is left.
STEPS_A_GRAPH = 32


@dataclass(frozen=True)
class Workspace:
    """All memory of a training beside its data set and parameters, allocated once.

    Attributes:
        capacity: images of the largest batch.
        section: of how many steps is seen from its bounds.
        step: the batch, and what is known of it.
        outputs: of each stage, for a batch.
        gradients: of what the activation of each stage took.
        masks: where the maxima of each stage lie; None where nothing is pooled.
        grads: the gradient of the parameter vector.
    """

    capacity: int
    section: Section
    step: Step
    outputs: tuple[Array, ...]
    gradients: tuple[Array, ...]
    masks: tuple[Array | None, ...]
    grads: Array


@dataclass(frozen=True)
class Captured:
    """Graphs of steps, and the arrays whose addresses they hold.

    Attributes:
        graphs: by how many steps they do, the longest first.
        workspace: of the steps.
        data: the data set.
        parameters: the parameter vector, and the arrays of the optimizer.
    """

    graphs: dict[int, Any]
    workspace: Workspace
    data: Data
    parameters: tuple[Array, ...]


@dataclass(frozen=True)
class Resident:
    """What a kernel needs that does many steps.

    Attributes:
        launches: of the kernel.
        section: the steps.
        parts: what blocks hand to each other.
        barrier: where they wait for each other.
    """

    launches: Launches
    section: Section
    parts: Array
    barrier: Array


class CupyEpoch(CompiledEpoch):
    """A program as CUDA graphs.

    Args:
        program: what to run.
        cupy: CuPy.
        kernels: its kernels.

    Raises:
        NotCompiledError: there is no kernel for part of the program.
    """

    def __init__(self, program: TrainingProgram, *, cupy: Any, kernels: Kernels) -> None:
        for stage in program.stages:
            if stage.kernel_size > MOST_KERNEL_SIZE:
                raise NotCompiledError(
                    f"filters of captured steps have a side of at most {MOST_KERNEL_SIZE}, not "
                    f"{stage.kernel_size}"
                )
        self._program = program
        self._cupy = cupy
        self._kernels = kernels
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._captured: Captured | None = None
        self._resident: Resident | None = None

    def load(self, pixels: NDArray[Any], labels: NDArray[np.int64]) -> Data:
        """Copy the data set to the device, pixels as they are."""
        return Data(self._cupy.array(pixels, order="C"), self._cupy.array(labels, dtype="int32"))

    def run(
        self, data: Data, steps: Steps, weights: Array, state: Mapping[str, Array]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Replay graphs, a section of the steps after the other."""
        parameters = (weights, *(state[name] for name in self._program.update.state_names))
        count = len(steps.bounds)
        losses, correct = np.zeros(count), np.zeros(count, np.int64)
        # Others may have changed the parameters on a stream of their own.
        self._cupy.cuda.get_current_stream().synchronize()
        with self._stream:
            try:
                section, launch = self._prepare(data, steps, parameters)
                length = len(section.bounds)
                for first in range(0, count, length):
                    part = slice(first, min(first + length, count))
                    losses[part], correct[part] = self._run_section(section, launch, steps, part)
            finally:  # whoever interrupts will look at the parameters
                self._stream.synchronize()
        return losses, correct

    def _prepare(
        self, data: Data, steps: Steps, parameters: tuple[Array, ...]
    ) -> tuple[Section, Callable[[int], None]]:
        """Return where the steps of a section are put, and what launches so many of them."""
        # Not the largest of these steps: however a training is cut, a step is computed in one way.
        batch_size = steps.batch_size
        weights, *_ = parameters
        if batch_size == 1 and (constants := persistent.one_by_one(self._program)):
            resident = self._get_resident()
            train = partial(self._train_one_by_one, data, resident, weights, constants)
            return resident.section, train
        if batch_size <= persistent.MOST_IMAGES and (
            constants := persistent.small_batches(self._program)
        ):
            resident = self._get_resident()
            train = partial(self._train_small_batches, data, resident, weights, constants)
            return resident.section, train
        captured = self._capture(data, batch_size, parameters)
        return captured.workspace.section, partial(self._replay, captured)

    def _run_section(
        self, section: Section, launch: Callable[[int], None], steps: Steps, part: slice
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Do some steps, and wait for them."""
        cupy, bounds = self._cupy, steps.bounds[part]
        count, begin, end = len(bounds), bounds[0, 0], bounds[-1, 1]
        section.rows[: end - begin] = cupy.asarray(steps.rows[begin:end].astype(np.int32))
        section.bounds[:count] = cupy.asarray((bounds - begin).astype(np.int32))
        section.rates[:count] = cupy.asarray(self._rates(steps, part))
        section.step[...] = 0
        launch(count)
        return cupy.asnumpy(section.losses[:count]), cupy.asnumpy(section.correct[:count])

    def _replay(self, captured: Captured, count: int) -> None:
        """Launch graphs that do so many steps together."""
        for length, graph in captured.graphs.items():
            for _ in range(count // length):
                graph.launch(stream=self._stream)
            count %= length

    def _train_one_by_one(
        self,
        data: Data,
        resident: Resident,
        weights: Array,
        constants: persistent.Constants,
        count: int,
    ) -> None:
        """Launch the kernel that does so many steps with one image each."""
        program, (convolution, linear) = self._program, self._program.stages
        assert convolution.pooling is not None
        filters, _ = _parameters(convolution, weights)
        resident.launches.train_one_by_one(
            data,
            resident.section,
            count,
            (filters, *_parameters(linear, weights)),
            shift=program.pixel_shift,
            weight_decay=program.update.settings["weight_decay"],
            ties=convolution.pooling.ties,
            constants=constants,
        )

    def _train_small_batches(
        self,
        data: Data,
        resident: Resident,
        weights: Array,
        constants: persistent.Constants,
        count: int,
    ) -> None:
        """Launch the kernel that does so many steps with few images each."""
        program, (first, second) = self._program, self._program.stages
        resident.launches.train_small_batches(
            data,
            resident.section,
            count,
            (*_parameters(first, weights), *_parameters(second, weights)),
            resident.parts,
            resident.barrier,
            shift=program.pixel_shift,
            weight_decay=program.update.settings["weight_decay"],
            constants=constants,
        )

    def _get_resident(self) -> Resident:
        """Return what kernels that do many steps need; made once."""
        if self._resident is None:
            dtype = self._program.dtype
            (hidden, *_) = self._program.stages[0].output_shape
            parts = 2 * persistent.BLOCKS * persistent.MOST_IMAGES * hidden
            self._resident = Resident(
                launches=Launches(self._kernels, dtype),
                section=self._new_section(MOST_STEPS_A_SECTION, persistent.MOST_IMAGES),
                parts=self._cupy.empty(parts, dtype),
                barrier=self._cupy.zeros(2, "uint32"),
            )
        return self._resident

    def _rates(self, steps: Steps, part: slice) -> NDArray[Any]:
        """Return the learning rate of each step, and what Adam multiplies its means by."""
        rule = self._program.update
        lr = steps.rates[part]
        rates = np.stack([lr, np.zeros_like(lr), np.zeros_like(lr)], axis=1)
        if rule.kind == "adam":
            number = steps.before + 1 + np.arange(part.start, part.stop)
            rates[:, 1] = lr / (1 - rule.settings["beta1"] ** number)
            rates[:, 2] = 1 / (1 - rule.settings["beta2"] ** number)
        return rates.astype(self._program.dtype)

    # ------------------------------------------------------------------------------------ capture

    def _capture(self, data: Data, largest: int, parameters: tuple[Array, ...]) -> Captured:
        """Return graphs for these arrays and batches; capturing takes as long as some steps."""
        found = self._captured
        if found is not None and found.workspace.capacity >= largest:
            same = [found.data.images is data.images]
            same += [one is other for one, other in zip(found.parameters, parameters, strict=True)]
            if all(same):
                return found
            workspace = found.workspace
        else:
            self._captured = found = None  # its memory may be needed
            workspace = self._workspace(data, largest)
        self._load_kernels(data, workspace, parameters)
        graphs = {}
        for length in (STEPS_A_GRAPH, 1):
            self._stream.begin_capture()
            try:
                for _ in range(length):
                    self._launch_step(data, workspace, parameters)
            finally:
                graph = self._stream.end_capture()
            graphs[length] = graph
        self._captured = Captured(graphs, workspace, data, parameters)
        return self._captured

    def _load_kernels(
        self, data: Data, workspace: Workspace, parameters: tuple[Array, ...]
    ) -> None:
        """Do a step without images, on copies: kernels cannot be loaded while one captures."""
        section = workspace.section
        section.bounds[...] = 0
        section.rates[...] = 0
        section.step[...] = 0
        copies = tuple(self._cupy.array(array) for array in parameters)
        self._launch_step(data, workspace, copies)
        self._stream.synchronize()  # before the copies go

    def _workspace(self, data: Data, capacity: int) -> Workspace:
        """Allocate all that steps with batches of up to `capacity` images need.

        Raises:
            MemoryError: the device has no room for it.
        """
        cupy = self._cupy
        free = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
        try:
            return self._allocate(data, capacity)
        except cupy.cuda.memory.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what could be allocated
            fixed, per_image = self._bytes_needed(data)
            raise MemoryError(
                f"a batch of {capacity} images needs {_megabytes(fixed + capacity * per_image)} on "
                f"the GPU, of which {_megabytes(free)} are free; the largest batch that fits is "
                f"about {max(0, free - fixed) // per_image}: choose a smaller one"
            ) from error

    def _allocate(self, data: Data, capacity: int) -> Workspace:
        program, empty = self._program, self._cupy.empty
        dtype, stages = program.dtype, program.stages
        steps = max(1, min(MOST_STEPS_A_SECTION, MOST_ROWS_A_SECTION // capacity))
        outputs, gradients = (
            tuple(empty((capacity, *stage.output_shape), dtype) for stage in stages)
            for _ in range(2)
        )
        masks = tuple(
            empty((capacity, *stage.output_shape), kind) if (kind := _mask_dtype(stage)) else None
            for stage in stages
        )
        return Workspace(
            capacity=capacity,
            section=self._new_section(steps, capacity),
            step=Step(
                batch=empty((capacity, data.images.shape[1]), dtype),
                labels=empty(capacity, "int32"),
                count=empty(1, "int32"),
                rates=empty(3, dtype),
                row_losses=empty(capacity, dtype),
                row_correct=empty(capacity, "int32"),
            ),
            outputs=outputs,
            gradients=gradients,
            masks=masks,
            grads=empty(program.parameters, dtype),
        )

    def _new_section(self, steps: int, capacity: int) -> Section:
        """Allocate room for so many steps with batches of up to `capacity` images."""
        empty = self._cupy.empty
        return Section(
            rows=empty(steps * capacity, "int32"),
            bounds=empty((steps, 2), "int32"),
            rates=empty((steps, 3), self._program.dtype),
            step=empty(1, "int32"),
            losses=empty(steps, "float64"),
            correct=empty(steps, "int32"),
        )

    def _bytes_needed(self, data: Data) -> tuple[int, int]:
        """Return how much memory steps take however large a batch is, and more for each image."""
        size, integer = np.dtype(self._program.dtype).itemsize, np.dtype("int32").itemsize
        per_image = size * (data.images.shape[1] + 1) + 2 * integer
        for stage in self._program.stages:
            kind = _mask_dtype(stage)
            mask_bytes = np.dtype(kind).itemsize if kind else 0
            per_image += math.prod(stage.output_shape) * (2 * size + mask_bytes)
        return size * self._program.parameters + integer * MOST_ROWS_A_SECTION, per_image

    # --------------------------------------------------------------------------------- one step

    def _launch_step(self, data: Data, workspace: Workspace, parameters: tuple[Array, ...]) -> None:
        """Launch the kernels of a step in their order."""
        program, step = self._program, workspace.step
        launches = Launches(self._kernels, program.dtype, count=step.count)
        weights, *state = parameters
        launches.begin_step(data, workspace.section, program.pixel_shift, step)
        last, has_head = len(program.stages) - 1, self._has_head()
        for index in range(last if has_head else last + 1):
            self._forward(launches, workspace, weights, index)
        if has_head:
            self._head(launches, workspace, weights)
        else:
            self._loss(launches, workspace)
        for index in reversed(range(last + 1)):
            self._backward(launches, workspace, weights, index, has_dx=has_head and index == last)
        rule = program.update
        launches.update(
            *(rule.kind, weights, workspace.grads, tuple(state), step.rates),
            settings=rule.settings,
        )
        launches.end_step(workspace.section, step)

    def _has_head(self) -> bool:
        """Say whether head.cu computes the last stage together with the loss."""
        last = self._program.stages[-1]
        (classes,) = last.output_shape
        return (last.kind, last.activation) == ("linear", "identity") and classes <= MOST_CLASSES

    def _head(self, launches: Launches, workspace: Workspace, weights: Array) -> None:
        """Compute the last stage, the loss, and the gradients that go back from there."""
        stages = self._program.stages
        index = len(stages) - 1
        x, dx, below = self._input(workspace, index), None, "identity"
        if index:
            dx, below = (
                workspace.gradients[index - 1].reshape(x.shape),
                stages[index - 1].activation,
            )
        weight, bias = _parameters(stages[index], weights)
        dlogits = workspace.gradients[index]
        launches.head(self._program.loss, x, weight, bias, workspace.step, dlogits, dx, below)

    def _loss(self, launches: Launches, workspace: Workspace) -> None:
        """Compute the loss, and the gradient of what the last stage's activation took."""
        step, last = workspace.step, self._program.stages[-1]
        logits, dlogits = workspace.outputs[-1], workspace.gradients[-1]
        launches.loss_and_gradient(
            self._program.loss, logits, step.labels, dlogits, step.row_losses, step.row_correct
        )
        if last.activation != "identity":
            launches.activation_backward(dlogits, logits, dlogits, last.activation)

    def _forward(
        self, launches: Launches, workspace: Workspace, weights: Array, index: int
    ) -> None:
        """Compute the outputs of a stage."""
        stage = self._program.stages[index]
        x, y, mask = self._input(workspace, index), workspace.outputs[index], workspace.masks[index]
        weight, bias = _parameters(stage, weights)
        if stage.kind == "linear":
            launches.linear(x, weight, bias, y, stage.activation)
        elif stage.kind == "conv2d":
            launches.conv2d(
                x, weight, bias, y, mask, _maps(stage), _filters(stage), stage.activation
            )
        elif stage.kind == "max_pool2d":
            assert stage.pooling is not None
            launches.max_pool2d(x, y, mask, _windows(stage), stage.pooling.ties)
        elif stage.kind == "avg_pool2d":
            launches.avg_pool2d(x, y, _windows(stage))
        else:
            launches.activation(x, y, stage.activation)

    def _backward(
        self,
        launches: Launches,
        workspace: Workspace,
        weights: Array,
        index: int,
        *,
        has_dx: bool,
    ) -> None:
        """Compute the gradients of a stage's parameters, and of what the stage before computed.

        Gradients are of what an activation took: the stage above takes its derivative along. The
        head has computed that of the stage before it already (`has_dx`).
        """
        stage = self._program.stages[index]
        x, dy = self._input(workspace, index), workspace.gradients[index]
        mask = workspace.masks[index]
        weight, _ = _parameters(stage, weights)
        dweight, dbias = _parameters(stage, workspace.grads)
        if stage.kind == "linear":
            launches.linear_backward_weight(dy, x, dweight, dbias)
        elif stage.kind == "conv2d":
            launches.conv2d_backward_weight(
                dy, mask, x, dweight, dbias, _maps(stage), _filters(stage)
            )
        if index == 0 or has_dx:
            return
        below = self._program.stages[index - 1].activation
        dx = workspace.gradients[index - 1].reshape(x.shape)
        if stage.kind == "linear":
            launches.linear_backward_x(dy, weight, x, dx, below)
            return
        if stage.kind == "conv2d":
            launches.conv2d_backward_x(
                dy, mask, weight, x, dx, _maps(stage), _filters(stage), below
            )
            return
        if stage.kind == "activation":
            launches.activation_backward(dy, x, dx, below)
            return
        if stage.kind == "max_pool2d":
            launches.max_pool2d_backward(dy, mask, dx, _windows(stage))
        else:
            launches.avg_pool2d_backward(dy, dx, _windows(stage))
        if below != "identity":
            launches.activation_backward(dx, x, dx, below)

    def _input(self, workspace: Workspace, index: int) -> Array:
        """Return what a stage takes, in the shape in which it takes it."""
        x = workspace.outputs[index - 1] if index else workspace.step.batch
        return x.reshape(workspace.capacity, *self._program.stages[index].input_shape)


def _parameters(stage: Stage, vector: Array) -> tuple[Array, Array | None]:
    """Return weight and bias of a stage as views of the parameter vector, or of its gradient."""
    if stage.weight is None:
        return None, None
    channels, side = stage.output_shape[0], stage.kernel_size
    shape: tuple[int, ...] = (stage.input_shape[0], channels)
    if stage.kind == "conv2d":
        shape = (channels, stage.input_shape[0], side, side)
    weight = vector[stage.weight : stage.weight + math.prod(shape)].reshape(shape)
    bias = None if stage.bias is None else vector[stage.bias : stage.bias + channels]
    return weight, bias


def _maps(stage: Stage) -> Maps:
    channels, height, width = stage.input_shape
    return Maps(channels, height, width, stage.output_shape[0], stage.padding)


def _filters(stage: Stage) -> Filters:
    return Filters(stage.kernel_size, None if stage.pooling is None else stage.pooling.ties)


def _windows(stage: Stage) -> Windows:
    assert stage.pooling is not None
    _, height, width = stage.input_shape
    _, pooled_height, pooled_width = stage.output_shape
    size, stride = stage.pooling.size, stage.pooling.stride
    return Windows(height, width, pooled_height, pooled_width, size, stride)


def _mask_dtype(stage: Stage) -> str:
    """Return the dtype of a stage's tie masks; empty where it has none."""
    if stage.pooling is None or stage.kind == "avg_pool2d":
        return ""
    return "uint8" if stage.pooling.size**2 <= 8 else "int64"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
