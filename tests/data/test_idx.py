"""IDX files are read exactly or rejected."""

import contextlib
import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_accel.data.idx import format_idx, parse_idx, read_idx_bytes
from mnist_accel.errors import DataError

LABELS = bytes.fromhex("00000801 00000003 070009")
IMAGES = bytes.fromhex("00000803 00000001 00000002 00000003 010203040506")


def read_idx(path):
    """Return the array in a file."""
    return parse_idx(read_idx_bytes(path), name=str(path))


labels_or_images = hnp.arrays(
    np.uint8,
    st.one_of(
        st.tuples(st.integers(0, 30)),
        st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
    ),
)


def test_known_bytes_are_parsed():
    assert parse_idx(LABELS, name="labels").tolist() == [7, 0, 9]
    images = parse_idx(IMAGES, name="images")
    assert images.dtype == np.uint8
    assert images.tolist() == [[[1, 2, 3], [4, 5, 6]]]


@given(labels_or_images)
def test_format_then_parse_returns_the_array(array):
    back = parse_idx(format_idx(array), name="x")
    assert back.shape == array.shape
    assert np.array_equal(back, array)


def test_format_follows_values_not_memory_order():
    array = np.arange(24, dtype=np.uint8).reshape(4, 3, 2).transpose(2, 1, 0)
    assert np.array_equal(parse_idx(format_idx(array), name="x"), array)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["truncated", "found 0 bytes"]),
        (LABELS[:6], ["truncated", "found 6 bytes", "header of 8"]),
        (LABELS[:-1], ["truncated", "found 10 bytes", "expected 11"]),
        (IMAGES + b"\0", ["oversized", "found 23 bytes", "expected 22", "1 × 2 × 3"]),
        (b"\x89PNG\r\n\x1a\n", ["magic number 0x89504e47", "0x00000801", "0x00000803"]),
        (bytes.fromhex("00000d01 00000000"), ["magic number 0x00000d01"]),  # float32 labels
        (
            bytes.fromhex("00000803") + b"\xff" * 12,
            ["4294967295 × 4294967295", "more than the maximum of 600,000,000"],
        ),
        (struct.pack(">4I", 0x803, 697932, 28, 28), ["truncated", "expected 547178704"]),  # EMNIST
        (struct.pack(">4I", 0x803, 60000, 0, 28), ["invalid", "60000 × 0 × 28"]),
    ],
)
def test_malformed_files_are_rejected_with_one_line(data, parts):
    with pytest.raises(DataError) as caught:
        parse_idx(data, name="some-file")
    message = str(caught.value)
    assert message.startswith("some-file ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_rejected_or_read_exactly(data):
    try:
        array = parse_idx(data, name="x")
    except DataError:
        return
    assert format_idx(array) == data


@given(labels_or_images, st.data())
def test_mutated_files_are_rejected_or_read_exactly(array, data):
    mutated = bytearray(format_idx(array))
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["change", "cut", "append"])):
            case "change" if mutated:
                at = data.draw(st.integers(0, min(len(mutated), 20) - 1))
                mutated[at] = data.draw(st.integers(0, 255))
            case "cut":
                del mutated[data.draw(st.integers(0, len(mutated))) :]
            case _:
                mutated += data.draw(st.binary(max_size=4))
    test_arbitrary_bytes_are_rejected_or_read_exactly.hypothesis.inner_test(bytes(mutated))


@pytest.mark.parametrize("encode", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["labels", "labels.gz"])
def test_compression_is_detected_by_content_not_by_name(tmp_path, encode, name):
    path = tmp_path / name
    path.write_bytes(encode(LABELS))
    assert read_idx(path).tolist() == [7, 0, 9]


@given(st.data())
def test_corrupt_gzip_is_rejected_or_read_exactly(tmp_path_factory, data):
    packed = bytearray(gzip.compress(LABELS, mtime=0))
    at = data.draw(st.integers(2, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del packed[at:]
    path = tmp_path_factory.getbasetemp() / "corrupt.gz"
    path.write_bytes(packed)
    try:
        array = read_idx(path)
    except DataError:
        return
    assert array.tolist() == [7, 0, 9]  # the change affected an unused flag


def peak_memory_of_reading(path) -> int:
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    # 100 MB of zeros after a header that declares three labels.
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(LABELS)
        for _ in range(25):
            file.write(bytes(2**22))
    with pytest.raises(DataError, match="oversized: found 12 bytes, expected 11"):
        read_idx(path)
    assert peak_memory_of_reading(path) < 2**23


def test_short_file_that_declares_a_large_size_allocates_little(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(struct.pack(">2I", 0x801, 2**28 - 8) + b"123")
    with pytest.raises(DataError, match="truncated: found 11 bytes"):
        read_idx(path)
    assert peak_memory_of_reading(path) < 2**24


def test_missing_file_and_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere: No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read_idx(tmp_path)


def test_arrays_that_idx_cannot_store_are_rejected():
    with pytest.raises(TypeError, match="got float32"):
        format_idx(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        format_idx(np.zeros((2, 2), np.uint8))
