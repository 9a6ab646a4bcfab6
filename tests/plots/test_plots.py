"""Figures are complete PNG files that show the given data."""

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from mnist_accel.errors import DataError
from mnist_accel.plots import (
    figure_curves,
    figure_filters,
    figure_mistakes,
    figure_prediction,
    plot_curves,
    plot_filters,
    plot_mistakes,
    plot_prediction,
    style,
)
from mnist_accel.plots.curves import running_mean
from mnist_accel.training.progress import EpochReport

DIGITS = [str(digit) for digit in range(10)]


def _report(epoch, *, per_epoch, train=0.9, test=0.88, test_loss=0.4):
    return EpochReport(
        epoch=epoch,
        step=epoch * per_epoch,
        train_loss=0.5,
        train_accuracy=train,
        images_per_s=1.0,
        validation_loss=test_loss,
        validation_accuracy=test,
    )


def _curves(count, *, measured=3, **changes):
    per_epoch = max(1, count // max(1, measured))
    losses = 2.3 * np.exp(-np.arange(count) / max(1, count / 5)) + 0.01
    return {
        "steps": np.arange(1, count + 1),
        "losses": losses,
        "epochs": [
            _report(n, per_epoch=per_epoch, train=0.9 + 0.01 * n, test=0.88 + 0.01 * n)
            for n in range(1, measured + 1)
        ],
        "steps_per_epoch": per_epoch,
        "title": "two-layer",
    } | changes


def _results(count=60, *, wrong=12):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count)
    predictions = labels.copy()
    predictions[:wrong] = (labels[:wrong] + 1) % 10
    probabilities = np.full((count, 10), 0.01)
    probabilities[np.arange(count), predictions] = rng.uniform(0.3, 0.9, count)
    return {
        "images": rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
        "labels": labels,
        "predictions": predictions,
        "probabilities": probabilities,
        "class_names": DIGITS,
    }


def _texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def _titles(figure):
    """Return the texts above the images of a contact sheet, in reading order."""
    (sheet,) = figure.axes
    colors = (style.GREEN, style.VERMILLION)
    return [text.get_text() for text in sheet.texts if text.get_color() in colors]


