"""Stacking: weights against scikit-learn's where it may have them, members kept whole, folders that stay inside."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cache.loader import LabelledCorpus
from detect.catalog import new_detector, read_detector
from detect.ensemble import EnsembleDetector, fit_weights, fixed_weights
from detect.measures import auroc
from detect.protocol import needs_hidden
from detect.tfidf import TfidfDetector
from detect.trained import TrainableDetector, streamed_scores
from features.errors import DetectorError, UsageError
from tests.cache.feature_makers import HIDDEN_SIZE
from tests.detect.labelled_texts import make_texts
from tests.detect.made_up import document, labelled

MEMBERS = ("log-likelihood", "lightgbm", "logistic")
RECIPES = {"lightgbm": {"rounds": 20}}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpus:
    return labelled(tmp_path_factory.mktemp("train"), 160)


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpus:
    return labelled(tmp_path_factory.mktemp("validation"), 120, first=1000)


def make(members: tuple[str, ...] = MEMBERS, **settings: Any) -> EnsembleDetector:
    detector = new_detector("ensemble", hidden_size=HIDDEN_SIZE, members=members, recipes=RECIPES, **settings)
    assert isinstance(detector, EnsembleDetector)
    return detector


@pytest.fixture(scope="module")
def fitted(train: LabelledCorpus, validation: LabelledCorpus) -> EnsembleDetector:
    return make().fit(train, validation)


@pytest.fixture(scope="module")
def others() -> list:
    return [document(5000 + number, number % 2) for number in range(200)]


def scores_and_labels(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three columns of other units that rank machine texts higher, unequally many of each class."""
    rng = np.random.default_rng(seed)
    labels = (rng.uniform(size=count) < 0.3).astype(int)
    return np.stack([scale * (rng.normal(size=count) + labels) for scale in (1, 100, 1e-3)], axis=-1), labels


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0])
def test_weights_are_scikit_learns_where_none_would_be_negative(inverse_penalty: float) -> None:
    table, labels = scores_and_labels(300)
    standardised = (table - table.mean(0)) / table.std(0)
    counts = np.bincount(labels)
    weights = (len(labels) / (2 * counts))[labels]
    twin = LogisticRegression(C=inverse_penalty, max_iter=10_000, tol=1e-10)
    twin.fit(standardised, labels, sample_weight=weights)
    assert (twin.coef_ > 0).all()
    found = fit_weights(table, labels, inverse_penalty)
    np.testing.assert_allclose(found.coefficients, twin.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(found.log_odds(table), twin.decision_function(standardised), rtol=1e-3, atol=1e-4)


def test_a_member_that_ranks_backwards_gets_no_weight() -> None:
    table, labels = scores_and_labels(300)
    table[:, 1] *= -1
    found = fit_weights(table, labels, 1.0).coefficients
    assert found[1] == 0
    assert (found[[0, 2]] > 0.1).all()
    alone = fit_weights(table[:, [0, 2]], labels, 1.0).coefficients
    np.testing.assert_allclose(found[[0, 2]], alone, rtol=1e-4)


def test_a_constant_member_gets_no_weight() -> None:
    table, labels = scores_and_labels(100)
    table[:, 0] = 3.0
    assert fit_weights(table, labels, 1.0).coefficients[0] == 0


def test_fixed_weighting_is_the_standardised_sum_of_standardised_scores_by_their_shares() -> None:
    table, _ = scores_and_labels(400)
    shares = np.array([1.0, 0.25, 2.0])
    found = fixed_weights(table, shares).log_odds(table)
    columns = [(column - statistics.fmean(column)) / statistics.pstdev(column) for column in table.T.copy()]
    total = sum(share * column for share, column in zip(shares, columns, strict=True))
    np.testing.assert_allclose(found, total / statistics.pstdev(total), rtol=1e-9)


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_members_that_say_the_same_of_all_texts_or_cancel_out_have_small_weights(value: float) -> None:
    constant = np.full((7, 2), value)
    assert np.abs(fixed_weights(constant, np.ones(2)).log_odds(constant + 0.1)).max() < 1
    column = scores_and_labels(400)[0][:, :1]
    opposed = np.hstack([column, 1 - 3 * column])
    assert np.abs(fixed_weights(opposed, np.ones(2)).coefficients).max() == 1


def test_members_without_a_share_count_once(train, validation) -> None:
    settings = {"members": ("rank", "log-likelihood"), "weighting": "fixed", "shares": {"rank": 0.5}}
    detector = new_detector("ensemble", hidden_size=HIDDEN_SIZE, **settings).fit(train, validation)
    weights = detector.card.training["weights"]
    assert weights["rank"] == pytest.approx(weights["log-likelihood"] / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "fixed", "shares": {"rank": 0.0}}, r"expected finite shares above 0, got {'rank': 0.0}"),
        (
            {"weighting": "fixed", "shares": {"rank": float("nan")}},
            r"finite shares above 0, got {'rank': nan}",
        ),
        ({"shares": {"rank": 2.0}}, r"shares count under weighting 'fixed' and 'anchored' only, got {'rank': 2.0}"),
        ({"shares": {"entropy": 1.0}}, "got shares of entropy, expected only of rank, log-likelihood"),
    ],
)
def test_shares_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        new_detector("ensemble", hidden_size=HIDDEN_SIZE, members=("rank", "log-likelihood"), **settings)


