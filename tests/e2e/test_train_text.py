"""`pawn train tfidf`, `encoder` and `lora`: made, calibrated, scored and judged without a backbone or a cache."""

import json
import math
import random
from pathlib import Path
from typing import Any

import mlflow
import pandas
import polars as pl
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from detect.catalog import load_detector, text_names
from detect.splits import split_groups
from features.documents import Document
from pipelines import Scorer, ScoringSettings, progress
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.fitting import SPLIT, LabelledRequest
from pipelines.scoring import score_corpus
from pipelines.text_training import run_text_training
from pipelines.tracked_models import EXAMPLE_TEXT, save_detector_model
from tests.e2e.conftest import Pawn
from tests.e2e.runs import (
    COLUMNS,
    human_text,
    machine_text,
    naive_auroc,
    read_results,
    write_jsonl,
)
from tests.features.tiny_models import write_tiny_encoder, write_tiny_model

FILES = {
    "tfidf": ["detector.json", "model.safetensors", "vocabulary.json"],
    "encoder": ["config.json", "detector.json", "model.safetensors", "tokenizer.json"],
    "lora": ["adapter.safetensors", "detector.json"],
}


def labelled(texts_of_each: int = 120) -> list[dict[str, Any]]:
    """Human and machine texts in turn, each of more than 64 characters."""
    rng = random.Random(20)
    rows: list[dict[str, Any]] = []
    for number in range(texts_of_each):
        rows.append({"id": f"h{number}", "text": human_text(rng, words=20), "label": 0})
        rows.append({"id": f"m{number}", "text": machine_text(rng, words=20), "label": 1})
    return rows


each_name = pytest.mark.parametrize("name", text_names())


