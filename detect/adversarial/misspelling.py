"""RAID's misspelling: what a language model finds most probable is misspelt (arXiv 2405.07940, appendix E)."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from detect.adversarial.attack import AttackedText, AttackMeans, document_rng
from detect.adversarial.word_lists import word_list
from detect.adversarial.word_model import read_words
from detect.adversarial.words import how_many, like, with_words, words_of
from features.documents import Document

_RULES = (
    (re.compile(r"(?<=[^c])ie(?=[a-z]{2})"), "ei"),
    (re.compile(r"ei(?=[a-z]{2})"), "ie"),
    (re.compile(r"(?<=[a-z]{2})([bcdfglmnprst])\1(?=[a-z]{2})"), r"\1"),
    (re.compile(r"(?<=[a-z]{3})ance$"), "ence"),
    (re.compile(r"(?<=[a-z]{3})ence$"), "ance"),
    (re.compile(r"(?<=[a-z]{3})ible$"), "able"),
    (re.compile(r"(?<=[a-z]{3})able$"), "ible"),
    (re.compile(r"(?<=[a-z]{3})ently$"), "antly"),
    (re.compile(r"(?<=[a-z]{3})ally$"), "aly"),
    (re.compile(r"(?<=[a-z]{3})ely$"), "ly"),
)
_SHORTEST_BY_RULE = 6


@dataclass(frozen=True)
class Misspelling:
    """Words become common misspellings of themselves, the most probable words first.

    Strength is the share of all words; a text has fewer changes where fewer words have a known misspelling. The list is
    this project's own, and rules (ie for ei, one letter for two, -ence for -ance) misspell longer words not in it.
    """

    means: AttackMeans

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order."""
        return [
            AttackedText(self._misspelt(document.text, strength, document_rng(document, "misspelling", seed)))
            for document in documents
        ]

    def _misspelt(self, text: str, strength: float, rng: random.Random) -> str:
        words = words_of(text)
        changes = {
            index: like(word.text, rng.choice(found))
            for index, word in enumerate(words)
            if like(word.text, word.text.lower()) == word.text  # not with capitals within, which would be lost
            and (found := misspellings(word.text.lower()))
        }
        if not changes or not (count := how_many(len(words), strength)):
            return text
        log_probs = np.nan_to_num(read_words(self.means.backbone(), text).log_probs, nan=-np.inf)
        order = sorted(changes, key=lambda index: (-log_probs[index], index))
        return with_words(text, words, {index: changes[index] for index in order[:count]})


@cache
def _listed() -> dict[str, list[str]]:
    return {key.lower(): others for key, others in word_list("misspellings").items()}


@cache
def misspellings(word: str) -> tuple[str, ...]:
    """Ways to misspell a lower-case word: listed ones, those of its singular with an s, or one that a rule makes."""
    listed = _listed()
    if word in listed:
        return tuple(other.lower() for other in listed[word])
    if word.endswith("s") and len(word) > _SHORTEST_BY_RULE and word[:-1] in listed:
        return tuple(other.lower() + "s" for other in listed[word[:-1]])
    if len(word) < _SHORTEST_BY_RULE or not word.isascii():
        return ()
    made = (pattern.sub(new, word, count=1) for pattern, new in _RULES)
    return next(((other,) for other in made if other != word), ())
