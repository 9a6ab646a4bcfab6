"""What a notebook shows of a training, executed by a real Jupyter kernel."""

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELL = """
import contextlib, io
import mnist_accel as ma

data = ma.load_dataset("digits")
trainer = ma.Trainer(ma.create_model("two-layer", backend="numpy"), "adam")
trainer.fit(data.x_train, data.t_train, epochs=3, verbose=True)
errors = io.StringIO()
with contextlib.redirect_stderr(errors):
    trainer.fit(data.x_train, data.t_train, epochs=1, verbose=True)
assert errors.getvalue().startswith("backend numpy")
"""


def test_a_notebook_has_one_line_of_figures_that_is_updated():
    kernel = {"name": "python3", "display_name": "Python", "language": "python"}
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CELL)], metadata={"kernelspec": kernel}
    )
    nbclient.NotebookClient(book, timeout=60).execute()
    outputs = book.cells[0].outputs
    shown = [output.data["text/plain"] for output in outputs if "data" in output]
    backend, model, figures = shown
    assert backend == "backend numpy, eager: the backend numpy has no compiled epochs\n"
    assert model.startswith("model two-layer: 784")
    assert figures.startswith("epoch 3  69/69  loss ")
    assert figures.endswith("  0:00 left  ████████████████████")
    (printed,) = {output.name for output in outputs if "name" in output}
    assert printed == "stdout"
