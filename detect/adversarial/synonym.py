"""RAID's synonym attack with a causal language model in the place of BERT (arXiv 2405.07940, appendix E)."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from detect.adversarial.attack import AttackedText, AttackMeans
from detect.adversarial.substitutes import Substitutes
from detect.adversarial.word_model import read_words
from detect.adversarial.words import how_many, with_words, words_of
from features.documents import Document

LEAST_GAIN = -5.0
"""A candidate may be e^5 times less probable than the word: what stands in a text is often the likeliest there is."""

MOST_LOSS = 3.0
"""By how many nats the word after it may become less probable."""


class Synonym:
    """Words become others of like meaning, those first that the language model finds best in the word's place.

    Strength is the share of all words that may change; a text has fewer changes where fewer words have a candidate that
    passes. RAID asks BERT for candidates and checks them by FastText and a tagger; here see `substitutes`. There is no
    choice at random: the seed changes nothing.
    """

    def __init__(self, means: AttackMeans) -> None:
        self._means = means

    @cached_property
    def _substitutes(self) -> Substitutes:
        return Substitutes(self._means.backbone())

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order."""
        return [AttackedText(self._changed(document.text, strength)) for document in documents]

    def _changed(self, text: str, strength: float) -> str:
        words = words_of(text)
        count = how_many(len(words), strength)
        if not count:
            return text
        backbone = self._means.backbone()
        reading = read_words(backbone, text)
        options = self._substitutes.in_context(text, words, reading)
        likely = {index: [one for one in found if one.gain >= LEAST_GAIN] for index, found in options.items()}
        best = {index: found[0] for index, found in likely.items() if found}
        order = sorted(best, key=lambda index: (-best[index].worth, index))[:count]
        changes = {index: best[index].text for index in order}
        changed = with_words(text, words, changes)
        after = read_words(backbone, changed).log_probs
        losses = np.nan_to_num(np.append(reading.log_probs - after, 0.0))  # of each word, one more for the last's next
        return with_words(text, words, {index: new for index, new in changes.items() if losses[index + 1] <= MOST_LOSS})
