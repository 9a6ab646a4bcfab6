"""The page computes what Python computes, and reacts to mouse and keys, in a real browser."""

import base64
import io
import json

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.data.dataset import DIGIT_NAMES
from mnist_accel.data.digit_image import read_plain_image, resized
from mnist_accel.draw import draw_page
from mnist_accel.nn.layers import AvgPool2d, Conv2d, Dropout, Flatten, Linear, Tanh
from mnist_accel.nn.losses import SoftmaxCrossEntropy
from tests.draw.strokes import STROKES, draw
from tests.support.headless_browser import Browser, is_installed

SEVERAL = "document.getElementById('several').textContent"
needs_browser = pytest.mark.skipif(not is_installed(), reason="needs Chromium")


def make_network(name):
    if name in ma.RECIPES:
        return ma.create_model(name, backend="numpy", seed=1)
    layers = [AvgPool2d(3, stride=2), Flatten(), Linear(20), Tanh(), Dropout(0.5), Linear(10)]
    return ma.Network(layers, SoftmaxCrossEntropy(), input=ma.Pixels((1, 28, 28)), backend="numpy")


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


def open_page(browser, tmp_path, network, **options):
    page = draw_page(network, class_names=DIGIT_NAMES, **{"centers": True, **options})
    path = tmp_path / "draw.html"
    path.write_text(page, encoding="utf-8")
    browser.open(path)
    return path


def pixels_seen(browser):
    """Return the image (28, 28) that the page made of the drawing."""
    return np.array(browser.evaluate("Array.from(digitImage(ink(), SIZE, SIZE))")).reshape(28, 28)


@needs_browser
@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*ma.RECIPES, "other layers"])
def test_probabilities_equal_those_of_python(name, count, browser, tmp_path, mnist):
    network = make_network(name)
    images = mnist.x_test[:count]
    open_page(browser, tmp_path, network)
    data = base64.b64encode(images.tobytes()).decode()
    found = browser.evaluate(
        f"""(() => {{
          const pixels = Array.from(atob("{data}"), (c) => c.charCodeAt(0) / 255);
          const images = Array.from({{ length: pixels.length / 784 }}, (_, k) =>
            pixels.slice(784 * k, 784 * (k + 1)));
          return images.map((image) => predict(network, image).probabilities);
        }})()"""
    )
    assert np.abs(np.array(found) - network.predict_proba(images)).max() < 1e-5
    assert browser.console == []
    assert len(browser.requests) == 1, "the page must load nothing"


def picture_of_board(browser):
    """Return the drawing as the bytes of a PNG file, black on white."""
    url = browser.evaluate(
        """(() => {
          const copy = document.createElement("canvas");
          [copy.width, copy.height] = [SIZE, SIZE];
          const other = copy.getContext("2d");
          other.fillStyle = "#fff";
          other.fillRect(0, 0, SIZE, SIZE);
          other.drawImage(board, 0, 0);
          return copy.toDataURL("image/png");
        })()"""
    )
    return base64.b64decode(url.partition(",")[2])


@needs_browser
def test_drawings_are_preprocessed_as_pictures_are(browser, tmp_path):
    open_page(browser, tmp_path, make_network("two-layer"))
    for digit, strokes in STROKES.items():
        browser.evaluate("clear()")
        draw(browser, strokes)
        expected = 255 * ma.read_digit_image(io.BytesIO(picture_of_board(browser)))
        assert np.abs(255 * pixels_seen(browser) - expected).max() <= 1, digit
        assert browser.evaluate(SEVERAL) == ""


@needs_browser
def test_undo_clear_and_keys(browser, tmp_path):
    open_page(browser, tmp_path, make_network("two-layer"))
    draw(browser, STROKES[4])
    assert browser.evaluate("strokes.length") == 2
    browser.evaluate("document.getElementById('undo').click()")
    assert browser.evaluate("strokes.length") == 1
    assert "%" in browser.evaluate("document.querySelector('.best .value').textContent")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="u")
    assert browser.evaluate("strokes.length") == 0
    assert browser.evaluate("document.getElementById('answer').textContent") == "–"
    draw(browser, STROKES[1])
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    assert browser.evaluate("strokes.length") == 0


@needs_browser
def test_a_second_finger_does_not_draw(browser, tmp_path):
    open_page(browser, tmp_path, make_network("two-layer"))
    box = json.loads(browser.evaluate("JSON.stringify(board.getBoundingClientRect())"))
    first, second = (
        {"x": box["left"] + x, "y": box["top"] + 50, "id": number}
        for number, x in enumerate((40, 200))
    )
    touch = "Input.dispatchTouchEvent"
    browser.call(touch, type="touchStart", touchPoints=[first])
    browser.call(touch, type="touchStart", touchPoints=[first, second])
    moved = [{**first, "y": first["y"] + 60}, {**second, "y": second["y"] + 60}]
    browser.call(touch, type="touchMove", touchPoints=moved)
    browser.call(touch, type="touchEnd", touchPoints=[])
    assert browser.evaluate("strokes.length") == 1
    assert browser.evaluate("Math.max(...strokes[0].map((point) => point[0]))") < 100
    browser.call(touch, type="touchStart", touchPoints=[second])
    browser.call(touch, type="touchEnd", touchPoints=[])
    assert browser.evaluate("strokes.length") == 2


