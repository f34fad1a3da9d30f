import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from detect.catalog import DEFAULT_BACKBONE
from detect.lastde import SHORTEST
from detect.protocol import Detector
from detect.zero_shot import (
    ZERO_SHOT,
    Entropy,
    FastDetectGPT,
    Gltr,
    Lastde,
    LogLikelihood,
    LogLikelihoodLogRankRatio,
    LogRank,
    Rank,
)
from features.backbone import Backbone
from features.errors import DetectorError
from features.extractor import Extractor
from features.registry import resolve
from features.token_features import METRIC_NAMES, TokenFeatures
from tests.detect.test_lastde import naive_lastde


def make_document(distributions, targets) -> TokenFeatures:
    """Cached metrics of known next-token distributions, worked out one token at a time."""
    rows = []
    for p, target in zip(distributions, targets, strict=True):
        logs = [math.log(x) for x in p]
        mean = sum(x * log for x, log in zip(p, logs, strict=True))
        variance = sum(x * (log - mean) ** 2 for x, log in zip(p, logs, strict=True))
        likelier = [x for x in p if x > p[target]]
        rows.append((logs[target], -mean, max(logs), math.log(1 + len(likelier)), sum(likelier), variance))
    n = len(rows) + 1
    return TokenFeatures(
        key="abc123",
        token_ids=np.arange(n, dtype=np.int32),
        kinds=np.zeros(n, dtype=np.uint8),
        offsets=np.zeros((n, 2), dtype=np.int32),
        metrics=np.array(rows, dtype=np.float32).reshape(-1, len(METRIC_NAMES)),
        hidden=np.zeros((n, 3), dtype=np.float16),
        truncated=False,
    )


P, Q = (0.5, 0.25, 0.125, 0.125), (0.1, 0.2, 0.3, 0.4)
SURE = (0.97, 0.01, 0.01, 0.01)


def random_distributions(count: int, vocabulary: int = 1009, seed: int = 0):
    """Distributions of every shape from nearly uniform to nearly certain, each with a token drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, vocabulary)) * rng.uniform(0.1, 5, size=(count, 1))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.tolist(), [int(rng.choice(vocabulary, p=p)) for p in probabilities]


def test_log_likelihood_is_the_mean_log_probability():
    document = make_document([P, P, Q], [0, 1, 3])
    expected = (math.log(0.5) + math.log(0.25) + math.log(0.4)) / 3
    np.testing.assert_allclose(LogLikelihood().score([document]), [expected], rtol=1e-6)


def test_log_rank_is_minus_the_mean_log_of_the_rank_counted_from_one():
    document = make_document([P, P, Q], [0, 1, 0])  # ranks 1, 2, 4
    np.testing.assert_allclose(LogRank().score([document]), [-math.log(1 * 2 * 4) / 3], rtol=1e-6)


def test_fast_detect_gpt_is_the_z_score_of_the_summed_log_probability():
    document = make_document([P, Q, P], [2, 0, 3])
    # Twin: the exact distribution of the sum of three independent draws, by enumerating all 64.
    outcomes = [(a * b * c, math.log(a * b * c)) for a in P for b in Q for c in P]
    mean = sum(weight * value for weight, value in outcomes)
    deviation = math.sqrt(sum(weight * (value - mean) ** 2 for weight, value in outcomes))
    observed = math.log(0.125) + math.log(0.1) + math.log(0.125)
    np.testing.assert_allclose(FastDetectGPT().score([document]), [(observed - mean) / deviation], rtol=1e-6)


# Naive twins: plain loops over the distributions themselves, in float64, from the papers' formulas.


def naive_rank(p, target) -> int:
    return sorted(p, reverse=True).index(p[target]) + 1


def naive_lrr(distributions, targets) -> float:
    surprisal = sum(-math.log(p[t]) for p, t in zip(distributions, targets, strict=True)) / len(targets)
    log_rank = sum(math.log(naive_rank(p, t)) for p, t in zip(distributions, targets, strict=True)) / len(targets)
    return surprisal / log_rank


def naive_entropy(distributions, targets) -> float:
    return sum(sum(x * math.log(x) for x in p) for p in distributions) / len(distributions)


def naive_mean_rank(distributions, targets) -> float:
    return -sum(naive_rank(p, t) for p, t in zip(distributions, targets, strict=True)) / len(targets)


def naive_mean_log_rank(distributions, targets) -> float:
    return -sum(math.log(naive_rank(p, t)) for p, t in zip(distributions, targets, strict=True)) / len(targets)


def naive_curvature(distributions, targets) -> float:
    """Fast-DetectGPT's analytic statistic with one model."""
    distance = variance = 0.0
    for p, target in zip(distributions, targets, strict=True):
        mean = sum(x * math.log(x) for x in p)
        distance += math.log(p[target]) - mean
        variance += sum(x * (math.log(x) - mean) ** 2 for x in p)
    return distance / math.sqrt(variance)


