"""What the coordinator of a run and its workers send each other: one line of JSON per message."""

import msgspec
from msgspec import Struct

from benchmarks.storage.schema import ContenderFacts, Fit, RowInfo
from benchmarks.suite.accuracy import Trained
from benchmarks.suite.cases import AccuracyCase, StartCase, TimedCase


class Describe(Struct, frozen=True, tag="describe"):
    """Asks for a `Description` of the contender."""


class Prepare(Struct, frozen=True, tag="prepare"):
    """Asks to prepare and check a row; the answer is `Prepared`.

    Attributes:
        case: what is measured.
        expected: path of the file with the results of the reference.
        steps: updates per epoch, as chosen in an earlier process; None to choose them.
    """

    case: TimedCase
    expected: str
    steps: int | None = None


class TakeTurn(Struct, frozen=True, tag="turn"):
    """Asks to measure the prepared row for about this number of seconds; the answer is `Timed`.

    `number` is that of the pass. An estimator is fitted once, with this number as its seed.
    """

    seconds: float
    number: int = 0


class Start(Struct, frozen=True, tag="start"):
    """Asks for the first update of a training, right after the start; the answer is `Started`."""

    case: StartCase
    expected: str


class TrainToAccuracy(Struct, frozen=True, tag="accuracy"):
    """Asks to train until an accuracy is reached; the answer is `Trained`."""

    case: AccuracyCase
    seed: int


class Description(Struct, frozen=True, tag="description"):
    """What the contender is, and why it cannot run here; the reason is empty if it can."""

    facts: ContenderFacts
    reason: str


class Prepared(Struct, frozen=True, tag="prepared"):
    """A row that passed its check; `info` is its entry of the result file for pass 0."""

    info: RowInfo


class Timed(Struct, frozen=True, tag="timed"):
    """The seconds per call of each round of a turn; of an estimator also the result of the fit."""

    seconds: tuple[float, ...]
    fit: Fit | None = None


class Started(Struct, frozen=True, tag="started"):
    """The first update is complete and correct."""

    info: RowInfo


class Refused(Struct, frozen=True, tag="refused"):
    """The row has no time: it has an error or a wrong result (`failed`), or is not supported."""

    reason: str
    failed: bool


Request = Describe | Prepare | TakeTurn | Start | TrainToAccuracy
Answer = Description | Prepared | Timed | Started | Trained | Refused

_REQUESTS = msgspec.json.Decoder(Request)
_ANSWERS = msgspec.json.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Return the request in a line."""
    return _REQUESTS.decode(line)


def decode_answer(line: bytes) -> Answer:
    """Return the answer in a line.

    Raises:
        ValueError: the line is not an answer.
    """
    return _ANSWERS.decode(line)
