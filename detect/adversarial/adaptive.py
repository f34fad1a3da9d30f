"""The adaptive attack: words are replaced by those that move the attacked detector's own score most.

Greedy word substitution as TextFooler has it (Jin et al. 2020, arXiv 1907.11932), with candidates that a language model
finds fitting, under a budget of changes, counting how often the detector was asked.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from detect.adversarial.attack import AttackedText, AttackMeans
from detect.adversarial.substitutes import Candidate, Substitutes
from detect.adversarial.synonym import LEAST_GAIN
from detect.adversarial.word_model import read_words
from detect.adversarial.words import Word, how_many, with_words, words_of
from features.documents import Document
from features.errors import UsageError

MOST_PROBES = 64
"""Deletions by which words are ranked: words of a longer text are deleted, and ranked, several neighbours at a time."""

MOST_CANDIDATES = 4
"""Tried for each word."""


class Adaptive:
    """Words become candidates that move the score, the word that counts most first; strength is the share of words.

    A machine text, or one without label, is moved towards human scores; a human text towards machine scores, so that
    false accusations can be provoked and counted. First every word that has candidates is deleted and the score taken;
    then, in the order of what the deletions did, each word's candidates are scored in its place and the best is kept if
    it is better than the text so far. It ends when the budget of changed words is spent or no word is left. There is no
    choice at random: the seed changes nothing.

    Raises:
        UsageError: when no detector is given that could be asked.
    """

    def __init__(self, means: AttackMeans) -> None:
        if means.score is None:
            raise UsageError("attack adaptive asks the attacked detector for scores; name the detector to attack")
        self._means = means
        self._score = means.score

    @cached_property
    def _substitutes(self) -> Substitutes:
        return Substitutes(self._means.backbone())

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order."""
        return [self._attacked(document, strength) for document in documents]

    def _attacked(self, document: Document, strength: float) -> AttackedText:
        text = document.text
        words = words_of(text)
        budget = how_many(len(words), strength)
        options = self._options(text, words) if budget else {}
        if not options:
            return AttackedText(text)
        search = _Search(self._score, text, words, -1.0 if document.label == 0 else 1.0)
        if not np.isnan(search.best):  # a text that the detector does not score cannot be led anywhere
            for index in search.ranked(list(options)):
                if len(search.changes) == budget:
                    break
                search.offer(index, [option.text for option in options[index]])
        return AttackedText(with_words(text, words, search.changes), search.queries)

    def _options(self, text: str, words: Sequence[Word]) -> dict[int, list[Candidate]]:
        """For each word that has any, its best candidates that fit."""
        reading = read_words(self._means.backbone(), text)
        found = {
            index: [option for option in options if option.gain >= LEAST_GAIN][:MOST_CANDIDATES]
            for index, options in self._substitutes.in_context(text, words, reading).items()
        }
        return {index: options for index, options in found.items() if options}


class _Search:
    """A greedy search for changes that lower `sign` times the score of one text."""

    def __init__(
        self, score: Callable[[Sequence[str]], np.ndarray], text: str, words: Sequence[Word], sign: float
    ) -> None:
        self._score = score
        self._text = text
        self._words = words
        self._sign = sign
        self.queries = 0
        self.changes: dict[int, str] = {}
        self.best = self._values([{}])[0]

    def _values(self, tries: list[dict[int, str]]) -> np.ndarray:
        """What is to be lowered, (tries,): of the text with each of some further changes."""
        self.queries += len(tries)
        texts = [with_words(self._text, self._words, self.changes | more) for more in tries]
        return self._sign * np.asarray(self._score(texts), dtype=np.float64)

    def ranked(self, places: list[int]) -> list[int]:
        """Places of words, those first whose deletion lowers the value most."""
        size = -(-len(places) // MOST_PROBES)
        groups = [places[start : start + size] for start in range(0, len(places), size)]
        values = self._values([dict.fromkeys(group, "") for group in groups])
        order = np.argsort(np.nan_to_num(values, nan=np.inf), kind="stable")
        return [place for at in order for place in groups[at]]

    def offer(self, index: int, candidates: list[str]) -> None:
        """Put the best of some candidates in the place of a word, if it is better than what stands there."""
        values = np.nan_to_num(self._values([{index: candidate} for candidate in candidates]), nan=np.inf)
        if values.min() < self.best:
            self.changes[index] = candidates[int(values.argmin())]
            self.best = float(values.min())
