"""Words that could stand in the place of a word: from a small thesaurus, and a language model's nearest token vectors.

This is done in place of a masked language model, which is not at hand: candidates come from words alone; a simple check
of the part of speech (`thesaurus.may_replace`) drops those of another form; a causal language model then says how
probable each is after the text before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from detect.adversarial.neighbours import Neighbours
from detect.adversarial.sentences import sentences_of
from detect.adversarial.thesaurus import function_words, may_replace, synonyms
from detect.adversarial.word_model import next_log_probs, read_words
from detect.adversarial.words import Word, like
from features.backbone import Backbone

NEAREST = 24
"""Neighbours looked at of each word."""

LEAST_COSINE = 0.4
"""Of a neighbour's vector: under SmolLM2-135M 0.7 is a near synonym, 0.3 a word of the same matter."""

MOST_CANDIDATES = 8

_VOWELS = tuple("aeiou")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word for the place of another, and the natural log of how much more probable it is there than the other."""

    text: str
    gain: float


class Substitutes:
    """Candidates for the words of texts, under one language model."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._neighbours = Neighbours(backbone)

    def of_words(self, text: str, words: Sequence[Word]) -> dict[int, list[str]]:
        """Candidates for each word that has any, by its place: thesaurus first, then neighbours, nearest first.

        Function words, names (a capital within a sentence) and words in capitals have none. Candidates have the case of
        the word, and the article before it ("a", "an") stays right.
        """
        starts = _first_words(text, words)
        found: dict[int, list[str]] = {}
        for index, word in enumerate(words):
            if not word.text.isalpha() or not (word.text.islower() or (index in starts and word.text.istitle())):
                continue
            article = words[index - 1].text.lower() if index else ""
            others = [
                other
                for other in self._alike(word.text.lower())
                if article not in ("a", "an") or (article == "an") == other.startswith(_VOWELS)
            ]
            if others:
                found[index] = [like(word.text, other) for other in others[:MOST_CANDIDATES]]
        return found

    def _alike(self, word: str) -> list[str]:
        if word in function_words():
            return []
        near = [
            other
            for other, cosine in self._neighbours.of(word, NEAREST)
            if cosine >= LEAST_COSINE and may_replace(word, other)
        ]
        return list(dict.fromkeys([*synonyms(word), *near]))

    def in_context(self, text: str, words: Sequence[Word]) -> dict[int, list[Candidate]]:
        """Candidates for each word with what the language model says of them, most probable first.

        Only those that are one token are judged, from one pass over the text; others, and words that the model did not
        read, are left out.
        """
        candidates = self.of_words(text, words)
        reading = read_words(self._backbone, text, words)
        judged = [index for index in candidates if reading.first_tokens[index] > 0]
        if not judged:
            return {}
        places = [int(reading.first_tokens[index]) for index in judged]
        log_probs = next_log_probs(self._backbone, reading.token_ids, places)  # (judged, vocab)
        found: dict[int, list[Candidate]] = {}
        for index, row in zip(judged, log_probs, strict=True):
            tokens = [self._token(text, words[index], other) for other in candidates[index]]
            options = [
                Candidate(other, float(row[token]) - float(reading.log_probs[index]))
                for other, token in zip(candidates[index], tokens, strict=True)
                if token is not None
            ]
            if options:
                found[index] = sorted(options, key=lambda option: -option.gain)
        return found

    def _token(self, text: str, word: Word, other: str) -> int | None:
        """The one token of a candidate where a word stands; None for several."""
        space = " " if word.start and text[word.start - 1].isspace() else ""
        ids = self._backbone.tokenizer.encode(space + other).ids
        return ids[0] if len(ids) == 1 else None


def _first_words(text: str, words: Sequence[Word]) -> set[int]:
    """Places of the words that begin a sentence."""
    found, index = set(), 0
    for sentence in sentences_of(text):
        while index < len(words) and words[index].start < sentence.start:
            index += 1
        found.add(index)
    return found
