"""Importing Numba has no effects on the standard streams."""

import os
import subprocess
import sys

from tests.support.command_line import ROOT, environment


def test_numba_is_imported_without_colorama(tmp_path):
    """colorama writes a control sequence to a terminal when the program ends."""
    (tmp_path / "colorama.py").write_text("print('colorama was imported')\n")
    code = """
import backends
assert backends.available_backends()["numba"].ok
print("Numba was imported")
import colorama
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "Numba was imported\ncolorama was imported\n"