PLOTS = {
    "curves": (plot_curves, _curves(300)),
    "filters": (plot_filters, {"weights": np.random.default_rng(0).normal(size=(8, 1, 3, 3))}),
    "mistakes": (plot_mistakes, _results() | {"limit": 6}),
    "prediction": (
        plot_prediction,
        {
            "image": np.eye(28),
            "probabilities": np.full(10, 0.1),
            "predicted": 3,
            "class_names": DIGITS,
        },
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_equal_data_give_equal_png_files(tmp_path, name):
    plot, arguments = PLOTS[name]
    assert plot(tmp_path / "a.png", **arguments) is None
    plot(str(tmp_path / "b.png"), **arguments)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG"
        assert 500 <= image.width <= 1440
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_matplotlib_settings_of_the_user_are_ignored_and_kept(tmp_path):
    plot_curves(tmp_path / "a.png", **_curves(50))
    with mpl.rc_context({"figure.facecolor": "black", "savefig.bbox": "tight"}):
        plot_curves(tmp_path / "b.png", **_curves(50))
        assert mpl.rcParams["figure.facecolor"] == "black"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_not_imported():
    code = "import sys, mnist_accel.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_figure_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the figure .*file"):
        plot_filters(tmp_path / "file" / "a.png", np.ones((1, 1, 3, 3)))


@pytest.mark.parametrize("count", [1, 2, 119, 120, 2001, 200_000])
def test_losses_of_any_number_are_drawn_over_the_epochs(count):
    curves = _curves(count, measured=min(count, 3))
    figure = figure_curves(**curves)
    figure.savefig(io.BytesIO(), format="png")
    train = [line for line in figure.axes[0].lines if line.get_label().startswith("train")][-1]
    x, y = train.get_data()
    assert len(x) <= 2000
    np.testing.assert_allclose(x[[0, -1]], np.array([1, count]) / curves["steps_per_epoch"])
    assert np.all(np.isfinite(y))


def test_both_panels_share_an_axis_of_epochs_with_steps_below():
    figure = figure_curves(**_curves(3000))
    upper, lower = (axes.xaxis for axes in figure.axes)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    figure.canvas.draw()
    assert not any(label.get_visible() for label in upper.get_ticklabels(which="both"))
    labels = [[label.get_text() for label in lower.get_ticklabels(minor=m)] for m in (False, True)]
    assert labels[0][-1] == "3"
    assert labels[1][-1] == "3,000"
    assert {"epoch", "step"} <= set(_texts(figure))


def test_a_step_that_is_an_epoch_is_not_labeled_twice():
    assert "step" not in _texts(figure_curves(**_curves(10, measured=10)))


def test_spikes_of_a_long_series_are_drawn():
    curves = _curves(100_000)
    curves["losses"][54_321] = 77.0
    axes = figure_curves(**curves).axes[0]
    highest = max(path.vertices[:, 1].max() for path in axes.collections[0].get_paths())
    assert highest == 77.0


def test_a_spike_does_not_flatten_the_lines_and_its_cut_is_stated():
    curves = _curves(100_000)
    curves["losses"][54_321] = 77.0
    axes = figure_curves(**curves).axes[0]
    assert axes.get_ylim()[1] < 8
    assert "cut off" in axes.get_title(loc="left")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "train, lowest to highest of 100 steps" in labels


def test_the_test_loss_is_drawn_after_each_epoch():
    curves = _curves(3000)
    curves["epochs"][1] = _report(2, per_epoch=1000, test_loss=None)
    (line,) = [line for line in figure_curves(**curves).axes[0].lines if "test" in line.get_label()]
    np.testing.assert_array_equal(line.get_xdata(), [1, 3])
    np.testing.assert_array_equal(line.get_ydata(), [0.4, 0.4])


@pytest.mark.parametrize(
    ("last", "labels"), [(1e-3, {"0.001", "0.01", "1"}), (1e-6, {"1e-06", "1e-04", "1e+00"})]
)
def test_labels_of_a_logarithmic_scale_have_one_form(last, labels):
    losses = np.geomspace(1, last, 500)
    label = figure_curves(**_curves(500, losses=losses)).axes[0].yaxis.get_major_formatter()
    assert labels <= {label(value) for value in 10.0 ** np.arange(-6, 1)}


def test_scale_is_logarithmic_only_if_the_loss_changes_tenfold():
    assert figure_curves(**_curves(500)).axes[0].get_yscale() == "log"
    diverging = _curves(500, losses=np.geomspace(2, 2e4, 500))
    assert figure_curves(**diverging).axes[0].get_yscale() == "log"
    level = _curves(500, losses=np.linspace(0.6, 0.4, 500))
    assert figure_curves(**level).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("count", [200, 5])
def test_first_loss_that_is_not_finite_is_marked(count):
    losses = np.linspace(1, 3, count)
    losses[count // 2 :] = np.nan
    figure = figure_curves(**_curves(count, losses=losses))
    figure.savefig(io.BytesIO(), format="png")
    assert f"not finite at step {count // 2 + 1}" in _texts(figure)


def test_accuracies_that_were_not_measured_are_omitted():
    tests = (0.5, None, 0.7)
    epochs = [_report(n + 1, per_epoch=1, train=None, test=t) for n, t in enumerate(tests)]
    axes = figure_curves(**_curves(3, epochs=epochs), test_name="validation").axes[1]
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 3])
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 0.7])
    assert line.get_label() == "validation 70.00 %, after the last epoch"


def test_the_legend_states_that_the_training_accuracy_is_a_mean():
    labels = [line.get_label() for line in figure_curves(**_curves(300)).axes[1].lines]
    assert "train 93.00 %, mean over the last epoch" in labels


