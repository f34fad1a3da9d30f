"""Rows of tables and texts: their text, status, id, carried columns and labels."""

import datetime
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detect.splits import split_groups
from features.documents import Status
from features.errors import InputError, UsageError
from pipelines.corpora import Corpus, CorpusOptions, Row


def read(*paths: Path, **options) -> list[Row]:
    with Corpus.open([str(path) for path in paths], CorpusOptions(**options)) as corpus:
        rows = list(corpus.rows())
        assert corpus.count_rows() == len(rows)
        return rows


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def statuses(rows: list[Row]) -> list[Status]:
    return [row.status for row in rows]


def texts(rows: list[Row]) -> list[str]:
    return [row.document.text for row in rows]


def ids(rows: list[Row]) -> list[str]:
    return [row.document.id for row in rows]


TEXTS = ["plain", 'with "quotes", commas', "two\nlines", "carriage\r\nreturn", "日本語 🎉", "x" * 200_000]


def write_table(path: Path, values: list[str]) -> Path:
    if path.suffix == ".jsonl":
        return written(path, "".join(json.dumps({"text": value}) + "\n" for value in values))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": values}), path)
    else:
        pl.DataFrame({"text": values}).write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv", "a.jsonl"])
def test_every_table_format_gives_the_same_texts_in_order(tmp_path, name):
    rows = read(write_table(tmp_path / name, TEXTS))
    assert texts(rows) == TEXTS
    assert statuses(rows) == [Status.OK] * len(TEXTS)
    assert ids(rows) == [f"{name}:{number}" for number in range(1, len(TEXTS) + 1)]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.txt"])
def test_a_document_of_10_mb_is_read_whole(tmp_path, name):
    text = "word and " * 1_200_000
    path = written(tmp_path / name, text) if name == "a.txt" else write_table(tmp_path / name, [text])
    assert texts(read(path)) == [text]


def test_rows_start_skips_exactly_that_many_rows_across_files(tmp_path):
    first = write_table(tmp_path / "a.csv", ["a1", "a2", "a3"])
    second = write_table(tmp_path / "b.parquet", ["b1", "b2"])
    with Corpus.open([str(first), str(second)], CorpusOptions()) as corpus:
        whole = list(corpus.rows())
        assert [list(corpus.rows(start)) for start in range(7)] == [whole[start:] for start in range(7)]


def test_rows_of_a_parquet_file_of_several_batches_and_row_groups_stay_in_order(tmp_path):
    values = [f"text {i}" for i in range(331)]
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet", row_group_size=101)
    assert texts(read(tmp_path / "a.parquet")) == values


# --- statuses


