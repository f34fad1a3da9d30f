"""Logistic regression on pooled features: fitted by scikit-learn, scored by a dot product."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cache.loader import LabelledCorpus
from detect.measures import auroc
from detect.pooled import POOLINGS, Pooling
from detect.protocol import CARD_FILE, read_card
from detect.tabular import Table, pooling_of, rows, save_pooled, standardisation, table_of
from detect.trained import DetectorCard, Progress, read_weights, sha256, silent
from features.errors import DetectorError
from features.token_features import TokenFeatures

KIND = "linear"
WEIGHTS_FILE = "model.safetensors"

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    # The penalty that is best on texts like those trained on is weaker than the one that is best on others.
    "bilinear": ("hidden-covariance", {"inverse_penalties": (3e-4,)}),
    # So strong a penalty leaves little but what sets the classes apart in every domain: it ranks worse than `bilinear`,
    # and its scores of human texts move far less from one domain to another. Means tell the domain most of all.
    "covariance": ("hidden-covariance-6", {"inverse_penalties": (1.5e-5,), "mean_penalty": 3.0}),
    "gltr-buckets": ("rank-buckets", {"prefixes": 0}),
    "logistic": ("mean-hidden", {}),
}
"""The linear detectors by name: the pooling that each reads, and what it sets otherwise in the recipe."""


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """The recipe.

    Attributes:
        inverse_penalties: scikit-learn's C, the inverse of the L2 penalty; the one with the best validation AUROC is
            taken, the smallest of equals.
        mean_penalty: how many times the penalty of the others the first block of the pooling bears, which is that of
            the means where it has several blocks.
        iterations: of the solver at most.
        prefixes: random prefixes of each text to learn from and to choose by, beside the whole: texts that are judged
            may be shorter than those learnt from.
        seed: of the prefixes.

    Raises:
        ValueError: when there is no penalty to try, one is not above 0, or the prefixes are less than 0.
    """

    inverse_penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    mean_penalty: float = 1.0
    iterations: int = 5000
    prefixes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inverse_penalties", tuple(self.inverse_penalties))  # JSON has lists
        if not self.inverse_penalties or min(self.inverse_penalties) <= 0:
            raise ValueError(f"expected inverse penalties above 0, got {self.inverse_penalties}")
        if not self.mean_penalty > 0:
            raise ValueError(f"expected a penalty of means above 0, got {self.mean_penalty}")
        if self.prefixes < 0:
            raise ValueError(f"expected 0 prefixes or more, got {self.prefixes}")


def recipe(name: str, *, seed: int = 0, **settings: Any) -> LinearConfig:
    """The recipe of one of `RECIPES`, with other settings of `LinearConfig` as given."""
    return LinearConfig(**{"seed": seed, **RECIPES[name][1], **settings})


@dataclass(frozen=True, eq=False)
class Weights:
    """Of a linear map of standardised columns: three of (columns,), and one number; all float64.

    What it gives are log-odds where a logistic regression fitted it, as it did but for ensembles of fixed weights.
    """

    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray  # (1,)

    def log_odds(self, table: np.ndarray) -> np.ndarray:
        """(n_docs, columns) to (n_docs,)."""
        # Row by row: a product of matrices adds up a row otherwise in other company.
        standardised = (table - self.mean) / self.scale
        return (standardised * self.coefficients).sum(-1) + self.intercept[0]


class LinearDetector:
    """Logistic regression on the pooled features of a document. Scores are log-odds; higher is more machine-like.

    Args:
        card: what it is made from.
        pooling: how documents become rows.
        config: the recipe of `fit`.
        weights: trained ones; None before `fit`.
    """

    def __init__(
        self, card: DetectorCard, pooling: Pooling, config: LinearConfig, weights: Weights | None = None
    ) -> None:
        self.card = card
        self.pooling = pooling
        self.config = config
        self._weights = weights

    @classmethod
    def new(cls, card: DetectorCard, name: str, config: LinearConfig) -> Self:
        """An unfitted detector on the pooling of one of `RECIPES`."""
        return cls(card, POOLINGS[RECIPES[name][0]], config)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.card.name

    @property
    def needs_hidden(self) -> bool:
        """Whether scoring reads hidden states."""
        return self.pooling.needs_hidden

    def fit(self, train: LabelledCorpus, validation: LabelledCorpus, progress: Progress = silent) -> Self:
        """Fit with each penalty, and keep the fit with the best validation AUROC."""
        learnt, judged = (
            table_of(part, self.pooling, progress, prefixes=self.config.prefixes, seed=self.config.seed)
            for part in (train, validation)
        )
        mean, scale = standardisation(learnt.vectors)
        size = len(mean) // self.pooling.blocks
        # A column that is made smaller needs a larger coefficient, and so bears more of the penalty.
        smaller = np.append(np.full(size, self.config.mean_penalty**-0.5), np.ones(len(mean) - size))
        inputs = replace(learnt, vectors=(learnt.vectors - mean) * (smaller / scale))
        found: dict[float, float] = {}
        for inverse_penalty in sorted(self.config.inverse_penalties):
            coefficients, intercept = _fit(inputs, inverse_penalty, self.config.iterations)
            weights = Weights(mean, scale, coefficients * smaller, intercept)
            value = auroc(judged.labels, weights.log_odds(judged.vectors))
            if value > max(found.values(), default=-1.0):
                self._weights, best = weights, inverse_penalty
            found[inverse_penalty] = value
        progress("fitted", {"validation_auroc": found[best]})
        course = {
            "config": asdict(self.config),
            "inverse_penalty": best,
            "validation_auroc": [found[penalty] for penalty in self.config.inverse_penalties],
        }
        self.card = replace(self.card, training=self.card.training | course)
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """Log-odds (n_docs,) float64, in the order given.

        Raises:
            DetectorError: when it is not trained, or the features are not those that it was trained on.
            ValueError: when a document has no scored token.
        """
        weights = self._fitted()
        return weights.log_odds(rows(features, self.pooling, self.card)) if features else np.empty(0)

    def save(self, directory: Path) -> None:
        """Write `model.safetensors` and, last, `detector.json` with its hash."""
        save_pooled(directory, KIND, self.card, self.pooling, WEIGHTS_FILE, self._content())

    def weights_sha256(self) -> str:
        """Hash of `model.safetensors`."""
        return sha256(self._content())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DetectorError: when a file is missing, of another kind or format, or not what was saved.
        """
        record, source = read_card(directory, KIND), directory / CARD_FILE
        try:
            card, expected = DetectorCard.from_record(record), record["weights"]["sha256"]
            config = LinearConfig(**card.training["config"])
            hidden_size = 0 if record["columns"] else int(card.backbone["hidden_size"])
        except (KeyError, TypeError, ValueError) as error:
            raise DetectorError(f"{source} does not describe a linear detector ({error!r})") from error
        card.check_metrics(source)
        pooling = pooling_of(record, source)
        size = len(pooling.columns) or pooling.blocks * hidden_size
        content = read_weights(directory / WEIGHTS_FILE, expected)
        return cls(card, pooling, config, weights_from_bytes(content, size, directory / WEIGHTS_FILE))

    def _fitted(self) -> Weights:
        if self._weights is None:
            raise DetectorError(f"detector {self.name} is not trained yet; fit it first")
        return self._weights

    def _content(self) -> bytes:
        return save(vars(self._fitted()))


def _fit(table: Table, inverse_penalty: float, iterations: int) -> tuple[Any, Any]:
    """Coefficients (columns,) and intercept (1,); a document counts as one, however many rows it has."""
    from sklearn.linear_model import LogisticRegression

    documents_per_row = 1 / table.rows_per_document
    model = LogisticRegression(C=inverse_penalty, max_iter=iterations)
    model.fit(table.vectors, table.labels, sample_weight=table.weights * documents_per_row)
    return model.coef_[0], model.intercept_


def weights_from_bytes(content: bytes, size: int, source: Path) -> Weights:
    """Weights of so many columns; DetectorError when the file holds anything else."""
    try:
        weights = Weights(**load(content))
        shapes = {name: value.shape for name, value in vars(weights).items()}
    except (SafetensorError, TypeError) as error:
        raise DetectorError(f"{source} holds no linear weights ({error})") from error
    expected = dict.fromkeys(("mean", "scale", "coefficients"), (size,)) | {"intercept": (1,)}
    if shapes != expected:
        raise DetectorError(f"{source} holds arrays of shapes {shapes}, expected {expected}")
    return weights
