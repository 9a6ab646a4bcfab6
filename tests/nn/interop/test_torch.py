"""Networks from and to PyTorch."""

import numpy as np
import pytest

import mnist_accel as ma
from backends import ACTIVATIONS
from mnist_accel.nn.layers import Activation, Dropout, Flatten, Linear, ReLU
from mnist_accel.nn.losses import Quadratic, SoftmaxCrossEntropy, SquaredError

torch = pytest.importorskip("torch", reason="needs PyTorch")


@pytest.mark.parametrize("recipe", ma.RECIPES)
def test_a_module_computes_the_same_logits_and_comes_back_unchanged(recipe):
    model = ma.create_model(recipe, backend="numpy", seed=3)
    images = ma.load_dataset("digits").x_test[:50]
    module = model.to_torch()
    pixels = images.reshape(-1, *model.input_shape).astype(np.float32) / 255
    logits = module(torch.from_numpy(pixels + np.float32(model.pixel_shift)))
    assert np.allclose(logits.detach().numpy(), model.predict_logits(images), atol=1e-5)
    back = ma.Network.from_torch(
        module, input=model.input, backend="numpy", loss=model.loss,
    )  # fmt: skip
    assert back.describe() == model.describe()
    for name, array in model.state_dict().items():
        assert np.array_equal(back.state_dict()[name], array)


def test_a_module_of_torch_with_nested_parts_becomes_a_network():
    nn = torch.nn
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, stride=2)),
        nn.Identity(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 13 * 13, 6), nn.Tanh(),
        nn.Linear(6, 3), nn.Softmax(dim=1),
    ).eval()  # fmt: skip
    network = ma.Network.from_torch(module, input=ma.Pixels((1, 28, 28)), backend="numpy")
    images = ma.load_dataset("digits").x_test[:20]
    pixels = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    assert np.allclose(network.predict_proba(images), module(pixels).detach().numpy(), atol=1e-6)


def test_an_activation_that_occurs_twice_is_converted_twice():
    nn = torch.nn
    relu = nn.ReLU()
    module = nn.Sequential(nn.Linear(784, 8), relu, nn.Linear(8, 8), relu, nn.Linear(8, 3))
    network = ma.Network.from_torch(module, input=ma.Pixels((784,)), backend="numpy")
    assert network.describe().count("relu") == 2
    images = ma.load_dataset("digits").x_test[:20]
    logits = module(torch.from_numpy(images.reshape(-1, 784).astype(np.float32) / 255))
    assert np.allclose(network.predict_logits(images), logits.detach().numpy(), atol=1e-5)


def tied(kind):
    """Return a module of which two layers share a parameter."""
    nn = torch.nn
    first, second, last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    if kind == "the module":
        second = first
    elif kind == "the weight":
        second.weight = first.weight
    elif kind == "the bias":
        second.bias = first.bias
    elif kind == "the transposed weight":
        second.weight = nn.Parameter(first.weight.detach().T)
    return nn.Sequential(nn.Sequential(first, nn.ReLU()), second, last)


@pytest.mark.parametrize("kind", ["the module", "the weight", "the bias", "the transposed weight"])
def test_layers_that_share_a_parameter_are_named(kind):
    says = r"layers 0\.0\.(weight|bias) and 1\.\1 of the module share a parameter, which a network"
    with pytest.raises(ValueError, match=says):
        ma.Network.from_torch(tied(kind), input=ma.Features(8), backend="numpy")


def test_parameters_that_are_parts_of_one_array_are_not_shared():
    module = tied("nothing")
    vector = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    torch.nn.utils.vector_to_parameters(vector, module.parameters())
    network = ma.Network.from_torch(module, input=ma.Features(8), backend="numpy")
    assert np.array_equal(network.state_dict()["W1"], vector[:64].reshape(8, 8).T)


def hooked():
    from torch.nn.utils import prune

    module = torch.nn.Linear(784, 5)
    prune.l1_unstructured(module, "weight", amount=0.5)
    return module


class Residual(torch.nn.Sequential):
    """Computes more than its children."""

    def forward(self, x):
        return x + super().forward(x)


def test_weights_for_another_input_are_refused_with_the_layer():
    module = torch.nn.Sequential(torch.nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"layer 1 \(linear\) has W \(5, 3\), but .* needs \(2, 3"):
        ma.Network.from_torch(module, input=ma.Features(2), backend="numpy")


def test_the_activation_that_the_loss_contains_is_left_out_at_the_end():
    images = ma.load_dataset("digits").x_test[:20]
    module = torch.nn.Sequential(torch.nn.Linear(784, 3), torch.nn.Sigmoid())
    network = ma.Network.from_torch(
        module, input=ma.Pixels((784,)), backend="numpy", loss=Quadratic()
    )
    pixels = torch.from_numpy(images.reshape(-1, 784).astype(np.float32) / 255)
    assert np.allclose(network.predict_proba(images), module(pixels).detach().numpy(), atol=1e-6)
    module[1] = torch.nn.Softmax(dim=1)
    with pytest.raises(ValueError, match="ends in Softmax, but the outputs of the loss are"):
        ma.Network.from_torch(module, input=ma.Pixels((784,)), backend="numpy", loss=Quadratic())


