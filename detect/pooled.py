"""Documents of any length -> vectors of one length, for detectors that learn from tables.

Everything is float64. A statistic that a document is too short or too even for (the skewness of equal numbers, a lag
beyond the end) is 0, so that every vector is finite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cache.loader import CachedCorpus
from detect.metric_columns import metric, ranks
from detect.metric_profile import PROFILE_COLUMNS, metric_profile
from detect.sequence_statistics import MOMENTS, autocorrelation, moments, sorted_quantiles
from detect.splits import uniform
from detect.token_profile import TOKEN_COLUMNS, token_profile
from detect.trained import Progress, silent
from features.token_features import METRIC_NAMES, TokenFeatures

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LAGS = (1, 2, 3, 5, 10)
RANK_LIMITS = (10, 100, 1000)
"""GLTR's: the buckets are ranks up to 10, 100, 1,000, and beyond."""
HISTOGRAM_BINS = 20
"""DivEye's, of the second differences."""
SURPRISAL_LIMIT = 12.0
"""Nats; more than choosing among a hundred thousand tokens at random costs. What is above is noise of one odd token."""
KEPT_BYTES = 3 << 29
"""Of vectors of a pooling that a corpus keeps (1.5 GiB): folds and left-out domains ask for the same ones again."""
SHORTEST_PREFIX = 32
"""Of those that detectors of pooled features learn from, in tokens."""

RANK_BUCKETS = ("rank <= 10", "rank <= 100", "rank <= 1000", "rank > 1000")
DIFFERENCES = ("absolute mean", *MOMENTS)
METRIC_COLUMNS = (
    *(f"{name} {statistic}" for name in METRIC_NAMES for statistic in MOMENTS),
    *(f"{name} quantile {quantile}" for name in METRIC_NAMES for quantile in QUANTILES),
    "rank 1",
    *RANK_BUCKETS,
    *(f"surprisal difference {order} {statistic}" for order in (1, 2) for statistic in DIFFERENCES),
    *(f"surprisal autocorrelation {lag}" for lag in LAGS),
    "log tokens",
)
SURPRISAL_COLUMNS = (
    *(f"surprisal {statistic}" for statistic in ("mean", "std", "variance", "skewness", "kurtosis")),
    *(f"surprisal difference 1 {statistic}" for statistic in ("mean", "std")),
    *(f"surprisal difference 2 {statistic}" for statistic in ("variance", "entropy", "autocorrelation 1")),
)


@dataclass(frozen=True)
class Pooling:
    """A way to make a vector of a document.

    Attributes:
        name: on record in every detector that reads it.
        vector: of one document, (columns,) float64.
        columns: what the numbers are; empty where they are the dimensions of the hidden states.
        blocks: how many numbers there are for each dimension of the hidden states, where it reads them.
    """

    name: str
    vector: Callable[[TokenFeatures], np.ndarray]
    columns: tuple[str, ...] = ()
    blocks: int = 1

    @property
    def needs_hidden(self) -> bool:
        """Whether it reads hidden states."""
        return not self.columns


def pool(
    corpus: CachedCorpus, pooling: Pooling, progress: Progress = silent, *, prefixes: int = 0, seed: int = 0
) -> np.ndarray:
    """The vectors of a corpus, (n_docs, 1 + prefixes, columns) float64 in its order, streamed from disk.

    Args:
        corpus: at least one document.
        pooling: makes a vector of a document.
        progress: told of documents read.
        prefixes: vectors of so many random prefixes of each document, after that of the whole.
        seed: of the prefixes, with the document's key: neither order nor company changes them.
    """
    kept = _kept(corpus, pooling.name, (prefixes, seed))
    table: np.ndarray | None = None
    missing = []
    for index, key in enumerate(corpus.keys):
        if key in kept:
            table = _row(table, len(corpus), kept[key], index)
        else:
            missing.append(index)
    room = KEPT_BYTES - sum(vectors.nbytes for vectors in kept.values())
    read = corpus.subset(missing)
    for done, (place, document) in enumerate((read if pooling.needs_hidden else read.without_hidden()).documents(), 1):
        lengths = prefix_lengths(document.key, document.n_tokens, prefixes, seed)
        vectors = np.stack([pooling.vector(part) for part in (document, *map(document.prefix, lengths))])
        table = _row(table, len(corpus), vectors, missing[place])
        if (room := room - vectors.nbytes) >= 0:
            kept[document.key] = vectors
        progress("read", {"documents": len(corpus) - len(missing) + done, "total": len(corpus)})
    if table is None:
        raise ValueError("expected at least one document, got none")
    return table


def _kept(corpus: CachedCorpus, name: str, asked: tuple[int, int]) -> dict[str, np.ndarray]:
    """What the corpus keeps of a pooling; what it kept of other prefixes makes room."""
    before = corpus.derived.get(name)
    if before is None or before[0] != asked:
        corpus.derived[name] = before = (asked, {})
    return before[1]


def _row(table: np.ndarray | None, count: int, vectors: np.ndarray, index: int) -> np.ndarray:
    """The table with a document's vectors in their place; made for so many documents where there is none yet."""
    if table is None:
        table = np.empty((count, *vectors.shape))
    table[index] = vectors
    return table


def prefix_lengths(key: str, n_tokens: int, count: int, seed: int) -> list[int]:
    """Lengths in tokens of random prefixes, log-uniform from `SHORTEST_PREFIX` on: short texts have the least evidence.

    A document no longer than that is its own prefix.
    """
    shortest = min(SHORTEST_PREFIX, n_tokens)
    growth = n_tokens / shortest
    return [round(shortest * growth ** uniform(f"{key}:{number}", seed)) for number in range(count)]


