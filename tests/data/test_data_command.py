"""The command `data` prints what a data set contains and where it came from."""

import argparse

from mnist_accel.commands import data as data_command
from mnist_accel.data.idx import format_idx
from mnist_accel.data.sources.digests import FILE_NAMES
from tests.support.published_files import fill


def run_command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    data_command.add_arguments(parser)
    return data_command.run(parser.parse_args(arguments))


def test_contents_and_source_are_printed(mnist, tmp_path, capsys):
    folder = tmp_path / "mine"
    arrays = (mnist.x_train, mnist.t_train, mnist.x_test, mnist.t_test)
    fill(folder, {name: format_idx(a) for name, a in zip(FILE_NAMES, arrays, strict=True)})
    assert run_command("--data-dir", str(folder)) == 0
    out = capsys.readouterr().out
    assert "mnist: 60000 training and 10000 test images" in out
    assert f"source    folder {folder}" in out
    assert "uint8 (60000, 28, 28)" in out
    assert "7840016 bytes  0fa7898d509279e4…" in out
    assert ["7", "6265", "1028"] in [line.split() for line in out.splitlines()]


def test_sets_without_published_digests_are_marked(capsys):
    assert run_command("--dataset", "digits") == 0
    out = capsys.readouterr().out
    assert "digits: 1437 training and 360 test images" in out
    assert "no digests are published" in out
