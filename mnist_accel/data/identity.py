"""Whether the user's files are those that a network was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from mnist_accel.errors import DataError
from mnist_accel.util.text import count, excerpt

_MAX_CHARS = 2**20  # of the names of all columns; a run stores no longer ones in its `config.json`


@dataclass(frozen=True)
class FileIdentity:
    """What a run stores about the files of its data set.

    Attributes:
        sha256: the digest of the content.
        columns: names of the feature columns of a table, in their order; None for other files.
        label_column: name of the column of a table with the labels; None for other files.
    """

    sha256: str
    columns: tuple[str, ...] | None = None
    label_column: str | None = None

    def without_long_columns(self) -> "FileIdentity":
        """Return the identity without the names of the columns if they need much space."""
        is_long = self.columns is not None and sum(map(len, self.columns)) > _MAX_CHARS
        return replace(self, columns=None) if is_long else self

    def require_unchanged(self, now: "FileIdentity", source: str) -> None:
        """Check that files are still those of this identity.

        Args:
            now: their present identity.
            source: the files, for the message.

        Raises:
            DataError: columns or content have changed.
        """
        if now.sha256 == self.sha256:
            return
        before = f"{source} differs from the data that the network was trained on: "
        remedy = (
            "restore the file, or train a new network; to evaluate on other examples, give them "
            "in another file"
        )
        columns = self.label_column, now.label_column
        if columns[0] != columns[1] and None not in columns:
            change = f"its column of labels is {now.label_column!r}, expected {self.label_column!r}"
        else:
            change = _difference(self.columns, now.columns) or (
                f"its content has the SHA-256 {now.sha256[:12]}…, expected {self.sha256[:12]}…"
            )
        raise DataError(f"{before}{change}; {remedy}")

    def require_columns(self, now: "FileIdentity", source: str) -> None:
        """Check that other files have the feature columns of this identity, in the same order.

        Raises:
            DataError: they have others.
        """
        difference = _difference(self.columns, now.columns)
        if difference:
            raise DataError(
                f"{source} does not have the columns that the network was trained on: "
                f"{difference}; give the same columns in the same order"
            )


def digest_of_parts(parts: Sequence[bytes]) -> str:
    """Return the SHA-256 of the digests of several files."""
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def _difference(before: Sequence[str] | None, now: Sequence[str] | None) -> str:
    """Return how the columns of two tables differ; empty if they do not, or one is no table."""
    if before is None or now is None or tuple(before) == tuple(now):
        return ""
    if len(before) != len(now):
        return f"it has {count(len(now), 'feature column')}, expected {len(before):,}"
    pairs = enumerate(zip(before, now, strict=True), start=1)
    number, (expected, found) = next((number, pair) for number, pair in pairs if len(set(pair)) > 1)
    return f"feature column {number} is {_quoted(found)}, expected {_quoted(expected)}"


def _quoted(name: str) -> str:
    return repr(excerpt(name, max_chars=60))
