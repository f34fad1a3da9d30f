"""The feature store: a folder of immutable, content-named Parquet shards per fingerprint.

    CACHE/<fingerprint digest>-<codec>/fingerprint.json       for people; the shards carry it too
    CACHE/<fingerprint digest>-<codec>/basis.safetensors      where the codec is a fitted one
    CACHE/<fingerprint digest>-<codec>/<hash of the file>.parquet

A shard is written under a temporary name, flushed and renamed: its presence is its commit. There is no
index on disk; opening a store reads the key column of every shard.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.codec import FLOAT16, Codec
from cache.codec_catalog import codec_in
from cache.projection import BASIS_FILE, Projection
from cache.schema import read_meta, shard_schema
from features.backbone import Fingerprint, layers_kept
from features.errors import CacheError
from features.token_features import CROSS_METRIC_NAMES, METRIC_NAMES, TokenFeatures
from features.whole_files import sync, whole_file

SHARDS = "[!.]*.parquet"
"""What committed shards are called; temporary files begin with a dot."""

ROW_GROUP_DOCUMENTS = 16
"""Documents in a row group, the unit of reading: about 5 MB of float16 states at 256 tokens and 576 dimensions."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a document's features lie."""

    shard: Path
    row: int
    n_tokens: int


class FeatureStore:
    """All features of one fingerprint and codec under one cache folder."""

    def __init__(self, root: Path, fingerprint: Fingerprint, codec: Codec = FLOAT16) -> None:
        """Open, and create at the first write; reads which keys are there.

        Raises:
            CacheError: when a shard is damaged or belongs to another fingerprint.
        """
        self.folder = root / folder_name(fingerprint.digest, codec.name)
        self.fingerprint = fingerprint
        self.codec = codec
        self._where: dict[str, Location] = {}
        for shard in shards_in(self.folder):
            self._index(shard)

    def __contains__(self, key: str) -> bool:
        """Whether a text's features are there."""
        return key in self._where

    def __len__(self) -> int:
        """How many distinct documents are there."""
        return len(self._where)

    def keys(self) -> Iterable[str]:
        """Every document's key, in the order of the shards."""
        return self._where.keys()

    def locate(self, key: str) -> Location:
        """Where the features of a key lie.

        Raises:
            KeyError: when they are not in the store.
        """
        return self._where[key]

    def write(self, features: Sequence[TokenFeatures]) -> Path:
        """Commit documents as one shard, whole or not at all.

        Raises:
            CacheError: when the disk refuses (full, read-only).
        """
        table = _to_table(features, self.fingerprint, self.codec)
        with disk_errors(self.folder):
            self._create()
            descriptor, name = tempfile.mkstemp(prefix=".writing-", suffix=".tmp", dir=self.folder)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    pq.write_table(
                        table,
                        file,
                        row_group_size=ROW_GROUP_DOCUMENTS,
                        # Lists would lose 1 % of the file to zstd, and a flipped codec bit in the footer made
                        # pyarrow 25 read other numbers from a column without list lengths to check.
                        compression="none",
                        use_dictionary=False,
                        # Parquet has no numbers of 8 bits: these would take 32.
                        column_encoding={"kinds.list.element": "DELTA_BINARY_PACKED"},
                        write_statistics=["n_tokens"],
                        write_page_checksum=True,
                    )
                    file.flush()
                    os.fsync(file.fileno())
                shard = self.folder / f"{file_hash(temporary)}.parquet"
                os.chmod(temporary, 0o644)
                os.replace(temporary, shard)
                sync(self.folder)
            finally:
                temporary.unlink(missing_ok=True)
        for row, item in enumerate(features):
            self._where.setdefault(item.key, Location(shard, row, item.n_tokens))
        return shard

    def read(self, keys: Iterable[str], *, hidden: bool = True) -> dict[str, TokenFeatures]:
        """Features by key; each row group that holds one of them is read once.

        `hidden` is as for `read_row_groups`.

        Raises:
            KeyError: for a key that is not in the store.
            CacheError: when a shard is damaged.
        """
        wanted: dict[tuple[Path, int], dict[int, str]] = {}
        for key in keys:
            location = self.locate(key)
            group, row = divmod(location.row, ROW_GROUP_DOCUMENTS)
            wanted.setdefault((location.shard, group), {})[row] = key
        found: dict[str, TokenFeatures] = {}
        by_shard: dict[Path, list[int]] = {}
        for shard, group in sorted(wanted):
            by_shard.setdefault(shard, []).append(group)
        for shard, groups in by_shard.items():
            read = read_row_groups(shard, groups, hidden=hidden, codec=self.codec)
            for group, rows in zip(groups, read, strict=True):
                found.update((key, rows[row]) for row, key in wanted[shard, group].items())
        return found

    def _create(self) -> None:
        """Make the folder, put the fingerprint where a person can read it, and the codec where readers find it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = self.folder / "fingerprint.json"
        if not facts.is_file():
            with whole_file(facts) as file:
                file.write((json.dumps(self.fingerprint.to_dict(), indent=2) + "\n").encode())
        basis = self.folder / BASIS_FILE
        if isinstance(self.codec, Projection) and not _holds(basis, self.codec):
            self.codec.save(basis)

    def _index(self, shard: Path) -> None:
        with open_shard(shard) as file:
            meta = read_meta(file.schema_arrow, str(shard))
            if meta["fingerprint"] != self.fingerprint.to_dict():
                raise CacheError(
                    f"{shard} holds features of {meta['fingerprint']}, expected "
                    f"{self.fingerprint.to_dict()}; a shard was moved between folders, or is damaged: "
                    f"move it back, or run {_verify_command(shard)}"
                )
            keys = file.read(columns=["key", "n_tokens"])
        for row, (key, n_tokens) in enumerate(zip(keys["key"].to_pylist(), keys["n_tokens"].to_pylist(), strict=True)):
            self._where.setdefault(key, Location(shard, row, n_tokens))


def _holds(basis: Path, codec: Projection) -> bool:
    """Whether a file is there and holds a codec; one that is damaged is to be written again."""
    try:
        return basis.is_file() and Projection.load(basis).name == codec.name
    except CacheError:
        return False


def folder_name(digest: str, codec: str) -> str:
    """What the folder of a fingerprint's features in a codec is called."""
    return f"{digest}-{codec}"


