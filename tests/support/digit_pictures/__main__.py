"""Print how digits are read in pictures with disturbances.

    python -m tests.support.digit_pictures             342 pictures, not used for tuning
    python -m tests.support.digit_pictures --tuning    pictures on which rules are tuned
    python -m tests.support.digit_pictures --per-strength 20 --only sheet_on_desk

The first call trains a lenet for about a minute; its weights are cached in the temporary folder.
"""

import argparse

from mnist_accel.data import load_dataset, read_digit_image
from tests.support.digit_pictures.report import (
    REPORTING,
    TUNING,
    count_refused_without_digit,
    format_counts,
    measure,
    trained_network,
)
from tests.support.digit_pictures.scenes import CONTROLS, DISTURBANCES

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--tuning", action="store_true", help="use the pictures for tuning")
parser.add_argument("--per-strength", type=int, default=6, metavar="N", help="default: 6")
parser.add_argument("--only", nargs="*", metavar="NAME", help="names of disturbances")
args = parser.parse_args()
part = TUNING if args.tuning else REPORTING
kinds = [k for k in (*CONTROLS, *DISTURBANCES) if not args.only or k.__name__ in args.only]
dataset = load_dataset("mnist")
counts = measure(
    read_digit_image, trained_network(), dataset, part, per_strength=args.per_strength, kinds=kinds
)
print(format_counts(counts))
empty = [kind for kind in kinds if kind in DISTURBANCES]
for name, refused, total in count_refused_without_digit(
    read_digit_image, part, per_strength=max(1, args.per_strength // 2), kinds=empty
):
    print(f"{name:<20} without a digit: {refused} of {total} refused")
