"""Any JSON value in any place of a document of this program is accepted or refused in one line."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

import mnist_accel as ma
from benchmarks.storage.schema import ResultFile
from mnist_accel.checkpoints.tensor_file import read_tensors
from mnist_accel.nn.serialization import network_from_dict, optimizer_from_dict
from mnist_accel.recipes.settings import read_config
from mnist_accel.runs.schema import MetricsLine, RunConfig
from mnist_accel.training.progress import Progress
from mnist_accel.util.schema import convert, decode_json
from tests.fuzz.limits import check_text
from tests.fuzz.mutations import NUMBER_OF_VALUES, hostile_value, places
from tests.fuzz.targets import RELEASE

BACKEND = ma.get_backend("numpy")
TENSORS, HEADER = read_tensors(RELEASE / "checkpoint.safetensors")
SHAPES = {n: array.shape for n, array in TENSORS.items() if not n.startswith("optimizer.")}
TRAINING = HEADER["training"]
METRICS = [
    json.loads(line) for line in (RELEASE / "run" / "metrics.jsonl").read_bytes().splitlines()
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
) | st.integers(0, NUMBER_OF_VALUES - 1).map(hostile_value)


READERS = {
    "network": (
        HEADER["network"],
        lambda content: network_from_dict(content, SHAPES, backend=BACKEND),
    ),
    "optimizer": (
        TRAINING["optimizer_settings"],
        lambda content: optimizer_from_dict("Adam", content) if isinstance(content, dict) else None,
    ),
    "progress": (
        TRAINING["progress"],
        lambda content: convert(content, Progress).check(batch_size=8, sampling="shuffle"),
    ),
    "steps": (METRICS[1], lambda content: convert(content, MetricsLine)),
    "epoch": (METRICS[0], lambda content: convert(content, MetricsLine)),
    "config": (
        json.loads((RELEASE / "run" / "config.json").read_bytes()),
        lambda content: convert(content, RunConfig),
    ),
}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_changed_document_is_accepted_or_refused_in_one_line(data):
    original, read = READERS[data.draw(st.sampled_from(sorted(READERS)))]
    document = {"content": json.loads(json.dumps(original))}
    container, key = data.draw(st.sampled_from(list(places(document))))
    container[key] = data.draw(VALUES)
    try:
        read(document["content"])
    except ValueError as error:
        check_text(str(error).replace("\n", " "))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.binary(max_size=50) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_text_is_decoded_or_refused_in_one_line(text):
    for schema in (ResultFile, RunConfig, object):
        try:
            decode_json(text, schema, name="a file", kind="a document")
        except ma.DataError as error:
            check_text(str(error))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(max_size=80))
def test_any_text_is_a_configuration_or_refused_in_one_line(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    try:
        read_config(str(file))
    except ma.MnistAccelError as error:
        check_text(str(error))