def test_statuses_of_jsonl_rows(tmp_path):
    lines = [
        rb'{"text": "good"}',
        b"",  # blank: not a row
        rb'{"text": null}',
        rb'{"other": 1}',
        rb'{"text": " \n\t"}',
        rb'{"text": 7}',
        rb'{"text": ["a"]}',
        b'{"text": "caf\xe9"}',
        rb'{"text": "half \ud83d"}',
        rb'{"text": "half \udc83"}',  # in the range that stray bytes are read as, but an escape
        rb'{"text": "nul \u0000"}',
        rb'{"text": "cut',
        rb'["array"]',
        b'{"text": ' + b"[" * 100_000 + b"}",
        b'{"text": ' + b"1" * 5_000 + b"}",  # longer than Python turns into an int
        rb'{"text": "last"}',
    ]
    rows = read(written(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert statuses(rows) == [
        Status.OK,
        Status.NULL,
        Status.NULL,
        Status.EMPTY,
        Status.NOT_TEXT,
        Status.NOT_TEXT,
        Status.INVALID_UTF8,
        Status.LONE_SURROGATE,
        Status.LONE_SURROGATE,
        Status.NUL_CHARACTER,
        *[Status.INVALID_ROW] * 4,
        Status.OK,
    ]
    assert texts(rows) == ["good", *[""] * 13, "last"]
    assert ids(rows) == [f"a.jsonl:{number}" for number in range(1, 16)]


def test_statuses_of_csv_rows(tmp_path):
    lines = [
        b"n,text,more",
        b"1,good,x",
        b"",  # blank: not a row
        b"2,too,many,fields",
        b"3",  # no text
        b"4,short",  # only the last field is missing
        b"5,,x",
        b"6,caf\xe9,x",
        b'7,"two\nlines",x',
        b"8,nul \0,x",
    ]
    padded = [lines[0], b"0," + b"y" * 1024 + b",x", *lines[1:]]  # the NUL byte not among the first
    rows = read(written(tmp_path / "a.csv", b"\r\n".join(padded)), carry=("n", "more"))
    assert statuses(rows)[1:] == [
        Status.OK,
        Status.INVALID_ROW,
        Status.INVALID_ROW,
        Status.OK,
        Status.EMPTY,
        Status.INVALID_UTF8,
        Status.OK,
        Status.NUL_CHARACTER,
    ]
    assert rows[7].document.text == "two\nlines"
    assert [row.carried for row in rows[1:5]] == [
        {"n": "1", "more": "x"},
        {"n": None, "more": None},
        {"n": None, "more": None},
        {"n": "4", "more": None},
    ]


def test_statuses_of_parquet_rows(tmp_path):
    raw = pa.array([b"good", None, b"", b"caf\xe9", b"half \xed\xa0\xbd", b"nul \0"], pa.binary())
    for kind, text in {
        "string": raw.view(pa.string()),
        "large": raw.cast(pa.large_binary()).view(pa.large_string()),
        "dictionary": raw.view(pa.string()).dictionary_encode(),
    }.items():
        pq.write_table(pa.table({"text": text}), tmp_path / f"{kind}.parquet")
        rows = read(tmp_path / f"{kind}.parquet")
        assert statuses(rows) == [
            Status.OK,
            Status.NULL,
            Status.EMPTY,
            Status.INVALID_UTF8,
            Status.INVALID_UTF8,
            Status.NUL_CHARACTER,
        ], kind
        assert texts(rows) == ["good", "", "", "", "", ""]


def test_byte_order_marks_are_not_part_of_the_text(tmp_path):
    mark = b"\xef\xbb\xbf"
    assert texts(read(written(tmp_path / "a.csv", mark + b"text\nx\n"))) == ["x"]
    assert texts(read(written(tmp_path / "a.jsonl", mark + b'{"text": "x"}\n'))) == ["x"]
    assert texts(read(written(tmp_path / "a.txt", mark + b"x"))) == ["x"]
    assert texts(read(written(tmp_path / "l.txt", mark + b"x\ny"), input_format="lines")) == ["x", "y"]


def test_a_blank_line_is_an_empty_text_in_a_csv_of_one_column(tmp_path):
    assert statuses(read(written(tmp_path / "a.csv", "text\na\n\nb\n"))) == [
        Status.OK,
        Status.EMPTY,
        Status.OK,
    ]


def test_lines_are_documents_when_asked_for(tmp_path):
    rows = read(written(tmp_path / "a.txt", b"one\r\n\ntw\xff\nlast"), input_format="lines")
    assert statuses(rows) == [Status.OK, Status.EMPTY, Status.INVALID_UTF8, Status.OK]
    assert texts(rows) == ["one", "", "", "last"]
    assert ids(rows) == ["a.txt:1", "a.txt:2", "a.txt:3", "a.txt:4"]


def test_a_text_file_is_one_row_whatever_is_in_it(tmp_path):
    contents = {
        b"": Status.EMPTY,
        b" \n": Status.EMPTY,
        b"\xff": Status.INVALID_UTF8,
        b"a\0": Status.NUL_CHARACTER,
    }
    for content, status in contents.items():
        assert statuses(read(written(tmp_path / "a.txt", content))) == [status]


# --- columns and ids


def test_ids_come_from_the_column_asked_for_then_from_id_then_from_the_row_number(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"text": "t", "id": 7, "key": "k"}\n{"text": "t", "id": null}\n')
    assert ids(read(path)) == ["7", "a.jsonl:2"]
    assert ids(read(path, id_column="key")) == ["k", "a.jsonl:2"]


def test_an_empty_csv_id_falls_back_to_the_row_number_and_duplicates_are_kept(tmp_path):
    path = written(tmp_path / "a.csv", "id,text\nx,t\n,t\nx,t\n")
    assert ids(read(path)) == ["x", "a.csv:2", "x"]


def test_row_numbers_name_the_path_where_two_files_share_a_name(tmp_path):
    for folder in ("p", "q"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "a.csv", "text\nt\n")
    assert ids(read(tmp_path)) == ["p/a.csv:1", "q/a.csv:1"]


def test_characters_that_utf8_cannot_write_are_escaped_in_ids_and_carried_values(tmp_path):
    path = written(tmp_path / "a.csv", b"id,text,more\na\xff,t,b\xfe\n")
    (row,) = read(path, carry=("more",))
    assert (row.document.id, row.carried) == (r"a\udcff", {"more": r"b\udcfe"})
    path = written(tmp_path / "a.jsonl", rb'{"id": "\ud800", "text": "t", "more": "\udfff"}')
    (row,) = read(path, carry=("*",))
    assert (row.document.id, row.carried) == (r"\ud800", {"more": r"\udfff"})


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_a_missing_text_column_lists_the_columns_there_are(tmp_path, name):
    path = write_table(tmp_path / name, ["t"])
    with pytest.raises(UsageError, match=r"no column 'body' in .*a\..*there are \['text'\].*--text-column"):
        read(path, text_column="body")


@pytest.mark.parametrize("option", [{"id_column": "gone"}, {"carry": ("gone",)}])
def test_missing_id_and_carried_columns_are_errors_naming_the_option(tmp_path, option):
    path = write_table(tmp_path / "a.csv", ["t"])
    with pytest.raises(UsageError, match=f"no column 'gone' .*--{next(iter(option)).replace('_', '-')}"):
        read(path, **option)


def test_a_csv_with_semicolons_is_told_so(tmp_path):
    with pytest.raises(UsageError, match=r"\['id;text'\]; its fields seem to be parted by ';'"):
        read(written(tmp_path / "a.csv", "id;text\n1;t\n"))


def test_a_jsonl_key_may_be_missing_in_some_of_the_first_100_rows_but_not_in_all(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"x": 1}\n' * 99 + '{"text": "t"}\n')
    assert statuses(read(path)) == [Status.NULL] * 99 + [Status.OK]
    path = written(tmp_path / "a.jsonl", '{"x": 1}\n' * 100 + '{"text": "t"}\n')
    with pytest.raises(UsageError, match=r"no column 'text' in the first 100 rows of .*there are \['x'\]"):
        read(path)


@pytest.mark.parametrize("values", [[1, 2], [b"a", b"b"], [0.5, None]])
def test_a_parquet_column_that_is_not_text_is_an_error_naming_its_type_and_the_text_columns(tmp_path, values):
    table = pa.table({"text": values, "body": ["a", "b"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "a.parquet")
    kind = table.schema.field("text").type
    with pytest.raises(UsageError, match=rf"column 'text' of .* is {kind}.*text columns are \['body'\]"):
        read(tmp_path / "a.parquet")


def test_two_columns_of_one_name_are_an_error(tmp_path):
    with pytest.raises(InputError, match="two columns named 'text'"):
        read(written(tmp_path / "a.csv", "text,text\na,b\n"))


# --- carried columns


def test_carried_values_keep_their_json_type_and_structures_become_json(tmp_path):
    values = {"text": "t", "s": "é", "i": 3, "f": 0.5, "b": True, "n": None, "l": [1, "é"], "d": {"k": 1}}
    (row,) = read(written(tmp_path / "a.jsonl", json.dumps(values)), carry=("*",))
    assert row.carried == {"s": "é", "i": 3, "f": 0.5, "b": True, "n": None, "l": '[1, "é"]', "d": '{"k": 1}'}


def test_carried_parquet_values_are_python_values_and_nanoseconds_are_text(tmp_path):
    moment = datetime.datetime(2020, 1, 2)
    columns = {
        "text": ["t"],
        "list": [[1]],
        "time": pa.array([moment]),
        "ns": pa.array([1], pa.timestamp("ns")),
        "bad": pa.array([b"\xff"]).view(pa.string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (row,) = read(tmp_path / "a.parquet", carry=("*",))
    ns = "1970-01-01 00:00:00.000000001"
    assert row.carried == {"list": [1], "time": moment, "ns": ns, "bad": r"\udcff"}


def test_carry_all_means_all_but_text_and_id(tmp_path):
    path = written(tmp_path / "a.csv", "key,text,a,b,\n1,t,2,3,\n")
    with Corpus.open([str(path)], CorpusOptions(id_column="key", carry=("*",))) as corpus:
        assert corpus.carried == ["a", "b"]
        assert next(corpus.rows()).carried == {"a": "2", "b": "3"}


def test_a_carried_name_of_a_result_column_gets_a_suffix(tmp_path):
    path = written(tmp_path / "a.csv", "id,text,score,status,status_input\n1,t,2,3,4\n")
    (row,) = read(path, carry=("*",))
    assert row.carried == {"score_input": "2", "status_input_input": "3", "status_input": "4"}


def test_text_files_carry_null_beside_tables(tmp_path):
    rows = read(written(tmp_path / "a.txt", "t"), written(tmp_path / "b.csv", "text,n\nt,1\n"), carry=("n",))
    assert [row.carried for row in rows] == [{"n": None}, {"n": "1"}]


def test_keys_that_only_later_jsonl_rows_have_are_carried_too(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"text": "t"}\n{"text": "t", "late": 1}\n')
    assert [row.carried for row in read(path, carry=("*",))] == [{}, {"late": 1}]


# --- labels


def test_labels_are_0_or_1_or_their_names(tmp_path):
    labels = ("0", "1", '"human"', '"machine"', '"1"')
    lines = ['{"text": "t", "label": ' + label + "}" for label in labels]
    rows = read(written(tmp_path / "a.jsonl", "\n".join(lines)), labelled=True)
    assert [row.document.label for row in rows] == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("label", ["2", "null", "true", "1.0", '"robot"', "[1]"])
def test_any_other_label_is_an_error_naming_value_and_row(tmp_path, label):
    path = written(tmp_path / "a.jsonl", '{"text": "t", "label": 1}\n{"text": "t", "label": ' + label + "}")
    value = str(json.loads(label)).replace("[", r"\[").replace(".", r"\.")
    with pytest.raises(UsageError, match=rf"row 2 of .*a\.jsonl: column 'label' holds '?{value}"):
        read(path, labelled=True)


def test_what_is_known_of_a_document_is_read_with_its_label(tmp_path):
    path = written(
        tmp_path / "train.csv",
        "text,kind,domain,generator,attack,dataset,split,pair_id\n"
        "t,machine,news,m1,swap,raid,train,7\nt,human,news,,,raid,train,7\nt,human,,,,,,\n",
    )
    with_label = {"labelled": True, "label_column": "kind", "input_format": "csv"}
    machine, human, bare = (row.document for row in read(path, **with_label))
    assert (machine.domain, machine.generator, machine.attack) == ("news", "m1", "swap")
    assert (human.domain, human.generator, human.attack) == ("news", None, None)
    assert machine.group == human.group == "raid/train/7"
    assert (bare.domain, bare.group) == (None, None)


def test_the_file_names_the_group_where_dataset_and_split_are_not_there(tmp_path):
    path = written(tmp_path / "raid.jsonl", '{"text": "t", "label": 0, "pair_id": 3}\n')
    assert read(path, labelled=True)[0].document.group == "raid/raid/3"


def test_labels_are_not_read_unless_asked_for(tmp_path):
    (row,) = read(written(tmp_path / "a.csv", "text,label,domain\nt,9,news\n"))
    assert (row.document.label, row.document.domain) == (None, None)


def test_labelled_tables_need_the_label_column_and_text_files_have_none(tmp_path):
    with pytest.raises(UsageError, match=r"no column 'label' .*there are \['text'\].*--label-column"):
        read(write_table(tmp_path / "a.csv", ["t"]), labelled=True)
    with pytest.raises(UsageError, match=r"a\.txt is text without labels.*'label'"):
        read(written(tmp_path / "a.txt", "t"), labelled=True)


def test_an_invalid_row_among_labelled_ones_has_no_label(tmp_path):
    rows = read(written(tmp_path / "a.jsonl", '{"text": "t", "label": 1}\n{"te\n'), labelled=True)
    assert [(row.status, row.document.label) for row in rows] == [(Status.OK, 1), (Status.INVALID_ROW, None)]


def test_a_share_is_of_whole_sources_and_the_same_every_time(tmp_path):
    rows = [
        {"text": f"text {number} of a corpus", "label": number % 2, "pair_id": None if number >= 300 else number // 2}
        for number in range(600)
    ]
    path = written(tmp_path / "pairs.jsonl", "\n".join(map(json.dumps, rows)))
    some, again, more = (read(path, labelled=True, share=share) for share in (0.2, 0.2, 0.5))
    assert ids(some) == ids(again)
    assert set(ids(some)) < set(ids(more))
    assert 60 < len(some) < 180
    groups = [row.document.group for row in some if row.document.group is not None]
    assert groups
    assert all(groups.count(group) == 2 for group in groups)
    # Splits are drawn by the same texts: a share that used the same numbers would lie in one part of them.
    alone = [row.document for row in some if row.document.group is None]
    assert len(set(split_groups(alone, {"train": 0.5, "test": 0.5}, 0))) == 2


@pytest.mark.parametrize("share", [0.0, 1.5, -0.1])
def test_a_share_that_cannot_be_is_an_error(share):
    with pytest.raises(UsageError, match=f"above 0 and at most 1, got {share}"):
        CorpusOptions(share=share)