@needs_browser
@pytest.mark.slow
def test_a_trained_lenet_recognizes_ten_drawn_digits(browser, tmp_path):
    data = ma.load_dataset("mnist")
    network = ma.create_model("lenet", seed=0)
    trainer = ma.Trainer(network, "adam", lr=0.002, batch_size=64, seed=0)
    trainer.fit(data.x_train, data.t_train, epochs=2)
    open_page(browser, tmp_path, network)
    answers = []
    for digit, strokes in STROKES.items():
        browser.evaluate("clear()")
        draw(browser, strokes)
        answers.append((digit, browser.evaluate("document.getElementById('answer').textContent")))
    assert answers == [(digit, str(digit)) for digit in range(10)]


@needs_browser
def test_a_network_of_clothes_shows_its_class_names_and_does_not_center(browser, tmp_path):
    names = ("T-shirt/top", "<b>", *DIGIT_NAMES[2:])
    page = draw_page(make_network("two-layer"), class_names=names, centers=False)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    names_shown = browser.evaluate(
        "Array.from(document.querySelectorAll('.name'), n => n.textContent)"
    )
    assert names_shown[:2] == ["T-shirt/top", "<b>"]
    draw(browser, [[[20, 20], [60, 20]]])
    seen = browser.evaluate("Array.from(imageOfDrawing())")
    assert np.array(seen).reshape(28, 28)[:4].sum() > 0
    assert np.array(seen).reshape(28, 28)[8:].sum() == 0


@needs_browser
@pytest.mark.parametrize("centers", [True, False])
def test_networks_of_other_square_images_see_the_drawing_in_their_size(browser, tmp_path, centers):
    form = ma.data.DataForm((12, 12), 3)
    network = ma.create_model("cnn", backend="numpy", seed=1, form=form)
    page = draw_page(network, class_names=("a", "b", "c"), centers=centers)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    draw(browser, STROKES[4])
    picture = io.BytesIO(picture_of_board(browser))
    if centers:
        expected = resized(ma.read_digit_image(picture), (12, 12))
    else:
        expected = read_plain_image(picture, size=(12, 12))
    seen = np.array(browser.evaluate("Array.from(imageOfDrawing())")).reshape(12, 12)
    assert np.abs(seen - expected).max() <= 1 / 100
    found = browser.evaluate("predict(network, imageOfDrawing()).probabilities")
    assert np.abs(np.array(found) - network.predict_proba(seen[None])[0]).max() < 1e-5
    assert browser.evaluate("document.getElementById('seen').width") == 12
    assert browser.console == []


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((5, 7), "pixels", "square gray images, but the network takes 1×5×7 pixels"),
        ((3, 8, 8), "pixels", "square gray images, but the network takes 3×8×8 pixels"),
        ((10,), "features", "the page draws images, but the network takes features"),
    ],
)
def test_networks_of_other_inputs_are_refused_by_the_command(
    tmp_path, capsys, shape, kind, message
):
    form = ma.data.DataForm(shape, 10, kind)
    file = tmp_path / "model.safetensors"
    ma.save_model(file, ma.create_model("two-layer", backend="numpy", form=form))
    assert main(["draw", str(file), "--no-open"]) == 4
    assert message in capsys.readouterr().err


def test_the_page_of_lenet_is_below_a_megabyte_and_names_no_address():
    page = draw_page(make_network("lenet"), class_names=DIGIT_NAMES, centers=True)
    assert len(page.encode()) < 1_000_000
    assert "http" not in page
    assert "@" not in page.partition("<script")[0].replace("@media", "")


def test_the_page_shows_any_name_and_explains_the_first_layer_with_weights():
    layers = [AvgPool2d(2), Conv2d(2, 3), Flatten(), Linear(10)]
    network = ma.Network(
        layers,
        SoftmaxCrossEntropy(),
        input=ma.Pixels((1, 28, 28)),
        backend="numpy",
        name="@network@",
    )
    page = draw_page(network, class_names=("@scripts@", *DIGIT_NAMES[1:]), centers=True)
    assert "<title>Draw: @network@</title>" in page
    assert '"classes": ["@scripts@", "1"' in page
    assert "The outputs of the filters of the first convolution." in page


@needs_browser
def test_only_digits_side_by_side_are_called_several(browser, tmp_path):
    open_page(browser, tmp_path, make_network("two-layer"))
    separate_bar = [[[130, 40], [195, 40]], STROKES[5][0][2::4]]
    draw(browser, separate_bar)
    assert browser.evaluate(SEVERAL) == ""
    browser.evaluate("clear()")
    draw(browser, [[[x, 60], [x, 230]] for x in (80, 200)])
    assert "Several digits?" in browser.evaluate(SEVERAL)


def test_a_network_that_the_page_cannot_compute_is_refused():
    class Mine(Dropout):
        kind = "mine"

    network = ma.Network([Flatten(), Mine(0.1), Linear(10)], SoftmaxCrossEntropy(),
                         input=ma.Pixels((1, 28, 28)), backend="numpy")  # fmt: skip
    with pytest.raises(ValueError, match=r"layer 2 \(mine\) has no form in the page"):
        draw_page(network, class_names=DIGIT_NAMES, centers=True)


def test_the_command_writes_the_page_beside_the_weights(tmp_path, capsys):
    ma.save_model(tmp_path / "model.safetensors", make_network("two-layer"))
    assert main(["draw", str(tmp_path / "model.safetensors"), "--no-open"]) == 0
    assert "draw.html" in capsys.readouterr().out
    assert "<canvas" in (tmp_path / "draw.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_one_error(tmp_path, capsys):
    ma.save_model(tmp_path / "model.safetensors", make_network("two-layer"))
    out = tmp_path / "model.safetensors" / "draw.html"
    assert main(["draw", str(tmp_path / "model.safetensors"), "--no-open", "--out", str(out)]) == 4
    assert "cannot write" in capsys.readouterr().err
