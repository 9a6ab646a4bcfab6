"""Names and flags are accepted in other spellings, or an error names the right one."""

import pytest

import mnist_accel as ma
from mnist_accel.commands.dispatcher import command_parser
from mnist_accel.commands.train_settings import settings_in
from tests.support.command_line import QUICK, read_json


def settings(*words):
    """Return the settings that the command `train` reads from its arguments."""
    return settings_in(command_parser("train", prog="mnist-accel train").parse_args(words))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--backend", "cuda"], "backend", "cupy"),
        (["--backend", "GPU"], "backend", "cupy"),
        (["--backend", "NumPy"], "backend", "numpy"),
        (["--device", "cuda:0"], "device", "cuda:0"),
        (["--device", "1"], "device", "cuda:1"),
        (["--optimizer", "SGD"], "optimizer", "sgd"),
        (["--optimizer", "RMSprop"], "optimizer", "rmsprop"),
        (["--optimizer=AdamW"], "optimizer", "adamw"),
        (["--opt", "SGD"], "optimizer", "sgd"),
        (["--dataset", "FashionMNIST"], "dataset", "fashion-mnist"),
        (["--dataset", "fashion_mnist"], "dataset", "fashion-mnist"),
        (["--dataset", "MNIST"], "dataset", "mnist"),
        (["--model", "LeNet"], "model", "lenet"),
        (["--model", "LeNet-5"], "model", "lenet"),
        (["--model", "two_layer"], "model", "two-layer"),
        (["lenet"], "model", "lenet"),
        (["--epochs", "2", "ThreeLayer"], "model", "three-layer"),
        (["lenet", "--model", "LENET"], "model", "lenet"),
        (["--activation", "ReLU"], "activation", "relu"),
        (["--dtype", "double"], "dtype", "float64"),
        (["--schedule", "OneCycle"], "schedule", "one-cycle"),
        (["--learning-rate", "0.5"], "lr", 0.5),
        (["--learning_rate=0.5"], "lr", 0.5),
        (["--LR", "0.5"], "lr", 0.5),
        (["--log-interval", "7"], "log_every", 7),
        (["--epoch", "5"], "epochs", 5),
        (["-epochs", "5"], "epochs", 5),
        (["--batch_size", "5"], "batch_size", 5),
        (["--batchsize", "5"], "batch_size", 5),
        (["--BatchSize=5"], "batch_size", 5),
        (["--batch", "5"], "batch_size", 5),
    ],
)
def test_other_spellings_have_the_same_meaning(words, name, value):
    assert settings(*words)[name] == value


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lennet"], "unknown model 'lennet'; choose from fcnn, two-layer, "),
        (["lennet"], "did you mean 'lenet'?"),
        (["digits"], "digits is a data set, not a model; give it with --dataset digits"),
        (["csv:a.csv"], "give it with --dataset csv:a.csv"),
        (["lenet", "--model", "cnn"], "model is given twice: lenet and cnn; remove one of them"),
        (["--model", "cnn", "lenet"], "model is given twice: cnn and lenet; remove one of them"),
        (["--learnin-rate", "1"], "unknown flag --learnin-rate; did you mean --lr?"),
        (["--epoch-count", "1"], "unknown flag --epoch-count; did you mean --epochs?"),
        (["--optimiser", "sgd"], "did you mean --optimizer?"),
        (["--mod", "lenet"], "unknown flag --mod; did you mean --model?"),  # no abbreviations
        (["--backend", "cpu"], "backend 'cpu' is ambiguous; choose numba or numpy"),
        (["--backend", "cuda:0"], "unknown backend 'cuda:0'"),
        (["--device", "cpu"], "no backend that auto can choose here takes a device, got cpu"),
        (["--gpu"], "unknown flag --gpu; did you mean --backend cupy?"),
        (["--no-cuda"], "unknown flag --no-cuda; did you mean --backend numba?"),
        (["--optimizer", "sdg"], "did you mean 'sgd'?"),
        (["--dtype", "float"], "dtype 'float' is ambiguous; choose float32 or float64"),
        (["-e", "5"], "unknown flag -e (see"),
        (["-epocs", "5"], "unknown flag -epocs; did you mean --epochs?"),
        (["lenet", "cnn"], "unrecognized arguments: cnn"),
        (["--", "--quiet"], "unknown model '--quiet'"),
    ],
)
def test_errors_for_unknown_names_suggest_the_right_spelling(words, says, fails):
    error = fails(2, "train", *words, says=says)
    assert len(error) < 220


def test_names_are_stored_as_the_recipes_spell_them(run):
    arguments = (*QUICK, "--model", "TwoLayer", "--optimizer", "SGD", "--dataset", "Digits")
    assert run("train", *arguments, "--backend", "NumPy", "--out", "run", "--quiet")[0] == 0
    stored = read_json("run/config.json")["settings"]
    names = [stored[name] for name in ("model", "optimizer", "dataset", "backend")]
    assert names == ["two-layer", "sgd", "digits", "numpy"]


def test_commands_other_than_train_take_their_subject_without_a_flag(run, fails):
    code, out, _ = run("gradcheck", "CNN", "--elements", 1, "--backend", "numpy")
    assert code == 0
    assert out.startswith("cnn: ")
    assert run("data", "Digits")[1].startswith("digits: ")
    fails(2, "data", "digits", "--dataset", "mnist", says="dataset is given twice")


def test_python_accepts_the_same_names():
    backend = ma.get_backend("NumPy")
    model = ma.create_model("LeNet", backend=backend, activation="ReLU", dtype="Float64")
    assert (model.name, model.dtype) == ("lenet", "float64")
    trainer = ma.Trainer(model, optimizer="SGD", schedule="OneCycle", sampling="Shuffle")
    assert trainer.sampling == "shuffle"
    assert ma.load_dataset("DIGITS").name == "digits"
    with pytest.raises(TypeError, match=r"model must be one of fcnn, .*, got None"):
        ma.create_model(None)
    with pytest.raises(ValueError, match=r"unknown data set 'fashon'; .*; did you mean"):
        ma.load_dataset("fashon")