def test_others_move_the_score_of_anchors_by_the_reach_at_most(train, validation, others, tmp_path: Path) -> None:
    settings = {"members": ("rank", "entropy", "lastde", "lrr"), "shares": {"rank": 2.0, "lrr": 0.5}, "reach": 0.7}
    anchored = {"weighting": "anchored", "anchors": ("entropy", "lrr"), "softness": 0.3}
    detector = new_detector("ensemble", hidden_size=HIDDEN_SIZE, **anchored, **settings).fit(train, validation)
    assert isinstance(detector, EnsembleDetector)
    learnt = np.stack([streamed_scores(member.score, validation.corpus) for member in detector.members], axis=-1)
    judged = np.stack([member.score(others) for member in detector.members], axis=-1)
    rank, entropy, lastde, lrr = (((judged - learnt.mean(0)) / learnt.std(0))[:, place] for place in range(4))
    of_learnt = (learnt - learnt.mean(0)) / learnt.std(0)
    total = (2 * rank + lastde) / (2 * of_learnt[:, 0] + of_learnt[:, 2]).std()
    found = detector.score(others)
    decided = entropy + 0.5 * lrr
    np.testing.assert_allclose(found, decided + 0.7 * np.tanh(total / 0.3), rtol=1e-9, atol=1e-9)
    assert 0.5 < np.abs(found - decided).max() <= 0.7
    detector.save(tmp_path)
    assert read_detector(tmp_path).score(others).tolist() == found.tolist()


@pytest.mark.parametrize(
    "other",
    [
        {"one_sided": ()},
        {"anchors": ("lrr",)},
        {"reach": 0.5},
        {"softness": 0.5},
        {"shares": {"lrr": 0.5}},
        {"discounts": {"log-rank": 0.5}},
    ],
)
def test_what_puts_the_same_members_together_otherwise_has_another_hash(train, validation, other: dict) -> None:
    settings = {"members": ("rank", "entropy", "lrr", "log-rank"), "weighting": "anchored"}
    settings |= {"anchors": ("entropy", "lrr"), "one_sided": ("lrr",)}
    one, same, another = (
        new_detector("ensemble", hidden_size=HIDDEN_SIZE, **settings | more).fit(train, validation)
        for more in ({}, {"seed": 4}, other)
    )
    assert one.weights_sha256() == same.weights_sha256() != another.weights_sha256()


def test_a_one_sided_anchor_accuses_and_never_acquits(train, validation, others, tmp_path: Path) -> None:
    settings = {"members": ("rank", "entropy", "lrr"), "weighting": "anchored", "anchors": ("entropy", "lrr")}
    one_sided = {"one_sided": ("lrr",), "shares": {"lrr": 2.0}}
    detector = new_detector("ensemble", hidden_size=HIDDEN_SIZE, **settings, **one_sided).fit(train, validation)
    learnt = np.stack([streamed_scores(member.score, validation.corpus) for member in detector.members], axis=-1)
    judged = np.stack([member.score(others) for member in detector.members], axis=-1)
    rank, entropy, lrr = ((judged - learnt.mean(0)) / learnt.std(0)).T
    found = detector.score(others)
    raised = found - entropy - np.tanh(rank)
    np.testing.assert_allclose(raised, [math.log1p(math.exp(2 * value)) for value in lrr], rtol=1e-9)
    assert raised.min() > 0
    assert raised[lrr < -1].max() < 0.14
    assert np.abs(raised - 2 * lrr)[lrr > 1].max() < 0.13
    detector.save(tmp_path)
    assert read_detector(tmp_path).score(others).tolist() == found.tolist()


