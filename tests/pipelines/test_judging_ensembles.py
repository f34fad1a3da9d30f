"""Ensembles as contenders of a benchmark: what is alike learns once, and scores as if it had learnt alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from detect.boosted import BoostedDetector
from detect.linear import LinearDetector
from features.documents import Document
from pipelines.benchmark import Benchmark
from pipelines.judging import Contender, LabelledCorpora, Trainings
from pipelines.protocols import Fold
from pipelines.training_data import TrainingData
from tests.cache.feature_makers import HIDDEN_SIZE
from tests.detect.made_up import document, labelled

FEW = {"rounds": 5}
BOTH = Contender(
    "both", "ensemble", {"members": ["lightgbm", "bilinear", "log-likelihood"], "recipes": {"lightgbm": FEW}}
)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpora:
    found = labelled(tmp_path_factory.mktemp("store"), 240)
    documents = [Document(key, key, int(label)) for key, label in zip(found.corpus.keys, found.labels, strict=True)]
    data = TrainingData(found.corpus, documents, 0, 0)
    return LabelledCorpora(data, ["a"] * 240, list(range(240)), np.full(240, 20), {"hidden_size": HIDDEN_SIZE}, {})


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of detector learns."""
    counts: Counter[str] = Counter()
    for kind in (BoostedDetector, LinearDetector):

        def fit(self: Any, *args: Any, own: Any = kind.fit) -> Any:
            counts[type(self).__name__] += 1
            return own(self, *args)

        monkeypatch.setattr(kind, "fit", fit)
    return counts


def fitted(contender: Contender, corpora: LabelledCorpora, trainings: Trainings) -> Any:
    nothing = np.arange(0)
    fold = Fold("in-domain", "nothing", np.arange(160), np.arange(160, 240), nothing, nothing)
    return contender.fitted(corpora, fold, 3, lambda event, values: None, trainings)


def test_members_of_ensembles_and_contenders_that_are_alike_learn_once(
    corpora: LabelledCorpora, learnt: Counter[str]
) -> None:
    trainings = Trainings()
    asked = [Contender("trees", "lightgbm", FEW), BOTH, Contender("linear", "bilinear"), BOTH]
    first, *_, last = [fitted(contender, corpora, trainings) for contender in asked]
    assert learnt == {"BoostedDetector": 1, "LinearDetector": 1}
    assert last.members[0] is first
    alone = fitted(BOTH, corpora, Trainings())
    assert learnt == {"BoostedDetector": 2, "LinearDetector": 2}
    documents = [document(5000 + number, number % 2) for number in range(20)]
    np.testing.assert_array_equal(last.score(documents), alone.score(documents))
    assert (last.card.training, last.weights_sha256()) == (alone.card.training, alone.weights_sha256())


@pytest.mark.parametrize(("name", "settings"), [("lightgbm", {"rounds": 6}), ("profile", FEW)])
def test_another_recipe_or_detector_learns_by_itself(
    corpora: LabelledCorpora, learnt: Counter[str], name: str, settings: dict[str, int]
) -> None:
    trainings = Trainings()
    fitted(Contender("x", "lightgbm", FEW), corpora, trainings)
    fitted(Contender("x", name, settings), corpora, trainings)
    assert learnt == {"BoostedDetector": 2}


def test_what_reads_texts_and_what_reads_the_same_texts_as_a_member_learn_apart() -> None:
    member = Contender("x", "ensemble", {"members": ["tfidf", "rank"]}).recipe({}, 3)["member_recipes"][0]
    alone = Contender("x", "tfidf").recipe({}, 3)
    assert member == alone  # so the recipe does not tell them apart
    trainings = Trainings()
    assert trainings.once("tfidf", member, lambda: "of features") == "of features"
    assert trainings.once("tfidf", alone, lambda: "of texts", of_texts=True) == "of texts"
    assert trainings.once("tfidf", member, lambda: "anew") == "of features"


def test_trainings_are_kept_by_fold_seed_and_features() -> None:
    benchmark = Benchmark(cast(Any, None), Path(), cast(Any, None), {"wide": cast(Any, None)})
    nothing = np.arange(0)
    one, other = (Fold("domain", "x", np.arange(count), nothing, nothing, nothing) for count in (3, 4))
    plain, wide = Contender("plain", "lightgbm"), Contender("wide", "lightgbm")
    first = benchmark._trainings(one, plain, 0)
    assert benchmark._trainings(replace(one, prefix=32), Contender("another", "profile"), 0) is first
    assert benchmark._trainings(one, wide, 0) is not first
    assert benchmark._trainings(other, plain, 0) is not first
    second = benchmark._trainings(other, plain, 1)
    assert second is not benchmark._trainings(other, plain, 2)
