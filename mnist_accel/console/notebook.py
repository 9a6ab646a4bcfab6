"""A line in the output of a notebook cell that is updated in place."""

import sys
from typing import Any, TextIO


def is_notebook(stream: TextIO) -> bool:
    """Return whether a stream writes to the output of a Jupyter kernel."""
    module = sys.modules.get("ipykernel.iostream")
    return module is not None and isinstance(stream, module.OutStream)


class NotebookLine:
    """Shows a line of text, which replaces the last one.

    Terminals update lines with control characters, which notebooks do not interpret.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show a text in place of the last one."""
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
