"""What a person names on the command line -> the files to read: paths, folders, globs, standard input."""

import csv
import glob
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from features.errors import InputError, PawnError, UsageError

FORMATS = ("parquet", "csv", "tsv", "jsonl", "text", "lines")
"""What a file can be read as. `text` is one document a file, `lines` one document a line."""

FORMAT_OF_EXTENSION = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
COMPRESSION_OF_EXTENSION = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
MAGIC_BYTES = 10  # enough of a file to tell its compression

KNOWN_EXTENSIONS = f"{', '.join(FORMAT_OF_EXTENSION)}; all but .parquet also with {', '.join(COMPRESSION_OF_EXTENSION)}"
STDIN_NAME = "stdin"
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read: `path` holds its bytes, `name` is what people are shown and texts are named by."""

    path: Path
    name: str
    format: str
    compression: str | None = None
    digest: str | None = None  # BLAKE2b of the bytes; only of standard input, whose path means nothing

    @property
    def is_table(self) -> bool:
        """Whether its rows have named columns."""
        return self.format in ("parquet", "csv", "tsv", "jsonl")

    @property
    def base_name(self) -> str:
        """The name without its folders."""
        return Path(self.name).name

    @property
    def stem(self) -> str:
        """The name without folders, compression and extension: `a/train.csv.gz` -> `train`."""
        stem = self.base_name
        for known in (COMPRESSION_OF_EXTENSION, FORMAT_OF_EXTENSION):
            base, extension = os.path.splitext(stem)
            stem = base if extension.lower() in known else stem
        return stem


def compression_of(head: bytes) -> str | None:
    """The compression that the first `MAGIC_BYTES` bytes of a file give away."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    # A text may start with BZh: the magic of the first block, or of the end of an empty file, must follow.
    is_bz2 = head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
    return "bz2" if is_bz2 else None


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a damaged or forbidden file makes the libraries raise into `InputError`."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"cannot read {name}: permission denied; give yourself the right to read it") from error
    except FileNotFoundError as error:
        raise InputError(f"cannot read {name}: it is gone; was it moved while it was being read?") from error
    except (OSError, EOFError, UnicodeError, csv.Error, pa.ArrowException) as error:
        cause = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InputError(
            f"cannot read {name}: {cause[0]}; the file is damaged or cut short: fetch or write it again"
        ) from error


def open_bytes(source: Source) -> BinaryIO:
    """The bytes of a file, decompressed.

    Raises:
        InputError: if the file is not compressed as its extension says.
    """
    if source.compression is None:
        return source.path.open("rb", buffering=_BLOCK)
    with source.path.open("rb") as file:
        head = file.read(MAGIC_BYTES)
    if compression_of(head) != source.compression:
        raise InputError(
            f"{source.name} is not {source.compression} although its name says so: "
            f"it starts with {head[:4]!r}; rename it to what it is, or fetch it again"
        )
    stream = pa.input_stream(str(source.path), compression=source.compression)
    return io.BufferedReader(stream, _BLOCK)


def resolve(
    inputs: Sequence[str], input_format: str | None, spool_dir: Path | None, text_column: str = "text"
) -> tuple[list[Source], list[Path]]:
    """Every file that `inputs` name, in order, and the files in folders and globs that are not texts.

    Raises:
        UsageError: for a path that does not exist, a glob without a match, an unknown extension.
        InputError: for a folder with nothing to read, an empty standard input.
    """
    if not inputs:
        raise UsageError("no input given; give files, folders, globs or - for standard input")
    if list(inputs).count("-") > 1:
        raise UsageError("standard input (-) is given twice; it can be read once")
    found = [([], []) if given == "-" else _resolve_one(given, input_format) for given in inputs]
    if "-" in inputs:  # last, so that no wrong path is found only after a long pipe was read
        found[list(inputs).index("-")] = ([_spool_stdin(input_format, spool_dir, text_column)], [])
    return [source for sources, _ in found for source in sources], [path for _, paths in found for path in paths]


def _resolve_one(given: str, input_format: str | None) -> tuple[list[Source], list[Path]]:
    if os.path.isdir(given):
        return _resolve_folder(Path(given), input_format)
    if os.path.exists(given):
        if not os.path.isfile(given):
            raise UsageError(f"{given} is not a regular file; pipe it in and give - as the input")
        return [_named_file(given, input_format)], []
    if glob.has_magic(given):
        return _resolve_glob(given, input_format)
    shown = given if len(given) <= 200 else given[:200] + "..."
    raise UsageError(f"{shown!r} does not exist; give a file, a folder, a glob or - for standard input")


def _classify(name: str, input_format: str | None) -> tuple[str | None, str | None]:
    """Format and compression by extension; `input_format` overrules the former."""
    base, extension = os.path.splitext(name.lower())
    compression = COMPRESSION_OF_EXTENSION.get(extension)
    if compression is not None:
        extension = os.path.splitext(base)[1]
    found = input_format or FORMAT_OF_EXTENSION.get(extension)
    return (None, compression) if found == "parquet" and compression else (found, compression)


