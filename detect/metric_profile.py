"""How the metrics of a text relate to each other and run along it, for detectors that learn from tables.

Levels (how surprising a text is) tell the domain at least as much as who wrote it. What is here is relative: surprisal
to what the prediction expected and how far it spread, a stretch of text to the whole, one metric to another, a share to
its sum; few columns are levels. Trees that see these rank texts of domains left out far better than trees that see the
levels, and better than trees that see both (`benchmarks/README.md`).

Of each predicted token: surprisal s, entropy H, the deviation d of the log-probability under the prediction, log rank
r, and the normalised surprisal

    z = (H - s) / d          0 in the mean for a text drawn from the model itself; higher: likelier than expected

of which Fast-DetectGPT (arXiv 2310.05130) is a weighted sum. Everything is float64; a statistic that a text is too
short or too even for is 0, except that ratios have a floor below them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from detect.lastde import BINS_PER_TOKEN, SCALES, SHORTEST, diversity_entropy
from detect.metric_columns import metric
from detect.sequence_statistics import (
    MOMENTS,
    autocorrelations,
    correlations,
    gini,
    moments,
    spectral_shares,
    window_means,
)
from features.token_features import TokenFeatures

SMALLEST_VARIANCE = 1e-4
"""Of the log-probability under a prediction, squared nats: one that is all but certain spreads nothing to divide by."""
ENTROPY_EDGES = (1.0, 2.5, 4.0)
"""Nats, between tokens that are certain, easy, open and anybody's guess."""
FEWEST_TOKENS = 3
"""With a prediction of one kind of entropy, below which nothing is said of them."""
RANK_LIMIT = 100
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAGS = (1, 2, 3, 5)
STRETCH = 16
"""Tokens of the stretches whose extremes are looked for: about a sentence."""
WIDTHS = (4, 8, 16, 32)
FREQUENCY_EDGES = (0.0, 0.03, 0.1, 0.25)
"""Cycles a token: of passages, of sentences, of phrases; what is faster is left out."""


Numbers = np.ndarray | Sequence[float | np.floating]


@dataclass(frozen=True)
class Track:
    """The metrics of a text along its predicted tokens, each (n,) float64."""

    surprisal: np.ndarray
    entropy: np.ndarray
    deviation: np.ndarray
    log_rank: np.ndarray
    likelier: np.ndarray  # probability mass of likelier tokens
    highest: np.ndarray  # log-probability of the likeliest token
    normalised: np.ndarray

    @classmethod
    def of(cls, document: TokenFeatures) -> Self:
        """That of a document."""
        names = ("log_prob", "entropy", "log_prob_variance", "log_rank", "top_p", "max_log_prob")
        log_prob, entropy, variance, log_rank, likelier, highest = (metric(document, name) for name in names)
        deviation = np.sqrt(np.maximum(variance, SMALLEST_VARIANCE))
        return cls(-log_prob, entropy, deviation, log_rank, likelier, highest, (log_prob + entropy) / deviation)

    @property
    def three(self) -> np.ndarray:
        """Surprisal, normalised surprisal and entropy: (3, n)."""
        return np.stack([self.surprisal, self.normalised, self.entropy])


def metric_profile(document: TokenFeatures) -> np.ndarray:
    """`PROFILE_COLUMNS` of a document: (columns,)."""
    track = Track.of(document)
    return np.nan_to_num(np.concatenate([np.asarray(family(track), dtype=np.float64) for _, family in _FAMILIES]))


def _normalised(track: Track) -> Numbers:
    z = track.normalised
    return [*moments(z), *np.quantile(z, QUANTILES), (z > 0).mean(), *moments(np.diff(z))]