@pytest.fixture(autouse=True)
def _no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may load a language model of the feature stage or open a cache."""

    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("a detector of texts asked for features")

    for place in ("pipelines.scoring", "pipelines.training"):
        monkeypatch.setattr(f"{place}.Backbone.load", refused)
        monkeypatch.setattr(f"{place}.FeatureStore", refused)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {"encoder": write_tiny_encoder(folder / "encoder"), "lora": write_tiny_model(folder / "lora")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", labelled())


def own_options(name: str, bases: dict[str, Path]) -> tuple[object, ...]:
    if name == "tfidf":
        return ("--vocabulary", 200)
    options = ("--base", bases[name], "--max-length", 64, "--epochs", 2, "--learning-rate", 0.005, "--batch-size", 8)
    return (*options, "--device", "cpu")


def card(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "detector.json").read_text())
    return content


@each_name
def test_it_is_trained_calibrated_and_scores(
    name: str, bases: dict[str, Path], data: Path, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "mine"
    result = pawn("train", name, "--data", data, "-o", out, "--progress", *own_options(name, bases))
    assert result.code == 0, result.err
    assert "240 texts to train on; 0 rows cannot be used" in result.err
    assert "validation AUROC " in result.err
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["calibration.json", "calibration.safetensors", *FILES[name]]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]  # no checkpoint is left behind
    documents = [Document(row["id"], row["text"], row["label"]) for row in labelled()]
    parts = split_groups(documents, SPLIT, seed=0)
    record = card(out)
    assert (record["name"], record["kind"]) == ("mine", name)
    assert record["training"]["texts"] == {part: parts.count(part) for part in SPLIT}
    assert record["training"]["corpora"][0]["file"] == "train.jsonl"
    assert record["training"]["test"]["auroc"] > 0.8
    human = sum(part == "calibration" and d.label == 0 for part, d in zip(parts, documents, strict=True))
    assert json.loads((out / "calibration.json").read_text())["count"] == human
    command = ("score", data, "--detector", out, "--fpr", 0.5, "--carry", "label")
    assert pawn(*command, "-o", tmp_path / "scored.parquet").code == 0
    rows = read_results(tmp_path / "scored.parquet")
    assert list(rows[0]) == [*COLUMNS, "label"]
    assert [row["id"] for row in rows] == [document.id for document in documents]
    assert naive_auroc([row["label"] for row in rows], [row["score"] for row in rows]) > 0.9
    assert {row["is_machine"] for row in rows} == {True, False}
    counts = {row["n_tokens"] for row in rows}
    assert counts == {None} if name == "tfidf" else min(counts) >= 16 and max(counts) <= 64
    found = load_detector(str(out))
    metadata = {key.decode(): value.decode() for key, value in pl_metadata(tmp_path / "scored.parquet").items()}
    assert json.loads(metadata["pawn.detector"]) == found.identity
    assert "pawn.backbone" not in metadata


def pl_metadata(path: Path) -> dict[bytes, bytes]:
    metadata: dict[bytes, bytes] = pq.read_metadata(path).metadata
    return {key: value for key, value in metadata.items() if key.startswith(b"pawn.")}


@pytest.fixture(scope="module")
def tfidf(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "tfidf"
    request = LabelledRequest(
        detector="tfidf",
        inputs=[str(data)],
        output=out,
        label_column="label",
        text_column="text",
        id_column=None,
        input_format=None,
        name=None,
        seed=0,
        calibration="held-out",
    )
    assert run_text_training(request, say=lambda line: None) == 0
    return out


def test_rows_without_a_score_have_the_usual_statuses(tfidf: Path, tmp_path: Path, pawn: Pawn) -> None:
    rows = [
        {"id": "a", "text": human_text(random.Random(1), words=20)},
        {"id": "b", "text": None},
        {"id": "c", "text": "  "},
        {"id": "d", "text": "x" * 63},
        {"id": "e", "text": "x" * 64},
        {"id": "f", "text": 7},
    ]
    result = pawn("score", write_jsonl(tmp_path / "in.jsonl", rows), "--detector", tfidf, "-o", tmp_path / "out.csv")
    assert result.code == 3
    found = read_results(tmp_path / "out.csv")
    assert [row["status"] for row in found] == ["ok", "null", "empty", "too_short", "ok", "not_text"]
    assert [row["score"] is None for row in found] == [False, True, True, True, False, True]
    assert "4 without a score" in result.err


def test_a_finished_output_is_kept_and_the_library_gives_the_same(
    tfidf: Path, data: Path, tmp_path: Path, pawn: Pawn
) -> None:
    command = ("score", data, "--detector", tfidf, "-o", tmp_path / "out.parquet")
    assert pawn(*command).code == 0
    again = pawn(*command)
    assert "The output is complete already" in again.err
    rows = read_results(tmp_path / "out.parquet")
    frame = Scorer.load(ScoringSettings(detector=str(tfidf))).score([row["text"] for row in labelled()])
    for column in ("status", "n_tokens", "truncated", "score", "p_value", "is_machine"):
        assert frame[column].to_list() == [row[column] for row in rows], column


def test_a_score_goes_on_after_the_blocks_that_are_there(
    tfidf: Path, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.text_scoring.BLOCK_ROWS", 10)
    rng = random.Random(3)
    texts = write_jsonl(tmp_path / "in.jsonl", [{"id": str(i), "text": human_text(rng, words=20)} for i in range(35)])
    command = ("score", texts, "--detector", tfidf, "-o", tmp_path / "out.parquet")
    settings = ScoringSettings(detector=str(tfidf))
    with monkeypatch.context() as patch, Corpus.open([str(texts)], CorpusOptions()) as corpus:
        patch.setattr("pipelines.scoring.ResultWriter.finish", lambda *arguments, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score_corpus(corpus, tmp_path / "out.parquet", settings)
    part = sorted((tmp_path / ".out.parquet.parts").glob("part-*.parquet"))
    assert len(part) == 4
    part[-1].unlink()
    result = pawn(*command)
    assert "Continuing after 30 of 35 rows" in result.err
    assert [row["id"] for row in read_results(tmp_path / "out.parquet")] == [str(i) for i in range(35)]


def test_rows_that_cannot_be_learnt_from_are_counted(tmp_path: Path, pawn: Pawn) -> None:
    both = human_text(random.Random(99), words=20)
    strange = [labelled()[0], {"id": "a", "text": both, "label": 0}, {"id": "b", "text": both, "label": 1}]
    data = write_jsonl(tmp_path / "in.jsonl", [*labelled(), *strange, {"text": "short", "label": 1}])
    result = pawn("train", "tfidf", "--data", data, "-o", tmp_path / "out")
    assert result.code == 3
    assert "240 texts to train on; 1 rows cannot be used, 2 repeat an earlier text, 1 texts have both" in result.err


@pytest.mark.parametrize(
    ("name", "rows", "options", "code", "message"),
    [
        ("tfidf", labelled(2), (), 1, "has [01] human and [01] machine texts; at least one of each is needed"),
        ("tfidf", [{"text": "short", "label": 1}], (), 1, "none of the 1 rows can be trained on: .*'too_short': 1"),
        ("tfidf", labelled(2), ("--vocabulary", 0), 2, "0 is not in the range x>=1"),
        ("tfidf", labelled(2), ("--backbone", "x"), 2, "No such option"),
        ("encoder", labelled(2), ("--base", "no-such-model"), 1, "no-such-model"),
        ("encoder", labelled(2), ("--epochs", 0), 2, "0 is not in the range x>=1"),
        ("lora", labelled(2), ("--device", "abacus"), 2, "expected cpu or cuda, got 'abacus'"),
    ],
)
def test_data_and_settings_that_cannot_be_right_are_refused(
    name: str,
    rows: list[dict[str, Any]],
    options: tuple[object, ...],
    code: int,
    message: str,
    tmp_path: Path,
    pawn: Pawn,
) -> None:
    data = write_jsonl(tmp_path / "in.jsonl", rows)
    result = pawn("train", name, "--data", data, "-o", tmp_path / "out", *options)
    assert result.code == code, result.err
    with pytest.raises(RuntimeError, match=message):
        raise RuntimeError(result.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["encoder", "lora"])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    name: str, bases: dict[str, Path], data: Path, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*own_options(name, bases), "--data", data, "--name", "same", "--progress")
    assert pawn("train", name, "-o", tmp_path / "whole", *options).code == 0

    def killed_after_an_epoch(line: object, event: str, values: dict[str, float]) -> None:
        if event == "step" and values["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.TrainingLine, "__call__", killed_after_an_epoch)
        assert pawn("train", name, "-o", tmp_path / "killed", *options).code != 0
    assert not (tmp_path / "killed").exists()
    kept = tmp_path / ".killed.training" / "detector.safetensors"
    assert kept.is_file()
    again = pawn("train", name, "-o", tmp_path / "killed", *options)
    assert again.code == 0, again.err
    assert f"Continuing the training that is kept in {kept}" in again.err
    assert "epoch 1: " not in again.err
    assert not kept.parent.exists()
    for file in (*FILES[name], "calibration.safetensors"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_noise_is_an_option(bases: dict[str, Path], data: Path, tmp_path: Path, pawn: Pawn) -> None:
    options = ("--base", bases["encoder"], "--max-length", 32, "--epochs", 1, "--batch-size", 32, "--device", "cpu")
    assert pawn("train", "encoder", "--data", data, "-o", tmp_path / "out", *options, "--noise").code == 0
    assert len(card(tmp_path / "out")["training"]["noise_layers"]) == 3


def test_left_out_domains_calibrate_on_every_human_text(tmp_path: Path, pawn: Pawn) -> None:
    rows = [row | {"domain": f"domain {number // 2 % 3}"} for number, row in enumerate(labelled())]
    data = write_jsonl(tmp_path / "in.jsonl", rows)
    result = pawn("train", "tfidf", "--data", data, "-o", tmp_path / "out", "--calibration", "left-out-domains")
    assert result.code == 0, result.err
    held_out = [row["held_out"] for row in card(tmp_path / "out")["training"]["left_out_domains"]]
    assert held_out == ["domain 0", "domain 1", "domain 2"]
    assert json.loads((tmp_path / "out" / "calibration.json").read_text())["count"] == 120


def test_evaluate_judges_it_beside_others(tfidf: Path, tmp_path: Path, pawn: Pawn) -> None:
    rng = random.Random(5)
    rows = [
        {"id": str(i), "text": (machine_text if i % 2 else human_text)(rng, words=20), "label": i % 2}
        for i in range(40)
    ]
    data = write_jsonl(tmp_path / "new.jsonl", rows)
    result = pawn("evaluate", "--detector", tfidf, "--data", data, "-o", tmp_path / "report", "--resamples", 100)
    assert result.code == 0, result.err
    frame = pl.read_parquet(tmp_path / "report" / "judgements.parquet").filter(pl.col("part") == "test")
    assert frame["n_tokens"].to_list() == [0] * 40
    assert naive_auroc(frame["label"].to_list(), frame["score"].to_list()) > 0.9


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # of MLflow, of its own API
def test_a_run_of_it_is_on_record(data: Path, tmp_path: Path, pawn: Pawn, run_store: str) -> None:
    command = ("train", "tfidf", "--data", data, "-o", tmp_path / "out", "--track", "--tracking-uri", run_store)
    result = pawn(*command, "--vocabulary", 150)
    assert result.code == 0, result.err
    client = MlflowClient(tracking_uri=run_store)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.data.params["detector"] == "tfidf"
    assert run.data.params["recipe.config.vocabulary"] == "150"
    assert math.isclose(run.data.metrics["auroc"], card(tmp_path / "out")["training"]["test"]["auroc"])
    assert len(run.outputs.model_outputs) == 1


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # of MLflow, of its own API
def test_a_logged_model_without_scoring_settings_is_served(tfidf: Path, tmp_path: Path) -> None:
    save_detector_model(tfidf, tmp_path / "model", EXAMPLE_TEXT)
    texts = [labelled(1)[0]["text"], None]
    answer = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(pandas.DataFrame({"text": texts}))
    expected = Scorer.load(ScoringSettings(detector=str(tfidf))).score(texts)
    assert answer.to_dict("records") == expected.select("score", "p_value", "is_machine", "status").to_dicts()
