"""Hostile pickles are rejected in one short line, quickly and with little memory."""

import collections
import io
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import tracemalloc
from typing import ClassVar

import numpy as np
import pytest

from mnist_accel.errors import DataError
from mnist_accel.util.pickled_objects import NAMES, PickledArray
from mnist_accel.util.restricted_pickle import load_pickle

MAX_SECONDS = 2.0
MAX_BYTES = 2**24  # beyond three times the file


def rejection(data: bytes) -> str:
    """Return the message, after checking the cost of the rejection."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(DataError) as caught:
            load_pickle(data, name="hostile.pkl")
        seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    assert seconds < MAX_SECONDS
    assert peak < 3 * len(data) + MAX_BYTES
    return message


def frame(content: bytes, *, size: int | None = None) -> bytes:
    return b"\x95" + struct.pack("<Q", len(content) if size is None else size) + content


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


FLOAT32 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4I00\nI01\ntR"
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"B\x20\x00\x00\x00" + b"x" * 32 + b".", 3),  # the frame ends within the length
        (b"B\x20\x00\x00\x00" + b"x" * 32 + b".", 1),  # between opcode and length
        (b"B\x20\x00\x00\x00" + b"x" * 32 + b".", 5),  # between length and bytes
        (b"B\x20\x00\x00\x00" + b"x" * 32 + b".", 9),  # within the bytes
        (b"J\x01\x00\x00\x00.", 3),
        (b"G" + bytes(8) + b".", 4),
        (b"r\x01\x00\x00\x00N.", 3),
        (b"Vtext\n.", 3),
        (b"cnumpy\ndtype\n.", 9),
    ],
)
def test_instruction_that_crosses_the_end_of_a_frame_is_rejected(content, size):
    assert "exceeds the end" in rejection(b"\x80\x04" + frame(content, size=size)) or (
        "has no end" in rejection(b"\x80\x04" + frame(content, size=size))
    )


def test_frame_within_a_frame_or_beyond_the_file_is_rejected():
    assert "within another frame" in rejection(b"\x80\x04" + frame(frame(b"N") + b"."))
    assert "exceeds the end of the file" in rejection(b"\x80\x04" + frame(b"N.", size=2**63))


def test_code_hidden_after_the_end_of_a_frame_does_not_run():
    """CPython's C unpickler discards the rest of the frame; `pickletools` reads it as data."""
    hidden = b"\x82\xf0" + b"." * 30
    data = b"\x80\x04" + frame(b"N0B", size=4) + struct.pack("<I", len(hidden)) + hidden + b"."
    rejection(data)


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_extension_codes_are_rejected_by_name(opcode):
    assert "the pickle instruction EXT" in rejection(b"\x80\x02" + opcode + b".")


@pytest.mark.parametrize(
    "instruction",
    [
        b"r\xff\xff\xff\x7f",
        b"r\xff\xff\xff\xff",
        b"p2147483647\n",
        b"p" + b"9" * 1000 + b"\n",
        b"p-1\n",
    ],
)
def test_large_memo_indices_are_rejected(instruction):
    assert "memo index" in rejection(b"\x80\x02N" + instruction + b".")


@pytest.mark.parametrize("instruction", [b"N", b"(", b"]", b"}", b")", b"K\x01", b"h\x00"])
def test_number_of_instructions_is_limited(instruction):
    rejection(b"\x80\x04N\x94" + instruction * 3_000_000)


@pytest.mark.parametrize("setter", [b"d", b"s", b"u"])
def test_nested_tuples_as_keys_are_not_hashed(setter):
    nested = b")" + b"q\x00h\x00\x86" * 60  # hashing takes 2**60 steps
    before, after = (b"(", b"Nd.") if setter == b"d" else (b"}", b"Ns.")
    if setter == b"u":
        before, after = b"}(", b"Nu."
    assert "tuple as the key of a dict" in rejection(b"\x80\x02" + before + nested + after)
    pair = b"\x80\x02ccollections\nOrderedDict\n((" + nested + b"N\x86ttR."
    assert "tuple as the key of a dict" in rejection(pair)


@pytest.mark.parametrize("key", [b"N", b"K\x01", b"G" + bytes(8), b"]", b"}", text("x" * 257)])
def test_keys_are_short_strings(key):
    rejection(b"\x80\x02}" + key + b"Ns.")


