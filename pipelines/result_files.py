"""The final file of results: its types, its formats, and what it says about the run that made it."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import UsageError
from pipelines.parts import as_text, publish, publish_json

SUMMARY_KEY = "pawn.summary"
_SIDECAR_SUFFIX = ".meta.json"
_MUST_QUOTE = re.compile('[",\r\n]')
_ROW_GROUP_ROWS = 65_536
_ROW_GROUP_BYTES = 64 << 20
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def format_of(out: Path) -> tuple[str, str | None]:
    """Format (parquet, csv or jsonl) and compression that the name of an output file asks for.

    Raises:
        UsageError: if the extension is none that can be written.
    """
    name = Path(out.name.lower())
    compression = _COMPRESSIONS.get(name.suffix)
    kind = _FORMATS.get(Path(name.stem).suffix if compression else name.suffix)
    if kind is None or (kind == "parquet" and compression):
        raise UsageError(
            f"cannot tell the format of {out} by its extension; name it .parquet, .csv or .jsonl "
            f"(the latter two also with {', '.join(_COMPRESSIONS)})"
        )
    return kind, compression


def unified_schema(schemas: Sequence[pa.Schema], fixed: pa.Schema, carried: Sequence[str]) -> pa.Schema:
    """One type for each column over all parts: the one they share, float for int and float, else text.

    Args:
        schemas: of the parts.
        fixed: the columns that come first, as they are.
        carried: names of further columns that exist even if no part has them.
    """
    kinds: dict[str, set[pa.DataType]] = {name: set() for name in carried}
    for field in (field for schema in schemas for field in schema if field.name not in fixed.names):
        kinds.setdefault(field.name, set()).add(field.type)
    return pa.schema([*fixed, *(pa.field(name, _shared_type(found)) for name, found in kinds.items())])


def _shared_type(found: set[pa.DataType]) -> pa.DataType:
    typed = found - {pa.null()}
    if typed == {pa.int64(), pa.float64()}:
        return pa.float64()
    return typed.pop() if len(typed) == 1 else pa.string()


def conformed(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Each table with the columns and types of `schema`; a column that it lacks is null."""
    for table in tables:
        yield pa.table([_conformed_column(table, field) for field in schema], schema=schema)


def _conformed_column(table: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table.column(field.name)
    if column.type == field.type:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(table), field.type)
    if pa.types.is_floating(field.type):
        return column.cast(field.type, safe=False)  # integers beyond 2**53 are rounded
    return pa.array([as_text(value) for value in column.to_pylist()], field.type)


def write_file(
    out: Path, temporary: Path, tables: Iterable[pa.Table], schema: pa.Schema, metadata: Mapping[str, str]
) -> None:
    """Write the final file under a temporary name, then give it its own.

    `metadata` goes into the Parquet schema; beside CSV and JSONL it goes into `<out>.meta.json`.

    Raises:
        OSError: if it cannot be written; `out` is then as it was.
    """
    kind, compression = format_of(out)
    try:
        if kind == "parquet":
            _write_parquet(temporary, tables, schema.with_metadata(dict(metadata)))
        else:
            with _text_sink(temporary, compression) as sink:
                (write_csv if kind == "csv" else _write_jsonl)(sink, tables, schema)
        digest = _digest(temporary)
        publish(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)  # half a file, on a disk that may be full
    if kind != "parquet":
        publish_json(_sidecar(out), {**metadata, "blake2b": digest})


def read_metadata(out: Path) -> dict[str, str] | None:
    """What a file of results says about its run; None if it does not exist, is damaged or is not one."""
    try:
        if format_of(out)[0] == "parquet":
            stored = pq.read_metadata(out).metadata or {}
            return {key.decode(): value.decode() for key, value in stored.items() if key.startswith(b"pawn.")}
        found = json.loads(_sidecar(out).read_bytes())
        return found if isinstance(found, dict) and found.get("blake2b") == _digest(out) else None
    except (OSError, ValueError, pa.ArrowException):
        return None


def write_csv(sink: BinaryIO, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Header and rows; null is an empty field, the empty text is `""`, lists and structures are JSON."""
    names = schema.names
    _write_csv_rows(sink, [names])
    for table in tables:
        columns = [table.column(name).to_pylist() for name in names]
        _write_csv_rows(sink, zip(*columns, strict=True))


def _write_csv_rows(sink: BinaryIO, rows: Iterable[Sequence[Any]]) -> None:
    sink.write("".join(",".join(map(_csv_field, row)) + "\n" for row in rows).encode("utf-8"))


def _csv_field(value: Any) -> str:
    """The field as RFC 4180 quotes it."""
    text = as_text(value)  # not csv.writer: it leaves a lone carriage return bare, which splits the row
    if text is None:
        return ""
    return '"' + text.replace('"', '""') + '"' if not text or _MUST_QUOTE.search(text) else text


def _write_jsonl(sink: BinaryIO, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    for table in tables:
        lines = (json.dumps(_strict(row), ensure_ascii=False, default=as_text) for row in table.to_pylist())
        sink.write("".join(f"{line}\n" for line in lines).encode("utf-8"))


def _strict(value: Any) -> Any:
    """The value without what JSON does not know: NaN and infinity become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list) else value


def _write_parquet(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    options = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(path, schema, **options) as writer:
        waiting: list[pa.Table] = []
        for table in tables:
            waiting.append(table)
            if sum(map(len, waiting)) >= _ROW_GROUP_ROWS or sum(t.nbytes for t in waiting) >= _ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


@contextmanager
def _text_sink(path: Path, compression: str | None) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if compression is None:
            yield file
            return
        with pa.CompressedOutputStream(file, compression) as stream:
            yield stream


def _sidecar(out: Path) -> Path:
    return out.with_name(out.name + _SIDECAR_SUFFIX)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
