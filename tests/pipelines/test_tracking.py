"""Runs in a real SQLite store, and what happens without one."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import mlflow
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun

from detect.catalog import DEFAULT_DETECTOR, PRETRAINED
from pipelines.layouts.files import file_sha256
from pipelines.provenance import ARGUMENTS
from pipelines.run_store import shown, store_uri
from pipelines.tracked_models import EXAMPLE_TEXT, MODEL_SCRIPT
from pipelines.tracking import MAX_PARAM, UNTRACKED, open_tracker, started_runs

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = PRETRAINED / DEFAULT_DETECTOR


def silence(message: str) -> None:
    raise AssertionError(f"nothing was to be said, got {message!r}")


def stored(uri: str, run_id: str | None) -> StoredRun:
    assert run_id is not None
    return MlflowClient(tracking_uri=uri).get_run(run_id)


def record(run: StoredRun) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((artifacts(run) / "run.json").read_text())
    return content


def artifacts(run: StoredRun) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def sql(uri: str, command: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"))
    try:
        with connection:
            return connection.execute(command).fetchall()
    finally:
        connection.close()


def test_a_run_holds_settings_code_versions_and_cost(run_store: str) -> None:
    settings = {"seed": 3, "recipe": {"rates": [0.1, 0.2], "network": {}}, "file": Path("a/b"), "text": "é" * 7000}
    with open_tracker(run_store, say=silence).run("train", "mine", settings) as run:
        pass
    found = stored(run_store, run.id)
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert found.data.tags["pawn.kind"] == "train"
    parameters = found.data.params
    assert (parameters["seed"], parameters["recipe.rates"], parameters["file"]) == ("3", "[0.1, 0.2]", "a/b")
    assert parameters["recipe.network"] == "{}"
    assert len(parameters["text"]) == MAX_PARAM
    assert parameters["text"].endswith(" ... (whole in run.json)")
    assert record(found)["settings"]["text"] == "é" * 7000
    assert record(found)["versions"]["mlflow"] == parameters["version.mlflow"] == mlflow.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    assert record(found)["code"]["commit"] == (commit or None)
    assert found.data.tags.get("mlflow.source.git.commit") == (commit or None)
    assert record(found)["command"] is None  # not a command of pawn
    assert found.data.metrics["cost/wall_seconds"] > 0
    assert found.data.metrics["cost/peak_memory_mib"] > 10


def test_a_run_that_fails_is_kept_as_failed_and_an_interrupted_one_as_killed(run_store: str) -> None:
    tracker = open_tracker(run_store, say=silence)
    ids: list[str | None] = []

    def ends_with(error: BaseException) -> None:
        with tracker.run("train", "mine", {}) as run:
            ids.append(run.id)
            run.metrics({"loss": 2.0}, step=1)
            raise error

    with pytest.raises(ValueError, match="no more"):
        ends_with(ValueError("no more"))
    with pytest.raises(KeyboardInterrupt):
        ends_with(KeyboardInterrupt())
    failed, killed = ids
    found = stored(run_store, failed)
    assert (found.info.status, found.data.tags["pawn.error"]) == ("FAILED", "ValueError: no more")
    assert found.data.metrics["loss"] == 2.0
    assert found.data.metrics["cost/wall_seconds"] > 0
    assert stored(run_store, killed).info.status == "KILLED"


def test_children_are_nested_and_take_figures_after_their_end(run_store: str) -> None:
    ids: list[str] = []
    token = started_runs.set(ids)
    with open_tracker(run_store, say=silence).run("evaluate", "all", {}) as parent:
        with parent.child("fold 1", {"held_out": "news"}) as child:
            child.metrics({"auroc": 0.5})
        child.metrics({"tpr@1%": 0.25})
    started_runs.reset(token)
    found = stored(run_store, child.id)
    assert found.data.tags["mlflow.parentRunId"] == parent.id
    assert found.data.params["held_out"] == "news"
    assert (found.data.metrics["auroc"], found.data.metrics["tpr_at_1pct"]) == (0.5, 0.25)
    assert ids == [parent.id]


def test_metrics_are_kept_by_step(run_store: str) -> None:
    with open_tracker(run_store, say=silence).run("train", "mine", {}) as run:
        for step in range(1, 251):  # more than one batch
            run.metrics({"loss": 1 / step}, step=step)
        run.metrics({"none": float("nan"), "undefined": None})
    assert run.id is not None
    history = MlflowClient(tracking_uri=run_store).get_metric_history(run.id, "loss")
    assert {point.step: point.value for point in history} == {step: 1 / step for step in range(1, 251)}
    assert str(stored(run_store, run.id).data.metrics["none"]) == "nan"
    assert "undefined" not in stored(run_store, run.id).data.metrics


def test_files_and_folders_are_kept(run_store: str, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc.svg").write_text("<svg/>")
    (tmp_path / "table.csv").write_text("a,b\n")
    said: list[str] = []
    with open_tracker(run_store, say=said.append).run("evaluate", "mine", {}) as run:
        run.file(tmp_path / "table.csv", "tables")
        run.file(tmp_path / "plots")
        run.file(tmp_path / "nothing.csv")
        run.metrics({"auroc": 1.0})
    kept = artifacts(stored(run_store, run.id))
    assert kept.is_relative_to(tmp_path / "runs" / "mlartifacts")
    assert (kept / "tables" / "table.csv").read_text() == "a,b\n"
    assert (kept / "plots" / "roc.svg").read_text() == "<svg/>"
    assert said == [f"Not tracked: there is no file {tmp_path / 'nothing.csv'}"]
    assert stored(run_store, run.id).data.metrics["auroc"] == 1.0


CARD = """---
name: tiny
title: two texts
license: CC0-1.0
source: here
citation: none
language: en
layout: one_form
files: ["*.parquet"]
columns: {text: the text}
label_mapping: {"0": human, "1": machine}
splits: {all: 2}
sha256: SHA
---

