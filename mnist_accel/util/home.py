"""The user's home folder, which is nobody else's business."""

import re
from pathlib import Path


def without_home(text: str) -> str:
    """Shorten the home folder to `~` wherever a text names it."""
    home = re.escape(str(Path.home()))
    return text if home == "/" else re.sub(rf"(?<![\w./-]){home}(?![\w.-])", "~", text)