def test_a_discount_is_taken_off_and_grows_with_the_length(train, validation, others, tmp_path: Path) -> None:
    settings = {"members": ("rank", "entropy", "lrr"), "weighting": "anchored", "anchors": ("lrr",)}
    discounts = {"discounts": {"entropy": 0.7}}
    detector = new_detector("ensemble", hidden_size=HIDDEN_SIZE, **settings, **discounts).fit(train, validation)
    learnt = np.stack([streamed_scores(member.score, validation.corpus) for member in detector.members], axis=-1)
    judged = np.stack([member.score(others) for member in detector.members], axis=-1)
    rank, entropy, lrr = ((judged - learnt.mean(0)) / learnt.std(0)).T
    found = detector.score(others)
    taken = lrr + np.tanh(rank) - found
    sizes = [len(document.token_ids) for document in others]
    expected = [0.7 * math.tanh(value) * n / (n + 100) for value, n in zip(entropy, sizes, strict=True)]
    assert len(set(sizes)) > 1
    assert min(expected) < 0 < max(expected)  # raised where the discounted score is low
    np.testing.assert_allclose(taken, expected, rtol=1e-9, atol=1e-12)
    detector.save(tmp_path)
    assert read_detector(tmp_path).score(others).tolist() == found.tolist()
    assert detector.card.training["weights"]["entropy"] == -0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discounts": {"rank": 0.5}}, r"discounts count under weighting 'anchored' only, got {'rank': 0.5}"),
        (
            {"weighting": "anchored", "anchors": ("rank",), "discounts": {"log-likelihood": 0.5}},
            r"beside the anchors \['rank'\], and others to be left, got {'log-likelihood': 0.5}",
        ),
        (
            {
                "members": ("rank", "log-likelihood", "entropy"),
                "weighting": "anchored",
                "anchors": ("rank",),
                "discounts": {"entropy": 0.5},
                "shares": {"entropy": 2.0},
            },
            "got a share and a discount of entropy, expected one of them",
        ),
        (
            {"weighting": "anchored", "anchors": ("rank",), "discounts": {"rank": -0.5}},
            r"expected finite discounts above 0, got {'rank': -0.5}",
        ),
        (
            {"weighting": "anchored", "anchors": ("rank",), "one_sided": ("log-likelihood",)},
            r"expected one-sided members among the anchors \['rank'\], got \['log-likelihood'\]",
        ),
        ({"weighting": "anchored"}, r"anchors go with weighting 'anchored', got \[\] with 'anchored'"),
        ({"anchors": ("rank",)}, r"anchors go with weighting 'anchored', got \['rank'\] with 'fitted'"),
        ({"weighting": "anchored", "anchors": ["lrr"]}, r"anchors to be some of rank, .* got \['lrr'\]"),
        (
            {"weighting": "anchored", "anchors": ("rank", "log-likelihood")},
            r"and others to be left, got \['rank', 'log-likelihood'\]",
        ),
        (
            {"weighting": "anchored", "anchors": ("rank",), "reach": 0.0},
            "expected a finite reach and softness above 0, got 0.0 and 1.0",
        ),
    ],
)
def test_anchors_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        new_detector("ensemble", hidden_size=HIDDEN_SIZE, **{"members": ("rank", "log-likelihood")} | settings)


def test_a_recipe_of_an_ensemble_settles_its_members() -> None:
    with pytest.raises(UsageError, match="pawn-ensemble settles members; train 'ensemble' to choose"):
        new_detector("pawn-ensemble", hidden_size=HIDDEN_SIZE, members=("pawn", "lightgbm"))
    detector = new_detector("pawn-ensemble", hidden_size=HIDDEN_SIZE, seed=3)
    assert isinstance(detector, EnsembleDetector)
    deciding, moving = ["profile", "covariance", "fast-detect-gpt"], ["pawn", "bilinear"]
    assert {member.name for member in detector.members} == {*deciding, *moving, "entropy"}
    assert list(detector.config.anchors) == deciding
    assert detector.config.one_sided == ("covariance", "fast-detect-gpt")
    assert list(detector.config.discounts) == ["entropy"]


def test_an_ensemble_is_the_weighted_sum_of_its_standardised_members(
    fitted: EnsembleDetector, validation: LabelledCorpus, others: list
) -> None:
    table = np.stack([streamed_scores(member.score, validation.corpus) for member in fitted.members], axis=-1)
    weights = fitted.card.training["weights"]
    assert list(weights) == list(MEMBERS)
    own = np.stack([member.score(others) for member in fitted.members], axis=-1)
    expected = ((own - table.mean(0)) / table.std(0)) @ np.array(list(weights.values()))
    found = fitted.score(others)
    assert np.ptp(found - expected) == pytest.approx(0, abs=1e-9)  # the intercept
    labels = np.arange(200) % 2
    assert auroc(labels, found) > max(auroc(labels, column) for column in own.T) - 0.02
    assert fitted.score([]).shape == (0,)


