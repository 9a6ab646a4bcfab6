"""Files that release 0.1.0 wrote still load, and training continues from them.

`tests/fixtures/release-0.1.0` holds a checkpoint after one of two epochs, the weights after the
second epoch of the same training, and the folder of a finished run.
"""

from pathlib import Path

import numpy as np
import pytest

import mnist_accel as ma
from mnist_accel.commands import main
from mnist_accel.data import load_dataset

FILES = Path(__file__).parents[1] / "fixtures" / "release-0.1.0"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_checkpoint_continues_to_the_weights_of_release_0_1_0(backend: str) -> None:
    digits = load_dataset("digits")
    trainer = ma.load_checkpoint(FILES / "checkpoint.safetensors", backend=backend)
    trainer.fit(digits.x_train, digits.t_train, epochs=1)
    expected = ma.load_model(FILES / "after-two-epochs.safetensors", backend="numpy").state_dict()
    got = trainer.model.state_dict()
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-5, err_msg=name)


def test_run_folder_of_release_0_1_0_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(FILES / "run"), "--backend", "numpy"]) == 0
    assert "60.28%" in capsys.readouterr().out
