"""`predict --image`: several pictures, several digits, JSON, and where the figure is written."""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.commands.predict import _certainty
from tests.support.command_line import ON_NUMPY
from tests.support.digit_pictures.pictures import make_row
from tests.support.digit_pictures.separate_figures import picture_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = [*ON_NUMPY, "--iterations", "400", "--batch-size", "64", "--out", str(folder)]
    assert main(["train", *flags, "--quiet"]) == 0
    return folder


@pytest.fixture
def run_folder(trained):
    """A copy of a run in the current folder."""
    shutil.copytree(trained, "run")
    return Path("run")


@pytest.fixture
def digits():
    return ma.load_dataset("digits").x_test


def save(path, image):
    Image.fromarray(255 - image).resize((280, 280), Image.Resampling.BICUBIC).save(path)
    return path


def test_the_figure_never_replaces_a_picture(run, run_folder, digits, fails):
    for name, flags in (("prediction.png", []), ("mine.png", ["--out", "mine.png"])):
        save(name, digits[0])
        before = Path(name).read_bytes()
        if flags:
            says = "--out mine.png would replace the picture mine.png; choose another"
            fails(2, "predict", run_folder, "--image", name, *flags, says=says)
            fails(2, "predict", run_folder, "--image", ".", *flags, says="would replace")
        else:
            assert run("predict", run_folder, "--image", name)[0] == 0
        assert Path(name).read_bytes() == before


def test_each_prediction_gets_a_new_figure_beside_the_run(run, run_folder, digits):
    save("photo.png", digits[0])
    for name in ("prediction-photo.png", "prediction-photo-2.png"):
        out = run("predict", run_folder, "--image", "photo.png")[1]
        assert f"picture in {run_folder / name}" in out
        assert (run_folder / name).is_file()
    out = run("predict", run_folder / "model.safetensors", "--index", 7)[1]
    assert f"picture in {run_folder / 'prediction-digits-7.png'}" in out


