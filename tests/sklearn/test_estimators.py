"""The estimators work where scikit-learn's networks do."""

import itertools
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from backends.numpy.backend import NumpyBackend
from mnist_accel.nn import Activation, Linear
from mnist_accel.sklearn import NetworkClassifier, NetworkRegressor
from mnist_accel.sklearn.convergence import Convergence
from mnist_accel.training.chunks import ChunkRunner
from tests.sklearn.conftest import Data
from tests.support.terminal import Terminal, screen

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


FAST = {"hidden_layer_sizes": (8,), "max_iter": 60, "learning_rate_init": 0.02}
both_kinds = pytest.mark.parametrize("kind", [NetworkClassifier, NetworkRegressor])
Kind = type[NetworkClassifier] | type[NetworkRegressor]


def classifier(**settings: Any) -> NetworkClassifier:
    """Return a classifier that trains fast."""
    return NetworkClassifier(**{"backend": "numpy", "random_state": 0, **FAST, **settings})


def estimator(kind: Kind, **settings: Any) -> Any:
    """Return an estimator that trains fast."""
    return kind(**{"backend": "numpy", "random_state": 0, **FAST, **settings})


def data_of(kind: Kind, blobs: Data) -> Data:
    """Return features with labels for a classifier, or with numbers for a regressor."""
    x, y = blobs
    return (x, y) if kind is NetworkClassifier else (x, x @ np.arange(4) + y)


def outputs(fitted: Any, x: Any) -> Any:
    """Return what an estimator predicts."""
    return getattr(fitted, "predict_proba", fitted.predict)(x)


# Parameters


@both_kinds
def test_parameters_have_the_defaults_of_scikit_learn(kind: Kind) -> None:
    theirs = {NetworkClassifier: MLPClassifier, NetworkRegressor: MLPRegressor}[kind]()
    ours = kind().get_params()
    known = {name: value for name, value in theirs.get_params().items() if name in ours}
    assert {name: ours[name] for name in known} == known
    assert theirs.get_params().keys() - known.keys() <= {"loss", "max_fun"}
    assert ours.keys() - known.keys() == {"model", "backend", "threads"}


# Weights of samples


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_weights_equal_repeated_samples_in_one_batch(
    blobs: Data, backend: str, solver: str
) -> None:
    x, y = blobs
    counts = np.random.default_rng(0).integers(0, 3, len(x))
    settings = {"backend": backend, "alpha": 0.3, "batch_size": 1000, "solver": solver}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="batch_size is")
        weighted = classifier(**settings).fit(x, y, sample_weight=counts)
        repeated = classifier(**settings).fit(x.repeat(counts, axis=0), y.repeat(counts))
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), atol=1e-9)


def test_only_the_penalty_depends_on_the_sum_of_the_weights(blobs: Data) -> None:
    x, y = blobs
    without = [classifier(alpha=0.0).fit(x, y, np.full(90, w)).loss_ for w in (1.0, 7.0)]
    assert without[0] == pytest.approx(without[1])
    light = classifier(alpha=0.5).fit(x, y)
    heavy = classifier(alpha=3.5).fit(x, y, np.full(90, 7.0))
    assert light.loss_ == pytest.approx(heavy.loss_)


def test_partial_fit_with_other_weights_keeps_the_optimizer(blobs: Data) -> None:
    x, y = blobs
    plain, doubled = classifier(alpha=0.5), classifier(alpha=0.5)
    for _ in range(3):
        plain.partial_fit(x, y, classes=[0, 1, 2])
        doubled.partial_fit(x, y, classes=[0, 1, 2])
    plain.partial_fit(np.concatenate([x, x]), np.concatenate([y, y]))
    doubled.partial_fit(x, y, np.full(90, 2.0))
    np.testing.assert_allclose(plain.coefs_[0], doubled.coefs_[0], rtol=1e-9)


