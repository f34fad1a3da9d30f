"""Bad input: a row with a status, or an error that says what was expected, what came and what to do."""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Pawn
from tests.e2e.runs import Toy, finish, flip_byte, parse_csv, read_results, start, write_jsonl

GOOD = "The river ran past the old mill and under the stone bridge."
ODD_BUT_READ = {
    "right to left": "הנהר זרם ליד הטחנה הישנה ומתחת לגשר האבן. كان النهر يجري قرب الطاحونة القديمة.",
    "emoji": "The river 🌊 ran 🏃‍♀️ past the old mill 👩‍👩‍👧‍👦 and under the bridge 🌉🇨🇭",
    "zero width": "The\u200b river\u200d ran\ufeff past\u2060 the\u200b old\u200b mill\u200b and on.",
    "combining": "Z̴̢̛a̶l̷g̵o̸ " * 9,
    "10 MB": GOOD * 180_000,
}


def quoted(text: str) -> bytes:
    return json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"


def test_every_row_of_a_jsonl_file_gets_a_status_and_only_read_texts_a_score(
    tmp_path: Path, toy: Toy, pawn: Pawn
) -> None:
    lines = {
        b'{"text": ""}': "empty",
        b'{"text": " \\n\\t\\u00a0\\u3000"}': "empty",
        b'{"text": null}': "null",
        b'{"other": 1}': "null",
        b'{"text": "too short"}': "too_short",
        b'{"text": "\\u200b\\u200b"}': "empty",
        b'{"text": 17}': "not_text",
        b'{"text": ["a list"]}': "not_text",
        b'{"text": "' + b"not UTF-8 \xff\xfe " * 9 + b'"}': "invalid_utf8",
        b'{"text": "' + b"NUL \\u0000 " * 9 + b'"}': "nul_character",
        b'{"text": "' + b"half a pair \\ud83d " * 9 + b'"}': "lone_surrogate",
        b'{"text": "' + b"other half \\udc9a " * 9 + b'"}': "lone_surrogate",
        b"[not, an, object]": "invalid_row",
        b'{"text": "cut off': "invalid_row",
    }
    odd = b"".join(quoted(text) for text in ODD_BUT_READ.values())
    (tmp_path / "in.jsonl").write_bytes(quoted(GOOD) + b"".join(line + b"\n" for line in lines) + odd)
    result = pawn("score", tmp_path / "in.jsonl", "--detector", toy.detector, "-o", tmp_path / "out.parquet")
    assert result.code == 3
    rows = read_results(tmp_path / "out.parquet")
    assert [row["status"] for row in rows] == ["ok", *lines.values(), *(["ok"] * len(ODD_BUT_READ))]
    for row in rows:
        judged = [row[name] is not None for name in ("truncated", "score", "p_value", "is_machine")]
        assert judged == [row["status"] == "ok"] * 4
    assert [row["truncated"] for row in rows[-5:]] == [False, False, False, False, True]
    assert [row["id"] for row in rows] == [f"in.jsonl:{number}" for number in range(1, len(rows) + 1)]
    assert "20 rows: 6 scored" in result.err
    assert re.search("14 without a score: 3 empty, 2 invalid_row, 1 invalid_utf8, 2 lone_surrogate", result.err)


def test_every_row_of_csv_and_text_files_gets_a_status(tmp_path: Path, toy: Toy, pawn: Pawn) -> None:
    rows = [
        GOOD.encode(),
        b'" "',
        b"bytes \xe9\xff " * 9,
        b"NUL \0 " * 9,
        b"one,two,three,four",
        b'"' + b"a\nb " * 9 + b'"',
    ]
    (tmp_path / "in.csv").write_bytes(b"id,text\n" + b"".join(b"x," + row + b"\n" for row in rows) + b"alone\n")
    expected = ["ok", "empty", "invalid_utf8", "nul_character", "invalid_row", "ok", "invalid_row"]
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, content in {
        "a": b"",
        "b": b"bytes \xe9 " * 9,
        "c": GOOD.encode(),
        "d": b"NUL \0" * 9,
        "e": b"\n ",
    }.items():
        (folder / f"{name}.txt").write_bytes(content)
    result = pawn("score", tmp_path / "in.csv", folder, "--detector", toy.detector, "-o", tmp_path / "out.csv")
    assert result.code == 3
    found = [row["status"] for row in read_results(tmp_path / "out.csv")]
    assert found == [*expected, "empty", "invalid_utf8", "ok", "nul_character", "empty"]
    assert re.search(r"[0-9] rows have the id of an earlier row", result.err)


