"""Pickles with plain values are read, and all others are rejected, without running code."""

import collections
import copyreg
import functools
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_accel.errors import DataError
from mnist_accel.util.restricted_pickle import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def rejection(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        load_pickle(data, name="hostile.pkl")
    message = str(caught.value)
    assert message.startswith("hostile.pkl ")
    assert "\n" not in message
    return message


def same(got, want) -> bool:
    if isinstance(want, np.ndarray):
        return (
            type(got) is np.ndarray
            and (got.dtype, got.shape) == (want.dtype, want.shape)
            and got.tobytes() == want.tobytes()
        )
    if type(got) is not type(want):
        return False
    if isinstance(want, dict):
        return list(got) == list(want) and all(same(got[key], want[key]) for key in want)
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(map(same, got, want))
    return got == want


numeric_dtypes = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(), hnp.complex_number_dtypes(),
)  # fmt: skip
arrays = hnp.arrays(numeric_dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
integers = st.integers(-(2**255), 2**255 - 1)
plain_values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False), st.text(), arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=200), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(plain_values, st.sampled_from(PROTOCOLS))
def test_plain_values_are_restored(value, protocol):
    assert same(load_pickle(pickle.dumps(value, protocol), name="x"), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
        np.arange(24).reshape(4, 6)[::2, ::3],
    ],
    ids=["big-endian", "fortran", "transposed", "strided"],
)
def test_array_layouts_are_restored(array, protocol):
    back = load_pickle(pickle.dumps(array, protocol), name="x")
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert not back.flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_of_numpy_1_are_accepted(protocol):
    data = pickle.dumps({"W1": np.ones((2, 3), "f4"), "s": np.float64(0.5)}, protocol)
    if protocol >= 4:  # the lengths of the names, and the length of the frame, change as well
        for module in ("multiarray", "numeric"):
            new, old = f"numpy._core.{module}", f"numpy.core.{module}"
            data = data.replace(
                bytes([0x8C, len(new)]) + new.encode(), bytes([0x8C, len(old)]) + old.encode()
            )
        data = data[:2] + b"\x95" + struct.pack("<Q", len(data) - 11) + data[11:]
    else:
        data = data.replace(b"numpy._core", b"numpy.core")
    assert b"_core" not in data
    back = load_pickle(data, name="x")
    assert back["s"] == 0.5
    assert np.array_equal(back["W1"], np.ones((2, 3)))


def test_pickle_of_python_2_is_read():
    # {'b1': numpy.array([1.5], dtype='f4')}, pickled by Python 2: all strings are bytes.
    data = (
        b"\x80\x02}q\x01U\x02b1q\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01\x85cnumpy\ndtype\nq\x06U\x02f4K\x00K\x01\x87R"
        b"q\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x00\x00\xc0?tbs."
    )
    assert same(load_pickle(data, name="x"), {"b1": np.array([1.5], np.float32)})


class Reduced:
    """An object whose pickle is a call of `function` with `args`."""

    def __init__(self, function, *args):
        self.reduction = (function, args)

    def __reduce__(self):
        return self.reduction


class Plain:
    pass


def hostile_values(witness):
    """Yield names that must be rejected, each with a value whose unpickling would use it."""
    touch = f"touch {witness}"
    yield f"{os.system.__module__}.system", Reduced(os.system, touch)
    yield "builtins.eval", Reduced(eval, f"open({str(witness)!r}, 'w')")
    yield "builtins.exec", {"W1": Reduced(exec, f"open({str(witness)!r}, 'w')")}
    yield "builtins.getattr", [Reduced(getattr, np.ones(2), "tofile")]
    yield "functools.partial", Reduced(functools.partial, os.system, touch)
    yield "subprocess.Popen", {"a": [(1, Reduced(subprocess.Popen, ["touch", str(witness)]))]}
    yield "numpy.load", Reduced(np.load, str(witness))
    yield "collections.deque", collections.deque([1])
    yield "collections.Counter", collections.Counter(W1=1)
    yield "builtins.complex", 1j
    yield f"{__name__}.Plain", Plain()
    yield f"{os.system.__module__}.system", np.array([Reduced(os.system, touch)], dtype=object)
    yield f"{os.system.__module__}.system", np.array(Reduced(os.system, touch), dtype=object)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hostile_pickles_are_rejected_by_name_before_they_run(tmp_path, protocol):
    witness = tmp_path / "witness"
    for name, value in hostile_values(witness):
        if protocol < 2 and isinstance(value, Plain):
            name = "copyreg._reconstructor"
        data = pickle.dumps(value, protocol, fix_imports=False)
        assert f"it contains {name}, expected" in rejection(data)
        assert not witness.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, "the pickle instruction EMPTY_SET"),
        (bytearray(b"x"), "bytearray"),
        (np.array([None, 1], dtype=object), "an array of Python objects of shape (2,)"),
        ({"x": np.array(None, dtype=object)}, "an array of Python objects"),
        (np.array(["text"]), "dtype 'U4'"),
        (np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]), "dtype 'V8'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "dtype 'M8'"),
        (np.ndarray, "the name numpy.ndarray by itself"),
        (np.dtype("f4"), "a dtype or an array of Python objects"),
        ({(1, 2): 3}, "a value of type tuple as the key of a dict"),
    ],
    ids=repr,
)
def test_other_objects_are_rejected(value, message):
    assert message in rejection(pickle.dumps(value, 5))


