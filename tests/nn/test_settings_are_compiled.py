"""Each setting of a layer, loss or optimizer is compiled correctly, or training is eager."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

import mnist_accel as ma
from backends import ACTIVATIONS, LOSSES, OPTIMIZERS, Backend, NotCompiledError, UpdateRule
from backends.cupy import plan as cupy_plan
from backends.cupy.launch.updates import rule_settings
from backends.numba import layout as numba_layout
from backends.numba import single_update
from mnist_accel.nn import (
    LAYERS,
    SGD,
    Activation,
    AdaGrad,
    Adam,
    AdamW,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    Network,
    RMSProp,
    SoftmaxCrossEntropy,
)

SIDE, STEPS = 12, 4
MOMENTUM = SGD(lr=0.1, momentum=0.5)
IMAGES = np.random.default_rng(0).integers(0, 256, (24, SIDE * SIDE)).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 24)

# Each layer with each of its settings changed.
LAYER_SETTINGS: dict[type[Layer], tuple[Layer, dict[str, list[Any]]]] = {
    Linear: (Linear(7), {"units": [1, 9], "bias": [False]}),
    Conv2d: (
        Conv2d(3, 3),
        {
            "channels": [1, 9],
            "kernel_size": [1, 2, 5, 12],
            "stride": [2, 3],
            "padding": [1, 3],
            "bias": [False],
            "uniform": [True],
        },
    ),
    MaxPool2d: (
        MaxPool2d(),
        {"size": [1, 3, 7], "stride": [1, 2, 3, 5], "ties": ["all"]},
    ),
    AvgPool2d: (AvgPool2d(), {"size": [1, 3, 9], "stride": [1, 2, 3, 5]}),
    Flatten: (Flatten(), {}),
    Dropout: (Dropout(0.5), {"rate": [0.0, 0.9]}),
}
RULE_SETTINGS: dict[UpdateRule, dict[str, list[Any]]] = {
    SGD(lr=0.1, momentum=0.5): {
        "lr": [0.01],
        "weight_decay": [0.3],
        "momentum": [0.0, 0.9],
        "nesterov": [True],
    },
    AdaGrad(): {"lr": [0.1], "weight_decay": [0.3], "eps": [0.5]},
    RMSProp(): {"lr": [0.1], "weight_decay": [0.3], "decay": [0.5], "eps": [0.5]},
    Adam(): {
        "lr": [0.1],
        "weight_decay": [0.3],
        "beta1": [0.5],
        "beta2": [0.5],
        "eps": [0.5],
    },
    AdamW(): {
        "lr": [0.1],
        "weight_decay": [0.0, 0.3],
        "beta1": [0.5],
        "beta2": [0.5],
        "eps": [0.5],
    },
}
LAYER_CASES = [
    pytest.param(replace(layer, **{name: value}), id=f"{kind.__name__}-{name}={value}")
    for kind, (layer, settings) in LAYER_SETTINGS.items()
    for name, values in settings.items()
    for value in values
]
RULE_CASES = [
    pytest.param(replace(rule, **{name: value}), id=f"{type(rule).__name__}-{name}={value}")
    for rule, settings in RULE_SETTINGS.items()
    for name, values in settings.items()
    for value in values
]
# Layers before the tested layer, some of which a backend fuses with it.
STACKS: dict[str, list[Layer]] = {
    "first": [],
    "after a convolution": [Conv2d(2, 1, uniform=True)],
    "after a convolution and an activation": [Conv2d(2, 1, uniform=True), Activation("tanh")],
}


def layers_with(layer: Layer, before: list[Layer]) -> list[Layer]:
    """Return a network that contains the layer, with an activation and pooling after it."""
    if isinstance(layer, Linear):
        return [*before, Flatten(), layer, Activation("tanh"), Linear(10)]
    after = [Activation("tanh"), MaxPool2d(1)] if isinstance(layer, Conv2d) else []
    return [*before, layer, *after, Flatten(), Linear(10)]


def network(layers: list[Layer], backend: Backend | str, **options: Any) -> Network:
    return Network(
        layers,
        options.pop("loss", SoftmaxCrossEntropy()),
        input=options.pop("input", ma.Pixels((1, SIDE, SIDE))),
        backend=ma.get_backend(backend) if isinstance(backend, str) else backend,
        dtype="float64",
        **options,
    )


def assert_same_results(
    layers: list[Layer], rule: UpdateRule = MOMENTUM, **options: Any
) -> ma.Trainer:
    """Train and predict on numba and eagerly on numpy, compare, and return numba's trainer."""
    trainers = []
    for backend in ("numba", "numpy"):
        model = network(layers, backend, **options)
        trainers.append(ma.Trainer(model, rule, batch_size=6, seed=3, compiled=backend == "numba"))
    losses = [trainer.fit(IMAGES, LABELS, iterations=STEPS).losses for trainer in trainers]
    np.testing.assert_allclose(*losses, rtol=1e-9)
    states = [trainer.model.state_dict() for trainer in trainers]
    for name, expected in states[1].items():
        np.testing.assert_allclose(states[0][name], expected, rtol=1e-7, atol=1e-10, err_msg=name)
    got, expected = (trainer.model.predict_proba(IMAGES) for trainer in trainers)
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-10)
    return trainers[0]