@pytest.mark.parametrize(
    "shape",
    [
        b"(X\x01\x00\x00\x00aX\x01\x00\x00\x00bt",
        b"(X\x03\x00\x00\x00abcJ\xff\xff\xff\x7ft",
        b"(\x8a\x20" + b"\xff" * 31 + b"\x7f\x8a\x20" + b"\xff" * 31 + b"\x7ft",
        b"(J\xff\xff\xff\xfft",
        b"(\x88\x88t",
        b"(G\x3f\xf0\x00\x00\x00\x00\x00\x00t",
        b"(" + b"K\x01" * 33 + b"t",
        b"](K\x01e",
        b"K\x01",
        b"N",
        text("1"),
        b"(" + b"J\xff\xff\xff\x7f" * 31 + b"K\x00t",
    ],
)
def test_shapes_are_checked_before_arithmetic(shape):
    state = ARRAY + b"(I1\n" + shape + FLOAT32 + b"I00\nC\x04abcdtb."
    call = (
        b"cnumpy._core.numeric\n_frombuffer\n(C\x04abcd"
        + FLOAT32
        + shape
        + b"X\x01\x00\x00\x00CtR."
    )
    for data in (state, call):
        assert "shape" in rejection(data)


def test_repeated_strings_in_a_shape_are_rejected_cheaply():
    big = text("x" * 1_000_000)
    shape = big + b"q\x00" + b"J\x00\x00\x00\x40"
    rejection(b"\x80\x02" + ARRAY + b"(I1\n(" + shape + b"t" + FLOAT32 + b"I00\nC\x04abcdtb.")