# Forms of data


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_dtype_of_the_features_decides_that_of_the_network(blobs: Data, dtype: str) -> None:
    fitted = classifier(max_iter=2).fit(blobs[0].astype(dtype), blobs[1])
    expected = "float32" if dtype == "float32" else "float64"
    assert fitted.network_.dtype == fitted.coefs_[0].dtype.name == expected
    assert fitted.predict_proba(blobs[0]).dtype.name == expected


def test_sparse_features_give_the_results_of_dense_ones(blobs: Data) -> None:
    x = np.where(blobs[0] > 0.5, blobs[0], 0)
    dense = classifier().fit(x, blobs[1]).predict_proba(x)
    sparse = scipy.sparse.csr_array(x)
    assert np.array_equal(classifier().fit(sparse, blobs[1]).predict_proba(sparse), dense)


def test_names_of_features_are_kept(blobs: Data) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(blobs[0], columns=list("abcd"))
    assert classifier(max_iter=2).fit(frame, blobs[1]).feature_names_in_.tolist() == list("abcd")


# Networks


@both_kinds
def test_list_of_layers_replaces_the_hidden_layers(blobs: Data, kind: Kind) -> None:
    layers = [Linear(6), Activation("tanh"), Linear(5), Activation("relu")]
    data = data_of(kind, blobs)
    fitted = estimator(kind, model=layers).fit(*data)
    last = 3 if kind is NetworkClassifier else 1
    assert [weights.shape for weights in fitted.coefs_] == [(4, 6), (6, 5), (5, last)]
    assert fitted.score(*data) > 0.7
    assert clone(fitted).get_params()["model"] == layers


def test_recipe_takes_images_of_its_size() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 784)), np.arange(20) % 4
    fitted = classifier(model="lenet", max_iter=2).fit(x, y)
    assert fitted.predict_proba(x).shape == (20, 4)
    with pytest.raises(ValueError, match="64"):
        classifier(model="lenet").fit(x[:, :64], y)


def test_network_can_be_exported(blobs: Data, tmp_path: Path) -> None:
    fitted = classifier().fit(*blobs)
    assert "3" in fitted.network_.describe()
    fitted.network_.to_onnx(tmp_path / "model.onnx")


# In pipelines, searches and files


@both_kinds
def test_pipeline_and_cross_validation(blobs: Data, kind: Kind) -> None:
    pipeline = make_pipeline(StandardScaler(), estimator(kind))
    assert cross_val_score(pipeline, *data_of(kind, blobs), cv=3).mean() > 0.6


@both_kinds
def test_grid_search_in_two_processes(blobs: Data, kind: Kind) -> None:
    searches = [
        GridSearchCV(
            make_pipeline(StandardScaler(), estimator(kind, max_iter=5)),
            {f"{kind.__name__.lower()}__hidden_layer_sizes": [(2,), (8,)]},
            cv=2,
            n_jobs=jobs,
        ).fit(*data_of(kind, blobs))
        for jobs in (2, 1)
    ]
    got, want = (search.cv_results_["mean_test_score"] for search in searches)
    assert np.array_equal(got, want)
    assert searches[0].best_params_ == searches[1].best_params_


def test_search_on_a_dask_cluster(blobs: Data) -> None:
    distributed = pytest.importorskip("distributed")
    fits = [
        (estimator(kind, backend=backend, threads=1, max_iter=20), *data_of(kind, blobs))
        for kind, backend in ((NetworkClassifier, "numpy"), (NetworkRegressor, "numba"))
    ]
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address=None, silence_logs=50,
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):  # fmt: skip
        scores = [cross_val_score(*fit, cv=2) for fit in fits]
    assert np.array_equal(scores, [cross_val_score(*fit, cv=2) for fit in fits])