def assert_cupy_takes_or_refuses(model: Network, rule: UpdateRule) -> None:
    """Check that the plan of CuPy contains every setting, or CuPy refuses the network.

    Plans need no GPU.
    """
    try:
        plan = cupy_plan.plan_for(model.training_program(rule), capability=90)
    except NotCompiledError:
        return
    held = [dict(stage.settings) for stage in plan.stages]
    for layer in model.layers:
        is_fused = isinstance(layer, (Activation, Flatten, MaxPool2d))
        assert is_fused or layer.settings in held
    fused = [stage.pooling for stage in plan.stages if stage.pooling is not None]
    pools = [layer for layer in model.layers if isinstance(layer, (MaxPool2d, AvgPool2d))]
    assert [(p.size, p.stride, p.ties) for p in fused] == [
        (p.size, p.effective_stride, getattr(p, "ties", "first")) for p in pools
    ]
    kernel = rule_settings(rule)
    assert all(kernel[name] == value for name, value in rule.settings.items())


# --------------------------------------------------------------------------- what is compiled


def test_every_setting_of_every_class_has_a_case() -> None:
    assert LAYER_SETTINGS.keys() == set(LAYERS.values())
    for layer, settings in LAYER_SETTINGS.values():
        assert layer.settings.keys() == settings.keys()
    rules = {rule for rule in OPTIMIZERS.values() if isinstance(rule, type)}
    assert {type(rule) for rule in RULE_SETTINGS} == rules
    for rule, names in RULE_SETTINGS.items():
        assert {field.name for field in fields(rule)} == names.keys()


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("layer", LAYER_CASES)
def test_each_setting_of_a_layer_is_compiled_correctly_or_eager(layer: Layer, stack: str) -> None:
    layers = layers_with(layer, STACKS[stack])
    trainer = assert_same_results(layers)
    is_eager = isinstance(layer, Dropout) or getattr(layer, "stride", 1) not in (None, 1)
    if isinstance(layer, (MaxPool2d, AvgPool2d)):
        is_eager = False
    assert (trainer.compiled is None) == is_eager, trainer.not_compiled
    assert_cupy_takes_or_refuses(network(layers, "numpy"), SGD(lr=0.1))


@pytest.mark.parametrize("rule", RULE_CASES)
def test_each_setting_of_an_optimizer_is_compiled_correctly(rule: UpdateRule) -> None:
    layers = [Flatten(), Linear(7), Activation("tanh"), Linear(10)]
    assert assert_same_results(layers, rule).compiled is not None
    assert_cupy_takes_or_refuses(network(layers, "numpy"), rule)


