import pytest


@pytest.fixture(autouse=True)
def isolated_user(tmp_path, monkeypatch):
    """Hide the home folder, the working folder and the settings of the user who runs the tests."""
    monkeypatch.delenv("MNIST_ACCEL_DATA", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
