"""Made-up features and stores of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.store import FeatureStore
from features.backbone import Fingerprint
from features.token_features import TokenFeatures

HIDDEN_SIZE = 5
FINGERPRINT = Fingerprint(weights_id="weights", tokenizer_id="tokenizer", dtype="float32", max_length=64)


def made_up(number: int, n_tokens: int) -> TokenFeatures:
    """Features that no other number and length give; the number is their token ids and their key."""
    rng = np.random.default_rng(number)
    starts = np.arange(n_tokens, dtype=np.int32) * 3
    return TokenFeatures(
        key=f"{number:032x}",
        token_ids=np.full(n_tokens, number, dtype=np.int32),
        kinds=((number + np.arange(n_tokens)) % 9).astype(np.uint8),
        offsets=np.stack([starts, starts + 2], axis=-1),
        metrics=rng.normal(size=(n_tokens - 1, 6)).astype(np.float32),
        hidden=rng.normal(size=(n_tokens, HIDDEN_SIZE)).astype(np.float16),
        truncated=number % 3 == 0,
    )


def documents(count: int, *, first: int = 0) -> list[TokenFeatures]:
    """Made-up documents of 2 to 12 tokens."""
    return [made_up(number, 2 + number * 7 % 11) for number in range(first, first + count)]


def same(one: TokenFeatures, other: TokenFeatures) -> bool:
    """Whether two documents' features are equal in every bit, shape and type."""
    arrays = [
        (getattr(one, name), getattr(other, name)) for name in ("token_ids", "kinds", "offsets", "metrics", "hidden")
    ]
    return (one.key, one.truncated) == (other.key, other.truncated) and all(
        (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes()) for a, b in arrays
    )


def filled(root: Path, *shards: Sequence[TokenFeatures]) -> FeatureStore:
    """A store with one shard for each group of documents."""
    store = FeatureStore(root, FINGERPRINT)
    for shard in shards:
        store.write(shard)
    return store


def flip(path: Path, position: int, mask: int = 0xFF) -> None:
    """Change the bits of `mask` in one byte of a file; a negative position counts from the end."""
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(bytes(data))
