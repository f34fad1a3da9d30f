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

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

WINDOW = 3
"""s, the numbers in a window."""
BINS_PER_TOKEN = 10
"""E / n."""
SCALES = 5
"""tau', the largest scale."""
SHORTEST = SCALES + WINDOW
"""Fewest log-probabilities with a cosine at every scale."""


def lastde(log_probs: np.ndarray) -> float:
    """Mean log-probability over the deviation of diversity entropy; (n,) float64 to a number, at most 0.

    A sequence with the same diversity at every scale (a text of one token repeated) has no deviation to divide by. It
    counts as having the least that its length can show: one cosine in a bin of its own at a single scale.
    """
    bins = BINS_PER_TOKEN * len(log_probs)
    entropies = [diversity_entropy(log_probs, scale, bins) for scale in range(1, SCALES + 1)]
    deviation = float(np.std(entropies, ddof=1))
    return float(log_probs.mean()) / (deviation or _least_deviation(len(log_probs), bins))


def diversity_entropy(values: np.ndarray, scale: int, bins: int) -> float:
    """Entropy of the histogram of cosines between successive windows at a scale, as a share of ln(bins).

    Args:
        values: (n,) float64, n at least `scale` + `WINDOW`.
        scale: how many neighbours are averaged first.
        bins: of the histogram over [-1, 1].
    """
    averaged = sliding_window_view(values, scale).mean(-1) if scale > 1 else values  # (n - scale + 1,)
    windows = sliding_window_view(averaged, WINDOW)  # (n - scale - WINDOW + 2, WINDOW)
    products = np.einsum("nw,nw->n", windows[:-1], windows[1:])  # (n - scale - WINDOW + 1,)
    norms = np.sqrt(np.einsum("nw,nw->n", windows, windows))
    norms = norms[:-1] * norms[1:]
    cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    # Ten times as many bins as tokens: numpy's histogram would spend most of its time on their edges.
    places = np.minimum(((cosines.clip(-1, 1) + 1) * (bins / 2)).astype(np.intp), bins - 1)
    counts = np.bincount(places)
    return _entropy(counts[counts > 0]) / np.log(bins)


def _least_deviation(length: int, bins: int) -> float:
    """Deviation over the scales when one cosine of the first scale is alone in a bin, and nothing else differs."""
    others = length - WINDOW - 1
    entropies = np.zeros(SCALES)
    entropies[0] = _entropy(np.array([1, others])) / np.log(bins)
    return float(np.std(entropies, ddof=1))


def _entropy(counts: np.ndarray) -> float:
    """Shannon entropy of positive counts, nats."""
    shares = counts / counts.sum()
    return -float((shares * np.log(shares)).sum())
