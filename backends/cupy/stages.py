"""Sizes and parameters of the stages of a program, as the kernels take them."""

import math

from backends.cupy.launch.conv_shape import ConvShape
from backends.cupy.launch.pooling import PoolShape, mask_dtype
from backends.operations.common import Array
from backends.program import Stage


def conv_shape_of(stage: Stage) -> ConvShape:
    """Return the sizes of a convolution."""
    channels, height, width = stage.input_shape
    return ConvShape(
        channels=channels,
        height=height,
        width=width,
        filters=stage.output_shape[0],
        kernel_size=stage.kernel_size,
        padding=stage.padding,
        pool=1 if stage.pooling is None else 2,
    )


def pool_shape_of(stage: Stage) -> PoolShape:
    """Return the sizes of a pooling."""
    assert stage.pooling is not None
    _, height, width = stage.input_shape
    _, cell_rows, cell_columns = stage.output_shape
    size, stride = stage.pooling.size, stage.pooling.stride
    return PoolShape(height, width, cell_rows, cell_columns, size, stride)


def mask_dtype_of(stage: Stage) -> str | None:
    """Return the dtype of a stage's tie masks; None without max-pooling."""
    if stage.pooling is None or stage.kind == "avg_pool2d":
        return None
    return mask_dtype(stage.pooling.size)


def parameters_of(stage: Stage, vector: Array) -> tuple[Array | None, Array | None]:
    """Return weight and bias of a stage as views of the parameter vector."""
    if stage.weight is None:
        return None, None
    outputs, size = stage.output_shape[0], stage.kernel_size
    shape: tuple[int, ...] = (stage.input_shape[0], outputs)
    if stage.kind == "conv2d":
        shape = (outputs, stage.input_shape[0], size, size)
    weight = vector[stage.weight : stage.weight + math.prod(shape)].reshape(shape)
    bias = None if stage.bias is None else vector[stage.bias : stage.bias + outputs]
    return weight, bias
