"""What the language model leaves of one document."""

from dataclasses import dataclass

import numpy as np

METRIC_NAMES = ("log_prob", "entropy", "max_log_prob", "log_rank", "top_p", "log_prob_variance")
"""The metrics of each next-token distribution, in the order of `TokenFeatures.metrics`' last axis."""

CROSS_METRIC_NAMES = ("cross_entropy", "cross_variance")
"""The metrics of two models' distributions, in the order of `TokenFeatures.cross`' last axis."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenFeatures:
    """One document's features: n tokens, d hidden dimensions, k metrics.

    Where hidden states of several layers were asked for, they lie side by side in `hidden`, the lowest layer first,
    and d is their number times the size of one.

    Position i of `metrics` describes the prediction of token i + 1 from the tokens up to i, so there is one
    row less than there are tokens.
    """

    key: str  # text_key of the document
    token_ids: np.ndarray  # (n,) int32
    kinds: np.ndarray  # (n,) uint8: what each token is, by `features.token_kinds.TOKEN_KINDS`
    offsets: np.ndarray  # (n, 2) int32: characters [start, end) of the canonical text
    metrics: np.ndarray  # (n - 1, k) float32, natural log
    hidden: np.ndarray  # (n, d) float16: last hidden state, as the vocabulary projection reads it, or several layers'
    truncated: bool  # the text went on after these tokens
    cross: np.ndarray | None = None  # (n - 1, 2) float32, with an observer: CROSS_METRIC_NAMES, natural log

    @property
    def n_tokens(self) -> int:
        """How many tokens were read."""
        return len(self.token_ids)

    def prefix(self, n_tokens: int) -> "TokenFeatures":
        """The features of the first `n_tokens` tokens, as a causal model would have given them alone."""
        if not 2 <= n_tokens <= self.n_tokens:
            raise ValueError(f"expected a prefix of 2 to {self.n_tokens} tokens, got {n_tokens}")
        return TokenFeatures(
            key=self.key,
            token_ids=self.token_ids[:n_tokens],
            kinds=self.kinds[:n_tokens],
            offsets=self.offsets[:n_tokens],
            metrics=self.metrics[: n_tokens - 1],
            hidden=self.hidden[:n_tokens],
            truncated=self.truncated or n_tokens < self.n_tokens,
            cross=None if self.cross is None else self.cross[: n_tokens - 1],
        )
