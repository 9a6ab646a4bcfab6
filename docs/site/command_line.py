"""The directive `command-line`: every command with its flags, from the parsers of the commands."""

import argparse
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mnist_accel.commands.dispatcher import COMMANDS, command_parser
from mnist_accel.commands.parser import Parser


class CommandLine(SphinxDirective):
    """Adds a section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [_section(name) for name in COMMANDS]


def _section(name: str) -> nodes.section:
    """Return the description of a command: what it does, its usage, flags and examples."""
    parser = command_parser(name, prog=f"mnist-accel {name}")
    section = nodes.section("", nodes.title(name, name), ids=[name], names=[name])
    section["support_smartquotes"] = False  # they would change "--resume"
    for text in (parser.description or "").split("\n\n"):
        section += nodes.literal_block(text, text) if "\n " in text else nodes.paragraph("", text)
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    section += nodes.literal_block(usage, usage, language="text", classes=["wrapped"])
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        if actions:
            section += nodes.rubric("", (group.title or "").capitalize())
            section += nodes.definition_list("", *_definitions(parser, name, actions))
    examples = "\n".join(f"$ {parser.prog} {words}".rstrip() for words in COMMANDS[name].EXAMPLES)
    section += nodes.rubric("", "Examples")
    section += nodes.literal_block(examples, examples, language="console")
    return section


def _definitions(
    parser: Parser, name: str, actions: list[argparse.Action]
) -> Iterator[nodes.definition_list_item]:
    """Yield each flag with its help, and an address such as `train-lr` for links."""
    formatter: Any = parser._get_formatter()
    for action in actions:
        flag = formatter._format_action_invocation(action)
        term = nodes.term("", "", nodes.literal(flag, flag), ids=[f"{name}-{action.dest}"])
        text = formatter._expand_help(action) if action.help else ""
        yield nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", text)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive to Sphinx."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
