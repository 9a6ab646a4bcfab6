"""Data sets from `.npz` and `.csv` files, and IDX files of other sizes and classes."""

import gzip
import zipfile

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.data import load_dataset
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.errors import DataError, DataWarning
from mnist_accel.populations.folder import PopulationFolder

FEW_EXAMPLES = pytest.mark.filterwarnings("ignore::mnist_accel.errors.DataWarning")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8)
WORDS = np.array(["yes", "no", "maybe"])[np.arange(60) % 3]
TRAIN = ("--backend", "numpy", "--threads", "1", "--iterations", "6", "--batch-size", "8")


def write_csv(path, rows, header="a,b,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return f"csv:{path}"


def features(path, *, split=False):
    """Write 40 rows of two features, and return the name of the data set."""
    rows = [f"{i / 7},{-i},{'even' if i % 2 == 0 else 'odd'}" for i in range(40)]
    if not split:
        return write_csv(path, rows)
    rows = [f"{row},{'test' if i >= 30 else 'train'}" for i, row in enumerate(rows)]
    return write_csv(path, rows, "a,b,label,split")


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x=IMAGES, y=WORDS)
    return f"npz:{path}"


def test_archive_with_its_own_test_set(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=IMAGES[:40], y_train=WORDS[:40], x_test=IMAGES[40:], y_test=WORDS[40:])
    data = load_dataset(f"npz:{path}")
    assert data.class_names == ("maybe", "no", "yes")
    assert np.array_equal(data.x_train, IMAGES[:40])
    assert [data.class_names[label] for label in data.t_test] == WORDS[40:].tolist()
    assert (data.kind, data.form.shape, data.form.classes) == ("pixels", (8, 8), 3)


def test_test_split_is_random_and_always_the_same(archive):
    one, other = (load_dataset(archive, test_split=0.25) for _ in range(2))
    assert (len(one.x_train), len(one.x_test)) == (45, 15)
    assert np.array_equal(one.x_test, other.x_test)
    assert not np.array_equal(one.x_test, IMAGES[45:])


def test_integer_labels_become_classes_in_ascending_order(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=IMAGES, y=np.array([10, 9, -1])[np.arange(60) % 3])
    assert load_dataset(f"npz:{path}", test_split=0.2).class_names == ("-1", "9", "10")


def test_csv_with_a_column_for_the_split(tmp_path):
    data = load_dataset(features(tmp_path / "f.csv", split=True))
    assert (data.kind, data.x_train.shape, data.x_test.shape) == ("features", (30, 2), (10, 2))
    assert data.x_test[0].tolist() == pytest.approx([30 / 7, -30])
    assert data.class_names == ("even", "odd")


@FEW_EXAMPLES
def test_quoted_values_and_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "f.csv").write_bytes(
        '\ufeff"the label",a\r\n"red, dark",1\r\n\r\nblue," 2.5 "\r\n'.encode()
    )
    data = load_dataset(f"csv:{tmp_path}/f.csv", label_column="the label", test_split=0.5)
    assert data.class_names == ("blue", "red, dark")


def test_table_of_pixels_becomes_square_images(tmp_path):
    header = ",".join(["label", *(f"p{i}" for i in range(64))])
    pairs = zip(IMAGES.reshape(60, 64), WORDS, strict=True)
    rows = [",".join([word, *map(str, row)]) for row, word in pairs]
    name = write_csv(tmp_path / "pixels.csv", rows, header)
    data = load_dataset(name, test_split=0.25)
    assert (data.kind, data.x_train.dtype, data.form.shape) == ("pixels", np.uint8, (8, 8))
    as_features = load_dataset(name, test_split=0.25, kind="features")
    assert (as_features.kind, as_features.form.shape) == ("features", (64,))
    assert np.array_equal(as_features.x_train, data.x_train.reshape(-1, 64))


