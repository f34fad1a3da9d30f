"""Which words a language model takes for alike: those whose rows of its vocabulary projection point the same way."""

import re

import torch
from torch import Tensor, nn

from features.backbone import Backbone

_SPACED = re.compile(r"[Ġ▁]([a-z]{3,})")
"""Tokens that are whole lower-case words after a space, as byte-level and SentencePiece vocabularies mark it."""


NEAREST = 24
"""Neighbours of each word."""

BLOCK = 256
"""Words whose neighbours are found in one matrix product: the same ones always, so that company moves no number."""


class Neighbours:
    """Nearest words by the cosine of their token vectors, among the words that are one token.

    The vectors are the rows of the vocabulary projection, which many models share with their input embeddings. They are
    asked for by projecting unit vectors, so that any backbone has them.
    """

    def __init__(self, backbone: Backbone) -> None:
        vocabulary = backbone.tokenizer.get_vocab()
        # In the order of the vocabulary, where common words are close together: few blocks are ever asked for.
        found = sorted((index, match[1]) for token, index in vocabulary.items() if (match := _SPACED.fullmatch(token)))
        self.words = [word for _, word in found]
        self._places = {word: place for place, word in enumerate(self.words)}
        self._vectors = _token_vectors(backbone, [index for index, _ in found])  # (words, hidden)
        self._blocks: dict[int, list[list[tuple[str, float]]]] = {}

    def of(self, word: str) -> list[tuple[str, float]]:
        """The nearest other words of a lower-case word with their cosines, nearest first; none if unknown."""
        place = self._places.get(word)
        if place is None:
            return []
        block, row = divmod(place, BLOCK)
        if block not in self._blocks:
            self._blocks[block] = self._nearest(block * BLOCK)
        return self._blocks[block][row]

    def _nearest(self, start: int) -> list[list[tuple[str, float]]]:
        rows = self._vectors[start : start + BLOCK]
        cosines = rows @ self._vectors.T  # (<= BLOCK, words)
        cosines[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -torch.inf
        best, places = cosines.topk(min(NEAREST, len(self.words) - 1))
        return [
            [(self.words[place], cosine) for place, cosine in zip(near, values, strict=True)]
            for near, values in zip(places.tolist(), best.tolist(), strict=True)
        ]


@torch.inference_mode()
def _token_vectors(backbone: Backbone, token_ids: list[int]) -> Tensor:
    """Unit rows of the vocabulary projection, (tokens, hidden) float32 on the processor."""
    unit = torch.eye(backbone.hidden_size, dtype=backbone.dtype, device=backbone.device)
    ids = torch.tensor(token_ids, dtype=torch.long, device=backbone.device)
    bias = backbone.logits(torch.zeros_like(unit[:1]))[:, ids].float()  # (1, tokens)
    columns = [backbone.logits(rows)[:, ids].float() - bias for rows in unit.split(64)]
    return nn.functional.normalize(torch.cat(columns).T, dim=-1).cpu().contiguous()
