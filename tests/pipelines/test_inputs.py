"""What a person names -> which files are read, and which files are refused with what words."""

import bz2
import gzip
import io
import os
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.documents import Status
from features.errors import InputError, PawnError, UsageError
from pipelines.corpora import Corpus, CorpusOptions

LINES = b'{"text": "one"}\n{"text": "two"}\n'


def compressed(path: Path, data: bytes) -> Path:
    """Write data to path, compressed as its last extension says."""
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(data))
    return path


def ids(*inputs: str | Path, **options) -> list[str]:
    with Corpus.open([str(given) for given in inputs], CorpusOptions(**options)) as corpus:
        return [row.document.id for row in corpus.rows()]


def texts(*inputs: str | Path, spool_dir: Path | None = None, **options) -> list[str]:
    given = [str(one) for one in inputs]
    with Corpus.open(given, CorpusOptions(**options), spool_dir=spool_dir) as corpus:
        return [row.document.text for row in corpus.rows()]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("t")


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# --- folders and globs


def test_a_folder_is_read_recursively_in_order_without_hidden_and_unknown_files(tmp_path):
    touch(tmp_path, "b.txt", "a/z.md", "a/b/c.TEXT", ".hidden.txt", ".git/x.txt", "a/image.png", "noextension")
    with Corpus.open([str(tmp_path)], CorpusOptions()) as corpus:
        assert [row.document.id for row in corpus.rows()] == ["a/b/c.TEXT", "a/z.md", "b.txt"]
        assert corpus.files == [tmp_path / "a/b/c.TEXT", tmp_path / "a/z.md", tmp_path / "b.txt"]
        assert corpus.skipped == [tmp_path / "a/image.png", tmp_path / "noextension"]


def test_links_that_leave_a_folder_are_skipped_and_those_within_are_read(tmp_path):
    touch(tmp_path, "in/a.txt", "out/secret.txt")
    (tmp_path / "in/within.txt").symlink_to("a.txt")
    (tmp_path / "in/leaves.txt").symlink_to(tmp_path / "out/secret.txt")
    (tmp_path / "in/broken.txt").symlink_to("gone.txt")
    (tmp_path / "in/folder").symlink_to(tmp_path / "out")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    with Corpus.open([str(tmp_path / "in")], CorpusOptions()) as corpus:
        assert [row.document.id for row in corpus.rows()] == ["a.txt", "within.txt"]
        assert [path.name for path in corpus.skipped] == ["broken.txt", "folder", "leaves.txt", "loop"]


def test_a_folder_behind_a_link_is_read(tmp_path):
    touch(tmp_path, "in/a.txt")
    (tmp_path / "link").symlink_to("in")
    assert ids(tmp_path / "link") == ["a.txt"]


def test_an_empty_folder_and_one_without_texts_are_errors_naming_the_extensions(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: nothing is in it; known extensions are .parquet,")):
        ids(tmp_path)
    touch(tmp_path, "a.png", "b.bin")
    with pytest.raises(InputError, match=r"none of its 2 files is read; .*\.jsonl"):
        ids(tmp_path)


def test_a_glob_is_sorted_goes_through_folders_and_passes_over_other_files(tmp_path):
    touch(tmp_path, "b.txt", "a/c.txt", "a/d.png")
    with Corpus.open([f"{tmp_path}/**/*"], CorpusOptions()) as corpus:
        assert corpus.files == [tmp_path / "a/c.txt", tmp_path / "b.txt"]
        assert corpus.skipped == [tmp_path / "a/d.png"]


def test_a_glob_without_a_match_or_without_a_text_is_an_error(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match=r"glob '.*\*\.txt' matches no file"):
        ids(f"{tmp_path}/*.txt")
    with pytest.raises(UsageError, match=r"none of the 1 files that '.*' matches is read"):
        ids(f"{tmp_path}/*")


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path):
    touch(tmp_path, "a[1].txt", "a1.txt")
    assert ids(tmp_path / "a[1].txt") == [str(tmp_path / "a[1].txt")]


def test_inputs_are_read_in_the_order_given(tmp_path, monkeypatch):
    touch(tmp_path, "a.txt", "b.txt")
    monkeypatch.chdir(tmp_path)
    give_stdin(monkeypatch, b"piped")
    assert ids("b.txt", "-", "./a.txt") == ["b.txt", "stdin", "./a.txt"]


# --- compression and standard input


@pytest.mark.parametrize("extension", [".gz", ".zst", ".bz2"])
def test_compressed_files_are_read_as_what_is_in_them(tmp_path, extension):
    assert texts(compressed(tmp_path / f"a.jsonl{extension}", LINES)) == ["one", "two"]
    assert texts(compressed(tmp_path / f"a.csv{extension}", b"text\none\ntwo\n")) == ["one", "two"]
    assert texts(compressed(tmp_path / f"a.txt{extension}", b"one")) == ["one"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress])
