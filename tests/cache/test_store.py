"""Shards on disk: whole or not at all, named by their content, and never read as something else."""

import hashlib
import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.schema import COLUMNS, META_KEY
from cache.store import ROW_GROUP_DOCUMENTS, FeatureStore, open_shard, shards_in
from features.errors import CacheError
from features.token_features import METRIC_NAMES
from tests.cache.feature_makers import FINGERPRINT, HIDDEN_SIZE, documents, filled, flip, made_up, same

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("count", [1, ROW_GROUP_DOCUMENTS, 2 * ROW_GROUP_DOCUMENTS + 5])
def test_features_come_back_bit_by_bit(tmp_path: Path, count: int) -> None:
    written = documents(count)
    filled(tmp_path, written)
    found = FeatureStore(tmp_path, FINGERPRINT).read(features.key for features in written)
    assert list(found) == [features.key for features in written]
    assert all(same(found[features.key], features) for features in written)


def test_numbers_that_are_no_numbers_come_back_bit_by_bit(tmp_path: Path) -> None:
    strange = made_up(1, 4)
    strange.metrics[0] = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38]
    strange.hidden[0] = [np.nan, np.inf, -np.inf, -0.0, 6e-8]
    assert same(filled(tmp_path, [strange]).read([strange.key])[strange.key], strange)


def test_documents_are_read_across_shards_and_row_groups(tmp_path: Path) -> None:
    store = filled(tmp_path, documents(40), documents(5, first=40))
    wanted = [documents(45)[i] for i in (44, 0, 17, 39, 16)]
    found = store.read(features.key for features in wanted)
    assert all(same(found[features.key], features) for features in wanted)
    assert len(found) == 5


def test_a_store_knows_what_it_holds_at_once_and_when_opened_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, FINGERPRINT)
    assert len(store) == 0
    assert not tmp_path.joinpath(f"{FINGERPRINT.digest}-float16").exists()  # opening creates nothing
    store.write(documents(3))
    for opened in (store, FeatureStore(tmp_path, FINGERPRINT)):
        assert len(opened) == 3
        assert f"{2:032x}" in opened
        assert f"{3:032x}" not in opened
        assert opened.locate(f"{2:032x}").n_tokens == documents(3)[2].n_tokens


def test_a_key_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=f"{9:032x}"):
        filled(tmp_path, documents(3)).read([f"{9:032x}"])


def test_a_shard_of_no_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one document in a shard, got none"):
        FeatureStore(tmp_path, FINGERPRINT).write([])


def test_a_shard_is_named_by_the_hash_of_its_bytes(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(3))
    assert shard.stem == hashlib.blake2b(shard.read_bytes(), digest_size=16).hexdigest()
    assert shard.parent == tmp_path / f"{FINGERPRINT.digest}-float16"


def test_the_same_documents_give_the_same_shard(tmp_path: Path) -> None:
    one = filled(tmp_path / "one", documents(20))
    other = filled(tmp_path / "other", documents(20), documents(20))
    assert [path.name for path in shards_in(one.folder)] == [path.name for path in shards_in(other.folder)]


def test_a_document_in_two_shards_is_one_document(tmp_path: Path) -> None:
    filled(tmp_path, documents(5), documents(8))
    store = FeatureStore(tmp_path, FINGERPRINT)
    assert len(shards_in(store.folder)) == 2
    assert len(store) == 8
    assert same(store.read([f"{3:032x}"])[f"{3:032x}"], documents(5)[3])


def test_two_stores_may_write_into_one_folder(tmp_path: Path) -> None:
    one, other = FeatureStore(tmp_path, FINGERPRINT), FeatureStore(tmp_path, FINGERPRINT)
    one.write(documents(3))
    other.write(documents(3, first=3))
    assert len(FeatureStore(tmp_path, FINGERPRINT)) == 6


def test_plain_polars_opens_a_shard_as_the_schema_says(tmp_path: Path) -> None:
    written = documents(20)
    shard = FeatureStore(tmp_path, FINGERPRINT).write(written)
    frame = pl.read_parquet(shard)
    assert frame.columns == COLUMNS.names
    for row, expected in zip(frame.iter_rows(named=True), written, strict=True):
        hidden = np.frombuffer(row["hidden"], "<f2").reshape(row["n_tokens"], -1)
        assert np.array_equal(hidden, expected.hidden)
        assert row["token_ids"] == expected.token_ids.tolist()
        assert list(zip(row["starts"], row["ends"], strict=True)) == [tuple(o) for o in expected.offsets]
        for i, name in enumerate(METRIC_NAMES):
            assert row[name] == expected.metrics[:, i].tolist()


