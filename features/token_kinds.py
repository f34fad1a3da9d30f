"""What kind of piece of text each token of a vocabulary is: marks, words common or rare, parts of words.

What detectors of features are told of the tokenizer: a number a token.
"""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

TOKEN_KINDS = (
    "comma",
    "end of sentence",
    "other mark",
    "frequent word",
    "common word",
    "uncommon word",
    "rare word",
    "part of a word",
    "capitalised word",
)
"""The kinds, by their numbers. A number in digits is a mark, a word is a token that begins one with a small letter.

Caches hold them and detectors learn by them: who changes what a token is raises `features.metrics.METRIC_VERSION`.
"""

WORD_EDGES = (700, 2500, 8000)
"""Numbers of tokens between frequent, common, uncommon and rare words: what BPE learns first is most frequent."""

ENDS = {*".!?", *(end + closing for end in ".!?" for closing in "\"'\u201d\u2019)")}
"""Tokens that end a sentence."""

_BYTE_LEVEL_SPACE = "Ġ"
_SPACES = (_BYTE_LEVEL_SPACE, "▁", " ")
_WITHIN = "##"
"""How a token says that a space comes before it (byte-level BPE; SentencePiece; as it is) or none (WordPiece)."""


def token_kinds(tokenizer: Tokenizer) -> np.ndarray:
    """The kind of each token of a vocabulary: (vocab,) uint8, numbers of `TOKEN_KINDS`.

    What the tokenizer has no token for, a number below its highest that was left out, is an "other mark".
    """
    vocabulary = tokenizer.get_vocab()
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        tokens[number] = token
    begins, texts = _spelt(tokens)
    kinds = [_kind(number, text, begin) for number, (text, begin) in enumerate(zip(texts, begins, strict=True))]
    return np.array(kinds, dtype=np.uint8)


def _kind(number: int, text: str, begins: bool) -> int:
    if text == ",":
        name = "comma"
    elif text in ENDS:
        name = "end of sentence"
    elif not any(character.isalpha() for character in text):
        name = "other mark"
    elif not begins:
        name = "part of a word"
    elif text[0].isupper():
        name = "capitalised word"
    else:
        name = TOKEN_KINDS[TOKEN_KINDS.index("frequent word") + sum(number >= edge for edge in WORD_EDGES)]
    return TOKEN_KINDS.index(name)


def _spelt(tokens: Sequence[str]) -> tuple[list[bool], list[str]]:
    """Of each token whether it begins a word, and its text without the space before it."""
    spaced = {space: sum(token.startswith(space) for token in tokens) for space in _SPACES}
    space = max(spaced, key=lambda mark: spaced[mark])  # by majority: a letter of some languages is one of these
    if not spaced[space]:
        return [not token.startswith(_WITHIN) for token in tokens], [token.removeprefix(_WITHIN) for token in tokens]
    decoder = ByteLevel()
    spelt = [decoder.decode([token]) if space == _BYTE_LEVEL_SPACE else token.replace(space, " ") for token in tokens]
    return [text.startswith(" ") for text in spelt], [text.strip() for text in spelt]
