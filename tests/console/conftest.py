"""Sets the environment variables that terminal output depends on."""

import pytest


@pytest.fixture(autouse=True)
def terminal_environment(monkeypatch):
    """Describe a color terminal of 120 columns, whatever terminal runs the tests."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
