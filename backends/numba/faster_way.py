"""Finds out whether one thread or all threads are faster for the chunks of small batches.

In small batches, threads wait for one another about as long as they compute. Whether they save time
depends on the distance of their cores and on other programs, and can change during a training. One
thread that computes the parts of all threads gets the same bits.
"""

from collections import deque
from statistics import median_low

# Each way computes this many chunks before the faster one is chosen.
FIRST_MEASUREMENTS = 2
# The slower way is measured again after 2 chunks, then after 4 and 8, then once in this many; and
# again after 2 if the other way has become the faster one, because that may be a short disturbance.
FIRST_INTERVAL, LAST_INTERVAL = 2, 16
# The median of the last measurements counts, because another program can slow one down. Of two, the
# lower one counts, because threads start in the first chunk.
MEASUREMENTS = 3


class FasterWay:
    """Measures both ways in alternation at first, then mostly uses the faster one.

    Args:
        threads: number of threads that share a step.
    """

    def __init__(self, threads: int) -> None:
        self._ways = threads, 1
        self._seconds = {way: deque[float](maxlen=MEASUREMENTS) for way in self._ways}
        self._faster = threads
        self._interval = FIRST_INTERVAL
        self._chunks = 0

    def choose(self) -> int:
        """Return how many threads compute the next chunk: 1 or all."""
        rarer = min(self._ways, key=lambda way: len(self._seconds[way]))
        if len(self._seconds[rarer]) < FIRST_MEASUREMENTS:
            return rarer
        faster, slower = sorted(self._ways, key=lambda way: median_low(self._seconds[way]))
        if faster != self._faster:
            self._faster, self._interval, self._chunks = faster, FIRST_INTERVAL, 0
        self._chunks += 1
        if self._chunks < self._interval:
            return faster
        self._interval, self._chunks = min(2 * self._interval, LAST_INTERVAL), 0
        return slower

    def add(self, way: int, seconds: float) -> None:
        """Add the measured seconds of a step."""
        self._seconds[way].append(seconds)
