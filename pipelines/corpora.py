"""Corpora: files of texts -> documents with a status, in input order, one for every row."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from detect.splits import uniform
from features.documents import Document, Status, text_key, text_status
from features.errors import UsageError
from pipelines import formats
from pipelines.formats import Record
from pipelines.inputs import FORMATS, Source, reading, resolve
from pipelines.layouts.files import file_sha256
from pipelines.results import RESULT_SCHEMA

ALL_COLUMNS = "*"
_LABELS: dict[object, int] = {0: 0, 1: 1, "0": 0, "1": 1, "human": 0, "machine": 1}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input: its document (text "" unless the status is OK) and the columns carried along."""

    document: Document
    status: Status
    carried: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How to read a corpus.

    `carry` names the columns to take along to the results (`("*",)`: all but text and id); one with the name
    of a result column gets the suffix `_input`. `labelled` reads label, domain, generator, attack and group
    too. `input_format` (one of `FORMATS`) overrules extensions. `share` of the sources are read, the same ones every
    time: rows of one group go together, others each by its text.
    """

    text_column: str = "text"
    id_column: str | None = None
    carry: tuple[str, ...] = ()
    labelled: bool = False
    label_column: str = "label"
    input_format: str | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"expected a share of the sources above 0 and at most 1, got {self.share}")
        if self.input_format is not None and self.input_format not in FORMATS:
            raise UsageError(f"unknown input format {self.input_format!r}; known are {', '.join(FORMATS)}")


class Corpus:
    """Opened inputs: every file is known to be readable as what it is and to have the columns asked for.

    Use it as a context manager, or call `close`: standard input is kept in a temporary file until then.
    """

    def __init__(self, sources: Sequence[Source], skipped: Sequence[Path], options: CorpusOptions):
        self.files = [source.path for source in sources]
        self.skipped = list(skipped)
        self._sources = list(sources)
        self._options = options
        shared = Counter(source.base_name for source in sources)
        self._names = [source.base_name if shared[source.base_name] == 1 else source.name for source in sources]
        self._tables = [_Layout.of(source, options, name) for source, name in zip(sources, self._names, strict=True)]

    @classmethod
    def open(cls, inputs: Sequence[str], options: CorpusOptions, *, spool_dir: Path | None = None) -> "Corpus":
        """Find the files behind paths, folders, globs and `-`, and check each.

        Args:
            inputs: what the person typed.
            options: columns and format.
            spool_dir: where to keep standard input while it is read; the system's temporary folder if None.

        Raises:
            UsageError: for a path, extension or column that is not there.
            InputError: for a file that is empty, damaged or not what its extension says.
        """
        sources, skipped = resolve(inputs, options.input_format, spool_dir, options.text_column)
        try:
            for source in sources:
                formats.check(source)
            return cls(sources, skipped, options)
        except BaseException:
            _remove_spooled(sources)
            raise

    def __enter__(self) -> "Corpus":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary copy of standard input, if there is one."""
        _remove_spooled(self._sources)

    @property
    def carried(self) -> list[str]:
        """Names that carried columns have in `Row.carried`: those known before the first row is read."""
        names = (_renamed(dict.fromkeys(table.carried_names(table.columns))) for table in self._tables)
        return list(dict.fromkeys(name for renamed in names for name in renamed))

    def identity(self) -> dict[str, object]:
        """What the rows depend on, as JSON: files (size and time, or hash, of each) and options.

        Equal identities mean equal rows, so a half-done run may go on.
        """
        return {
            "files": [_file_identity(source) for source in self._sources],
            "options": asdict(self._options),
        }

    def sha256(self) -> dict[str, str]:
        """SHA-256 of each file by its name, without its folders where no two files share that."""
        return {name: file_sha256(path) for name, path in zip(self._names, self.files, strict=True)}

    def check_not_replaced(self, out: Path | None) -> None:
        """Refuse to replace an input by what is made of it.

        Raises:
            UsageError: when the output is one of the files.
        """
        if out is not None and out.exists() and any(out.samefile(path) for path in self.files):
            raise UsageError(f"output {out} is one of the inputs and would be replaced; give another name with -o")

    def count_rows(self) -> int:
        """How many rows there are. Reads everything once, so it also finds whatever is damaged.

        Raises:
            InputError: if a file is damaged.
            UsageError: if `labelled` and a row has no valid label.
        """
        return sum(1 for _ in self.rows())

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Every row from number `start` on, in input order, streaming.

        Raises:
            InputError: if a file is damaged.
            UsageError: if `labelled` and a row has no valid label.
        """
        rows: Iterator[Row] = itertools.chain.from_iterable(map(_Layout.rows, self._tables))
        if self._options.share < 1:
            rows = filter(self._drawn, rows)
        return itertools.islice(rows, start, None)

    def _drawn(self, row: Row) -> bool:
        """Whether a row is of the share that is read."""
        source = row.document.group or (text_key(row.document.text) if row.status is Status.OK else row.document.id)
        return uniform(f"share:{source}", 0) < self._options.share  # not the numbers that splits are drawn by


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the records of one file become rows."""

    source: Source
    row_name: str
    options: CorpusOptions
    columns: tuple[str, ...]  # the file's columns; none for text
    text_column: str
    id_column: str | None

    @classmethod
    def of(cls, source: Source, options: CorpusOptions, row_name: str) -> "_Layout":
        if not source.is_table:
            if options.labelled:
                raise UsageError(f"{source.name} is text without labels; give a table with {options.label_column!r}")
            return cls(source, row_name, options, (), formats.TEXT_FIELD, None)
        columns = formats.columns(source)
        _check_columns(source, options, columns)
        if source.format == "parquet":
            formats.check_text_type(source, options.text_column)
        id_column = options.id_column or ("id" if "id" in columns else None)
        return cls(source, row_name, options, tuple(columns), options.text_column, id_column)

    def rows(self) -> Iterator[Row]:
        for number, record in enumerate(formats.records(self.source, self._wanted()), start=1):
            yield self._row(record, number)

    def _wanted(self) -> list[str] | None:
        if ALL_COLUMNS in self.options.carry:
            return None
        wanted = {self.text_column, self.id_column, *self.options.carry}
        if self.options.labelled:
            wanted |= {self.options.label_column, *_LABELLED_COLUMNS}
        return [name for name in self.columns if name in wanted]

    def _row(self, record: Record, number: int) -> Row:
        status, text = self._judge(record)
        name = self.source.name if self.source.format == "text" else f"{self.row_name}:{number}"
        if status is Status.INVALID_ROW or record.values is None:
            blank = {name: None for name in self.options.carry if name != ALL_COLUMNS}
            return Row(Document(writable(name), ""), Status.INVALID_ROW, _renamed(blank))
        values = record.values
        given = None if self.id_column is None else values.get(self.id_column)
        document = Document(
            id=writable(name if given is None or given == "" else _as_text(given)),
            text=text if status is Status.OK else "",
        )
        if self.options.labelled:
            document = self._labelled(document, values, number)
        encode = _json_scalar if self.source.format == "jsonl" else _writable_value
        carried = {name: encode(values.get(name)) for name in self.carried_names(values)}
        return Row(document, status, _renamed(carried))

    def _judge(self, record: Record) -> tuple[Status, str]:
        if record.values is None:
            return Status.INVALID_ROW, ""
        if self.text_column not in record.values:
            return (Status.NULL if self.source.format == "jsonl" else Status.INVALID_ROW), ""
        text = record.values[self.text_column]
        if text is not None and not isinstance(text, str):
            return Status.NOT_TEXT, ""
        status = text_status(text)
        if status is Status.INVALID_UTF8 and record.valid_utf8:
            status = Status.LONE_SURROGATE  # U+DC80 to U+DCFF, but written as \udc80 in JSON
        return status, text or ""

    def carried_names(self, present: Iterable[str]) -> list[str]:
        """Input names of the columns to carry, of a row that has the columns `present`."""
        if ALL_COLUMNS not in self.options.carry:
            return list(self.options.carry)
        # Rows of JSONL may each have other keys; short rows of CSV lack some columns.
        names = present if self.source.format == "jsonl" else self.columns
        apart = {self.text_column, self.id_column, ""}  # "": a pandas index, a comma at the line's end
        return [name for name in names if name not in apart]

    def _labelled(self, document: Document, values: Mapping[str, object], number: int) -> Document:
        label = values.get(self.options.label_column)
        if isinstance(label, bool) or not isinstance(label, int | str) or label not in _LABELS:
            raise UsageError(
                f"row {number} of {self.source.name}: column {self.options.label_column!r} holds {label!r}; "
                "expected 0 or 'human', 1 or 'machine'"
            )
        dataset, split, pair_id = (_optional_text(values.get(name)) for name in _GROUP_COLUMNS)
        stem = writable(self.source.stem)
        return replace(
            document,
            label=_LABELS[label],
            domain=_optional_text(values.get("domain")),
            generator=_optional_text(values.get("generator")),
            attack=_optional_text(values.get("attack")),
            group=None if pair_id is None else f"{dataset or stem}/{split or stem}/{pair_id}",
        )