@both_kinds
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_file_of_joblib_restores_the_estimator(
    blobs: Data, tmp_path: Path, backend: str, kind: Kind
) -> None:
    x, y = data_of(kind, blobs)
    fitted = estimator(kind, backend=backend).fit(x, y)
    joblib.dump(fitted, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    assert np.array_equal(outputs(loaded, x), outputs(fitted, x))
    for one in (fitted, loaded):
        one.partial_fit(x, y)
    assert np.array_equal(outputs(loaded, x), outputs(fitted, x))


@both_kinds
def test_clone_is_not_fitted(blobs: Data, kind: Kind) -> None:
    fitted = estimator(kind, alpha=0.7).fit(*data_of(kind, blobs))
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(blobs[0])
    with pytest.raises(AttributeError, match="not fitted yet"):
        _ = copy.coefs_


def test_repeated_fits_are_bit_identical(blobs: Data) -> None:
    first, second = (classifier(batch_size=16).fit(*blobs).coefs_ for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@both_kinds
@pytest.mark.parametrize(
    "settings",
    [
        {"tol": 0.003},
        {"tol": 0.003, "n_iter_no_change": 1},
        {"n_iter_no_change": np.inf},
        {"solver": "sgd", "learning_rate": "adaptive", "n_iter_no_change": 2, "tol": 0.01},
        {"solver": "sgd", "learning_rate": "invscaling", "tol": 0.01},
        {"early_stopping": True, "n_iter_no_change": 3},
        {"warm_start": True, "tol": 0.003},
    ],
)
def test_chunks_of_several_epochs_do_not_change_a_result(
    kind: Kind, settings: dict[str, Any], blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training ends in the same epoch, with its weights, and the rate changes in the same one."""
    monkeypatch.setattr("mnist_accel.training.trainer.CHUNK_SECONDS", 600)  # for a slow machine
    run, chunks = ChunkRunner.run, Counter[str]()

    def count(*args: Any, **options: Any) -> Any:
        chunks[way] += 1
        return run(*args, **options)

    monkeypatch.setattr(ChunkRunner, "run", count)
    fits = {}
    for way in ("together", "by epoch"):
        if way == "by epoch":
            monkeypatch.setattr(Convergence, "epochs_at_once", 1)
        fitted = estimator(kind, batch_size=32, max_iter=80, **settings)
        for _ in range(2 if "warm_start" in settings else 1):
            fitted.fit(*data_of(kind, blobs))
        fits[way] = fitted
    together, by_epoch = fits.values()
    for name in ("n_iter_", "t_", "loss_curve_", "loss_", "best_loss_", "validation_scores_"):
        assert getattr(together, name) == getattr(by_epoch, name), name
    for name in ("coefs_", "intercepts_"):
        assert all(map(np.array_equal, getattr(together, name), getattr(by_epoch, name)))
    is_free = not settings.keys() & {"early_stopping"} and "invscaling" not in settings.values()
    assert (chunks["together"] < chunks["by epoch"]) == is_free


def test_interrupted_training_keeps_the_epochs_before_the_chunk(
    blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_accel.training.trainer.CHUNK_SECONDS", 600)  # for a slow machine
    update, numbers = NumpyBackend.update, itertools.count(1)

    def update_or_interrupt(*args: Any, **options: Any) -> None:
        if next(numbers) == 38:  # in epoch 13, the second of a chunk
            raise KeyboardInterrupt
        update(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(NumpyBackend, "update", update_or_interrupt)
        with pytest.warns(UserWarning, match="interrupted by user"):
            stopped = classifier(batch_size=30).fit(*blobs)
    whole = classifier(batch_size=30, max_iter=11).fit(*blobs)
    assert stopped.n_iter_ == whole.n_iter_ == 11
    assert stopped.loss_curve_ == whole.loss_curve_
    assert all(map(np.array_equal, stopped.coefs_, whole.coefs_))


# Messages


def test_verbose_prints_each_epoch_and_why_training_ends(
    blobs: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = classifier(verbose=True, tol=0.5, n_iter_no_change=2).fit(*blobs)
    *epochs, last = capsys.readouterr().out.splitlines()
    assert epochs[0] == f"Iteration 1, loss = {fitted.loss_curve_[0]:.8f}"
    assert len(epochs) == fitted.n_iter_
    assert last == (
        "Training loss did not improve more than tol=0.500000 for 2 consecutive epochs. Stopping."
    )


def test_verbose_shows_a_bar_below_the_lines_on_a_terminal(
    blobs: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    fitted = classifier(verbose=True, tol=0.5, n_iter_no_change=2).fit(*blobs)
    assert "━" in terminal.getvalue()
    *epochs, last = (line for line in screen(terminal.getvalue()) if line)
    assert [line.split(",")[0] for line in epochs] == [
        f"Iteration {number + 1}" for number in range(fitted.n_iter_)
    ]
    assert last.endswith("Stopping.")


def test_training_without_convergence_warns(blobs: Data) -> None:
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\) reached"):
        classifier(max_iter=3).fit(*blobs)


def test_batch_larger_than_the_data_warns(blobs: Data) -> None:
    with pytest.warns(UserWarning, match="batch_size is 500, but there are only 90 samples"):
        classifier(max_iter=3, batch_size=500).fit(*blobs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "lbfgs"}, "no solver 'lbfgs', .* use MLPClassifier"),
        ({"alpha": -1.0}, "The 'alpha' parameter of NetworkClassifier must be a float in"),
        ({"momentum": 1.0, "solver": "sgd"}, "momentum must be at least 0 and less than 1"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be at least 1 each"),
        ({"model": "no-recipe"}, "no-recipe"),
        ({"backend": "nunpy"}, "nunpy"),
        ({"threads": 0}, "The 'threads' parameter of NetworkClassifier"),
        ({"early_stopping": True, "validation_fraction": 0.01}, "validation set is too small"),
    ],
    ids=str,
)
def test_invalid_parameters_are_explained(
    blobs: Data, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(**settings).fit(*blobs)


def test_invalid_data_is_explained_and_the_fitted_network_stays(blobs: Data) -> None:
    x, y = blobs
    fitted = classifier(max_iter=5).fit(x, y)
    before = fitted.predict_proba(x)
    with_nan = np.where(np.arange(90)[:, None] == 3, np.nan, x)
    for data, message in (
        ((with_nan, y), "Input X contains NaN"),
        ((x, np.zeros(90)), r"at least 2 classes, but there is only one class: 0\.0"),
        ((x, x[:, 0]), "Unknown label type: continuous"),
        ((x, y, -np.ones(90)), r"Sample weights must not be negative, got -1\.0"),
        ((x, y, np.zeros(90)), "at least one non-zero number"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.fit(*data)
        assert np.array_equal(fitted.predict_proba(x), before)
    with pytest.raises(ValueError, match=r"y has labels that are not in classes_: \[5\]"):
        fitted.partial_fit(x, np.where(y == 2, 5, y))
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        classifier(early_stopping=True).partial_fit(x, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier().partial_fit(x, y)


@pytest.mark.parametrize("other", [7, None, 1.5])
def test_labels_of_several_types_are_refused_in_one_sentence(blobs: Data, other: object) -> None:
    x, y = blobs
    words = np.array(["a", "b", "c"], dtype=object)[y]
    mixed = np.where(y == 2, np.array([other], dtype=object), words)
    message = rf"y has labels of the types .*{type(other).__name__}.*, expected only strings or"
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, mixed)
    with pytest.raises(ValueError, match=message):
        classifier().partial_fit(x, mixed, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=message.replace("y has", "classes has")):
        classifier().partial_fit(x, words, classes=np.array(["a", other], dtype=object))


def test_diverging_training_is_explained(blobs: Data) -> None:
    x, y = blobs
    with pytest.raises(ValueError, match=r"training diverged .* or scale the features"):
        NetworkRegressor(solver="sgd", backend="numpy").fit(x * 1e150, y)


def test_package_is_imported_only_on_demand() -> None:
    code = "import sys, mnist_accel; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
