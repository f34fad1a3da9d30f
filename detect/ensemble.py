"""Several detectors as one: the sum of their standardised scores, by weights that are fitted (stacking) or given.

Or some of them decide, and the others move their score by so much at most ("anchored"): what ranks the texts of one
domain best need not give human texts of every domain the same scores, and a larger error of theirs is not followed. Of
those that decide, some may only accuse. And some are set off against the rest: where the texts of any author are easy
to predict, human ones score too high, so that score is lowered, and that of texts hard to predict is raised.

Fitted weights are a logistic regression's, none below 0. Members learn from the training part, the weights from the
validation part, so that a member that learnt its texts by heart gains none by it. Members that stop early look at the
validation part too: a little of it is used twice. A weight below 0 would read a member backwards, which is right for
the texts fitted on and wrong for others; it is 0.

Members that read texts are given the texts that the features were computed of (`detect/text_member.py`).
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import save

from cache.loader import LabelledCorpus
from detect.catalog import KINDS, maker, read_detector, text_names, untrained, untrained_names
from detect.ensemble_recipe import EnsembleConfig
from detect.linear import Weights, weights_from_bytes
from detect.measures import auroc
from detect.protocol import (
    CARD_FILE,
    Detector,
    needs_hidden,
    needs_observer,
    read_card,
    reads_text,
    write_bytes,
    write_card,
)
from detect.tabular import balanced_weights, standardisation
from detect.text_member import KIND as TEXT_MEMBER
from detect.text_member import TextMember
from detect.trained import (
    DetectorCard,
    Progress,
    TrainableDetector,
    read_weights,
    scores_of,
    sha256,
    silent,
    streamed_scores,
)
from features.errors import DetectorError
from features.token_features import TokenFeatures

KIND = "ensemble"
WEIGHTS_FILE = "model.safetensors"
MEMBERS_FOLDER = "members"
KNEE = 0.5
"""Standard deviations over which a one-sided anchor's score bends from counting for nothing to counting in full."""
DISCOUNT_TOKENS = 100
"""Tokens of a text of which half the discount is taken: the level of a shorter text says little of its kind."""
_TOGETHER = ("weighting", "shares", "anchors", "one_sided", "discounts", "reach", "softness")
"""What of the recipe decides a score beside what was learnt."""
MEMBER_FOLDER = re.compile(r"[0-9]+-[a-z0-9-]+")
"""What a member's folder may be called: nothing that leads out of the ensemble's."""