@pytest.mark.parametrize("loss", [kind for kind in LOSSES if LOSSES[kind].targets == "classes"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_losses_activations_and_pixel_shifts_are_compiled_correctly(
    loss: str, activation: str, shift: float
) -> None:
    layers = [Flatten(), Linear(7), Activation(activation), Linear(10)]
    trainer = assert_same_results(layers, loss=Loss(loss), input=ma.Pixels((1, SIDE, SIDE), shift))
    assert trainer.compiled is not None


@pytest.mark.parametrize("rule", RULE_SETTINGS)
def test_l2_penalty_is_compiled_correctly_with_every_optimizer(rule: UpdateRule) -> None:
    layers = [Flatten(), Linear(7), Activation("tanh"), Linear(10)]
    loss = SoftmaxCrossEntropy(l2=0.5)
    assert assert_same_results(layers, rule, loss=loss).compiled is not None
    assert_cupy_takes_or_refuses(network(layers, "numpy", loss=loss), rule)


@pytest.mark.parametrize(
    "layers",
    [
        [Flatten(), Linear(10)],
        [Flatten(), Linear(7, bias=False), Linear(10)],
        [Conv2d(3, 3), MaxPool2d(), Conv2d(9, 2, bias=False), Flatten(), Linear(10)],
    ],
)
def test_l2_penalty_is_compiled_correctly_with_plain_sgd(layers: list[Layer]) -> None:
    trainer = assert_same_results(layers, SGD(lr=0.1), loss=SoftmaxCrossEntropy(l2=0.5))
    assert trainer.compiled is not None


# ----------------------------------------------------------------------- what is not compiled


class TimesTwo(Linear):
    """A subclass with another formula under the same kind."""

    def forward(self, backend: Any, parameters: Any, x: Any, rng: Any) -> Any:
        y, saved = super().forward(backend, parameters, x, rng)
        return 2 * y, saved

    def backward(self, backend: Any, parameters: Any, saved: Any, dy: Any, *, need_dx: bool) -> Any:
        return super().backward(backend, parameters, saved, 2 * dy, need_dx=need_dx)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """An activation of the kind "relu", with a setting that the kernels for "relu" do not have."""

    kind: str = "relu"
    slope: float = 0.3

    def forward(self, backend: Any, parameters: Any, x: Any, rng: Any) -> Any:
        return backend.xp.where(x > 0, x, self.slope * x), x

    def backward(self, backend: Any, parameters: Any, saved: Any, dy: Any, *, need_dx: bool) -> Any:
        return backend.xp.where(saved > 0, dy, self.slope * dy), {}


class LastPool(MaxPool2d):
    """A pooling that no longer takes the maximum."""

    def forward(self, backend: Any, parameters: Any, x: Any, rng: Any) -> Any:
        return x[:, :, 1::2, 1::2], x.shape

    def backward(self, backend: Any, parameters: Any, saved: Any, dy: Any, *, need_dx: bool) -> Any:
        dx = backend.zeros(saved, dtype=str(dy.dtype))
        dx[:, :, 1::2, 1::2] = dy
        return dx, {}


class Halves(Layer):
    """A random layer that also computes something in inference."""

    kind = "halves"
    is_random = True

    def forward(self, backend: Any, parameters: Any, x: Any, rng: Any) -> Any:
        return x / 2, None

    def backward(self, backend: Any, parameters: Any, saved: Any, dy: Any, *, need_dx: bool) -> Any:
        return dy / 2, {}


class TwiceAsFast(SGD):
    """A rule with another formula under the same kind."""

    def apply(self, xp: Any, w: Any, g: Any, state: Any, *, lr: float, step: int) -> None:
        super().apply(xp, w, g, state, lr=2 * lr, step=step)


class Undecayed(Adam):
    """A rule that overrides a part of the formula."""

    def decayed(self, g: Any, w: Any) -> Any:
        return g


class Skipping(Network):
    """A network that skips its first layer."""

    def forward(self, x: Any, *, rng: Any = None, observe: Any = None) -> Any:
        return super().forward(0 * x, rng=rng, observe=observe)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([Flatten(), TimesTwo(7), Linear(10)], "TimesTwo has no compiled form: .* as 'linear'"),
        ([Flatten(), Linear(7), LeakyReLU(), Linear(10)], "LeakyReLU has no compiled form"),
        ([LeakyReLU(), Flatten(), Linear(10)], "LeakyReLU has no compiled form"),
        ([Conv2d(2, 3), LastPool(), Flatten(), Linear(10)], "LastPool has no compiled form"),
        ([Halves(), Flatten(), Linear(10)], "Halves has no compiled form"),
    ],
)
def test_subclasses_of_layers_are_eager(layers: list[Layer], reason: str) -> None:
    trainer = assert_same_results(layers)
    assert trainer.compiled is None
    with pytest.raises(NotCompiledError, match=reason):
        network(layers, "numpy").training_program(SGD())


@pytest.mark.usefixtures("own_tables")
@pytest.mark.parametrize("base", [Linear, MaxPool2d, Conv2d, Activation])
def test_registered_subclass_is_another_kind_for_every_backend(base: type[Layer]) -> None:
    """No backend may compile the subclass as its base class, alone or fused with another layer."""
    cls = dataclass(frozen=True)(type("Mine", (base,), {"kind": "mine"}))
    layer = {Linear: (7,), MaxPool2d: (2,), Conv2d: (2, 3), Activation: ("mine",)}[base]
    if base is Activation:
        ACTIVATIONS["mine"] = ACTIVATIONS["tanh"]
        with pytest.raises(ValueError, match="the layer 'mine' exists already"):
            ma.register(cls)
        return
    ma.register(cls)
    before = [Flatten()] if base is Linear else [Conv2d(2, 3)]
    model = network([*before, cls(*layer), Flatten(), Linear(10)], "numpy")
    program = model.training_program(SGD())
    assert any(stage.kind == "mine" for stage in program.stages)
    for compiled in (numba_layout.COMPILED, cupy_plan.COMPILED):
        with pytest.raises(NotCompiledError, match="the layer mine has no compiled form"):
            compiled.check(program)


@pytest.mark.parametrize("rule", [TwiceAsFast(lr=0.05), Undecayed(weight_decay=0.5)])
def test_subclasses_of_optimizers_are_eager(rule: UpdateRule) -> None:
    trainer = assert_same_results([Flatten(), Linear(10)], rule)
    assert trainer.compiled is None
    assert f"{type(rule).__name__} has no compiled form: it is not" in trainer.not_compiled
    assert not cupy_plan.COMPILED.has_rule(rule)  # eager updates on a GPU use no kernel, either


