"""`evaluate` and `predict`: the networks and data they find, and what they print."""

import os
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.data.idx import format_idx
from mnist_accel.nn import Flatten, Linear, SoftmaxCrossEntropy
from tests.support.command_line import ON_NUMPY, read_json

NUMPY = ma.get_backend("numpy")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = [*ON_NUMPY, "--iterations", "400"]
    assert main(["train", *flags, "--batch-size", "64", "--out", str(folder), "--quiet"]) == 0
    return folder


def test_evaluate_repeats_the_accuracy_of_the_training(run, trained):
    summary = read_json(trained / "summary.json")
    paths = (trained, trained / "model.safetensors", trained / "checkpoint")
    for path in paths:
        code, out, _ = run("evaluate", path, "--dataset", "digits", "--backend", "numpy")
        assert code == 0
        assert f"accuracy {summary['test_accuracy']:.2%}" in out
        assert "predicted" in out
        assert out.splitlines()[0] == f"weights  {path}"


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (".", "run"),
        (".", "run/model.safetensors"),
        (".", "run/checkpoint"),
        (".", "run/checkpoint/last.safetensors"),
        ("run", "model.safetensors"),
        ("run/checkpoint", "last.safetensors"),
    ],
)
def test_the_data_set_is_that_of_the_run_a_file_belongs_to(
    run, trained, monkeypatch, folder, path, fails
):
    monkeypatch.chdir(trained.parent / folder)
    code, out, _ = run("evaluate", path, "--limit-test", 5)
    assert code == 0
    assert "data     digits, 5 test images" in out
    fails(2, "predict", path, "--index", 9999, says="--index must be below 360")
    fails(2, "evaluate", path, "--dataset", "custom", says="the data set custom needs a folder")


def test_a_file_outside_a_run_is_evaluated_on_mnist(run, trained):
    shutil.copy(trained / "model.safetensors", "alone.safetensors")
    code, out, _ = run("evaluate", "alone.safetensors", "--limit-test", 5)
    assert code == 0
    assert "data     mnist, 5 test images" in out


def test_a_folder_that_does_not_state_its_data_set_needs_the_flag(run, trained, fails):
    shutil.copytree(trained, "copy")
    Path("copy/config.json").unlink()
    says = "copy has no config.json, so its data set is unknown; give it with --dataset"
    fails(4, "evaluate", "copy", says=says)
    fails(4, "predict", "copy", "--index", 1, says=says)
    assert run("evaluate", "copy", "--dataset", "digits", "--limit-test", 5)[0] == 0


@pytest.mark.parametrize("flag", [("--model", "lenet"), ("--activation", "tanh")])
@pytest.mark.parametrize("command", [("evaluate",), ("predict", "--index", 1)])
def test_the_network_of_a_run_cannot_be_replaced(command, flag, trained, fails):
    says = f"{trained} states its network; omit --model and --activation, which are"
    fails(2, *command[:1], trained, *command[1:], *flag, says=says)


@pytest.mark.parametrize("name", ["empty.png", "notes.txt", "config.json"])
def test_a_file_of_another_kind_is_refused_with_the_accepted_ones(name, fails):
    Path(name).write_text("" if name == "empty.png" else "{ is no network }")
    says = f"{name} contains no network; accepted are run folders, .safetensors files, and weights"
    fails(4, "evaluate", name, says=says)


def test_an_interrupted_run_is_refused_but_its_checkpoint_is_accepted(run, trained, fails):
    shutil.copytree(trained, "runs/stopped")
    Path("runs/stopped/model.safetensors").unlink()
    says = "finish it with train --resume runs/stopped, or give its checkpoint runs/stopped/check"
    for path in (["runs/stopped"], []):
        fails(4, "predict", *path, "--index", 3, says=says)
    assert run("predict", "runs/stopped/checkpoint", "--index", 3)[0] == 0


def test_the_default_is_the_newest_finished_run(run, trained):
    for age, name in enumerate(("stopped", "newer", "older")):
        shutil.copytree(trained, f"runs/{name}")
        os.utime(f"runs/{name}/config.json", (10_000 - age, 10_000 - age))
    Path("runs/stopped/model.safetensors").unlink()
    code, out, _ = run("evaluate", "--limit-test", 5)
    assert code == 0
    assert out.startswith("weights  runs/newer\n")
    assert "data     digits, 5 test images" in out
    code, out, _ = run("predict", "--index", 3)
    assert code == 0
    assert out.startswith("weights in runs/newer\n")
    assert run("train", "--resume", "--quiet")[1].rstrip().endswith("all files are in runs/stopped")


def test_predict_by_index_and_by_image(run, trained, fails):
    code, out, _ = run("predict", trained, "--index", 3, "--out", "three.png")
    assert code == 0
    assert "true label" in out
    assert len([line for line in out.splitlines() if "%" in line]) == 11
    with Image.open("three.png") as picture:
        assert picture.format == "PNG"
    digit = ma.load_mnist(normalize=False, flatten=False, dataset="digits")[1][0][3][0]
    Image.fromarray(255 - digit).resize((400, 300)).save("photo.jpg")
    code, out, _ = run("predict", trained, "--image", "photo.jpg")
    assert code == 0
    assert "true label" not in out
    assert f"picture in {trained / 'prediction-photo.png'}" in out
    assert (trained / "prediction-photo.png").is_file()
    fails(2, "predict", trained, "--index", 99999, says="--index must be below 360")
    for name in ("three.txt", "three", "."):
        says = f"--out: expected a file name that ends in .png, got {name!r}"
        fails(2, "predict", trained, "--index", 3, "--out", name, says=says)
        assert not Path(name).is_file()
    Path("folder.png").mkdir()
    for name, reason in (("folder.png", "Is a directory"), ("photo.jpg/3.png", "Not a directory")):
        code, out, err = run("predict", trained, "--index", 3, "--out", name)
        assert code == 4
        assert len([line for line in out.splitlines() if "%" in line]) == 11
        assert f"cannot write the figure {name}: {reason}; choose another file with --out" in err
    fails(2, "predict", trained, says="one of the arguments --index --image is required")
    fails(4, "predict", trained, "--image", "none.png", says="none.png")
    Path("text.png").write_text("no image")
    fails(4, "predict", trained, "--image", "text.png", says="text.png")