def pooled_metrics(document: TokenFeatures) -> np.ndarray:
    """`METRIC_COLUMNS`: how each metric is distributed over the document, and how surprisal runs along it."""
    exact = document.metrics.astype(np.float64)  # (tokens, k)
    rank = ranks(document)
    surprisal = -metric(document, "log_prob")
    differences = [np.diff(surprisal, n=order) for order in (1, 2)]
    return np.concatenate(
        [
            moments(exact.T).ravel(),
            sorted_quantiles(np.sort(exact.T, axis=1), QUANTILES).ravel(),
            [(rank == 1).mean()],
            rank_buckets(document),
            *(np.append(np.abs(steps).mean() if len(steps) else 0.0, moments(steps)) for steps in differences),
            [autocorrelation(surprisal, lag) for lag in LAGS],
            [np.log(len(surprisal))],
        ]
    )


def profile(document: TokenFeatures) -> np.ndarray:
    """`PROFILE_COLUMNS` and `TOKEN_COLUMNS`: how metrics relate to each other, and to the tokens that came."""
    return np.concatenate([metric_profile(document), token_profile(document)])


def surprisal_diversity(document: TokenFeatures) -> np.ndarray:
    """`SURPRISAL_COLUMNS`: the ten features of DivEye (arXiv 2509.18880, IBM/diveye `diveye_utils.py`).

    Second differences are those of the log-probability, minus those of surprisal, as there; kurtosis is the excess.
    """
    log_probs = metric(document, "log_prob")
    mean, std, skewness, kurtosis = moments(-log_probs)
    first, second = np.diff(-log_probs), np.diff(log_probs, n=2)
    return np.array(
        [
            *(mean, std, std**2, skewness, kurtosis),
            *moments(first)[:2],
            moments(second)[1] ** 2,
            _histogram_entropy(second),
            autocorrelation(second, 1),
        ]
    )


def rank_buckets(document: TokenFeatures) -> np.ndarray:
    """`RANK_BUCKETS`: the share of tokens in each bucket of GLTR (arXiv 1906.04043), adding up to 1: (4,)."""
    places = np.searchsorted(RANK_LIMITS, ranks(document), side="left")
    return np.bincount(places, minlength=len(RANK_BUCKETS)) / len(places)


def mean_hidden(document: TokenFeatures) -> np.ndarray:
    """The mean of the hidden states over all tokens: (d,)."""
    return document.hidden.mean(0, dtype=np.float64)


def hidden_covariance(document: TokenFeatures) -> np.ndarray:
    """The mean of the hidden states, and their covariances with three metrics of the token that comes next: (4 d,).

    The metrics are surprisal (up to `SURPRISAL_LIMIT`), entropy, and the standard deviation of the log-probability
    under the prediction. A linear map of these is a weighted sum of metrics whose weights are linear in the hidden
    states: the idea of PAWN (arXiv 2501.03940) with so few turns that a strong penalty keeps it off any one domain.
    """
    return _with_covariances(document, _expectations(document))


def hidden_covariance_6(document: TokenFeatures) -> np.ndarray:
    """`hidden_covariance`, and the covariances with the other three metrics: (7 d,).

    These are log rank, the highest log-probability, and the probability mass of likelier tokens.
    """
    others = [metric(document, name) for name in ("log_rank", "max_log_prob", "top_p")]
    return _with_covariances(document, [*_expectations(document), *others])


def _expectations(document: TokenFeatures) -> list[np.ndarray]:
    """What was expected of each token, and what came: three of (n - 1,)."""
    return [
        np.minimum(-metric(document, "log_prob"), SURPRISAL_LIMIT),
        metric(document, "entropy"),
        np.sqrt(metric(document, "log_prob_variance").clip(0)),
    ]


def _with_covariances(document: TokenFeatures, metrics: list[np.ndarray]) -> np.ndarray:
    """The mean of the hidden states and their covariances with k metrics (n - 1,) of the next token: ((1 + k) d,)."""
    states = document.hidden[:-1].astype(np.float64)  # (n - 1, d): the last one predicts nothing that came
    table = np.stack(metrics)
    centred = table - table.mean(1, keepdims=True)  # (k, n - 1)
    return np.concatenate([states.mean(0), (centred @ states / len(states)).ravel()])


def _histogram_entropy(values: np.ndarray) -> float:
    """Shannon entropy of a histogram over the range of the values, nats."""
    if not len(values):
        return 0.0
    counts, _ = np.histogram(values, bins=HISTOGRAM_BINS)
    shares = counts[counts > 0] / len(values)
    return -float((shares * np.log(shares)).sum())


POOLINGS = {
    pooling.name: pooling
    for pooling in (
        Pooling("metrics", pooled_metrics, METRIC_COLUMNS),
        Pooling("profile", profile, (*PROFILE_COLUMNS, *TOKEN_COLUMNS)),
        Pooling("metric-profile", metric_profile, PROFILE_COLUMNS),  # of detectors from before tokens were read
        Pooling("surprisal-diversity", surprisal_diversity, SURPRISAL_COLUMNS),
        Pooling("rank-buckets", rank_buckets, RANK_BUCKETS),
        Pooling("mean-hidden", mean_hidden),
        Pooling("hidden-covariance", hidden_covariance, blocks=4),
        Pooling("hidden-covariance-6", hidden_covariance_6, blocks=7),
    )
}
