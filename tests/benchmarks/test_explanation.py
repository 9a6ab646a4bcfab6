"""Result files say why a contender is absent, without the name of the user."""

from pathlib import Path

from backends import Availability
from benchmarks.contenders.base import explanation


def test_the_home_folder_is_abbreviated() -> None:
    remedy = f"{Path.home()}/.venv/bin/python -m pip install jax"
    found = explanation(Availability(False, "JAX is missing", remedy))
    assert found == "JAX is missing; ~/.venv/bin/python -m pip install jax"
    assert explanation(Availability(True, "JAX 0.5")) == "JAX 0.5"
