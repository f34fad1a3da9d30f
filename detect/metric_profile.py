"""How the metrics of a text relate to each other and run along it, for detectors that learn from tables.

Levels (how surprising a text is) tell the domain at least as much as who wrote it. What is here is relative: surprisal
to what the prediction expected and how far it spread, a stretch of text to the whole, one metric to another, a share to
its sum; few columns are levels. Trees that see these rank texts of domains left out far better than trees that see the
levels, and better than trees that see both (`benchmarks/recipe.md`).

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

from detect.lastde import BINS_PER_TOKEN, SCALES, SHORTEST, diversity_entropies
from detect.metric_columns import metric
from detect.sequence_statistics import (
    MOMENTS,
    autocorrelations,
    correlations,
    deviations,
    gini,
    moments,
    paired_correlations,
    running_sums,
    sorted_quantiles,
    spectral_shares,
    window_means,
)
from features.token_features import TokenFeatures

SMALLEST_VARIANCE = 1e-4
"""Of the log-probability under a prediction, squared nats: one that is all but certain spreads nothing to divide by."""
ENTROPY_EDGES = (1.0, 2.5, 4.0)
"""Nats, between tokens that are certain, easy, open and anybody's guess."""
FEWEST_TOKENS = 3
"""Of one kind, of entropy here and of text in `detect/token_profile.py`, below which nothing is said of them."""
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


Family = Callable[[Track], Numbers]
_FAMILIES: list[tuple[tuple[str, ...], Family]] = []
_THREE = ("surprisal", "normalised surprisal", "entropy")


def _gives(*names: str) -> Callable[[Family], Family]:
    """What names the columns of a family, in order, and adds it to the others: names and formulas stand together."""

    def add(family: Family) -> Family:
        _FAMILIES.append((names, family))
        return family

    return add


@_gives(
    *(f"normalised surprisal {name}" for name in (*MOMENTS, *(f"quantile {q}" for q in QUANTILES))),
    "normalised surprisal > 0",
    *(f"normalised surprisal step {name}" for name in MOMENTS),
)
def _normalised(track: Track) -> Numbers:
    z = track.normalised
    quantiles = sorted_quantiles(np.sort(z)[None], QUANTILES)[0]
    return [*moments(z), *quantiles, np.count_nonzero(z > 0) / len(z), *moments(np.diff(z))]


_OF_KIND = ("share", "surprisal", "normalised surprisal", "its std", "rank 1", f"rank > {RANK_LIMIT}")


@_gives(*(f"entropy kind {kind} {name}" for kind in range(len(ENTROPY_EDGES) + 1) for name in _OF_KIND))
def _by_entropy(track: Track) -> Numbers:
    kinds = np.searchsorted(ENTROPY_EDGES, track.entropy)
    counts = np.bincount(kinds, minlength=len(ENTROPY_EDGES) + 1)

    def means(values: np.ndarray) -> np.ndarray:
        return np.bincount(kinds, values, len(counts)) / np.maximum(counts, 1)

    z, log_rank = track.normalised, track.log_rank
    middle = means(z)
    spread = np.sqrt(means(np.square(z - middle[kinds])))
    shares = [means(log_rank == 0), means(log_rank > np.log(RANK_LIMIT + 0.5))]
    table = np.stack([means(track.surprisal), middle, spread, *shares], axis=1)
    table[counts < FEWEST_TOKENS] = 0.0
    return np.column_stack([counts / len(kinds), table]).ravel()


_SCALES_OF_Z = (1, 3, 5)


@_gives(
    *(f"diversity entropy {scale}" for scale in range(1, SCALES + 1)),
    "diversity entropy std",
    *(f"normalised diversity entropy {scale}" for scale in _SCALES_OF_Z),
)
def _diversity(track: Track) -> Numbers:
    count = len(track.surprisal)
    if count < SHORTEST:
        return [0.0] * (SCALES + 1 + len(_SCALES_OF_Z))
    bins = BINS_PER_TOKEN * count
    own = diversity_entropies(-track.surprisal, range(1, SCALES + 1), bins)
    return [*own, np.std(own, ddof=1), *diversity_entropies(track.normalised, _SCALES_OF_Z, bins)]


