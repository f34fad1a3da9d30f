"""`pawn runs`: lists and comparisons of what a store holds."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from features.errors import TrackingError
from pipelines.cli import main
from pipelines.recorded_runs import (
    comparison,
    figure,
    find_run,
    moved_artifacts,
    run_record,
    runs_table,
    top_level_runs,
)
from pipelines.run_store import connect
from pipelines.tracking import open_tracker

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `pawn` in this process; returns exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pawn", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


@pytest.fixture
def ids(run_store: str) -> list[str]:
    """Three runs: two trainings, the second with a fold, and an extraction."""
    tracker = open_tracker(run_store)
    found: list[str] = []
    for kind, name, seed in (("train", "first", 1), ("train", "second", 2), ("extract", "features", 1)):
        with tracker.run(kind, name, {"seed": seed, "recipe": {"epochs": 3}}) as made:
            made.metrics({"auroc": 0.5 + seed / 10, "documents": 1234})
            if name == "second":
                with made.child("fold 1", {}) as child:
                    child.metrics({"auroc": 0.25})
        found.append(str(made.id))
    return found


def test_runs_are_listed_newest_first_without_their_folds(run_store: str, ids: list[str], run: Run) -> None:
    code, out, err = run("runs", "--tracking-uri", run_store)
    lines = [line.split() for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert lines[0] == ["RUN", "STARTED", "KIND", "NAME", "STATUS", "TIME", "auroc"]
    assert [line[0] for line in lines[1:]] == [run_id[:8] for run_id in reversed(ids)]
    assert [line[3:6] for line in lines[1:]] == [
        ["extract", "features", "finished"],
        ["train", "second", "finished"],
        ["train", "first", "finished"],
    ]
    assert [line[-1] for line in lines[1:]] == ["0.6", "0.7", "0.6"]


def test_a_list_shows_the_range_of_an_evaluations_detectors(run_store: str, run: Run) -> None:
    tracker = open_tracker(run_store)
    figures = {"domain/pawn/auroc": 0.9, "domain/lrr/auroc": 0.5, "domain/lrr/auroc_attacked_human": 0.1}
    for name, metrics in (
        ("two", figures),
        ("one", {"evaluation/pawn/auroc": 0.8, "evaluation/pawn/real_fpr@1%": 0.0}),
    ):
        with tracker.run("evaluate", name, {}) as made:
            made.metrics(metrics)
    code, out, _ = run("runs", "--tracking-uri", run_store)
    header, one, two = (line.split() for line in out.splitlines())
    assert code == 0
    assert header[-3:] == ["auroc", "real", "fpr_at_1pct"]
    assert one[-2:] == ["0.8", "0"]
    assert two[-1] == "0.5..0.9"


def test_a_list_is_cut_and_filtered_and_shows_the_metrics_asked_for(run_store: str, ids: list[str], run: Run) -> None:
    code, out, _ = run("runs", "--tracking-uri", run_store, "--kind", "train", "-n", 1, "--metric", "documents")
    assert code == 0
    header, line = out.splitlines()
    assert header.split()[-1] == "documents"
    assert (line.split()[0], line.split()[-1]) == (ids[1][:8], "1,234")
    client = connect(run_store)
    assert runs_table(top_level_runs(client, "pawn-detect", last=2), ["tpr@1%"])[0][-1] == "tpr_at_1pct"


def test_runs_side_by_side_mark_what_differs(run_store: str, ids: list[str], run: Run) -> None:
    code, out, _ = run("runs", ids[0], ids[1][:12], "--tracking-uri", run_store)
    assert code == 0
    rows = {line[3:].split()[0]: line for line in out.splitlines()[1:]}
    assert rows["seed"].split() == ["*", "seed", "1", "2"]
    assert rows["run.name"].split() == ["*", "run.name", "first", "second"]
    assert rows["recipe.epochs"].split() == ["recipe.epochs", "3", "3"]
    assert rows["auroc"].split() == ["auroc", "0.6", "0.7"]
    (fold,) = (line for line in out.splitlines() if "fold 1/auroc" in line)
    assert fold.split() == ["fold", "1/auroc", "0.25"]


def test_a_metric_asked_for_is_the_only_one_compared(run_store: str, ids: list[str]) -> None:
    client = connect(run_store)
    runs = [find_run(client, "pawn-detect", run_id) for run_id in ids[:2]]
    assert ["", "documents", "1,234", "1,234"] in comparison(runs, ["documents"])
    assert not [row for row in comparison(runs, ["documents"]) if row[1] == "auroc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "expected the id of one run or how it begins, got 'nothing': none does; see 'pawn runs'"),
        (("--experiment", "other"), "there is no experiment 'other' in this store; choose one with --experiment"),
    ],
)
def test_what_is_not_there_is_said(
    run_store: str, ids: list[str], run: Run, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = run("runs", "--tracking-uri", run_store, *arguments)
    assert code == 1
    assert message in err


def test_looking_for_runs_makes_no_store(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("runs")
    assert code == 1
    assert f"there is no store of runs at {tmp_path / 'mlflow.db'}; give the one to read with --tracking-uri" in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_record_says_what_is_missing(run_store: str, ids: list[str], tmp_path: Path) -> None:
    client = connect(run_store)
    found = find_run(client, "pawn-detect", ids[0])
    assert run_record(client, found)["settings"]["seed"] == 1
    artifacts = tmp_path / "runs" / "mlartifacts"
    artifacts.rename(tmp_path / "moved")
    beside = artifacts / ids[0] / "artifacts"
    with pytest.raises(
        TrackingError, match=f"run {ids[0]} has no readable run.json among its .*, nor is one in {beside}:"
    ):
        run_record(client, found)


def test_a_store_moved_with_its_artifacts_is_read(run_store: str, ids: list[str], tmp_path: Path) -> None:
    assert moved_artifacts(connect(run_store), ids[0]) is None
    moved = shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    client = connect(f"sqlite:///{moved}/mlflow.db")
    assert moved_artifacts(client, ids[0]) == moved / "mlartifacts" / ids[0] / "artifacts"
    assert run_record(client, find_run(client, "pawn-detect", ids[0]))["settings"]["seed"] == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ""), (0.12345, "0.1235"), (1.0, "1"), (1234.0, "1,234"), (float("nan"), "nan"), (float("inf"), "inf")],
)
def test_a_figure_is_short(value: float | None, expected: str) -> None:
    assert figure(value) == expected