@FEW_EXAMPLES
@pytest.mark.parametrize(
    ("examples", "kind"),
    [
        (np.zeros((4, 3), np.uint8), "pixels"),
        (np.full((4, 28, 28, 3), -0.5), "features"),
        (np.full((4, 8, 8), 0.5), "pixels"),
        (np.full((4, 8, 8), 200), "pixels"),
        (np.full((4, 8, 8), -0.5), "features"),
        (np.full((4, 64), 200.0), "pixels"),
        (np.full((4, 64), 16.0), "features"),
        (np.full((4, 63), 200.0), "features"),
        (np.full((4, 64), 200.5), "features"),
    ],
)
def test_pixels_and_features_are_told_apart(tmp_path, examples, kind):
    np.savez(tmp_path / "a.npz", x=examples, y=[0, 1, 0, 1])
    data = load_dataset(f"npz:{tmp_path}/a.npz", test_split=0.5)
    assert data.kind == kind
    assert f"read as {kind}" in data.source


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,2,x", "1,oops,y"], "line 3 of .* has 'oops', which is not a number, in column 'b'"),
        (["1,2,x", "1,,y"], "line 3 of .* has no value, in column 'b'"),
        (["1,2,x", "nan,1,y"], "line 3 of .* has nan, .*not a finite number.* in column 'a'"),
        (["1,2,x", "1e99,1,y"], "line 3 of .* has 1e99, which is too large for float32, in col"),
        (["1,2,x", f"-{'9' * 400},1,y"], "line 3 of .* has -9999.*…, which is too large for flo"),
        (["1,2,x", "-inf,1,y"], "line 3 of .* has -inf, which is not a finite number"),
        (["1,2,x", "1_0,1,y"], "line 3 of .* has '1_0', which is not a number, in column 'a'"),
        (["1,2,1", "1,2,1.5"], "has the label 1.5 among numbers, expected whole numbers or words"),
        (["1,2,1", "1,2,nan"], "has the label nan among numbers"),
        ([f"1,2,{'x' * 201}"], "line 2 of .* has a label of 201 characters, expected at most 200"),
        (["1,2,x", "1,2"], "line 3 of .* has 2 columns, but the header has 3"),
        (["1,2,x", "1,2, "], "line 3 of .* has no label in column 'label'"),
        (["1,2,x", "1,2,x"], "only one class, 'x'"),
        ([], "has a header but no rows"),
        (['1,2,"x'], "line 2 of .* is not valid CSV"),
    ],
)
def test_faults_of_a_table_name_line_and_column(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        load_dataset(write_csv(tmp_path / "f.csv", rows), test_split=0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected a header"),
        (b"a,b\n1,2\n", "has no column 'label' .* its columns are a, b; name one"),
        (b"label;a\nx;1\n", "separates columns with semicolons"),
        (b"label,label\nx,1\n", "has two columns 'label'"),
        (b"a,label,a\n1,x,2\n", "has two columns 'a'; rename or remove one"),
        (b",a,label\n0,1,x\n", "column 1 of .* has no name; name or remove it"),
        (b"label\ta\nx\t1\n", "separates columns with tabs"),
        (b"label\nx\ny\n", "has no column besides label"),
        (gzip.compress(b"a,label\n1,x\n", mtime=0), "is compressed; unpack it"),
        (b"label,a\n\xff,1\n", "not a text file in UTF-8"),
        (b"label,a,split\nx,1,dev\n", "has 'dev' in column 'split', expected train or test"),
        (b"label,a,split\nx,1,train\ny,1,train\n", "has no row 'test'"),
    ],
)
def test_other_faulty_tables_are_rejected(tmp_path, content, message):
    (tmp_path / "f.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(f"csv:{tmp_path}/f.csv")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "contains the arrays x; the arrays must be"),
        ({"x": IMAGES, "y": WORDS[:5]}, "60 examples and 5 labels"),
        ({"x": IMAGES, "y": np.array([None] * 60)}, "stored as a pickle and not read"),
        ({"x": IMAGES, "y": np.arange(60) / 7}, "has the label 0.14.* among numbers"),
        ({"x": IMAGES, "y": np.array(["", "a"] * 30)}, "has an empty label; name the class"),
        ({"x": IMAGES, "y": np.array([b"\xff", b"a"] * 30)}, "contains text that is not UTF-8"),
        ({"x": IMAGES, "y": WORDS, "x_train": IMAGES}, "the arrays must be x_train, y_train"),
        ({"x_train": IMAGES, "y_train": WORDS, "x_test": IMAGES}, "contains the arrays x_test, "),
        (
            {"x_train": IMAGES, "y_train": WORDS, "x_test": IMAGES / 255, "y_test": WORDS},
            "training examples of dtype uint8 and test examples of dtype float64; scale",
        ),
        (
            {"x": np.zeros((60, 8, 9, 3), np.uint8), "y": WORDS},
            r"looks like \(N, H, W, C\), expected \(N, C, H, W\); transpose",
        ),
        ({"x": IMAGES, "y": np.zeros(60, int)}, "only one class, '0'"),
        ({"x": np.full((60, 2), np.nan), "y": WORDS}, "finite numbers in float32, got nan"),
        ({"x": WORDS, "y": WORDS}, "dtype <U5, expected numbers"),
        ({"x": IMAGES[:0], "y": WORDS[:0]}, "contains no example"),
        (
            {"x": IMAGES, "y": np.eye(60, dtype=int)},
            r"labels of shape \(60, 60\).*; number one-hot labels with argmax\(axis=1\)$",
        ),
        ({"x": IMAGES, "y": np.zeros((60, 1), int)}, r"; flatten the labels with ravel\(\)$"),
    ],
)
def test_faulty_archives_are_rejected(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_dataset(f"npz:{tmp_path}/a.npz", test_split=0.5)


def test_a_file_of_one_array_is_recognized(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(DataError, match=r"contains one array, .* together with numpy.savez"):
        load_dataset(f"npz:{tmp_path}/a.npy", test_split=0.5)


def test_an_archive_with_the_same_array_twice_is_rejected(tmp_path):
    np.savez(tmp_path / "a.npz", x=IMAGES, y=WORDS)
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("x.npy", archive.read("x.npy"))
    with pytest.raises(DataError, match="contains the arrays x, x, y; the arrays must be"):
        load_dataset(f"npz:{tmp_path}/a.npz", test_split=0.5)


@pytest.mark.parametrize("labels", [[2.0, 10.0], ["2", "10"], [" 2", "10.0 "], [b"2", b"10"]])
def test_equal_labels_are_equal_classes_in_both_formats(tmp_path, labels):
    np.savez(tmp_path / "a.npz", x=np.ones((40, 2)), y=np.array(labels * 20))
    write_csv(tmp_path / "a.csv", ["1,1,2", "1,1,10.0"] * 20)
    for name in ("npz", "csv"):
        data = load_dataset(f"{name}:{tmp_path}/a.{name}", test_split=0.5)
        assert data.class_names == ("2", "10")


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_pixels_of_zeros_and_ones_are_black_and_white(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", x=(IMAGES > 99).astype(dtype), y=WORDS)
    data = load_dataset(f"npz:{tmp_path}/a.npz", test_split=0.2)
    assert (data.kind, data.x_train.dtype, data.x_train.max()) == ("pixels", np.float32, 1)


def test_classes_without_training_examples_or_with_one_example_cause_warnings(tmp_path):
    rows = ["1,2,a,train", "1,2,b,train", "1,2,a,train", "1,2,c,test", "1,2,c,test"]
    name = write_csv(tmp_path / "f.csv", rows, "p,q,label,split")
    with pytest.warns(DataWarning) as caught:
        load_dataset(name)
    assert [str(warning.message) for warning in caught] == [
        "each of these classes in f.csv is only in the test set, so a network cannot learn it: "
        "'c'; check the labels",
        "each of these classes in f.csv has a single example: 'b'; check the labels",
    ]
    assert {warning.filename for warning in caught} == {__file__}


def test_names_with_control_characters_are_printed_escaped(tmp_path, capsys):
    rows = [f'{i},"red\nalert\x1b[31m"' if i % 2 else f"{i},green" for i in range(20)]
    name = write_csv(tmp_path / "f.csv", rows, "a,label")
    run = str(tmp_path / "run")
    flags = ["--dataset", name, "--test-split", "0.5"]
    assert main(["train", *flags, *TRAIN, "--out", run]) == 0
    assert main(["data", *flags]) == 0
    for command in (["evaluate"], ["predict", "--index", "0"]):
        assert main([*command, run, "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert "red\nalert" not in out
    assert out.count("red\\nalert\\x1b[31m") >= 4


def test_each_door_names_options_in_its_own_way(tmp_path, capsys, archive):
    assert main(["data", archive]) == 2
    assert "such as a fifth with --test-split 0.2\n" in capsys.readouterr().err
    np.savez(tmp_path / "b.npz", x=np.full((60, 8, 8), 300), y=WORDS)
    given = {"test_split": 0.2, "kind": "pixels"}
    with pytest.raises(DataError, match=r"as features with kind='features'$"):
        load_dataset(f"npz:{tmp_path}/b.npz", **given)
    assert main(["data", f"npz:{tmp_path}/b.npz", "--test-split", "0.2", "--kind", "pixels"]) == 4
    assert "read them as features with --kind features\n" in capsys.readouterr().err


def test_a_file_without_its_format_is_suggested_with_it(capsys):
    assert main(["data", "--dataset", "my/ok.CSV"]) == 2
    assert "did you mean csv:my/ok.CSV?" in capsys.readouterr().err


def test_arguments_that_do_not_fit_are_named(tmp_path, archive):
    with pytest.raises(ValueError, match=r"contains no test set; .* with test_split=0.2$"):
        load_dataset(archive)
    with pytest.raises(ValueError, match=r"contains a test set; omit test_split"):
        load_dataset(features(tmp_path / "f.csv", split=True), test_split=0.5)
    with pytest.raises(ValueError, match=r"is for npz:FILE and csv:FILE, not for digits"):
        load_dataset("digits", test_split=0.5)
    with pytest.raises(ValueError, match=r"label_column is for csv:FILE"):
        load_dataset(archive, label_column="y", test_split=0.5)
    with pytest.raises(ValueError, match="names no file"):
        load_dataset("csv:")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is not a \.npz archive"):
        load_dataset(f"npz:{tmp_path}/broken.npz", test_split=0.5)


def test_run_on_an_archive_shows_the_names_of_its_classes(tmp_path, archive, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "npz:mine.npz"  # the run stores the absolute path
    assert main(["train", "cnn", "--dataset", name, "--test-split", "0.2", *TRAIN,
                 "--out", "run"]) == 0  # fmt: skip
    monkeypatch.chdir("/")
    run = str(tmp_path / "run")
    assert main(["evaluate", run, "--backend", "numpy"]) == 0
    assert main(["predict", run, "--index", "0", "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert "maybe" in out
    assert (tmp_path / "run" / "mistakes.png").exists()
    assert main(["train", "--resume", run, "--iterations", "9"]) == 0
    picture = str(tmp_path / "run" / "mistakes.png")
    assert main(["predict", run, "--image", picture, "--backend", "numpy"]) == 0


def test_run_on_features_needs_no_pictures_of_mistakes(tmp_path, capsys):
    name, run = features(tmp_path / "f.csv", split=True), str(tmp_path / "run")
    assert main(["train", "--dataset", name, *TRAIN, "--out", run]) == 0
    assert "read as features" in capsys.readouterr().err
    assert main(["train", "--resume", run]) == 0
    assert not (tmp_path / "run" / "mistakes.png").exists()
    assert main(["evaluate", run, "--backend", "numpy"]) == 0
    assert main(["predict", run, "--index", "0", "--backend", "numpy"]) == 0
    assert main(["predict", run, "--image", "x.png", "--backend", "numpy"]) == 4
    assert "no gray images" in capsys.readouterr().err
    assert main(["draw", run, "--no-open"]) == 4
    assert "the page draws images, but the network takes features" in capsys.readouterr().err


def test_evaluation_on_another_file_uses_the_classes_of_the_run(tmp_path, archive, capsys):
    run, other = str(tmp_path / "run"), tmp_path / "other.npz"
    split = ("--test-split", "0.5")
    assert main(["train", "--dataset", archive, *split, *TRAIN, "--out", run]) == 0
    evaluate = ["evaluate", run, "--backend", "numpy", "--dataset", f"npz:{other}", *split]
    np.savez(other, x=IMAGES[:20], y=np.array(["yes", "no"])[np.arange(20) % 2])
    assert main(evaluate) == 0
    np.savez(other, x=IMAGES[:20], y=np.array(["yes", "never"])[np.arange(20) % 2])
    assert main(evaluate) == 4
    assert "has the class 'never'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("lenet", "'lenet' does not fit images of 8×8: a patch of 5 does not fit"),
        ("fast99", "'fast99' does not fit images of 8×8"),
    ],
)
def test_images_that_are_too_small_are_refused(tmp_path, archive, capsys, model, message):
    for command in ("train", "population"):
        flags = ["--dataset", archive, "--test-split", "0.2", "--backend", "numpy"]
        out = tmp_path / command
        assert main([command, model, *flags, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_convolutions_refuse_features(tmp_path, capsys):
    name = features(tmp_path / "f.csv", split=True)
    assert main(["train", "lenet", "--dataset", name, *TRAIN]) == 2
    assert "'lenet' does not fit 2 features: its convolutions take images" in (
        capsys.readouterr().err
    )


def test_population_on_a_file(tmp_path, archive, capsys):
    out = tmp_path / "population"
    flags = ["--dataset", archive, "--test-split", "0.2", *TRAIN[:2], *TRAIN[4:]]
    assert main(["population", "cnn", "--seeds", "2", *flags, "--quiet", "--out", str(out)]) == 0
    network = PopulationFolder(out).load()[0]
    assert network.input_shape == (1, 8, 8)
    assert network.classes == 3


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 4)])
def test_dense_recipes_take_images_of_any_shape(shape):
    form = ma.data.DataForm(shape, 4, "pixels")
    network = ma.create_model("two-layer", backend="numpy", form=form)
    assert network.predict_proba(np.zeros((2, *shape), np.uint8)).shape == (2, 4)


def write_idx(folder, prefix, images, labels):
    for name in FILE_NAMES:
        array = images if "images" in name else labels
        (folder / f"{prefix}{name}").write_bytes(format_idx(array.astype(np.uint8)))


def test_emnist_letters_are_upright_and_named(tmp_path):
    write_idx(tmp_path, "emnist-letters-", IMAGES[:26], np.arange(1, 27))
    data = load_dataset("custom", tmp_path)
    assert data.class_names[0] + data.class_names[25] == "AZ"
    assert data.t_train.tolist() == list(range(26))
    assert np.array_equal(data.x_train[3], IMAGES[3].T)
    assert "EMNIST letters, images transposed upright" in data.source


def test_emnist_balanced_has_47_classes(tmp_path):
    write_idx(tmp_path, "emnist-balanced-", IMAGES[:47], np.arange(47))
    names = load_dataset("custom", tmp_path).class_names
    assert "".join(names) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"


def test_idx_files_with_more_than_ten_classes(tmp_path):
    write_idx(tmp_path, "", IMAGES[:12], np.arange(1, 13))
    data = load_dataset("custom", tmp_path)
    assert (data.class_names[-1], len(data.class_names)) == ("12", 12)
    assert np.array_equal(data.x_train, IMAGES[:12])