Two texts.
"""


def test_data_are_inputs_with_their_hash_and_the_hash_of_their_card(
    run_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "tiny.parquet"
    pl.DataFrame({"text": ["a", "b"], "label": [0, 1]}).write_parquet(data)
    (tmp_path / "data_cards").mkdir()
    card = tmp_path / "data_cards" / "tiny.md"
    card.write_text(CARD.replace("SHA", file_sha256(data)))
    (tmp_path / "other.txt").write_text("x")
    with open_tracker(run_store, say=silence).run("train", "mine", {}) as run:
        run.dataset(data, "training")
        run.dataset(Path("other.txt"), "calibration")
    used = {one.dataset.name: one for one in stored(run_store, run.id).inputs.dataset_inputs}
    tags = {tag.key: tag.value for tag in used["tiny.parquet"].tags}
    assert tags["sha256"] == file_sha256(data)
    assert (tags["mlflow.data.context"], tags["card"]) == ("training", "tiny")
    assert tags["card_sha256"] == file_sha256(card)
    source = json.loads(used["other.txt"].dataset.source)
    assert (source["path"], source["sha256"]) == (str(tmp_path / "other.txt"), file_sha256(tmp_path / "other.txt"))
    assert "card" not in {tag.key for tag in used["other.txt"].tags}


def test_data_that_cannot_be_read_do_not_end_the_tracking(run_store: str, tmp_path: Path) -> None:
    said: list[str] = []
    with open_tracker(run_store, say=said.append).run("train", "mine", {}) as run:
        run.dataset(tmp_path / "gone.csv", "training")
        run.metrics({"auroc": 1.0})
    assert stored(run_store, run.id).data.metrics["auroc"] == 1.0
    assert len(said) == 1
    assert said[0].startswith(f"Not tracked: data {tmp_path / 'gone.csv'}: ")


def unreachable(kind: str, folder: Path) -> tuple[str, str]:
    """A URI that no store answers at, and what is said of it."""
    if kind == "server":
        return "http://me:secret@127.0.0.1:9/", "cannot reach the store of runs http://***@127.0.0.1:9/: "
    if kind == "database":
        return "postgresql://me:secret@127.0.0.1:9/runs", "cannot reach the store of runs postgresql://***@127.0.0.1:9"
    if kind == "no database":
        (folder / "notes.db").write_text("not a database " * 100)
        return f"sqlite:///{folder}/notes.db", "notes.db: file is not a database"
    (folder / "file").write_text("in the way")
    return f"sqlite:///{folder}/file/mlflow.db", "File exists"


@pytest.mark.parametrize("kind", ["server", "database", "no database", "no folder"])
def test_a_store_that_cannot_be_reached_costs_one_warning(kind: str, tmp_path: Path) -> None:
    uri, message = unreachable(kind, tmp_path)
    said: list[str] = []
    tracker = open_tracker(uri, say=said.append)
    for name in ("first", "second"):
        with tracker.run("train", name, {}) as run:
            run.metrics({"auroc": 1.0})
            run.detector(tmp_path / "none", "text")
            with run.child("fold", {}) as child:
                child.file(tmp_path / "none")
        assert run is UNTRACKED
    assert len(said) == 1
    assert message in said[0]
    assert "secret" not in said[0]
    assert said[0].endswith("The work goes on without a record; --no-track says that this is meant")


def test_a_store_that_fails_midway_costs_one_warning(run_store: str, tmp_path: Path) -> None:
    said: list[str] = []
    with open_tracker(run_store, say=said.append).run("train", "mine", {}) as run:
        with run.child("before", {}) as child:
            child.metrics({"auroc": 1.0})
        sql(run_store, "DROP TABLE latest_metrics")
        with run.child("after", {}) as child:
            child.metrics({"auroc": 1.0})
        run.file(REPOSITORY / "README.md")
        run.dataset(REPOSITORY / "README.md", "training")
        run.detector(SHIPPED, EXAMPLE_TEXT)
    assert len(said) == 1
    assert said[0].startswith("Tracking ends here: cannot record a run: (sqlite3.OperationalError) no such table")
    assert said[0].endswith("The work goes on without a record")


def test_a_value_that_mlflow_refuses_costs_itself_alone(run_store: str) -> None:
    said: list[str] = []
    with open_tracker(run_store, say=said.append).run("train", "mine", {}) as run:
        run.detector(SHIPPED, EXAMPLE_TEXT, register_as="team/detector")
        run.metrics({"auroc": 0.5})
    assert said[-1].startswith("Not tracked: the detector in")
    found = stored(run_store, run.id)
    assert (found.info.status, found.data.metrics["auroc"]) == ("FINISHED", 0.5)


def test_names_that_look_like_paths_are_kept_without_their_dots(run_store: str) -> None:
    settings = {"detectors": {"runs/./mine": 1, "x/../mine": 2, "runs//other": 3}}
    with open_tracker(run_store, say=silence).run("evaluate", "mine", settings) as run:
        run.metrics({"./auroc": 0.5})
    kept = stored(run_store, run.id)
    assert {name for name in kept.data.params if name.startswith("detectors")} == {
        "detectors.runs/mine",
        "detectors.x/mine",
        "detectors.runs/other",
    }
    assert kept.data.metrics["auroc"] == 0.5


def test_a_run_that_is_active_in_the_process_stays_as_it_is(run_store: str, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    other = f"sqlite:///{tmp_path}/other.db"
    Path(other.removeprefix("sqlite:///")).write_bytes(Path(run_store.removeprefix("sqlite:///")).read_bytes())
    mlflow.set_tracking_uri(other)
    try:
        with mlflow.start_run() as active:
            with open_tracker(run_store, say=silence).run("train", "mine", {"seed": 1}) as run:
                run.metrics({"auroc": 1.0})
            current = mlflow.active_run()
            assert current is not None
            assert current.info.run_id == active.info.run_id
            assert mlflow.get_tracking_uri() == other
        assert stored(other, active.info.run_id).data.params == {}
    finally:
        mlflow.set_tracking_uri(before)
    assert stored(run_store, run.id).data.params["seed"] == "1"


def test_nothing_is_printed_and_a_detector_is_a_model_without_pickle(
    run_store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    with open_tracker(run_store, say=said.append).run("train", "mine", {}) as run:
        run.detector(SHIPPED, EXAMPLE_TEXT, register_as="toy")
        run.detector(SHIPPED, EXAMPLE_TEXT, register_as="toy")
    assert capfd.readouterr() == ("", "")
    assert said[1::2] == ["Registered as models:/toy/1", "Registered as models:/toy/2"]
    client = MlflowClient(tracking_uri=run_store)
    version = client.get_model_version("toy", "1")
    assert version.run_id == run.id
    outputs = stored(run_store, run.id).outputs
    assert any(f"/{output.model_id}/" in version.source for output in outputs.model_outputs)
    folder = Path(version.source.removeprefix("file://"))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    kept = f"artifacts/{DEFAULT_DETECTOR}"
    assert {"MLmodel", "mlflow_model.py", "input_example.json", "requirements.txt"} < files
    assert (folder / "mlflow_model.py").read_bytes() == MODEL_SCRIPT.read_bytes()
    assert (folder / kept / "model.safetensors").read_bytes() == (SHIPPED / "model.safetensors").read_bytes()
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib", ".pt"))]
    signature = mlflow.models.Model.load(str(folder)).signature
    assert signature is not None
    assert signature.inputs.input_names() == ["text"]
    assert signature.outputs.input_names() == ["score", "p_value", "is_machine", "status"]
    assert "pawn-detect==" in (folder / "requirements.txt").read_text()


def test_a_folder_without_a_detector_is_told_of(run_store: str, tmp_path: Path) -> None:
    said: list[str] = []
    with open_tracker(run_store, say=said.append).run("train", "mine", {}) as run:
        run.detector(tmp_path, EXAMPLE_TEXT)
    assert len(said) == 1
    assert said[0].startswith(f"Tracking ends here: cannot record the detector in {tmp_path}: cannot read ")


def test_the_store_is_the_one_given_or_of_the_environment_or_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://runs.example")
    assert store_uri(None) == "http://runs.example"
    assert store_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert shown("postgresql://me:word@host/runs") == "postgresql://***@host/runs"


def test_a_password_in_the_command_is_not_kept(run_store: str) -> None:
    words = ["train", "pawn", "--tracking-uri", "http://me:secret@host/"]
    with click.Context(click.Command("pawn")) as context:
        context.meta[ARGUMENTS] = words
        with open_tracker(run_store, say=silence).run("train", "mine", {}) as run:
            pass
    found = stored(run_store, run.id)
    assert record(found)["command"] == [*words[:3], "http://***@host/"]
    assert found.data.tags["pawn.command"] == "train pawn --tracking-uri http://***@host/"


def test_mlflow_is_imported_for_the_first_run_only() -> None:
    script = (
        "import sys\n"
        "from pipelines.tracking import open_tracker\n"
        "with open_tracker(None, enabled=False).run('train', 'a', {}) as run: run.metrics({'a': 1})\n"
        "open_tracker('sqlite:///nowhere.db')\n"
        "print(run.id, 'mlflow' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout == "None False\n"
