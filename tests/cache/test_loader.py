"""An epoch: every document once, in batches within their limits, from two buffers of memory."""

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache.loader
from cache.loader import Batch, CachedCorpus, LabelledCorpus
from cache.store import ROW_GROUP_DOCUMENTS, FeatureStore, read_row_groups
from features.token_features import TokenFeatures
from tests.cache.feature_makers import documents, filled, flip, same

COUNT = 150  # in 3 shards of 50, so of 4 row groups each


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.loader, "BUFFER_GROUPS", 3)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return filled(tmp_path, documents(50), documents(50, first=50), documents(50, first=100))


@pytest.fixture
def corpus(store: FeatureStore) -> CachedCorpus:
    """All documents, in an order that is not the disk's: index i is document 7 i mod 150."""
    return CachedCorpus(store, [f"{7 * i % COUNT:032x}" for i in range(COUNT)])


def epoch(corpus: CachedCorpus, seed: int = 0, batch_size: int = 8, token_budget: int = 60) -> list[Batch]:
    return list(corpus.epoch(np.random.default_rng(seed), batch_size=batch_size, token_budget=token_budget))


def test_an_epoch_gives_every_document_once_under_its_index(corpus: CachedCorpus) -> None:
    expected = documents(COUNT)
    seen = []
    for batch in epoch(corpus):
        for index, features in zip(batch.indices.tolist(), batch.features, strict=True):
            seen.append(index)
            assert features.key == corpus.keys[index]
            assert same(features, expected[7 * index % COUNT])
    assert sorted(seen) == list(range(COUNT))


def test_the_same_random_state_gives_the_same_batches(corpus: CachedCorpus) -> None:
    def order(seed: int) -> list[list[int]]:
        return [batch.indices.tolist() for batch in epoch(corpus, seed)]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_one_random_state_gives_each_epoch_another_order(corpus: CachedCorpus) -> None:
    rng = np.random.default_rng(0)
    first, second = (
        [batch.indices.tolist() for batch in corpus.epoch(rng, batch_size=8, token_budget=60)] for _ in range(2)
    )
    assert first != second


@pytest.mark.parametrize(("batch_size", "token_budget"), [(8, 10_000), (150, 40), (8, 60), (1, 60), (8, 1)])
def test_batches_keep_within_both_limits(corpus: CachedCorpus, batch_size: int, token_budget: int) -> None:
    batches = epoch(corpus, batch_size=batch_size, token_budget=token_budget)
    for batch in batches:
        padded = len(batch.features) * max(features.n_tokens for features in batch.features)
        assert 1 <= len(batch.features) <= batch_size
        assert padded <= token_budget or len(batch.features) == 1
    assert sum(len(batch.features) for batch in batches) == COUNT


