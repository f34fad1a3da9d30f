"""Detectors that need no training: statistics of the cached next-token metrics.

The scoring model is the one that made the features; no language model is run. Means and sums are float64.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from cache.loader import LabelledCorpus
from detect.protocol import CARD_FILE, read_card, write_card
from features.errors import DetectorError
from features.token_features import METRIC_NAMES, TokenFeatures

KIND = "zero-shot"


class ZeroShot:
    """A statistic of cached metrics as a detector. Subclasses say which; there is nothing to learn or store."""

    name: ClassVar[str]

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """The score of one document, higher is more machine-like."""
        raise NotImplementedError

    def fit(self, train: LabelledCorpus, validation: LabelledCorpus) -> Self:
        """Nothing to learn."""
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """The statistic of each document: (n_docs,) float64.

        Raises:
            DetectorError: when the features have another number of metrics.
            ValueError: when a document has no scored token.
        """
        for document in features:
            rows, count = document.metrics.shape
            if count != len(METRIC_NAMES):
                raise DetectorError(f"expected {len(METRIC_NAMES)} metrics a token, features have {count}")
            if not rows:
                raise ValueError(f"document {document.key} has no scored token; a text needs at least 2 tokens")
        return np.array([self.statistic(document) for document in features], dtype=np.float64)

    def save(self, directory: Path) -> None:
        """Write the card."""
        write_card(directory, KIND, {"name": self.name})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the card; DetectorError when it names another detector."""
        if (found := read_card(directory, KIND).get("name")) != cls.name:
            raise DetectorError(f"{directory / CARD_FILE} describes {found!r}, expected {cls.name!r}")
        return cls()


class LogLikelihood(ZeroShot):
    """Mean log-probability of the tokens that came: 1/n sum_i ln p(x_i | x_<i).

    Machine text is likelier. Source: Solaiman et al. 2019 (arXiv 1908.09203), baseline "log p(x)" of
    DetectGPT (arXiv 2301.11305).
    """

    name = "log-likelihood"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Nats per token."""
        return float(_metric(document, "log_prob").mean())


class LogRank(ZeroShot):
    """Minus the mean log rank of the tokens that came: -1/n sum_i ln r(x_i | x_<i), r = 1 for the likeliest.

    The cached `log_rank` is ln(1 + how many tokens were likelier), so already the log of the 1-indexed rank.
    Source: baseline "LogRank" of DetectGPT (arXiv 2301.11305).
    """

    name = "log-rank"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Minus the mean log rank."""
        return -float(_metric(document, "log_rank").mean())


class FastDetectGPT(ZeroShot):
    """Conditional probability curvature, analytic: (sum_i ln p(x_i) - sum_i mu_i) / sqrt(sum_i sigma_i^2).

    mu_i and sigma_i^2 are mean and variance of the log-probability of a token drawn from the sampling model
    at position i. Here sampling and scoring model are the same (the paper's white-box setting), so mu_i is
    minus the entropy and sigma_i^2 is the cached `log_prob_variance`. Source: Bao et al. 2023 (arXiv 2310.05130).
    """

    name = "fast-detect-gpt"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Curvature in standard deviations.

        Raises:
            ValueError: when no distribution of a document has any variance: features that no model gave.
        """
        variance = _metric(document, "log_prob_variance").sum()
        if not variance > 0:
            raise ValueError(
                f"document {document.key} has a total log-probability variance of {variance}, expected above 0; "
                "extract its features again"
            )
        excess = _metric(document, "log_prob").sum() + _metric(document, "entropy").sum()
        return float(excess / np.sqrt(variance))


ZERO_SHOT: dict[str, type[ZeroShot]] = {detector.name: detector for detector in (LogLikelihood, LogRank, FastDetectGPT)}


def _metric(document: TokenFeatures, name: str) -> np.ndarray:
    """One metric of each predicted token: (n - 1,) float64."""
    return document.metrics[:, METRIC_NAMES.index(name)].astype(np.float64)
