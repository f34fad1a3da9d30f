"""DetectRL's perturbations of characters and words (Wu et al. 2024, arXiv 2410.23746), without TextAttack.

DetectRL takes TextAttack's augmenters of DeepWordBug, TextFooler and TextBugger, which ask no detector: a share of the
words, drawn at random, is changed.
"""

import random
from collections.abc import Callable, Sequence
from functools import cached_property

from detect.adversarial.attack import AttackedText, AttackMeans, document_rng
from detect.adversarial.substitutes import Substitutes
from detect.adversarial.word_lists import word_list
from detect.adversarial.words import TextChange, Word, chosen, how_many, like, with_words, words_of
from features.documents import Document

SHORTEST = 4
"""Letters of a word that is misspelt: DeepWordBug leaves short words alone, which nobody could read again."""


def character(means: AttackMeans) -> TextChange:
    """One slip within a word, after DeepWordBug (Gao et al. 2018, 1801.04354); strength is the share of words.

    Two letters change places, a letter becomes its neighbour on the keyboard, goes, or comes in. First and last letter
    stay. Words of fewer than four letters are never changed.
    """
    return TextChange("character", _character)


def _character(text: str, strength: float, rng: random.Random) -> str:
    words = words_of(text)
    slips = {index: slip(word.text, rng) for index, word in enumerate(words) if len(word.text) >= SHORTEST}
    return with_words(text, words, {index: slips[index] for index in _drawn(rng, words, slips, strength)})


def slip(word: str, rng: random.Random) -> str:
    """A word of at least four letters with one slip of the pen inside; never the word itself."""
    place = rng.randrange(1, len(word) - 1)
    keys = word_list("keyboard").get(word[place].lower(), ["e"])
    key = like(word[place], rng.choice(keys))
    swaps = [at for at in range(1, len(word) - 2) if word[at] != word[at + 1]]
    kinds: list[Callable[[], str]] = [
        lambda: word[:place] + key + word[place + 1 :],
        lambda: word[:place] + word[place + 1 :],
        lambda: word[:place] + key + word[place:],
    ]
    if swaps:
        at = rng.choice(swaps)
        kinds.append(lambda: word[:at] + word[at + 1] + word[at] + word[at + 2 :])
    return rng.choice(kinds)()


def lookalike(word: str, rng: random.Random) -> str | None:
    """A word with one letter of another script that looks the same; None where it has no such letter."""
    twins = word_list("homoglyphs")
    places = [at for at, letter in enumerate(word) if letter in twins]
    if not places:
        return None
    at = rng.choice(places)
    return word[:at] + rng.choice(twins[word[at]]) + word[at + 1 :]


class WordSwap:
    """A word becomes one with a similar vector, after TextFooler's augmenter; strength is the share of words.

    The vectors are the language model's own (see `neighbours`), with the part-of-speech check of `thesaurus`; whether
    the word fits its sentence is not asked, which is what tells this from `synonym`.
    """

    name = "word"

    def __init__(self, means: AttackMeans) -> None:
        self._means = means

    @cached_property
    def _substitutes(self) -> Substitutes:
        return Substitutes(self._means.backbone())

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order."""
        return [
            AttackedText(self._changed(document.text, strength, document_rng(document, self.name, seed)))
            for document in documents
        ]

    def _changed(self, text: str, strength: float, rng: random.Random) -> str:
        words = words_of(text)
        if not how_many(len(words), strength):
            return text
        changes = self._changes(text, words, rng)
        return with_words(text, words, {index: changes[index] for index in _drawn(rng, words, changes, strength)})

    def _changes(self, text: str, words: Sequence[Word], rng: random.Random) -> dict[int, str]:
        """What each word that can change would become."""
        return {index: rng.choice(list(others)) for index, others in self._substitutes.of_words(text, words).items()}


class Sentence(WordSwap):
    """Characters and words together, after TextBugger (Li et al. 2019, 1812.05271); strength is the share of words.

    DetectRL calls this sentence level. Each word drawn has a slip, a space inside, a look-alike letter or, where it has
    one, a word with a similar vector; each is as likely as the others.
    """

    name = "sentence"

    def _changes(self, text: str, words: Sequence[Word], rng: random.Random) -> dict[int, str]:
        swaps = super()._changes(text, words, rng)
        return {index: self._one(word.text, swaps.get(index), rng) for index, word in enumerate(words) if _long(word)}

    @staticmethod
    def _one(word: str, swap: str | None, rng: random.Random) -> str:
        cut = rng.randrange(1, len(word))
        kinds = [slip(word, rng), word[:cut] + " " + word[cut:], lookalike(word, rng), swap]
        return rng.choice([kind for kind in kinds if kind is not None])


def _long(word: Word) -> bool:
    return len(word.text) >= SHORTEST


def _drawn(rng: random.Random, words: Sequence[Word], changes: dict[int, str], strength: float) -> list[int]:
    """Which of the words that can change do: a share of all words, or as many as there are."""
    return chosen(rng, list(changes), how_many(len(words), strength) / len(changes)) if changes else []
