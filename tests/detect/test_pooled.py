"""Every number of every vector against plain loops and the standard library's statistics, in float64."""

import math
import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cache.loader import CachedCorpus
from cache.store import FeatureStore
from detect.catalog import DEFAULT_BACKBONE
from detect.metric_profile import PROFILE_COLUMNS, metric_profile
from detect.pooled import (
    METRIC_COLUMNS,
    POOLINGS,
    RANK_BUCKETS,
    SURPRISAL_COLUMNS,
    SURPRISAL_LIMIT,
    hidden_covariance,
    hidden_covariance_6,
    mean_hidden,
    pool,
    pooled_metrics,
    prefix_lengths,
    rank_buckets,
    surprisal_diversity,
)
from detect.token_profile import TOKEN_COLUMNS, token_profile
from features.backbone import Backbone
from features.errors import CacheError
from features.extractor import Extractor
from features.registry import resolve
from features.token_features import METRIC_NAMES, TokenFeatures
from tests.cache.feature_makers import FINGERPRINT, documents
from tests.detect.made_up import document
from tests.detect.test_sequence_statistics import naive_moments


def naive_quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def naive_differences(values: list[float]) -> list[float]:
    return [b - a for a, b in pairwise(values)]


def naive_entropy_of_histogram(values: list[float], bins: int) -> float:
    low, high = min(values), max(values)
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    return -sum(c / len(values) * math.log(c / len(values)) for c in counts if c)


def columns_of(item: TokenFeatures) -> dict[str, list[float]]:
    return {name: item.metrics[:, i].astype(float).tolist() for i, name in enumerate(METRIC_NAMES)}


def naive_metrics(item: TokenFeatures) -> dict[str, float]:
    found: dict[str, float] = {}
    columns = columns_of(item)
    names = ("mean", "std", "skewness", "kurtosis")
    for name, values in columns.items():
        found |= {f"{name} {n}": v for n, v in zip(names, naive_moments(values), strict=True)}
        found |= {f"{name} quantile {q}": naive_quantile(values, q) for q in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)}
    ranks = [round(math.exp(value)) for value in columns["log_rank"]]
    found["rank 1"] = ranks.count(1) / len(ranks)
    found |= naive_buckets(ranks)
    surprisal = [-value for value in columns["log_prob"]]
    steps = surprisal
    for order in (1, 2):
        steps = naive_differences(steps)
        found[f"surprisal difference {order} absolute mean"] = statistics.fmean(map(abs, steps))
        found |= {f"surprisal difference {order} {n}": v for n, v in zip(names, naive_moments(steps), strict=True)}
    for lag in (1, 2, 3, 5, 10):
        found[f"surprisal autocorrelation {lag}"] = statistics.correlation(surprisal[:-lag], surprisal[lag:])
    found["log tokens"] = math.log(len(surprisal))
    return found


def naive_buckets(ranks: list[int]) -> dict[str, float]:
    edges = {"rank <= 10": (1, 10), "rank <= 100": (11, 100), "rank <= 1000": (101, 1000), "rank > 1000": (1001, 10**9)}
    return {name: sum(low <= r <= high for r in ranks) / len(ranks) for name, (low, high) in edges.items()}


@pytest.mark.parametrize("n_tokens", [14, 257])
def test_pooled_metrics_are_those_of_plain_loops(n_tokens: int) -> None:
    check_pooled_metrics(document(3, 0, n_tokens))


def check_pooled_metrics(item: TokenFeatures) -> None:
    expected = naive_metrics(item)
    assert set(expected) == set(METRIC_COLUMNS)
    found = pooled_metrics(item)
    assert found.dtype == np.float64
    for name, value in zip(METRIC_COLUMNS, found, strict=True):
        assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name


def test_surprisal_diversity_is_diveyes_ten_numbers() -> None:
    check_surprisal_diversity(document(5, 1, 40))


