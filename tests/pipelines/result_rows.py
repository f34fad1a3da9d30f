"""Rows of results, a way to write them, and a way to read a file of them."""

import bz2
import gzip
import io
import json
from pathlib import Path

import polars as pl
import pyarrow as pa

from pipelines.results import RESULT_SCHEMA, ResultWriter, Summary

IDENTITY = {"corpus": ["a.csv", 3], "detector": "d1"}
METADATA = {"detector": "d1", "fpr": "0.01"}


def scored(name: str, score: float = 0.5, *, flagged: bool = False, **carried) -> dict[str, object]:
    result = {"id": name, "status": "ok", "n_tokens": 20, "truncated": False, "score": score, "p_value": 0.25}
    return {**result, "is_machine": flagged, **carried}


def unscored(name: str, status: str, **carried) -> dict[str, object]:
    return dict.fromkeys(RESULT_SCHEMA) | {"id": name, "status": status} | carried


BLOCKS = [
    [scored("a", 1.5, flagged=True), unscored("b", "null")],
    [unscored("c", "too_short")],
    [scored("d", -0.1), scored("a", 0.1 + 0.2), scored("a", 0.0)],
]
ROWS = [row for block in BLOCKS for row in block]
SUMMARY = {
    "rows": 6,
    "by_status": {"null": 1, "ok": 4, "too_short": 1},
    "flagged": 1,
    "scored": 4,
    "failed": 2,
}


def writer(out: Path | None, **identity) -> ResultWriter:
    return ResultWriter(out, identity=IDENTITY | identity)


def write(out: Path, blocks: list[list[dict]] = BLOCKS, **identity) -> Summary:
    results = writer(out, **identity)
    for block in blocks:
        results.write_part(block)
    return results.finish(METADATA)


def parts_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def rows_of(out: Path) -> list[dict]:
    """The rows of a file, read by other libraries than the ones that wrote it."""
    if out.suffix == ".parquet":
        return pl.read_parquet(out).to_dicts()
    raw = out.read_bytes()
    if out.suffix == ".zst":
        raw = pa.input_stream(str(out), compression="zstd").read()
    text = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(out.suffix, bytes)(raw).decode()
    if ".csv" in out.name:
        return pl.read_csv(io.StringIO(text), schema_overrides=RESULT_SCHEMA).to_dicts()
    return [json.loads(line) for line in text.splitlines()]


OUTPUTS = ["o.parquet", "o.csv", "o.jsonl", "o.ndjson", "o.csv.gz", "o.csv.zst", "o.jsonl.gz", "o.jsonl.bz2"]
