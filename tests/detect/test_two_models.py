"""Binoculars and Fast-DetectGPT with a reference model, against naive float64 twins of the papers' formulas."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import transformers

from detect.catalog import DEFAULT_BACKBONE
from detect.protocol import needs_hidden, needs_observer
from detect.two_models import TWO_MODELS, Binoculars, FastDetectGPTTwo, load_two_models
from detect.zero_shot import FastDetectGPT, ZeroShot
from features.backbone import Backbone
from features.errors import DetectorError
from features.extractor import Extractor
from features.observer import load_observer
from features.registry import resolve
from features.token_features import METRIC_NAMES, TokenFeatures
from tests.detect.made_up import document
from tests.features.tiny_models import SENTENCES, write_tiny_model


def naive_probs(logits: list[float]) -> list[float]:
    largest = max(logits)
    total = math.fsum(math.exp(x - largest) for x in logits)
    return [math.exp(x - largest) / total for x in logits]


def naive_binoculars(observer: list[list[float]], performer: list[list[float]], targets: list[int]) -> float:
    """Log-perplexity of the performer over the cross-entropy of the observer with it; low is machine."""
    perplexity = cross = 0.0
    for i, target in enumerate(targets):
        p_observer, p_performer = naive_probs(observer[i]), naive_probs(performer[i])
        perplexity -= math.log(p_performer[target])
        cross -= math.fsum(o * math.log(p) for o, p in zip(p_observer, p_performer, strict=True))
    return (perplexity / len(targets)) / (cross / len(targets))


def naive_curvature(reference: list[list[float]], scoring: list[list[float]], targets: list[int]) -> float:
    """Fast-DetectGPT's analytic statistic with its two models."""
    likelihood = mean = variance = 0.0
    for i, target in enumerate(targets):
        p_reference, log_scoring = naive_probs(reference[i]), [math.log(p) for p in naive_probs(scoring[i])]
        likelihood += log_scoring[target]
        mu = math.fsum(p * x for p, x in zip(p_reference, log_scoring, strict=True))
        mean += mu
        variance += math.fsum(p * x**2 for p, x in zip(p_reference, log_scoring, strict=True)) - mu**2
    return (likelihood - mean) / math.sqrt(variance)


def test_scores_are_the_papers_from_the_logits_of_two_random_models(tmp_path: Path) -> None:
    paths = [write_tiny_model(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    performer = Backbone.load(resolve(str(paths[0])), device="cpu", dtype=torch.float32)
    extractor = Extractor(performer, observer=load_observer(str(paths[1]), performer))
    documents = extractor.extract(list(SENTENCES), extractor.encode(SENTENCES))
    models = [transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval() for path in paths]
    binoculars, curvature = Binoculars().score(documents), FastDetectGPTTwo().score(documents)
    for place, found in enumerate(documents):
        ids = torch.from_numpy(found.token_ids).long()[None]
        with torch.no_grad():
            own, others = (model(ids).logits[0].tolist() for model in models)
        targets = found.token_ids[1:].tolist()
        assert binoculars[place] == pytest.approx(-naive_binoculars(others, own, targets), rel=1e-5)
        assert binoculars[place] != pytest.approx(-naive_binoculars(own, others, targets), rel=1e-2)
        assert curvature[place] == pytest.approx(naive_curvature(others, own, targets), rel=1e-4)


@pytest.mark.slow
def test_scores_of_real_texts_are_the_papers_from_the_logits_of_two_real_models(
    shared_data: Path, backbone_home: Path
) -> None:
    # The second is an early exit: it predicts the same vocabulary, and badly enough to tell the two roles apart.
    files = resolve(DEFAULT_BACKBONE)
    performer = Backbone.load(files, device="cpu", dtype=torch.float32)
    extractor = Extractor(performer, max_length=24, observer=load_observer("@20", performer))
    texts = pl.read_parquet(shared_data / "fastdetect_main.parquet")["text"].sample(2, seed=1).to_list()
    documents = extractor.extract(["one", "two"], extractor.encode(texts))
    model = transformers.AutoModelForCausalLM.from_pretrained(files.path, dtype=torch.float64).eval()
    binoculars, curvature = Binoculars().score(documents), FastDetectGPTTwo().score(documents)
    for place, found in enumerate(documents):
        with torch.no_grad():
            out = model(torch.from_numpy(found.token_ids).long()[None], output_hidden_states=True)
            others = model.lm_head(model.model.norm(out.hidden_states[20]))[0].tolist()
        own, targets = out.logits[0].tolist(), found.token_ids[1:].tolist()
        assert binoculars[place] == pytest.approx(-naive_binoculars(others, own, targets), rel=1e-4)
        assert curvature[place] == pytest.approx(naive_curvature(others, own, targets), rel=1e-3)


def of_one_model_twice(number: int, label: int) -> TokenFeatures:
    """What an observer that is the performer itself would give."""
    found = document(number, label)
    columns = [METRIC_NAMES.index(name) for name in ("entropy", "log_prob_variance")]
    return replace(found, cross=found.metrics[:, columns])


def test_with_the_same_model_as_reference_it_is_fast_detect_gpt() -> None:
    found = of_one_model_twice(3, 0)
    assert FastDetectGPTTwo().score([found])[0] == FastDetectGPT().score([found])[0]


def test_likelier_texts_score_higher() -> None:
    human, machine = ([of_one_model_twice(2 * i + label, label) for i in range(40)] for label in (0, 1))
    for detector in TWO_MODELS.values():
        assert np.median(detector().score(machine)) > np.median(detector().score(human))
    assert Binoculars().score(human).max() < 0


@pytest.mark.parametrize("detector", TWO_MODELS.values(), ids=lambda detector: detector.name)
def test_features_of_one_model_are_refused(detector: type[ZeroShot]) -> None:
    assert needs_observer(detector())
    assert not needs_hidden(detector())
    message = f"detector {detector.name} reads metrics of two language models, the features have those of one; extract"
    with pytest.raises(DetectorError, match=message):
        detector().score([of_one_model_twice(1, 0), document(2, 0)])


@pytest.mark.parametrize(("detector", "what"), [(Binoculars, "cross-entropy"), (FastDetectGPTTwo, "variance")])
def test_predictions_that_no_model_makes_are_refused(detector: type[ZeroShot], what: str) -> None:
    found = of_one_model_twice(1, 0)
    assert found.cross is not None
    with pytest.raises(ValueError, match=rf"document 0+1 has a total .*{what} of 0.0, expected above 0"):
        detector().score([replace(found, cross=found.cross * 0)])


def test_a_card_of_another_detector_is_refused(tmp_path: Path) -> None:
    Binoculars().save(tmp_path)
    assert isinstance(load_two_models(tmp_path), Binoculars)
    (tmp_path / "detector.json").write_text('{"format_version": 1, "kind": "zero-shot-pair", "name": "monocle"}')
    with pytest.raises(DetectorError, match="describes 'monocle', expected one of binoculars, fast-detect-gpt-2"):
        load_two_models(tmp_path)
