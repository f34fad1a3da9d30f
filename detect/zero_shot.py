"""Detectors that need no training: statistics of the cached next-token metrics.

The scoring model is the one that made the features; no language model is run. Means and sums are float64.
Every statistic is finite for every document that it accepts, so that a corpus is never stopped by one text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from cache.loader import LabelledCorpus
from detect.lastde import SHORTEST, lastde
from detect.metric_columns import metric, ranks
from detect.protocol import CARD_FILE, read_card, write_card
from features.errors import DetectorError
from features.token_features import METRIC_NAMES, TokenFeatures

KIND = "zero-shot"


class ZeroShot:
    """A statistic of cached metrics as a detector. Subclasses say which; there is nothing to learn or store."""

    name: ClassVar[str]
    kind: ClassVar[str] = KIND
    needs_hidden: ClassVar[bool] = False

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
        write_card(directory, self.kind, {"name": self.name})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the card; DetectorError when it names another detector."""
        if (found := read_card(directory, cls.kind).get("name")) != cls.name:
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
        return float(metric(document, "log_prob").mean())


class Rank(ZeroShot):
    """Minus the mean rank of the tokens that came: -1/n sum_i r(x_i | x_<i), r = 1 for the likeliest.

    Source: baseline "Rank" of DetectGPT (arXiv 2301.11305), after GLTR (Gehrmann et al. 2019, arXiv 1906.04043).
    """

    name = "rank"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Minus the mean rank."""
        return -float(ranks(document).mean())


class LogRank(ZeroShot):
    """Minus the mean log rank of the tokens that came: -1/n sum_i ln r(x_i | x_<i), r = 1 for the likeliest.

    The cached `log_rank` is ln(1 + how many tokens were likelier), so already the log of the 1-indexed rank.
    Source: baseline "LogRank" of DetectGPT (arXiv 2301.11305).
    """

    name = "log-rank"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Minus the mean log rank."""
        return -float(metric(document, "log_rank").mean())


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
        excess = metric(document, "log_prob").sum() + metric(document, "entropy").sum()
        return curvature(document, excess, metric(document, "log_prob_variance").sum())


class Entropy(ZeroShot):
    """Minus the mean entropy of the next-token distributions: -1/n sum_i H(p(. | x_<i)).

    The literature disagrees about the sign. The hypothesis of GLTR, which DetectGPT (arXiv 2301.11305) cites for
    this baseline, is that a model is surer on machine text: low entropy is machine. The published baselines of
    Fast-DetectGPT score the entropy itself, so that high is machine. Here the hypothesis decides the sign.
    """

    name = "entropy"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Minus the mean, nats per token."""
        return -float(metric(document, "entropy").mean())


class LogLikelihoodLogRankRatio(ZeroShot):
    """How unlikely the tokens are for their ranks: -sum_i ln p(x_i) / sum_i ln r(x_i), "LRR".

    A document whose every token was the likeliest has sum_i ln r = 0. It counts as if one token had rank 2, the least
    that ranks can show above it. Source: Su et al. 2023, DetectLLM (arXiv 2306.05540).
    """

    name = "lrr"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Ratio of the two sums, nats for nats."""
        return -float(metric(document, "log_prob").sum() / max(np.log(ranks(document)).sum(), np.log(2)))


class Gltr(ZeroShot):
    """Share of the tokens that were among the ten likeliest.

    Source: GLTR's first bucket (Gehrmann et al. 2019, arXiv 1906.04043), as the baseline of RAID (arXiv 2405.07940)
    scores it. All four buckets are what `gltr-buckets` learns from.
    """

    name = "gltr"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """A share, 0 to 1."""
        return float((ranks(document) <= 10).mean())


class Lastde(ZeroShot):
    """Mean log-probability over the fluctuation of its sequence at several scales (`detect/lastde.py`).

    Source: Xu et al., ICLR 2025 (arXiv 2410.06072), the variant without sampling.
    """

    name = "lastde"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Nats per token over a deviation without unit; at most 0.

        Raises:
            ValueError: when a document is too short for the scales of the method.
        """
        log_probs = metric(document, "log_prob")
        if len(log_probs) < SHORTEST:
            raise ValueError(
                f"document {document.key} has {len(log_probs)} scored tokens, {Lastde.name} needs at least {SHORTEST}"
            )
        return lastde(log_probs)


def curvature(document: TokenFeatures, excess: float, variance: float) -> float:
    """How many standard deviations the log-probability of a document exceeds what the sampling model expects.

    Raises:
        ValueError: when there is no variance: features that no model gave.
    """
    if not variance > 0:
        raise ValueError(
            f"document {document.key} has a total log-probability variance of {variance}, expected above 0; "
            "extract its features again"
        )
    return float(excess / np.sqrt(variance))


ZERO_SHOT: dict[str, type[ZeroShot]] = {
    detector.name: detector
    for detector in (LogLikelihood, Rank, LogRank, Entropy, LogLikelihoodLogRankRatio, Gltr, FastDetectGPT, Lastde)
}


def load_zero_shot(directory: Path) -> ZeroShot:
    """The zero-shot detector whose card is in a folder; DetectorError when there is none of its name."""
    name = read_card(directory, KIND).get("name")
    if name not in ZERO_SHOT:
        raise DetectorError(f"{directory / CARD_FILE} describes {name!r}, expected one of {', '.join(ZERO_SHOT)}")
    return ZERO_SHOT[name].load(directory)