def _by_entropy(track: Track) -> Numbers:
    kinds = np.searchsorted(ENTROPY_EDGES, track.entropy)
    found: list[float | np.floating] = []
    for kind in range(len(ENTROPY_EDGES) + 1):
        own = kinds == kind
        found.append(own.mean())
        if own.sum() < FEWEST_TOKENS:
            found += [0.0] * (len(_OF_KIND) - 1)
            continue
        z, log_rank = track.normalised[own], track.log_rank[own]
        shares = [(log_rank == 0).mean(), (log_rank > np.log(RANK_LIMIT + 0.5)).mean()]
        found += [track.surprisal[own].mean(), z.mean(), z.std(), *shares]
    return found


def _diversity(track: Track) -> Numbers:
    count = len(track.surprisal)
    if count < SHORTEST:
        return [0.0] * (SCALES + 1 + len(_SCALES_OF_Z))
    bins = BINS_PER_TOKEN * count
    own = [diversity_entropy(-track.surprisal, scale, bins) for scale in range(1, SCALES + 1)]
    return [*own, np.std(own, ddof=1), *(diversity_entropy(track.normalised, scale, bins) for scale in _SCALES_OF_Z)]


def _course(track: Track) -> Numbers:
    rows = track.three
    count = rows.shape[1]
    ends = [round(count * part / 3) for part in range(4)]
    sums = np.pad(np.cumsum(rows, axis=1), ((0, 0), (1, 0)))[:, ends]
    sizes = np.diff(ends)  # one and two tokens leave a third without any
    thirds = np.where(sizes > 0, np.diff(sums, axis=1) / np.maximum(sizes, 1) - rows.mean(1, keepdims=True), 0.0)
    means = window_means(rows[1::-1], min(STRETCH, max(count // 2, 1)))  # of normalised surprisal, then of surprisal
    return [*thirds.ravel(), *np.stack([means.std(1), means.min(1), means.max(1)], axis=1).ravel()]


def _persistence(track: Track) -> Numbers:
    rows = track.three
    deviations = rows.std(1)
    deviations[deviations < 1e-6] = np.inf  # of an even sequence, rounding is all that stretches differ by
    found = [
        window_means(rows, width).std(1) * np.sqrt(width) / deviations if rows.shape[1] > 2 * width else np.zeros(3)
        for width in WIDTHS
    ]
    return np.stack(found, axis=1).ravel()


def _ratios(track: Track) -> Numbers:
    s, h, r = track.surprisal, track.entropy, track.log_rank
    excess = (h - s).sum() / np.sqrt(max(np.square(track.deviation).sum(), 1e-6))
    middle = max(s.mean(), 1e-6)
    return [
        excess,
        s.mean() / max(r.mean(), 1e-3),
        middle / max(h.mean(), 1e-6),
        s.std() / middle,
        h.std() / max(h.mean(), 1e-6),
        r.std() / max(r.mean(), 1e-6),
        s.std() / max(h.std(), 1e-6),
    ]


def _relations(track: Track) -> Numbers:
    s, h, z, r, d = track.surprisal, track.entropy, track.normalised, track.log_rank, track.deviation
    place = np.arange(len(s), dtype=np.float64)
    size = np.abs(z)
    ones = np.stack([s, size, z, z, h, track.likelier, track.highest, r, r, r, track.likelier, d, d])
    others = np.stack([h, h, h, place, place, h, -s, h, s, z, s, s, h])
    steps = np.stack([s[1:], s[:-1], np.abs(np.diff(s)), size[1:]])
    beside = np.stack([h[:-1], h[1:], h[1:], size[:-1]])
    return np.concatenate([correlations(ones, others), correlations(steps, beside)])


def _repetition(track: Track) -> Numbers:
    rows = np.stack([track.surprisal, track.entropy, track.normalised, track.log_rank])
    return np.stack([autocorrelations(rows, lag) for lag in LAGS], axis=1).ravel()


def _concentration(track: Track) -> Numbers:
    s, h = track.surprisal, track.entropy
    middle = max(s.mean(), 1e-6)
    return [
        *(gini(own) for own in (s, h, track.log_rank, s - s.min())),
        *((s > times * middle).mean() for times in (2, 3)),
        np.median(s) / middle,
        np.median(h) / max(h.mean(), 1e-6),
        s.max() / middle,
        np.quantile(s, 0.9) / middle,
    ]


def _spectra(track: Track) -> Numbers:
    return spectral_shares(track.three, FREQUENCY_EDGES).ravel()


def _shapes(track: Track) -> Numbers:
    s = track.surprisal
    sequences = (s, track.entropy, track.log_rank, np.sqrt(np.maximum(s, 0)), track.likelier)
    return np.concatenate([moments(own)[2:] for own in sequences])


_OF_KIND = ("share", "surprisal", "normalised surprisal", "its std", "rank 1", f"rank > {RANK_LIMIT}")
_SCALES_OF_Z = (1, 3, 5)
_THREE = ("surprisal", "normalised surprisal", "entropy")
_PAIRS = (
    "surprisal and entropy",
    "|normalised| and entropy",
    "normalised and entropy",
    "normalised and place",
    "entropy and place",
    "likelier mass and entropy",
    "highest and own log-probability",
    "log rank and entropy",
    "log rank and surprisal",
    "log rank and normalised",
    "likelier mass and surprisal",
    "deviation and surprisal",
    "deviation and entropy",
    "surprisal and entropy before",
    "surprisal and entropy after",
    "|surprisal step| and entropy",
    "|normalised| and itself before",
)
_FAMILIES: tuple[tuple[tuple[str, ...], Callable[[Track], Numbers]], ...] = (
    (
        (
            *(f"normalised surprisal {name}" for name in (*MOMENTS, *(f"quantile {q}" for q in QUANTILES))),
            "normalised surprisal > 0",
            *(f"normalised surprisal step {name}" for name in MOMENTS),
        ),
        _normalised,
    ),
    (tuple(f"entropy kind {k} {name}" for k in range(len(ENTROPY_EDGES) + 1) for name in _OF_KIND), _by_entropy),
    (
        (
            *(f"diversity entropy {scale}" for scale in range(1, SCALES + 1)),
            "diversity entropy std",
            *(f"normalised diversity entropy {scale}" for scale in _SCALES_OF_Z),
        ),
        _diversity,
    ),
    (
        (
            *(f"{name} of third {number} less the whole" for name in _THREE for number in (1, 2, 3)),
            *(f"{name} of stretches {what}" for name in _THREE[1::-1] for what in ("std", "lowest", "highest")),
        ),
        _course,
    ),
    (tuple(f"{name} persistence {width}" for name in _THREE for width in WIDTHS), _persistence),
    (
        (
            *("curvature", "surprisal / log rank", "surprisal / entropy", "surprisal std / mean", "entropy std / mean"),
            *("log rank std / mean", "surprisal std / entropy std"),
        ),
        _ratios,
    ),
    (tuple(f"correlation of {pair}" for pair in _PAIRS), _relations),
    (
        tuple(f"{name} autocorrelation {lag}" for name in (*_THREE[::2], _THREE[1], "log rank") for lag in LAGS),
        _repetition,
    ),
    (
        (
            *(
                f"{name} Gini coefficient"
                for name in ("surprisal", "entropy", "log rank", "surprisal above its lowest")
            ),
            *(f"surprisal > {times} means" for times in (2, 3)),
            *(
                "surprisal median / mean",
                "entropy median / mean",
                "surprisal highest / mean",
                "surprisal quantile 0.9 / mean",
            ),
        ),
        _concentration,
    ),
    (tuple(f"{name} spectrum {number}" for name in _THREE for number in range(len(FREQUENCY_EDGES) - 1)), _spectra),
    (
        tuple(
            f"{name} {shape}"
            for name in ("surprisal", "entropy", "log rank", "root of surprisal", "likelier mass")
            for shape in MOMENTS[2:]
        ),
        _shapes,
    ),
)
PROFILE_COLUMNS = tuple(name for names, _ in _FAMILIES for name in names)
"""What `metric_profile` gives, in order; `_FAMILIES` has the formulas."""
