"""A fitted codec: hidden states as coarse coordinates along their principal components.

States are projected onto the components in which they vary most, and each coordinate, scaled to deviation 1, is
rounded to one of the 16, 4 or 2 numbers that represent a normal variable best: the more it varies, the more bits it
gets. Few bits for many components serve a detector better than many bits for few: what it reads are sums over
components and tokens, in which rounding averages out and a component that was left out does not come back.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from features.errors import CacheError
from features.extractor import HALF_MAX
from features.whole_files import whole_file

BASIS_FILE = "basis.safetensors"
"""What a fitted codec is called in the folder of a cache or of a detector."""

PREFIX = "pca"
"""How the names of fitted codecs begin."""

SHARES = {4: 1 / 12, 2: 1 / 6, 1: 4 / 9}
"""Bits of a coordinate -> how many of the dimensions get so many: 48, 96 and 256 of 576, 80 bytes in all."""

_HALVES = {
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326],
    2: [0.4528, 1.5104],
    1: [0.7979],
}
LEVELS = {bits: np.array([-x for x in reversed(half)] + half, np.float16) for bits, half in _HALVES.items()}
"""Bits -> the levels of least squared error for a standard normal variable (Max 1960, table I)."""

_EDGES = {bits: (levels[1:].astype(np.float32) + levels[:-1]) / 2 for bits, levels in LEVELS.items()}
_TABLES = {
    bits: levels[np.arange(256)[:, None] >> np.arange(0, 8, bits) & (1 << bits) - 1].astype(np.float32)
    for bits, levels in LEVELS.items()
}
"""Bits -> (256, 8 / bits): the coordinates that each byte stands for, so that decoding is one lookup a byte."""

VARIANCE_FLOOR = 1e-6
"""A component that varies less than this is a constant: dividing by less would leave float16."""


def allocation(hidden_size: int) -> dict[int, int]:
    """Bits -> how many coordinates get so many, whole bytes of each."""
    return {bits: max(8, round(hidden_size * share / 8) * 8) for bits, share in SHARES.items()}


@dataclass(frozen=True, eq=False)
class Projection:
    """Coarse coordinates of (h - mean) @ directions.

    Attributes:
        mean: (d,) float16, subtracted.
        directions: (d, r) float16, those of most variance first, r of `allocation(d)`: gives coordinates of
            deviation 1 where it was fitted.
    """

    mean: np.ndarray
    directions: np.ndarray

    def __post_init__(self) -> None:
        """Raises ValueError when the arrays do not make a codec."""
        expected = (len(self.mean), sum(allocation(len(self.mean)).values()))
        if self.mean.ndim != 1 or self.directions.shape != expected:
            raise ValueError(f"expected mean (d,) and directions {expected}, got {self.directions.shape}")
        if self.mean.dtype != np.float16 or self.directions.dtype != np.float16:
            raise ValueError(f"expected float16, got {self.mean.dtype} and {self.directions.dtype}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.directions).all()):
            raise ValueError("expected finite numbers")

    @cached_property
    def name(self) -> str:
        """Bytes a token and the first 8 hex digits of a hash of the numbers: pca80-0123abcd."""
        digest = hashlib.blake2b(self.mean.tobytes() + self.directions.tobytes(), digest_size=4).hexdigest()
        return f"{PREFIX}{self.bytes_per_token}-{digest}"

    @property
    def bytes_per_token(self) -> int:
        """Of an encoded state."""
        return sum(bits * count for bits, count in self._allocation.items()) // 8

    def encode(self, hidden: np.ndarray) -> bytes:
        """(n, d) float16 -> n x `bytes_per_token` bytes: the coordinates of 4 bits, of 2, of 1; the first lowest."""
        self._check(hidden.shape[1])
        coordinates = (hidden.astype(np.float32) - self.mean) @ self.directions.astype(np.float32)  # (n, r)
        packed, start = [], 0
        for bits, count in self._allocation.items():
            levels = np.searchsorted(_EDGES[bits], coordinates[:, start : start + count]).astype(np.uint8)
            shifted = levels.reshape(len(levels), -1, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint8)
            packed.append(np.bitwise_or.reduce(shifted, axis=-1))  # (n, bytes)
            start += count
        return np.concatenate(packed, axis=1).tobytes()

    def decode(self, data: memoryview, hidden_size: int) -> np.ndarray:
        """N x `bytes_per_token` bytes -> (n, d) float16: the state of each token's coordinates, each of `LEVELS`."""
        self._check(hidden_size)
        rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, self.bytes_per_token)
        coordinates, byte = [], 0
        for bits, count in self._allocation.items():
            block = rows[:, byte : byte + bits * count // 8]
            coordinates.append(_TABLES[bits].take(block, axis=0).reshape(len(rows), count))
            byte += bits * count // 8
        joined = torch.from_numpy(np.concatenate(coordinates, axis=1))  # (n, r)
        # By torch: it converts to float16 ten times as fast as numpy.
        mean, back = self._back
        states = torch.addmm(mean, joined, back).clamp_(-HALF_MAX, HALF_MAX)
        return states.half().numpy()

    def save(self, path: Path) -> None:
        """Write the arrays as safetensors, which takes memory as it lies.

        Raises:
            OSError: when the disk refuses.
        """
        arrays = {"mean": self.mean, "directions": self.directions}
        # Not its save_file: that makes files which only their owner reads, in caches that many may.
        with whole_file(path) as file:
            file.write(safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))

    @classmethod
    def load(cls, path: Path) -> "Projection":
        """Read what `save` wrote.

        Raises:
            CacheError: when the file is not that.
        """
        try:
            arrays = safetensors.numpy.load_file(path)
            return cls(arrays["mean"], arrays["directions"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CacheError(
                f"{path} holds no fitted codec ({error}); expected a file of 'pawn cache fit-codec'"
            ) from error

    @cached_property
    def _allocation(self) -> dict[int, int]:
        return allocation(len(self.mean))

    @cached_property
    def _back(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean (d,), and the orthogonal directions with the deviations that `directions` divided by, (r, d)."""
        directions = self.directions.astype(np.float32)
        back = np.ascontiguousarray((directions / np.square(directions).sum(0)).T)
        return torch.from_numpy(self.mean.astype(np.float32)), torch.from_numpy(back)

    def _check(self, hidden_size: int) -> None:
        """Raises CacheError for states of another size than it was fitted to."""
        if hidden_size != len(self.mean):
            raise CacheError(
                f"codec {self.name} was fitted to hidden states of {len(self.mean)} dimensions, these have "
                f"{hidden_size}; fit one for this backbone with 'pawn cache fit-codec', or use --codec int8"
            )


class ProjectionFit:
    """Gathers the second moments of hidden states, then gives the projection that fits them best.

    Memory: d x d float64, whatever the number of states.
    """

    def __init__(self, hidden_size: int) -> None:
        self._count = 0
        self._sum = np.zeros(hidden_size)
        self._products = np.zeros((hidden_size, hidden_size))

    def add(self, hidden: np.ndarray) -> None:
        """Count (n, d) states in."""
        exact = hidden.astype(np.float32)
        self._count += len(exact)
        self._sum += exact.sum(0, dtype=np.float64)
        self._products += exact.T @ exact

    def projection(self) -> Projection:
        """The projection onto the leading principal components.

        Raises:
            ValueError: when the states are too small, or fewer than 8 d.
        """
        size = len(self._sum)
        rank = sum(allocation(size).values())
        if rank > size:
            raise ValueError(f"hidden states of {size} dimensions are too small for this codec; use int8")
        if self._count < 8 * size:
            raise ValueError(f"{self._count} states are too few to fit {size} dimensions; give at least {8 * size}")
        mean = self._sum / self._count
        variances, vectors = np.linalg.eigh(self._products / self._count - np.outer(mean, mean))
        leading = np.argsort(-variances)[:rank]
        directions = vectors[:, leading] / np.sqrt(np.maximum(variances[leading], VARIANCE_FLOOR))
        return Projection(mean.astype(np.float16), directions.astype(np.float16))
