from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cache.maintenance
from cache.loader import CachedCorpus
from cache.maintenance import Damage, folder_info, folders_in, leftovers, verify_folder
from cache.projection import BASIS_FILE, ProjectionFit
from cache.store import FeatureStore, shards_in
from features.errors import CacheError, UsageError
from tests.cache.feature_makers import FINGERPRINT, HIDDEN_SIZE, documents, filled, flip, made_up


@pytest.fixture
def projected(tmp_path: Path) -> FeatureStore:
    """A store of a fitted codec that holds two documents."""
    wide = [replace(made_up(number, 40), hidden=states(number)) for number in range(40)]
    fit = ProjectionFit(40)
    for document in wide:
        fit.add(document.hidden)
    store = FeatureStore(tmp_path, FINGERPRINT, fit.projection())
    store.write(wide[:2])
    return store


def states(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(40, 40)).astype(np.float16)


def test_a_lost_codec_is_no_loss_for_who_has_it_and_is_put_back_by_the_next_shard(projected: FeatureStore) -> None:
    basis = projected.folder / BASIS_FILE
    intact, keys = basis.read_bytes(), list(projected.keys())
    basis.unlink()
    assert projected.read(keys)[keys[0]].hidden.shape == (40, 40)
    assert [found.hidden.shape for _, found in CachedCorpus(projected, keys).documents()] == [(40, 40)] * 2
    for content in (b"", intact[:100], intact[:-2] + b"xy"):
        basis.write_bytes(content)
        projected.write([replace(made_up(50 + len(content), 40), hidden=states(9))])
        assert basis.read_bytes() == intact
    assert leftovers(projected.folder) == []


def test_a_codec_that_the_system_does_not_give_is_not_called_damaged(
    projected: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cache.projection.safetensors.numpy.load_file", refused)
    with pytest.raises(CacheError, match=r"basis.safetensors holds no fitted codec .*Permission denied"):
        list(verify_folder(projected.folder))


def test_the_folders_of_a_cache_are_those_with_a_fingerprint_or_a_shard(tmp_path: Path) -> None:
    one = filled(tmp_path, documents(2)).folder
    other = FeatureStore(tmp_path, replace(FINGERPRINT, dtype="bfloat16"))
    other.write(documents(2))
    (other.folder / "fingerprint.json").unlink()  # only for people: the shards carry it
    (tmp_path / "foreign").mkdir()
    assert folders_in(tmp_path) == sorted([one, other.folder])
    assert folder_info(other.folder).fingerprint["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_folder_without_features_is_no_cache(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"no cache at {tmp_path / name}: .*'pawn extract --cache"):
        folders_in(tmp_path / name)


def test_info_counts_documents_tokens_shards_and_bytes(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(20), documents(7, first=20)).folder
    details = folder_info(folder)
    assert (details.documents, details.shards) == (27, 2)
    assert details.tokens == sum(features.n_tokens for features in documents(27))
    assert details.bytes == sum(shard.stat().st_size for shard in shards_in(folder))
    assert (details.fingerprint, details.codec) == (FINGERPRINT.to_dict(), "float16")
    assert details.hidden_size == HIDDEN_SIZE


def test_a_folder_without_shards_has_nothing_but_its_fingerprint(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(2)).folder
    shards_in(folder)[0].unlink()
    details = folder_info(folder)
    assert (details.documents, details.tokens, details.bytes, details.codec) == (0, 0, 0, None)
    assert details.fingerprint == FINGERPRINT.to_dict()


def test_a_fingerprint_file_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(2)).folder
    shards_in(folder)[0].unlink()
    (folder / "fingerprint.json").write_text("{")
    with pytest.raises(CacheError, match=f"{folder / 'fingerprint.json'} is damaged"):
        folder_info(folder)


def test_sound_shards_are_given_as_their_paths(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(20), documents(7, first=20)).folder
    assert list(verify_folder(folder)) == shards_in(folder)


def test_any_flipped_byte_is_damage(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(2)).folder
    shard = shards_in(folder)[0]
    whole = shard.read_bytes()
    for position in range(0, len(whole), 7):
        shard.write_bytes(whole)
        flip(shard, position, 1 << position % 8)
        [damage] = verify_folder(folder)
        assert isinstance(damage, Damage)
        assert damage.shard == shard
        assert f"its name says {shard.stem}" in damage.reason


def test_damage_in_one_shard_leaves_the_others_sound(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(20), documents(7, first=20)).folder
    first, second = shards_in(folder)
    flip(second, 100)
    assert [isinstance(found, Damage) for found in verify_folder(folder)] == [False, True]
    assert first.exists()


def test_damage_tells_how_many_documents_it_holds_where_the_shard_says_so(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(20)).folder
    shard = shards_in(folder)[0]
    flip(shard, shard.stat().st_size // 3)
    assert [found.documents for found in verify_folder(folder) if isinstance(found, Damage)] == [20]
    flip(shard, -1)
    assert [found.documents for found in verify_folder(folder) if isinstance(found, Damage)] == [None]


def test_a_shard_moved_from_another_folder_is_damage(tmp_path: Path) -> None:
    other = replace(FINGERPRINT, max_length=128)
    shard = FeatureStore(tmp_path, other).write(documents(2))
    folder = filled(tmp_path, documents(2)).folder
    shard.rename(folder / shard.name)
    reasons = [found.reason for found in verify_folder(folder) if isinstance(found, Damage)]
    assert reasons == [f"it was moved here from folder {other.digest}-float16"]


def test_a_shard_that_may_not_be_read_is_an_error_and_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path, documents(2)).folder

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.maintenance, "file_hash", refuse)
    with pytest.raises(CacheError, match=r"cannot be read: Permission denied; check its permissions"):
        list(verify_folder(folder))


def test_a_shard_that_the_disk_does_not_give_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled(tmp_path, documents(2)).folder

    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cache.maintenance, "file_hash", fail)
    [damage] = verify_folder(folder)
    assert isinstance(damage, Damage)
    assert damage.reason == "it cannot be read: Input/output error"


def test_leftovers_are_the_temporary_files_of_killed_runs(tmp_path: Path) -> None:
    folder = filled(tmp_path, documents(2)).folder
    assert leftovers(folder) == []
    (folder / ".writing-abc.tmp").write_bytes(b"half")
    (folder / ".fingerprint-12.tmp").write_bytes(b"{")
    assert [path.name for path in leftovers(folder)] == [".fingerprint-12.tmp", ".writing-abc.tmp"]
