"""The division of a program's stages among the kernels of a graph step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends.cupy.launch import fused_cnn
from backends.cupy.launch.activations import ACTIVATIONS
from backends.cupy.launch.conv_shape import conv_shape_of
from backends.cupy.launch.convolution import MAX_KERNEL_SIZE
from backends.cupy.launch.fused_classifier import MAX_WEIGHTS, computes_logits
from backends.cupy.launch.fused_mlp import FusedMlp, fused_mlp_for
from backends.cupy.launch.fused_shallow_cnn import FusedShallowCnn, fused_shallow_cnn_for
from backends.cupy.launch.graph_batch import DeviceDataset
from backends.cupy.launch.losses import LOSSES, NUMBERS
from backends.cupy.launch.tensor_linear import can_compute, split_images
from backends.cupy.launch.tiles import Tile
from backends.cupy.launch.updates import RULES, SETTINGS
from backends.cupy.launch.wgrad_update import (
    MAX_LAYERS,
    SplitK,
    filter_tile_for,
    narrow_columns,
    split_conv,
    split_linear,
    tile_for_gradients,
)
from backends.operations.common import Array
from backends.program import (
    ANY,
    CompiledKinds,
    NotCompiledError,
    Pooling,
    Stage,
    TrainingProgram,
)

COMPILED = CompiledKinds(
    stages={
        "linear": {"units": ANY, "bias": ANY},
        # Every convolution is uniform, because all outputs are summed in the same order.
        "conv2d": {
            "channels": ANY,
            "kernel_size": range(1, MAX_KERNEL_SIZE + 1),
            "stride": (1,),
            "padding": ANY,
            "bias": ANY,
            "uniform": ANY,
        },
        "max_pool2d": {"size": ANY, "stride": ANY, "ties": ANY},
        "avg_pool2d": {"size": ANY, "stride": ANY},
        "activation": {},
    },
    activations=ACTIVATIONS,
    losses=LOSSES,
    updates=RULES,
    update_settings=SETTINGS,
    l2=True,
)


@dataclass(frozen=True)
class Plan:
    """The stages of a graph step and the kernels that compute them.

    Attributes:
        program: network and optimizer.
        stages: the stages of the program. The first stage gathers images from the data set; if the
            program's first stage cannot, an identity is inserted before it.
        has_classifier: whether the fused classifier computes the last stages.
        first_trainable: index of the first stage with parameters. Its input needs no gradient.
        capability: compute capability of the GPU, such as 90 for 9.0.
        pixels: dtype of the data set.
    """

    program: TrainingProgram
    stages: Sequence[Stage]
    has_classifier: bool
    first_trainable: int
    capability: int
    pixels: str = ""

    @property
    def classifier_begin(self) -> int:
        """Index of the first stage that the fused classifier computes.

        If there is no fused classifier, it is the number of stages.
        """
        count = len(self.stages)
        if not self.has_classifier:
            return count
        first = count - 1
        # Stage 0 is excluded, because the fused classifier does not gather images.
        while first > 1 and _is_small_linear(self.stages[first - 1]):
            first -= 1
        return first

    @property
    def backward_end(self) -> int:
        """Index after the last stage whose input gradient is computed by a separate launch.

        The fused classifier computes the input gradients of its own stages. If a convolution is
        directly before them, it also computes those of this convolution and of the consecutive
        convolutions before it that have the same filter size.
        """
        first = self.classifier_begin
        size = self.stages[first - 1].kernel_size  # 0 unless the stage is a convolution
        if self.has_classifier and size:
            while first - 1 > self.first_trainable and self.stages[first - 1].kernel_size == size:
                first -= 1
        return first

    def for_pixels(self, dataset: DeviceDataset) -> "Plan":
        """Return the plan for the pixels of a data set."""
        return replace(self, pixels=str(dataset.images.dtype))

    def fused_mlp(self, batch_size: int) -> FusedMlp | None:
        """Return the sizes of the kernel that computes all stages; None if other kernels do."""
        return fused_mlp_for(self.program, batch_size, capability=self.capability)

    def fused_cnn(self, batch_size: int) -> fused_cnn.FusedCnn | None:
        """Return the sizes of the kernel that computes all stages; None if other kernels do."""
        if not self.has_classifier:
            return None
        return fused_cnn.fused_cnn_for(
            self.program, self.stages, batch_size, capability=self.capability
        )

    def fused_shallow_cnn(self, batch_size: int) -> FusedShallowCnn | None:
        """Return the sizes of the kernel that computes all stages; None if other kernels do."""
        return fused_shallow_cnn_for(self.program, batch_size) if self.has_classifier else None

    def has_complete_sums(self, index: int, batch_size: int) -> bool:
        """Return whether `wgrad_update` only adds partial sums of a stage's weight gradient."""
        if self.stages[index].kind == "conv2d":
            kernels = self.fused_cnn(batch_size), self.fused_shallow_cnn(batch_size)
            return kernels != (None, None)
        return index == 0 and self.uses_tensor_cores(batch_size)

    def uses_tensor_cores(self, batch_size: int) -> bool:
        """Return whether tensor cores compute the first stage and its weight gradient."""
        capability, pixels = self.capability, self.pixels
        return can_compute(
            self.program, self.stages[0], batch_size, capability=capability, pixels=pixels
        )

    @property
    def narrow_columns(self) -> int:
        """Number of outputs of the layers whose weight gradients are computed without tiles."""
        linear = (stage for stage in self.stages if stage.kind == "linear")
        return narrow_columns(stage.output_shape[0] for stage in linear)

    def splits(self, batch_size: int) -> list[SplitK | None]:
        """Return the division of each stage's weight gradient among blocks.

        An element is None if the stage has no parameters.
        """
        filter_tile = filter_tile_for(*(stage.kernel_size for stage in self.stages))
        tile, narrow = self.tile(batch_size), self.narrow_columns
        cnn = self.fused_shallow_cnn(batch_size)

        def split(index: int, stage: Stage) -> SplitK | None:
            if stage.weight is None:
                return None
            if stage.kind == "linear":
                inputs, outputs = stage.input_shape[0], stage.output_shape[0]
                if index == 0 and self.uses_tensor_cores(batch_size):
                    return split_images(inputs, outputs, batch_size)
                return split_linear(inputs, outputs, batch_size, tile=tile, narrow=narrow)
            if cnn is not None:
                return cnn.split
            if self.has_complete_sums(index, batch_size):
                return fused_cnn.split_images(conv_shape_of(stage), batch_size)
            return split_conv(
                conv_shape_of(stage),
                batch_size,
                cells=math.prod(stage.output_shape[1:]),
                filter_tile=filter_tile,
                threads=tile.threads,
            )

        return [split(index, stage) for index, stage in enumerate(self.stages)]

    def tile(self, batch_size: int) -> Tile:
        """Return the tile size for the weight gradients that `wgrad_update` computes."""
        first = 1 if self.uses_tensor_cores(batch_size) else 0
        sizes = [
            (stage.input_shape[0], stage.output_shape[0])
            for stage in self.stages[first:]
            if stage.kind == "linear"
        ]
        narrow = self.narrow_columns
        return tile_for_gradients(self.program.dtype, sizes, batch_size, narrow=narrow)