def test_subclasses_of_network_are_eager() -> None:
    options: Any = {"input": ma.Pixels(SIDE * SIDE), "backend": ma.get_backend("numba")}
    model = Skipping([Linear(10)], SoftmaxCrossEntropy(), **options)
    assert "Skipping has no compiled form" in ma.Trainer(model).not_compiled
    assert np.ptp(model.predict_logits(IMAGES), axis=0).max() == 0


@pytest.mark.parametrize("compiled", [numba_layout.COMPILED, cupy_plan.COMPILED])
@pytest.mark.parametrize("number", range(3))
def test_setting_that_a_backend_does_not_know_is_refused(compiled: Any, number: int) -> None:
    """A new field of a layer is not compiled before the backend declares it."""
    layers = [Conv2d(2, 3), AvgPool2d(), Flatten(), Linear(10)]
    program = network(layers, "numpy").training_program(SGD())
    compiled.check(program)
    stages = list(program.stages)
    stages[number] = replace(stages[number], settings={**stages[number].settings, "new": 1})
    with pytest.raises(NotCompiledError, match=f"{stages[number].kind} with new=1 has no compiled"):
        compiled.check(replace(program, stages=tuple(stages)))


def test_setting_of_an_optimizer_without_a_kernel_is_not_ignored_eagerly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrays = np.ones(3, np.float32), np.ones(3, np.float32), {}
    assert single_update.has_update_kernel(SGD(lr=0.1), *arrays)
    known = replace(numba_layout.COMPILED, update_settings=frozenset())
    monkeypatch.setattr(single_update, "COMPILED", known)
    assert SGD(lr=0.1).settings
    assert not single_update.has_update_kernel(SGD(lr=0.1), *arrays)


@pytest.mark.parametrize("eps", [0, 1e-154])
def test_optimizer_whose_eps_is_too_small_is_eager(eps: float) -> None:
    trainer = assert_same_results(
        [Flatten(), Linear(7), Activation("tanh"), Linear(10)], Adam(eps=eps)
    )
    assert f"eps={eps:g} has no compiled form" in trainer.not_compiled
    arrays = [np.ones(3, np.float32) for _ in range(2)]
    state = {"mean": arrays[0], "square_mean": arrays[0]}
    assert not single_update.has_update_kernel(Adam(eps=eps), *arrays, state)


@pytest.mark.parametrize("compiled", [numba_layout.COMPILED, cupy_plan.COMPILED])
def test_l2_penalty_is_refused_by_a_backend_that_does_not_know_it(compiled: Any) -> None:
    model = network([Flatten(), Linear(10)], "numpy", loss=SoftmaxCrossEntropy(l2=0.5))
    program = model.training_program(SGD())
    compiled.check(program)
    with pytest.raises(NotCompiledError, match="a loss with an L2 penalty has no compiled form"):
        replace(compiled, l2=False).check(program)


@pytest.mark.usefixtures("own_tables")
@pytest.mark.parametrize("table", ["stages", "activations", "losses", "updates"])
def test_kind_that_only_one_backend_compiles_does_not_break_the_other(table: str) -> None:
    layers: list[Layer] = [Conv2d(2, 3), Activation("tanh"), Flatten(), Linear(10)]
    program = network(layers, "numpy", loss=Loss("quadratic")).training_program(Adam())
    kinds = {"stages": "conv2d", "activations": "tanh", "losses": "quadratic", "updates": "adam"}
    for compiled in (numba_layout.COMPILED, cupy_plan.COMPILED):
        compiled.check(program)
        known = getattr(compiled, table)
        without = (
            {kind: known[kind] for kind in known if kind != kinds[table]}
            if (table == "stages")
            else [kind for kind in known if kind != kinds[table]]
        )
        with pytest.raises(NotCompiledError, match=f"{kinds[table]} has no compiled form"):
            replace(compiled, **{table: without}).check(program)


@pytest.mark.emulated
@pytest.mark.usefixtures("own_tables")
def test_kind_known_to_numba_alone_trains_eagerly_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.support.emulated_backend import EmulatedBackend

    ACTIVATIONS["mine"] = ACTIVATIONS["tanh"]
    monkeypatch.setattr(
        numba_layout,
        "COMPILED",
        replace(numba_layout.COMPILED, activations=("tanh", "mine")),
    )
    layers: list[Layer] = [Flatten(), Linear(5), Activation("mine"), Linear(10)]
    trainer = ma.Trainer(network(layers, EmulatedBackend()), batch_size=6)
    assert trainer.not_compiled == "the activation mine has no compiled form"
    assert math.isfinite(trainer.fit(IMAGES, LABELS, iterations=1).losses[0])
