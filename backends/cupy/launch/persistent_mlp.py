"""Launch of kernels/persistent/persistent_mlp.cu, and the programs that it can train."""

from backends.cupy.launch.fused_classifier import computes_logits
from backends.cupy.launch.graph_batch import Chunk, DeviceDataset
from backends.cupy.launch.launcher import Launcher, c_type, ceil_div, fits_shared_memory
from backends.cupy.launch.losses import NUMBERS
from backends.cupy.loader import Constant
from backends.operations.common import Array
from backends.program import TrainingProgram

THREADS = 256
BLOCKS = 8  # the largest cluster that every GPU with clusters supports
MIN_CLUSTER_CAPABILITY = 90
MAX_IMAGES = 16  # largest batch


def constants_for(
    program: TrainingProgram, *, capability: int, multiprocessors: int
) -> dict[str, Constant] | None:
    """Return the options of the kernel; None if it cannot train the program.

    Args:
        program: the program.
        capability: compute capability of the GPU, such as 90 for 9.0.
        multiprocessors: multiprocessors of the GPU. All blocks must be resident together, and each
            multiprocessor has room for at least one.
    """
    kinds = [stage.kind for stage in program.stages]
    if kinds != ["linear", "linear"] or program.update.kind != "sgd" or program.l2:
        return None
    if program.loss == NUMBERS:
        return None
    first, second = program.stages
    (inputs,), (hidden,), (outputs,) = first.input_shape, first.output_shape, second.output_shape
    per_block = ceil_div(inputs, BLOCKS)
    # The members of struct `Shared`.
    reals = per_block * hidden + hidden * outputs + hidden + outputs
    reals += MAX_IMAGES * (per_block + 2 * hidden + outputs + 1)
    fits = (
        multiprocessors >= BLOCKS
        and first.bias is not None
        and second.bias is not None
        and computes_logits(second)
        and fits_shared_memory(reals, program.dtype, more_bytes=4 * MAX_IMAGES)
    )
    if not fits:
        return None
    return {
        **cluster_constants(capability),
        "ACTIVATION": first.activation.upper(),
        "LOSS": program.loss.upper(),
        "BLOCKS": BLOCKS,
        "BATCH": MAX_IMAGES,
        "INPUTS": inputs,
        "HIDDEN": hidden,
        "OUTPUTS": outputs,
        "THREADS": THREADS,
    }


def cluster_constants(capability: int) -> dict[str, Constant]:
    """Return the option of grid_barrier.cuh: a cluster if the GPU supports it, else a grid."""
    return {"CLUSTER": 1} if capability >= MIN_CLUSTER_CAPABILITY else {}


def partial_sums_size(program: TrainingProgram) -> int:
    """Return the number of elements of the partial sums, which are double-buffered."""
    (hidden,) = program.stages[0].output_shape
    return 2 * BLOCKS * MAX_IMAGES * hidden


def train(
    launcher: Launcher,
    program: TrainingProgram,
    dataset: DeviceDataset,
    chunk: Chunk,
    steps: int,
    parameters: tuple[Array, Array, Array, Array],
    exchange: tuple[Array, Array],
    constants: dict[str, Constant],
) -> None:
    """Run the first `steps` steps of a chunk, each with at most `MAX_IMAGES` images.

    `parameters` are weights and bias of both layers, changed in place; `exchange` are the partial
    sums and the two uint32 of the grid barrier, 0 before the first launch; `constants` is the
    result of `constants_for`.
    """
    weight1, bias1, weight2, bias2 = parameters
    partial_sums, barrier = exchange
    kernel = launcher.kernel(
        "persistent/persistent_mlp",
        "persistent_mlp",
        {"PIXEL": c_type(dataset.images), **constants},
        cooperative="CLUSTER" not in constants,
    )
    kernel(
        (BLOCKS,),
        THREADS,
        images=dataset.images,
        labels=dataset.labels,
        rows=chunk.rows,
        bounds=chunk.bounds,
        rates=chunk.rates,
        settings={
            "steps": steps,
            "pixel_shift": program.pixel_shift,
            "weight_decay": program.update.settings["weight_decay"],
        },
        member_stride=launcher.member_stride,
        weight1=weight1,
        bias1=bias1,
        weight2=weight2,
        bias2=bias2,
        partial_sums=partial_sums,
        barrier=barrier,
        losses=chunk.losses,
        correct=chunk.correct,
        diverged=chunk.diverged,
    )
