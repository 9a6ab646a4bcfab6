"""Reads a data set from a `.csv` file with a header: one example in each row."""

import csv
import hashlib
import io
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import option
from mnist_accel.data.identity import FileIdentity
from mnist_accel.data.raw import MAX_LABEL_CHARS, RawData
from mnist_accel.errors import DataError, file_errors
from mnist_accel.util.input_files import check_size, is_gzip, open_regular
from mnist_accel.util.text import count, excerpt

DEFAULT_LABEL = "label"
SPLIT_COLUMN = "split"  # optional; each of its values is "train" or "test"
_SPLITS = ("train", "test")
_MAX_BYTES = 2**31  # of the file; each number takes four bytes of memory
_PIECE = 2**18  # values that are checked at once
_MAX_COLUMNS = 2**20
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


def read_csv(path: Path, *, label_column: str | None = None) -> RawData:
    """Return the numbers, the labels and, if it has a column "split", the test set of a file.

    Args:
        path: the file, in UTF-8, with commas and a header.
        label_column: name of the column with the labels; None for "label".

    Raises:
        DataError: the file cannot be read, a column is missing, or a value is not accepted. The
            message states the line and the column.
    """
    with file_errors(f"read {path}"), open_regular(path) as binary:
        check_size(binary, max_bytes=_MAX_BYTES)
        digest = hashlib.file_digest(binary, "sha256").hexdigest()
        binary.seek(0)
        if is_gzip(binary.peek(2)):
            raise DataError(f"{path} is compressed; unpack it with gunzip")
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            try:
                return _Reader(path, csv.reader(text, strict=True), label_column).read(digest)
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not a text file in UTF-8; convert it") from error


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, rows: Any, label_column: str | None) -> None:
        self._path = path
        self._rows = rows
        self._label_column = DEFAULT_LABEL if label_column is None else label_column.strip()

    def read(self, digest: str) -> RawData:
        """Return the content of the file, whose SHA-256 is `digest`."""
        header = self._header()
        label = header.index(self._label_column)
        split = header.index(SPLIT_COLUMN) if SPLIT_COLUMN in header else None
        columns = [number for number in range(len(header)) if number not in (label, split)]
        if not columns:
            raise DataError(f"{self._path} has no column besides {self._label_column}")
        numbers, labels, is_test = array("f"), [], []
        piece: list[tuple[int, list[str]]] = []  # lines and rows that are not yet checked
        for line, row in self._lines(len(header)):
            labels.append(self._label(row[label], line))
            if split is not None:
                is_test.append(self._split(row[split], line))
            values = [row[number] for number in columns]
            try:
                if "_" in "".join(values):  # Python reads "1_0" as the number 10
                    raise ValueError
                numbers.extend(map(float, values))
            except ValueError:
                raise self._not_a_number(header, columns, row, line) from None
            piece.append((line, row))
            if len(piece) * len(columns) >= _PIECE:
                self._check_finite(numbers, header, columns, piece)
                piece.clear()
        if not labels:
            raise DataError(f"{self._path} has a header but no rows")
        self._check_finite(numbers, header, columns, piece)
        examples = np.frombuffer(numbers, np.float32).reshape(len(labels), len(columns))
        names = tuple(header[number] for number in columns)
        identity = FileIdentity(digest, names, self._label_column).without_long_columns()
        sets = examples, np.array(labels), np.array(is_test, bool)
        return _divide(self._path, *sets, identity)

    def _header(self) -> list[str]:
        """Return the names of the columns, after checking them."""
        header = next((row for _, row in self._numbered() if row), None)
        if header is None:
            raise DataError(f"{self._path} is empty, expected a header and one row per example")
        header = [name.strip() for name in header]
        if len(header) > _MAX_COLUMNS:
            raise DataError(f"{self._path} has more than {_MAX_COLUMNS:,} columns")
        for separator, name in _OTHER_SEPARATORS.items():
            if len(header) == 1 and separator in header[0]:
                raise DataError(f"{self._path} separates columns with {name}; use commas")
        if self._label_column not in header:
            shown = ", ".join(header[:8]) + (", …" if len(header) > 8 else "")
            raise DataError(
                f"{self._path} has no column {self._label_column!r} with the labels; its columns "
                f"are {excerpt(shown)}; name one with {option('label_column')}"
            )
        if self._label_column == SPLIT_COLUMN:
            raise DataError(
                f"the column {SPLIT_COLUMN!r} of {self._path} states the test set, so it cannot "
                f"contain the labels; name another with {option('label_column')}, or rename it"
            )
        self._check_names(header)
        return header

    def _check_names(self, header: list[str]) -> None:
        """Check that each column has a name of its own; programs often add a nameless index."""
        seen = set()
        for number, name in enumerate(header, start=1):
            shown = excerpt(name, max_chars=60)
            if not name:
                raise DataError(f"column {number} of {self._path} has no name; name or remove it")
            if name in seen:
                raise DataError(f"{self._path} has two columns {shown!r}; rename or remove one")
            seen.add(name)

    def _lines(self, width: int) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the line and the values of each row that is not empty."""
        for line, row in self._numbered():
            if not row:
                continue
            if len(row) != width:
                found = count(len(row), "column")
                raise DataError(
                    f"line {line} of {self._path} has {found}, but the header has {width}; "
                    "complete the row"
                )
            yield line, row

    def _numbered(self) -> Iterator[tuple[int, list[str]]]:
        try:
            for row in self._rows:
                yield self._rows.line_num, row
        except csv.Error as error:
            line = self._rows.line_num
            raise DataError(f"line {line} of {self._path} is not valid CSV: {error}") from error

    def _label(self, text: str, line: int) -> str:
        text = text.strip()
        if not text:
            raise DataError(
                f"line {line} of {self._path} has no label in column {self._label_column!r}"
            )
        if len(text) > MAX_LABEL_CHARS:
            raise DataError(
                f"line {line} of {self._path} has a label of {len(text):,} characters, expected at "
                f"most {MAX_LABEL_CHARS}"
            )
        return text

    def _split(self, text: str, line: int) -> bool:
        text = text.strip().lower()
        if text not in _SPLITS:
            raise DataError(
                f"line {line} of {self._path} has {excerpt(text)!r} in column {SPLIT_COLUMN!r}, "
                "expected train or test"
            )
        return text == "test"

    def _not_a_number(
        self, header: list[str], columns: list[int], row: list[str], line: int
    ) -> DataError:
        for number in columns:
            try:
                float(row[number].replace("_", "?"))
            except ValueError:
                break
        value = excerpt(row[number], max_chars=40)
        found = f"{value!r}, which is not a number" if value.strip() else "no value"
        return self._fault(header[number], line, found)

    def _check_finite(
        self,
        numbers: "array[float]",
        header: list[str],
        columns: list[int],
        piece: list[tuple[int, list[str]]],
    ) -> None:
        """Check the last numbers, which are those of the rows in `piece`."""
        width = len(columns)
        first = len(numbers) - len(piece) * width
        finite = np.isfinite(np.array(memoryview(numbers)[first:], np.float32))
        if not finite.all():
            row, column = divmod(int((~finite).argmax()), width)
            line, texts = piece[row]
            text = texts[columns[column]].strip()
            is_large = "n" not in text.lower()  # neither "nan" nor "inf"
            problem = "too large for float32" if is_large else "not a finite number"
            found = f"{excerpt(text, max_chars=40)}, which is {problem}"
            raise self._fault(header[columns[column]], line, found)

    def _fault(self, column: str, line: int, found: str) -> DataError:
        name = excerpt(column, max_chars=60)
        return DataError(
            f"line {line} of {self._path} has {found}, in column {name!r}; all columns except the "
            "labels must be finite numbers"
        )


def _divide(
    path: Path,
    examples: NDArray[Any],
    labels: NDArray[Any],
    is_test: NDArray[np.bool_],
    identity: FileIdentity,
) -> RawData:
    """Return training and test set; `is_test` (N,) is empty if no column states them."""
    if not len(is_test):
        return RawData(str(path), (examples, labels), None, identity)
    if not is_test.any():
        raise DataError(f"the column {SPLIT_COLUMN!r} of {path} has no row 'test'")
    train = examples[~is_test], labels[~is_test]
    return RawData(str(path), train, (examples[is_test], labels[is_test]), identity)