def test_shared_byte_strings_are_decoded_once():
    content = b"x" * 4_000_000
    data = b"\x80\x03](B" + struct.pack("<I", len(content)) + content + b"q\x00" + b"h\x00" * 2500
    tracemalloc.start()
    value = load_pickle(data + b"e.", name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(value) == 2501
    assert all(item is value[0] for item in value)
    assert peak < 4 * len(data)


@pytest.mark.parametrize("call", [b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n"])
def test_calls_cannot_repeat_the_same_data(call):
    if b"encode" in call:
        argument = text("x" * 4_000_000) + text("latin1") + b"\x86"
    else:
        argument = b"((" + b"".join(text(str(i)) + b"N\x86" for i in range(2000)) + b"tt"
    data = b"\x80\x02](" + call + b"q\x00" + argument + b"q\x01R" + b"h\x00h\x01R" * 1200 + b"e."
    assert "repeat the same data" in rejection(data)


def test_messages_show_little_of_the_file():
    shared = b")" + b"q\x00h\x00\x86" * 60  # 2**60 characters if formatted
    long_text = text("\x1b[31m\n" * 100_000)
    for value in (shared, long_text, b"]" + shared + b"a"):
        rejection(b"\x80\x02" + value + b")R.")  # called
        rejection(b"\x80\x02" + value + b"}b.")  # changed
        rejection(b"\x80\x02cnumpy\ndtype\n" + value + b"\x85R.")
        rejection(b"\x80\x02cnumpy\ndtype\n(" + b"V<f4\nI0\nI1\ntR(K\x03" + value + b"tb.")
        rejection(b"\x80\x02c_codecs\nencode\n" + value + text("rot13") + b"\x86R.")
        rejection(b"\x80\x02" + ARRAY + value + b"b.")
        rejection(b"\x80\x02}" + value + b"Ns.")
        rejection(b"\x80\x02" + value + value + b"\x93.")
        rejection(b"\x80\x02ccollections\ndefaultdict\n" + value + b"\x85R.")


def test_long_numbers_are_rejected():
    for literal in (b"I" + b"9" * 10**6, b"L" + b"9" * 10**6 + b"L", b"F" + b"9" * 10**6):
        rejection(literal + b"\n.")
    rejection(b"\x80\x02\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6 + b".")


def test_subclasses_of_dict_are_read_as_dict():
    arrays = {"W1": np.ones((2, 3), np.float32), "b1": np.zeros(3)}
    default = collections.defaultdict(dict)
    default.update(arrays)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (arrays, collections.OrderedDict(arrays), default):
            got = load_pickle(pickle.dumps(value, protocol), name="x")
            assert type(got) is dict
            assert list(got) == ["W1", "b1"]
            assert np.array_equal(got["W1"], arrays["W1"])


def test_ordered_dict_of_python_2_is_read():
    data = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01(]q\x02(U\x01aq\x03K\x01ee\x85Rq\x04."
    assert load_pickle(data, name="x") == {"a": 1}


class CheckedUnpickler(pickle._Unpickler):
    """CPython's interpreter in Python, with the names of the restricted one."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        found = NAMES[f"{module}.{name}"]
        return found if found.function is None else found.function

    def load_reduce(self):
        arguments = self.stack.pop()
        self.stack[-1] = self.stack[-1](*arguments)

    def load_build(self):
        state = self.stack.pop()
        self.stack[-1].set_state(state)

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


def agree(got, want) -> bool:
    """Return whether a restored value equals the value of CPython's interpreter."""
    if isinstance(want, PickledArray):
        want = getattr(want.value, "content", want.value)
        if not isinstance(want, np.ndarray):
            return agree(got, want)
    if isinstance(want, np.ndarray):
        same_form = (got.dtype, got.shape) == (want.dtype, want.shape)
        return same_form and got.tobytes() == want.tobytes()
    if isinstance(want, bytes):
        return got == want.decode("latin1")
    if isinstance(want, dict):
        text_keys = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in want.items()}
        return got.keys() == text_keys.keys() and all(
            agree(got[k], v) for k, v in text_keys.items()
        )
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(map(agree, got, want))
    return got == want or (got != got and want != want)


def originals() -> list[bytes]:
    rng = np.random.default_rng(0)
    arrays = {
        "W1": rng.random((3, 2), np.float32),
        "b1": np.zeros(2),
        "n": 3,
        "name": "é",
        "l": [1.5],
    }
    npy = io.BytesIO()
    np.save(npy, arrays, allow_pickle=True)
    values = [arrays, collections.OrderedDict(arrays), [(np.float32(1), np.arange(4)[::2], None)]]
    return [pickle.dumps(v, p) for v in values for p in range(6)] + [npy.getvalue()[128:]]


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return `data` with a few random changes: bytes, opcodes, removals, copies, splices."""
    opcodes = [ord(code) for code in pickletools.code2op]
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(result) + 1)
        end = min(len(result), start + rng.choice((1, 1, 4, 8, 30)))
        match rng.randrange(6):
            case 0:
                result[start:end] = bytes([rng.randrange(256)])
            case 1:
                result[start:end] = bytes([rng.choice(opcodes)])
            case 2:
                del result[start:end]
            case 3:
                result[start:start] = result[start:end] * rng.choice((1, 2, 100))
            case 4:
                other = rng.choice(others)
                result[start:end] = other[rng.randrange(len(other)) :][: rng.randrange(60)]
            case 5:
                result[start:end] = rng.choice((b"\xff", b"\0", b"\x7f")) * (end - start)
    return bytes(result)


def check_mutations(seconds: float, seed: int) -> int:
    """Read mutated pickles for some time, and return how many of them were accepted."""
    rng, seeds, accepted = random.Random(seed), originals(), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        data = mutated(rng.choice(seeds), rng, seeds)
        try:
            value = load_pickle(data, name="x")
        except DataError as error:
            message = str(error)
        else:
            message = ""
        if message:
            assert message.isprintable(), data
            assert len(message) < 300, data
            continue
        accepted += 1
        want = CheckedUnpickler(io.BytesIO(data), encoding="bytes").load()
        assert agree(value, want), data
    return accepted


def test_unchanged_pickles_agree_with_cpython():
    for data in originals():
        want = CheckedUnpickler(io.BytesIO(data), encoding="bytes").load()
        assert agree(load_pickle(data, name="x"), want)


def test_mutated_pickles_are_rejected_or_agree_with_cpython():
    assert check_mutations(seconds=4.0, seed=1) > 0


@pytest.mark.posix
@pytest.mark.slow
def test_mutated_pickles_stay_within_a_limit_of_memory():
    program = """
import resource
from tests.util.test_hostile_pickles import check_mutations
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
print(check_mutations(seconds=30.0, seed=2))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
