"""Compiled code on disk is used only with the sources it was made of."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from backends.numba.kernels import compilation


def test_code_of_other_sources_is_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    compilation.forget_other_sources(str(folder))  # makes the folder, which Numba does later
    stale = [folder / "epoch.run_steps-30.py311.nbi", folder / "dense.linear-1.py311.nbi"]
    foreign = folder / "somebody.elses-1.py311.nbi"
    for file in (*stale, foreign):
        file.touch()
    compilation.forget_other_sources.cache_clear()
    compilation.forget_other_sources(str(folder))
    assert all(file.exists() for file in (*stale, foreign))  # the sources are the same
    (folder / compilation.STAMP).write_text("of an earlier release")
    compilation.forget_other_sources.cache_clear()
    compilation.forget_other_sources(str(folder))
    assert not any(file.exists() for file in stale)
    assert foreign.exists()


def test_a_change_in_one_file_reaches_kernels_of_another(tmp_path: Path) -> None:
    package = tmp_path / "backends"
    kernels = package / "numba" / "kernels"
    kernels.mkdir(parents=True)
    source = Path(compilation.__file__)
    (package / "__init__.py").touch()
    (package / "numba" / "__init__.py").touch()
    (kernels / "__init__.py").touch()
    (kernels / "compilation.py").write_bytes(source.read_bytes())
    (kernels / "caller.py").write_text(
        "from backends.numba.kernels.compilation import entry\n"
        "from backends.numba.kernels.callee import number\n\n\n"
        "@entry\ndef call(): return number()\n"
    )
    folders = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    answers = []
    for value in (1, 2):
        (kernels / "callee.py").write_text(
            "from backends.numba.kernels.compilation import kernel\n\n\n"
            f"@kernel\ndef number(): return {value}\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", "from backends.numba.kernels.caller import call; print(call())"],
            cwd=tmp_path,
            # Python itself would not notice a change within a second.
            env={**folders, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(int(run.stdout))
    assert answers == [1, 2]
