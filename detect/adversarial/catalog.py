"""Every text attack by name: what it does, how strongly, what it needs and where it comes from.

This module imports no other at the top that is heavy, so that lists and help texts are instant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from features.errors import UsageError

if TYPE_CHECKING:
    from detect.adversarial.attack import Attack, AttackedText, AttackMeans
    from features.documents import Document

NOTHING = "nothing"
BACKBONE = "language model"
BATCH = "human texts of the domain"
DETECTOR = "language model and detector"


@dataclass(frozen=True)
class AttackEntry:
    """One line of `pawn attack --list`.

    Attributes:
        name: what a person calls it.
        summary: one line.
        strength: the usual one, its source's.
        strength_means: what the number counts.
        needs: what it needs beside the texts: nothing, a language model, other texts, a detector.
        source: paper, and its arXiv number.
        most: the largest strength that can be asked for.
    """

    name: str
    summary: str
    strength: float
    strength_means: str
    needs: str
    source: str
    most: float = 1.0


RAID = "RAID: Dugan et al. 2024, 2405.07940"
DETECTRL = "DetectRL: Wu et al. 2024, 2410.23746"
WORDS = "share of words"

ENTRIES = (
    AttackEntry(
        "homoglyph",
        "letters that look the same, from other scripts",
        1.0,
        "share of the letters that have a twin",
        NOTHING,
        RAID,
    ),
    AttackEntry("number", "other digits", 0.5, "share of numbers", NOTHING, RAID),
    AttackEntry("article_deletion", "a, an and the go", 0.5, "share of articles", NOTHING, RAID),
    AttackEntry(
        "insert_paragraphs", "empty lines between sentences", 0.5, "share of the places for one", NOTHING, RAID
    ),
    AttackEntry("misspelling", "common misspellings, most probable words first", 0.2, WORDS, BACKBONE, RAID),
    AttackEntry("upper_lower", "first letters change their case", 0.05, WORDS, NOTHING, RAID),
    AttackEntry("whitespace", "more spaces between words", 0.2, "added spaces for each word", NOTHING, RAID),
    AttackEntry("zero_width_space", "invisible spaces after characters", 1.0, "share of characters", NOTHING, RAID),
    AttackEntry("synonym", "words of like meaning, most probable first", 0.5, WORDS, BACKBONE, RAID),
    AttackEntry(
        "paraphrase",
        "three sentences at a time in a language model's words (weak with the default one); paraphrase:MODEL names one",
        1.0,
        "share of such passages",
        BACKBONE,
        "RAID, with a local model for DIPPER: Krishna et al. 2023, 2303.13408",
    ),
    AttackEntry("alternative_spelling", "American spellings turn British", 1.0, "share of such words", NOTHING, RAID),
    AttackEntry(
        "character", "slips of the pen: letters swapped, mistyped, left out, added", 0.1, WORDS, NOTHING, DETECTRL
    ),
    AttackEntry("word", "words with similar vectors, whether they fit or not", 0.1, WORDS, BACKBONE, DETECTRL),
    AttackEntry("sentence", "slips, look-alike letters, split and swapped words", 0.1, WORDS, BACKBONE, DETECTRL),
    AttackEntry(
        "mixing",
        "sentences of other human texts put in",
        0.25,
        "share of sentences",
        BATCH,
        DETECTRL,
        most=0.5,
    ),
    AttackEntry(
        "adaptive",
        "words that fit and move the attacked detector's score most",
        0.1,
        "share of words that may change",
        DETECTOR,
        "after TextFooler: Jin et al. 2020, 1907.11932",
    ),
)
"""Every attack, in the order of lists and reports."""

_MAKERS = {
    "homoglyph": "characters:homoglyph",
    "number": "surface:number",
    "article_deletion": "surface:article_deletion",
    "insert_paragraphs": "surface:insert_paragraphs",
    "misspelling": "misspelling:Misspelling",
    "upper_lower": "characters:upper_lower",
    "whitespace": "characters:whitespace",
    "zero_width_space": "characters:zero_width_space",
    "synonym": "synonym:Synonym",
    "paraphrase": "paraphrase:Paraphrase",
    "alternative_spelling": "spelling:alternative_spelling",
    "character": "perturbations:character",
    "word": "perturbations:WordSwap",
    "sentence": "perturbations:Sentence",
    "mixing": "mixing:Mixing",
    "adaptive": "adaptive:Adaptive",
}
"""Name -> module below this package and what in it makes the attack of `AttackMeans`."""

_WITH_MODEL = ("paraphrase",)
"""Attacks that a model of their own can be named for."""


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its entry, so that strengths that mean nothing are refused."""

    entry: AttackEntry
    attack: "Attack"

    def apply(self, documents: "Sequence[Document]", strength: float, seed: int) -> "list[AttackedText]":
        """One changed text for each document, in order.

        Raises:
            UsageError: for a strength outside 0 to the entry's most.
        """
        if not 0 <= strength <= self.entry.most:
            raise UsageError(
                f"attack {self.entry.name} has a strength from 0 to {self.entry.most:g} "
                f"({self.entry.strength_means}), got {strength:g}"
            )
        return self.attack.apply(documents, strength, seed)


def attack_entry(name: str) -> AttackEntry:
    """The entry of a name, or of `NAME:MODEL` where an attack may have a language model of its own.

    Raises:
        UsageError: when no attack has that name, or it takes no model.
    """
    base, colon, model = name.partition(":")
    found = next((entry for entry in ENTRIES if entry.name == base), None)
    if found is None:
        names = [entry.name for entry in ENTRIES]
        close = get_close_matches(base, names, n=2)
        raise UsageError(
            f"no attack named {name!r}"
            + (f"; did you mean {' or '.join(close)}?" if close else ";")
            + f" Known: {', '.join(names)}"
        )
    if colon and (base not in _WITH_MODEL or not model):
        raise UsageError(
            f"no attack named {name!r}: after a colon comes a model's name, as in "
            + ", ".join(f"{other}:MODEL" for other in _WITH_MODEL)
        )
    return replace(found, name=name)


def attack_named(name: str, means: "AttackMeans") -> NamedAttack:
    """The attack of a name.

    Args:
        name: of `ENTRIES`; `paraphrase:MODEL` for a model by registered name, directory or hub id.
        means: what attacks may need beside the texts; no model is loaded before the attack is applied.

    Raises:
        UsageError: when no attack has that name, or what it needs is missing.
    """
    entry = attack_entry(name)
    base, _, model = name.partition(":")
    module, _, maker = _MAKERS[base].partition(":")
    make: Any = getattr(import_module(f"detect.adversarial.{module}"), maker)
    return NamedAttack(entry, make(means, model) if model else make(means))