def _named_file(given: str, input_format: str | None) -> Source:
    found, compression = _classify(given, input_format)
    if found is None:
        raise UsageError(
            f"{given} has an extension that is not read; known are {KNOWN_EXTENSIONS}. "
            "Rename the file, or say what it is with --input-format"
        )
    return Source(Path(given), given, found, compression)


def _resolve_glob(pattern: str, input_format: str | None) -> tuple[list[Source], list[Path]]:
    matches = sorted(match for match in glob.glob(pattern, recursive=True) if os.path.isfile(match))
    if not matches:
        raise UsageError(f"the glob {pattern!r} matches no file; ** goes through folders")
    known = [match for match in matches if _classify(match, input_format)[0]]
    if not known:
        raise UsageError(
            f"none of the {len(matches)} files that {pattern!r} matches is read; known are {KNOWN_EXTENSIONS}"
        )
    return (
        [_named_file(match, input_format) for match in known],
        [Path(match) for match in matches if match not in set(known)],
    )


def _resolve_folder(folder: Path, input_format: str | None) -> tuple[list[Source], list[Path]]:
    files, skipped = _walk(folder)
    sources = []
    for path in files:
        # Only known extensions, even where the format is given: a folder also holds what is no text at all.
        known, _ = _classify(path.name, None)
        found, compression = _classify(path.name, input_format)
        if known and found:
            sources.append(Source(path, path.relative_to(folder).as_posix(), found, compression))
        else:
            skipped.append(path)
    if not sources:
        what = f"none of its {len(skipped)} files is read" if skipped else "nothing is in it"
        raise InputError(f"folder {folder}: {what}; known extensions are {KNOWN_EXTENSIONS}")
    return sources, sorted(skipped)


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """Regular files below a folder, sorted, and what is not followed; hidden names are in neither."""

    def fail(error: OSError) -> None:
        raise error

    root = folder.resolve()
    files: list[Path] = []
    skipped: list[Path] = []
    with reading(str(folder)):
        for parent, folders, names in os.walk(folder, onerror=fail):
            folders[:] = [name for name in folders if not name.startswith(".")]
            skipped += [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
            for path in (Path(parent, name) for name in names if not name.startswith(".")):
                leaves = path.is_symlink() and not path.resolve().is_relative_to(root)
                (skipped if leaves or not path.is_file() else files).append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix()), skipped


def _spool_stdin(input_format: str | None, spool_dir: Path | None, text_column: str) -> Source:
    """Copy standard input to a file, so that it can be counted, read twice and recognised on resume."""
    digest, size, path = hashlib.blake2b(digest_size=16), 0, None
    try:
        if spool_dir is not None:
            spool_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=spool_dir, prefix="pawn-stdin-", delete=False) as file:
            path = Path(file.name)
            while block := sys.stdin.buffer.read(_BLOCK):
                size += len(block)
                digest.update(block)
                file.write(block)
        if size == 0:
            raise InputError("standard input is empty; expected texts, as in: cat texts.jsonl | pawn score -")
        return _sniffed(path, digest.hexdigest(), input_format, text_column)
    except BaseException as error:
        if path is not None:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            where = spool_dir or tempfile.gettempdir()
            raise PawnError(
                f"cannot keep standard input in {where}: {error.strerror}; free space there, or give a file"
            ) from error
        raise


def _sniffed(path: Path, digest: str, input_format: str | None, text_column: str) -> Source:
    with path.open("rb") as file:
        compression = compression_of(file.read(MAGIC_BYTES))
    source = Source(path, STDIN_NAME, input_format or "text", compression, digest)
    if input_format is None:
        with reading(STDIN_NAME), open_bytes(source) as stream:
            source = Source(path, STDIN_NAME, _sniff_format(stream, text_column), compression, digest)
    if source.format == "parquet" and compression:
        raise UsageError(f"standard input is Parquet inside {compression}; decompress it first")
    return source


_LOOKS_LIKE_ROWS = re.compile(r"""\s*(?:[\[{]\s*["{\[]|[\[{]\s*$|["\w-]+([,\t])["\w-]+(?:\1["\w-]+)*\s*$)""")
"""A JSON array or object, or a header: names without spaces between commas or tabs, and nothing else."""


def _sniff_format(stream: BinaryIO, text_column: str) -> str:
    first = next((line for line in stream if line.strip(b"\xef\xbb\xbf \t\r\n")), b"")
    if first.startswith(b"PAR1"):
        return "parquet"
    line = first.decode("utf-8-sig", errors="surrogateescape")
    try:
        if isinstance(json.loads(line), dict):
            return "jsonl"
    except (ValueError, RecursionError):
        pass
    # A header names the text column among others; prose hardly has it alone between two commas.
    for found, delimiter in (("csv", ","), ("tsv", "\t")):
        names = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
        if len(names) > 1 and text_column in names:
            return found
    if _LOOKS_LIKE_ROWS.match(line) or line.strip() == text_column:
        raise UsageError(
            f"standard input begins with {line.strip()[:60]!r}, which looks like rows and not like one text, and is no "
            f"JSONL and no table with a column {text_column!r}: say what it is with --input-format csv, tsv, jsonl, "
            "lines or text, and which column holds the texts with --text-column"
        )
    return "text"
