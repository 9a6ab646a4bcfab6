"""Numbers as text."""

import pytest

from mnist_accel.console.formats import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90_061, "25:01:01")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