def test_standard_input_is_recognised_by_its_content(monkeypatch, compress):
    cases = {LINES: ["one", "two"], b"\xef\xbb\xbf\n \n" + LINES: ["one", "two"]}
    cases |= {text: [text.decode()] for text in (b"a text\nof lines", b"Dear all,\nyes", b"{not json}", b"[1] So")}
    cases |= {b'n,"text"\n1,one\n2,two': ["one", "two"], b"n\ttext\n1\tone": ["one"]}
    for data, expected in cases.items():
        give_stdin(monkeypatch, compress(data))
        assert texts("-") == expected


@pytest.mark.parametrize(
    "rows",
    [
        b"id,body\n1,one\n2,two",
        b"id\tbody\n1\tone",
        b"text\none\ntwo",
        b'[{"text": "one"}]',
        b"[\n  1\n]",
        b'{"text":\n"one"}',
    ],
)
def test_rows_on_standard_input_that_are_not_recognised_are_not_read_as_one_text(monkeypatch, rows):
    give_stdin(monkeypatch, rows)
    with pytest.raises(UsageError, match=r"looks like rows and not like one text, .* --input-format csv, tsv, jsonl"):
        texts("-")
    give_stdin(monkeypatch, rows)
    assert texts("-", input_format="text") == [rows.decode()]


def test_parquet_on_standard_input_is_recognised(monkeypatch):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two"]}), sink)
    give_stdin(monkeypatch, sink.getvalue())
    assert texts("-") == ["one", "two"]


def test_the_input_format_overrules_what_standard_input_looks_like(monkeypatch):
    for input_format, expected in {"csv": ["1"], "lines": ["text,n", "1,2"], "text": ["text,n\n1,2"]}.items():
        give_stdin(monkeypatch, b"text,n\n1,2")
        assert texts("-", input_format=input_format) == expected


def test_rows_of_standard_input_are_named_stdin_and_its_copy_is_removed(tmp_path, monkeypatch):
    give_stdin(monkeypatch, LINES)
    with Corpus.open(["-"], CorpusOptions(), spool_dir=tmp_path / "spool") as corpus:
        assert len(list((tmp_path / "spool").iterdir())) == 1
        assert [row.document.id for row in corpus.rows()] == ["stdin:1", "stdin:2"]
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_copy_of_standard_input_is_removed_when_opening_fails(tmp_path, monkeypatch):
    give_stdin(monkeypatch, LINES)
    with pytest.raises(UsageError, match="no column 'body'"):
        texts("-", text_column="body", spool_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_empty_standard_input_and_reading_it_twice_are_errors(monkeypatch):
    give_stdin(monkeypatch, b"")
    with pytest.raises(InputError, match="standard input is empty"):
        texts("-")
    with pytest.raises(UsageError, match="given twice"):
        texts("-", "-")


def test_a_spool_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "file")
    give_stdin(monkeypatch, LINES)
    with pytest.raises(PawnError, match=r"cannot keep standard input in .*file/spool: Not a directory"):
        texts("-", spool_dir=tmp_path / "file" / "spool")


# --- wrong inputs


def test_no_input_and_a_path_that_does_not_exist_are_errors():
    with pytest.raises(UsageError, match="no input given"):
        texts()
    with pytest.raises(UsageError, match=r"'gone\.csv' does not exist; give a file, a folder"):
        texts("gone.csv")
    with pytest.raises(UsageError, match=r"'(word ){40}\.\.\.' does not exist"):  # a text, not a path
        texts("word " * 1000)


def test_an_unknown_extension_lists_the_known_ones(tmp_path):
    for name in ("a.docx", "noextension", "a.gz", "a.parquet.gz"):
        touch(tmp_path, name)
        with pytest.raises(UsageError, match=rf"{name} has an extension that is not read; .*\.gz"):
            texts(tmp_path / name)


def test_an_input_format_reads_any_extension_and_an_unknown_one_is_an_error(tmp_path):
    touch(tmp_path, "a.dat")
    assert texts(tmp_path / "a.dat", input_format="text") == ["t"]
    with pytest.raises(UsageError, match=r"unknown input format 'xml'; known are parquet, csv"):
        CorpusOptions(input_format="xml")


def test_a_pipe_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UsageError, match=r"a\.csv is not a regular file; pipe it in"):
        texts(tmp_path / "a.csv")


