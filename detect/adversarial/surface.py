"""RAID's attacks on numbers, articles and paragraphs (Dugan et al. 2024, arXiv 2405.07940, appendix E)."""

import random
import re
from itertools import pairwise

from detect.adversarial.attack import AttackMeans
from detect.adversarial.sentences import sentences_of
from detect.adversarial.words import TextChange, chosen

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ARTICLE = re.compile(r"(?<!\S)(?:a|an|the) +(?=\S)")
_BREAK = "\n\n"


def number(means: AttackMeans) -> TextChange:
    """Every digit of a number is drawn again; strength is the share of numbers.

    A first digit that is not 0 stays so, and a number does not come out as it was.
    """
    return TextChange("number", _number)


def article_deletion(means: AttackMeans) -> TextChange:
    """A lower-case "a", "an" or "the" goes; strength is the share of them."""
    return TextChange("article_deletion", _article_deletion)


def insert_paragraphs(means: AttackMeans) -> TextChange:
    """An empty line comes between two sentences; strength is the share of the places that have none yet.

    The feature stage makes one space of every run of white space, so detectors that read features do not see this.
    """
    return TextChange("insert_paragraphs", _insert_paragraphs)


def _number(text: str, strength: float, rng: random.Random) -> str:
    found = list(_NUMBER.finditer(text))
    others = {match: _other_number(match[0], rng) for match in found}  # all of them, whatever the strength
    return _replaced(text, {match.span(): others[match] for match in chosen(rng, found, strength)})


def _other_number(old: str, rng: random.Random) -> str:
    while True:
        new = "".join(
            _digit_like(digit, rng.randrange(index == 0 and int(digit) > 0 and len(old) > 1, 10))
            if digit.isdigit()
            else digit
            for index, digit in enumerate(old)
        )
        if new != old:
            return new


def _digit_like(digit: str, value: int) -> str:
    """A digit of the script that another one is of."""
    return chr(ord(digit) - int(digit) + value)


def _article_deletion(text: str, strength: float, rng: random.Random) -> str:
    articles = [match.span() for match in _ARTICLE.finditer(text)]
    return _replaced(text, dict.fromkeys(chosen(rng, articles, strength), ""))


def _insert_paragraphs(text: str, strength: float, rng: random.Random) -> str:
    sentences = sentences_of(text)
    gaps = [(before.end, after.start) for before, after in pairwise(sentences)]
    closed = [(start, end) for start, end in gaps if text[start:end].count("\n") < 2]
    return _replaced(text, dict.fromkeys(chosen(rng, closed, strength), _BREAK))


def _replaced(text: str, changes: dict[tuple[int, int], str]) -> str:
    """The text with other characters in some places [start, end)."""
    parts, done = [], 0
    for (start, end), new in sorted(changes.items()):
        parts += [text[done:start], new]
        done = end
    return "".join([*parts, text[done:]])