def test_the_last_five_accuracies_fill_a_good_part_of_the_axis():
    tests = [0.1, 0.5, 0.9, *np.linspace(0.95, 0.97, 20)]
    epochs = [_report(n + 1, per_epoch=1, train=t, test=t) for n, t in enumerate(tests)]
    axes = figure_curves(**_curves(23, measured=23, epochs=epochs)).axes[1]
    bottom, top = axes.get_ylim()
    assert np.ptp(tests[-5:]) > 0.2 * (top - bottom)
    assert "from 10.0 %" in axes.get_title(loc="left")


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 1.0])
def test_equal_accuracies_lie_within_the_axis(accuracy):
    epochs = [_report(n, per_epoch=5, train=accuracy, test=accuracy) for n in (1, 2)]
    bottom, top = figure_curves(**_curves(10, epochs=epochs)).axes[1].get_ylim()
    assert -0.001 < bottom <= accuracy < top


@pytest.mark.parametrize("epochs", [[], [_report(1, per_epoch=10, train=None, test=None)]])
def test_missing_accuracies_are_stated(epochs):
    assert "no accuracy was measured" in _texts(figure_curves(**_curves(10, epochs=epochs)))


def test_missing_losses_are_stated():
    figure = figure_curves(**_curves(10, steps=[], losses=[]))
    assert "no loss was recorded" in _texts(figure)


def test_steps_and_losses_of_different_length_are_rejected():
    with pytest.raises(ValueError, match="must have equal length"):
        figure_curves(**_curves(10, losses=[1.0]))


def test_running_mean_uses_the_existing_neighbors():
    np.testing.assert_allclose(
        running_mean(np.array([0.0, 3.0, 6.0, 30.0]), window=3), [1.5, 3, 13, 18]
    )


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (1, 1, 5, 5), (7, 1, 3, 2), (16, 6, 5, 5)])
def test_all_weights_are_drawn_on_a_symmetric_scale(shape):
    filters = np.random.default_rng(1).permutation(np.arange(1.0, 1 + np.prod(shape)))
    filters = filters.reshape(shape) - 10
    figure = figure_filters(filters)
    figure.savefig(io.BytesIO(), format="png")
    (mosaic,) = figure.axes[0].images
    shown, times = np.unique(mosaic.get_array().compressed(), return_counts=True)
    np.testing.assert_array_equal(shown, np.sort(filters.ravel()))
    assert len(set(times)) == 1
    assert mosaic.norm.vmin == -mosaic.norm.vmax
    assert np.quantile(np.abs(filters), 0.99) <= mosaic.norm.vmax <= np.abs(filters).max()


def test_rows_of_the_filter_grid_are_input_channels():
    filters = np.arange(6.0).reshape(3, 2, 1, 1)
    (mosaic,) = figure_filters(filters).axes[0].images
    corners = np.asarray(mosaic.get_array())[::12, ::12]
    np.testing.assert_array_equal(corners, [[0, 2, 4], [1, 3, 5]])


def test_weights_of_units_are_named_and_explained_and_limited_in_number():
    figure = figure_filters(np.ones((128, 1, 28, 28)), of_units=True)
    texts = _texts(figure)
    assert "Weights of 128 units of the first layer, 28 × 28 (the first 100)" in texts
    assert any(text.startswith("Blue: a larger pixel value raises the output") for text in texts)


@pytest.mark.parametrize("filters", [np.zeros((2, 1, 3, 3)), np.full((2, 1, 3, 3), np.nan)])
def test_filters_without_contrast_can_be_drawn(tmp_path, filters):
    plot_filters(tmp_path / "filters.png", filters)
    assert (tmp_path / "filters.png").exists()


@pytest.mark.parametrize("shape", [(3, 3), (0, 1, 3, 3)])
def test_invalid_filter_shapes_are_rejected(shape):
    with pytest.raises(ValueError, match="weights must have shape"):
        figure_filters(np.zeros(shape))


def test_only_mistakes_are_drawn_most_confident_first():
    results = _results(60, wrong=12)
    figure = figure_mistakes(**results, limit=5)
    confidence = results["probabilities"].max(axis=1)
    worst = np.argsort(-confidence[:12])[:5]
    expected = [f"{results['labels'][i]} → {results['predictions'][i]}" for i in worst]
    assert _titles(figure) == expected
    shown = [image.get_array() for image in figure.axes[0].images]
    np.testing.assert_array_equal(shown, results["images"][worst])
    assert f"{100 * confidence[worst[0]]:.1f} %" in _texts(figure)
    assert "The 5 most confident of 12 mistakes in 60 images" in _texts(figure)


