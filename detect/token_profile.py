"""How the metrics of a text depend on which tokens came: their kind, how common they are, whether they came before.

Where a language model is sure and where it is surprised goes by the kind of token as much as by who wrote it: rare
words cost more than parts of words. What is here is what one kind costs in a text *less what all of its tokens cost*,
so that neither the level nor the mix of a domain is learnt, and how the costs go with how common a token is and with
whether the text has used it before.
"""

import numpy as np

from detect.metric_profile import FEWEST_TOKENS, Track
from detect.sequence_statistics import correlations, deviations, paired_correlations
from features.token_features import TokenFeatures
from features.token_kinds import TOKEN_KINDS

COMMON_OFFSET = 300
"""Added to a token's number before its logarithm says how rare it is: of byte-level BPE the first few hundred are
single bytes. Other vocabularies may have these last, as SentencePiece's BPE does; there marks count as rare."""

GROUPS = (*TOKEN_KINDS, "new token", "token seen before", "token after an end of sentence")
_END = TOKEN_KINDS.index("end of sentence")
_KINDS = np.arange(len(TOKEN_KINDS), dtype=np.uint8)[:, None]
_PAIRS = ((0, 4), (1, 4), (2, 4), (3, 4), (0, 5), (2, 6), (1, 6))
"""Rows that are related: surprisal, entropy, normalised surprisal, place, rarity, share new so far, new."""

TOKEN_COLUMNS = (
    *(f"{name} of each {group} less the whole" for name in ("surprisal", "entropy") for group in GROUPS),
    *(f"correlation of {name} and rarity" for name in ("surprisal", "entropy", "normalised", "place")),
    "correlation of surprisal step and rarity step",
    "rarity std",
    "correlation of surprisal and share new so far",
    "correlation of normalised and new",
    "correlation of entropy and new",
)
"""What `token_profile` gives, in order. Surprisal and entropy in nats; rarity is the log of the token's number, which
byte-pair encoding gives in the order learnt, from frequent to rare."""


def token_profile(document: TokenFeatures) -> np.ndarray:
    """`TOKEN_COLUMNS` of a document: (columns,) float64; 0 of what a text has too little of.

    A token is new where its number has not come before in the text.
    """
    ids, kinds = document.token_ids, document.kinds
    track = Track.of(document)
    first = np.zeros(len(ids), dtype=bool)
    first[np.unique(ids, return_index=True)[1]] = True
    new = first[1:]
    groups = np.concatenate([kinds[1:] == _KINDS, [new, ~new, kinds[:-1] == _END]])
    place = np.arange(len(new), dtype=np.float64)
    rarity, share_new = np.log(ids[1:] + float(COMMON_OFFSET)), np.cumsum(new) / (place + 1)
    rows = np.stack([track.surprisal, track.entropy, track.normalised, place, rarity, share_new, new])
    related = paired_correlations(rows, _PAIRS)
    steps = correlations(*np.diff(rows[[0, 4]])[:, None])
    return np.concatenate(
        [_less_the_whole(rows[:2], groups).ravel(), related[:4], steps, deviations(rarity[None]), related[4:]]
    )


def _less_the_whole(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means of each row (k, n) over each group (g, n) of columns, less the row's mean: (k, g)."""
    counts = groups.sum(1)
    means = values @ groups.T.astype(np.float64) / np.maximum(counts, 1)
    return np.where(counts >= FEWEST_TOKENS, means - values.mean(1, keepdims=True), 0.0)
