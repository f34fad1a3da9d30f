"""Hidden states to bytes and back. A codec is chosen by name and named in the shard's metadata.

`float16` is what the language model gave. `int8` and `int4` keep every dimension in 8 or 4 bits with a scale for
each token. The fitted codecs of `cache/projection.py` keep 1 to 4 bits of each principal component.
"""

from typing import Protocol

import numpy as np

from features.extractor import HALF_MAX

_HALF = np.dtype("<f2")


class Codec(Protocol):
    """Turns (n, d) hidden states into bytes and back, more or less."""

    @property
    def name(self) -> str:
        """What shards, folders and detectors call it; two codecs of one name give the same numbers."""

    def encode(self, hidden: np.ndarray) -> bytes:
        """(n, d) float16 -> bytes; one token's bytes depend on its own state only."""

    def decode(self, data: memoryview, hidden_size: int) -> np.ndarray:
        """Bytes -> (n, d) float16; may be a read-only view of `data`."""


class Float16:
    """Raw little-endian float16, row by row: 2 d bytes a token, decoded without a copy."""

    name = "float16"

    def encode(self, hidden: np.ndarray) -> bytes:
        """(n, d) float16 -> 2 n d bytes."""
        return np.ascontiguousarray(hidden, dtype=_HALF).tobytes()

    def decode(self, data: memoryview, hidden_size: int) -> np.ndarray:
        """2 n d bytes -> (n, d) float16 view."""
        return np.frombuffer(data, dtype=_HALF).reshape(-1, hidden_size)


class ScaledIntegers:
    """Signed integers of 8 or 4 bits with a float16 scale for each token: 2 + d or 2 + d / 2 bytes a token.

    Layout of a token: the scale, then the integers; at 4 bits two in a byte, the first in the low half, each with
    8 added. A token's largest number sets its scale, so nothing is clipped.
    """

    def __init__(self, bits: int) -> None:
        """Raises ValueError for anything but 4 or 8."""
        if bits not in (4, 8):
            raise ValueError(f"expected 4 or 8 bits, got {bits}")
        self.bits = bits
        self.name = f"int{bits}"
        self._largest = 2 ** (bits - 1) - 1

    def encode(self, hidden: np.ndarray) -> bytes:
        """(n, d) float16 -> n x (2 + d bits / 8) bytes."""
        exact = hidden.astype(np.float32)
        # A scale of 0 would divide; one rounded down to float16 could clip: the next float16 up does neither.
        scale = np.nextafter((np.abs(exact).max(1, initial=0) / self._largest).astype(_HALF), _HALF.type(np.inf))
        levels = np.rint(exact / scale[:, None].astype(np.float32)).astype(np.int8)  # (n, d)
        packed = levels.view(np.uint8) if self.bits == 8 else _pack_nibbles((levels + 8).view(np.uint8))
        return np.concatenate([scale[:, None].view(np.uint8), packed], axis=1).tobytes()

    def decode(self, data: memoryview, hidden_size: int) -> np.ndarray:
        """N x (2 + d bits / 8) bytes -> (n, d) float16."""
        columns = hidden_size if self.bits == 8 else -(-hidden_size // 2)
        rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, 2 + columns)
        scale = rows[:, :2].copy().view(_HALF).astype(np.float32)  # (n, 1)
        if self.bits == 8:
            levels = rows[:, 2:].view(np.int8).astype(np.float32)
        else:
            levels = _NIBBLES[rows[:, 2:]].reshape(len(rows), 2 * columns)[:, :hidden_size]
        return np.clip(levels * scale, -HALF_MAX, HALF_MAX).astype(_HALF)


def _pack_nibbles(levels: np.ndarray) -> np.ndarray:
    """(n, d) uint8 below 16 -> (n, ceil(d / 2)): two in a byte, the first in the low half."""
    if levels.shape[1] % 2:
        levels = np.pad(levels, ((0, 0), (0, 1)))
    return levels[:, ::2] | (levels[:, 1::2] << 4)


_NIBBLES = np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=1).astype(np.float32) - 8
"""Byte -> the two numbers that its halves stand for."""

PLAIN_CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float16(), ScaledIntegers(8), ScaledIntegers(4))}
"""The codecs that need nothing but their name."""

FLOAT16 = PLAIN_CODECS["float16"]