class EnsembleDetector:
    """A weighted sum of other detectors' scores, or one of some that the others move; higher is more machine-like.

    Scores are log-odds where weights are fitted, else sums of standard deviations from means of the validation part.

    Args:
        card: what it is made from.
        config: the recipe of `fit`.
        members: in the order of the recipe.
        weights: of their scores; None before `fit`.
    """

    def __init__(
        self, card: DetectorCard, config: EnsembleConfig, members: Sequence[Detector], weights: Weights | None = None
    ) -> None:
        self.card = card
        self.config = config
        self.members = list(members)
        self._weights = weights

    @classmethod
    def new(cls, card: DetectorCard, config: EnsembleConfig) -> Self:
        """An unfitted ensemble with unfitted members."""
        return cls(card, config, [member_maker(name, config)(card) for name in config.members])

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.card.name

    @property
    def needs_hidden(self) -> bool:
        """Whether a member reads hidden states."""
        return any(needs_hidden(member) for member in self.members)

    @property
    def needs_observer(self) -> bool:
        """Whether a member reads metrics of two language models."""
        return any(needs_observer(member) for member in self.members)

    def fit(self, train: LabelledCorpus, validation: LabelledCorpus, progress: Progress = silent) -> Self:
        """Fit every member on the one part, and their weights on the other."""
        for member in self.members:
            fit_member(member, train, validation, progress)
        return self.weigh(validation, progress)

    def weigh(self, validation: LabelledCorpus, progress: Progress = silent) -> Self:
        """Fit the weights alone, of members that are trained already: the second half of `fit`."""
        table = np.stack([scores_of(member, validation.corpus) for member in self.members], axis=-1)
        self._weights = self._weigh(table, validation.labels)
        sizes = np.ones(len(table))
        if self.config.discounts:
            sizes = streamed_scores(token_counts, validation.corpus.without_hidden())
        value = auroc(validation.labels, self._combined(self._weights, table, sizes))
        progress("fitted", {"validation_auroc": value})
        course = {
            "config": asdict(self.config),
            "weights": dict(zip(self.config.members, self._recorded(self._weights).tolist(), strict=True)),
            "validation_auroc": value,
        }
        self.card = replace(self.card, training=self.card.training | course)
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """The combined scores (n_docs,) float64, in the order given.

        Raises:
            DetectorError: when it is not trained, or the features are not those that it was trained on.
            ValueError: when a document is too short for a member.
        """
        weights = self._fitted()
        if not features:
            return np.empty(0)
        table = np.stack([member.score(features) for member in self.members], axis=-1)
        return self._combined(weights, table, token_counts(features))

    def save(self, directory: Path) -> None:
        """Write a folder for each member, the weights and, last, `detector.json` with all their hashes."""
        content = save(vars(self._fitted()))
        folders = [f"{place}-{name}" for place, name in enumerate(self.config.members)]
        for folder, member in zip(folders, self.members, strict=True):
            member.save(directory / MEMBERS_FOLDER / folder)
        write_bytes(directory / WEIGHTS_FILE, content)
        members = [
            {"folder": folder, "sha256": _identity(member)}
            for folder, member in zip(folders, self.members, strict=True)
        ]
        weights = {"file": WEIGHTS_FILE, "sha256": sha256(content)}
        write_card(directory, KIND, {**asdict(self.card), "members": members, "weights": weights})

    def weights_sha256(self) -> str:
        """Hash of the hashes of the members and of `model.safetensors`, and of how scores are put together."""
        together = {name: value for name, value in asdict(self.config).items() if name in _TOGETHER}
        how = json.dumps(together | {"knee": KNEE, "discount_tokens": DISCOUNT_TOKENS}, sort_keys=True)
        parts = [*map(_identity, self.members), sha256(save(vars(self._fitted()))), sha256(how.encode())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @classmethod
    def load(cls, directory: Path, **options: Any) -> Self:
        """Read what `save` wrote.

        Args:
            directory: what it was saved to.
            options: `device` and `say` of `detect.catalog.load_detector`, for members that know them.

        Raises:
            DetectorError: when a file is missing, of another kind or format, or not what was saved.
        """
        record, source = read_card(directory, KIND), directory / CARD_FILE
        try:
            card, expected = DetectorCard.from_record(record), record["weights"]["sha256"]
            config = EnsembleConfig(**card.training["config"])
            folders = [(str(member["folder"]), str(member["sha256"])) for member in record["members"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DetectorError(f"{source} does not describe an ensemble ({error!r})") from error
        card.check_metrics(source)
        if len(folders) != len(config.members):
            raise DetectorError(f"{source} has folders of {len(folders)} members, expected {len(config.members)}")
        members = [_load_member(directory, folder, hashed, options) for folder, hashed in folders]
        content = read_weights(directory / WEIGHTS_FILE, expected)
        return cls(card, config, members, weights_from_bytes(content, len(members), directory / WEIGHTS_FILE))

    def _weigh(self, table: np.ndarray, labels: np.ndarray) -> Weights:
        if self.config.weighting == "fitted":
            return fit_weights(table, labels, self.config.inverse_penalty)
        return fixed_weights(table, np.where(self._are_anchors | (self._discounts > 0), 0.0, self._shares))

    @property
    def _shares(self) -> np.ndarray:
        """How much each member counts: (members,)."""
        return np.array([self.config.shares.get(name, 1.0) for name in self.config.members])

    @property
    def _are_anchors(self) -> np.ndarray:
        """Which members decide: (members,) bool."""
        return np.array([name in self.config.anchors for name in self.config.members])

    @property
    def _discounts(self) -> np.ndarray:
        """How much of each member is taken off: (members,)."""
        return np.array([self.config.discounts.get(name, 0.0) for name in self.config.members])

    def _recorded(self, weights: Weights) -> np.ndarray:
        """What each member counts, for people: its weight in the sum that it is part of, (members,)."""
        return np.where(self._are_anchors, self._shares, weights.coefficients - self._discounts)

    def _combined(self, weights: Weights, table: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """The members' scores (n_docs, members) of texts of so many tokens (n_docs,) as one, (n_docs,)."""
        total = weights.log_odds(table)
        if not self.config.anchors:
            return total
        standardised = (table - weights.mean) / weights.scale
        one_sided = np.array([name in self.config.one_sided for name in self.config.members])
        counted = np.where(one_sided, KNEE * np.logaddexp(0, standardised / KNEE), standardised)
        decided = counted @ (self._shares * self._are_anchors)
        discount = np.tanh(standardised) @ self._discounts * n_tokens / (n_tokens + DISCOUNT_TOKENS)
        return np.asarray(decided + self.config.reach * np.tanh(total / self.config.softness) - discount)

    def _fitted(self) -> Weights:
        if self._weights is None:
            raise DetectorError(f"detector {self.name} is not trained yet; fit it first")
        return self._weights


def token_counts(features: Sequence[TokenFeatures]) -> np.ndarray:
    """How many tokens each document has: (n_docs,) float64."""
    return np.array([document.n_tokens for document in features], dtype=np.float64)


def fit_member(
    member: Detector, train: LabelledCorpus, validation: LabelledCorpus, progress: Progress = silent
) -> Detector:
    """A member trained in place: told of its progress where it learns, asked all the same where it has nothing to."""
    if isinstance(member, TrainableDetector):
        return member.fit(train, validation, progress)
    return member.fit(train, validation)


def fit_weights(table: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> Weights:
    """Logistic regression on standardised columns with no coefficient below 0, both classes weighing the same.

    The objective is scikit-learn's: C times the sum of the weighted losses, plus half the squared coefficients.

    Args:
        table: (n_docs, members) scores.
        labels: (n_docs,) 0 human, 1 machine.
        inverse_penalty: C.
    """
    from scipy.optimize import minimize  # 0.3 s to import, and scoring has no use for it

    mean, scale = standardisation(table)
    inputs = np.column_stack([(table - mean) / scale, np.ones(len(table))])  # (n_docs, members + 1)
    signs, weights = np.where(labels == 1, 1.0, -1.0), balanced_weights(labels)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (inputs @ parameters)
        penalised = np.append(parameters[:-1], 0.0)  # the intercept is free
        loss = inverse_penalty * (weights * np.logaddexp(0, -margins)).sum() + 0.5 * (penalised**2).sum()
        slopes = -inverse_penalty * weights * signs / (1 + np.exp(margins.clip(-500, 500)))
        return float(loss), inputs.T @ slopes + penalised

    bounds = [(0.0, None)] * table.shape[1] + [(None, None)]
    found = minimize(
        objective,
        np.zeros(inputs.shape[1]),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"ftol": 1e-14, "gtol": 1e-8, "maxiter": 10_000},
    )
    return Weights(mean, scale, found.x[:-1].copy(), found.x[-1:].copy())


def fixed_weights(table: np.ndarray, shares: np.ndarray) -> Weights:
    """The sum of standardised columns by shares, standardised: of mean 0 and standard deviation 1 over the table.

    Not log-odds: their scale grows the easier the texts are to tell apart. Trainings without one domain or another
    differ in that, and the scores that they give human texts of the one left out are put side by side to calibrate.

    Args:
        table: (n_docs, members) scores.
        shares: (members,) of 0 or above, not all of them 0.
    """
    mean, scale = standardisation(table)
    spread = (((table - mean) / scale) @ shares).std()
    return Weights(mean, scale, shares / (spread if spread > 1e-9 else 1.0), np.zeros(1))  # members may cancel out


def member_maker(name: str, config: EnsembleConfig) -> Callable[[DetectorCard], Detector]:
    """What makes an unfitted member from the card of its ensemble; its recipe is checked now.

    Raises:
        UsageError: when no detector has that name, or a setting of its recipe cannot be.
    """
    if name in untrained_names():
        return lambda card: untrained(name)
    settings = {"seed": config.seed, **config.recipes.get(name, {})}
    if name in text_names():
        from detect.text_recipes import text_recipe  # loads the code of every kind, which scoring has no use for

        text_recipe(name, **settings)
        return lambda card: TextMember.new(name, settings, card.backbone)
    make = maker(name, **settings)
    return lambda card: make(DetectorCard(name=name, backbone=card.backbone))


def _load_member(directory: Path, folder: str, expected: str, options: Mapping[str, Any]) -> Detector:
    if not MEMBER_FOLDER.fullmatch(folder):
        raise DetectorError(f"{directory / CARD_FILE} names member folder {folder!r}, expected a place and a name")
    path = directory / MEMBERS_FOLDER / folder
    if read_card(path).get("kind") == KIND:
        raise DetectorError(f"{path} is an ensemble; members are of the kinds {', '.join(set(KINDS) - {KIND})}")
    member = read_detector(path, **options)
    if reads_text(member):
        raise DetectorError(f"{path} is a detector of texts by itself, expected one of kind {TEXT_MEMBER!r} around it")
    if (found := _identity(member)) != expected:
        raise DetectorError(
            f"{path} holds a member with hash {found}, {CARD_FILE} of the ensemble says {expected}; train it again"
        )
    return member


def _identity(member: Detector) -> str:
    """Hash of what a member learnt, or of its name where it learns nothing."""
    return member.weights_sha256() if isinstance(member, TrainableDetector) else sha256(member.name.encode())