def test_a_shard_and_its_folder_say_whose_features_they_are(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    assert json.loads((shard.parent / "fingerprint.json").read_text()) == FINGERPRINT.to_dict()
    assert json.loads(pq.read_schema(shard).metadata[META_KEY]) == {
        "format_version": 2,
        "fingerprint": FINGERPRINT.to_dict(),
        "codec": "float16",
        "hidden_size": HIDDEN_SIZE,
    }


def test_temporary_files_are_no_shards(tmp_path: Path) -> None:
    store = filled(tmp_path, documents(2))
    (store.folder / ".writing-abc.tmp").write_bytes(b"half a shard")
    (store.folder / ".hidden.parquet").write_bytes(b"half a shard")
    assert len(FeatureStore(tmp_path, FINGERPRINT)) == 2


def test_a_shard_of_another_fingerprint_is_an_error_that_names_both(tmp_path: Path) -> None:
    other = replace(FINGERPRINT, max_length=128)
    shard = FeatureStore(tmp_path, other).write(documents(2))
    folder = filled(tmp_path, documents(2)).folder
    shard.rename(folder / shard.name)
    message = rf"{shard.name} holds features of .*'max_length': 128.*, expected .*'max_length': 64"
    with pytest.raises(CacheError, match=message):
        FeatureStore(tmp_path, FINGERPRINT)


def test_parquet_that_is_no_shard_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(2)).folder
    pl.DataFrame({"key": ["a"]}).write_parquet(folder / "foreign.parquet")
    with pytest.raises(CacheError, match=r"foreign.parquet is Parquet but no feature shard"):
        FeatureStore(tmp_path, FINGERPRINT)


def test_a_shard_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    pq.write_table(pq.read_table(shard).drop_columns(["kinds"]), shard)
    rewrite_meta(shard, {"format_version": 1})
    with pytest.raises(CacheError, match=rf"has format_version 1, this program reads 2; delete {shard.parent}, whose"):
        FeatureStore(tmp_path, FINGERPRINT)