def test_a_batch_is_of_similar_lengths_and_of_many_places(corpus: CachedCorpus) -> None:
    batches = [batch for batch in epoch(corpus, token_budget=10_000) if len(batch.features) == 8]
    padded = sum(8 * max(f.n_tokens for f in batch.features) for batch in batches)
    tokens = sum(f.n_tokens for batch in batches for f in batch.features)
    assert padded / tokens < 1.35  # cut at random it is 1.6
    disk_places = [{7 * index % COUNT // 50 for index in batch.indices.tolist()} for batch in batches]
    assert any(len(places) > 1 for places in disk_places)  # several shards in one batch


def test_documents_come_once_in_the_order_of_the_disk(corpus: CachedCorpus) -> None:
    found = list(corpus.documents())
    assert sorted(index for index, _ in found) == list(range(COUNT))
    assert all(features.key == corpus.keys[index] for index, features in found)


def test_a_subset_is_renumbered_in_the_order_given(corpus: CachedCorpus) -> None:
    chosen = [140, 3, 77]
    part = corpus.subset(chosen)
    assert len(part) == 3
    assert part.keys == [corpus.keys[index] for index in chosen]
    assert {index: f.key for index, f in part.documents()} == dict(enumerate(part.keys))
    seen = np.concatenate([batch.indices for batch in epoch(part)])
    assert sorted(seen.tolist()) == [0, 1, 2]


def test_a_subset_of_a_subset_counts_in_the_subset(corpus: CachedCorpus) -> None:
    part = corpus.subset(np.array([140, 3, 77])).subset([2, 0])
    assert part.keys == [corpus.keys[77], corpus.keys[140]]


def test_a_subset_reads_only_the_row_groups_that_it_needs(
    corpus: CachedCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = record_reads(monkeypatch)
    epoch(corpus.subset([0, 3]))  # documents 0 and 21: two row groups of the first shard
    assert sorted(group for groups in reads for group in groups) == [0, 1]


def record_reads(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    reads: list[list[int]] = []

    def recorded(shard: Path, groups: Sequence[int], **options: Any) -> Iterator[list[TokenFeatures]]:
        reads.append(list(groups))
        return read_row_groups(shard, groups, **options)

    monkeypatch.setattr(cache.loader, "read_row_groups", recorded)
    return reads


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([3, 5, 3, 5], ValueError, "distinct indices, got 2 repeated"),
        ([0, 150], IndexError, "from 0 to 149, got 150"),
        ([-1], IndexError, "from 0 to 149, got -1"),
    ],
)
def test_a_subset_of_repeated_or_missing_indices_is_refused(
    corpus: CachedCorpus, indices: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        corpus.subset(indices)


def test_repeated_keys_are_refused(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="expected distinct keys, got 2 repeated ones"):
        CachedCorpus(store, [f"{i:032x}" for i in (1, 2, 1, 2, 3)])


def test_a_key_that_the_store_does_not_hold_is_refused(store: FeatureStore) -> None:
    with pytest.raises(KeyError, match=f"{999:032x}"):
        CachedCorpus(store, [f"{999:032x}"])


def test_an_empty_corpus_has_an_empty_epoch(store: FeatureStore) -> None:
    empty = CachedCorpus(store, [])
    assert (len(empty), epoch(empty), list(empty.documents())) == (0, [], [])


def test_a_transform_is_applied_before_lengths_are_compared(corpus: CachedCorpus) -> None:
    def first_two_tokens(features: TokenFeatures, rng: np.random.Generator) -> TokenFeatures:
        return features.prefix(2)

    batches = list(corpus.epoch(np.random.default_rng(0), batch_size=50, token_budget=100, transform=first_two_tokens))
    assert max(len(batch.features) for batch in batches) >= 48  # a buffer's 48 documents fill one batch
    assert {features.n_tokens for batch in batches for features in batch.features} == {2}


def test_a_transform_draws_from_the_epochs_own_generator(corpus: CachedCorpus) -> None:
    def crop(features: TokenFeatures, rng: np.random.Generator) -> TokenFeatures:
        return features.prefix(int(rng.integers(2, features.n_tokens + 1)))

    def lengths(seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [
            [features.n_tokens for features in batch.features]
            for batch in corpus.epoch(rng, batch_size=8, token_budget=60, transform=crop)
        ]

    assert lengths(0) == lengths(0)
    assert lengths(0) != lengths(1)


@pytest.mark.parametrize("way", ["epoch", "documents"])
def test_no_more_than_two_buffers_and_the_batch_in_use_are_alive(
    corpus: CachedCorpus, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    given: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def watched(shard: Path, groups: Sequence[int], **options: Any) -> Iterator[list[TokenFeatures]]:
        for found in read_row_groups(shard, groups, **options):
            given.extend(weakref.ref(features.hidden) for features in found)
            alive.append(sum(reference() is not None for reference in given))
            yield found

    monkeypatch.setattr(cache.loader, "read_row_groups", watched)
    rng = np.random.default_rng(0)
    steps = corpus.documents() if way == "documents" else corpus.epoch(rng, batch_size=8, token_budget=60)
    for _ in steps:
        if len(given) < COUNT:
            time.sleep(0.02)  # time to read whatever may be read ahead
    assert len(given) == COUNT
    buffer = 3 * ROW_GROUP_DOCUMENTS
    assert max(alive) <= 2 * buffer + 8


def test_damage_is_raised_where_the_epoch_is_used(corpus: CachedCorpus, store: FeatureStore) -> None:
    flip(store.locate(corpus.keys[0]).shard, -1)
    with pytest.raises(Exception, match="pawn cache verify"):
        epoch(corpus)


def test_an_epoch_that_is_left_early_leaves_no_thread(corpus: CachedCorpus) -> None:
    batches = corpus.epoch(np.random.default_rng(0), batch_size=8, token_budget=60)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # "Iterator" has no "close": it is a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cache-reader")]


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0, 0], "with 3 human and 0 machine"), ([0, 1], "expected 3 labels .* got 2 with 1 human")],
)
def test_labels_are_one_for_each_document_and_of_both_classes(
    corpus: CachedCorpus, labels: list[int], message: str
) -> None:
    part = corpus.subset([0, 1, 2])
    assert LabelledCorpus(part, np.array([0, 1, 0])).corpus is part
    with pytest.raises(ValueError, match=message):
        LabelledCorpus(part, np.array(labels))


def test_without_hidden_states_all_else_is_the_same(corpus: CachedCorpus) -> None:
    light = dict(corpus.without_hidden().documents())
    assert set(light) == set(range(len(corpus)))
    for index, document in corpus.documents():
        assert light[index].hidden.shape == (document.n_tokens, 0)
        assert document.hidden.shape[1] > 0  # and the corpus itself still has them
        for name in ("key", "truncated"):
            assert getattr(light[index], name) == getattr(document, name)
        for name in ("token_ids", "offsets", "metrics"):
            np.testing.assert_array_equal(getattr(light[index], name), getattr(document, name))
    part = corpus.without_hidden().subset([2])
    assert [document.hidden.shape[1] for _, document in part.documents()] == [0]
