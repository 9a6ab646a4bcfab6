"""The fused classifier gives the same results as a sequence of kernels of `kernels/naive/`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from backends.cupy.launch import fused_classifier
from backends.cupy.launch.fused_classifier import Classifier, ClassifierConv, ClassifierLayer
from backends.cupy.launch.graph_batch import GraphBatch
from backends.cupy.launch.launcher import Launcher
from tests.support.closeness import assert_close
from tests.support.naive_kernels import CONVOLUTIONS, IMAGES, Setting, arrays_of

pytestmark = pytest.mark.emulated


def naive_classifier(
    setting: Setting, kind: str, classifier: Classifier, parameters: Any, batch: GraphBatch
) -> dict[str, Any]:
    """Return what the fused classifier must compute; a sequence of naive kernels computes it."""
    inputs, logits = forward(setting, classifier, parameters)
    images, classes = logits.shape
    labels = setting.empty(images, dtype="int32")
    labels[...] = batch.dataset.labels[batch.chunk.rows[2 : 2 + images]]
    found = {
        "losses": setting.empty(images),
        "correct": setting.empty(images, dtype="int32"),
        "dlogits": setting.empty(images, classes),
    }
    sizes = {"images": images, "classes": classes}
    setting.naive("loss", images, kind=kind, logits=logits, labels=labels, **sizes, **found)
    return {**found, **backward(setting, classifier, parameters, inputs, found["dlogits"])}


def forward(setting: Setting, classifier: Classifier, parameters: Any) -> tuple[list[Any], Any]:
    """Return the inputs of the linear layers, and the logits."""
    inputs, y = [], classifier.layers[0].x
    activations = [*(layer.activation for layer in classifier.layers[1:]), "identity"]
    for layer, activation in zip(classifier.layers, activations, strict=True):
        x, y = y, setting.empty(len(y), layer.outputs)
        inputs.append(x)
        arguments = {"x": x, "bias": bias_of(layer, parameters), "activation": activation, "y": y}
        setting.naive(
            "linear", y.size, images=len(x), **linear_arguments(layer, parameters), **arguments
        )
    return inputs, y


def backward(
    setting: Setting, classifier: Classifier, parameters: Any, inputs: list[Any], dlogits: Any
) -> dict[str, Any]:
    """Return the gradient of the input of each layer."""
    found, dy, images = {}, dlogits, len(dlogits)
    for index, layer in reversed(list(enumerate(classifier.layers))):
        dx = setting.empty(*inputs[index].shape)
        arguments = {"dy": dy, "x": inputs[index], "activation": layer.activation, "dx": dx}
        weights = linear_arguments(layer, parameters)
        setting.naive("linear_backward_x", dx.size, images=images, **weights, **arguments)
        found[f"linear {index}"] = dy = dx
    for conv in classifier.convolutions:
        dx, shape = setting.empty(*conv.x.shape), conv.shape
        count = shape.filters * shape.channels * shape.kernel_size**2
        arguments = {"dy": dy.reshape(conv.dy.shape), "mask": conv.mask, "x": conv.x, "dx": dx}
        arguments |= {"activation": conv.activation, "conv": shape, "images": images}
        weight = parameters[conv.weight : conv.weight + count]
        setting.naive("conv2d_backward_x", dx.size, weight=weight, **arguments)
        found["convolution"] = dx
    return found


def linear_arguments(layer: ClassifierLayer, parameters: Any) -> dict[str, Any]:
    weight = parameters[layer.weight : layer.weight + layer.inputs * layer.outputs]
    return {"weight": weight, "inputs": layer.inputs, "outputs": layer.outputs}


def bias_of(layer: ClassifierLayer, parameters: Any) -> Any:
    return None if layer.bias < 0 else parameters[layer.bias : layer.bias + layer.outputs]


def classifier_layers(setting: Setting, widths: Sequence[int], images: int) -> list[Any]:
    """Return linear layers of these widths whose parameters are adjacent in the vector."""
    found, offset = [], 0
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        has_bias = number != 1
        found.append(
            ClassifierLayer(
                x=setting.random(images, inputs),
                dx=setting.empty(images, inputs),
                weight=offset,
                bias=offset + inputs * outputs if has_bias else -1,
                inputs=inputs,
                outputs=outputs,
                activation=("relu", "tanh", "sigmoid")[number % 3],
            )
        )
        offset += (inputs + 1) * outputs
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("images", [5, 33])
@pytest.mark.parametrize("kind", ["softmax_cross_entropy", "binary_cross_entropy", "quadratic"])
def test_fused_classifier_matches_naive_kernels(
    tiled_setting: Setting, kind: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warps compute the three linear layers in float64, tiles compute them in float32."""
    monkeypatch.setattr(fused_classifier, "TARGET_BLOCKS", 2)
    stack = classifier_layers(tiled_setting, (30, 70, 40, 10), images)
    classifier = Classifier(tiled_setting.dtype, images, stack, [])
    assert classifier.uses_tiles == (tiled_setting.dtype == "float32")
    check_classifier(tiled_setting, kind, classifier, parameters=6000)


def test_fused_classifier_with_convolution_matches_naive_kernels(setting: Setting) -> None:
    shape = CONVOLUTIONS[0]
    x, weight, _, y, mask = arrays_of(setting, shape)
    (layer,) = classifier_layers(setting, (y[0].size, 10), IMAGES)
    layer = ClassifierLayer(**{**vars(layer), "x": y.reshape(IMAGES, -1)})
    offset = (layer.inputs + 1) * layer.outputs
    conv = ClassifierConv(
        x, layer.dx.reshape(y.shape), mask, setting.empty(*x.shape), offset, "tanh", shape
    )
    classifier = Classifier(setting.dtype, IMAGES, [layer], [conv])
    check_classifier(setting, "softmax_cross_entropy", classifier, offset + weight.size)


def check_classifier(setting: Setting, kind: str, classifier: Classifier, parameters: int) -> None:
    images, classes = classifier.batch_size, classifier.layers[-1].outputs
    batch = setting.graph_batch(images, classes)
    weights, dlogits = setting.random(parameters), setting.empty(images, classes)
    weights *= 0.1  # keeps the logits small, because the naive loss kernel may overflow
    launcher = Launcher(setting.kernels, setting.dtype, graph_batch=batch)
    arguments: Any = kind, classifier, weights, batch
    expected = naive_classifier(setting, *arguments)
    fused_classifier.fused_classifier(launcher, *arguments, dlogits)
    got = {
        "losses": batch.state.image_losses,
        "correct": batch.state.image_correct,
        "dlogits": dlogits,
        **{f"linear {i}": layer.dx for i, layer in enumerate(classifier.layers)},
    }
    if classifier.convolutions:
        got["convolution"] = classifier.convolutions[0].dx
    assert got.keys() == expected.keys()
    for name in got:
        assert_close(got[name], expected[name], dtype=setting.dtype, terms=1000, label=name)
