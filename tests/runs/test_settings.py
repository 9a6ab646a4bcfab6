"""Settings of a run: flags override a configuration file, which overrides the recipe."""

from dataclasses import asdict

import pytest

import mnist_accel as ma
from mnist_accel.commands.train_settings import settings_in_file
from mnist_accel.errors import UsageError
from mnist_accel.recipes.models import RECIPES
from mnist_accel.recipes.settings import read_config, resolve


def test_the_two_layer_network_is_the_default():
    assert resolve({}).model == "two-layer"
    assert resolve({}) == resolve({"model": "two-layer"})


def test_a_value_overrides_only_that_value_of_the_recipe():
    recipe = asdict(resolve({"model": "lenet"}))
    for name, value in {"lr": 0.5, "batch_size": 7, "seed": 3, "log_every": 9}.items():
        changed = asdict(resolve({"model": "lenet", name: value}))
        assert changed == recipe | {name: value}


def test_none_keeps_the_default():
    assert resolve({"lr": None, "model": None}) == resolve({})


def test_epochs_and_iterations_replace_each_other():
    assert resolve({"model": "cnn", "iterations": 7}).epochs is None
    assert resolve({"model": "two-layer", "epochs": 7}).iterations is None
    with pytest.raises(UsageError, match="either epochs or iterations"):
        resolve({"epochs": 7, "iterations": 7})


def test_another_optimizer_has_its_own_learning_rate():
    assert resolve({"model": "backprop"}).lr == 3.0
    assert resolve({"model": "backprop", "optimizer": "adam"}).lr == 0.001
    assert resolve({"model": "backprop", "optimizer": "adam", "lr": 0.1}).lr == 0.1


@pytest.mark.parametrize(
    ("given", "sampling", "batch_size"),
    [
        ({"model": "fcnn"}, "full", 0),
        ({"model": "fcnn", "batch_size": 64}, "shuffle", 64),
        ({"model": "fcnn", "batch_size": 64, "sampling": "replacement"}, "replacement", 64),
        ({"model": "two-layer"}, "replacement", 512),
        ({"model": "two-layer", "batch_size": 64}, "replacement", 64),
        ({"model": "two-layer", "sampling": "full"}, "full", 0),
        ({"model": "two-layer", "batch_size": 0}, "full", 0),
        ({"model": "two-layer", "batch_size": 0, "sampling": "full"}, "full", 0),
    ],
)
def test_batch_size_0_means_the_whole_training_set(given, sampling, batch_size):
    settings = resolve(given)
    assert (settings.sampling, settings.batch_size) == (sampling, batch_size)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "resnet"}, "unknown model 'resnet'; choose from fcnn"),
        ({"sampling": "full", "batch_size": 64}, "sampling='full' takes the whole set"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; choose from sgd"),
    ],
)
def test_contradictory_settings_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        resolve(given)


@pytest.mark.parametrize("name", RECIPES)
def test_the_config_file_of_a_run_contains_all_its_settings(name, tmp_path):
    from mnist_accel.runs.folder import RunFolder

    settings = resolve({"model": name, "lr": 1 / 3, "validation_split": 0.1, "no_fallback": True})
    folder = RunFolder(tmp_path)
    folder.write_json(folder.config, {"settings": asdict(settings)})
    assert resolve(settings_in_file(str(folder.config))) == settings


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("a.toml", 'lr = 0.5\nbatch-size = 7\nmodel = "cnn"', {"batch_size": 7, "model": "cnn"}),
        ("a.toml", "hidden_sizes = [12, 8]", {"hidden_sizes": (12, 8)}),
        ("a.toml", "hidden_sizes = 12", {"hidden_sizes": (12,)}),
        ("a.toml", "no-fallback = true", {"no_fallback": True}),
        ("a.toml", "no_fallback = false\nseed = 0", {"seed": 0}),
        ("a.toml", "weight_decay = 0", {"weight_decay": 0.0}),
        ("a.toml", "", {}),
        ("a.json", '{"settings": {"lr": 0.5, "epochs": null, "activation": ""}}', {"lr": 0.5}),
    ],
)
def test_values_of_a_file_are_parsed_like_flags(name, text, values, tmp_path):
    (tmp_path / name).write_text(text)
    got = settings_in_file(str(tmp_path / name))
    assert {key: got[key] for key in values} == values
    assert got.keys() == values.keys() | ({"lr"} if "lr" in text else set())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsice = 1", "has an unknown setting 'batchsice'; did you mean batch_size?"),
        ("quiet = true", "has an unknown setting 'quiet'; train --help lists the settings"),
        ("lr = 1\nlearning-rate = 1", "sets lr twice; remove learning-rate or its other name"),
        ("lr = -1e-5", "--lr: expected a number above 0, got -1e-05"),
        ("lr = true", "--lr: expected one argument"),
        ("epochs = false", "--epochs: expected an integer of at least 1, got False"),
        ("no_fallback = 1", "--no-fallback: ignored explicit argument '1'"),
        ("hidden_sizes = [5, -1]", "--hidden-sizes"),
        ("model = ['cnn', 'lenet']", "--model: unknown model 'cnn,lenet'"),
        ("seed = {a = 1}", "--seed: expected an integer"),
        ("[settings]\nlr = 1", "has an unknown setting 'settings'"),
    ],
)
def test_a_wrong_value_of_a_file_is_refused_with_its_name(text, message, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        settings_in_file(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"lr = = 1", "is not valid TOML"),
        ("a.toml", b"\xff\xfe", "is not valid TOML"),
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b"[]", "is not the config.json of a run"),
        ("a.json", b'{"lr": 1}', "is not the config.json of a run"),
        ("a.json", b'{"settings": 5}', "is not the config.json of a run"),
        ("missing.toml", None, "cannot read"),
        ("", None, "cannot read"),
    ],
)
def test_a_missing_or_invalid_file_is_refused(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ma.DataError) as caught:
        read_config(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