def test_kinds_take_less_than_a_byte_a_token_on_disk(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write([made_up(number, 400) for number in range(16)])
    column = pq.ParquetFile(shard).metadata.row_group(0).column(4)
    assert column.path_in_schema == "kinds.list.element"
    assert column.total_compressed_size < 16 * 400


@pytest.mark.parametrize(("name", "value"), [("format_version", 3), ("codec", "float8")])
def test_a_shard_of_a_later_version_is_refused(tmp_path: Path, name: str, value: object) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    rewrite_meta(shard, {name: value})
    with pytest.raises(CacheError, match=f"{shard.name} has {name} {value!r}, this program reads"):
        FeatureStore(tmp_path, FINGERPRINT)


def test_a_hidden_size_that_fits_the_bytes_but_not_the_tokens_is_damage(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    rewrite_meta(shard, {"hidden_size": 1})
    with pytest.raises(CacheError, match=f"{shard.name} is damaged: 2 tokens but 10 hidden states"):
        FeatureStore(tmp_path, FINGERPRINT).read([f"{0:032x}"])


def test_columns_of_other_names_or_types_are_damage(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    table = pq.read_table(shard)
    place = table.schema.get_field_index("n_tokens")
    changed = table["n_tokens"].cast(pa.int64())
    pq.write_table(table.set_column(place, "n_tokens", changed), shard)
    with pytest.raises(CacheError, match=f"{shard.name} is damaged: expected the columns"):
        FeatureStore(tmp_path, FINGERPRINT)


def rewrite_meta(shard: Path, changes: dict[str, object]) -> None:
    table = pq.read_table(shard)
    meta = json.loads(table.schema.metadata[META_KEY]) | changes
    pq.write_table(table.replace_schema_metadata({META_KEY: json.dumps(meta).encode()}), shard)


@pytest.mark.parametrize(
    ("column", "size"),  # bytes of the first page, without its header, which no checksum covers
    [
        ("key", ROW_GROUP_DOCUMENTS * (4 + 32)),
        ("n_tokens", ROW_GROUP_DOCUMENTS * 4),
        ("truncated", ROW_GROUP_DOCUMENTS // 8),
        ("token_ids", sum(f.n_tokens for f in documents(ROW_GROUP_DOCUMENTS)) * 4),
        ("ends", sum(f.n_tokens for f in documents(ROW_GROUP_DOCUMENTS)) * 4),
        ("top_p", sum(f.n_tokens - 1 for f in documents(ROW_GROUP_DOCUMENTS)) * 4),
        ("hidden", sum(4 + f.n_tokens * HIDDEN_SIZE * 2 for f in documents(ROW_GROUP_DOCUMENTS))),
    ],
)
def test_a_flipped_bit_in_any_page_is_found_when_it_is_read(tmp_path: Path, column: str, size: int) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(20))
    whole, stop = shard.read_bytes(), end_of_first_page(shard, column)
    for position in range(stop - size, stop, max(1, size // 50)):
        shard.write_bytes(whole)
        flip(shard, position, 1 << position % 8)
        with pytest.raises(CacheError, match=rf"shard \S*{shard.name} is damaged: .*pawn cache verify"):
            FeatureStore(tmp_path, FINGERPRINT).read([f"{0:032x}"])


def end_of_first_page(shard: Path, column: str) -> int:
    group = pq.read_metadata(shard).row_group(0)
    for i in range(group.num_columns):
        chunk = group.column(i)
        if chunk.path_in_schema.split(".")[0] == column:
            return int(chunk.data_page_offset + chunk.total_compressed_size)
    raise AssertionError(column)


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(tmp_path: Path) -> None:
    written = documents(20)
    shard = FeatureStore(tmp_path, FINGERPRINT).write(written)
    whole = shard.read_bytes()
    found = 0
    positions = range(0, len(whole), 37)  # every byte with every bit was tried once, by hand
    for position in positions:
        shard.write_bytes(whole)
        flip(shard, position, 1 << position % 8)
        try:
            read = FeatureStore(tmp_path, FINGERPRINT).read(features.key for features in written)
        except CacheError as error:
            assert shard.name in str(error), position  # noqa: PT017  # many positions in one test
            assert "pawn cache verify" in str(error), position  # noqa: PT017  # many positions in one test
            found += 1
        else:
            assert all(same(read[features.key], features) for features in written), position
    assert found > len(positions) / 2  # the footer has bytes that nobody reads


def test_a_flipped_bit_in_the_footers_length_or_magic_number_is_found(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    whole = shard.read_bytes()
    for position in range(-8, 0):
        for bit in range(8):
            shard.write_bytes(whole)
            flip(shard, position, 1 << bit)
            with pytest.raises(CacheError, match=rf"{shard.name} is damaged: .*pawn cache verify"):
                FeatureStore(tmp_path, FINGERPRINT)


@pytest.mark.parametrize("kept", [0, 3, 100, -1, -9])
def test_a_shard_that_was_cut_is_damaged(tmp_path: Path, kept: int) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(CacheError, match=rf"{shard.name} is damaged: .*verify {tmp_path} --delete-damaged"):
        FeatureStore(tmp_path, FINGERPRINT)


def test_a_footer_that_promises_more_than_there_is_damaged(tmp_path: Path) -> None:
    shard = FeatureStore(tmp_path, FINGERPRINT).write(documents(2))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8] + struct.pack("<i", 2**31 - 1) + whole[-4:])
    with pytest.raises(CacheError, match=f"{shard.name} is damaged"):
        FeatureStore(tmp_path, FINGERPRINT)


def test_a_shard_that_the_system_does_not_give_is_not_called_damaged(tmp_path: Path) -> None:
    store = filled(tmp_path, documents(2))
    shard = shards_in(store.folder)[0]
    shard.unlink()
    with pytest.raises(CacheError, match=rf"{shard.name} cannot be read: .*[Nn]o such file"):
        store.read([f"{0:032x}"])


@pytest.mark.parametrize("error", [MemoryError("no room"), pa.ArrowMemoryError("no room"), pa.ArrowCancelled("stop")])
def test_what_says_nothing_of_a_shard_is_not_called_damage(tmp_path: Path, error: Exception) -> None:
    shard = shards_in(filled(tmp_path, documents(1)).folder)[0]
    with pytest.raises(type(error)), open_shard(shard):
        raise error


def test_a_cache_path_that_is_a_file_is_a_cache_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a folder")
    with pytest.raises(CacheError, match=rf"cannot write features to {path}/[\w-]+: Not a directory"):
        FeatureStore(path, FINGERPRINT).write(documents(2))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from features.errors import CacheError
from tests.cache.feature_makers import documents, filled

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    filled(Path(sys.argv[1]), documents(400))
except CacheError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("limit", [10, 5_000, 40_000])  # at fingerprint.json, at once, in the middle
def test_a_disk_that_refuses_is_a_cache_error_that_leaves_nothing(tmp_path: Path, limit: int) -> None:
    filled(tmp_path, documents(2)) if limit != 10 else None
    before = sorted(path.name for path in tmp_path.rglob("*"))
    done = run_python(FULL_DISK, str(tmp_path), str(limit))
    assert (done.returncode, done.stderr) == (7, "")
    assert "File too large; finished shards are kept: free some space" in done.stdout
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == (before or [f"{FINGERPRINT.digest}-float16"])


def run_python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
