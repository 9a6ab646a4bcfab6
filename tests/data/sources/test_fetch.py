"""`fetch_files` tries the user's folder, the cache and the fallbacks in this order."""

import sys

import pytest

from mnist_accel.data import load_dataset
from mnist_accel.data.sources.cache import DataCache
from mnist_accel.data.sources.fetch import fetch_files
from mnist_accel.data.sources.local_copies import LocalCopies
from mnist_accel.errors import DataError
from tests.support.published_files import FILES, TINY, TRAIN_IMAGES, corrupt, fill


class Available:
    """A source that has the files and counts its reads."""

    name = "available"

    def __init__(self):
        self.reads = 0

    def read(self, published):
        self.reads += 1
        return FILES, "given by the test"


class Unavailable:
    name = "unavailable"

    def read(self, published):
        raise DataError("it is\nnot there")


# The user's folder


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
def test_only_the_given_folder_is_read(tmp_path, compressed):
    folder = fill(tmp_path / "mine", compressed=compressed)
    cache, other = DataCache(tmp_path / "cache"), Available()
    files, origin = fetch_files(TINY, data_dir=folder, cache=cache, fallbacks=[other])
    assert files == FILES
    assert origin == f"folder {folder}"
    assert other.reads == 0
    assert not (tmp_path / "cache").exists()


def test_missing_or_corrupt_file_in_the_given_folder_is_an_error(tmp_path, monkeypatch):
    folder = fill(tmp_path / "mine")
    other = Available()
    corrupt(folder / TRAIN_IMAGES)
    monkeypatch.setenv("MNIST_ACCEL_DATA", str(folder))
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES} from {folder} is not the file of mnist"):
        fetch_files(TINY, fallbacks=[other])
    (folder / TRAIN_IMAGES).unlink()
    with pytest.raises(DataError, match=f"has no file {TRAIN_IMAGES}.*MNIST_ACCEL_DATA"):
        fetch_files(TINY, fallbacks=[other])
    with pytest.raises(DataError, match="nowhere does not exist"):
        fetch_files(TINY, data_dir=tmp_path / "nowhere", fallbacks=[other])
    assert other.reads == 0


# The cache


def test_first_call_fills_the_cache_and_later_calls_read_it(tmp_path):
    cache, other = DataCache(tmp_path / "cache"), Available()
    first = fetch_files(TINY, cache=cache, fallbacks=[Unavailable(), other])
    assert first == (FILES, "given by the test")
    folder = cache.folder("mnist")
    assert fetch_files(TINY, cache=cache, fallbacks=[other]) == (FILES, f"cache {folder}")
    assert other.reads == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_corrupt_cache_is_detected_and_replaced(tmp_path):
    cache, other = DataCache(tmp_path / "cache"), Available()
    fetch_files(TINY, cache=cache, fallbacks=[other])
    corrupt(cache.folder("mnist") / TRAIN_IMAGES)
    with pytest.warns(UserWarning, match="fetched again: .*is not the file of mnist"):
        files, _ = fetch_files(TINY, cache=cache, fallbacks=[other])
    assert files == FILES
    assert fetch_files(TINY, cache=cache, fallbacks=[]) == (FILES, f"cache {cache.folder('mnist')}")


def test_cache_that_cannot_be_written_gives_a_warning(tmp_path):
    (tmp_path / "file").write_text("a file in place of the folder")
    with pytest.warns(UserWarning, match="cannot cache the data set in .*Not a directory"):
        files, _ = fetch_files(TINY, cache=DataCache(tmp_path / "file"), fallbacks=[Available()])
    assert files == FILES


def test_cache_with_an_invalid_path_gives_a_warning(tmp_path):
    cache = DataCache(tmp_path / ("x" * 300))
    with pytest.warns(UserWarning, match="cannot cache the data set in .*File name too long"):
        files, _ = fetch_files(TINY, cache=cache, fallbacks=[Available()])
    assert files == FILES


def test_default_cache_is_in_the_users_cache_folder(tmp_path):
    if sys.platform != "linux":
        pytest.skip("XDG_CACHE_HOME defines the cache folder on Linux only")
    assert DataCache().folder("mnist") == tmp_path / "home" / ".cache" / "mnist_accel" / "mnist"


# Failures


def test_error_lists_each_source_its_reason_and_the_remedy(tmp_path):
    cache = DataCache(tmp_path / "cache")
    with pytest.raises(DataError) as caught:
        fetch_files(TINY, cache=cache, fallbacks=[Unavailable(), LocalCopies(system={})])
    message = str(caught.value)
    assert "\n" not in message
    assert f"(1) cache: {tmp_path / 'cache' / 'mnist'} does not exist yet | " in message
    assert "| (2) unavailable: it is not there | " in message
    assert "| (3) copies of other libraries: found no copy" in message
    assert "give it with data_dir or MNIST_ACCEL_DATA" in message
    assert "or use dataset='digits', which needs no download" in message


@pytest.mark.parametrize("name", ["mnist", "custom"])
def test_path_that_the_operating_system_rejects_is_a_data_error(name):
    with pytest.raises(DataError, match=r"File name too long|does not exist"):
        load_dataset(name, data_dir="x" * 300)


def test_digits_never_replace_missing_mnist(tmp_path):
    with pytest.raises(DataError):
        load_dataset("mnist", data_dir=tmp_path)
