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
    format_counts,
    measure,
    recognized,
    trained_network,
)

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--tuning", action="store_true", help="use the pictures for tuning")
parser.add_argument("--per-strength", type=int, default=6, metavar="N", help="default: 6")
parser.add_argument("--only", nargs="*", metavar="NAME", help="names of disturbances")
args = parser.parse_args()
part = TUNING if args.tuning else REPORTING
dataset, network = load_dataset("mnist"), trained_network()
known = recognized(network, dataset)
for title, group in (("Writing and files", WRITING), ("Disturbances", DISTURBANCES)):
    kinds = [kind for kind in group if not args.only or kind.__name__ in args.only]
    counts = measure(
        read_digit_image,
        network,
        dataset,
        part,
        known,
        per_strength=args.per_strength,
        kinds=kinds,
    )
    if group is DISTURBANCES:
        count_empty(
            read_digit_image, part, counts, kinds, per_strength=max(1, args.per_strength // 3)
        )
    print(f"{format_counts(title, counts)}\n", flush=True)
