"""Statistics of a sequence of numbers, float64; one that the sequence is too short or too even for is 0."""

import numpy as np

MOMENTS = ("mean", "std", "skewness", "kurtosis")


def moments(values: np.ndarray) -> np.ndarray:
    """`MOMENTS` of numbers taken as the whole population, kurtosis as its excess over the normal's 3: (4,)."""
    if not len(values):
        return np.zeros(4)
    mean = values.mean()
    centred = values - mean
    variance = np.square(centred).mean()
    if _even(values[None])[0]:
        return np.array([mean, 0.0, 0.0, 0.0])
    standard = centred / np.sqrt(variance)
    square = standard * standard  # products: a power costs thirty times as much
    return np.array([mean, np.sqrt(variance), (square * standard).mean(), (square * square).mean() - 3])


def correlations(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row (k, n) with the row of the same number: (k,)."""
    if ones.shape[1] < 2:
        return np.zeros(len(ones))
    first, second = (rows - rows.mean(1, keepdims=True) for rows in (ones, others))
    scale = np.sqrt(np.einsum("kn,kn->k", first, first) * np.einsum("kn,kn->k", second, second))
    known = ~(_even(ones) | _even(others))
    return np.divide(np.einsum("kn,kn->k", first, second), scale, out=np.zeros(len(ones)), where=known)


def autocorrelations(rows: np.ndarray, lag: int) -> np.ndarray:
    """Pearson correlation of each row (k, n) with itself `lag` places on: (k,)."""
    return correlations(rows[:, :-lag], rows[:, lag:]) if rows.shape[1] > lag + 1 else np.zeros(len(rows))


def autocorrelation(values: np.ndarray, lag: int) -> float:
    """Pearson correlation of a sequence with itself `lag` places on."""
    return float(autocorrelations(values[None], lag)[0])


def window_means(rows: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` neighbours of each row (k, n): (k, n - width + 1); of all of a shorter one, (k, 1)."""
    width = min(width, rows.shape[1])
    sums = np.cumsum(np.pad(rows, ((0, 0), (1, 0))), axis=1)
    return (sums[:, width:] - sums[:, :-width]) / width


def gini(values: np.ndarray) -> float:
    """Gini coefficient of numbers of 0 and above: 0 where all are alike, near 1 where one of many has everything."""
    ordered, count = np.sort(values), len(values)
    total = ordered.sum()
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total)) if total > 0 else 0.0


def spectral_shares(rows: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Shares of each row's variance (k, n) at frequencies between neighbours of `edges`: (k, len(edges) - 1).

    Frequencies are in cycles a number; a share is from its lower edge on and below the upper one.
    """
    power = np.square(np.abs(np.fft.rfft(rows - rows.mean(1, keepdims=True))[:, 1:]))
    if rows.shape[1] % 2 == 0:
        power[:, -1] /= 2  # every other frequency stands for two of the sum's terms
    frequencies = np.arange(1, power.shape[1] + 1) / rows.shape[1]
    below = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    shares = np.diff(below[:, np.searchsorted(frequencies, edges)], axis=1)
    known = ~_even(rows)[:, None]
    return np.divide(shares, below[:, -1:], out=np.zeros_like(shares), where=known)


def _even(rows: np.ndarray) -> np.ndarray:
    """Whether the numbers of a row (k, n) differ by no more than rounding leaves of equal ones: (k,) bool."""
    high, low = rows.max(1), rows.min(1)
    even: np.ndarray = high - low <= 8 * np.finfo(np.float64).eps * np.maximum(np.abs(high), np.abs(low))
    return even
