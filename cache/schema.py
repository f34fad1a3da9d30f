"""What a shard looks like: columns, types and the metadata that says whose features these are.

One row is one document of n tokens. Everything but `hidden` reads as plain numbers; `hidden` is bytes of the
codec named in the metadata. From plain Polars, for the codec `float16`:

    row = polars.read_parquet(shard).row(0, named=True)
    numpy.frombuffer(row["hidden"], "<f2").reshape(row["n_tokens"], -1)     # (n, d)

Where the fingerprint names several layers, d is their number times the hidden size, the lowest layer first; a codec is
given each layer of each token as a row of its own, so that none sets the scale of another. Where it names an observer,
there is a column more for each metric of the two models.

Those of the other codecs are laid out as their classes say, in `cache/codec.py` and `cache/projection.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cache.codec import PLAIN_CODECS, Codec
from cache.projection import PREFIX
from features.backbone import Fingerprint
from features.errors import CacheError
from features.token_features import CROSS_METRIC_NAMES, METRIC_NAMES

FORMAT_VERSION = 2
META_KEY = b"pawn.features"
"""Schema metadata: JSON with the format version, the fingerprint, the codec and the hidden size."""

_VERIFY = "'pawn cache verify' says whether it is damaged"

COLUMNS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # text_key: BLAKE2b of the text, 32 hex digits
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),  # n
        pa.field("kinds", pa.list_(pa.uint8()), nullable=False),  # n: of `features.token_kinds.TOKEN_KINDS`
        pa.field("starts", pa.list_(pa.int32()), nullable=False),  # n: first character of each token
        pa.field("ends", pa.list_(pa.int32()), nullable=False),  # n: character after each token
        *[pa.field(name, pa.list_(pa.float32()), nullable=False) for name in METRIC_NAMES],  # n - 1 each
        pa.field("hidden", pa.large_binary(), nullable=False),  # n x d, row by row, by the codec
    ]
)


CROSS_COLUMNS = [pa.field(name, pa.list_(pa.float32()), nullable=False) for name in CROSS_METRIC_NAMES]  # n - 1 each


def columns(fingerprint: Mapping[str, Any]) -> pa.Schema:
    """The columns of features of a fingerprint, given as its JSON-able fields."""
    return pa.schema([*COLUMNS, *CROSS_COLUMNS]) if fingerprint.get("observer") else COLUMNS


def shard_schema(fingerprint: Fingerprint, codec: Codec, hidden_size: int) -> pa.Schema:
    """The columns with the metadata that makes a shard readable on its own; `hidden_size` is that of one layer."""
    meta = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint.to_dict(),
        "codec": codec.name,
        "hidden_size": hidden_size,
    }
    return columns(fingerprint.to_dict()).with_metadata({META_KEY: json.dumps(meta, sort_keys=True).encode()})


def read_meta(schema: pa.Schema, source: str) -> dict[str, Any]:
    """The metadata of a shard.

    Raises:
        CacheError: when the file is no shard of this format.
        ValueError: when it is one whose metadata or columns are not as they are written.
    """
    raw = (schema.metadata or {}).get(META_KEY)
    if raw is None:
        raise CacheError(f"{source} is Parquet but no feature shard: no {META_KEY.decode()} in its metadata; {_VERIFY}")
    meta: dict[str, Any] = json.loads(raw)
    if missing := {"format_version", "fingerprint", "codec", "hidden_size"} - meta.keys():
        raise ValueError(f"its metadata lacks {', '.join(sorted(missing))}")
    older = meta["format_version"] in range(FORMAT_VERSION)
    remedy = (
        f"delete {Path(source).parent}, whose features are then computed again, or name another --cache"
        if older
        else f"extract into another folder or install the version that wrote it; {_VERIFY}"
    )
    codec_known = meta["codec"] in PLAIN_CODECS or str(meta["codec"]).startswith(PREFIX)
    for name, known, readable in (
        ("format_version", meta["format_version"] == FORMAT_VERSION, str(FORMAT_VERSION)),
        ("codec", codec_known, f"{', '.join(PLAIN_CODECS)} and {PREFIX}..."),
    ):
        if not known:
            raise CacheError(f"{source} has {name} {meta[name]!r}, this program reads {readable}; {remedy}")
    if not schema.remove_metadata().equals(expected := columns(meta["fingerprint"])):
        raise ValueError(f"expected the columns {expected.names}, got {schema.names}, or other types")
    return meta
