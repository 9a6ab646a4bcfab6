"""Examples of a Markdown page: new files, changes of existing files, and scripts that use them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = re.compile(r"^```(python|diff)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# File: (\S+)\n")


@dataclass
class Example:
    """The blocks of one section.

    Attributes:
        new_files: content by path.
        edits: pairs (old text, new text) by path.
        script: the code that uses the result.
    """

    new_files: dict[str, str] = field(default_factory=dict)
    edits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    script: str = ""

    @property
    def files(self) -> set[str]:
        """The paths of all files that the example creates or changes."""
        return self.new_files.keys() | self.edits.keys()

    def apply(self, root: Path) -> None:
        """Create and change the files below `root`."""
        for path, content in self.new_files.items():
            assert not (root / path).exists(), f"{path} exists already"
            (root / path).write_text(content, encoding="utf-8")
        for path, edits in self.edits.items():
            text = (root / path).read_text(encoding="utf-8")
            for old, new in edits:
                assert text.count(old) == 1, f"{path} contains {text.count(old)} times:\n{old}"
                text = text.replace(old, new)
            (root / path).write_text(text, encoding="utf-8")


def read_examples(page: Path) -> dict[str, Example]:
    """Return the examples of a page by section heading."""
    examples = {}
    for section in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        example = Example()
        for language, code in BLOCK.findall(section):
            if language == "diff":
                _read_diff(code, example)
            elif match := FILE.match(code):
                example.new_files[match[1]] = code[match.end() :]
            else:
                example.script += code
        examples[section.partition("\n")[0]] = example
    return examples


def _read_diff(code: str, example: Example) -> None:
    """Add the changes of a `diff` block to an example."""
    for path, hunks in _files_of_diff(code):
        for hunk in hunks:
            old = "".join(line[1:] for line in hunk if not line.startswith("+"))
            new = "".join(line[1:] for line in hunk if not line.startswith("-"))
            example.edits.setdefault(path, []).append((old, new))


def _files_of_diff(code: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the path of each file in a diff with its hunks, which are lists of lines."""
    for part in re.split(r"^--- \S+\n\+\+\+ ", code, flags=re.MULTILINE)[1:]:
        path, _, body = part.partition("\n")
        hunks = re.split(r"^@@.*\n", body, flags=re.MULTILINE)[1:]
        # An empty context line may have lost its leading space in an editor.
        lines = [[line if line.strip() else " \n" for line in h.splitlines(True)] for h in hunks]
        yield path, lines