def group_columns(group: str) -> dict[str, str]:
    """The columns that a row must have so that its document gets this `group` again: dataset, split, pair_id."""
    return dict(zip(_GROUP_COLUMNS, group.split("/", 2), strict=True))


_GROUP_COLUMNS = ("dataset", "split", "pair_id")
_LABELLED_COLUMNS = ("domain", "generator", "attack", *_GROUP_COLUMNS)


def writable(text: str) -> str:
    r"""The text with what UTF-8 cannot write (halves of UTF-16 pairs, stray bytes) as `\udcff`."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _check_columns(source: Source, options: CorpusOptions, columns: Sequence[str]) -> None:
    needed = [(options.text_column, "--text-column")]
    needed += [(options.id_column, "--id-column")] if options.id_column else []
    needed += [(name, "--carry") for name in options.carry if name != ALL_COLUMNS]
    needed += [(options.label_column, "--label-column")] if options.labelled else []
    for name, option in needed:
        if name not in columns:
            where = (
                f"the first {formats.SAMPLED_ROWS} rows of {source.name}" if source.format == "jsonl" else source.name
            )
            alone = columns[0] if len(columns) == 1 else ""
            hint = "; its fields seem to be parted by ';', expected ','" if ";" in alone else ""
            raise UsageError(
                f"no column {name!r} in {where}; there are {[writable(column) for column in columns]}{hint}: "
                f"choose one with {option}"
            )


def _renamed(carried: Mapping[str, object]) -> dict[str, object]:
    """The same values under names that no output column has."""
    out: dict[str, object] = {}
    for name, value in carried.items():
        free = writable(name)
        while free in RESULT_SCHEMA or free in out or (free != name and free in carried):
            free += "_input"
        out[free] = value
    return out


def _writable_value(value: object) -> object:
    return writable(value) if isinstance(value, str) else value


def _json_scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return writable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _as_text(value: object) -> str:
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _optional_text(value: object) -> str | None:
    return None if value is None or value == "" else writable(_as_text(value))


def _file_identity(source: Source) -> dict[str, object]:
    with reading(source.name):
        stat = source.path.stat()
    identity: dict[str, object] = {"name": source.name, "format": source.format, "size": stat.st_size}
    if source.digest is not None:
        return identity | {"blake2b": source.digest}
    return identity | {"path": str(source.path.resolve()), "mtime_ns": stat.st_mtime_ns}


def _remove_spooled(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.digest is not None:
            source.path.unlink(missing_ok=True)