def naive_gltr(distributions, targets) -> float:
    return sum(naive_rank(p, t) <= 10 for p, t in zip(distributions, targets, strict=True)) / len(targets)


@pytest.mark.parametrize(
    ("detector", "twin"),
    [
        (Rank, naive_mean_rank),
        (Entropy, naive_entropy),
        (LogLikelihoodLogRankRatio, naive_lrr),
        (Gltr, naive_gltr),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 37])
def test_statistics_are_those_of_a_plain_loop_over_the_distributions(detector, twin, count):
    distributions, targets = random_distributions(count, seed=1)
    document = make_document(distributions, targets)
    # float32 metrics: 2^-24 relative a number
    np.testing.assert_allclose(detector().score([document]), [twin(distributions, targets)], rtol=1e-6)


def test_ranks_of_a_large_vocabulary_come_back_whole():
    ranks = np.array([1, 2, 10, 11, 49_151, 49_152, 255_999, 256_000, 999_999, 1_000_000])
    document = make_document([P] * len(ranks), [0] * len(ranks))
    document.metrics[:, METRIC_NAMES.index("log_rank")] = np.log(ranks).astype(np.float32)
    assert Rank().score([document]) == [-ranks.mean()]
    assert Gltr().score([document]) == [0.3]


def test_lrr_of_a_text_of_nothing_but_likeliest_tokens_is_as_if_one_had_rank_2():
    document = make_document([P, Q, P], [0, 3, 0])
    expected = -(2 * math.log(0.5) + math.log(0.4)) / math.log(2)
    np.testing.assert_allclose(LogLikelihoodLogRankRatio().score([document]), [expected], rtol=1e-6)
    one_second = make_document([P, Q, P], [0, 3, 1])
    assert LogLikelihoodLogRankRatio().score([one_second]) > LogLikelihoodLogRankRatio().score([document])


@pytest.mark.parametrize("name", sorted(set(ZERO_SHOT) - {"lastde"}))
def test_two_tokens_are_enough_for_a_finite_score(name):
    scores = ZERO_SHOT[name]().score([make_document([P], [target]) for target in range(4)])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", sorted(ZERO_SHOT))
def test_a_text_of_one_token_repeated_has_a_finite_score(name):
    certain = make_document([SURE] * 30, [0] * 30)
    assert np.isfinite(ZERO_SHOT[name]().score([certain])).all()


def test_lastde_says_how_many_tokens_it_needs():
    assert np.isfinite(Lastde().score([make_document([P] * SHORTEST, [0] * SHORTEST)])).all()
    with pytest.raises(ValueError, match="abc123 has 7 scored tokens, lastde needs at least 8"):
        Lastde().score([make_document([P] * (SHORTEST - 1), [0] * (SHORTEST - 1))])


@pytest.mark.parametrize("name", sorted(ZERO_SHOT))
def test_text_of_likely_tokens_scores_higher_than_text_of_unlikely_ones(name):
    likely, unlikely = make_document([SURE, P] * 5, [0, 0] * 5), make_document([Q, P] * 5, [0, 2] * 5)
    unlikely.metrics[0, METRIC_NAMES.index("log_rank")] = math.log(20)  # four tokens have no rank beyond ten
    scores = ZERO_SHOT[name]().score([likely, unlikely])
    assert scores.dtype == np.float64
    assert scores[0] > scores[1]


@pytest.mark.parametrize("name", sorted(ZERO_SHOT))
def test_zero_shot_detectors_are_detectors_under_their_name(name, tmp_path):
    detector = ZERO_SHOT[name]()
    assert isinstance(detector, Detector)
    assert detector.name == name
    document = make_document([P, Q] * 5, [1, 2] * 5)
    assert detector.fit([document], np.array([0])) is detector
    detector.save(tmp_path / "new")
    loaded = ZERO_SHOT[name].load(tmp_path / "new")
    assert type(loaded) is type(detector)
    assert loaded.score([document]) == detector.score([document])


@pytest.mark.parametrize("name", sorted(ZERO_SHOT))
def test_no_documents_no_scores(name):
    assert ZERO_SHOT[name]().score([]).shape == (0,)


