"""A corpus as it comes from its source -> one Parquet file in the one form."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import InputError, UsageError
from pipelines.corpora import writable
from pipelines.data_cards import DataCard
from pipelines.layouts import LabelledText, Rejected, SourceFiles, files_of, rows_of
from pipelines.layouts.files import file_sha256
from pipelines.layouts.tables import ONE_FORM
from pipelines.parts import disk_errors, publish
from pipelines.repeats import SeenTexts

CORPUS_KEY = "pawn.corpus"
"""Key of what a converted file says of itself in its Parquet metadata, as JSON."""

SCHEMA = pa.schema([pa.field(name, pa.int64() if name == "label" else pa.string()) for name in ONE_FORM])
"""Columns of the one form with their types."""

FORM_VERSION = 1
EXAMPLES = 5
"""How many rejected rows are remembered for people to see; a list of all goes to `--rejected`."""

_LISTED_FILES = 100  # more source files than that are recorded by one hash for all
_GROUP_ROWS = 4096
_GROUP_CHARACTERS = 8 << 20


@dataclass
class Conversion:
    """What became of the rows of a source: every row is counted in exactly one of kept, repeated, rejected.

    `kept` is by label (0 human, 1 machine), `repeated` by split, `rejected` by reason. `contradictory` texts were
    kept although they came with the other label too; training leaves such texts out.
    """

    kept: Counter[int] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    contradictory: int = 0
    examples: list[Rejected] = field(default_factory=list)
    files: int = 0
    skipped: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # files whose hash is not the one in the card

    @property
    def rows(self) -> int:
        """Rows of the source."""
        return self.kept.total() + self.repeated.total() + self.rejected.total()


def convert(card: DataCard, sources: Sequence[str], output: Path, *, rejected: Path | None = None) -> Conversion:
    """Write the texts of a corpus to one Parquet file with the columns `ONE_FORM`, whole or not at all.

    A text that came before with the same label (equal but for white space) is left out and counted. Rows that
    cannot be a labelled text are counted by reason. Memory does not grow with the corpus, and equal sources give
    equal files.

    Args:
        card: says what the corpus is and drives its loader.
        sources: files and folders as they come from the source.
        output: the Parquet file.
        rejected: where to list every rejected row as CSV, if anywhere.

    Raises:
        UsageError: for an output that is no Parquet file or is a source.
        InputError: for sources that are not what the card says, or hold no usable text.
        PawnError: when the disk refuses.
    """
    if output.suffix.lower() != ".parquet":
        raise UsageError(f"cannot write {output}: the one form is Parquet; name it OUT.parquet")
    files = files_of(card, sources)
    places = {file.path.resolve() for file in files.files}
    for path in (output, rejected):
        if path is not None and path.resolve() in places:
            raise UsageError(f"{path} is one of the sources; write to another file")
    if rejected is not None and rejected.resolve() == output.resolve():
        raise UsageError(f"the texts and the rejected rows cannot both be written to {output}")
    result = Conversion(files=len(files.files), skipped=files.skipped)
    provenance = _provenance(card, files, result)
    temporary = output.with_name(output.name + ".tmp")
    with disk_errors(output, "then repeat the command"), ExitStack() as cleanup:
        output.parent.mkdir(parents=True, exist_ok=True)
        cleanup.callback(temporary.unlink, missing_ok=True)
        with ExitStack() as open_files:
            listing = _Listing(open_files, rejected)
            writer = open_files.enter_context(_writer(temporary))
            for table in _tables(card, files, result, listing):
                writer.write_table(table, row_group_size=_GROUP_ROWS)
            _check_usable(result, sources)
            counts = {"rejected": dict(sorted(result.rejected.items())), "contradictory": result.contradictory}
            facts = provenance | {"kept": _by_name(result.kept), "repeated": result.repeated.total()} | counts
            writer.add_key_value_metadata({CORPUS_KEY: json.dumps(facts, ensure_ascii=False)})
        publish(temporary, output)
    return result


def corpus_facts(path: Path) -> dict[str, Any] | None:
    """What a converted file says of itself (`CORPUS_KEY`); None for any other file."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        facts = json.loads(metadata[CORPUS_KEY.encode()])
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None
    return facts if isinstance(facts, dict) else None


