"""What a causal language model makes of the words of a text: how probable each is, and what else could stand there."""

from dataclasses import dataclass

import numpy as np
import torch

from detect.adversarial.words import words_of
from features.backbone import Backbone, Encoding
from features.documents import canonical_text
from features.extractor import Extractor

MAX_TOKENS = 1024
"""How much of a text is read; words behind that are not judged."""


@dataclass(frozen=True)
class WordReading:
    """A text as the language model read it.

    Attributes:
        log_probs: (words,) natural log of each word's probability after the text before it, summed over its tokens;
            NaN where the model does not say: the text's first token, and words behind `MAX_TOKENS`.
        first_tokens: (words,) place of each word's first token among the text's; -1 behind `MAX_TOKENS`.
        hidden: (tokens, hidden) last hidden states.
    """

    log_probs: np.ndarray
    first_tokens: np.ndarray
    hidden: np.ndarray


def read_words(backbone: Backbone, text: str) -> WordReading:
    """The words of a text (`words_of`) under the language model, one text at a time so that company moves no number.

    Args:
        backbone: the language model.
        text: as it is; the model reads its canonical form.
    """
    limit = min(MAX_TOKENS, backbone.max_positions or MAX_TOKENS)
    (encoding,) = backbone.encode([text], limit)
    log_probs = np.full(len(encoding.token_ids), np.nan)
    hidden = np.empty((0, backbone.hidden_size), np.float16)
    if len(encoding.token_ids) > 1:
        (features,) = Extractor(backbone, max_length=limit).extract([""], [encoding])
        log_probs[1:] = features.metrics[:, 0]
        hidden = features.hidden
    canonical = words_of(canonical_text(text))  # which holds the same words in the same order
    spans = [_tokens(encoding, word.start, word.end) for word in canonical]
    return WordReading(
        log_probs=np.array([log_probs[first:last].sum() if first >= 0 else np.nan for first, last in spans]),
        first_tokens=np.array([first for first, _ in spans], dtype=np.int64),
        hidden=hidden,
    )


def _tokens(encoding: Encoding, start: int, end: int) -> tuple[int, int]:
    """The tokens [first, last) that hold characters [start, end); (-1, -1) where not all of them were read."""
    starts, ends = encoding.offsets[:, 0], encoding.offsets[:, 1]
    if not len(ends) or ends[-1] < end:
        return -1, -1
    return int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(starts, end, side="left"))


@torch.inference_mode()
def next_log_probs(backbone: Backbone, hidden: np.ndarray) -> torch.Tensor:
    """Log-probabilities of every token after some last hidden states: (rows, hidden) -> (rows, vocab) float32."""
    states = torch.from_numpy(np.ascontiguousarray(hidden)).to(backbone.device, backbone.dtype)
    return backbone.logits(states).float().log_softmax(-1)
