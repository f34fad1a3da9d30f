"""Zero-shot detectors that hold the predictions of two language models against each other.

The backbone is the performer (Binoculars) or scoring model (Fast-DetectGPT); the observer of the extraction is the
observer or reference model. What they need of the pair is cached (`TokenFeatures.cross`), so no model is run here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from detect.metric_columns import metric
from detect.protocol import CARD_FILE, read_card
from detect.zero_shot import ZeroShot, curvature
from features.errors import DetectorError
from features.token_features import CROSS_METRIC_NAMES, TokenFeatures

KIND = "zero-shot-pair"


class TwoModels(ZeroShot):
    """A statistic of cached metrics of two models as a detector. Subclasses say which."""

    kind: ClassVar[str] = KIND
    needs_observer: ClassVar[bool] = True

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """The statistic of each document: (n_docs,) float64.

        Raises:
            DetectorError: when the features are of one model, or have another number of metrics.
            ValueError: when a document has no scored token.
        """
        if any(document.cross is None for document in features):
            raise DetectorError(
                f"detector {self.name} reads metrics of two language models, the features have those of one; extract "
                "with --observer"
            )
        return super().score(features)


class Binoculars(TwoModels):
    """Minus the log-perplexity of the text over the cross-entropy of the observer's predictions with the performer's.

    The score of the paper, -1/n sum_i ln p_p(x_i) over -1/n sum_i sum_v p_o(v) ln p_p(v), is low for machine text;
    here its sign is flipped. The paper writes the numerator with its observer M_1 and the cross term M_1 log M_2; the
    authors' published program, which their thresholds belong to, takes the performer's perplexity, as here. Source:
    Hans et al. 2024 (arXiv 2401.12070).
    """

    name = "binoculars"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Minus a ratio of nats; below 0.

        Raises:
            ValueError: when the cross-entropy is not above 0: features that no model gave.
        """
        expected = cross(document, "cross_entropy").sum()
        if not expected > 0:
            raise ValueError(
                f"document {document.key} has a total cross-entropy of {expected}, expected above 0; extract its "
                "features again"
            )
        return float(metric(document, "log_prob").sum() / expected)


class FastDetectGPTTwo(TwoModels):
    """Conditional probability curvature with a reference model: (sum_i ln p_s(x_i) - mu_i) / sqrt(sum_i sigma_i^2).

    mu_i and sigma_i^2 are mean and variance of ln p_s under the reference model's distribution p_r at position i (the
    paper's black-box setting): mu_i is minus the cross-entropy. Source: Bao et al. 2023 (arXiv 2310.05130).
    """

    name = "fast-detect-gpt-2"

    @staticmethod
    def statistic(document: TokenFeatures) -> float:
        """Curvature in standard deviations.

        Raises:
            ValueError: when no distribution of a document has any variance: features that no model gave.
        """
        excess = metric(document, "log_prob").sum() + cross(document, "cross_entropy").sum()
        return curvature(document, excess, cross(document, "cross_variance").sum())


TWO_MODELS: dict[str, type[TwoModels]] = {detector.name: detector for detector in (Binoculars, FastDetectGPTTwo)}


def cross(document: TokenFeatures, name: str) -> np.ndarray:
    """One metric of two models, of each predicted token: (n - 1,) float64."""
    assert document.cross is not None  # `TwoModels.score` asked
    return document.cross[:, CROSS_METRIC_NAMES.index(name)].astype(np.float64)


def load_two_models(directory: Path) -> TwoModels:
    """The detector whose card is in a folder; DetectorError when there is none of its name."""
    name = read_card(directory, KIND).get("name")
    if name not in TWO_MODELS:
        raise DetectorError(f"{directory / CARD_FILE} describes {name!r}, expected one of {', '.join(TWO_MODELS)}")
    return TWO_MODELS[name].load(directory)
