"""Detectors that need no training: statistics of the cached next-token metrics.

The scoring model is the one that made the features; no language model is run. Means and sums are float64.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from detect.protocol import CARD_FILE, read_card, write_card
from features.errors import DetectorError
from features.token_features import METRIC_NAMES, TokenFeatures

KIND = "zero-shot"


class LogLikelihood:
    """Mean log-probability of the tokens that came: 1/n sum_i ln p(x_i | x_<i).

    Machine text is likelier. Source: Solaiman et al. 2019 (arXiv 1908.09203), baseline "log p(x)" of
    DetectGPT (arXiv 2301.11305).
    """

    name = "log-likelihood"

    def fit(self, features: Sequence[TokenFeatures], labels: np.ndarray) -> Self:
        """Nothing to learn."""
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """Mean log-probability of each document, nats: (n_docs,) float64."""
        return _scores(features, lambda document: _metric(document, "log_prob").mean())

    def save(self, directory: Path) -> None:
        """Write the card."""
        write_card(directory, KIND, {"name": self.name})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the card; DetectorError when it names another detector."""
        _check_name(directory, cls.name)
        return cls()


class LogRank:
    """Minus the mean log rank of the tokens that came: -1/n sum_i ln r(x_i | x_<i), r = 1 for the likeliest.

    The cached `log_rank` is ln(1 + how many tokens were likelier), so already the log of the 1-indexed rank.
    Source: baseline "LogRank" of DetectGPT (arXiv 2301.11305).
    """

    name = "log-rank"

    def fit(self, features: Sequence[TokenFeatures], labels: np.ndarray) -> Self:
        """Nothing to learn."""
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """Minus the mean log rank of each document: (n_docs,) float64."""
        return _scores(features, lambda document: -_metric(document, "log_rank").mean())

    def save(self, directory: Path) -> None:
        """Write the card."""
        write_card(directory, KIND, {"name": self.name})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the card; DetectorError when it names another detector."""
        _check_name(directory, cls.name)
        return cls()


class FastDetectGPT:
    """Conditional probability curvature, analytic: (sum_i ln p(x_i) - sum_i mu_i) / sqrt(sum_i sigma_i^2).

    mu_i and sigma_i^2 are mean and variance of the log-probability of a token drawn from the sampling model
    at position i. Here sampling and scoring model are the same (the paper's white-box setting), so mu_i is
    minus the entropy and sigma_i^2 is the cached `log_prob_variance`. Source: Bao et al. 2023 (arXiv
    2310.05130).
    """

    name = "fast-detect-gpt"

    def fit(self, features: Sequence[TokenFeatures], labels: np.ndarray) -> Self:
        """Nothing to learn."""
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """Curvature of each document, standard deviations: (n_docs,) float64.

        Raises:
            ValueError: when no distribution of a document has any variance: features that no model gave.
        """
        return _scores(features, _curvature)

    def save(self, directory: Path) -> None:
        """Write the card."""
        write_card(directory, KIND, {"name": self.name})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the card; DetectorError when it names another detector."""
        _check_name(directory, cls.name)
        return cls()


ZERO_SHOT: dict[str, type[LogLikelihood] | type[LogRank] | type[FastDetectGPT]] = {
    LogLikelihood.name: LogLikelihood,
    LogRank.name: LogRank,
    FastDetectGPT.name: FastDetectGPT,
}


def _curvature(document: TokenFeatures) -> float:
    variance = _metric(document, "log_prob_variance").sum()
    if not variance > 0:
        raise ValueError(
            f"document {document.key} has a total log-probability variance of {variance}, expected above 0; "
            "extract its features again"
        )
    excess = _metric(document, "log_prob").sum() + _metric(document, "entropy").sum()
    return float(excess / np.sqrt(variance))


def _metric(document: TokenFeatures, name: str) -> np.ndarray:
    """One metric of each predicted token: (n - 1,) float64."""
    return document.metrics[:, METRIC_NAMES.index(name)].astype(np.float64)


def _scores(
    features: Sequence[TokenFeatures], statistic: Callable[[TokenFeatures], float | np.floating]
) -> np.ndarray:
    for document in features:
        rows, count = document.metrics.shape
        if count != len(METRIC_NAMES):
            raise DetectorError(f"expected {len(METRIC_NAMES)} metrics a token, features have {count}")
        if not rows:
            raise ValueError(f"document {document.key} has no scored token; a text needs at least 2 tokens")
    return np.array([statistic(document) for document in features], dtype=np.float64)


def _check_name(directory: Path, name: str) -> None:
    if (found := read_card(directory, KIND).get("name")) != name:
        raise DetectorError(f"{directory / CARD_FILE} describes {found!r}, expected {name!r}")
