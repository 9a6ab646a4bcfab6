"""Print a table of how digits are read in pictures with disturbances, in Markdown.

    python -m tests.support.digit_pictures             pictures not used for tuning
    python -m tests.support.digit_pictures --tuning    pictures on which rules are tuned
    python -m tests.support.digit_pictures --per-strength 20 --only sheet_on_desk

The first call trains a lenet for about a minute; its weights are cached in the temporary folder.
"""

import argparse

from mnist_accel.data import load_dataset, read_digit_image
from tests.support.digit_pictures.pictures import DISTURBANCES, WRITING
from tests.support.digit_pictures.report import (
    REPORTING,
    TUNING,
    count_empty,
    measure,
    recognized,
    table_head,
    table_row,
    trained_network,
)
from tests.support.digit_pictures.writing import undisturbed

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--tuning", action="store_true", help="use the pictures for tuning")
parser.add_argument(
    "--per-strength",
    type=int,
    default=10,
    metavar="N",
    help="pictures of each kind and strength; seven times as many undisturbed ones, and seven "
    "tenths as many without a digit (default: 10)",
)
parser.add_argument("--only", nargs="*", metavar="NAME", help="names of kinds")
args = parser.parse_args()
part = TUNING if args.tuning else REPORTING
dataset, network = load_dataset("mnist"), trained_network()
known = recognized(network, dataset)
for title, group in (("Writing and files", WRITING), ("Disturbances", DISTURBANCES)):
    print(table_head(title), flush=True)
    for kind in group:
        if args.only and kind.__name__ not in args.only:
            continue
        number = args.per_strength * (7 if kind is undisturbed else 1)
        count = measure(
            read_digit_image, network, dataset, part, known, per_strength=number, kind=kind
        )
        if group is DISTURBANCES:
            number = max(1, 7 * args.per_strength // 10)
            count_empty(read_digit_image, part, count, kind, per_strength=number)
        print(table_row(count), flush=True)
    print()
