"""What an ensemble is made of and how its members' scores become one; `detect/ensemble.py` does it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WEIGHTINGS = ("fitted", "fixed", "anchored")


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """The recipe.

    Attributes:
        members: names of the catalog, at least two, each once, no ensemble among them.
        weighting: "fitted" weighs members by a logistic regression on the validation part. "fixed" lets standardised
            scores count by their shares: on texts like those trained on, the member that knows them best would get
            nearly all the weight, and it need not be the one that knows others. "anchored" adds to the standardised
            scores of `anchors`, by their shares, the sum of the others, as "fixed" has it, bounded: `reach` x
            tanh(sum / `softness`).
        shares: how much members count under "fixed" and "anchored", by name; 1 for those not named.
        anchors: the members that decide under "anchored".
        one_sided: those anchors that only ever raise the score: of theirs, softplus counts (`detect.ensemble.KNEE`).
            What finds a text of kinds that it knows to be human-like need not know the kind at hand.
        discounts: how much of some other members is taken off the sum under "anchored", by name: their standardised
            score through tanh, times n / (n + `detect.ensemble.DISCOUNT_TOKENS`) for a text of n tokens. They say what
            a text is like rather than who wrote it, as `entropy` does: where they are high, the rest score human texts
            too high. Where they are low, it is added.
        reach: standard deviations of a member by which the others move the score at most.
        softness: standard deviations of the others' sum at which they do so by three quarters of that.
        recipes: settings of members' own recipes, by name: of `detect.catalog.maker`, and of
            `detect.text_recipes.text_recipe` for those that read texts.
        inverse_penalty: scikit-learn's C, the inverse of the L2 penalty on fitted weights.
        seed: of every member whose recipe has none of its own.

    Raises:
        ValueError: when there are too few members, one twice, an ensemble, a recipe or share of none of them, no such
            weighting, shares or discounts where none are asked for or not above 0, anchors that are no members, all of
            them or not asked for, one-sided members that are no anchors, discounts of anchors, of all the others or of
            what has a share, or a reach or softness not above 0.
    """

    members: tuple[str, ...]
    weighting: str = "fitted"
    shares: Mapping[str, float] = field(default_factory=dict)
    anchors: tuple[str, ...] = ()
    one_sided: tuple[str, ...] = ()
    discounts: Mapping[str, float] = field(default_factory=dict)
    reach: float = 1.0
    softness: float = 1.0
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inverse_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("members", "anchors", "one_sided"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        if len(self.members) < 2 or len(set(self.members)) < len(self.members) or RECIPES.keys() & set(self.members):
            raise ValueError(f"expected at least 2 distinct members, no ensemble among them, got {list(self.members)}")
        for what, given in (("recipes", self.recipes), ("shares", self.shares), ("discounts", self.discounts)):
            if unknown := sorted(set(given) - set(self.members)):
                raise ValueError(f"got {what} of {', '.join(unknown)}, expected only of {', '.join(self.members)}")
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"expected weighting to be one of {', '.join(WEIGHTINGS)}, got {self.weighting!r}")
        if self.shares and self.weighting == "fitted":
            raise ValueError(f"shares count under weighting 'fixed' and 'anchored' only, got {dict(self.shares)}")
        for what, given in (("shares", self.shares), ("discounts", self.discounts)):
            if not all(0 < share < math.inf for share in given.values()):
                raise ValueError(f"expected finite {what} above 0, got {dict(given)}")
        self._check_anchors()
        if not self.inverse_penalty > 0:
            raise ValueError(f"expected an inverse penalty above 0, got {self.inverse_penalty}")

    def _check_anchors(self) -> None:
        if (self.weighting == "anchored") != bool(self.anchors):
            raise ValueError(f"anchors go with weighting 'anchored', got {list(self.anchors)} with {self.weighting!r}")
        if self.anchors and not set(self.anchors) < set(self.members):
            raise ValueError(
                f"expected the anchors to be some of {', '.join(self.members)} and others to be left, got "
                f"{list(self.anchors)}"
            )
        if self.discounts and not self.anchors:
            raise ValueError(f"discounts count under weighting 'anchored' only, got {dict(self.discounts)}")
        if self.discounts and not set(self.members) - set(self.anchors) > set(self.discounts):
            raise ValueError(
                f"expected discounts of some members beside the anchors {list(self.anchors)}, and others to be left, "
                f"got {dict(self.discounts)}"
            )
        if idle := sorted(set(self.discounts) & set(self.shares)):
            raise ValueError(f"got a share and a discount of {', '.join(idle)}, expected one of them")
        if not set(self.one_sided) <= set(self.anchors):
            raise ValueError(
                f"expected one-sided members among the anchors {list(self.anchors)}, got {list(self.one_sided)}"
            )
        if not (0 < self.reach < math.inf and 0 < self.softness < math.inf):
            raise ValueError(f"expected a finite reach and softness above 0, got {self.reach} and {self.softness}")


RECIPES: dict[str, dict[str, Any]] = {
    "ensemble": {},
    "pawn-ensemble": {
        "members": ("pawn", "profile", "bilinear", "covariance", "fast-detect-gpt", "entropy"),
        "weighting": "anchored",
        "anchors": ("profile", "covariance", "fast-detect-gpt"),
        # Samples of base models look human to the map of `covariance`, and hot ones to Fast-DetectGPT; neither must
        # acquit what `profile` finds.
        "one_sided": ("covariance", "fast-detect-gpt"),
        "shares": {"covariance": 0.75, "fast-detect-gpt": 0.25},
        "discounts": {"entropy": 0.4},
        # A helping of log-likelihood costs where it points the wrong way.
        "recipes": {"pawn": {"epochs": 4, "likelihood_weight": 0.0}},
    },
}
"""The ensembles by name: what each settles in the recipe; of `recipes`, what a caller gives of a member goes first."""


def recipe(name: str, *, seed: int = 0, **settings: Any) -> EnsembleConfig:
    """The recipe of one of `RECIPES`, with other settings of `EnsembleConfig` as given.

    Raises:
        ValueError: when a setting cannot be, or is one that the name has settled.
    """
    own = dict(RECIPES[name])
    recipes = {**own.pop("recipes", {}), **settings.pop("recipes", {})}
    if settled := sorted(own.keys() & settings.keys()):
        raise ValueError(f"{name} settles {', '.join(settled)}; train 'ensemble' to choose")
    return EnsembleConfig(seed=seed, recipes=recipes, **own, **settings)