def test_rows_with_one_id_are_all_kept_and_counted(tmp_path: Path, toy: Toy, pawn: Pawn) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"id": 5, "text": GOOD}] * 3)
    result = pawn("score", tmp_path / "in.jsonl", "--detector", toy.detector)
    assert result.code == 0
    assert [row["id"] for row in parse_csv(result.out)] == ["5", "5", "5"]
    assert "2 rows have the id of an earlier row" in result.err


NUMBERS = pl.DataFrame({"text": [1, 2], "body": ["a", "b"]})
FILES: dict[str, Callable[[Path], object]] = {
    "empty.csv": lambda path: path.write_bytes(b""),
    "header.csv": lambda path: path.write_bytes(b"id,text\n"),
    "fake.parquet": lambda path: path.write_bytes(b"id,text\n1,hello\n"),
    "fake.jsonl": lambda path: path.write_bytes(b"id,text\n1,hello\n"),
    "fake.csv": NUMBERS.write_parquet,
    "fake.csv.gz": lambda path: path.write_bytes(b"id,text\n1,hello\n"),
    "cut.parquet": lambda path: (NUMBERS.write_parquet(path), path.write_bytes(path.read_bytes()[:-40])),
    "numbers.parquet": NUMBERS.write_parquet,
    "columns.csv": lambda path: path.write_bytes(b"id,body\n1,hello\n"),
    "folder": lambda path: path.mkdir(),
    "photo.png": lambda path: path.write_bytes(b"\x89PNG"),
}


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("empty.csv", 1, r"empty.csv is empty \(0 bytes\)"),
        ("header.csv", 1, "header.csv has no rows below its header"),
        ("fake.parquet", 1, "fake.parquet is not Parquet: it starts with b'id,t', expected b'PAR1'"),
        ("fake.jsonl", 1, "fake.jsonl is not JSONL: its first line starts with 'id,text'"),
        ("fake.csv", 1, "fake.csv is not csv: it looks like Parquet"),
        ("fake.csv.gz", 1, "fake.csv.gz is not gzip although its name says so"),
        ("cut.parquet", 1, "cut.parquet is cut short: .* fetch it again"),
        ("numbers.parquet", 2, r"column 'text' of .* is int64, expected text; its text columns are \['body'\]"),
        ("columns.csv", 2, r"no column 'text' in .*; there are \['id', 'body'\]: choose one with --text-column"),
        ("folder", 1, "nothing is in it; known extensions are .parquet"),
        ("photo.png", 2, "photo.png has an extension that is not read; known are .parquet"),
        ("nowhere.csv", 2, "nowhere.csv' does not exist; give a file, a folder, a glob or -"),
        ("*.nothing", 2, "matches no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_with_its_reason(
    tmp_path: Path, toy: Toy, pawn: Pawn, name: str, code: int, message: str
) -> None:
    path = tmp_path / name
    if name in FILES:
        FILES[name](path)
    result = pawn("score", path, "--detector", toy.detector, "-o", tmp_path / "out.csv")
    assert (result.code, result.out) == (code, "")
    assert re.search(message, result.err), result.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["-o", "out.xlsx"],
            2,
            "cannot tell the format of out.xlsx by its extension; name it .parquet, .csv or .jsonl",
        ),
        (["-o", "nowhere/out.csv"], 2, "nowhere does not exist; create it first: mkdir -p"),
        (["-o", "train.jsonl/out.csv"], 2, "train.jsonl is a file, not a folder"),
        (["-o", "device.csv"], 2, "output device.csv is a device or a pipe, not a file"),
        (["-o", "train.jsonl"], 2, "output train.jsonl is one of the inputs and would be replaced"),
        (["-o", "same.jsonl"], 2, "output same.jsonl is one of the inputs and would be replaced"),
        (["--detector", "pawn-smollm2-135"], 2, "no detector named 'pawn-smollm2-135' and no such folder"),
        (["--detector", "fast-detect-gtp"], 2, "did you mean fast-detect-gpt"),
        (["--backbone", "./nowhere"], 1, "no model at nowhere: expected a directory with config.json"),
        (["--backbone", "smollm-135m"], 1, "no backbone 'smollm-135m': .*Did you mean smollm2-135m"),
        (["--id-column", "nr"], 2, "no column 'nr' in .* choose one with --id-column"),
        (["--carry", "nr"], 2, "no column 'nr' in .* choose one with --carry"),
        (["--device", "cuda:99"], 2, "cuda:99 is not there: PyTorch finds [0-9]+ CUDA devices; try --device cpu"),
        (["--fpr", "few"], 2, "'few' is not a valid float"),
    ],
)
def test_an_option_that_cannot_be_right_is_an_error_with_its_reason(
    tmp_path: Path,
    toy: Toy,
    pawn: Pawn,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    shutil.copy(toy.data, "train.jsonl")
    Path("same.jsonl").symlink_to("train.jsonl")
    Path("device.csv").symlink_to("/dev/full")
    result = pawn("score", "train.jsonl", "--detector", toy.detector, *options)
    assert (result.code, result.out) == (code, "")
    assert re.search(message, result.err), result.err
    assert Path("train.jsonl").read_bytes() == toy.data.read_bytes()
    assert Path("/dev/full").is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.csv", "same.jsonl", "train.jsonl"]


def test_a_full_disk_is_an_error_that_says_how_to_go_on(tmp_path: Path, toy: Toy, pawn: Pawn) -> None:
    def no_file_over_4_kib() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = ("score", toy.data, "--detector", toy.detector, "-o", tmp_path / "out.csv")
    full = finish(start(tmp_path / "home", *command, preexec_fn=no_file_over_4_kib))
    assert full.code == 1
    assert "Traceback" not in full.err
    assert re.search(r"cannot write .*out.csv.*: .*File too large.* \([0-9,]+ bytes are free there\); fin", full.err)
    assert "make room, then run the same command again to continue" in full.err
    assert not (tmp_path / "out.csv").exists()
    assert pawn(*command).code == 0
    assert len(read_results(tmp_path / "out.csv")) == 240


def test_a_full_device_behind_standard_output_is_an_error(tmp_path: Path, toy: Toy) -> None:
    with open("/dev/full", "wb") as device:
        full = finish(start(tmp_path / "home", "score", toy.data, "--detector", toy.detector, stdout=device))
    assert full.code == 1
    assert "cannot write standard output: No space left on device" in full.err
    assert "give an output file with -o" in full.err
    assert "Traceback" not in full.err
    assert "Exception ignored" not in full.err


def test_a_damaged_shard_is_named_with_its_remedy_and_the_remedy_works(tmp_path: Path, toy: Toy, pawn: Pawn) -> None:
    cache = tmp_path / "cache"
    command = ("score", toy.data, "--detector", toy.detector, "--cache", cache, "-o")
    assert pawn(*command, tmp_path / "before.csv").code == 0
    (shard,) = cache.glob("*/*.parquet")
    column = pq.ParquetFile(shard).metadata.row_group(2).column(pq.read_schema(shard).names.index("hidden"))
    flip_byte(shard, column.data_page_offset + column.total_compressed_size // 2)
    damaged = pawn(*command, tmp_path / "after.csv")
    assert damaged.code == 1
    assert f"shard {shard} is damaged: " in damaged.err
    assert f"run 'pawn cache verify {cache} --delete-damaged', then repeat the command" in damaged.err
    assert not (tmp_path / "after.csv").exists()
    assert pawn("cache", "verify", cache).code == 1
    assert pawn("cache", "verify", cache, "--delete-damaged").code == 0
    assert pawn(*command, tmp_path / "after.csv").code == 0
    assert (tmp_path / "after.csv").read_bytes() == (tmp_path / "before.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "model.safetensors has SHA-256 [0-9a-f]{64}, detector.json says .* train the detector"),
        ("calibration.safetensors", "calibration.safetensors has SHA-256 [0-9a-f]{64}, its record says .* calibrate"),
        ("detector.json", "detector.json .*save the detector again"),
    ],
)
def test_a_damaged_detector_is_refused(tmp_path: Path, toy: Toy, pawn: Pawn, name: str, message: str) -> None:
    folder = shutil.copytree(toy.detector, tmp_path / "damaged")
    flip_byte(folder / name, 0 if name.endswith(".json") else (folder / name).stat().st_size // 2)
    result = pawn("score", toy.data, "--detector", folder, "-o", tmp_path / "out.csv")
    assert result.code == 1
    assert re.search(message, result.err), result.err
    (folder / name).unlink()
    missing = pawn("score", toy.data, "--detector", folder, "-o", tmp_path / "out.csv")
    assert missing.code == 1
    assert f"cannot read {folder / name} (No such file or directory)" in missing.err


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path, toy: Toy) -> None:
    process = start(tmp_path / "home", "score", toy.data, "--detector", toy.detector)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        err = process.stderr.read().decode()
    assert (process.wait(timeout=120), err) == (0, "")


def test_a_reader_of_the_progress_that_goes_away_does_not_stop_the_work(tmp_path: Path, toy: Toy) -> None:
    command = ("score", toy.data, "--detector", toy.detector, "--progress", "-o", tmp_path / "out.csv")
    process = start(tmp_path / "home", *command, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert len(read_results(tmp_path / "out.csv")) == 240
