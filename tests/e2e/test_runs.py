"""Runs as a person makes, lists, repeats and serves them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.layouts.files import file_sha256
from tests.e2e.conftest import Pawn
from tests.e2e.runs import Result, Toy, environment, labelled_rows, write_jsonl


@pytest.fixture
def tracked(run_store: str, toy: Toy, tmp_path: Path, pawn: Pawn) -> Result:
    """A training on record in `run_store`, of data that the test may touch."""
    data = shutil.copy(toy.data, tmp_path / "mine.jsonl")
    shared = ("--data", data, "--backbone", toy.model, "--cache", toy.cache, "-o", tmp_path / "out")
    result = pawn("train", "gltr-buckets", *shared, "--track", "--tracking-uri", run_store)
    assert result.code == 0, result.err
    return result


def only_run(uri: str) -> Any:
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = (found for found in client.search_experiments() if found.name == "pawn-detect")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_a_training_is_a_run_with_its_data_figures_and_model(
    run_store: str, tracked: Result, toy: Toy, tmp_path: Path
) -> None:
    run = only_run(run_store)
    assert (run.info.status, run.info.run_name, tracked.out) == ("FINISHED", "out", "")
    assert run.data.tags["pawn.command"].startswith("train gltr-buckets --data ")
    assert run.data.params["recipe.iterations"]  # of the recipe, not of the command
    (folder,) = toy.cache.iterdir()
    fingerprint = json.loads((folder / "fingerprint.json").read_text())
    assert run.data.params["backbone.fingerprint.weights_id"] == fingerprint["weights_id"]
    assert folder.name.startswith(run.data.params["cache.fingerprint"])
    card = json.loads((tmp_path / "out" / "detector.json").read_text())
    assert run.data.metrics["auroc"] == card["training"]["test"]["auroc"]
    assert run.data.metrics["real fpr_at_1pct"] == card["training"]["test"]["real fpr@1%"]
    (used,) = run.inputs.dataset_inputs
    assert json.loads(used.dataset.source)["sha256"] == file_sha256(tmp_path / "mine.jsonl")
    assert len(run.outputs.model_outputs) == 1
    assert tracked.err.index("Saved to ") < tracked.err.index("Logged as MLflow model models:/m-")


def test_epochs_are_steps_and_left_out_domains_are_child_runs(
    run_store: str, toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    rows = [row | {"domain": f"domain {number // 2 % 3}"} for number, row in enumerate(labelled_rows())]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    shared = ("--data", data, "--backbone", toy.model, "--cache", toy.cache, "-o", tmp_path / "out")
    options = ("--epochs", 2, "--calibration", "left-out-domains", "--track", "--tracking-uri", run_store)
    assert pawn("train", "pawn-no-hidden", *shared, *options).code == 0
    client = MlflowClient(tracking_uri=run_store)
    runs = client.search_runs([client.get_experiment_by_name("pawn-detect").experiment_id])
    children = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert sorted(children) == ["without domain 0", "without domain 1", "without domain 2"]
    card = json.loads((tmp_path / "out" / "detector.json").read_text())["training"]
    for row in card["left_out_domains"]:
        assert children[f"without {row['held_out']}"].data.metrics["auroc"] == row["auroc"]
    losses = client.get_metric_history(parent.info.run_id, "loss")
    assert {one.step: one.value for one in losses} == {epoch["epoch"]: epoch["loss"] for epoch in card["epochs"]}


def test_an_extraction_is_a_run(run_store: str, toy: Toy, pawn: Pawn) -> None:
    command = ("extract", toy.data, "--backbone", toy.model, "--cache", toy.cache)
    assert pawn(*command, "--track", "--tracking-uri", run_store).code == 0
    run = only_run(run_store)
    assert run.data.tags["pawn.kind"] == "extract"
    assert (run.data.metrics["documents"], run.data.metrics["ok"], run.data.metrics["failed"]) == (240, 240, 0)
    assert run.data.metrics["cost/computed"] == 0


def test_a_training_without_a_store_is_not_lost(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    shared = ("--data", toy.data, "--backbone", toy.model, "--cache", toy.cache, "-o", tmp_path / "out")
    result = pawn("train", "gltr-buckets", *shared, "--track", "--tracking-uri", "http://127.0.0.1:9")
    assert result.code == 0
    assert result.err.count("Not tracked: cannot reach the store of runs http://127.0.0.1:9") == 1
    assert (tmp_path / "out" / "detector.json").is_file()


def test_a_training_that_fails_is_a_failed_run(run_store: str, toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", labelled_rows(2))
    shared = ("--data", data, "--backbone", toy.model, "--cache", toy.cache, "-o", tmp_path / "out")
    assert pawn("train", "gltr-buckets", *shared, "--track", "--tracking-uri", run_store).code == 1
    run = only_run(run_store)
    assert run.info.status == "FAILED"
    assert run.data.tags["pawn.error"].startswith("InputError: the ")
    assert "texts; at least one of each is needed" in run.data.tags["pawn.error"]


def test_a_run_is_repeated_and_agrees(run_store: str, tracked: Result, tmp_path: Path, pawn: Pawn) -> None:
    run = only_run(run_store)
    again = pawn("reproduce", run.info.run_id[:10], "--tracking-uri", run_store, "-o", tmp_path / "again")
    assert again.code == 0, again.err + again.out
    assert f"The figures of run {run.info.run_id} and of its repetition " in again.out
    assert again.out.splitlines()[-1].endswith(" agree")
    assert "cost/" not in again.out
    assert "DIFFERS" not in again.out
    for name in ("detector.json", "calibration.safetensors"):
        assert (tmp_path / "again" / "out" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_run_with_texts_that_are_only_learnt_is_repeated_where_they_have_moved(
    run_store: str, toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    rows = [row | {"text": f"Made anew. {row['text']}"} for row in labelled_rows(40)]
    made = write_jsonl(tmp_path / "made.jsonl", rows)
    shared = ("--data", toy.data, "--backbone", toy.model, "--cache", toy.cache, "-o", tmp_path / "out")
    told = ("--only-learnt", made, "--track", "--tracking-uri", run_store)
    assert pawn("train", "gltr-buckets", *shared, *told).code in (0, 3)
    run = only_run(run_store)
    moved = made.rename(tmp_path / "moved.jsonl")
    command = ("reproduce", run.info.run_id, "--tracking-uri", run_store, "-o", tmp_path / "again")
    assert f"{made}" in pawn(*command).err
    again = pawn(*command, "--data", moved, "--data", toy.data)
    assert again.code == 0, again.err + again.out
    assert again.out.splitlines()[-1].endswith(" agree")
    here, there = (
        json.loads((folder / "detector.json").read_text()) for folder in (tmp_path / "out", tmp_path / "again" / "out")
    )
    assert here["weights"] == there["weights"]
    assert here["training"]["only_learnt"] == there["training"]["only_learnt"] > 0


def test_a_figure_that_is_another_is_found(run_store: str, tracked: Result, tmp_path: Path, pawn: Pawn) -> None:
    run = only_run(run_store)
    true = run.data.metrics["auroc"]
    MlflowClient(tracking_uri=run_store).log_metric(run.info.run_id, "auroc", true - 0.01)
    again = pawn("reproduce", run.info.run_id, "--tracking-uri", run_store, "-o", tmp_path / "again")
    assert again.code == 1
    (line,) = (line for line in again.out.splitlines() if line.startswith("auroc "))
    assert line.split() == ["auroc", f"{true - 0.01:.6g}", f"{true:.6g}", "0.01", "0.001", "DIFFERS"]
    assert again.out.splitlines()[-1].startswith(f"The figures of run {run.info.run_id} and of its repetition")
    tolerant = ("-o", tmp_path / "third", "--tolerance", 0.02)
    assert pawn("reproduce", run.info.run_id, "--tracking-uri", run_store, *tolerant).code == 0


def test_other_data_are_refused_and_the_same_are_found_elsewhere(
    run_store: str, tracked: Result, toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    data = tmp_path / "mine.jsonl"
    with data.open("a") as file:
        file.write(json.dumps({"id": "more", "text": "one more row that nobody had", "label": 0}) + "\n")
    command = ("reproduce", only_run(run_store).info.run_id, "--tracking-uri", run_store, "-o", tmp_path / "again")
    refused = pawn(*command)
    assert refused.code == 1
    assert f"{data} (" in refused.err
    assert f"now has SHA-256 {file_sha256(data)}" in refused.err
    assert not (tmp_path / "again").exists()
    assert pawn(*command, "--data", toy.data).code == 0


@pytest.mark.slow
def test_a_registered_detector_answers_over_http(tmp_path: Path, backbone_home: Path, pawn: Pawn) -> None:
    """The detector that ships, logged and served by MLflow's own server, offline."""
    from detect.catalog import DEFAULT_DETECTOR, PRETRAINED
    from pipelines import Scorer
    from pipelines.tracked_models import EXAMPLE_TEXT
    from pipelines.tracking import open_tracker

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with open_tracker(uri).run("train", "shipped", {}) as run:
        run.detector(PRETRAINED / DEFAULT_DETECTOR, EXAMPLE_TEXT, register_as="shipped")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/shipped/1", "--env-manager", "local"]
    settings = environment(backbone_home) | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), settings["PATH"]])
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], env=settings, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    texts = [EXAMPLE_TEXT, "too short", None]
    try:
        answer = ask(port, {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}}, server)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    expected = Scorer.load().score(texts).select("score", "p_value", "is_machine", "status").to_dicts()
    assert [row["status"] for row in answer["predictions"]] == ["ok", "too_short", "null"]
    assert answer["predictions"][1:] == expected[1:]
    assert answer["predictions"][0] == pytest.approx(expected[0], abs=1e-6)


def ask(port: int, content: dict[str, Any], server: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """POST /invocations, once the server is there."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(240):
        assert server.poll() is None, "the server ended"
        try:
            with opener.open(request, timeout=60) as response:
                answer: dict[str, Any] = json.loads(response.read())
                return answer
        except urllib.error.URLError as error:
            if isinstance(error, urllib.error.HTTPError):
                raise
            time.sleep(0.5)
    raise AssertionError("the server did not come up")
