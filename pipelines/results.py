"""Result rows out: kept block by block while a run goes on, and made one file, atomically, at its end."""

import errno
import hashlib
import json
import shutil
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from features.errors import PawnError, UsageError
from pipelines.parts import RUN_KEY, PartFolder, belongs_to, disk_errors
from pipelines.result_files import (
    SUMMARY_KEY,
    conformed,
    format_of,
    read_metadata,
    unified_schema,
    write_csv,
    write_file,
)

RESULT_SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "status": pl.String(),
    "n_tokens": pl.Int32(),
    "truncated": pl.Boolean(),
    "score": pl.Float64(),
    "p_value": pl.Float64(),
    "is_machine": pl.Boolean(),
}
"""The columns of a result row. All but id and status may be null. Carried columns follow them."""

_ARROW_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "status": pa.string(),
        "n_tokens": pa.int32(),
        "truncated": pa.bool_(),
        "score": pa.float64(),
        "p_value": pa.float64(),
        "is_machine": pa.bool_(),
    }
)


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Summary:
    """What a run gave, counted in rows.

    `failed` are rows without a score; `duplicate_ids` are rows with the id of an earlier row; `out` is the
    file written, None for standard output.
    """

    rows: int
    by_status: dict[str, int]
    flagged: int
    scored: int
    failed: int
    duplicate_ids: int
    out: str | None

    def text(self) -> str:
        """One or two lines for a person."""
        lines = [f"{self.rows:,} rows: {self.scored:,} scored, {self.flagged:,} flagged as machine-written"]
        if self.failed:
            reasons = (f"{count:,} {status}" for status, count in self.by_status.items() if status != "ok")
            lines.append(f"{self.failed:,} without a score: {', '.join(reasons)}")
        if self.duplicate_ids:
            lines.append(f"{self.duplicate_ids:,} rows have the id of an earlier row")
        return "\n".join(lines + ([f"Written to {self.out}"] if self.out else []))