def test_there_is_one_image_per_mistake():
    figure = figure_mistakes(**_results(60, wrong=3))
    assert len(_titles(figure)) == 3
    assert "3 mistakes in 60 images" in _texts(figure)


def test_least_confident_images_are_drawn_if_there_are_no_mistakes():
    results = _results(60, wrong=0)
    figure = figure_mistakes(**results)
    least = np.argsort(results["probabilities"].max(axis=1))[:8]
    assert _titles(figure) == [str(results["labels"][i]) for i in least]
    assert "No mistakes in 60 images" in _texts(figure)


def test_sheet_without_images_can_be_drawn(tmp_path):
    plot_mistakes(tmp_path / "mistakes.png", **_results(0, wrong=0))
    assert (tmp_path / "mistakes.png").exists()


def test_long_class_names_have_separate_lines():
    results = _results(20, wrong=1) | {"class_names": [f"garment {i}" for i in range(10)]}
    (title,) = _titles(figure_mistakes(**results))
    assert title.count("\n") == 1


def test_names_that_would_overlap_are_shortened():
    results = _results(20, wrong=1) | {"class_names": [f"{i} is a long name" for i in range(10)]}
    (title,) = _titles(figure_mistakes(**results))
    assert all(line.endswith(("…", "… →")) for line in title.split("\n"))


def test_arrays_of_different_length_are_rejected():
    results = _results(20) | {"labels": [1, 2]}
    with pytest.raises(ValueError, match="got 20, 2, 20 and 20"):
        figure_mistakes(**results)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        figure_mistakes(**_results(20), limit=0)


def _prediction(**changes):
    return {
        "image": np.eye(28),
        "probabilities": [0.05, 0.7, 0.25],
        "predicted": 1,
        "class_names": ["a", "b", "$c$"],
    } | changes


def test_prediction_shows_all_probabilities():
    figure = figure_prediction(**_prediction())
    bars = figure.axes[1].containers[1]
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.05, 0.7, 0.25])
    texts = _texts(figure)
    assert {"5.00 %", "70.00 %", "25.00 %", "Predicted: b", "$c$"} <= set(texts)
    assert not any("true label" in text for text in texts)


def test_correct_and_wrong_predictions_differ_also_in_text():
    right = figure_prediction(**_prediction(true_label=1))
    wrong = figure_prediction(**_prediction(true_label=2))
    assert {"✓ Predicted: b", "true label: b"} <= set(_texts(right))
    assert {"✗ Predicted: b", "true label: $c$"} <= set(_texts(wrong))
    colors = [
        [to_hex(bar.get_facecolor()) for bar in figure.axes[1].containers[1]]
        for figure in (right, wrong)
    ]
    assert colors[0][1] == colors[1][2]  # the true class is green
    assert colors[0][1] != colors[1][1]


def test_the_most_probable_of_many_classes_are_drawn_with_the_true_one():
    probabilities = np.arange(40.0) / np.arange(40).sum()
    names = [f"a class with a very long name {n}" for n in range(40)]
    figure = figure_prediction(
        **_prediction(probabilities=probabilities, predicted=39, class_names=names, true_label=3)
    )
    widths = [bar.get_width() for bar in figure.axes[1].containers[1]]
    expected = [*range(39, 27, -1), 3]
    np.testing.assert_allclose(widths, probabilities[expected])
    assert "Most probable of 40 classes" in _texts(figure)
    assert "a class with a very …" in _texts(figure)


def test_a_warning_is_written_below_the_image():
    assert "⚠ 2 figures" in _texts(figure_prediction(**_prediction(warning="2 figures")))


def test_wrong_number_of_probabilities_is_rejected():
    with pytest.raises(ValueError, match=r"must have shape \(3,\), got \(2,\)"):
        figure_prediction(**_prediction(probabilities=[0.5, 0.5]))
