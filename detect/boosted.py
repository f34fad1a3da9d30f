"""Gradient-boosted trees (LightGBM) on pooled features, kept as LightGBM's own text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cache.loader import LabelledCorpus
from detect.pooled import POOLINGS, Pooling
from detect.protocol import CARD_FILE, read_card
from detect.tabular import pooling_of, rows, save_pooled, table_of
from detect.trained import DetectorCard, Progress, read_weights, sha256, silent
from features.errors import DetectorError
from features.token_features import TokenFeatures

if TYPE_CHECKING:
    from lightgbm import Booster

KIND = "boosted"
MODEL_FILE = "model.txt"


@dataclass(frozen=True, kw_only=True)
class BoostingConfig:
    """The recipe.

    Attributes:
        rounds: trees at most.
        patience: trees without a better validation AUROC before training stops.
        learning_rate: share of each tree that is added.
        leaves: of a tree at most.
        depth: of a tree at most; -1: no limit.
        leaf_documents: fewest training rows in a leaf; of a small table no more than a hundredth of it, or 20.
        column_share: share of the columns that a tree may look at.
        row_share: share of the rows that a tree is grown on.
        prefixes: random prefixes of each text to learn from and to choose by, beside the whole: texts that are judged
            may be shorter than those learnt from.
        seed: of all three choices.
        threads: fixed, since sums in another order are other sums.

    Raises:
        ValueError: naming a setting that cannot be.
    """

    rounds: int = 1000
    patience: int = 50
    learning_rate: float = 0.05
    leaves: int = 15
    depth: int = -1
    leaf_documents: int = 20
    column_share: float = 0.5
    row_share: float = 0.8
    prefixes: int = 4
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("rounds", "patience", "leaf_documents", "threads"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}")
        if self.prefixes < 0:
            raise ValueError(f"expected 0 prefixes or more, got {self.prefixes}")
        if self.leaves < 2:
            raise ValueError(f"expected at least 2 leaves, got {self.leaves}")
        for name in ("learning_rate", "column_share", "row_share"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ValueError(f"expected 0 < {name} <= 1, got {value}")

    def parameters(self, rows: int) -> dict[str, Any]:
        """The same in LightGBM's words, for a table of so many rows."""
        return {
            "objective": "binary",
            "metric": "auc",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "max_depth": self.depth,
            "min_data_in_leaf": min(self.leaf_documents, max(rows // 100, 20)),
            "feature_fraction": self.column_share,
            "bagging_fraction": self.row_share,
            "bagging_freq": 1,
            "seed": self.seed,
            "num_threads": self.threads,
            "deterministic": True,
            "force_row_wise": True,  # what deterministic training asks for: no choice by timing
            "verbosity": -1,
        }


RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "lightgbm": ("metrics", {}),
    # Large leaves, few columns a tree and small steps: chosen on left-out domains.
    "profile": ("profile", {"leaves": 31, "leaf_documents": 200, "column_share": 0.1, "learning_rate": 0.025}),
    # The paper grows 200 trees of depth 12 with XGBoost; LightGBM counts leaves, of which we allow 31.
    "diveye": ("surprisal-diversity", {"rounds": 200, "depth": 12, "leaves": 31, "column_share": 1.0, "prefixes": 0}),
}
"""The boosted detectors by name: the pooling that each reads, and what it sets otherwise in the recipe."""


def recipe(name: str, *, seed: int = 0, **settings: Any) -> BoostingConfig:
    """The recipe of one of `RECIPES`, with other settings of `BoostingConfig` as given."""
    return BoostingConfig(**{"seed": seed, **RECIPES[name][1], **settings})


class BoostedDetector:
    """Boosted trees on the pooled features of a document. Scores are log-odds; higher is more machine-like.

    Args:
        card: what it is made from.
        pooling: how documents become rows.
        config: the recipe of `fit`.
        booster: trained trees; None before `fit`.
    """

    def __init__(
        self, card: DetectorCard, pooling: Pooling, config: BoostingConfig, booster: "Booster | None" = None
    ) -> None:
        self.card = card
        self.pooling = pooling
        self.config = config
        self._booster = booster

    @classmethod
    def new(cls, card: DetectorCard, name: str, config: BoostingConfig) -> Self:
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
        """Grow trees until the validation AUROC no longer rises, and keep those up to the best."""
        import lightgbm

        learnt, judged = (
            table_of(part, self.pooling, progress, prefixes=self.config.prefixes, seed=self.config.seed)
            for part in (train, validation)
        )
        names = [column.replace(" ", "_") for column in self.pooling.columns]
        data = lightgbm.Dataset(
            _rounded(learnt.vectors), learnt.labels, weight=learnt.weights, feature_name=names or "auto"
        )
        rounds: list[float] = []

        def record(environment: Any) -> None:
            rounds.append(environment.evaluation_result_list[0][2])
            place = {"round": environment.iteration + 1, "rounds": environment.end_iteration}
            progress("round", place | {"validation_auroc": rounds[-1]})

        trained = lightgbm.train(
            self.config.parameters(len(learnt.labels)),
            data,
            num_boost_round=self.config.rounds,
            valid_sets=[lightgbm.Dataset(_rounded(judged.vectors), judged.labels, reference=data)],
            callbacks=[record, lightgbm.early_stopping(self.config.patience, verbose=False)],
        )
        best = trained.best_iteration or len(rounds)
        # Written and read again, so that what is scored with now is what a loaded detector scores with.
        self._booster = _from_text(trained.model_to_string(num_iteration=best))
        progress("fitted", {"validation_auroc": rounds[best - 1]})
        course = {"config": asdict(self.config), "best_round": best, "validation_auroc": rounds}
        self.card = replace(self.card, training=self.card.training | course)
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """Log-odds (n_docs,) float64, in the order given.

        Raises:
            DetectorError: when it is not trained, or the features are not those that it was trained on.
            ValueError: when a document has no scored token.
        """
        booster = self._fitted()
        if not features:
            return np.empty(0)
        table = _rounded(rows(features, self.pooling, self.card))
        return np.asarray(booster.predict(table, raw_score=True, num_threads=self.config.threads), dtype=np.float64)

    def save(self, directory: Path) -> None:
        """Write `model.txt` and, last, `detector.json` with its hash."""
        save_pooled(directory, KIND, self.card, self.pooling, MODEL_FILE, self._content())

    def weights_sha256(self) -> str:
        """Hash of `model.txt`."""
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
            config = BoostingConfig(**card.training["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise DetectorError(f"{source} does not describe a boosted detector ({error!r})") from error
        card.check_metrics(source)
        pooling = pooling_of(record, source)
        content = read_weights(directory / MODEL_FILE, expected)
        return cls(card, pooling, config, _from_text(content.decode(), directory / MODEL_FILE))

    def _fitted(self) -> "Booster":
        if self._booster is None:
            raise DetectorError(f"detector {self.name} is not trained yet; fit it first")
        return self._booster

    def _content(self) -> bytes:
        return self._fitted().model_to_string().encode()


def _rounded(table: np.ndarray) -> np.ndarray:
    """Columns in float32: last digits, which follow the order in which sums are added up, seldom outlive it.

    They would choose between splits that are as good, and the same texts would give other trees.
    """
    return table.astype(np.float32)


def _from_text(content: str, source: Path | None = None) -> "Booster":
    import lightgbm

    try:
        return lightgbm.Booster(model_str=content)
    except lightgbm.basic.LightGBMError as error:
        raise DetectorError(f"{source} is not a LightGBM model ({error}); train the detector again") from error
