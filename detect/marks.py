"""Combining marks, which `re` counts as no part of a word although words of many scripts are half made of them."""

import unicodedata
from itertools import pairwise

_LAST = 0x1FFFF
"""Beyond are ideographs, variation selectors and nothing assigned."""


def _ranges() -> str:
    marks = [code for code in range(_LAST + 1) if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    starts = [marks[0], *(code for before, code in pairwise(marks) if code != before + 1)]
    ends = [*(before for before, code in pairwise(marks) if code != before + 1), marks[-1]]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


MARKS = _ranges()
"""What stands in a character class of `re` for all of them (categories Mn and Mc): vowels of Hindi, accents alone."""
