"""Looking after a cache folder: what is in it, and whether it is still what was written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.codec import PLAIN_CODECS
from cache.projection import BASIS_FILE, Projection, ProjectionFit
from cache.schema import read_meta
from cache.store import SHARDS, file_hash, folder_name, open_shard, read_shard, shards_in
from features.backbone import fingerprint_digest
from features.errors import CacheError, UsageError


@dataclass(frozen=True, kw_only=True)
class FolderInfo:
    """One fingerprint's folder of a cache."""

    folder: Path
    fingerprint: dict[str, Any]
    codec: str | None  # None: no shard yet
    hidden_size: int | None
    shards: int
    documents: int
    tokens: int
    bytes: int


@dataclass(frozen=True)
class Damage:
    """A shard, or the codec beside it, that is not what was written."""

    shard: Path
    reason: str
    documents: int | None  # as its footer counts them; None when the footer does not read


def folders_in(root: Path) -> list[Path]:
    """The fingerprint folders below a cache.

    Raises:
        UsageError: when there is none.
    """
    found = {path.parent for pattern in ("fingerprint.json", SHARDS) for path in root.glob(f"*/{pattern}")}
    if not found:
        raise UsageError(f"no cache at {root}: expected a folder that 'pawn extract --cache {root} ...' filled")
    return sorted(found)


def folder_info(folder: Path) -> FolderInfo:
    """Counts of one folder, from the shards' footers and their token counts.

    Raises:
        CacheError: when a shard is damaged.
    """
    shards = shards_in(folder)
    documents = tokens = 0
    meta: dict[str, Any] = {} if shards else {"fingerprint": _readable_fingerprint(folder)}
    for shard in shards:
        with open_shard(shard) as file:
            meta = read_meta(file.schema_arrow, str(shard))
            documents += file.metadata.num_rows
            tokens += sum(file.read(columns=["n_tokens"])["n_tokens"].to_pylist())
    return FolderInfo(
        folder=folder,
        fingerprint=meta["fingerprint"],
        codec=meta.get("codec"),
        hidden_size=meta.get("hidden_size"),
        shards=len(shards),
        documents=documents,
        tokens=tokens,
        bytes=sum(shard.stat().st_size for shard in shards),
    )


def verify_folder(folder: Path) -> Iterator[Damage | Path]:
    """Check every shard of a folder; yields the path of a sound one, a `Damage` for another.

    A shard's name is the hash of its bytes, so any changed byte shows, the footer's included.

    Raises:
        CacheError: when the system does not let a shard be read, which says nothing of what is in it.
    """
    basis = folder / BASIS_FILE
    if basis.is_file() and (reason := _basis_damage(basis)):
        yield Damage(basis, reason, 0)
    for shard in shards_in(folder):
        reason = _damage(shard)
        yield shard if reason is None else Damage(shard, reason, _documents(shard))


def _damage(shard: Path) -> str | None:
    try:
        found = file_hash(shard)
    except PermissionError as error:
        raise CacheError(f"shard {shard} cannot be read: {error.strerror}; check its permissions") from error
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if found != shard.stem:
        return f"its bytes hash to {found}, its name says {shard.stem}"
    try:
        with open_shard(shard) as file:
            meta = read_meta(file.schema_arrow, str(shard))
    except CacheError:
        return None  # of another version of this program: its bytes are as they were written
    folder = folder_name(fingerprint_digest(meta["fingerprint"]), meta["codec"])
    return None if folder == shard.parent.name else f"it was moved here from folder {folder}"


def _basis_damage(basis: Path) -> str | None:
    """A codec's name holds a hash of its numbers, and its folder's name ends in that name."""
    try:
        name = Projection.load(basis).name
    except CacheError as error:
        if isinstance(error.__cause__, PermissionError):  # which says nothing of what is in it
            raise
        return str(error)
    return None if basis.parent.name.endswith(name) else f"it is codec {name}, which is not that of its folder"


def _documents(shard: Path) -> int | None:
    try:
        with open_shard(shard) as file:
            return len(file.read(columns=["key"]))
    except CacheError:
        return None


def _readable_fingerprint(folder: Path) -> dict[str, Any]:
    path = folder / "fingerprint.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} is damaged: {error}; nothing else is in {folder}: delete it") from error
    return content


def fit_projection(folder: Path) -> Projection:
    """The codec that fits the hidden states of a folder best.

    Raises:
        CacheError: when a shard is damaged.
        UsageError: when the folder's states are projected already, too small or too few.
    """
    info = folder_info(folder)
    if info.codec not in PLAIN_CODECS or info.hidden_size is None:
        raise UsageError(f"{folder} holds no whole hidden states (codec {info.codec}); extract with --codec int8 first")
    if layers := info.fingerprint.get("layers"):
        raise UsageError(
            f"{folder} holds layers {', '.join(map(str, layers))}, a codec is fitted to the last alone; extract "
            "without --layers first"
        )
    fit = ProjectionFit(info.hidden_size)
    for shard in shards_in(folder):
        for document in read_shard(shard):
            fit.add(document.hidden)
    try:
        return fit.projection()
    except ValueError as error:
        raise UsageError(str(error)) from error


def leftovers(folder: Path) -> list[Path]:
    """Temporary files of runs that were killed: never read, safe to delete when no run is writing."""
    return sorted(folder.glob(".*.tmp"))
