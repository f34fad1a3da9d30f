"""Corpus to store: each distinct text once, in whole shards, and a killed run ends like an undisturbed one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

import pipelines.extraction
from cache.codec import FLOAT16
from cache.maintenance import leftovers
from cache.store import FeatureStore, shards_in
from features.backbone import Backbone
from features.documents import Document, Status, text_key, text_status
from features.extractor import Extractor
from features.registry import BackboneFiles
from pipelines.corpora import Row
from pipelines.extraction import block_features, blocks, extract_corpus, prepare
from tests.cache.feature_makers import same
from tests.features.tiny_models import SENTENCES, write_tiny_model

REPOSITORY = Path(__file__).parents[2]
WORDS = " ".join(SENTENCES).split()
TEXTS = [" ".join((WORDS[i:] + WORDS)[: 20 + i % 30]) for i in range(60)]
"""60 distinct texts of 20 to 49 words; some 100 tokens each of the tiny tokenizer."""


def rows(texts: Sequence[str | None]) -> Iterator[Row]:
    for number, text in enumerate(texts):
        yield Row(Document(str(number), text or ""), text_status(text), {"n": number})


def load(path: Path) -> Extractor:
    files = BackboneFiles("tiny", path, "w", "t")
    return Extractor(Backbone.load(files, device="cpu", dtype=torch.float32))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def extractor(model: Path) -> Extractor:
    return load(model)


@pytest.fixture
def store(tmp_path: Path, extractor: Extractor) -> FeatureStore:
    return FeatureStore(tmp_path / "cache", extractor.fingerprint)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.extraction, "BLOCK_TOKENS", 1000)


def test_each_distinct_text_is_computed_once(extractor: Extractor, store: FeatureStore) -> None:
    summary = extract_corpus(rows([*TEXTS[:3], TEXTS[1], TEXTS[1]]), extractor, store)
    assert (summary.rows, summary.computed, summary.failed, len(store)) == (5, 3, 0, 3)
    assert summary.tokens == extractor.tokens_done == sum(len(e.token_ids) for e in extractor.encode(TEXTS[:3]))


def test_a_text_that_repeats_after_its_shard_was_written_is_computed_once(
    extractor: Extractor, store: FeatureStore, small_blocks: None
) -> None:
    summary = extract_corpus(rows(TEXTS + TEXTS), extractor, store)
    assert (summary.rows, summary.computed) == (120, 60)
    assert summary.shards == len(shards_in(store.folder)) > 3


def test_a_text_that_repeats_fills_no_block(extractor: Extractor, store: FeatureStore, small_blocks: None) -> None:
    summary = extract_corpus(rows([TEXTS[0]] * 20 + TEXTS[1:3]), extractor, store)
    assert (summary.computed, summary.shards) == (3, 1)


def test_the_stored_features_are_the_extractors(extractor: Extractor, store: FeatureStore) -> None:
    extract_corpus(rows(TEXTS[:5]), extractor, store)
    keys = [text_key(text) for text in TEXTS[:5]]
    expected = extractor.extract(keys, extractor.encode(TEXTS[:5]))
    found = FeatureStore(store.folder.parent, extractor.fingerprint).read(keys)
    assert all(same(found[features.key], features) for features in expected)


def test_rows_without_features_are_counted_by_their_status(extractor: Extractor, store: FeatureStore) -> None:
    summary = extract_corpus(rows([TEXTS[0], None, "", "too short", "\0" + TEXTS[1], "\ud83d"]), extractor, store)
    assert summary.by_status == {
        Status.OK: 1,
        Status.NULL: 1,
        Status.EMPTY: 1,
        Status.TOO_SHORT: 1,
        Status.NUL_CHARACTER: 1,
        Status.LONE_SURROGATE: 1,
    }
    assert (summary.failed, summary.computed) == (5, 1)


def test_nothing_to_compute_writes_nothing(extractor: Extractor, store: FeatureStore) -> None:
    for texts in ([], [None, "short"]):
        summary = extract_corpus(rows(texts), extractor, store)
        assert (summary.computed, summary.shards) == (0, 0)
    assert not store.folder.exists()


def test_a_second_run_computes_and_writes_nothing(
    extractor: Extractor, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_corpus(rows(TEXTS), extractor, store)
    written = shards_in(store.folder)
    monkeypatch.setattr(Extractor, "extract", None)
    monkeypatch.setattr(FeatureStore, "write", None)
    again = extract_corpus(rows(TEXTS), extractor, FeatureStore(store.folder.parent, extractor.fingerprint))
    assert (again.rows, again.failed, again.computed, again.tokens, again.shards) == (60, 0, 0, 0, 0)
    assert shards_in(store.folder) == written


def test_progress_is_told_after_every_block(extractor: Extractor, store: FeatureStore, small_blocks: None) -> None:
    told: list[tuple[int, int]] = []
    summary = extract_corpus(rows(TEXTS), extractor, store, lambda *done: told.append(done))
    assert len(told) == summary.shards
    assert told == sorted(told)
    assert told[-1] == (60, summary.tokens)


# Kills the process with SIGKILL, which nothing can catch, at a chosen place of the third shard.
KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet
import pipelines.extraction
from cache.store import FeatureStore
from features.extractor import Extractor
from tests.pipelines.test_extraction import TEXTS, load, rows

where, model, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
calls = 0

def die_at_third(call, before, half=None):
    def counted(*args, **options):
        global calls
        calls += 1
        if calls == 3 and before:
            if half is not None:
                half(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **options)
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return counted

def write_half(table, file):
    file.write(b"PAR1" + bytes(5000))
    file.flush()

if where == "computing":
    Extractor.extract = die_at_third(Extractor.extract, True)
elif where == "writing":
    pyarrow.parquet.write_table = die_at_third(pyarrow.parquet.write_table, True, write_half)
elif where == "before the rename":
    pyarrow.parquet.write_table = die_at_third(pyarrow.parquet.write_table, False)
elif where == "after the rename":
    FeatureStore.write = die_at_third(FeatureStore.write, False)
pipelines.extraction.BLOCK_TOKENS = 1000
extractor = load(model)
pipelines.extraction.extract_corpus(rows(TEXTS), extractor, FeatureStore(cache, extractor.fingerprint))
"""


