"""Words that could stand in the place of a word: from a small thesaurus, and a language model's nearest token vectors.

This is done in place of a masked language model, which is not at hand: candidates come from words alone; a simple check
of the part of speech (`thesaurus.may_replace`) drops those of another form; a causal language model then says how
probable each is after the text before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from detect.adversarial.neighbours import Neighbours
from detect.adversarial.sentences import sentences_of
from detect.adversarial.thesaurus import may_replace, synonyms
from detect.adversarial.word_model import WordReading, next_log_probs
from detect.adversarial.words import Word, like
from features.backbone import Backbone

LEAST_COSINE = 0.5
"""Of a neighbour's vector: under SmolLM2-135M 0.7 is a near synonym, 0.3 a word of the same matter."""

MOST_CANDIDATES = 8

BY_HAND = 0.7
"""What counts as the cosine of a word of the thesaurus."""

LIKENESS_WEIGHT = 5.0
"""Nats that a cosine of 1 is worth beside the language model's gain when candidates are ranked."""

_VOWELS = tuple("aeiou")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word for the place of another.

    Attributes:
        text: the word, in the case of the other.
        likeness: of the two words alone, at most 1.
        gain: natural log of how much more probable it is in that place.
    """

    text: str
    likeness: float
    gain: float

    @property
    def worth(self) -> float:
        """What candidates are ranked by: nats, and likeness as if it were some."""
        return self.gain + LIKENESS_WEIGHT * self.likeness


class Substitutes:
    """Candidates for the words of texts, under one language model."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._neighbours = Neighbours(backbone)

    def of_words(self, text: str, words: Sequence[Word]) -> dict[int, dict[str, float]]:
        """Candidates with their likeness for each word that has any, by its place; the likest first.

        Function words have none but the thesaurus', names (a capital within a sentence) and words in capitals none at
        all. Candidates have the case of the word, and the article before it ("a", "an") stays right.
        """
        starts = _first_words(text, words)
        found: dict[int, dict[str, float]] = {}
        for index, word in enumerate(words):
            if not word.text.isalpha() or not (word.text.islower() or (index in starts and word.text.istitle())):
                continue
            article = words[index - 1].text.lower() if index else ""
            others = {
                like(word.text, other): likeness
                for other, likeness in self._alike(word.text.lower()).items()
                if article not in ("a", "an") or (article == "an") == other.startswith(_VOWELS)
            }
            if others:
                found[index] = others
        return found

    def _alike(self, word: str) -> dict[str, float]:
        found = {
            other: cosine
            for other, cosine in self._neighbours.of(word)
            if cosine >= LEAST_COSINE and may_replace(word, other) and self._mutual(word, other)
        }
        found |= {other: max(BY_HAND, found.get(other, 0.0)) for other in synonyms(word)}
        order = sorted(found, key=lambda other: (-found[other], other))[:MOST_CANDIDATES]
        return {other: found[other] for other in order}

    def _mutual(self, word: str, other: str) -> bool:
        """Whether each is among the other's neighbours: pieces of words are near to many that are not near to them."""
        return any(back == word for back, _ in self._neighbours.of(other))

    def in_context(self, text: str, words: Sequence[Word], reading: WordReading) -> dict[int, list[Candidate]]:
        """Candidates for each word with what the language model says of them, those worth most first.

        Only those that are one token are judged, from one pass over the text; others, and words that the model did not
        read, are left out.

        Args:
            text: as it is.
            words: all its words.
            reading: of this text and these words by the same language model.
        """
        candidates = self.of_words(text, words)
        judged = [index for index in candidates if reading.first_tokens[index] > 0]
        if not judged:
            return {}
        log_probs = next_log_probs(self._backbone, reading.hidden[reading.first_tokens[judged] - 1])  # (judged, vocab)
        found: dict[int, list[Candidate]] = {}
        for index, row in zip(judged, log_probs, strict=True):
            options = [
                Candidate(other, likeness, float(row[token]) - float(reading.log_probs[index]))
                for other, likeness in candidates[index].items()
                if (token := self._token(text, words[index], other)) is not None
            ]
            if options:
                found[index] = sorted(options, key=lambda option: -option.worth)
        return found

    def _token(self, text: str, word: Word, other: str) -> int | None:
        """The one token of a candidate where a word stands; None for several, or one of unknown words."""
        space = " " if word.start and text[word.start - 1].isspace() else ""
        ids = self._backbone.tokenizer.encode(space + other, add_special_tokens=False).ids
        whole = len(ids) == 1 and self._backbone.tokenizer.decode(ids).strip() == other
        return ids[0] if whole else None


def _first_words(text: str, words: Sequence[Word]) -> set[int]:
    """Places of the words that begin a sentence."""
    found, index = set(), 0
    for sentence in sentences_of(text):
        while index < len(words) and words[index].start < sentence.start:
            index += 1
        found.add(index)
    return found
