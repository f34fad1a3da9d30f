"""Lastde: how a sequence of log-probabilities fluctuates at several scales (Xu et al., ICLR 2025, arXiv 2410.06072).

With n log-probabilities, window s, E = 10 n bins and scales tau = 1 .. 5:

    sequence at scale tau    moving averages of tau neighbours                       n - tau + 1 numbers
    cosines                  of each window of s numbers with the next one           n - tau - s + 1 of them
    DE(tau)                  entropy of the cosines' histogram over [-1, 1], / ln E  0 to 1
    Lastde                   mean log-probability / standard deviation of DE over tau

Checked against the method's published code (TrustMedia-zju/Lastde_Detector, `fastMDE.py`): the deviation is that of a
sample (divided by tau' - 1), and the cosine with a window of zeros is 0. Two things differ: everything is float64, and
a cosine that rounding pushes out of [-1, 1] counts in the outermost bin, where torch's histogram drops it.
"""

from collections.abc import Sequence

import numpy as np

WINDOW = 3
"""s, the numbers in a window."""
BINS_PER_TOKEN = 10
"""E / n."""
SCALES = 5
"""tau', the largest scale."""
SHORTEST = SCALES + WINDOW
"""Fewest log-probabilities with a cosine at every scale."""


def lastde(log_probs: np.ndarray) -> float:
    """Mean log-probability over the deviation of diversity entropy: of (n,) float64, n at least `SHORTEST`, at most 0.

    A sequence with the same diversity at every scale (a text of one token repeated) has no deviation to divide by. It
    counts as having the least that its length can show: one cosine in a bin of its own at a single scale.
    """
    bins = BINS_PER_TOKEN * len(log_probs)
    deviation = float(np.std(diversity_entropies(log_probs, range(1, SCALES + 1), bins), ddof=1))
    return float(log_probs.mean()) / (deviation or _least_deviation(len(log_probs), bins))


def diversity_entropies(values: np.ndarray, scales: Sequence[int], bins: int) -> np.ndarray:
    """Entropy of the histogram of cosines between successive windows at each scale, as a share of ln(bins).

    Args:
        values: (n,) float64, n at least the largest scale + `WINDOW`.
        scales: how many neighbours are averaged first.
        bins: of the histogram over [-1, 1].

    Returns:
        (scales,), each 0 to 1.
    """
    products, norms = [], []
    for scale in scales:
        averaged = _window_sums(values, scale) / scale  # (n - scale + 1,)
        products.append(_window_sums(averaged[:-1] * averaged[1:], WINDOW))  # (n - scale - WINDOW + 1,)
        lengths = np.sqrt(_window_sums(averaged * averaged, WINDOW))
        norms.append(lengths[:-1] * lengths[1:])
    counts = np.array([len(own) for own in products])
    above, below = np.concatenate(products), np.concatenate(norms)  # all scales at once: calls cost more than numbers
    cosines = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    # Ten times as many bins as tokens: numpy's histogram would spend most of its time on their edges.
    places = np.minimum(((cosines.clip(-1, 1) + 1) * (bins / 2)).astype(np.intp), bins - 1)
    found = np.bincount(places + np.repeat(np.arange(len(counts)) * bins, counts))
    filled = np.flatnonzero(found)
    own = filled // bins
    shares = found[filled] / counts[own]
    entropies: np.ndarray = -np.bincount(own, shares * np.log(shares), len(counts)) / np.log(bins)
    return entropies


def _window_sums(values: np.ndarray, width: int) -> np.ndarray:
    """Sums of `width` neighbours, (n,) to (n - width + 1,); of one, the numbers themselves."""
    count = len(values) - width + 1
    return sum((values[start : start + count] for start in range(1, width)), values[:count])


def _least_deviation(length: int, bins: int) -> float:
    """Deviation over the scales when one cosine of the first scale is alone in a bin, and nothing else differs."""
    others = length - WINDOW - 1
    entropies = np.zeros(SCALES)
    shares = np.array([1, others]) / (1 + others)
    entropies[0] = -(shares * np.log(shares)).sum() / np.log(bins)
    return float(np.std(entropies, ddof=1))