@pytest.mark.parametrize(
    ("where", "kept", "left"),
    [("computing", 2, 0), ("writing", 2, 1), ("before the rename", 2, 1), ("after the rename", 3, 0)],
)
def test_a_killed_run_that_is_repeated_ends_like_an_undisturbed_one(
    tmp_path: Path, model: Path, extractor: Extractor, small_blocks: None, where: str, kept: int, left: int
) -> None:
    undisturbed = FeatureStore(tmp_path / "undisturbed", extractor.fingerprint)
    extract_corpus(rows(TEXTS), extractor, undisturbed)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, where, str(model), str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    store = FeatureStore(tmp_path / "killed", extractor.fingerprint)
    assert len(shards_in(store.folder)) == kept
    assert len(leftovers(store.folder)) == left

    extract_corpus(rows(TEXTS), extractor, store)
    one, other = contents(undisturbed), contents(store)
    assert len(one) > 4
    assert one == other


def contents(store: FeatureStore) -> dict[str, bytes]:
    return {shard.name: shard.read_bytes() for shard in shards_in(store.folder)}


def test_prepared_rows_keep_their_order_and_what_is_carried(extractor: Extractor) -> None:
    items = list(prepare(rows([TEXTS[0], None, "short", TEXTS[1]] * 40), extractor, None))
    assert [item.id for item in items] == [str(i) for i in range(160)]
    assert [item.carried["n"] for item in items] == list(range(160))
    assert [item.status for item in items[:4]] == [Status.OK, Status.NULL, Status.TOO_SHORT, Status.OK]
    assert [item.encoding is None for item in items[:4]] == [False, True, True, False]
    assert items[1].n_tokens is None
    assert items[2].n_tokens == len(extractor.encode(["short"])[0].token_ids)


def test_a_text_that_the_store_holds_is_not_tokenised_again(
    extractor: Extractor, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_corpus(rows(TEXTS[:2]), extractor, store)
    tokenised: list[str] = []
    encode = extractor.encode
    monkeypatch.setattr(extractor, "encode", lambda texts: (tokenised.extend(texts), encode(texts))[1])
    items = list(prepare(rows(TEXTS[:3]), extractor, store))
    assert tokenised == [TEXTS[2]]
    assert [item.n_tokens for item in items] == [len(e.token_ids) for e in encode(TEXTS[:3])]
    assert [item.encoding is None for item in items] == [True, True, False]


def test_texts_are_held_for_a_bounded_number_of_characters(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.extraction, "ENCODE_CHARACTERS", 1000)
    read: list[int] = []

    def counted() -> Iterator[Row]:
        for row in rows(["x" * 400] * 60):
            read.append(1)
            yield row

    next(prepare(counted(), extractor, None))
    assert len(read) == 3


def test_blocks_hold_every_row_once_in_order_and_end_at_their_limits(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    items = list(prepare(rows([*TEXTS, *[None] * 30]), extractor, None))
    by_tokens = list(blocks(items))
    assert [item for block in by_tokens for item in block] == items
    assert all(sum(item.n_tokens or 0 for item in block[:-1]) < 1000 for block in by_tokens)
    monkeypatch.setattr(pipelines.extraction, "BLOCK_ROWS", 7)
    assert max(len(block) for block in blocks(items)) == 7


def test_a_block_has_the_features_of_its_scorable_rows(extractor: Extractor) -> None:
    [block] = blocks(prepare(rows([TEXTS[0], None, TEXTS[1], TEXTS[0]]), extractor, None))
    found = block_features(block, extractor, None, FLOAT16)
    assert set(found) == {text_key(TEXTS[0]), text_key(TEXTS[1])}


def test_a_block_is_read_from_the_store_where_it_is_there_and_kept_where_not(
    extractor: Extractor, store: FeatureStore
) -> None:
    extract_corpus(rows(TEXTS[:2]), extractor, store)
    done = extractor.tokens_done
    [block] = blocks(prepare(rows(TEXTS[:3]), extractor, store))
    found = block_features(block, extractor, store, FLOAT16)
    new = len(extractor.encode(TEXTS[2:3])[0].token_ids)
    assert extractor.tokens_done - done == new
    assert set(found) == {text_key(text) for text in TEXTS[:3]}
    assert len(store) == 3
    again = block_features(list(prepare(rows(TEXTS[:3]), extractor, store)), extractor, store, FLOAT16)
    assert extractor.tokens_done - done == new
    assert all(same(again[key], found[key]) for key in found)
