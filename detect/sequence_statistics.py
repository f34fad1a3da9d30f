"""Statistics of sequences of numbers, float64, a sequence a row; one that a row is too short or too even for is 0.

Texts have a few hundred tokens, so that calls cost more than numbers: many rows are told at once.
"""

from collections.abc import Sequence

import numpy as np

MOMENTS = ("mean", "std", "skewness", "kurtosis")
EVEN = 64 * float(np.finfo(np.float64).eps)
"""Standard deviation, as a share of the mean, up to which numbers differ as rounding lets equal ones differ."""


def moments(rows: np.ndarray) -> np.ndarray:
    """`MOMENTS` of rows (..., n), each a whole population; kurtosis is the excess over the normal's 3: (..., 4)."""
    count = rows.shape[-1]
    if not count:
        return np.zeros((*rows.shape[:-1], 4))
    centred, mean, variance = _spread(rows)
    square = centred * centred  # products: a power costs thirty times as much
    known = variance > 0
    scale = np.where(known, variance, 1.0)
    skewness = (square * centred).sum(-1) / count / (scale * np.sqrt(scale))
    kurtosis = (square * square).sum(-1) / count / np.square(scale) - 3
    return np.stack([mean, np.sqrt(variance), skewness * known, kurtosis * known], axis=-1)


def deviations(rows: np.ndarray) -> np.ndarray:
    """Standard deviation of each row (..., n), n at least 1, each a whole population: (...)."""
    return np.sqrt(_spread(rows)[2])


def correlations(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row (k, n) with the row of the same number: (k,)."""
    if ones.shape[1] < 2:
        return np.zeros(len(ones))
    (first, _, own), (second, _, its) = _spread(ones), _spread(others)
    return _over(np.einsum("kn,kn->k", first, second) / ones.shape[1], np.sqrt(own * its))


def paired_correlations(rows: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Pearson correlation of rows (k, n) by pairs of their numbers: (pairs,)."""
    if rows.shape[1] < 2:
        return np.zeros(len(pairs))
    centred, _, variance = _spread(rows)
    ones, others = np.array(pairs).T
    covariances = (centred @ centred.T)[ones, others] / rows.shape[1]
    return _over(covariances, np.sqrt(variance[ones] * variance[others]))


def autocorrelations(rows: np.ndarray, lag: int) -> np.ndarray:
    """Pearson correlation of each row (k, n) with itself `lag` places on: (k,)."""
    return correlations(rows[:, :-lag], rows[:, lag:]) if rows.shape[1] > lag + 1 else np.zeros(len(rows))


def autocorrelation(values: np.ndarray, lag: int) -> float:
    """Pearson correlation of a sequence with itself `lag` places on."""
    return float(autocorrelations(values[None], lag)[0])


def running_sums(rows: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ..., n numbers of each row (k, n): (k, n + 1)."""
    sums = np.zeros((len(rows), rows.shape[1] + 1))
    np.cumsum(rows, axis=1, out=sums[:, 1:])
    return sums


def window_means(rows: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` neighbours of each row (k, n): (k, n - width + 1); of all of a shorter one, (k, 1)."""
    width = min(width, rows.shape[1])
    sums = running_sums(rows)
    return (sums[:, width:] - sums[:, :-width]) / width


def sorted_quantiles(ordered: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Quantiles of rows (k, n) in ascending order, n at least 1, numpy's `linear` ones: (k, shares)."""
    places = np.array(shares) * (ordered.shape[1] - 1)
    below = places.astype(np.intp)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    return ordered[:, below] + (places - below) * (ordered[:, above] - ordered[:, below])


def gini(ordered: np.ndarray) -> np.ndarray:
    """Gini coefficient of rows (k, n) of numbers of 0 and above in ascending order: (k,).

    It is 0 where all are alike, near 1 where one of many has everything.
    """
    count = ordered.shape[1]
    return _over(ordered @ (2.0 * np.arange(1, count + 1) - count - 1), count * ordered.sum(1))


def spectral_shares(rows: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Shares of each row's variance (k, n) at frequencies between neighbours of `edges`: (k, len(edges) - 1).

    Frequencies are in cycles a number; a share is from its lower edge on and below the upper one. A row has a number at
    least.
    """
    centred, _, variance = _spread(rows)
    power = np.square(np.abs(np.fft.rfft(centred)[:, 1:]))
    if rows.shape[1] % 2 == 0:
        power[:, -1] /= 2  # every other frequency stands for two of the sum's terms
    frequencies = np.arange(1, power.shape[1] + 1) / rows.shape[1]
    below = running_sums(power)
    shares = np.diff(below[:, np.searchsorted(frequencies, edges)], axis=1)
    return _over(shares, below[:, -1:] * (variance > 0)[:, None])


def _spread(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (..., n) less their means, the means, and the variances, which are 0 where numbers are `EVEN`."""
    count = rows.shape[-1]
    mean = rows.sum(-1) / count  # sums: numpy's means and deviations spend their time in Python
    centred = rows - mean[..., None]
    variance = np.einsum("...n,...n->...", centred, centred) / count
    return centred, mean, np.where(variance > np.square(EVEN * mean), variance, 0.0)


def _over(shares: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotients, 0 where there is nothing to divide by."""
    return np.divide(shares, whole, out=np.zeros_like(shares), where=whole > 0)
