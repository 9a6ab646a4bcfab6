"""The readers of files, each with real files that the fuzzing changes."""

import contextlib
import gzip
import io
import itertools
import json
import pickle
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mnist_accel as ma
from benchmarks.report import report_command
from benchmarks.storage.results import load_results
from mnist_accel.autotune import cache
from mnist_accel.autotune.measure import Candidate
from mnist_accel.checkpoints.tensor_file import read_tensors, write_tensors
from mnist_accel.commands import main
from mnist_accel.commands.train_settings import settings_in_file
from mnist_accel.data.digit_image import read_digit_images
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.artifacts import mean_throughput
from mnist_accel.runs.config import stored_config
from mnist_accel.runs.folder import RunFolder
from mnist_accel.runs.stop_rules import StopRules
from tests.fuzz.limits import BrokenPromiseError, check_text
from tests.fuzz.mutations import mutate, mutate_json

RELEASE = Path(__file__).parents[1] / "fixtures" / "release-0.1.0"
EXIT_CODES = (0, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Target:
    """A reader and its input.

    Attributes:
        write: writes a changed file into an empty folder and returns what `read` takes.
        read: reads it; it may raise the errors of this program.
        cases: number of cases of a run in CI.
    """

    write: Callable[[Path, random.Random], Path]
    read: Callable[[Path], object]
    cases: int


def command(*arguments: object) -> None:
    """Run a command in this process, and check its exit code and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(map(str, arguments)))
    check_text(out.getvalue())
    check_text(err.getvalue())
    if code not in EXIT_CODES or "Traceback" in err.getvalue():
        raise BrokenPromiseError(f"exit code {code}: {err.getvalue()[:500]}")
    if "not enough memory" in err.getvalue():
        raise BrokenPromiseError(f"more than the limit of memory: {err.getvalue()[:500]}")


# Weights of other programs


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes = (784, 6, 10)
    arrays: dict[str, Any] = {}
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
        arrays[f"W{number}"] = rng.standard_normal((fan_in, fan_out)).astype(np.float32)
        arrays[f"b{number}"] = np.zeros(fan_out, np.float32)
    return arrays


def _packed(save: Callable[..., None], *args: Any, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **kwargs)
    return buffer.getvalue()


def _pickles() -> list[bytes]:
    arrays = _arrays()
    small = {name: array[:3] for name, array in arrays.items()}
    dicts = (arrays, small, {**small, "W1": small["W1"].T})
    return [pickle.dumps(content, protocol) for protocol in range(6) for content in dicts]


def _numpy_files() -> list[bytes]:
    arrays = _arrays()
    return [
        _packed(np.savez, **arrays),
        _packed(np.savez_compressed, **arrays),
        _packed(np.save, arrays, allow_pickle=True),
        _packed(np.save, arrays["W1"]),
    ]


def _bytes_of(samples: list[bytes], name: str) -> Callable[[Path, random.Random], Path]:
    def write(folder: Path, rng: random.Random) -> Path:
        path = folder / name
        path.write_bytes(mutate(rng.choice(samples), rng))
        return path

    return write


def _weights(path: Path) -> None:
    ma.load_weights(path, backend="numpy", note=check_text)


# Files of this program


def _tensor_file(part: str) -> Callable[[Path, random.Random], Path]:
    """Change a part of the header or the tensors; the digest is correct afterwards."""
    tensors, header = read_tensors(RELEASE / "checkpoint.safetensors")

    def write(folder: Path, rng: random.Random) -> Path:
        changed, arrays = dict(header), dict(tensors)
        if part == "tensors":
            name = rng.choice(list(arrays))
            array = arrays.pop(name)
            match rng.randrange(5):
                case 0:
                    arrays[rng.choice(("optimizer.mean", "W9", "\x1b[2J", "x" * 5000))] = array
                case 1:
                    arrays[name] = array[:1]
                case 2:
                    arrays[name] = array.astype(rng.choice((np.float64, np.int32, np.bool_)))
                case 3:
                    arrays[name] = np.full_like(array, rng.choice((np.nan, np.inf, -1e30)))
        else:
            description = mutate_json(changed[part], rng)
            if len(json.dumps(description)) < 10**7:  # safetensors writes no larger header
                changed[part] = description
        path = folder / "file.safetensors"
        write_tensors(path, arrays, changed)
        return path

    return write


def _continue(path: Path) -> None:
    trainer = ma.load_checkpoint(path, backend="numpy")
    if trainer.batch_size > 10**6 or trainer.step > 2**62:
        return  # such a training may need any amount of memory
    images = np.zeros((64, 784), np.uint8)
    try:
        trainer.fit(images, np.zeros(64, np.int64), iterations=1)
    except ValueError as error:
        check_text(str(error))


def _text_of(path: Path, change: Callable[[Any, random.Random], Any]) -> Callable[..., Path]:
    content = json.loads(path.read_bytes())

    def write(folder: Path, rng: random.Random) -> Path:
        changed = folder / path.name
        changed.write_text(json.dumps(change(content, rng)))
        return changed

    return write


def _config(path: Path) -> None:
    stored_config(RunFolder(path.parent))
    resolve(settings_in_file(str(path)))


_TOML = b"""model = "three-layer"
dataset = "digits"
epochs = 1
batch-size = 100
lr = 0.5
optimizer = "sgd"
hidden_sizes = [12, 8]
no-fallback = true
"""


def _metrics_file(folder: Path, rng: random.Random) -> Path:
    lines = (RELEASE / "run" / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    index = rng.randrange(len(lines))
    if rng.random() < 0.7:
        lines[index] = json.dumps(mutate_json(json.loads(lines[index]), rng)).encode() + b"\n"
    else:
        lines[index] = mutate(lines[index], rng)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))
    return folder


def _read_metrics(folder: Path) -> None:
    run = RunFolder(folder)
    mean_throughput(run.read_metrics("steps"))
    trainer = ma.Trainer(ma.create_model("two-layer", backend="numpy", hidden_sizes=(2,)))
    rules = StopRules(target_accuracy=0.9, patience=2, max_seconds=10)
    rules.replay(trainer, run.read_metrics())


def _run_folder(folder: Path, rng: random.Random) -> Path:
    run = folder / "run"
    shutil.copytree(RELEASE / "run", run)
    if rng.random() < 0.5:
        file = run / rng.choice(("config.json", "summary.json"))
        file.write_text(json.dumps(mutate_json(json.loads(file.read_bytes()), rng)))
    else:
        file = run / "checkpoint" / "last.safetensors"
        tensors, header = read_tensors(file)
        header["training"] = mutate_json(header["training"], rng)
        write_tensors(file, tensors, header)
    return run


def _resume(run: Path) -> None:
    flags = ("--epochs", 3, "--quiet", "--backend", "numpy", "--threads", 1)
    command("train", "--resume", run, *flags)


_KEY = {"model": "two-layer", "cores": 2}
_CANDIDATES = (Candidate("numpy", 1), Candidate("numba", 2))


def _cached_measurement(folder: Path, rng: random.Random) -> Path:
    content = {"key": _KEY, "paces": [[c.backend, c.threads, 1e5] for c in _CANDIDATES]}
    text = json.dumps(mutate_json(content, rng)).encode()
    path = folder / "measurement.json"
    path.write_bytes(text if rng.random() < 0.7 else mutate(text, rng))
    return path


def _read_measurement(path: Path) -> None:
    file = cache._file(_KEY)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.load_measurements(_KEY, _CANDIDATES)
    for warning in caught:
        check_text(str(warning.message))


# Data sets and pictures


def _data_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    labels = (np.arange(30) % 10).astype(np.uint8)
    arrays = (images, labels, images[:20], labels[:20])
    return {name: format_idx(array) for name, array in zip(FILE_NAMES, arrays, strict=True)}


def _data_folder(folder: Path, rng: random.Random) -> Path:
    files = _data_files()
    kind = rng.choice(("plain", "gzip", "archive"))
    changed = rng.choice(list(files))
    if kind == "archive":
        offsets = [16, 8, 16, 8]
        shapes = [(-1, 28, 28), (-1,), (-1, 28, 28), (-1,)]
        arrays = [
            np.frombuffer(data[offset:], np.uint8).reshape(shape)
            for data, offset, shape in zip(files.values(), offsets, shapes, strict=True)
        ]
        names = ("x_train", "y_train", "x_test", "y_test")
        save = rng.choice((np.savez, np.savez_compressed))
        archive = _packed(save, **dict(zip(names, arrays, strict=True)))
        (folder / "mnist.npz").write_bytes(mutate(archive, rng))
        return folder
    for name, data in files.items():
        content = gzip.compress(data, 1) if kind == "gzip" else data
        (folder / name).write_bytes(mutate(content, rng) if name == changed else content)
    return folder


def _pictures() -> list[bytes]:
    pixels = np.full((40, 40), 255, np.uint8)
    pixels[8:32, 18:22] = 0
    gray = Image.fromarray(pixels)
    alpha = Image.merge("LA", (gray, Image.fromarray(255 - pixels)))
    wide = Image.fromarray(pixels.astype(np.uint16) * 257)
    pictures = [
        *((gray, name) for name in ("PNG", "JPEG", "BMP", "GIF", "WEBP")),
        *((gray.convert("RGB"), name) for name in ("PNG", "JPEG", "WEBP")),
        *((gray.convert(mode), "PNG") for mode in ("1", "P")),
        *((alpha, "PNG"), (wide, "PNG"), (gray.convert("P"), "GIF")),
    ]
    return [_packed(picture.save, name) for picture, name in pictures]


# Results of the benchmarks


def _result_file(folder: Path, rng: random.Random) -> Path:
    packed = (RELEASE / "benchmarks" / "results.json.gz").read_bytes()
    journal = (RELEASE / "benchmarks" / "interrupted.json.journal").read_bytes()
    match rng.randrange(4):
        case 0:
            path, content = folder / "a.json.gz", mutate(packed, rng)
        case 1:
            path, content = folder / "a.json.journal", mutate(journal, rng)
        case 2:
            lines = journal.split(b"\n")[:-1]
            index = rng.randrange(len(lines))
            lines[index] = json.dumps(mutate_json(json.loads(lines[index]), rng)).encode()
            path, content = folder / "a.json.journal", b"\n".join(lines) + b"\n"
        case _:
            document = json.loads(gzip.decompress(packed))
            document["benchmarks"] = document["benchmarks"][:3]
            path = folder / "a.json"
            content = json.dumps(mutate_json(document, rng)).encode()
    path.write_bytes(content)
    return path


def _report(path: Path) -> None:
    load_results([path])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        report_command([path], path.parent)
    check_text(out.getvalue())


TARGETS = {
    "pickle": Target(_bytes_of(_pickles(), "w.pkl"), _weights, 800),
    "npz and npy": Target(_bytes_of(_numpy_files(), "w.npz"), _weights, 800),
    "safetensors": Target(
        _bytes_of([(RELEASE / "checkpoint.safetensors").read_bytes()], "m.safetensors"),
        lambda p: ma.load_model(p, backend="numpy"),
        800,
    ),
    "network": Target(_tensor_file("network"), lambda p: ma.load_model(p, backend="numpy"), 400),
    "training": Target(_tensor_file("training"), _continue, 300),
    "tensors": Target(_tensor_file("tensors"), _continue, 200),
    "config.json": Target(_text_of(RELEASE / "run" / "config.json", mutate_json), _config, 150),
    "toml": Target(_bytes_of([_TOML], "c.toml"), lambda p: resolve(settings_in_file(str(p))), 200),
    "metrics": Target(_metrics_file, _read_metrics, 300),
    "resume": Target(_run_folder, _resume, 6),
    "measurement": Target(_cached_measurement, _read_measurement, 300),
    "data": Target(_data_folder, lambda p: ma.load_dataset("custom", p), 400),
    "pictures": Target(_bytes_of(_pictures(), "p.png"), read_digit_images, 50),
    "predict": Target(
        _bytes_of(_pictures(), "p.png"),
        lambda p: command("predict", RELEASE / "run", "--image", p, "--json", "--backend", "numpy"),
        40,
    ),
    "results": Target(_result_file, _report, 60),
}
