"""Detectors that read texts as contenders of a benchmark."""

import json
from typing import Any, cast

import numpy as np
import pytest

from detect.tfidf import TfidfDetector
from features.documents import Document
from features.errors import UsageError
from pipelines.judging import Contender, LabelledCorpora, Trainings
from pipelines.protocols import Fold
from pipelines.training_data import TrainingData
from tests.detect.labelled_texts import make_texts


def test_a_contender_that_reads_texts_is_trained_on_the_texts_of_the_fold_with_its_seed() -> None:
    texts = make_texts(40)
    documents = [Document(str(i), text, int(texts.labels[i])) for i, text in enumerate(texts.texts)]
    data = TrainingData(cast(Any, None), documents, 0, 0)
    corpora = LabelledCorpora(data, ["a"] * 40, list(range(40)), np.full(40, 20), {}, {})
    parts = {"train": np.arange(24), "validation": np.arange(24, 32)}
    fold = cast(Fold, type("Fold", (), parts))
    events: list[str] = []
    contender = Contender("words", "tfidf", {"vocabulary": 30})
    contender.check()
    detector = contender.fitted(corpora, fold, 3, lambda event, values: events.append(event), Trainings())
    assert isinstance(detector, TfidfDetector)
    assert (detector.name, detector.training["config"]["seed"]) == ("words", 3)
    assert events == ["fitted"]
    assert detector.score(texts.texts[32:]).shape == (8,)


def test_a_setting_that_cannot_be_is_refused_before_the_benchmark() -> None:
    with pytest.raises(UsageError, match="lora cannot be trained like that: expected epochs of at least 1, got 0"):
        Contender("x", "lora", {"epochs": 0}).check()
    with pytest.raises(UsageError, match="detector x has a seed among its settings; expected seeds under `seeds`"):
        Contender("x", "lightgbm", {"seed": 4}).check()


def test_the_recipe_of_a_contender_holds_defaults_and_what_its_members_learn_by() -> None:
    backbone = {"hidden_size": 8}
    plain = Contender("x", "lightgbm").recipe(backbone, 3)
    assert plain == Contender("x", "lightgbm", {"prefixes": plain["prefixes"]}).recipe(backbone, 3)
    assert plain != Contender("x", "lightgbm", {"prefixes": plain["prefixes"] + 1}).recipe(backbone, 3)
    assert plain["seed"] == 3
    ensemble = Contender("x", "ensemble", {"members": ["lightgbm", "log-likelihood"]}).recipe(backbone, 3)
    assert ensemble["member_recipes"] == [plain, {}]
    words = Contender("x", "tfidf", {"vocabulary": 30}).recipe(backbone, 3)
    assert (words["kind"], words["config"]["vocabulary"]) == ("tfidf", 30)
    mixed = Contender("x", "ensemble", {"members": ["lightgbm", "tfidf"], "recipes": {"tfidf": {"vocabulary": 30}}})
    assert mixed.recipe(backbone, 3)["member_recipes"] == [plain, words]
    assert json.loads(json.dumps([plain, ensemble, words]))
    assert Contender("x", "log-likelihood").recipe(backbone, 3) == {}