def plan_for(program: TrainingProgram, *, capability: int, is_weighted: bool = False) -> Plan:
    """Return the plan of a program.

    Args:
        program: the program.
        capability: compute capability of the GPU, such as 90 for 9.0.
        is_weighted: whether the examples have weights, which the fused classifier cannot read.

    Raises:
        NotCompiledError: the program has a part or a size that no kernel supports.
    """
    COMPILED.check(program)
    layers = sum(stage.weight is not None for stage in program.stages)
    if not 1 <= layers <= MAX_LAYERS:
        raise NotCompiledError(
            f"graph steps support 1 to {MAX_LAYERS} layers with parameters, not {layers}"
        )
    is_fused = program.loss != NUMBERS and not is_weighted
    has_classifier = is_fused and computes_logits(program.stages[-1])
    stages = with_gathering_stage(program.stages, has_classifier=has_classifier)
    first_trainable = next(index for index, stage in enumerate(stages) if stage.weight is not None)
    return Plan(program, stages, has_classifier, first_trainable, capability)


def with_gathering_stage(stages: tuple[Stage, ...], *, has_classifier: bool) -> tuple[Stage, ...]:
    """Return the stages, after an identity that gathers images if the first stage cannot."""
    first = stages[0]
    is_fused = has_classifier and len(stages) == 1
    if first.kind in ("linear", "conv2d", "activation") and not is_fused:
        return stages
    return (Stage("activation", first.input_shape, first.input_shape), *stages)


def _is_small_linear(stage: Stage) -> bool:
    """Return whether a stage is a linear layer with at most `MAX_WEIGHTS` weights."""
    weights = math.prod((*stage.input_shape, *stage.output_shape))
    return stage.kind == "linear" and weights <= MAX_WEIGHTS


def max_pooling_of(stage: Stage) -> Pooling | None:
    """Return the max-pooling of a stage, fused or not; None if it has none."""
    return None if stage.kind == "avg_pool2d" else stage.pooling


def parameters_of(stage: Stage, vector: Array) -> tuple[Array | None, Array | None]:
    """Return weight and bias of a stage as views of the parameter vector; None if it has none."""
    if stage.weight is None:
        return None, None
    outputs, size = stage.output_shape[0], stage.kernel_size
    shape: tuple[int, ...] = (stage.input_shape[0], outputs)
    if stage.kind == "conv2d":
        shape = (outputs, stage.input_shape[0], size, size)
    weight = vector[stage.weight : stage.weight + math.prod(shape)].reshape(shape)
    bias = None if stage.bias is None else vector[stage.bias : stage.bias + outputs]
    return weight, bias
