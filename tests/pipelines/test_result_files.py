"""The final file of results: its rows, types, formats and metadata."""

import csv
import datetime
import json
import math
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipelines.results import RESULT_SCHEMA, ResultWriter, Summary
from tests.pipelines.result_rows import (
    IDENTITY,
    METADATA,
    OUTPUTS,
    ROWS,
    SUMMARY,
    rows_of,
    scored,
    unscored,
    write,
    writer,
)

# --- the final file


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_format_gives_back_all_rows_in_order_and_leaves_no_parts(tmp_path, name):
    out = tmp_path / name
    summary = write(out)
    assert rows_of(out) == ROWS
    assert summary == Summary(**SUMMARY, duplicate_ids=2, out=str(out))
    sidecar = [] if name == "o.parquet" else [f"{name}.meta.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, *sidecar]


def test_parquet_columns_have_the_types_of_the_schema(tmp_path):
    write(tmp_path / "o.parquet", [[unscored("a", "null")]])
    assert pl.read_parquet_schema(tmp_path / "o.parquet") == RESULT_SCHEMA


def test_metadata_is_in_the_parquet_schema_and_beside_csv_and_jsonl(tmp_path):
    for name in ("o.parquet", "o.csv", "o.jsonl"):
        write(tmp_path / name)
    stored = {key.decode(): value.decode() for key, value in pq.read_metadata(tmp_path / "o.parquet").metadata.items()}
    assert (stored["pawn.detector"], stored["pawn.fpr"]) == ("d1", "0.01")
    for name in ("o.csv", "o.jsonl"):
        beside = json.loads((tmp_path / f"{name}.meta.json").read_text())
        assert (beside["pawn.detector"], beside["pawn.fpr"]) == ("d1", "0.01")
        assert beside["pawn.run"] == stored["pawn.run"]


def test_the_final_parquet_file_has_page_checksums(tmp_path):
    out = tmp_path / "o.parquet"
    write(out, [[scored(f"row {i}") for i in range(1000)]])
    data = bytearray(out.read_bytes())
    data[50] ^= 1  # inside the first data page
    out.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(out, page_checksum_verification=True).read()


def test_csv_quotes_what_must_be_quoted(tmp_path):
    texts = ['a "b", c', "two\nlines", "carriage\rreturn", "日本語", " space "]
    write(tmp_path / "o.csv", [[scored(text, note=text) for text in texts]])
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["note"], row["is_machine"]) for row in rows] == [(t, t, "false") for t in texts]


def test_standard_output_is_csv_at_the_end(capfdbinary):
    for out in (None, Path("-")):
        results = writer(out)
        results.write_part(ROWS[:2])
        assert capfdbinary.readouterr().out == b""
        assert results.finish(METADATA).out is None
        assert capfdbinary.readouterr().out.decode().splitlines() == [
            "id,status,n_tokens,truncated,score,p_value,is_machine",
            "a,ok,20,false,1.5,0.25,true",
            "b,null,,,,,",
        ]


def test_an_existing_file_is_as_it_was_until_the_end_and_then_replaced(tmp_path):
    out = tmp_path / "o.csv"
    out.write_text("something else")
    results = writer(out)
    results.write_part(ROWS)
    assert out.read_text() == "something else"
    results.finish(METADATA)
    assert rows_of(out) == ROWS


def test_the_file_behind_a_link_is_replaced_and_the_link_kept(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "o.csv").symlink_to("far/real.csv")
    write(tmp_path / "o.csv")
    assert (tmp_path / "o.csv").is_symlink()
    assert rows_of(tmp_path / "far/real.csv") == ROWS


# --- carried columns


def column(tmp_path: Path, *parts: list[object]) -> tuple[pl.DataType, list[object]]:
    write(tmp_path / "o.parquet", [[scored("x", c=value) for value in part] for part in parts])
    series = pl.read_parquet(tmp_path / "o.parquet")["c"]
    return series.dtype, series.to_list()


@pytest.mark.parametrize(
    ("parts", "kind", "values"),
    [
        ([[1, None], [2]], pl.Int64, [1, None, 2]),
        ([[1], [0.5]], pl.Float64, [1.0, 0.5]),
        ([[1, 0.5]], pl.Float64, [1.0, 0.5]),
        ([[None], [None]], pl.String, [None, None]),
        ([[None], [True]], pl.Boolean, [None, True]),
        ([[1], ["a"]], pl.String, ["1", "a"]),
        ([["a", 1, 0.5, True, None]], pl.String, ["a", "1", "0.5", "true", None]),
        ([[1.5, True]], pl.String, ["1.5", "true"]),
        ([[True], [1]], pl.String, ["true", "1"]),
        ([[10**30], [1]], pl.String, [str(10**30), "1"]),
        ([[[1]], [[2, 3]]], pl.List(pl.Int64), [[1], [2, 3]]),
        ([[[1]], [["é"]]], pl.String, ["[1]", '["é"]']),
        ([[b"a\xff"], ["b"]], pl.String, [r"a\xff", "b"]),
    ],
)
def test_a_carried_column_has_one_type_over_all_parts(tmp_path, parts, kind, values):
    assert column(tmp_path, *parts) == (kind, values)


def test_a_carried_column_that_some_rows_lack_is_null_there(tmp_path):
    write(tmp_path / "o.parquet", [[scored("a", x=1)], [scored("b", y="t")], [scored("c")]])
    frame = pl.read_parquet(tmp_path / "o.parquet").select("x", "y")
    assert frame.to_dict(as_series=False) == {"x": [1, None, None], "y": [None, "t", None]}


def test_carried_columns_named_in_advance_come_first_and_exist_without_a_value(tmp_path):
    results = ResultWriter(tmp_path / "o.csv", identity=IDENTITY, carried=["first", "second"])
    results.write_part([scored("a", third=1, second=2)])
    results.finish(METADATA)
    header, row = (tmp_path / "o.csv").read_text().splitlines()
    assert header.split(",")[7:] == ["first", "second", "third"]
    assert row.split(",")[7:] == ["", "2", "1"]


def test_jsonl_is_strict_json_whatever_is_carried(tmp_path):
    moment = datetime.datetime(2020, 1, 2, 3)
    values = {"nan": math.nan, "inner": [math.inf, 1.0], "time": moment, "raw": b"\xff"}
    write(tmp_path / "o.jsonl", [[scored("a", **values)]])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    row = json.loads((tmp_path / "o.jsonl").read_text(), parse_constant=refuse)
    assert {name: row[name] for name in values} == {
        "nan": None,
        "inner": [None, 1.0],
        "time": "2020-01-02 03:00:00",
        "raw": r"\xff",
    }
