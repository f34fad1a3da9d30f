"""`pawn redteam` as a person runs it, with a random generator of two layers."""

import json
import random
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

from tests.e2e.conftest import Pawn
from tests.e2e.runs import Toy, human_text, write_jsonl
from tests.features.tiny_models import write_tiny_encoder

SETS = {f"{part}-{who}" for part in ("heldout", "train") for who in ("human", "before", "after")} | {
    "calibration-human"
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(31)
    rows = [
        {"id": str(i), "text": human_text(rng, words=30), "label": "human", "domain": "toy", "pair_id": str(i)}
        for i in range(90)
    ]
    return write_jsonl(tmp_path_factory.mktemp("data") / "human.jsonl", rows)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def options(data: Path, encoder: Path, toy: Toy, tmp_path: Path) -> list[object]:
    given: dict[str, object] = {
        "--data": data,
        "--generator": toy.model,
        "--detector": toy.detector,
        "--also": "log-likelihood",
        "--backbone": toy.model,
        "--encoder": encoder,
        "--prompts": 12,
        "--held-out": 10,
        "--calibration": 20,
        "--prompt-tokens": 9,
        "--new-tokens": 40,
        "--rounds": 2,
        "--round-texts": 4,
        "--drawings": 3,
        "--epochs": 1,
        "--retrain": "tfidf",
        "--cache": tmp_path / "cache",
        "--resamples": 100,
    }
    return [word for pair in given.items() for word in pair]


@pytest.mark.parametrize("method", ["critic", "dpo", "dpo-human"])
def test_each_method_writes_adapters_texts_figures_and_a_report(
    method: str, options: list[object], tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "out"
    result = pawn("redteam", method, *options, "-o", out)
    assert result.code == 0, result.err
    assert "toy-pawn                     before  AUROC" in result.out
    assert result.out.splitlines()[-1] == f"All figures, pictures and samples: {out / 'report.md'}"
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    drawn = SETS | ({"train-drawing2", "train-drawing3"} if method == "dpo" else set())
    assert {path.stem for path in (out / "texts").iterdir()} == drawn
    after = pl.read_parquet(out / "texts" / "heldout-after.parquet")
    assert after["label"].to_list() == [1] * 10
    assert after["attack"].unique().to_list() == [f"redteam-{method}"]
    record = json.loads((out / "redteam.json").read_text())
    assert record["verdict"]["sentence"] in result.out
    assert [(row["detector"], row["held_out"]) for row in record["detection"]] == [
        ("toy-pawn", "before"),
        ("toy-pawn", "after"),
        ("log-likelihood", "before"),
        ("log-likelihood", "after"),
    ]
    assert {row["detector"] for row in record["retrained"]} == {"tfidf, trained on before", "tfidf, trained on after"}
    names = {name for point in record["curve"] for name in point}
    assert {"step", "score", "loss", "perplexity"} <= names
    assert {"order", "coherence"} <= set(record["quality"]["after"])
    report = (out / "report.md").read_text()
    assert "| surprisal saved by word order |" in report
    assert "| likeness of a text's halves |" in report
    for picture in ("curves", "detection", "scores"):
        assert f"![{picture}](plots/{picture}.png)" in report
        assert (out / "plots" / f"{picture}.png").stat().st_size > 1000
    assert report.count("**Prompt:**") == 8
    assert record["verdict"]["sentence"] in report


def test_a_stopped_run_continues_and_ends_the_same(
    options: list[object], tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("redteam", "critic", *options, "--retrain", "tfidf")
    assert pawn(*command, "-o", tmp_path / "whole").code == 0

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.redteam_run._compare", stop)
        assert pawn(*command, "-o", tmp_path / "cut").code != 0
    trained = (tmp_path / "cut" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    again = pawn(*command, "-o", tmp_path / "cut")
    assert again.code == 0, again.err
    assert "The adapters are there already" in again.err
    assert (tmp_path / "cut" / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == trained
    whole, cut = (json.loads((tmp_path / name / "redteam.json").read_text()) for name in ("whole", "cut"))
    assert cut == whole


def test_a_folder_of_another_run_is_refused(options: list[object], tmp_path: Path, pawn: Pawn) -> None:
    out = tmp_path / "out"
    assert pawn("redteam", "critic", *options, "-o", out).code == 0
    other = pawn("redteam", "critic", *options, "--seed", 1, "-o", out)
    assert other.code == 2
    assert "holds a run with other settings or data" in other.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    full = pawn("redteam", "critic", *options, "-o", tmp_path / "full")
    assert full.code == 2
    assert "holds something else" in full.err


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (("--prompts", 500), 1, "expected 530 human texts that are long enough, 500 of them for train"),
        (("--new-tokens", 16, "--detector", "tfidf"), 2, "must be trained first"),
        (("--retrain", "rank"), 2, "no detector 'rank' can be trained"),
        (("--generator", "no-such-model"), 1, "no-such-model"),
        (("--detector", "nonsense"), 2, "no detector named 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    extra: tuple[object, ...], code: int, message: str, options: list[object], tmp_path: Path, pawn: Pawn
) -> None:
    result = pawn("redteam", "critic", *options, *extra, "-o", tmp_path / "out")
    assert result.code == code, result.err
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_the_report_says_that_a_detector_knows_the_texts(
    options: list[object], toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    assert pawn("redteam", "critic", *options, "--data", toy.data, "-o", tmp_path / "out").code == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "toy-pawn was trained on train.jsonl: it knows many of these human texts" in report
    assert "log-likelihood was trained" not in report


def test_the_texts_train_a_detector(options: list[object], toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    out = tmp_path / "out"
    assert pawn("redteam", "critic", *options, "-o", out).code == 0
    texts = out / "texts"
    files = [word for name in ("train-human", "train-after") for word in ("--data", texts / f"{name}.parquet")]
    files += [word for name in ("heldout-human", "heldout-after") for word in ("--data", texts / f"{name}.parquet")]
    features = ("--backbone", toy.model, "--cache", tmp_path / "cache")
    result = pawn("train", "logistic", *files, *features, "-o", tmp_path / "hardened")
    assert result.code in (0, 3), result.err  # 3: what a random generator draws may be too short to learn from
    assert (tmp_path / "hardened" / "detector.json").is_file()


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # of MLflow, of its own API
def test_a_run_is_on_record_with_a_child_for_each_detector(
    options: list[object], tmp_path: Path, pawn: Pawn, run_store: str
) -> None:
    result = pawn("redteam", "dpo-human", *options, "-o", tmp_path / "out", "--track", "--tracking-uri", run_store)
    assert result.code == 0, result.err
    client = MlflowClient(tracking_uri=run_store)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert set(children) == {"toy-pawn", "log-likelihood", "tfidf, trained on before", "tfidf, trained on after"}
    assert parent.data.params["preference.beta"] == "0.1"
    assert {"auroc_fall", "loss", "quality/after/perplexity"} <= set(parent.data.metrics)
    assert {"before/auroc", "after/auroc"} <= set(children["toy-pawn"].data.metrics)
    assert {artifact.path for artifact in client.list_artifacts(parent.info.run_id)} >= {
        "report.md",
        "adapter",
        "plots",
    }
