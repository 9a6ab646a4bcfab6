"""The help, the version, and the modules that run as programs."""

import re
import shlex
import subprocess
import sys

import pytest

import mnist_accel as ma
from mnist_accel.commands.dispatcher import COMMANDS, command_parser
from mnist_accel.recipes.models import RECIPES
from tests.support.command_line import environment


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, run):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert "exit codes:" in out
    assert "5    training diverged: the loss or a weight became NaN or infinite" in out
    assert "FOLDER" not in out  # command-line programs say DIR
    assert run("help", command) == (0, out, "")
    assert run(command, "-h") == (0, out, "")


@pytest.mark.parametrize("prog", ["mnist-accel", "python -m mnist_accel"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(command, prog, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command_parser(command, prog=f"{prog} {command}").format_help().splitlines()
    assert max(lines, key=len) == "" or len(max(lines, key=len)) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_that_are_valid(command):
    prog = f"mnist-accel {command}"
    parser = command_parser(command, prog=prog)
    *_, examples = parser.format_help().split("\n\n")
    heading, *calls = examples.splitlines()
    assert heading == "examples:"
    assert calls
    for call in calls:
        assert call.startswith(f"  {prog}")
        parser.parse_args(shlex.split(call.removeprefix(f"  {prog}")))


@pytest.mark.parametrize("command", ["train", "compare", "gradcheck", "doctor"])
def test_help_describes_each_recipe_in_one_line(command, run):
    lines = run(command, "--help")[1].splitlines()
    for name, recipe in RECIPES.items():
        assert f"  {name:<11}  {recipe.summary}" in lines


def test_every_option_states_its_default(run):
    """Except switches, and options without which the command does something else."""
    for command in COMMANDS:
        for action in command_parser(command, prog=command)._actions:
            is_choice = action.dest in (
                "index",
                "image",
                "shell",
                "explain",
                "config",
                "iterations",
            )
            if action.option_strings and action.nargs != 0 and not is_choice:
                assert "default" in action.help, (command, action.dest)


def test_without_arguments_the_overview_is_shown(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert all(f"  {command} " in out for command in COMMANDS)
    assert out.splitlines()[-1].startswith("  mnist-accel ")
    assert max(map(len, out.splitlines())) <= 80
    assert run("help") == run("--help") == run("-h") == (0, out, "")


def test_version(run):
    for flag in ("--version", "-V"):
        assert run(flag) == (0, f"mnist-accel {ma.__version__}\n", "")


def test_wrong_calls_of_the_overview_print_one_line(run):
    code, out, err = run("help", "trian")
    assert (code, out) == (2, "")
    assert err.startswith("mnist-accel: unknown command 'trian'; choose from train, ")
    assert err.endswith("did you mean 'train'? (see mnist-accel --help)\n")
    code, out, err = run("--model", "lenet")
    assert (code, out) == (2, "")
    assert err.startswith("mnist-accel: the first argument must be a command: train, population, ")


def test_commands_are_accepted_in_any_case(run):
    assert run("Data", "digits")[0] == 0


@pytest.mark.parametrize("name", ["mnist_accel", "mnist_accel.train"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_modules_run_as_programs(name, flag):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", name, flag],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"usage: python -m {name} ")
    assert re.search(rf"^  python -m {name} \S", process.stdout, re.MULTILINE)


def test_the_names_and_the_descriptions_of_the_commands_are_two_columns(run):
    lines = run("--help")[1].splitlines()
    for name, command in COMMANDS.items():
        words = command.__doc__.split()[:3]
        assert any(line.startswith(f"  {name:<10}  {' '.join(words)}") for line in lines)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_the_trained_network_has_the_same_name_in_help_and_readme(command, run):
    assert "[RUN]" in run("help", command)[1]
