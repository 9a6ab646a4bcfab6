"""The process that measures one contender: `python -m benchmarks.workers.worker NAME`.

It reads requests from stdin and writes answers to stdout until stdin is closed. While it waits for
a request, it blocks, so that it takes no time from the contender whose turn it is.
"""

import os
import signal
import sys

from benchmarks.contenders import contenders
from benchmarks.contenders.base import Contender, explanation
from benchmarks.host import usable_cores
from benchmarks.storage.schema import ContenderFacts
from benchmarks.suite.accuracy import measure_accuracy
from benchmarks.suite.cases import EstimatorCase, PopulationCase, TimedCase
from benchmarks.suite.checks import CheckError
from benchmarks.suite.estimators import FitRow, prepare_fits
from benchmarks.suite.population import prepare_population
from benchmarks.suite.preparer import NotComparableError, Row, prepare, start
from benchmarks.workers.messages import (
    Answer,
    Describe,
    Description,
    Prepare,
    Prepared,
    Refused,
    Request,
    Start,
    Started,
    TakeTurn,
    Timed,
    TrainToAccuracy,
    decode_request,
    encode,
)


class Worker:
    """Answers the requests about one contender; keeps the row that was prepared last."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._row: Row | FitRow | None = None

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request; an error becomes `Refused`."""
        try:
            return self._answer(request)
        except NotComparableError as error:
            return Refused(str(error), failed=False)
        except CheckError as error:
            return Refused(str(error), failed=True)
        except Exception as error:
            first_line = str(error).strip().partition("\n")[0]
            reason = ": ".join(filter(None, (type(error).__name__, first_line)))
            return Refused(reason, failed=True)

    def _answer(self, request: Request) -> Answer:
        match request:
            case Describe():
                return self._describe()
            case Prepare(case=case, expected=expected, steps=steps):
                self._row = None  # frees the memory of the previous row first
                self._row = self._prepared(case, expected, steps)
                return Prepared(self._row.info)
            case TakeTurn(seconds=seconds, number=number):
                assert self._row is not None, "a row must be prepared before its turn"
                if isinstance(self._row, FitRow):
                    fit_s, result = self._row.turn(seed=number)
                    return Timed((fit_s,), result)
                return Timed(self._row.turn(seconds))
            case Start(case=case, expected=expected):
                return Started(start(case, self._contender, expected))
            case TrainToAccuracy(case=case, seed=seed):
                return measure_accuracy(case, self._contender, seed=seed)

    def _prepared(self, case: TimedCase, expected: str, steps: int | None) -> Row | FitRow:
        """Return a row that is ready to be timed."""
        match case:
            case PopulationCase():
                return prepare_population(case, self._contender, expected, known_steps=steps)
            case EstimatorCase():
                return prepare_fits(case, self._contender, expected)
        return prepare(case, self._contender, expected, known_steps=steps)

    def _describe(self) -> Description:
        availability = self._contender.availability()
        facts = ContenderFacts(
            is_baseline=self._contender.is_baseline,
            versions=self._contender.versions() if availability.ok else {},
            threads=usable_cores(),
            device=self._contender.device(),
        )
        return Description(facts, "" if availability.ok else explanation(availability))


def main() -> None:
    """Answer all requests."""
    # Ctrl-C reaches all processes of a terminal; the coordinator decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries that print to stdout must not disturb the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = Worker(contenders()[sys.argv[1]])
    for line in sys.stdin.buffer:
        answers.write(encode(worker.answer(decode_request(line))))
        answers.flush()


if __name__ == "__main__":
    main()