def check_surprisal_diversity(item: TokenFeatures) -> None:
    surprisal = [-value for value in columns_of(item)["log_prob"]]
    mean, deviation, skewness, kurtosis = naive_moments(surprisal)
    first = naive_differences(surprisal)
    second = naive_differences(naive_differences([-value for value in surprisal]))
    expected = [
        *(mean, deviation, statistics.pvariance(surprisal), skewness, kurtosis),
        *(statistics.fmean(first), statistics.pstdev(first)),
        *(statistics.pvariance(second), naive_entropy_of_histogram(second, 20)),
        statistics.correlation(second[:-1], second[1:]),
    ]
    assert len(SURPRISAL_COLUMNS) == 10
    np.testing.assert_allclose(surprisal_diversity(item), expected, rtol=1e-9)


@pytest.mark.slow
def test_vectors_of_real_texts_are_those_of_plain_loops(shared_data: Path, backbone_home: Path) -> None:
    extractor = Extractor(Backbone.load(resolve(DEFAULT_BACKBONE), device="cpu"), max_length=64)
    texts = pl.read_parquet(shared_data / "outfox.parquet")["text"].sample(3, seed=0).to_list()
    for item in extractor.extract(["one", "two", "three"], extractor.encode(texts)):
        check_pooled_metrics(item)
        check_surprisal_diversity(item)
        ranks = [round(math.exp(value)) for value in columns_of(item)["log_rank"]]
        assert rank_buckets(item).tolist() == pytest.approx(list(naive_buckets(ranks).values()))


def test_rank_buckets_end_at_10_100_and_1000() -> None:
    item = document(1, 0, 9)
    ranks = [1, 10, 11, 100, 101, 1000, 1001, 40_000]
    item.metrics[:, METRIC_NAMES.index("log_rank")] = np.log(ranks)
    assert rank_buckets(item).tolist() == [0.25] * 4
    assert len(RANK_BUCKETS) == 4


def test_mean_hidden_is_added_up_in_float64() -> None:
    item = document(2, 0, 31)
    expected = [statistics.fmean(column) for column in item.hidden.astype(float).T.tolist()]
    np.testing.assert_allclose(mean_hidden(item), expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(POOLINGS))
@pytest.mark.parametrize("n_tokens", [2, 3, 4, 5, 11, 12, 13])
@pytest.mark.parametrize("constant", [False, True])
def test_vectors_of_the_shortest_and_the_evenest_documents_are_finite(name: str, n_tokens: int, constant: bool) -> None:
    item = document(7, 1, n_tokens)
    if constant:
        item.metrics[:] = np.float32(0.1)
    vector = POOLINGS[name].vector(item)
    assert np.isfinite(vector).all()
    assert vector.shape == POOLINGS[name].vector(document(8, 0, 50)).shape


@pytest.mark.parametrize("n_tokens", [2, 3, 60])
@pytest.mark.parametrize(("pooled", "others"), [(hidden_covariance, 0), (hidden_covariance_6, 3)])
def test_hidden_covariance_is_that_of_plain_loops(pooled, others: int, n_tokens: int) -> None:
    item = document(3, 1, n_tokens)
    item.metrics[0, METRIC_NAMES.index("log_prob")] = -2 * SURPRISAL_LIMIT
    found = pooled(item)
    size, rows = item.hidden.shape[1], item.metrics.astype(float)
    place = METRIC_NAMES.index
    told = [
        [min(-row[place("log_prob")], SURPRISAL_LIMIT) for row in rows],
        [row[place("entropy")] for row in rows],
        [math.sqrt(max(row[place("log_prob_variance")], 0.0)) for row in rows],
        *([row[place(name)] for row in rows] for name in ("log_rank", "max_log_prob", "top_p")[:others]),
    ]
    states = item.hidden[: n_tokens - 1].astype(float)
    expected = [math.fsum(states[:, d]) / (n_tokens - 1) for d in range(size)]
    for values in told:
        mean = math.fsum(values) / len(values)
        centre = [value - mean for value in values]
        expected += [
            math.fsum(c * x for c, x in zip(centre, states[:, d], strict=True)) / (n_tokens - 1) for d in range(size)
        ]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_profile_is_that_of_the_metrics_and_that_of_the_tokens_by_name() -> None:
    item, pooling = document(3, 1, 60), POOLINGS["profile"]
    parts = dict(zip(PROFILE_COLUMNS, metric_profile(item), strict=True))
    parts |= dict(zip(TOKEN_COLUMNS, token_profile(item), strict=True))
    assert dict(zip(pooling.columns, pooling.vector(item), strict=True)) == parts


