"""`pawn score`: every way in, every way out, and what stands in each row."""

import gzip
import hashlib
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from detect.calibration import BAND_STARTS
from features.extractor import Extractor
from tests.e2e.conftest import Pawn
from tests.e2e.runs import (
    COLUMNS,
    Toy,
    finish,
    human_text,
    naive_auroc,
    parse_csv,
    read_results,
    shards,
    start,
    write_jsonl,
)
from tests.features.tiny_models import write_tiny_model


@pytest.fixture(scope="session")
def texts() -> list[str]:
    rng = random.Random(3)
    return [human_text(rng) + ' "quoted", née\nsecond line' for _ in range(7)]


@pytest.fixture(scope="session")
def frame(texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"row-{i}" for i in range(7)], "text": texts, "source": list("abcdefg")})


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="no products of eight-bit integers here")
def test_scores_in_eight_bit_integers_stay_near_the_others(pawn: Pawn, tmp_path: Path, toy: Toy) -> None:
    found = {}
    for backbone in (toy.model, f"{toy.model}:int8"):
        out = tmp_path / f"{len(found)}.parquet"
        result = pawn("score", toy.data, "--detector", toy.detector, "--backbone", backbone, "-o", out)
        assert result.code == 0, result.err
        found[str(backbone)] = pl.read_parquet(out)["score"].to_numpy()
        assert json.loads(pq.read_schema(out).metadata[b"pawn.features"])["dtype"].startswith("int8+") == (
            "int8" in str(backbone)
        )
    exact, rounded = found.values()
    assert not np.array_equal(exact, rounded)
    assert np.corrcoef(exact, rounded)[0, 1] > 0.99
    # A cache keeps the two apart, and a detector of the one goes on with it.
    cache, detector = tmp_path / "cache", tmp_path / "detector"
    trained = pawn(
        *("train", "lightgbm", "--data", toy.data, "--backbone", f"{toy.model}:int8", "--cache", cache, "-o", detector)
    )
    assert trained.code == 0, trained.err
    assert json.loads((detector / "detector.json").read_text())["backbone"]["name"] == f"{toy.model.resolve()}:int8"
    again = pawn("score", toy.data, "--detector", detector, "--cache", cache, "-o", tmp_path / "again.parquet")
    assert again.code == 0, again.err
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_score_as_a_person_types_it(tmp_path: Path, toy: Toy) -> None:
    process = start(
        tmp_path, "score", "-", "--detector", toy.detector, "--carry", "label", "--progress", stdin=subprocess.PIPE
    )
    result = finish(process, toy.data.read_bytes())
    assert result.code == 0, result.err
    rows = parse_csv(result.out)  # nothing but the table is on standard output
    assert list(rows[0]) == [*COLUMNS, "label"]
    assert [row["id"] for row in rows] == toy.texts["id"].to_list()
    assert naive_auroc([row["label"] for row in rows], [row["score"] for row in rows]) > 0.9
    flagged = sum(row["is_machine"] for row in rows)
    assert f"240 rows: 240 scored, {flagged} flagged as machine-written" in result.err
    assert "100.0%  240/240 documents" in result.err
    assert "tokens/s" in result.err


def test_p_values_and_decisions_follow_from_the_calibration_in_the_detectors_folder(
    tmp_path: Path, toy: Toy, pawn: Pawn
) -> None:
    arrays = load_file(toy.detector / "calibration.safetensors")
    human = arrays["scores"][arrays["n_tokens"] < BAND_STARTS[1]]  # few texts: judged by the band with most
    smallest = 1 / (len(human) + 1)
    fpr = 3 * smallest
    command = ("score", toy.data, "--detector", toy.detector, "--carry", "label", "-o")
    assert pawn(*command, tmp_path / "out.parquet", "--fpr", fpr).code == 0
    for row in read_results(tmp_path / "out.parquet"):
        expected = (1 + sum(score >= row["score"] for score in human)) / (len(human) + 1)
        assert row["p_value"] == expected
        assert row["is_machine"] == (expected <= fpr)
    refused = pawn(*command, tmp_path / "none.parquet", "--fpr", smallest / 2)
    assert refused.code == 2
    assert f"cannot be promised from {len(human)} human texts: the smallest is {smallest:.6g}" in refused.err
    assert not (tmp_path / "none.parquet").exists()
    for nonsense in (0, 1, -0.5, "nan"):
        wrong = pawn(*command, tmp_path / "none.parquet", "--fpr", nonsense)
        assert wrong.code == 2
        assert "between 0 and 1" in wrong.err


