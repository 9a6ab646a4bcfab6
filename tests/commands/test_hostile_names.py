"""Names from files reach the terminal without control characters."""

import os
import shutil
import sys

import pytest
from PIL import Image

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.nn import Linear, Network, SoftmaxCrossEntropy
from tests.support.command_line import ON_NUMPY
from tests.support.digit_pictures.separate_figures import picture_of

HOSTILE = "\x1b[2J\x1b]0;title\x07\u202egnp.exe\x9b5n"
SHOWN = r"\x1b[2J\x1b]0;title\x07\u202egnp.exe\x9b5n"


@pytest.fixture
def model_file(tmp_path):
    network = Network(
        [Linear(10)],
        SoftmaxCrossEntropy(),
        input=ma.Pixels((784,)),
        backend=ma.get_backend("numpy"),
        name=f"{HOSTILE}\naccuracy 100%",
    )
    path = tmp_path / "model.safetensors"
    ma.save_model(path, network)
    return path


def assert_safe(text):
    assert all(line.isprintable() for line in text.split("\n"))
    assert SHOWN in text


def test_name_of_a_network_is_escaped(model_file, capsys):
    assert main(["evaluate", str(model_file), "--backend", "numpy", "--dataset", "digits"]) == 0
    out = capsys.readouterr().out
    assert_safe(out)
    assert rf"{SHOWN}\naccuracy 100%: 784" in out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names of files")
def test_name_of_a_file_is_escaped(model_file, tmp_path, capsys):
    file = tmp_path / f"{HOSTILE}.safetensors"
    shutil.copy(model_file, file)
    common = ("--backend", "numpy", "--dataset", "digits")
    assert main(["predict", str(file), "--index", "0", *common]) == 0
    assert_safe(capsys.readouterr().out)
    os.truncate(file, 100)
    assert main(["evaluate", str(file), *common]) == 4
    err = capsys.readouterr().err
    assert_safe(err)
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names of files")
def test_name_of_a_picture_is_escaped(model_file, tmp_path, capsys):
    file = tmp_path / f"{HOSTILE}.png"
    Image.fromarray(picture_of(ma.load_dataset("digits").x_test[:2])).save(file)
    assert main(["predict", str(model_file), "--image", str(file), "--backend", "numpy"]) == 0
    out, err = capsys.readouterr()
    assert_safe(out)
    assert_safe(err)
    assert "2 separate figures" in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names of files")
def test_name_of_a_run_folder_is_escaped(tmp_path, capsys):
    out = str(tmp_path / HOSTILE)
    assert main(["train", *ON_NUMPY, "--iterations", "1", "--out", out, "--quiet"]) == 0
    assert_safe(capsys.readouterr().out)


def test_name_of_a_setting_is_escaped_and_shortened(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('"\\u001b[2J\\u202e%s" = 1\n' % ("x" * 4000))
    assert main(["train", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert r"\x1b[2J\u202exxx" in err
    assert len(err) < 400


def test_name_of_a_tensor_is_escaped_and_shortened(tmp_path, capsys):
    import numpy as np
    import safetensors.numpy

    file = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({HOSTILE + "x" * 10_000: np.zeros(3)}, file, {"format": HOSTILE})
    assert main(["evaluate", str(file), "--backend", "numpy", "--dataset", "digits"]) == 4
    err = capsys.readouterr().err
    assert err[:-1].isprintable()
    assert len(err) < 1000


def test_names_of_commands_and_flags_are_escaped(capsys):
    assert main([HOSTILE]) == 2
    assert_safe(capsys.readouterr().err)
    assert main(["train", f"--{HOSTILE}"]) == 2
    assert_safe(capsys.readouterr().err)
