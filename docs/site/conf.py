"""Settings of Sphinx for the documentation site; `make docs` builds it.

The source folder is the repository, so that links between its Markdown files work on the site as
they do on a code host.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import mnist_accel

sys.path.append(str(Path(__file__).parent))  # for the extensions below

project = "mnist_accel"
project_copyright = "the mnist_accel authors"
release = version = mnist_accel.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_line",
    "drawing",
]
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/*/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "docs/site", "mnist_accel", "backends", "tests"]

smartquotes_action = "D"  # only the dashes that Sphinx adds
myst_heading_anchors = 4
# Pages with code cells run at build time. A page that has not changed is taken from the cache.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

default_role = "py:obj"  # a name in backticks links to its description, if there is one
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}  # light or dark as the system
html_title = "mnist_accel"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"docs/index": [], "docs/start": [], "docs/draw": [], "docs/glossary": []}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 8,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "docs/index": [], "docs/draw": []},
    "primary_sidebar_end": [],
    "footer_start": ["copyright"],
    "footer_end": [],
    "search_as_you_type": True,
}
copybutton_exclude = ".linenos, .gp, .go"  # prompts and outputs are not copied

ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[[^\]]*\], ~?numpy\.dtype\[([^\]]*)\]\]")


def shorten_arrays(app: Sphinx, domain: str, kind: str, content: nodes.Element) -> None:
    """Replace the long form of NumPy's array types in descriptions by their short form."""
    for text in list(content.findall(nodes.Text)):
        short = ARRAY.sub(r"NDArray[\1]", text)
        if short != text:
            text.parent.replace(text, nodes.Text(short))


def setup(app: Sphinx) -> None:
    """Call `shorten_arrays` after autodoc has added the types."""
    app.connect("object-description-transform", shorten_arrays, priority=900)
