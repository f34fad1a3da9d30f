import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from detect.adversarial.quality import (
    Limits,
    MeaningEncoder,
    Quality,
    disordered,
    distinct,
    judge,
    mean_surprisal,
    perplexity,
    repetition,
    word_order,
)
from features.backbone import Backbone
from features.errors import BackboneError
from features.registry import resolve
from tests.features.tiny_models import write_tiny_encoder, write_tiny_model


def test_distinct_counts_different_ngrams_over_all_texts():
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a b a b", "a b"], 2) == 2 / 4
    assert distinct(["A a"], 1) == 0.5
    assert math.isnan(distinct(["a"], 2))


def test_repetition_is_the_share_of_ngrams_seen_before_in_their_text():
    assert repetition(["a b c d e", "a b c d e"]) == 0.0
    assert repetition(["a a a a a a"]) == 1 - 1 / 3  # three 4-grams, one different
    assert repetition(["a a a a a a", "a b"]) == (1 - 1 / 3) / 2
    assert math.isnan(repetition([]))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    files = resolve(str(write_tiny_model(tmp_path_factory.mktemp("m") / "model")))
    return Backbone.load(files, device="cpu", dtype=torch.float32)


def naive_perplexity(backbone: Backbone, wholes: list[str], prompts: list[str]) -> float:
    total, count = 0.0, 0
    for whole, prompt in zip(wholes, prompts, strict=True):
        encoding = backbone.encode([whole], 512)[0]
        ids = torch.from_numpy(encoding.token_ids).long()
        logits = backbone.model(input_ids=ids[None]).logits[0].double()
        for place in range(1, len(ids)):
            if encoding.offsets[place][1] > len(prompt):
                total -= float(logits[place - 1].log_softmax(-1)[ids[place]])
                count += 1
    return math.exp(total / count)


def test_perplexity_is_of_the_tokens_after_the_prompt(backbone: Backbone):
    wholes = ["The river ran past the mill and on.", "She wrote that the results", "He counted"]
    prompts = ["The river ran", "She", "He"]
    found = perplexity(backbone, wholes, prompts)
    assert_allclose(found, naive_perplexity(backbone, wholes, prompts), rtol=1e-4)


def test_perplexity_of_nothing_is_nan(backbone: Backbone):
    assert math.isnan(perplexity(backbone, ["The river"], ["The river"]))


def test_perplexity_is_the_exponential_of_mean_surprisal(backbone: Backbone):
    texts, prompts = ["The river ran past the mill.", "She wrote that"], ["The river", "She"]
    assert perplexity(backbone, texts, prompts) == math.exp(mean_surprisal(backbone, texts, prompts))


def test_disordered_text_has_the_same_words_with_their_punctuation():
    text = "He came, saw, and won; then he left."
    assert sorted(disordered(text, 3).split()) == sorted(text.split())
    assert disordered(text, 3) == disordered(text, 3) != text
    assert disordered("", 3) == ""


def test_word_order_is_the_share_of_surprisal_that_it_saves():
    assert word_order(3.0, 6.0) == 0.5
    assert word_order(6.0, 6.0) == 0.0
    assert math.isnan(word_order(math.nan, 6.0))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> MeaningEncoder:
    return MeaningEncoder.load(str(write_tiny_encoder(tmp_path_factory.mktemp("e") / "encoder")), device="cpu")


def test_the_same_text_means_the_same(encoder: MeaningEncoder):
    texts = ["The river ran past the old mill.", "It is colder in the north."]
    assert_allclose(encoder.similarity(texts, texts), 1.0, rtol=1e-6)
    assert encoder.similarity(texts, texts[::-1]) < 1.0


def test_coherence_is_the_likeness_of_the_halves_of_each_text(encoder: MeaningEncoder):
    assert_allclose(encoder.coherence(["The river ran The river ran", " it  is it is "]), 1.0, rtol=1e-6)
    odd = encoder.similarity(["The river"], ["ran past it"])
    assert_allclose(encoder.coherence(["The river ran past it"]), odd, rtol=1e-6)
    assert_allclose(encoder.coherence(["The river ran past it", "alone", ""]), odd / 3, rtol=1e-5)