def test_zero_dimensional_object_array_is_unwrapped():
    content = {"W1": np.ones((2, 2))}
    data = pickle.dumps(np.array(content, dtype=object), 4)
    assert same(load_pickle(data, name="x"), content)


def test_extension_registry_is_rejected():
    # Python's interpreter would look up the code without a name.
    copyreg.add_extension("os", "system", 240)
    try:
        message = rejection(b"\x80\x02\x82\xf0U\x04true\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert "the pickle instruction EXT1" in message


DTYPE = b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR"
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a well-formed pickle"),
        (b"garbage", "not a well-formed pickle"),
        (pickle.dumps({"W1": np.ones(9)})[:-20], "not a well-formed pickle"),
        (pickle.dumps(1) + b"more", "4 bytes after its end"),
        (b"Pidentity\n.", "the pickle instruction PERSID"),
        (b"\x80\x05\x97.", "the pickle instruction NEXT_BUFFER"),  # out-of-band
        (b"(Vtrue\nios\nsystem\n.", "the pickle instruction INST"),  # of Python 1
        (b"(cposix\nsystem\nVtrue\no.", "posix.system"),
        (b"(Vtrue\no.", "the pickle instruction OBJ"),
        (b"\x80\x02)\x81.", "the pickle instruction NEWOBJ"),
        (b"0.", "the pickle instruction POP"),
        (b"\xff.", "found 0xff where an instruction begins"),
        (b"N\x80\x02.", "the pickle instruction PROTO"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x08os.close\x93K\x01\x85R.", "numpy.os.close"),
        (b"cnumpy._core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
        (b"cnumpy\nndarray\n(I99\ntR.", "a call of numpy.ndarray"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "an encoding other than Latin-1"),
        (b"cnumpy\ndtype\n(V(1000000000,)f8\ntR.", "dtype '(1000000000,)f8'"),
        (b"c_codecs\nencode\n}S'__call__'\nNsb.", "a change of the name _codecs.encode"),
        (b"c_codecs\nencode\n(N}S'_function'\nNstb.", "a change of the name _codecs.encode"),
        (ARRAY + b".", "one with no data"),
        (ARRAY + b"(I1\n(I4\nt" + DTYPE + b"I00\nVabc\ntb.", "made from a value of type str"),
        (ARRAY + b"(I1\n(I1000000000\nt" + DTYPE + b"I00\nC\x04abcdtb.", "in 4 bytes"),
        (ARRAY + b"(I1\n(I-1\nI-1\nt" + DTYPE + b"I00\nC\x04abcdtb.", "small integers"),
        (ARRAY + b"(I1\n(I1\ntVf4\nI00\nC\x04abcdtb.", "whose dtype is a value of type str"),
        (ARRAY + b"(I1\n(I1\ntcnumpy\ndtype\n(VO\ntRI00\nC\x04abcdtb.", "Python objects"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo index 2147483647"),
        (b"]q\x00h\x00a.", "list that contains itself"),
        (b"]" * 40 + b"a" * 39 + b".", "levels of nesting"),
        (b"]" + b"Na" * 6000 + b".", "more than 10000 pickle instructions"),
        (b"(" * 9000 + b"t" * 9000 + b"N.", "more than 10000 pickle instructions"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "not a well-formed pickle"),
        (b"I" + b"9" * 5000 + b"\n.", "not a well-formed pickle"),
    ],
    ids=lambda value: value[:24].hex() if isinstance(value, bytes) else "",
)
def test_invalid_instructions_are_rejected(data, message):
    assert message in rejection(data)


def test_control_characters_are_escaped_in_messages():
    module = "os\n\x1b[31m" + "x" * 200
    data = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c\x01f\x93."
    message = rejection(data)
    assert r"os\n\x1b[31mxx" in message
    assert message.isprintable()
    assert len(message) < 300


def test_shared_lists_stay_shared():
    value = [1]
    for _ in range(30):  # 2**30 numbers if copied
        value = [value, value]
    back = load_pickle(pickle.dumps(value), name="x")
    assert back[0] is back[1]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_rejected_or_plain(data):
    try:
        value = load_pickle(data, name="x")
    except DataError as error:
        message = str(error)
    else:
        message = "plain"
        pickle.dumps(value)  # plain values can be pickled again
    assert message.isprintable()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PROTOCOLS), st.data())
def test_mutated_pickles_are_rejected_or_plain(protocol, data):
    stream = bytearray(pickle.dumps({"W1": np.ones((2, 2), "f4"), "b1": np.zeros(2)}, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    test_arbitrary_bytes_are_rejected_or_plain.hypothesis.inner_test(bytes(stream))


def test_python_runs_the_code_in_a_hostile_pickle(tmp_path):
    """Confirms that the pickles above would do harm without the restriction."""
    witness = tmp_path / "witness"
    data = pickle.dumps(Reduced(os.system, f"touch {witness}"))
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({data!r})"], check=True)
    assert witness.exists()