class ResultWriter:
    """Takes the results of a run in input order and makes them one file.

    Attributes:
        rows_done: rows that a former, unfinished run of the same identity left behind; go on after them.
        restarted: an unfinished run of another identity was found and thrown away.
        already_complete: the output file exists, whole and of the same identity: there is nothing to do.
    """

    def __init__(self, out: Path | None, *, identity: Mapping[str, Any], carried: Sequence[str] = ()):
        """Find out where a former run stopped, and that the output can be written.

        Args:
            out: the file to write (.parquet, .csv, .jsonl); None or `-` for CSV on standard output.
            identity: all that decides the results, as JSON.
            carried: names of the carried columns that are known before the first row.

        Raises:
            UsageError: if the output cannot be written where it should go.
            PawnError: if the disk is full.
        """
        self._given = None if out is None or str(out) == "-" else Path(out)
        self._run = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self._carried = [name for name in carried if name not in RESULT_SCHEMA]
        self._summary: Summary | None = None
        self._parts: PartFolder | None = None
        if self._given is None:
            self._target: Path | None = None
            folder = Path(tempfile.mkdtemp(prefix="pawn-parts-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        else:
            _check_writable(self._given)
            # The file behind a link is replaced, not the link.
            self._target = self._given.resolve() if self._given.is_symlink() else self._given
            folder = self._target.with_name(f".{self._target.name}.parts")
            self._summary = self._found_summary(self._target)
        self._folder = folder
        if self._summary is None or belongs_to(folder, self._run):
            self._parts = self._open_parts()
        if self._summary is not None and self._parts is not None:
            self._parts.remove()  # a crash came between the final file and this
            self._parts = None
        self.already_complete = self._summary is not None
        self.restarted = self._target is not None and self._parts is not None and self._parts.restarted
        self.rows_done = self._summary.rows if self._summary else self._open.rows

    def write_part(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep one block of consecutive rows: columns of `RESULT_SCHEMA` and carried ones.

        Raises:
            ValueError: if there is no row.
            PawnError: if it cannot be written; the blocks before it are kept.
        """
        if not rows:
            raise ValueError("expected at least one row in a part, got none")
        with disk_errors(self._folder, self._advice()):
            self._open.write(rows)

    def finish(self, metadata: Mapping[str, str], expected_rows: int | None = None) -> Summary:
        """Make the parts one file, atomically, and remove them.

        Args:
            metadata: what the results were made with; kept under keys `pawn.<name>`.
            expected_rows: how many rows the input had when it was counted.

        Raises:
            PawnError: if rows are missing, a part was damaged meanwhile or the disk is full.
        """
        if self._summary is not None:
            return self._summary
        parts = self._open
        if expected_rows is not None and parts.rows != expected_rows:
            raise PawnError(
                f"expected {expected_rows:,} rows, got {parts.rows:,}: the input changed while it was read; "
                "run the same command again"
            )
        if parts.is_other_run():
            raise PawnError(
                f"another run has taken over {self._folder}; let one finish, or give each its own output file"
            )
        with disk_errors(self._given or Path("standard output"), self._advice()):
            summary = self._summarise(parts)
            schema = unified_schema(parts.schemas(), _ARROW_SCHEMA, self._carried)
            tables = conformed(parts.tables(), schema)
            if self._target is None:
                write_csv(sys.stdout.buffer, tables, schema)
                sys.stdout.buffer.flush()
            else:
                own = {RUN_KEY: self._run, SUMMARY_KEY: json.dumps(asdict(summary))}
                described = {f"pawn.{name}": value for name, value in metadata.items()} | own
                write_file(self._target, self._folder / "final.tmp", tables, schema, described)
            parts.remove()
        self._summary, self.already_complete = summary, True
        return summary

    def summary(self) -> Summary:
        """The counts of a finished run.

        Raises:
            ValueError: if it is not finished.
        """
        if self._summary is None:
            raise ValueError("expected a finished run, got one that is under way; call finish first")
        return self._summary

    @property
    def _open(self) -> PartFolder:
        if self._parts is None:
            raise ValueError(f"{self._given} is complete already; there is nothing to write")
        return self._parts

    def _open_parts(self) -> PartFolder:
        try:
            with disk_errors(self._folder, "free some space, then run the same command again"):
                return PartFolder(self._folder, self._run, _ARROW_SCHEMA)
        except PawnError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _FORBIDDEN:
                raise UsageError(
                    f"cannot write {self._given}: {cause.strerror}: {self._folder}; choose another folder"
                ) from cause
            raise

    def _found_summary(self, target: Path) -> Summary | None:
        found = read_metadata(target) if target.exists() else None
        if found is None or found.get(RUN_KEY) != self._run:
            return None
        return Summary(**json.loads(found[SUMMARY_KEY]))

    def _summarise(self, parts: PartFolder) -> Summary:
        by_status: Counter[str] = Counter()
        scored = flagged = 0
        for table in parts.tables():
            by_status.update(table.column("status").to_pylist())
            scored += len(table) - table.column("score").null_count
            flagged += table.column("is_machine").to_pylist().count(True)
        return Summary(
            rows=parts.rows,
            by_status=dict(sorted(by_status.items())),
            flagged=flagged,
            scored=scored,
            failed=parts.rows - scored,
            duplicate_ids=_duplicate_ids(parts.paths),
            out=None if self._given is None else str(self._given),
        )

    def _advice(self) -> str:
        if self._given is None:
            return "give an output file with -o, so that finished rows are kept and the run can continue"
        kept = f"finished parts are kept in {self._folder}"
        return f"{kept}: make room, then run the same command again to continue"


def _check_writable(out: Path) -> None:
    """Refuse an output that could only fail at the end of a long run."""
    format_of(out)
    parent = out.absolute().parent
    if out.is_dir():
        raise UsageError(f"output {out} is a folder; give the name of a file in it")
    if out.exists() and not out.is_file():
        # It would be replaced by a file: for root even /dev/null.
        raise UsageError(f"output {out} is a device or a pipe, not a file; leave -o out to write to standard output")
    if not parent.exists():
        raise UsageError(f"output folder {parent} does not exist; create it first: mkdir -p '{parent}'")
    if not parent.is_dir():
        raise UsageError(f"cannot write {out}: {parent} is a file, not a folder; choose another place")


def _duplicate_ids(parts: Sequence[Path]) -> int:
    """Rows whose id an earlier row has. Exact: ids are compared where their 64-bit hashes are equal."""
    if not parts:
        return 0
    ids = pl.scan_parquet(
        list(parts), schema=RESULT_SCHEMA, extra_columns="ignore", glob=False, hive_partitioning=False
    ).select("id", hash=pl.col("id").hash())
    shared = ids.group_by("hash").len().filter(pl.col("len") > 1)
    counted = ids.join(shared, on="hash", how="semi").group_by("id").len()
    return int(counted.select((pl.col("len") - 1).sum()).collect(engine="streaming").item())