def test_members_learn_from_the_training_part(train, validation, fitted: EnsembleDetector) -> None:
    alone = new_detector("lightgbm", hidden_size=HIDDEN_SIZE, rounds=20).fit(train, validation)
    member = fitted.members[1]
    assert isinstance(member, TrainableDetector)
    assert member.weights_sha256() == alone.weights_sha256()


def test_a_saved_ensemble_scores_as_before(fitted: EnsembleDetector, others: list, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = read_detector(tmp_path)
    assert isinstance(loaded, EnsembleDetector)
    assert isinstance(loaded, TrainableDetector)
    assert loaded.score(others).tolist() == fitted.score(others).tolist()
    assert loaded.weights_sha256() == fitted.weights_sha256()
    assert sorted(path.name for path in (tmp_path / "members").iterdir()) == [
        "0-log-likelihood",
        "1-lightgbm",
        "2-logistic",
    ]


def test_the_same_seed_gives_the_same_ensemble_and_another_another(train, validation, fitted) -> None:
    assert make().fit(train, validation).weights_sha256() == fitted.weights_sha256()
    assert make(seed=1).fit(train, validation).weights_sha256() != fitted.weights_sha256()


def test_an_ensemble_reads_hidden_states_when_a_member_does(fitted: EnsembleDetector) -> None:
    assert needs_hidden(fitted)
    assert not needs_hidden(make(("lastde", "lightgbm")))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (("lastde",), r"expected at least 2 distinct members, no ensemble among them, got \['lastde'\]"),
        (("lastde", "lastde"), "at least 2 distinct members"),
        (("lightgbm", "ensemble"), "no ensemble among them"),
        (("lightgbm", "nobody"), "no detector named 'nobody' can be trained"),
    ],
)
def test_members_that_cannot_be_are_refused_before_any_is_trained(members: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        new_detector("ensemble", hidden_size=HIDDEN_SIZE, members=members)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="ensemble cannot be trained like that: got recipes of pawn, expected only of"):
        new_detector("ensemble", hidden_size=5, members=("lastde", "rank"), recipes={"pawn": {}})
    with pytest.raises(UsageError, match="expected an inverse penalty above 0, got 0"):
        new_detector("ensemble", hidden_size=5, members=("lastde", "rank"), inverse_penalty=0)
    with pytest.raises(UsageError, match=r"lightgbm cannot be trained like that: .*rounds of at least 1, got 0"):
        new_detector("ensemble", hidden_size=5, members=("lastde", "lightgbm"), recipes={"lightgbm": {"rounds": 0}})


def test_an_ensemble_that_was_never_trained_says_so(others: list) -> None:
    with pytest.raises(DetectorError, match="detector ensemble is not trained yet; fit it first"):
        make().score(others)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["members"][1].update(folder="../1-lightgbm"), r"names member folder '\.\./1-lightgbm'"),
        (lambda card: card["members"][1].update(folder="/etc"), "names member folder '/etc', expected a place and a n"),
        (lambda card: card["members"][1].update(sha256="0" * 64), "ensemble says 0000.*; train it again"),
        (lambda card: card["members"].pop(), "has folders of 2 members, expected 3"),
        (lambda card: card["members"][1].update(folder="2-logistic"), "2-logistic holds a member with hash"),
        (lambda card: card["members"][1].update(folder="7-gone"), "cannot read .*7-gone"),
        (lambda card: card["weights"].update(sha256="0" * 64), "model.safetensors has SHA-256"),
        (lambda card: card.pop("members"), "does not describe an ensemble .KeyError.'members'"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(fitted: EnsembleDetector, change, message: str, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    card = json.loads((tmp_path / "detector.json").read_text())
    change(card)
    (tmp_path / "detector.json").write_text(json.dumps(card))
    with pytest.raises(DetectorError, match=message):
        EnsembleDetector.load(tmp_path)


def test_an_ensemble_inside_an_ensemble_is_refused(fitted: EnsembleDetector, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    fitted.save(tmp_path / "members" / "1-lightgbm")
    with pytest.raises(DetectorError, match="1-lightgbm is an ensemble; members are of the kinds"):
        EnsembleDetector.load(tmp_path)


def test_a_bare_detector_of_texts_inside_an_ensemble_is_refused(fitted: EnsembleDetector, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    words = TfidfDetector("words")
    words.fit(make_texts(16), make_texts(8, seed=1))
    words.save(tmp_path / "members" / "1-lightgbm")
    with pytest.raises(
        DetectorError, match="1-lightgbm is a detector of texts by itself, expected one of kind 'text-member'"
    ):
        EnsembleDetector.load(tmp_path)