def test_dropout_changes_no_logit_of_a_module():
    model = ma.Network([Dropout(0.5), Linear(3)], SoftmaxCrossEntropy(), input=ma.Pixels((784,)),
                       backend="numpy")  # fmt: skip
    images = ma.load_dataset("digits").x_test[:3]
    logits = model.to_torch()(torch.from_numpy(images.reshape(3, -1).astype(np.float32) / 255))
    assert np.allclose(logits.detach().numpy(), model.predict_logits(images), atol=1e-5)


def test_float64_stays_float64():
    module = torch.nn.Sequential(torch.nn.Linear(784, 3)).double()
    network = ma.Network.from_torch(module, input=ma.Pixels((784,)), backend="numpy")
    assert network.dtype == "float64"
    assert network.to_torch()[0].weight.dtype == torch.float64


def test_a_converted_network_trains_without_changing_the_module():
    module = torch.nn.Sequential(torch.nn.Linear(784, 10))
    before = module[0].weight.detach().numpy().copy()
    network = ma.Network.from_torch(module, input=ma.Pixels((784,)), backend="numpy")
    data = ma.load_dataset("digits")
    ma.Trainer(network, lr=0.1).fit(data.x_train, data.t_train, iterations=3)
    assert np.array_equal(module[0].weight.detach().numpy(), before)
    assert not np.array_equal(network.state_dict()["W1"], before.T)


UNSUPPORTED = {
    r"layer 1 of the module, GELU": [torch.nn.Linear(784, 5), torch.nn.GELU()],
    r"sizes must be equal in both directions, got \(3, 5\)": [torch.nn.Conv2d(1, 2, (3, 5))],
    "dilation": [torch.nn.Conv2d(1, 2, 3, dilation=2)],
    "give the padding as a number, not 'same'": [torch.nn.Conv2d(1, 2, 3, padding="same")],
    "ceil_mode": [torch.nn.MaxPool2d(3, ceil_mode=True)],
    "divisor_override of pooling": [torch.nn.AvgPool2d(3, divisor_override=2)],
    "return_indices": [torch.nn.MaxPool2d(3, return_indices=True)],
    r"its weight is torch\.bfloat16": [torch.nn.Linear(784, 5, dtype=torch.bfloat16)],
    r"0\.weight of the module is on the device meta": [torch.nn.Linear(784, 5, device="meta")],
    r"layer 0\.0 of the module": [torch.nn.Sequential(torch.nn.BatchNorm1d(3))],
    "must flatten all dimensions": [torch.nn.Flatten(0)],
    r"layer 1 of the module, Residual": [torch.nn.Identity(), Residual(torch.nn.Linear(784, 784))],
    r"layer 0 of the module, Linear, has forward hooks, .*; remove them first": [hooked()],
    r"layer 0 of the module, ParametrizedLinear": [
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(784, 5))
    ],
    r"ends in Softmax\(dim=0\), expected dim=1": [torch.nn.Linear(784, 5), torch.nn.Softmax(0)],
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_the_first_unsupported_layer_is_named(message):
    module = torch.nn.Sequential(*UNSUPPORTED[message])
    with pytest.raises(ValueError, match=message):
        ma.Network.from_torch(module, input=ma.Pixels((784,)), backend="numpy")


@pytest.mark.parametrize("module", [torch.nn.Linear(3, 3), Residual(torch.nn.Linear(3, 3))])
def test_something_that_is_no_sequential_is_refused(module):
    name = type(module).__name__
    with pytest.raises(TypeError, match=rf"expected a torch\.nn\.Sequential, got {name}"):
        ma.Network.from_torch(module, input=ma.Pixels((3,)), backend="numpy")


def test_a_layer_of_your_own_is_named():
    class Mine(Dropout):
        kind = "mine"

    model = ma.Network([Flatten(), Linear(3), ReLU(), Mine(0.1), Linear(3)], SoftmaxCrossEntropy(),
                       input=ma.Pixels((1, 28, 28)), backend="numpy")  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 4 \(mine\) has no form in PyTorch"):
        model.to_torch()


def test_an_activation_of_your_own_is_named(own_tables):
    ACTIVATIONS["square"] = ACTIVATIONS["relu"]
    model = ma.Network([Linear(3), Activation("square"), Linear(3)], SoftmaxCrossEntropy(),
                       input=ma.Pixels((784,)), backend="numpy")  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 2 \(square\) has no form in PyTorch"):
        model.to_torch()


def test_a_regression_on_features_comes_back_with_its_outputs():
    features = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    model = ma.Network([Linear(3)], SquaredError(), input=ma.Features(7), backend="numpy")
    module = model.to_torch()
    back = ma.Network.from_torch(module, input=model.input, backend="numpy", loss=model.loss)
    outputs = module(torch.from_numpy(features)).detach().numpy()
    assert np.allclose(outputs, model.predict(features), atol=1e-6)
    assert np.array_equal(back.predict(features), model.predict(features))