def test_long_documents_are_summed_in_float64():
    # The mean of 100,000 equal numbers is that number; summed in float32 it is off by more than 1e-8.
    document = make_document([P], [0])
    long = TokenFeatures(
        key="long",
        token_ids=np.zeros(100_001, dtype=np.int32),
        kinds=np.zeros(100_001, dtype=np.uint8),
        offsets=np.zeros((100_001, 2), dtype=np.int32),
        metrics=np.repeat(document.metrics, 100_000, axis=0),
        hidden=np.zeros((100_001, 1), dtype=np.float16),
        truncated=False,
    )
    expected = float(document.metrics[0, 0])
    np.testing.assert_allclose(LogLikelihood().score([long]), [expected], rtol=1e-12)


def test_a_document_without_variance_is_refused():
    uniform = make_document([(0.25,) * 4, (0.25,) * 4], [0, 1])
    with pytest.raises(ValueError, match=r"abc123 has a total log-probability variance of 0\.0"):
        FastDetectGPT().score([uniform])


@pytest.mark.parametrize("name", sorted(ZERO_SHOT))
def test_features_with_another_number_of_metrics_or_none_are_refused(name):
    document = make_document([P, Q], [1, 2])
    fewer = replace(document, metrics=document.metrics[:, :5])
    with pytest.raises(DetectorError, match="expected 6 metrics a token, features have 5"):
        ZERO_SHOT[name]().score([fewer])
    with pytest.raises(ValueError, match="abc123 has no scored token"):
        ZERO_SHOT[name]().score([make_document([], [])])


@pytest.mark.parametrize(("kind", "name"), [(LogRank, "log-rank"), (FastDetectGPT, "fast-detect-gpt")])
def test_the_card_of_another_detector_is_refused(tmp_path, kind, name):
    LogLikelihood().save(tmp_path)
    with pytest.raises(DetectorError, match=f"describes 'log-likelihood', expected '{name}'"):
        kind.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "detector.json is not JSON .*; save the detector again"),
        ("[1]", "holds a JSON list, expected an object"),
        (json.dumps({"format_version": 1, "kind": "pawn"}), "kind 'pawn', expected 'zero-shot'"),
        (json.dumps({"format_version": 7, "kind": "zero-shot"}), "format version 7, this program reads 1"),
    ],
)
def test_a_damaged_or_foreign_card_is_refused(tmp_path, content, message):
    (tmp_path / "detector.json").write_text(content)
    with pytest.raises(DetectorError, match=message):
        LogLikelihood.load(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DetectorError, match=r"cannot read .*nowhere.*No such file"):
        LogLikelihood.load(tmp_path / "nowhere")


def test_saving_leaves_no_temporary_file_and_replaces_the_old_card(tmp_path):
    LogLikelihood().save(tmp_path)
    LogRank().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["detector.json"]
    LogRank.load(tmp_path)


@pytest.mark.slow
def test_statistics_of_real_texts_are_those_of_the_models_own_logits(shared_data, backbone_home):
    backbone = Backbone.load(resolve(DEFAULT_BACKBONE), device="cpu", dtype=torch.float32)
    extractor = Extractor(backbone, max_length=48)
    texts = pl.read_parquet(shared_data / "fastdetect_main.parquet")["text"].sample(4, seed=0).to_list()
    encodings = extractor.encode(texts)
    documents = extractor.extract([str(i) for i in range(len(texts))], encodings)
    for document, encoding in zip(documents, encodings, strict=True):
        ids = torch.from_numpy(encoding.token_ids).long()
        with torch.inference_mode():
            logits = backbone.model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        distributions = logits.double().softmax(-1).tolist()
        targets = ids[1:].tolist()
        log_probs = [math.log(p[t]) for p, t in zip(distributions, targets, strict=True)]
        twins = {
            "rank": naive_mean_rank(distributions, targets),
            "entropy": naive_entropy(distributions, targets),
            "lrr": naive_lrr(distributions, targets),
            "gltr": naive_gltr(distributions, targets),
            "log-likelihood": sum(log_probs) / len(log_probs),
            "lastde": naive_lastde(log_probs),
            "log-rank": naive_mean_log_rank(distributions, targets),
            "fast-detect-gpt": naive_curvature(distributions, targets),
        }
        for name, expected in twins.items():
            # float32 logits in another order of sums: near-ties swap a rank, a cosine may cross a bin's edge
            assert ZERO_SHOT[name]().score([document])[0] == pytest.approx(expected, rel=1e-3), name
