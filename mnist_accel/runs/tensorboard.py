"""The metrics of a run as an event file, from which TensorBoard draws curves."""

import importlib.util
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mnist_accel.errors import file_errors
from mnist_accel.util.files import append_or_nothing, write_atomically
from mnist_accel.util.optional_packages import missing

_NAME = "events.out.tfevents."  # TensorBoard finds files by this name
_SUFFIX = ".mnist_accel"  # other programs may write event files to the same folder
# The fields of a line of `metrics.jsonl` that become curves, by its event.
_CURVES = {
    "steps": ("loss", "accuracy", "lr", "images_per_s"),
    "epoch": (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "images_per_s",
    ),
}


def check_log(log: str) -> None:
    """Check that a run can write what `--log` asks for.

    Raises:
        MissingPackageError: the package tensorboardX is needed and not installed.
    """
    if log == "tensorboard" and importlib.util.find_spec("tensorboardX") is None:
        otherwise = "train without it: --log none"
        raise missing("--log tensorboard", "tensorboardX", extra="tensorboard", otherwise=otherwise)


class EventFile:
    """The event file of a run, which contains the same figures as its `metrics.jsonl`.

    A curve is named by event and field, such as "steps/loss" or "epoch/validation_accuracy".

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / f"{_NAME}{time.time():.0f}{_SUFFIX}"

    def exists(self) -> bool:
        """Return whether the run has an event file."""
        return any(self._files())

    def begin(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace the event files of the run by one with the lines of its metrics so far.

        Raises:
            DataError: a file cannot be written or removed.
        """
        start = _record(file_version="brain.Event:2")
        with file_errors(f"write {self._file}"):
            write_atomically(self._file, start + b"".join(map(_scalars, lines)))
            for file in self._files():
                if file != self._file:
                    file.unlink()

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line of the metrics.

        Raises:
            DataError: the file cannot be written.
        """
        self._append(_scalars(line))

    def add_picture(self, name: str, file: Path, *, step: int) -> None:
        """Append a PNG file as a picture of the network after a step.

        Raises:
            DataError: a file cannot be read or written.
        """
        with file_errors(f"read {file}"):
            png = file.read_bytes()
        width, height = struct.unpack(">II", png[16:24])  # from the header of a PNG file
        image = {"width": width, "height": height, "colorspace": 4, "encoded_image_string": png}
        self._append(_record(step=step, summary={"value": [{"tag": name, "image": image}]}))

    def _append(self, record: bytes) -> None:
        with file_errors(f"write {self._file}"):
            append_or_nothing(self._file, record)

    def _files(self) -> Iterable[Path]:
        return self._folder.glob(f"{_NAME}*{_SUFFIX}")


def _scalars(line: Mapping[str, Any]) -> bytes:
    """Return the record of a line of metrics."""
    event = line["event"]
    values = [
        {"tag": f"{event}/{name}", "simple_value": line[name]}
        for name in _CURVES[event]
        if line.get(name) is not None
    ]
    return _record(step=line["step"], summary={"value": values})


def _record(**fields: Any) -> bytes:
    """Return an event as a record of the file: its length and content, each with a checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    content: bytes = Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(content))
    length_check, check = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + length_check + content + check