def text_id(dataset: str, label: int, text: str) -> str:
    """16 hex digits that name a text of a corpus; equal whenever corpus, label and text are."""
    content = f"{dataset}\0{label}\0{text}".encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _writer(path: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True)


class _Listing:
    """A CSV file of rejected rows, if one is wanted."""

    def __init__(self, stack: ExitStack, path: Path | None):
        self._writer: Any = None
        if path is not None:
            with disk_errors(path, "choose another --rejected"):
                path.parent.mkdir(parents=True, exist_ok=True)
                file: TextIO = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
            self._writer = csv.writer(file)
            self._writer.writerow(["place", "reason", "detail"])

    def add(self, row: Rejected) -> None:
        if self._writer is not None:
            self._writer.writerow([writable(row.place), row.reason, writable(row.detail)])


def _tables(card: DataCard, files: SourceFiles, result: Conversion, listing: _Listing) -> Iterator[pa.Table]:
    """Row groups of the output; counts what is left out."""
    columns: dict[str, list[Any]] = {name: [] for name in ONE_FORM}
    characters = 0
    with SeenTexts() as seen:
        for row in rows_of(card, files):
            if isinstance(row, Rejected):
                result.rejected[row.reason] += 1
                result.examples += [row] if len(result.examples) < EXAMPLES else []
                listing.add(row)
                continue
            same_label, other_label = seen.add(row.text, row.label)
            result.contradictory += other_label and not same_label
            if same_label:
                result.repeated[row.split] += 1
                continue
            result.kept[row.label] += 1
            for name, value in _values(card, row).items():
                columns[name].append(value)
            characters += len(row.text)
            if len(columns["text"]) == _GROUP_ROWS or characters > _GROUP_CHARACTERS:
                yield pa.table(columns, SCHEMA)
                columns, characters = {name: [] for name in ONE_FORM}, 0
    if columns["text"]:
        yield pa.table(columns, SCHEMA)


def _values(card: DataCard, row: LabelledText) -> dict[str, Any]:
    names = (name for name in ONE_FORM if name not in ("id", "dataset", "label"))
    return {
        "id": writable(row.given_id or text_id(card.name, row.label, row.text)),
        "dataset": card.name,
        "label": row.label,
        **{name: writable(getattr(row, name)) for name in names},
    }


def _check_usable(result: Conversion, sources: Sequence[str]) -> None:
    if not result.kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in result.rejected.most_common())
        raise InputError(
            f"{', '.join(sources)}: none of {result.rows:,} rows is a labelled text ({reasons or 'no rows'})"
        )


def _by_name(kept: Mapping[int, int]) -> dict[str, int]:
    return {"human": kept.get(0, 0), "machine": kept.get(1, 0)}


def _provenance(card: DataCard, files: SourceFiles, result: Conversion) -> dict[str, Any]:
    """What the output says of its origin: the card and the sources by their hashes."""
    hashes = {}
    for file in files.files:
        hashes[file.name] = file_sha256(file.path)
        known = card.sha256.get(file.path.name)
        result.changed += [file.name] if known not in (None, hashes[file.name]) else []
    together = hashlib.sha256("".join(f"{value}  {name}\n" for name, value in hashes.items()).encode()).hexdigest()
    facts = {"form": FORM_VERSION, "card": card.name, "card_sha256": card.digest, "layout": card.layout}
    sources = {"source_files": len(hashes), "sources_sha256": together}
    return facts | sources | ({"sources": hashes} if len(hashes) <= _LISTED_FILES else {})