def test_legacy_weights_are_evaluated_without_running_their_code(run, fails):
    rng = np.random.default_rng(0)
    sizes = (784, 50, 100, 10)
    shapes = list(pairwise(sizes))
    state = {f"W{i}": rng.standard_normal(shape) for i, shape in enumerate(shapes, 1)}
    state |= {f"b{i}": rng.standard_normal(shape[1]) for i, shape in enumerate(shapes, 1)}
    Path("sample_weight.pkl").write_bytes(pickle.dumps(state))
    code, out, err = run("evaluate", "sample_weight.pkl", "--dataset", "digits")
    assert code == 0
    assert "assuming three-layer with the activation sigmoid; choose others with" in err
    assert "three-layer: 784 → linear 50 → sigmoid → linear 100" in out
    flags = ("--dataset", "digits", "--activation", "tanh")
    code, out, err = run("evaluate", "sample_weight.pkl", *flags)
    assert (code, err) == (0, "")
    assert "three-layer: 784 → linear 50 → tanh → linear 100" in out
    columns = {k: v.T if k[0] == "W" else v[:, None] for k, v in state.items()}
    np.save("parameters_500.npy", np.array(columns, dtype=object), allow_pickle=True)
    code, out, _ = run("evaluate", "parameters_500.npy", "--dataset", "digits")
    assert code == 0
    assert "fcnn: 784 → linear 50 → relu → linear 100" in out

    class Evil:
        def __reduce__(self):
            return os.system, ("touch pwned",)

    Path("evil.pkl").write_bytes(pickle.dumps({"W1": Evil()}))
    fails(4, "evaluate", "evil.pkl", says="system")
    assert not Path("pwned").exists()


def save_network(file, input_shape, *layers):
    model = ma.Network(
        [*layers], SoftmaxCrossEntropy(), input=ma.Pixels(input_shape), backend=NUMPY
    )
    ma.save_model(file, model)


@pytest.mark.parametrize("classes", [1, 5, 9, 11, 20])
def test_networks_with_another_number_of_classes_are_rejected(fails, classes):
    save_network("other.safetensors", (784,), Linear(classes))
    says = f"the network in other.safetensors has {classes} classes, but the data have 10 (0, 1"
    fails(4, "evaluate", "other.safetensors", "--dataset", "digits", says=says)
    fails(4, "predict", "other.safetensors", "--dataset", "digits", "--index", 0, says=says)
    picture = np.full((28, 28), 255, np.uint8)
    picture[6:22, 12:16] = 0
    Image.fromarray(picture).save("one.png")
    fails(4, "predict", "other.safetensors", "--image", "one.png", says=says)


@pytest.mark.parametrize(
    "input_shape", [(100,), (1, 32, 32), (3, 28, 28), (1, 784, 1), (28, 28, 1)]
)
def test_networks_with_another_input_shape_are_rejected(fails, input_shape):
    save_network("other.safetensors", input_shape, Flatten(), Linear(10))
    shape = "×".join(map(str, input_shape))
    says = f"takes images of shape {shape}, but the images have 28×28 pixels"
    fails(4, "evaluate", "other.safetensors", "--dataset", "digits", says=says)
    fails(4, "predict", "other.safetensors", "--dataset", "digits", "--index", 0, says=says)


def test_home_folder_of_an_unknown_user_is_rejected(fails):
    for command in (["data"], ["train"], ["data", "--dataset", "custom"]):
        says = "the home folder in ~nosuchuser/mnist cannot be found"
        fails(4, *command, "--data-dir", "~nosuchuser/mnist", says=says)


@pytest.mark.parametrize("how", ["flag", "environment", "resumed", "config"])
def test_relative_folder_of_data_is_found_from_another_folder(run, monkeypatch, how):
    for name, array in (
        ("images-idx3", np.zeros((20, 28, 28))),
        ("labels-idx1", np.arange(20) % 10),
    ):
        for part in ("train", "t10k"):
            path = Path(f"mine/{part}-{name}-ubyte")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(format_idx(array.astype(np.uint8)))
    flags = ["--dataset", "custom", "--backend", "numpy", "--iterations", "3", "--out", "run"]
    given = ["--data-dir", "mine"]
    if how == "environment":
        monkeypatch.setenv("MNIST_ACCEL_DATA", "./mine")
        given = []
    if how == "config":
        Path("config.toml").write_text('data-dir = "mine"')
        given = ["--config", "config.toml"]
    assert run("train", *flags, *given)[0] == 0
    if how == "resumed":
        Path("mine").rename("moved")
        code, _, err = run("train", "--resume", "run", "--iterations", 5, "--data-dir", "moved")
        assert code == 0, err
    monkeypatch.delenv("MNIST_ACCEL_DATA", raising=False)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for command in (["evaluate", "../run"], ["predict", "../run", "--index", 0]):
        code, _, err = run(*command, "--backend", "numpy")
        assert code == 0, err
    assert run("train", "--resume", "../run", "--iterations", 7)[0] == 0
