"""Detectors put to work together."""

import random
from pathlib import Path

import polars as pl
import pytest

from detect.adversarial.normalisation import normalised
from features.documents import Document, text_key
from pipelines.attack_subjects import CALIBRATION, JUDGED, Subjects
from pipelines.attacked_texts import Attacker, TextSet, queried
from pipelines.robustness import StressTest
from pipelines.scorers import LanguageModels, load_scorers, scores_of_texts, what_scores
from pipelines.scoring import Scorer, ScoringSettings
from tests.detect.adversarial.attacked import attacked, no_backbone
from tests.e2e.runs import Toy, human_text, labelled_rows, shards


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


def stress_test(toy: Toy, folder: Path, detector: str) -> tuple[Scorer, pl.DataFrame]:
    """One detector under homoglyphs as a command has it: models and store opened anew, attacked texts kept."""
    settings = ScoringSettings(backbone=str(toy.model), cache=folder / "cache", normalise=False)
    (scorer,) = load_scorers([detector], settings, print, LanguageModels("cpu")).values()
    assert isinstance(scorer, Scorer)
    documents = [Document(text_key(row["text"]), row["text"], row["label"]) for row in labelled_rows(4)]
    parts = [CALIBRATION, CALIBRATION, *[JUDGED] * 6]
    subjects = Subjects(documents, ["toy"] * 8, range(8), parts)
    attacker = Attacker(folder / "attacked", no_backbone, "", 0)
    scored = StressTest(subjects, {detector: scorer}, attacker, folder).run([TextSet("homoglyph", 0.5)])
    return scorer, scored


def test_attacked_texts_are_extracted_once_whichever_detectors_read_them(toy: Toy, tmp_path: Path):
    first, _ = stress_test(toy, tmp_path, "log-likelihood")
    second, scored = stress_test(toy, tmp_path, "rank")
    assert first.tokens_done > 0
    assert second.tokens_done == 0
    assert scored["score"].is_not_null().all()
    (path,) = (tmp_path / "attacked").iterdir()
    texts = pl.read_parquet(path)["text"].to_list()
    assert all(not text.isascii() for text in texts)
    assert second.store is not None
    assert {text_key(version) for text in texts for version in (text, normalised(text))} <= {*second.store.keys()}


@pytest.mark.parametrize("normalise", [True, False])
def test_an_attacker_gets_the_scores_that_the_detector_was_loaded_to_give(toy: Toy, tmp_path: Path, normalise: bool):
    settings = ScoringSettings(backbone=str(toy.model), cache=tmp_path, normalise=normalise)
    (scorer,) = load_scorers(["log-likelihood"], settings, print).values()
    clean = labelled_rows(1)[0]["text"]
    tries = [clean, *attacked("homoglyph", clean, 0.5)]
    first, second = found = queried(scorer)(tries)
    assert bool(second == pytest.approx(first, abs=1e-5)) is normalise
    assert found == pytest.approx(scores_of_texts(scorer, tries), abs=1e-5)


def test_what_an_attacker_tries_is_not_kept(toy: Toy, tmp_path: Path):
    settings = ScoringSettings(backbone=str(toy.model), cache=tmp_path)
    (scorer,) = load_scorers(["log-likelihood"], settings, print).values()
    assert isinstance(scorer, Scorer)
    assert scorer.store is not None
    text, tried, later = (row["text"] for row in labelled_rows(2)[:3])
    scores_of_texts(scorer, [text])
    queried(scorer)([text, tried])
    assert {*scorer.store.keys()} == {text_key(text)}
    assert len(shards(tmp_path)) == 1
    scores_of_texts(scorer, [later])  # what scores is not kept from it
    assert {*scorer.store.keys()} == {text_key(text), text_key(later)}


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
