"""A small labelled corpus on disk that a detector can learn, and documents of it in memory."""

from pathlib import Path

import numpy as np

from cache.loader import CachedCorpus, LabelledCorpus
from cache.store import FeatureStore
from features.token_features import METRIC_NAMES, TokenFeatures
from features.token_kinds import TOKEN_KINDS
from tests.cache.feature_makers import FINGERPRINT, HIDDEN_SIZE

BACKBONE = {"hidden_size": HIDDEN_SIZE}


def document(number: int, label: int, n_tokens: int | None = None) -> TokenFeatures:
    """Machine documents are likelier, and their hidden states lie elsewhere; both with much noise."""
    rng, tokens = np.random.default_rng(number), np.random.default_rng([number, 1])
    n = n_tokens or int(rng.integers(12, 40))
    surprisal = rng.gamma(1.0, 3.0 - label, size=n - 1)
    metrics = np.zeros((n - 1, len(METRIC_NAMES)), dtype=np.float32)
    values = {
        "log_prob": -surprisal,
        "entropy": rng.gamma(2.0, 1.5, size=n - 1),
        "max_log_prob": -rng.gamma(1.0, 0.5, size=n - 1),
        "log_rank": np.log(np.floor(np.exp(surprisal)).clip(1, 49_152)),
        "top_p": rng.uniform(size=n - 1),
        "log_prob_variance": rng.gamma(2.0, 1.0, size=n - 1),
    }
    for column, name in enumerate(METRIC_NAMES):
        metrics[:, column] = values[name]
    return TokenFeatures(
        key=f"{number:032x}",
        token_ids=tokens.integers(0, 10_000, size=n, dtype=np.int32),
        kinds=tokens.integers(0, len(TOKEN_KINDS), size=n, dtype=np.uint8),
        offsets=np.stack([np.arange(n) * 2, np.arange(n) * 2 + 1], axis=-1).astype(np.int32),
        metrics=metrics,
        hidden=(rng.normal(size=(n, HIDDEN_SIZE)) + 0.3 * label).astype(np.float16),
        truncated=False,
    )


def labelled(root: Path, count: int = 240, first: int = 0) -> LabelledCorpus:
    """Documents of both classes in turn, in a store of their own."""
    store = FeatureStore(root, FINGERPRINT)
    labels = np.arange(count) % 2
    documents = [document(first + number, int(label)) for number, label in enumerate(labels)]
    store.write(documents)
    return LabelledCorpus(CachedCorpus(store, [item.key for item in documents]), labels)
