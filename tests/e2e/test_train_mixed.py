"""An ensemble of a detector of texts and others of features, through the commands that a person types."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from detect.tfidf import TfidfDetector
from tests.e2e.conftest import Pawn
from tests.e2e.runs import Toy, labelled_rows, naive_auroc, parse_csv, write_jsonl

MEMBERS = ("--members", "tfidf,lightgbm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's texts in three domains."""
    rows = [
        row | {"domain": f"domain {number // 2 % 3}", "generator": "g" if row["label"] else "human"}
        for number, row in enumerate(labelled_rows())
    ]
    return write_jsonl(tmp_path_factory.mktemp("mixed") / "data.jsonl", rows)


def train(pawn: Pawn, toy: Toy, data: Path, output: Path, *more: object) -> dict:
    shared = ("--backbone", toy.model, "--cache", toy.cache, "--data", data, "-o", output)
    result = pawn("train", "ensemble", *MEMBERS, *shared, *more)
    assert result.code == 0, result.err
    card: dict = json.loads((output / "detector.json").read_text())
    return card


def test_it_is_trained_calibrated_and_scores(toy: Toy, data: Path, tmp_path: Path, pawn: Pawn) -> None:
    card = train(pawn, toy, data, tmp_path / "out", "--seed", 3)
    assert list(card["training"]["weights"]) == ["tfidf", "lightgbm"]
    text = json.loads((tmp_path / "out" / "members" / "0-tfidf" / "text" / "detector.json").read_text())
    assert (text["kind"], text["training"]["config"]["seed"]) == ("tfidf", 3)
    command = ("score", data, "--detector", tmp_path / "out", "--fpr", 0.5, "--carry", "label")
    assert pawn(*command, "--cache", toy.cache, "-o", tmp_path / "cached.csv").code == 0
    assert pawn(*command, "--cache", "none", "-o", tmp_path / "none.csv").code == 0
    for name in ("cached.csv", "none.csv"):
        rows = parse_csv((tmp_path / name).read_text())
        assert naive_auroc([row["label"] for row in rows], [row["score"] for row in rows]) > 0.9
        assert {row["is_machine"] for row in rows} == {True, False}


def test_left_out_domains_calibrate_it_at_every_length(toy: Toy, data: Path, tmp_path: Path, pawn: Pawn) -> None:
    card = train(pawn, toy, data, tmp_path / "out", "--calibration", "left-out-domains")
    assert [row["held_out"] for row in card["training"]["left_out_domains"]] == [f"domain {n}" for n in range(3)]
    calibration = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert calibration["domains"] == [f"domain {number}" for number in range(3)]
    assert calibration["count"] > 120  # human texts, most of them at more lengths than one


def test_a_benchmark_trains_it_for_each_fold_and_judges_prefixes(
    toy: Toy, data: Path, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    learn = TfidfDetector.fit

    def watched(self: TfidfDetector, train: object, *more: object) -> TfidfDetector:
        seen.append(sorted(train.texts))
        return learn(self, train, *more)

    monkeypatch.setattr(TfidfDetector, "fit", watched)
    settings = {"members": ["tfidf", "log-likelihood"], "recipes": {"tfidf": {"vocabulary": 50}}}
    content = {
        "corpora": {"one": str(data)},
        "detectors": ["tfidf", {"name": "ensemble", "settings": settings}],
        "protocols": ["in-domain", "length"],
        "backbone": str(toy.model),
        "resamples": 100,
    }
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    result = pawn("benchmark", tmp_path / "mixed.yaml", "-o", out, "--cache", toy.cache, "--no-progress")
    assert result.code == 0, result.err
    alone, inside = seen
    assert alone == inside  # decoded, the texts are those of the corpus
    judged = pl.read_parquet(out / "judgements.parquet").filter(detector="ensemble", part="test")
    short = judged.filter(protocol="length", held_out="16 tokens")
    assert short["n_tokens"].max() == 16
    whole = judged.filter(protocol="in-domain")
    assert short.join(whole, on="id").filter(pl.col("score") != pl.col("score_right")).height > 0.9 * short.height
    assert naive_auroc(whole["label"].to_list(), whole["score"].to_list()) > 0.9


def test_it_is_evaluated_and_attacked(toy: Toy, data: Path, tmp_path: Path, pawn: Pawn) -> None:
    train(pawn, toy, data, tmp_path / "mixed")
    shared = ("--backbone", toy.model, "--cache", toy.cache, "--no-progress", "--resamples", 100)
    detector = tmp_path / "mixed"
    done = pawn("evaluate", "--detector", detector, "--data", data, "-o", tmp_path / "evaluated", *shared)
    assert done.code == 0, done.err
    judged = pl.read_parquet(tmp_path / "evaluated" / "judgements.parquet")
    assert judged["detector"].unique().to_list() == ["mixed"]
    assert np.isfinite(judged["score"].to_numpy()).all()
    what = ("--attacks", "upper_lower", "--strengths", "x1", "--limit", 12, "--fpr", 0.2)
    attacked = pawn("attack", detector, "--data", data, "-o", tmp_path / "attacked", *what, *shared)
    assert attacked.code == 0, attacked.err
    scores = pl.read_parquet(tmp_path / "attacked" / "scores.parquet").filter(part="judged")
    clean, after = (scores.filter(attack=name).sort("id")["score"] for name in ("none", "upper_lower"))
    assert (clean != after).mean() > 0.9