@_gives(
    *(f"{name} of third {number} less the whole" for name in _THREE for number in (1, 2, 3)),
    *(f"{name} of stretches {what}" for name in _THREE[1::-1] for what in ("std", "lowest", "highest")),
)
def _course(track: Track) -> Numbers:
    rows = track.three
    count = rows.shape[1]
    ends = [round(count * part / 3) for part in range(4)]
    sums = running_sums(rows)
    sizes = np.diff(ends)  # one and two tokens leave a third without any
    means = np.diff(sums[:, ends], axis=1) / np.maximum(sizes, 1)
    thirds = np.where(sizes > 0, means - sums[:, -1:] / count, 0.0)
    stretches = window_means(rows[1::-1], min(STRETCH, max(count // 2, 1)))  # of normalised surprisal, of surprisal
    told = np.stack([deviations(stretches), stretches.min(1), stretches.max(1)], axis=1)
    return [*thirds.ravel(), *told.ravel()]


@_gives(*(f"{name} persistence {width}" for name in _THREE for width in WIDTHS))
def _persistence(track: Track) -> Numbers:
    rows = track.three
    whole = deviations(rows)
    whole[whole < 1e-6] = np.inf  # of an even sequence, rounding is all that stretches differ by
    found = [
        deviations(window_means(rows, width)) * np.sqrt(width) / whole if rows.shape[1] > 2 * width else np.zeros(3)
        for width in WIDTHS
    ]
    return np.stack(found, axis=1).ravel()


@_gives(
    *("curvature", "surprisal / log rank", "surprisal / entropy", "surprisal std / mean", "entropy std / mean"),
    *("log rank std / mean", "surprisal std / entropy std"),
)
def _ratios(track: Track) -> Numbers:
    (s, _), (h, _), (r, _) = told = moments(np.stack([track.surprisal, track.entropy, track.log_rank]))[:, :2]
    spread = told[:, 1]
    excess = (h - s) * len(track.surprisal) / np.sqrt(max(np.square(track.deviation).sum(), 1e-6))
    middle = max(s, 1e-6)
    return [
        excess,
        s / max(r, 1e-3),
        middle / max(h, 1e-6),
        spread[0] / middle,
        spread[1] / max(h, 1e-6),
        spread[2] / max(r, 1e-6),
        spread[0] / max(spread[1], 1e-6),
    ]


_RELATED = (
    *("surprisal", "entropy", "normalised", "|normalised|", "place", "log rank", "likelier mass", "deviation"),
    *("highest", "own log-probability"),
)
_PAIRS = (
    *(("surprisal", "entropy"), ("|normalised|", "entropy"), ("normalised", "entropy")),
    *(("normalised", "place"), ("entropy", "place")),
    *(("likelier mass", "entropy"), ("highest", "own log-probability")),
    *(("log rank", "entropy"), ("log rank", "surprisal"), ("log rank", "normalised")),
    *(("likelier mass", "surprisal"), ("deviation", "surprisal"), ("deviation", "entropy")),
)
_PLACES = [(_RELATED.index(one), _RELATED.index(other)) for one, other in _PAIRS]


@_gives(
    *(f"correlation of {one} and {other}" for one, other in _PAIRS),
    "correlation of surprisal and entropy before",
    "correlation of surprisal and entropy after",
    "correlation of |surprisal step| and entropy",
    "correlation of |normalised| and itself before",
)
def _relations(track: Track) -> Numbers:
    s, h, z = track.surprisal, track.entropy, track.normalised
    place, size = np.arange(len(s), dtype=np.float64), np.abs(z)
    related = np.stack([s, h, z, size, place, track.log_rank, track.likelier, track.deviation, track.highest, -s])
    steps = np.stack([s[1:], s[:-1], np.abs(np.diff(s)), size[1:]])
    beside = np.stack([h[:-1], h[1:], h[1:], size[:-1]])
    return np.concatenate([paired_correlations(related, _PLACES), correlations(steps, beside)])


@_gives(*(f"{name} autocorrelation {lag}" for name in (*_THREE[::2], _THREE[1], "log rank") for lag in LAGS))
def _repetition(track: Track) -> Numbers:
    rows = np.stack([track.surprisal, track.entropy, track.normalised, track.log_rank])
    return np.stack([autocorrelations(rows, lag) for lag in LAGS], axis=1).ravel()


@_gives(
    *(f"{name} Gini coefficient" for name in ("surprisal", "entropy", "log rank", "surprisal above its lowest")),
    *("surprisal > 2 means", "surprisal > 3 means", "surprisal median / mean", "entropy median / mean"),
    *("surprisal highest / mean", "surprisal quantile 0.9 / mean"),
)
def _concentration(track: Track) -> Numbers:
    ordered = np.sort(np.stack([track.surprisal, track.entropy, track.log_rank]), axis=1)
    s, h = ordered[:2]
    middle = max(s.sum() / len(s), 1e-6)
    (median, high), (median_entropy, _) = sorted_quantiles(ordered[:2], (0.5, 0.9))
    return [
        *gini(np.concatenate([ordered, s[None] - s[0]])),
        *(np.count_nonzero(s > times * middle) / len(s) for times in (2, 3)),
        median / middle,
        median_entropy / max(h.sum() / len(h), 1e-6),
        s[-1] / middle,
        high / middle,
    ]


@_gives(*(f"{name} spectrum {number}" for name in _THREE for number in range(len(FREQUENCY_EDGES) - 1)))
def _spectra(track: Track) -> Numbers:
    return spectral_shares(track.three, FREQUENCY_EDGES).ravel()


@_gives(
    *(
        f"{name} {shape}"
        for name in ("surprisal", "entropy", "log rank", "root of surprisal", "likelier mass")
        for shape in MOMENTS[2:]
    )
)
def _shapes(track: Track) -> Numbers:
    s = track.surprisal
    rows = np.stack([s, track.entropy, track.log_rank, np.sqrt(np.maximum(s, 0)), track.likelier])
    return moments(rows)[:, 2:].ravel()


PROFILE_COLUMNS = tuple(name for names, _ in _FAMILIES for name in names)
"""What `metric_profile` gives, in order."""
