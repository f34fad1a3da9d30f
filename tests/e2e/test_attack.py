"""`pawn attack`: figures that the written scores give again, human texts attacked too, what is done is kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from detect.adversarial.catalog import ENTRIES
from detect.calibration import Calibration
from detect.catalog import load_detector
from features.documents import text_key
from pipelines.layouts.tables import ONE_FORM
from tests.e2e.conftest import Pawn
from tests.e2e.runs import Result, Toy, labelled_rows, naive_auroc, write_jsonl


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Texts of two domains, one that was attacked before, and one that cannot be scored."""
    rows: list[dict[str, Any]] = labelled_rows(60)
    for number, row in enumerate(rows):
        row |= {"domain": "odd" if number // 2 % 2 else "even", "generator": "g", "attack": "none"}
        row |= {"dataset": "toy", "split": "all", "pair_id": str(number)}
        row["text"] += f" Case {number}."
    rows[3]["attack"] = "paraphrase"
    rows.append({"id": "short", "text": "No.", "label": 0, "domain": "odd", "generator": "human"})
    return write_jsonl(tmp_path / "labelled.jsonl", rows)


def attack(pawn: Pawn, toy: Toy, labelled: Path, output: Path, *more: object) -> Result:
    shared = ("--cache", toy.cache, "--backbone", toy.model, "--no-progress", "--resamples", 100, "--fpr", 0.2)
    return pawn("attack", toy.detector, "log-likelihood", "--data", labelled, "-o", output, *shared, *more)


def test_figures_are_those_of_the_written_scores(toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn) -> None:
    out = tmp_path / "report"
    result = attack(
        pawn, toy, labelled, out, "--attacks", "homoglyph,upper_lower", "--strengths", "x0.5,x1", "--limit", 12
    )
    assert result.code == 3, result.err  # one row has no score
    assert "1 rows are left out: attacked already" in result.err
    assert "1 texts are left out: a detector has no score" in result.err
    scored, figures = pl.read_parquet(out / "scores.parquet"), pl.read_csv(out / "figures.csv")
    assert len(figures) == 2 * 2 * (1 + 4)  # detectors, defences, clean and attacked
    told = json.loads((out / "detectors.json").read_text())
    assert sorted(told) == ["log-likelihood", "toy-pawn"]
    assert json.loads(told["toy-pawn"]["detector"]) == load_detector(str(toy.detector)).identity
    for detector in ("toy-pawn", "log-likelihood"):
        own = scored.filter(detector=detector)
        fixing = own.filter(part="calibration")
        assert set(fixing["label"]) == {0}
        judged = own.filter(part="judged")
        assert not set(fixing["source"]) & set(judged["source"])
        attacked = judged.filter(attack="homoglyph", strength=1.0)
        assert attacked["label"].value_counts(sort=True)["count"].to_list() == [12, 12]
        clean = judged.filter(attack="none")
        (row,) = figures.filter(detector=detector, attack="homoglyph", strength=1.0, defence="none").rows(named=True)
        human, after = clean.filter(label=0)["score"].to_list(), attacked.filter(label=1)["score"].to_list()
        assert row["auroc"] == pytest.approx(naive_auroc([0] * 12 + [1] * 12, human + after))
        threshold = Calibration(fixing["score"].to_numpy(), {}).threshold(0.2)
        before = clean.filter(label=1)["score"].to_list()
        caught = [one for was, one in zip(before, after, strict=True) if was >= threshold]
        lost = [one for one in caught if one < threshold]
        assert row["success@20%"] == (pytest.approx(len(lost) / len(caught)) if caught else None)
        assert row["real_tpr@20%"] == pytest.approx(np.mean([one >= threshold for one in after]))
        false = [one >= threshold for one in attacked.filter(label=0)["score"].to_list()]
        assert row["real_fpr@20%"] == pytest.approx(np.mean(false))


def test_attacked_texts_are_kept_in_the_one_form(toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn) -> None:
    out = tmp_path / "report"
    assert attack(pawn, toy, labelled, out, "--attacks", "homoglyph", "--limit", 12).code == 3
    (path,) = (out / "attacked").glob("*.parquet")
    texts = pl.read_parquet(path)
    assert tuple(texts.columns[: len(ONE_FORM)]) == ONE_FORM
    assert set(texts["attack"]) == {"homoglyph"}
    originals = {text_key(row["text"]): row for row in pl.read_ndjson(labelled).rows(named=True)}
    for row in texts.rows(named=True):
        was = originals[row["id"]]
        assert (row["dataset"], row["split"], row["pair_id"]) == ("toy", "all", was["pair_id"])
        assert (row["label"], row["domain"]) == (was["label"], was["domain"])
        changed = sum(one != other for one, other in zip(was["text"], row["text"], strict=True))
        assert row["edit_distance"] == pytest.approx(changed / len(was["text"]))
    assert (
        pawn("score", path, "--detector", "log-likelihood", "--backbone", toy.model, "-o", tmp_path / "s.csv").code == 0
    )


def test_normalisation_takes_back_what_changes_characters(toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn) -> None:
    out = tmp_path / "report"
    assert attack(pawn, toy, labelled, out, "--attacks", "zero_width_space", "--limit", 12).code == 3
    scored = pl.read_parquet(out / "scores.parquet").filter(part="judged", detector="toy-pawn")
    clean, attacked = (scored.filter(attack=name).sort("id") for name in ("none", "zero_width_space"))
    same = pytest.approx(clean["score"].to_list(), abs=1e-5)  # batches of other sizes round otherwise
    assert attacked["score_normalised"].to_list() == same
    assert attacked["score"].to_list() != same


def test_what_is_done_is_kept_and_a_report_is_the_same_again(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "report"
    options = ("--attacks", "homoglyph,number", "--limit", 12)
    assert attack(pawn, toy, labelled, out, *options).code == 3
    made = {path: path.stat().st_mtime_ns for folder in ("attacked", "scores") for path in (out / folder).iterdir()}
    report = (out / "report.md").read_text()
    next(path for path in made if path.match("scores/number*")).unlink()
    assert attack(pawn, toy, labelled, out, *options).code == 3
    assert (out / "report.md").read_text() == report
    assert sum(path.stat().st_mtime_ns != before for path, before in made.items()) == 1


def test_the_report_shows_the_worst_case_first_and_its_pictures_are_there(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "report"
    names = ("--attacks", "homoglyph,upper_lower,whitespace", "--strengths", "x0.5,x1", "--limit", 12)
    assert attack(pawn, toy, labelled, out, *names).code == 3
    report = (out / "report.md").read_text()
    for path in (
        "heat-map-auroc",
        "heat-map-auroc-humans-attacked",
        "heat-map-tpr",
        "heat-map-fpr",
        "strength-auroc",
        "strength-fpr",
    ):
        assert f"](plots/{path}.png)" in report
        assert (out / "plots" / f"{path}.svg").stat().st_size > 1000
    section = report.split("### log-likelihood")[1].split("\n\n")[1].splitlines()
    assert section[2].startswith("| clean | ")
    values = [min(float(cell.split()[0]) for cell in line.split("|")[2:4]) for line in section[3:]]
    assert values == sorted(values)
    assert len(values) == 6
    samples = (out / "samples.md").read_text()
    assert samples.count("## ") == 1 + 6


def test_each_attack_is_a_run_below_that_of_the_report(
    run_store: str, toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "report"
    track = ("--track", "--tracking-uri", run_store)
    assert attack(pawn, toy, labelled, out, "--attacks", "homoglyph,number", "--limit", 12, *track).code == 3
    client = MlflowClient(tracking_uri=run_store)
    (experiment,) = (found for found in client.search_experiments() if found.name == "pawn-detect")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert set(children) == {"homoglyph 1", "number 0.5"}
    figures = pl.read_csv(out / "figures.csv").filter(detector="toy-pawn", attack="homoglyph", defence="none")
    metrics = children["homoglyph 1"].data.metrics
    assert metrics["toy-pawn/auroc"] == pytest.approx(figures["auroc"].item())
    assert parent.data.metrics["toy-pawn/worst/auroc"] <= metrics["toy-pawn/auroc"]


def test_an_attack_that_queries_is_made_against_each_detector(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "report"
    result = attack(pawn, toy, labelled, out, "--attacks", "adaptive", "--limit", 2)
    assert result.code == 3, result.err
    figures = pl.read_csv(out / "figures.csv").filter(pl.col("attack") == "adaptive", defence="none")
    assert sorted(figures.select("target", "detector").rows()) == sorted(
        (target, detector) for target in ("toy-pawn", "log-likelihood") for detector in ("toy-pawn", "log-likelihood")
    )


def test_list_names_every_attack_with_what_it_does_and_its_strength(pawn: Pawn) -> None:
    result = pawn("attack", "--list")
    assert result.code == 0
    lines = result.out.splitlines()
    assert len(lines) == 1 + len(ENTRIES)
    for entry, line in zip(ENTRIES, lines[1:], strict=True):
        assert line.split()[:2] == [entry.name, f"{entry.strength:g}"]
        assert entry.summary in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--attacks", "homoglif"), "did you mean homoglyph"),
        (("--attacks", "homoglyph", "--strengths", "x0"), "expected strengths such as x0.5,x1,x2"),
        (("--attacks", "homoglyph", "--strengths", "7"), "attack homoglyph has a strength of at most 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_slow(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn, options: tuple[str, ...], expected: str
) -> None:
    result = attack(pawn, toy, labelled, tmp_path / "out", *options)
    assert (result.code, expected in result.err) == (2, True), result.err
    assert not (tmp_path / "out").exists()


def test_texts_of_one_class_are_refused(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    human = write_jsonl(tmp_path / "human.jsonl", [row for row in labelled_rows(20) if row["label"] == 0])
    result = attack(pawn, toy, human, tmp_path / "out", "--attacks", "homoglyph")
    assert result.code == 1
    assert "0 machine texts" in result.err


def test_texts_that_are_all_too_short_for_a_detector_are_refused_in_words(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    rows = [row | {"text": row["text"] if row["label"] else "No."} for row in labelled_rows(20)]
    result = attack(pawn, toy, write_jsonl(tmp_path / "short.jsonl", rows), tmp_path / "out", "--attacks", "homoglyph")
    assert (result.code, "got 0 human and" in result.err) == (1, True), result.err


def test_detectors_data_and_folder_are_asked_for(pawn: Pawn) -> None:
    result = pawn("attack", "log-likelihood")
    assert result.code == 2
    assert "or --list alone" in result.err


def test_a_stress_test_can_be_reproduced(run_store: str, toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn) -> None:
    track = ("--track", "--tracking-uri", run_store)
    assert attack(pawn, toy, labelled, tmp_path / "report", "--attacks", "number", "--limit", 12, *track).code == 3
    client = MlflowClient(tracking_uri=run_store)
    (experiment,) = (found for found in client.search_experiments() if found.name == "pawn-detect")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    result = pawn("reproduce", parent.info.run_id, "-o", tmp_path / "again", "--tracking-uri", run_store)
    assert result.code == 0, result.err + result.out
    first, second = (pl.read_csv(tmp_path / name / "figures.csv") for name in ("report", "again/report"))
    assert first.equals(second)