ZIP, PNG, PDF = b"PK\x03\x04rest", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7\n"
WRONG_FILES = {
    "empty.csv": (b"", r"is empty \(0 bytes\)"),
    "empty.jsonl": (b"", r"is empty \(0 bytes\)"),
    "empty.parquet": (b"", r"is empty \(0 bytes\)"),
    "empty.csv.gz": (gzip.compress(b""), "is empty .*decompressed"),
    "header.csv": (b"text,id\n", "has no rows below its header"),
    "white.csv": (b"\n\n", "has no rows below its header"),
    "white.jsonl": (b" \n\t\n", "nothing but white space"),
    "array.jsonl": (b'[{"text": "a"}]', r"first line starts with '\[\{.*JSON array must be unpacked"),
    "pretty.jsonl": (b'{\n  "text": "a"\n}', r"first line starts with '\{'; expected one JSON object a line"),
    "plain.jsonl": (b"hello\n", "first line starts with 'hello'"),
    "parquet.csv": (b"PAR1....PAR1", "is not csv: it looks like Parquet"),
    "gzip.jsonl": (gzip.compress(LINES), r"looks like gzip data \(its name should end in \.gz\)"),
    "bzip.csv": (bz2.compress(b"text\na"), r"looks like bz2 data \(its name should end in \.bz2\)"),
    "excel.csv": (ZIP, "looks like a zip archive or an Excel workbook"),
    "image.jsonl": (PNG, "looks like a PNG image"),
    "paper.tsv": (PDF, "is not tsv: it looks like a PDF"),
    "wide.csv": ("text\na\n".encode("utf-16"), "looks like UTF-16 text"),
    "binary.csv": (b"text\na\0b\n", r"looks like binary data \(NUL byte at 6\)"),
    "text.csv.gz": (b"text\na\n", "is not gzip although its name says so: it starts with b'text'"),
    "text.jsonl.zst": (LINES, "is not zstd although"),
    "text.parquet": (b"hello world", r"is not Parquet: it starts with b'hell'"),
    "tiny.parquet": (b"PA", r"is not Parquet: it starts with b'PA'"),
    "cut.parquet": (b"PAR1 and more", "is cut short: it ends with b'more'"),
    "broken.parquet": (b"PAR1" + b"\xff" * 64 + b"PAR1", "damaged or cut short"),
    "quote.csv": (
        b'text,n\na,1\n"b,2\nc,3\n',
        "a quote opened in the row that starts at line 3 is never closed",
    ),
    "cut.jsonl.gz": (gzip.compress(os.urandom(90_000).hex().encode())[:-9000], "damaged or cut short"),
    "cut.txt.bz2": (bz2.compress(os.urandom(90_000).hex().encode())[:-9000], "damaged or cut short"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_is_not_what_it_should_be_is_refused_with_the_reason(tmp_path, name):
    content, reason = WRONG_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{reason}|{reason}.*{name}"):
        texts(tmp_path / name)


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has no rows"):
        texts(tmp_path / "a.parquet")


def test_a_flipped_bit_in_a_parquet_page_is_found_before_the_work_by_counting(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["some text"] * 9}), path, compression=None, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"some text")] ^= 1
    path.write_bytes(data)
    corpus = Corpus.open([str(path)], CorpusOptions())
    with pytest.raises(InputError, match=r"cannot read .*a\.parquet: .*CRC"):
        corpus.count_rows()


def test_a_file_that_goes_away_is_an_input_error(tmp_path):
    path = compressed(tmp_path / "a.jsonl", LINES)
    corpus = Corpus.open([str(path)], CorpusOptions())
    path.unlink()
    for use in (corpus.count_rows, corpus.identity):
        with pytest.raises(InputError, match=r"cannot read .*a\.jsonl: it is gone"):
            use()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads whatever it likes")
def test_a_file_without_read_permission_is_an_input_error(tmp_path):
    path = compressed(tmp_path / "a.jsonl", LINES)
    path.chmod(0)
    with pytest.raises(InputError, match=r"a\.jsonl: permission denied"):
        texts(path)


# --- identity


def test_the_identity_changes_with_file_content_options_and_order_only(tmp_path):
    a, b = compressed(tmp_path / "a.jsonl", LINES), compressed(tmp_path / "b.jsonl", LINES)

    def identity(*paths: Path, **options) -> dict[str, object]:
        return Corpus.open([str(path) for path in paths], CorpusOptions(**options)).identity()

    before = identity(a, b)
    assert identity(a, b) == before
    assert identity(b, a) != before
    assert identity(a, b, id_column="text") != before
    os.utime(a, ns=(0, 0))
    assert identity(a, b) != before


def test_standard_input_is_identified_by_its_bytes(monkeypatch):
    def identity(data: bytes) -> dict[str, object]:
        give_stdin(monkeypatch, data)
        with Corpus.open(["-"], CorpusOptions()) as corpus:
            return corpus.identity()

    assert identity(LINES) == identity(LINES)
    assert identity(LINES) != identity(LINES + LINES)


def test_a_text_file_of_a_wrong_kind_is_a_row_beside_the_others(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(PNG + b"\0")
    (tmp_path / "c.txt").write_bytes(b"fine")
    with Corpus.open([str(tmp_path)], CorpusOptions()) as corpus:
        found = [row.status for row in corpus.rows()]
    assert found == [Status.EMPTY, Status.NUL_CHARACTER, Status.OK]
