"""The times of the drawing page are measured."""

import pytest

from benchmarks.drawing_page import measure
from tests.support.headless_browser import is_installed


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="needs Chromium")
def test_the_page_runs_and_reports_its_times(tmp_path):
    prediction, slowest, update, slowest_update = measure("two-layer", tmp_path)
    assert 0 <= prediction <= slowest
    assert 0 < update <= slowest_update
