"""The sets of EMNIST: names of their classes, and the orientation of their images.

Source: G. Cohen et al., "EMNIST: an extension of MNIST to handwritten letters" (2017). The IDX
files contain transposed images. Labels are consecutive, from 1 for the letters and otherwise from
0. Names and their order are those of the files `emnist-…-mapping.txt`.
"""

from string import ascii_lowercase, ascii_uppercase, digits

# Letters whose capital and small forms are one class of the sets "balanced" and "bymerge".
_MERGED = "cijklmopsuvwxyz"
_DISTINCT = "".join(letter for letter in ascii_lowercase if letter not in _MERGED)
_CLASSES = {
    "balanced": digits + ascii_uppercase + _DISTINCT,
    "bymerge": digits + ascii_uppercase + _DISTINCT,
    "byclass": digits + ascii_uppercase + ascii_lowercase,
    "letters": ascii_uppercase,
    "digits": digits,
    "mnist": digits,
}


def emnist_set(prefix: str) -> str | None:
    """Return the set of EMNIST whose files have this prefix, such as "emnist-letters-", or None."""
    words = prefix.lower().replace("_", "-").strip("-.").split("-")
    return words[1] if len(words) == 2 and words[0] == "emnist" and words[1] in _CLASSES else None


def emnist_classes(name: str) -> tuple[str, ...]:
    """Return the names of the classes of a set, in the order of their labels."""
    return tuple(_CLASSES[name])


def first_label(name: str) -> int:
    """Return the smallest label in the files of a set."""
    return int(name == "letters")


def has_labels(name: str, smallest: int, largest: int) -> bool:
    """Return whether labels in this range may be those of a set."""
    first = first_label(name)
    return first <= smallest <= largest < first + len(_CLASSES[name])
