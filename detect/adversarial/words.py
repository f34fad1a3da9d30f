"""Words of a text, how many of them a strength means, and how they are put back changed."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from detect.adversarial.attack import AttackedText, document_rng
from detect.marks import MARKS
from features.documents import Document

T = TypeVar("T")

_LETTERS = f"(?:[^\\W\\d_][{MARKS}]*)+"
_WORD = re.compile(f"(?<![\\w{MARKS}]){_LETTERS}(?:['’]{_LETTERS})*(?![\\w{MARKS}])")


@dataclass(frozen=True, slots=True)
class Word:
    """A run of letters with apostrophes inside it but no digit beside it: characters [start, end) of the text."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """The words of a text in order. None holds white space, so a text and its canonical form have the same ones."""
    return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]


def with_words(text: str, words: Sequence[Word], changes: Mapping[int, str]) -> str:
    """The text with some of its words, given by their place in `words`, written otherwise."""
    parts, done = [], 0
    for index in sorted(changes):
        parts += [text[done : words[index].start], changes[index]]
        done = words[index].end
    return "".join([*parts, text[done:]])


def like(pattern: str, word: str) -> str:
    """A lower-case word written as another one is: in capitals, with a capital, or as it comes."""
    if pattern.isupper() and len(pattern) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if pattern[:1].isupper() else word


def how_many(count: int, strength: float) -> int:
    """A share of a count, rounded half up, so that no share of one thing is lost on the way to all of it."""
    return min(count, int(count * strength + 0.5))


def chosen(rng: random.Random, things: Sequence[T], strength: float) -> list[T]:
    """A share of some things, in their order; a larger share of the same random state holds the smaller one."""
    order = list(range(len(things)))
    rng.shuffle(order)
    return [things[index] for index in sorted(order[: how_many(len(things), strength)])]


@dataclass(frozen=True)
class TextChange:
    """An attack that needs a text, a strength and chance, and nothing else.

    Attributes:
        name: of the attack; part of what seeds it.
        change: (text, strength, random choices) -> changed text.
    """

    name: str
    change: Callable[[str, float, random.Random], str]

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order."""
        return [
            AttackedText(self.change(document.text, strength, document_rng(document, self.name, seed)))
            for document in documents
        ]
