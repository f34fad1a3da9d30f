"""The finished blocks of a run that is under way: Parquet files, each whole or not there at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import PawnError
from features.whole_files import sync

RUN_KEY = "pawn.run"
"""Key of the run's identity in the metadata of parts and of results."""

_PART = re.compile(r"part-(\d{12})-(\d{12})\.parquet")
_RUN_FILE = "run.json"


class PartFolder:
    """The parts of one run, in order and without a gap from row 0.

    Opening it removes what cannot be used: the parts of another run (`restarted` is then True), damaged parts
    and all that come after a gap.
    """

    def __init__(self, folder: Path, run: str, schema: pa.Schema):
        """Open or make the folder.

        Args:
            folder: where the parts are.
            run: identity of the run.
            schema: the columns that every row has, with their types; further ones are inferred.

        Raises:
            OSError: if the folder cannot be made or written to.
        """
        self._folder = folder
        self._run = run
        self._schema = schema
        self.paths: list[Path] = []
        self.rows = 0
        found = folder.is_dir()
        folder.mkdir(exist_ok=True)
        self.restarted = found and not belongs_to(folder, run)
        if self.restarted:
            _remove_ours(folder)
        publish_json(folder / _RUN_FILE, {RUN_KEY: run})
        self._collect()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add one block of consecutive rows; once this returns, no crash takes it away.

        Raises:
            OSError: if it cannot be written.
        """
        last = self.rows + len(rows) - 1
        path = self._folder / f"part-{self.rows:012d}-{last:012d}.parquet"
        temporary = path.with_suffix(".tmp")
        table = _to_table(rows, self._schema).replace_schema_metadata({RUN_KEY: self._run})
        try:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
            publish(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self.paths.append(path)
        self.rows += len(rows)

    def schemas(self) -> list[pa.Schema]:
        """The columns of each part."""
        return [pq.read_schema(path) for path in self.paths]

    def tables(self) -> Iterator[pa.Table]:
        """Every part in order, one in memory at a time.

        Raises:
            PawnError: if a part was damaged after it was written.
        """
        for path in self.paths:
            table = self._read(path)
            if table is None:
                raise PawnError(
                    f"{path} was damaged or removed while this run was using it; run the same command again: "
                    "the rows from there on are computed anew"
                )
            yield table

    def remove(self) -> None:
        """Remove the folder, unless somebody put something of theirs into it."""
        _remove_ours(self._folder)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def is_other_run(self) -> bool:
        """Whether another run has taken over the folder since it was opened."""
        return not belongs_to(self._folder, self._run)

    def _collect(self) -> None:
        for path in sorted(self._folder.glob("part-*.parquet")):
            match = _PART.fullmatch(path.name)
            first, last = map(int, match.groups()) if match else (-1, -1)
            table = self._read(path) if first == self.rows else None
            if table is None or len(table) != last - first + 1:
                break
            self.paths.append(path)
            self.rows = last + 1
        _remove_ours(self._folder, keep=(_RUN_FILE, *(path.name for path in self.paths)))

    def _read(self, path: Path) -> pa.Table | None:
        """The part, or None if it is damaged or of another run."""
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read()
        except (OSError, pa.ArrowException):
            return None
        return table if (table.schema.metadata or {}).get(RUN_KEY.encode()) == self._run.encode() else None


def belongs_to(folder: Path, run: str) -> bool:
    """Whether a folder holds the parts of this run."""
    try:
        return bool(json.loads((folder / _RUN_FILE).read_bytes())[RUN_KEY] == run)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _remove_ours(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove what is written here, and nothing else that may lie there."""
    for path in sorted(folder.iterdir()):
        ours = path.name == _RUN_FILE or path.name.startswith("part-") or path.suffix == ".tmp"
        if ours and path.name not in keep:
            path.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Turn an error of the file system into a `PawnError` that names the path and the free space."""
    try:
        yield
    except BrokenPipeError:  # nobody listens any more: not a fault, and the command line knows what to do
        raise
    except OSError as error:
        parent = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
        free = shutil.disk_usage(parent).free
        reason = error.strerror or str(error)
        raise PawnError(f"cannot write {path}: {reason} ({free:,} bytes are free there); {advice}") from error


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name: afterwards it is whole on the disk, under that name."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def publish_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small JSON file, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    publish(temporary, path)


def as_text(value: object) -> str | None:
    """A value as text, where a column has values of several types."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    fixed = {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}
    names = dict.fromkeys(name for row in rows for name in row if name not in fixed)
    return pa.table(fixed | {name: _inferred([row.get(name) for row in rows]) for name in names})


def _inferred(values: list[Any]) -> pa.Array:
    """An array of the type that the values share, or else of texts."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:  # Arrow would also take [1.5, True], and make the True 1.0
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):  # lists of mixed types, an integer beyond 64 bits
            pass
    return pa.array([as_text(value) for value in values], pa.string())