def test_every_input_gives_the_same_rows_in_the_same_order(
    tmp_path: Path, toy: Toy, pawn: Pawn, frame: pl.DataFrame, texts: list[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "t.jsonl")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    frame[:3].write_parquet(tmp_path / "half-1.parquet")
    frame[3:].write_ndjson(tmp_path / "half-2.jsonl")
    for number, text in enumerate(texts):
        (folder / f"row-{number}").with_suffix(".txt").write_text(text, encoding="utf-8")
    inputs = [["t.parquet"], ["t.csv"], ["t.tsv"], ["t.jsonl"], ["t.csv.gz"], ["half-*"], ["folder"], ["folder/*.txt"]]
    options = ("--detector", toy.detector, "--cache", tmp_path / "cache", "-o", tmp_path / "out.jsonl")
    expected: list[dict[str, Any]] = []
    for given in inputs:
        result = pawn("score", *(tmp_path / name for name in given), *options)
        assert result.code == 0, result.err
        rows = read_results(tmp_path / "out.jsonl")
        names = [row.pop("id") for row in rows]
        assert [Path(name).name.removesuffix(".txt") for name in names] == frame["id"].to_list(), given
        expected = expected or rows
        assert rows == expected, given
    for content in ((tmp_path / "t.jsonl").read_bytes(), (tmp_path / "t.parquet").read_bytes()):
        rows = parse_csv(pawn("score", "-", *options[:-2], stdin=content).out)
        assert [{name: row[name] for name in COLUMNS[1:]} for row in rows] == expected
    one = pawn("score", "-", *options[:-2], stdin=texts[4].encode())
    # Alone, a text is added up in another order than beside six others: float32, so 1e-6 of a score.
    assert parse_csv(one.out)[0]["score"] == pytest.approx(expected[4]["score"], rel=1e-5)


def test_every_output_holds_the_same_rows_and_says_what_made_them(
    tmp_path: Path, toy: Toy, pawn: Pawn, frame: pl.DataFrame
) -> None:
    frame.with_columns(score=pl.lit("mine")).write_parquet(tmp_path / "in.parquet")
    carry = ("--carry", "source", "--carry", "score")
    columns = [*COLUMNS, "source", "score_input"]
    seen = []
    for name in ("out.parquet", "out.csv", "out.jsonl"):
        result = pawn("score", tmp_path / "in.parquet", "--detector", toy.detector, *carry, "-o", tmp_path / name)
        assert (result.code, result.out) == (0, "")
        assert f"Written to {tmp_path / name}" in result.err
        assert "%" not in result.err  # progress only where it was asked for, or on a terminal
        seen.append(read_results(tmp_path / name))
        assert list(seen[-1][0]) == columns
        metadata = (
            {key.decode(): value.decode() for key, value in pq.read_schema(tmp_path / name).metadata.items()}
            if name == "out.parquet"
            else json.loads((tmp_path / f"{name}.meta.json").read_text())
        )
        weights = hashlib.sha256((toy.detector / "model.safetensors").read_bytes()).hexdigest()
        assert json.loads(metadata["pawn.detector"])["weights_sha256"] == weights
        assert json.loads(metadata["pawn.calibration"])["weights_sha256"] == weights
        assert 0 < json.loads(metadata["pawn.fpr"]) < 1
        assert json.loads(metadata["pawn.features"])["max_length"] == 512
        thresholds = {int(start): value for start, value in json.loads(metadata["pawn.thresholds"]).items()}
        for row in seen[-1]:
            band = max(start for start in thresholds if start <= row["n_tokens"])
            assert row["is_machine"] == (row["score"] >= thresholds[band])
    assert seen[0] == seen[1] == seen[2]
    assert [row["source"] for row in seen[0]] == list("abcdefg")
    assert {row["score_input"] for row in seen[0]} == {"mine"}


def test_a_run_with_a_cache_computes_each_text_once(
    tmp_path: Path, toy: Toy, pawn: Pawn, frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame.write_ndjson(tmp_path / "in.jsonl")
    command = ("score", tmp_path / "in.jsonl", "--detector", toy.detector)
    assert pawn(*command, "--cache", "none", "-o", tmp_path / "none.csv").code == 0
    assert pawn(*command, "--cache", tmp_path / "cache", "-o", tmp_path / "first.csv").code == 0
    written = shards(tmp_path / "cache")
    assert len(written) == 1
    assert [path for path in tmp_path.rglob("*.parquet") if "cache" not in path.parts] == []

    def no_forward_pass(*arguments: object) -> None:
        raise AssertionError("the language model ran")

    monkeypatch.setattr(Extractor, "extract", no_forward_pass)
    assert pawn(*command, "--cache", tmp_path / "cache", "-o", tmp_path / "second.csv").code == 0
    assert shards(tmp_path / "cache") == written
    assert (tmp_path / "second.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()
    assert (tmp_path / "none.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()


def test_an_output_that_is_complete_is_not_computed_again(
    tmp_path: Path, toy: Toy, pawn: Pawn, frame: pl.DataFrame
) -> None:
    frame.write_ndjson(tmp_path / "in.jsonl")
    command = ("score", tmp_path / "in.jsonl", "--detector", toy.detector, "-o", tmp_path / "out.csv")
    first = pawn(*command)
    again = pawn(*command)
    assert (first.code, again.code) == (0, 0)
    assert "nothing to do" not in first.err
    assert "The output is complete already" in again.err
    assert "7 rows: 7 scored" in again.err
    assert "nothing to do" not in pawn(*command, "--fpr", 0.5).err


def test_a_text_is_read_up_to_the_length_asked_for(tmp_path: Path, toy: Toy, pawn: Pawn) -> None:
    long, short = "One two three four five six. " * 40, "One two three four five."
    write_jsonl(tmp_path / "in.jsonl", [{"text": long}, {"text": short}])
    command = ("score", tmp_path / "in.jsonl", "--detector", toy.detector)
    for length in (32, 512):
        rows = parse_csv(pawn(*command, "--max-length", length).out)
        assert [row["truncated"] for row in rows] == [True, False]
        assert rows[0]["n_tokens"] == length > rows[1]["n_tokens"]
    too_long = pawn(*command, "--max-length", 513)
    assert too_long.code == 1
    assert f"--max-length 513 is more than backbone {toy.model} can read: 512" in too_long.err
    assert pawn(*command, "--max-length", 8).code == 2


def test_another_backbone_than_the_detectors_is_refused_with_both_named(tmp_path: Path, toy: Toy, pawn: Pawn) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    expected = json.loads((toy.detector / "detector.json").read_text())["backbone"]["fingerprint"]["weights_id"]
    result = pawn("score", toy.data, "--detector", toy.detector, "--backbone", other, "-o", tmp_path / "out.csv")
    assert result.code == 1
    assert f"trained on features with weights_id {expected!r}, these have 'files-sha256:" in result.err
    assert f"use its backbone: --backbone {toy.model}" in result.err
    assert not (tmp_path / "out.csv").exists()


def test_a_zero_shot_detector_scores_without_decisions(tmp_path: Path, toy: Toy, pawn: Pawn, texts: list[str]) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    command = ("score", tmp_path / "in.jsonl", "--detector", "fast-detect-gpt", "--backbone", toy.model)
    rows = parse_csv(pawn(*command).out)
    assert np.isfinite([row["score"] for row in rows]).all()
    assert {(row["p_value"], row["is_machine"]) for row in rows} == {(None, None)}
    refused = pawn(*command, "--fpr", 0.01)
    assert refused.code == 2
    assert "fast-detect-gpt has no calibration, so --fpr 0.01 cannot be kept" in refused.err


def test_tricks_of_characters_change_no_score_unless_texts_are_to_be_read_as_they_are(
    tmp_path: Path, toy: Toy, pawn: Pawn
) -> None:
    plain = "The council met again on Monday to discuss the plan for a new bridge across the river near the old mill."
    tricked = plain.replace("o", "\u043e").replace(" the", " t\u200bhe")  # a Cyrillic letter, a zero-width space
    rows = [{"text": plain}, {"text": tricked}, {"text": "\u200b" * 40}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    command = ("score", source, "--detector", toy.detector, "-o")
    assert pawn(*command, tmp_path / "read.parquet").code == 3
    assert pawn(*command, tmp_path / "raw.parquet", "--no-normalise").code == 0
    read, raw = (read_results(tmp_path / name) for name in ("read.parquet", "raw.parquet"))
    assert (read[0]["score"], read[0]["n_tokens"]) == (read[1]["score"], read[1]["n_tokens"])
    assert (read[2]["status"], read[2]["score"]) == ("empty", None)
    assert read[0]["score"] == pytest.approx(raw[0]["score"], abs=1e-5)  # in other company: other rounding
    assert abs(raw[1]["score"] - raw[0]["score"]) > 1e-3
    metadata = pq.read_schema(tmp_path / "raw.parquet").metadata
    assert metadata[b"pawn.normalised"] == b"false"
