"""Finds out whether one thread or all threads are faster for the chunks of small batches.

In small batches, threads wait for one another about as long as they compute. Whether they save time
depends on the distance of their cores and on other programs, and can change during a training. One
thread that computes the parts of all threads has the same results, to the bit.
"""

from collections import defaultdict, deque
from statistics import median

# The slower way is measured again once in this many chunks.
CHUNKS_PER_TRIAL = 16
# The median of several measurements counts, because another program can slow one down.
MEASUREMENTS = 3


class FasterWay:
    """Measures both ways in alternation at first, then mostly uses the faster one.

    Args:
        threads: number of threads among which a step is divided.
    """

    def __init__(self, threads: int) -> None:
        self._ways = 1, threads
        self._seconds: defaultdict[int, deque[float]] = defaultdict(
            lambda: deque(maxlen=MEASUREMENTS)
        )
        self._chunks = 0

    def choose(self) -> int:
        """Return how many threads compute the next chunk: 1 or all."""
        for way in self._ways:
            if not self._seconds[way]:
                return way
        self._chunks += 1
        faster, slower = sorted(self._ways, key=lambda way: median(self._seconds[way]))
        return slower if self._chunks % CHUNKS_PER_TRIAL == 0 else faster

    def add(self, way: int, seconds: float) -> None:
        """Add the measured seconds of a step."""
        self._seconds[way].append(seconds)
