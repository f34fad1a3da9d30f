"""Which words a language model takes for alike: those whose rows of its vocabulary projection point the same way."""

import re

import torch
from torch import Tensor, nn

from features.backbone import Backbone

_SPACED = re.compile(r"[Ġ▁]([a-z]{3,})")
"""Tokens that are whole lower-case words after a space, as byte-level and SentencePiece vocabularies mark it."""


class Neighbours:
    """Nearest words by the cosine of their token vectors, among the words that are one token.

    The vectors are the rows of the vocabulary projection, which many models share with their input embeddings. They are
    asked for by projecting unit vectors, so that any backbone has them.
    """

    def __init__(self, backbone: Backbone) -> None:
        vocabulary = backbone.tokenizer.get_vocab()
        found = sorted((match[1], index) for token, index in vocabulary.items() if (match := _SPACED.fullmatch(token)))
        self.words = [word for word, _ in found]
        self._places = {word: place for place, word in enumerate(self.words)}
        self._vectors = _token_vectors(backbone, [index for _, index in found])  # (words, hidden)
        self._known: dict[tuple[str, int], list[tuple[str, float]]] = {}

    def of(self, word: str, count: int) -> list[tuple[str, float]]:
        """The `count` nearest other words of a lower-case word with their cosines, nearest first; none if unknown."""
        place = self._places.get(word)
        if place is None:
            return []
        if (word, count) not in self._known:
            cosines = self._vectors @ self._vectors[place]
            cosines[place] = -torch.inf
            best, places = cosines.topk(min(count, len(self.words) - 1))
            near = [self.words[at] for at in places.tolist()]
            self._known[word, count] = list(zip(near, best.tolist(), strict=True))
        return self._known[word, count]


@torch.inference_mode()
def _token_vectors(backbone: Backbone, token_ids: list[int]) -> Tensor:
    """Unit rows of the vocabulary projection, (tokens, hidden) float32 on the processor."""
    unit = torch.eye(backbone.hidden_size, dtype=backbone.dtype, device=backbone.device)
    ids = torch.tensor(token_ids, dtype=torch.long, device=backbone.device)
    bias = backbone.logits(torch.zeros_like(unit[:1]))[:, ids].float()  # (1, tokens)
    columns = [backbone.logits(rows)[:, ids].float() - bias for rows in unit.split(64)]
    return nn.functional.normalize(torch.cat(columns).T, dim=-1).cpu().contiguous()