def shards_in(folder: Path) -> list[Path]:
    """The committed shards of a fingerprint's folder, in the order of their names."""
    return sorted(folder.glob(SHARDS))


def file_hash(path: Path) -> str:
    """32 hex digits of BLAKE2b over a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_row_groups(
    shard: Path, groups: Sequence[int], *, hidden: bool = True, codec: Codec | None = None
) -> Iterator[list[TokenFeatures]]:
    """The documents of some row groups of a shard, checksums verified.

    Args:
        shard: the file.
        groups: numbers of the row groups, in the order wanted.
        hidden: False leaves the hidden states on disk, most of the bytes; `hidden` of the documents is then (n, 0).
        codec: that of the hidden states where it is at hand; None, or another one: found by the name in the shard.

    Raises:
        CacheError: when the shard is damaged.
    """
    with open_shard(shard) as file:
        meta = read_meta(file.schema_arrow, str(shard))
        if codec is None or codec.name != meta["codec"]:
            codec = codec_in(shard.parent, meta["codec"])
        hidden_size, layers = int(meta["hidden_size"]), layers_kept(meta["fingerprint"])
        columns = [name for name in file.schema_arrow.names if hidden or name != "hidden"]
        for group in groups:
            yield _from_table(file.read_row_group(group, columns=columns), codec, hidden_size, layers)


def read_shard(shard: Path) -> Iterator[TokenFeatures]:
    """Every document of a shard, a row group in memory at a time.

    Raises:
        CacheError: when the shard is damaged.
    """
    with open_shard(shard) as file:
        groups = range(file.num_row_groups)
    for documents in read_row_groups(shard, groups):
        yield from documents


@contextmanager
def open_shard(shard: Path) -> Iterator[pq.ParquetFile]:
    """A shard opened with page checksums on; damage becomes a CacheError that says what to do.

    What is done with the file belongs inside: damage shows when a page is read, not when the file is opened.
    """
    try:
        with pq.ParquetFile(shard, page_checksum_verification=True) as file:
            yield file
    except (MemoryError, pa.ArrowCancelled):  # Arrow's own are ArrowExceptions too, and say nothing of the file
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow's own OSErrors, for bytes that make no sense, have no errno; the system's have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise CacheError(
                f"shard {shard} cannot be read: {error.strerror}; check the disk and the file's permissions"
            ) from error
        raise CacheError(
            f"shard {shard} is damaged: {_first_line(error)}; run {_verify_command(shard)}, "
            "then repeat the command: only the documents of that shard are computed again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _verify_command(shard: Path) -> str:
    return f"'pawn cache verify {shard.parent.parent} --delete-damaged'"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a CacheError with the room that is left."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cannot write features to {folder}: {error.strerror or error}; finished shards are kept: "
            "free some space or name another folder with --cache, and repeat the command"
        ) from error


def _to_table(features: Sequence[TokenFeatures], fingerprint: Fingerprint, codec: Codec) -> pa.Table:
    if not features:
        raise ValueError("expected at least one document in a shard, got none")
    hidden_size = features[0].hidden.shape[1] // fingerprint.layers_kept
    schema = shard_schema(fingerprint, codec, hidden_size)
    lists = {
        "token_ids": [f.token_ids for f in features],
        "kinds": [f.kinds for f in features],
        "starts": [f.offsets[:, 0] for f in features],
        "ends": [f.offsets[:, 1] for f in features],
        **{name: [f.metrics[:, i] for f in features] for i, name in enumerate(METRIC_NAMES)},
    }
    if fingerprint.observer:
        cross = [_cross(f) for f in features]
        lists |= {name: [values[:, i] for values in cross] for i, name in enumerate(CROSS_METRIC_NAMES)}
    columns = {
        "key": pa.array([f.key for f in features]),
        "n_tokens": pa.array([f.n_tokens for f in features], pa.int32()),
        "truncated": pa.array([f.truncated for f in features]),
        "hidden": pa.array([codec.encode(f.hidden.reshape(-1, hidden_size)) for f in features], pa.large_binary()),
        **{name: _list_array(arrays) for name, arrays in lists.items()},
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _cross(features: TokenFeatures) -> np.ndarray:
    if features.cross is None:
        raise ValueError(f"document {features.key} has no metrics of two models, this store keeps them")
    return features.cross


def _list_array(arrays: list[np.ndarray]) -> pa.ListArray:
    """One list per document, built from one flat copy."""
    offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(np.concatenate(arrays)))


def _from_table(table: pa.Table, codec: Codec, hidden_size: int, layers: int) -> list[TokenFeatures]:
    """Documents of a table; arrays are views of its buffers where the codec allows. No column hidden: (n, 0) states."""
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    lists = {
        name: (column.values.to_numpy(), column.offsets.to_numpy())
        for name, column in columns.items()
        if pa.types.is_list(column.type)
    }

    def values(name: str, row: int) -> np.ndarray:
        flat, offsets = lists[name]
        return flat[offsets[row] : offsets[row + 1]]

    def hidden(row: int) -> np.ndarray:
        n_tokens = len(values("token_ids", row))
        if "hidden" not in columns:
            return np.empty((n_tokens, 0), np.float16)
        states = codec.decode(memoryview(columns["hidden"][row].as_buffer()), hidden_size)  # (n x layers, hidden size)
        if len(states) != n_tokens * layers:
            raise ValueError(f"{n_tokens} tokens but {len(states) / layers:g} hidden states")
        return states.reshape(-1, layers * hidden_size)

    def stacked(names: Sequence[str], row: int) -> np.ndarray:
        return np.stack([values(name, row) for name in names], axis=-1)

    keys, truncated = columns["key"].to_pylist(), columns["truncated"].to_pylist()
    crossed = CROSS_METRIC_NAMES[0] in columns
    return [
        TokenFeatures(
            key=keys[row],
            token_ids=values("token_ids", row),
            kinds=values("kinds", row),
            offsets=stacked(("starts", "ends"), row),
            metrics=stacked(METRIC_NAMES, row),
            hidden=hidden(row),
            truncated=truncated[row],
            cross=stacked(CROSS_METRIC_NAMES, row) if crossed else None,
        )
        for row in range(table.num_rows)
    ]
