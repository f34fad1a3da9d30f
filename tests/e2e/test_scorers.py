"""Detectors put to work together."""

import random
from pathlib import Path

from pipelines.scorers import LanguageModels, load_scorers, scores_of_texts, what_scores
from pipelines.scoring import ScoringSettings
from tests.e2e.runs import Toy, human_text, labelled_rows


def test_detectors_of_the_same_features_share_model_store_and_what_is_computed(toy: Toy, tmp_path: Path):
    settings = ScoringSettings(backbone=str(toy.model), cache=tmp_path)
    models = LanguageModels("cpu")
    scorers = load_scorers(["log-likelihood", "rank", "log-likelihood"], settings, print, models)
    assert list(scorers) == ["log-likelihood", "rank"]
    first, second = scorers.values()
    assert first.extractor is second.extractor
    assert first.store is second.store
    texts = [row["text"] for row in labelled_rows(3)]
    scores_of_texts(first, texts)
    computed = first.tokens_done
    scores_of_texts(second, texts)
    assert second.tokens_done == computed > 0


def test_a_text_without_a_score_is_nan(toy: Toy):
    scorers = load_scorers(["log-likelihood"], ScoringSettings(backbone=str(toy.model)), print)
    (scorer,) = scorers.values()
    found = scores_of_texts(scorer, [human_text(random.Random(0)), "Short."])
    assert [value == value for value in found] == [True, False]


def test_two_detectors_of_one_name_are_told_apart_by_what_was_given(toy: Toy, tmp_path: Path):
    settings = ScoringSettings(backbone=str(toy.model))
    scorers = load_scorers([str(toy.detector), f"{toy.detector}/"], settings, print)
    assert list(scorers) == [str(toy.detector), f"{toy.detector}/"]


def test_what_scores_does_not_hang_on_the_calibration(toy: Toy):
    settings = ScoringSettings(backbone=str(toy.model))
    (scorer,) = load_scorers([str(toy.detector)], settings, print).values()
    assert "created" in scorer.describe()["calibration"]
    assert not {"calibration", "fpr", "threshold"} & set(what_scores(scorer))
    assert "weights_sha256" in what_scores(scorer)["detector"]