def test_only_poolings_of_hidden_states_need_them() -> None:
    assert {name: pooling.needs_hidden for name, pooling in POOLINGS.items()} == {
        "metrics": False,
        "profile": False,
        "metric-profile": False,
        "surprisal-diversity": False,
        "rank-buckets": False,
        "mean-hidden": True,
        "hidden-covariance": True,
        "hidden-covariance-6": True,
    }


def test_a_pooled_corpus_is_in_its_own_order_and_tells_how_far_it_is(tmp_path) -> None:
    store = FeatureStore(tmp_path, FINGERPRINT)
    store.write(documents(20))
    store.write(documents(15, first=20))
    items = documents(35)
    order = np.random.default_rng(0).permutation(35)
    corpus = CachedCorpus(store, [items[i].key for i in order])
    told = []
    table = pool(corpus, POOLINGS["mean-hidden"], lambda event, values: told.append((event, values["documents"])))
    np.testing.assert_array_equal(table[:, 0], [mean_hidden(items[i]) for i in order])
    assert told == [("read", done) for done in range(1, 36)]
    with pytest.raises(ValueError, match="expected at least one document, got none"):
        pool(corpus.subset([]), POOLINGS["metrics"])


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_parts_of_a_corpus_read_no_document_twice_while_there_is_room(tmp_path, monkeypatch, room: int) -> None:
    monkeypatch.setattr("detect.pooled.KEPT_BYTES", room)
    store = FeatureStore(tmp_path, FINGERPRINT)
    store.write(documents(9))
    corpus = CachedCorpus(store, [item.key for item in documents(9)])
    whole = pool(corpus, POOLINGS["mean-hidden"], prefixes=2)
    for shard in store.folder.rglob("*.parquet"):
        shard.unlink()
    if room:
        np.testing.assert_array_equal(pool(corpus.subset([4, 1]), POOLINGS["mean-hidden"], prefixes=2), whole[[4, 1]])
    with pytest.raises(CacheError, match="cannot be read"):  # nothing is kept of hidden states where there are none
        pool(corpus.without_hidden().subset([4]), POOLINGS["mean-hidden"], prefixes=2)
    for other in (*([] if room else [{"prefixes": 2}]), {"prefixes": 3}, {"prefixes": 2, "seed": 1}):
        with pytest.raises(CacheError, match="cannot be read"):
            pool(corpus.subset([4]), POOLINGS["mean-hidden"], **other)


def test_prefixes_follow_the_whole_document_and_depend_on_nothing_but_key_and_seed(tmp_path) -> None:
    store = FeatureStore(tmp_path, FINGERPRINT)
    store.write(documents(9))
    items = documents(9)
    corpus = CachedCorpus(store, [item.key for item in items])
    table = pool(corpus, POOLINGS["mean-hidden"], prefixes=3, seed=5)
    for item, vectors in zip(items, table, strict=True):
        lengths = [item.n_tokens, *prefix_lengths(item.key, item.n_tokens, 3, seed=5)]
        np.testing.assert_array_equal(vectors, [mean_hidden(item.prefix(length)) for length in lengths])
    np.testing.assert_array_equal(pool(corpus.subset([4]), POOLINGS["mean-hidden"], prefixes=3, seed=5)[0], table[4])


def test_prefix_lengths_are_log_uniform_from_the_shortest_to_the_whole() -> None:
    lengths = np.array([prefix_lengths(str(key), 512, 1, seed=0)[0] for key in range(4000)])
    assert lengths.min() >= 32
    assert lengths.max() <= 512
    assert (lengths < 128).mean() == pytest.approx(0.5, abs=0.03)  # 128 is the geometric middle
    assert prefix_lengths("a", 20, 3, seed=0) == [20, 20, 20]
    assert prefix_lengths("a", 512, 3, seed=0) != prefix_lengths("a", 512, 3, seed=1)
