"""Denormal numbers count as 0 in compiled training, and only there."""

import re
from typing import Any

import numpy as np
import pytest
from llvmlite import binding as llvm
from llvmlite import ir

from backends import create_optimizer
from backends.numba.backend import NumbaBackend
from backends.numba.kernels.denormals import emit_read, emit_write
from mnist_accel.data import Dataset
from mnist_accel.recipes.models import create_model
from mnist_accel.training.trainer import Trainer
from tests.backends.test_barrier import ARM

DENORMAL = np.float32(1e-39)


def flushes_denormals() -> bool:
    """Return whether this thread computes 0 from a denormal, whose bits a comparison may hide."""
    product: np.ndarray[Any, Any] = DENORMAL * np.ones(1, np.float32)
    return int(product.view(np.uint32)[0]) == 0


def is_denormal(array: np.ndarray[Any, Any]) -> bool:
    """Return whether an array of float32 has a denormal: all bits of the exponent are 0."""
    bits = array.view(np.uint32)
    return bool(((bits & 0x7F800000 == 0) & (bits & 0x7FFFFF != 0)).any())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("wakes_threads")
def test_unused_weights_have_no_denormal_mean_of_gradients(mnist: Dataset, threads: int) -> None:
    backend = NumbaBackend()
    backend.threads = threads
    trainer = Trainer(create_model("two-layer", backend=backend), "adam", batch_size=16)
    images = mnist.x_train[:64].copy()
    trainer.fit(images, mnist.t_train[:64], epochs=2)
    images[:] = 0  # the gradients of the first layer are now 0, so their means fall by a tenth
    trainer.fit(images, mnist.t_train[:64], epochs=300)
    assert not any(is_denormal(array) for array in trainer.optimizer_state.values())
    assert not flushes_denormals()
    if threads == 2:
        assert not backend._executor().submit(flushes_denormals).result()


def test_an_update_alone_flushes_denormals() -> None:
    weights, grads = np.ones(100, np.float32), np.zeros(100, np.float32)
    rule = create_optimizer("adam", lr=0.1)
    state = {
        "mean": np.full(100, 1.2e-38, np.float32),
        "square_mean": np.full(100, 1.2e-38, np.float32),
    }
    NumbaBackend().update(rule, weights, grads, state, lr=0.1, step=5)
    assert not is_denormal(state["mean"])
    assert not flushes_denormals()


def test_denormals_are_recognized() -> None:
    assert is_denormal(np.array([0, 1, DENORMAL], np.float32))
    assert not is_denormal(np.array([0, 1, np.finfo(np.float32).tiny], np.float32))


def test_code_for_arm_sets_its_control_register() -> None:
    int64 = ir.IntType(64)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(int64, []), "flush")
    builder = ir.IRBuilder(function.append_basic_block())
    before = emit_read(builder, is_arm=True)
    emit_write(builder, builder.or_(before, ir.Constant(int64, 1 << 24)), is_arm=True)
    builder.ret(before)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(ARM).create_target_machine()
    code = str(machine.emit_assembly(llvm.parse_assembly(str(module))))
    assert re.search(r"mrs\s+(x\d+), fpcr.*orr\s+.*0x1000000.*msr\s+fpcr, x\d+", code, re.I | re.S)
