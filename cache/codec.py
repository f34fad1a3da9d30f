"""Hidden states to bytes and back. A codec is chosen by name and named in the shard's metadata."""

from typing import Protocol

import numpy as np

from features.errors import CacheError


class Codec(Protocol):
    """Turns (n, d) hidden states into bytes and back."""

    name: str

    def encode(self, hidden: np.ndarray) -> bytes:
        """(n, d) float16 -> bytes."""

    def decode(self, data: memoryview, hidden_size: int) -> np.ndarray:
        """Bytes -> (n, d) float16; may be a read-only view of `data`."""


class Float16:
    """Raw little-endian float16, row by row: 2 d bytes a token, decoded without a copy."""

    name = "float16"

    def encode(self, hidden: np.ndarray) -> bytes:
        """(n, d) float16 -> 2 n d bytes."""
        return np.ascontiguousarray(hidden, dtype="<f2").tobytes()

    def decode(self, data: memoryview, hidden_size: int) -> np.ndarray:
        """2 n d bytes -> (n, d) float16 view."""
        return np.frombuffer(data, dtype="<f2").reshape(-1, hidden_size)


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float16(),)}


def codec_named(name: str) -> Codec:
    """The codec of that name.

    Raises:
        CacheError: when there is none.
    """
    if name not in CODECS:
        raise CacheError(f"unknown hidden-state codec {name!r}; this version knows {', '.join(sorted(CODECS))}")
    return CODECS[name]
