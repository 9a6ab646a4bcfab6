"""The directive `drawing-page`: the page of `draw`, with a LeNet that the build trains."""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import mnist_accel as ma
from mnist_accel.data import Dataset
from mnist_accel.data.sources.digests import PUBLISHED_SETS
from mnist_accel.data.sources.fetch import fetch_files
from mnist_accel.data.sources.local_copies import LocalCopies
from mnist_accel.draw import draw_page

PAGE = "draw-lenet.html"
EPOCHS = {"mnist": 2, "digits": 40}


class DrawingPage(SphinxDirective):
    """Adds the page as a frame, below a sentence that states how the network was trained."""

    def run(self) -> list[nodes.Node]:
        """Return the sentence and the frame."""
        made = json.loads((_folder(self.env.app) / "training.json").read_text(encoding="utf-8"))
        depth = self.env.docname.count("/")
        frame = (
            f'<iframe class="drawing" src="{"../" * depth}{PAGE}" title="Draw a digit"></iframe>'
        )
        return [nodes.paragraph("", made["sentence"]), nodes.raw("", frame, format="html")]


def make_page(app: Sphinx) -> None:
    """Train the network, and write the page to the folder of the site; use an earlier one again."""
    folder = _folder(app)
    if not (folder / "training.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = _data()
        network, sentence = _train(data)
        page = draw_page(network, class_names=data.class_names, centers=True)
        (folder / PAGE).write_text(page, encoding="utf-8")
        (folder / "training.json").write_text(json.dumps({"sentence": sentence}), encoding="utf-8")
    app.config.html_extra_path.append(str(folder / PAGE))


def _folder(app: Sphinx) -> Path:
    return Path(app.outdir).parent / "docs-cache" / "drawing"


def _data() -> Dataset:
    """Return MNIST if this machine has it, otherwise the digits of the package; never download."""
    try:
        fetch_files(PUBLISHED_SETS["mnist"], fallbacks=(LocalCopies(),))
    except ma.DataError:
        return ma.load_dataset("digits")
    return ma.load_dataset("mnist")


def _train(data: Dataset) -> tuple[ma.Network, str]:
    """Return a trained LeNet, and a sentence about its training."""
    network = ma.create_model("lenet", seed=0)
    trainer = ma.Trainer(network, "adam", lr=0.002, batch_size=64, seed=0)
    epochs = EPOCHS[data.name]
    trainer.fit(data.x_train, data.t_train, epochs=epochs)
    accuracy = ma.evaluate(network, data.x_test, data.t_test).accuracy
    return network, (
        f"This LeNet was trained when the site was built: {epochs} epochs on the "
        f"{len(data.x_train):,} training images of the data set {data.name}. It recognizes "
        f"{accuracy:.1%} of the {len(data.x_test):,} test images."
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive to Sphinx, and make the page before the sources are read."""
    app.add_directive("drawing-page", DrawingPage)
    app.connect("builder-inited", make_page)
    return {"parallel_read_safe": True}