def test_vectors_are_means_of_unit_length_whatever_the_company(encoder: MeaningEncoder):
    texts = ["The river ran.", "", "It is important to note that the weather in the north is colder."]
    together = encoder.vectors(texts)
    assert_allclose(np.linalg.norm(together, axis=1), [1.0, 0.0, 1.0], atol=1e-6)
    for index, text in enumerate(texts):
        assert_allclose(encoder.vectors([text])[0], together[index], atol=1e-5)
    ids = torch.tensor([encoder.tokenizer.encode(texts[0]).ids])
    mean = encoder.model(input_ids=ids).last_hidden_state[0].mean(0)
    assert_allclose(together[0], (mean / mean.norm()).detach().numpy(), atol=1e-5)


def test_an_encoder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(BackboneError, match="no model at"):
        MeaningEncoder.load(str(tmp_path / "nowhere"))


HUMAN = Quality(40.0, None, 0.4, 0.6, 0.9, 0.95, 0.01, 0.5, None, 50.0, 0.0)
BEFORE = Quality(10.0, None, 0.6, 0.5, 0.8, 0.9, 0.03, 0.4, 0.5, 48.0, 0.0)


@pytest.mark.parametrize(
    ("change", "fall", "word", "reason"),
    [
        ({}, 0.3, "evaded", ""),
        ({}, 0.04, "resisted", ""),
        ({}, -0.2, "resisted", ""),
        ({"perplexity": 60.1}, 0.3, "rubbish", "perplexity is 60.1, above 60"),
        ({"perplexity": 59.9}, 0.3, "evaded", ""),
        ({"perplexity": 4.9}, 0.3, "rubbish", "perplexity is 4.9, below 5"),
        ({"perplexity": math.nan}, 0.3, "rubbish", "perplexity is nan, above 60"),
        ({"order": 0.339}, 0.3, "rubbish", "share of surprisal saved by word order is 0.339, below 0.34"),
        ({"order": 0.341}, 0.3, "evaded", ""),
        ({"coherence": 0.339}, 0.3, "rubbish", "likeness of a text's halves is 0.339, below 0.34"),
        ({"coherence": 0.341}, 0.3, "evaded", ""),
        ({"coherence": math.nan}, 0.0, "resisted-rubbish", "likeness of a text's halves is nan, below 0.34"),
        ({"repetition": 0.081}, 0.3, "rubbish", "repetition is 0.081, above 0.08"),
        ({"distinct_2": 0.63}, 0.3, "rubbish", "distinct-2 is 0.63, below 0.64"),
        ({"similarity": 0.39}, 0.3, "rubbish", "similarity of meaning is 0.39, below 0.4"),
        ({"words": 33.0}, 0.3, "rubbish", "words a text is 33, below 33.6"),
        ({"unscored": 0.06}, 0.3, "rubbish", "share of texts without a score is 0.06, above 0.05"),
        ({"words": 0.0}, 0.0, "resisted-rubbish", "words a text is 0"),
    ],
)
def test_an_evaded_detector_is_told_apart_from_rubbish(change: dict[str, float], fall: float, word: str, reason: str):
    after = replace(BEFORE, **change)
    found = judge(0.95, 0.95 - fall, HUMAN, BEFORE, after)
    assert found.word == word
    assert math.isclose(found.fall, fall, abs_tol=1e-12)
    assert reason in "; ".join(found.broken)
    assert bool(reason) == bool(found.broken)
    assert f"by {abs(fall):.3f} to {0.95 - fall:.3f}" in found.sentence
    assert reason in found.sentence


def test_a_judge_counts_where_there_is_one():
    with_judge = [replace(quality, judge_perplexity=20.0) for quality in (HUMAN, BEFORE)]
    after = replace(BEFORE, judge_perplexity=31.0)
    found = judge(0.9, 0.5, *with_judge, after)
    assert found.broken == ("the judge's perplexity is 31, above 30",)


def test_texts_that_no_detector_scores_count_as_chance_and_as_rubbish():
    found = judge(0.9, math.nan, HUMAN, BEFORE, replace(BEFORE, unscored=1.0), Limits())
    assert (found.word, found.fall) == ("rubbish", pytest.approx(0.4))