def test_the_probabilities_are_printed_if_the_figure_cannot_be_written(
    run, run_folder, digits, monkeypatch
):
    def fail(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("mnist_accel.plots.style.write_atomically", fail)
    save("photo.png", digits[0])
    code, out, err = run("predict", run_folder, "--image", "photo.png")
    assert code == 0
    assert len([line for line in out.splitlines() if "%" in line]) == 11
    assert err.startswith("warning: cannot write the figure run/prediction-photo.png: Read-only")
    assert len(err.splitlines()) == 1


def test_several_pictures_and_folders_are_predicted(run, run_folder, digits):
    Path("folder").mkdir()
    files = [save(f"{name}.png", image) for name, image in zip("ab", digits, strict=False)]
    files.append(save("folder/c.JPG", digits[2]))
    Path("folder/notes.txt").write_text("no picture")
    for arguments in ((run_folder, "--image", *files[:2], "folder"), ("--image", ".", "run")):
        code, out, err = run("predict", *arguments, "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["weights"] == "run"
    code, out, _ = run("predict", run_folder, "--image", *files)
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split() == ["predicted", "probability", "file"]
    assert [line.split()[-1] for line in lines[3:]] == files


def test_two_digits_that_are_read_as_one_are_a_warning_in_all_outputs(run, run_folder, digits):
    Image.fromarray(picture_of(digits[:2])).save("both.png")
    code, out, err = run("predict", run_folder, "--image", "both.png")
    assert code == 0
    assert "predicted" in out
    assert err == "warning: both.png: 2 separate figures are read as one digit; crop to one\n"
    code, out, _ = run("predict", run_folder, "--image", "both.png", "--json")
    assert json.loads(out)["predictions"][0]["warning"].startswith("2 separate figures")


def test_a_prediction_with_a_low_probability_is_marked_as_not_sure():
    assert _certainty(0.799) == "79.90%, not sure"
    assert _certainty(0.8) == "80.00%"


def test_json_lists_classes_probabilities_and_refusals(run, run_folder, digits):
    save("a.png", digits[0])
    Image.new("L", (90, 90), 255).save("blank.png")
    code, out, err = run("predict", run_folder, "--image", "a.png", "blank.png", "--json")
    assert (code, err) == (4, "")
    good, blank = json.loads(out)["predictions"]
    assert good["file"] == "a.png"
    assert good["refusal"] is None
    assert good["class"] == str(good["digit"])
    assert good["probabilities"][good["class"]] == good["probability"]
    assert sum(good["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert blank["class"] is blank["probabilities"] is blank["digit"] is None
    assert "blank.png shows no digit" in blank["refusal"]
    code, out, _ = run("predict", run_folder, "--index", 3, "--json")
    assert code == 0
    assert json.loads(out)["predictions"][0]["true_label"] in "0123456789"


def test_a_refused_picture_does_not_stop_the_others(run, run_folder, digits):
    Image.new("L", (90, 90), 255).save("blank.png")
    save("z.png", digits[0])
    code, out, err = run("predict", run_folder, "--image", "blank.png", "z.png", "none.png")
    assert code == 4
    assert "z.png" in out
    assert [line.split(":")[0] for line in err.splitlines()] == ["refused", "refused"]


def test_a_closed_stdin_is_refused(fails, run_folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)  # as Python sets it if the parent has closed it
    fails(2, "predict", run_folder, "--image", "-", says="stdin is closed; give the picture as")


def test_a_picture_is_read_from_stdin(run, run_folder, digits, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(Path(save("a.png", digits[0])).read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    code, out, _ = run("predict", run_folder, "--image", "-", "--json")
    assert code == 0
    assert json.loads(out)["predictions"][0]["file"] == "stdin"


def test_all_reads_each_digit_from_left_to_right(run, run_folder, mnist, fails):
    indices = [np.flatnonzero(mnist.t_test == digit)[0] for digit in (7, 2, 6)]
    Image.fromarray(make_row([mnist.x_test[i] for i in indices], seed=1)).save("row.png")
    says = "row.png shows 3 separate figures"
    assert "--all" in fails(4, "predict", run_folder, "--image", "row.png", says=says)
    code, out, _ = run("predict", run_folder, "--image", "row.png", "--all", "--json")
    assert code == 0
    assert [entry["figure"] for entry in json.loads(out)["predictions"]] == [1, 2, 3]
    images = ma.data.digit_image.read_digit_images("row.png")
    similar = [
        int(np.argmax([np.corrcoef(image.ravel(), mnist.x_test[i].ravel())[0, 1] for i in indices]))
        for image in images
    ]
    assert similar == [0, 1, 2]
    says = "--all reads the digits of a picture; use it with --image"
    fails(2, "predict", run_folder, "--index", 3, "--all", says=says)


def test_a_run_of_fashion_mnist_prints_names_and_keeps_the_whole_picture(run, run_folder, digits):
    config = run_folder / "config.json"
    content = json.loads(config.read_text().replace('"digits"', '"fashion-mnist"'))
    config.write_text(json.dumps(content))
    # A shirt that fills a corner: it is not centered, unlike a digit.
    picture = np.full((280, 280), 255, dtype=np.uint8)
    picture[:140, :140] = 55
    Image.fromarray(picture).save("x.png")
    code, out, _ = run("predict", run_folder, "--image", "x.png", "--json")
    assert code == 0
    found = json.loads(out)["predictions"][0]
    assert found["digit"] is None
    assert found["class"] in ("T-shirt/top", "Coat", *found["probabilities"])
    assert "Ankle boot" in found["probabilities"]
    image = ma.data.digit_image.read_plain_image("x.png")
    np.testing.assert_allclose(image[:14, :14], 200 / 255, atol=1e-3)
    assert not image[14:].any()
    assert not image[:, 14:].any()
    line = run("predict", run_folder, "--image", "x.png")[1].splitlines()[1]
    assert not line.split()[1].isdigit()


def test_an_empty_folder_is_refused(run_folder, fails):
    Path("empty").mkdir()
    fails(4, "predict", run_folder, "--image", "empty", says="empty contains no picture; accepted")


def test_pictures_of_a_folder_that_are_not_read_are_named(run_folder, run, digits):
    Path("scans").mkdir()
    for name in ("a.png", "b.tif"):
        Image.fromarray(picture_of(digits[:1])).save(f"scans/{name}")
    Path("scans/notes.txt").write_text("")
    code, _, err = run("predict", run_folder, "--image", "scans")
    assert code == 0
    assert err == "warning: scans/b.tif is not read; convert it to PNG or JPEG\n"
