"""`pawn harden`: before and after side by side; attacked texts are of training documents; a detector as of training."""

import json
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient

from detect.splits import split_groups
from features.documents import Document, text_key
from pipelines.fitting import SPLIT
from pipelines.hardening_training import Trainer
from tests.e2e.conftest import Pawn
from tests.e2e.runs import Result, Toy, human_text, labelled_rows, naive_auroc, write_jsonl


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = labelled_rows(100)
    for number, row in enumerate(rows):
        row |= {"domain": "d", "generator": "g", "attack": "none", "dataset": "toy", "split": "all"}
        row |= {"pair_id": str(number // 2), "text": f"{row['text']} Case {number} of the {number % 7}."}
    return write_jsonl(tmp_path / "labelled.jsonl", rows)


def harden(pawn: Pawn, toy: Toy, labelled: Path, *more: object, name: str = "tfidf") -> Result:
    shared = ("--cache", toy.cache, "--backbone", toy.model, "--no-progress", "-o", labelled.parent / "hard")
    return pawn("harden", name, "--data", labelled, *shared, *more)


SEEN = ("--attacks", "homoglyph,number", "--hold-out-attacks", "upper_lower")


def test_before_and_after_stand_side_by_side_for_attacks_seen_and_held_out(
    toy: Toy, labelled: Path, pawn: Pawn
) -> None:
    result = harden(pawn, toy, labelled, *SEEN)
    assert result.code == 0, result.err
    report = labelled.parent / "hard-report"
    rows = pl.read_csv(report / "hardening.csv")
    assert rows.select("texts", "name").unique(maintain_order=True).rows() == [
        ("clean", "-"),
        ("seen in training", "homoglyph 1"),
        ("seen in training", "number 0.5"),
        ("seen in training", "mean"),
        ("held out", "upper_lower 0.05"),
        ("held out", "mean"),
    ]
    assert rows["detector"].unique(maintain_order=True).to_list() == ["before", "after"]
    text = (report / "hardening.md").read_text()
    assert "| AUROC, before | AUROC, after |" in text
    scored = pl.read_parquet(report / "scores.parquet").filter(detector="after", part="judged")
    human = scored.filter(attack="none", label=0)["score"].to_list()
    machine = scored.filter(attack="homoglyph", label=1)["score"].to_list()
    expected = naive_auroc([0] * len(human) + [1] * len(machine), human + machine)
    (found,) = rows.filter(name="homoglyph 1", detector="after")["auroc"]
    assert found == pytest.approx(expected)
    seen = rows.filter(texts="seen in training", detector="after")["auroc"].to_list()
    assert seen[2] == pytest.approx((seen[0] + seen[1]) / 2)


def test_attacked_texts_are_of_training_documents_and_judged_ones_of_the_test_part(
    toy: Toy, labelled: Path, pawn: Pawn
) -> None:
    assert harden(pawn, toy, labelled, *SEEN).code == 0
    report = labelled.parent / "hard-report"
    texts = pl.read_ndjson(labelled)
    documents = [
        Document(row["id"], row["text"], row["label"], group=f"toy/all/{row['pair_id']}")
        for row in texts.rows(named=True)
    ]
    parts = split_groups(documents, SPLIT, 0)
    part_of_id = {document.id: part for document, part in zip(documents, parts, strict=True)}
    part_of_key = {text_key(document.text): part for document, part in zip(documents, parts, strict=True)}
    learnt, judged = [], []
    for path in (report / "attacked").glob("*.parquet"):
        ids = pl.read_parquet(path)["id"].to_list()
        (learnt if ids[0] in part_of_id else judged).append(ids)
    assert {part_of_id[name] for ids in learnt for name in ids} == {"train", "validation"}
    assert sum(map(len, learnt)) == sum(part in ("train", "validation") for part in parts)  # one copy each
    assert {part_of_key[name] for ids in judged for name in ids} == {"test"}
    assert len(judged) == 3
    scored = pl.read_parquet(report / "scores.parquet")
    fixing = {part_of_key[name] for name in scored.filter(part="calibration")["id"]}
    assert fixing == {"calibration"}


def test_the_hardened_detector_is_saved_as_training_saves_one(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    result = harden(pawn, toy, labelled, *SEEN, "--copies", 2, name="gltr-buckets")
    assert result.code == 0, result.err
    folder = labelled.parent / "hard"
    record = json.loads((folder / "detector.json").read_text())["training"]
    assert record["hardening"]["attacks"] == ["homoglyph", "number"]
    assert record["hardening"]["held_out"] == ["upper_lower"]
    texts = sum(record["texts"][part] for part in ("train", "validation"))
    assert texts < record["hardening"]["attacked_texts"] <= 2 * texts
    scored = folder / "s.csv"
    result = pawn("score", labelled, "--detector", folder, "--backbone", toy.model, "-o", scored)
    assert result.code == 0, result.err
    assert not any(path.suffix == ".parquet" for path in folder.iterdir())  # no text lies beside the detector


def test_a_repeated_hardening_attacks_and_scores_nothing_again(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    assert harden(pawn, toy, labelled, *SEEN).code == 0
    report = labelled.parent / "hard-report"
    made = {path: path.stat().st_mtime_ns for folder in ("attacked", "scores") for path in (report / folder).iterdir()}
    text = (report / "hardening.md").read_text()
    assert harden(pawn, toy, labelled, *SEEN).code == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert {path for folder in ("attacked", "scores") for path in (report / folder).iterdir()} == set(made)
    assert (report / "hardening.md").read_text() == text


def trainings(monkeypatch: pytest.MonkeyPatch, *, stop_at: int = 0) -> list[str]:
    """The names of the trainings that begin from now on; that of this number is stopped as it begins."""
    begun: list[str] = []
    fit = Trainer._fit

    def counted(trainer: Trainer, learner: Any, record: Any, *rest: Any) -> None:
        begun.append(record["round"])
        if len(begun) == stop_at:
            raise KeyboardInterrupt
        fit(trainer, learner, record, *rest)

    monkeypatch.setattr(Trainer, "_fit", counted)
    return begun


@pytest.mark.parametrize("name", ["logistic", "tfidf"])
def test_a_stopped_hardening_trains_only_what_is_not_trained(toy: Toy, labelled: Path, pawn: Pawn, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        begun = trainings(patch, stop_at=2)
        assert harden(pawn, toy, labelled, *SEEN, name=name).code != 0
        assert begun == ["before", "after"]
    with pytest.MonkeyPatch.context() as patch:
        begun = trainings(patch)
        resumed = harden(pawn, toy, labelled, *SEEN, name=name)
        assert (resumed.code, begun) == (0, ["after"]), resumed.err
        assert "Training before is done already" in resumed.err
        again = harden(pawn, toy, labelled, *SEEN, name=name)
        assert (again.code, begun) == (0, ["after"]), again.err


def test_what_would_be_another_detector_is_trained_anew(
    toy: Toy, labelled: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = trainings(monkeypatch)
    for change, expected in (
        ((), 2),
        (("--limit", 3), 2),  # of the judging alone
        (("--set", "vocabulary=50"), 4),
        (("--copies", 2), 5),  # nothing new for the detector before
        (("--seed", 1), 7),
    ):
        result = harden(pawn, toy, labelled, *SEEN, *change)
        assert (result.code, len(begun)) == (0, expected), (change, result.err)
    lines = labelled.read_text().splitlines(keepends=True)
    labelled.write_text("".join([lines[0].replace("Case 0", "Case 1000"), *lines[1:]]))
    assert (harden(pawn, toy, labelled, *SEEN).code, len(begun)) == (0, 9)


def test_rounds_attack_the_newest_detector(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    attacks = ("--attacks", "number,adaptive", "--hold-out-attacks", "homoglyph")
    result = harden(pawn, toy, labelled, *attacks, "--rounds", 2, "--queried-texts", 2, "--limit", 3)
    assert result.code == 0, result.err
    against = [line for line in result.err.splitlines() if "to learn from: adaptive" in line]
    assert [line.rpartition(" against ")[2] for line in against] == ["before", "round 1"]
    rows = pl.read_csv(labelled.parent / "hard-report" / "hardening.csv")
    assert rows["detector"].unique(maintain_order=True).to_list() == ["before", "round 1", "after"]
    assert len(rows.filter(pl.col("name").str.starts_with("adaptive"))) == 3  # each against itself


@pytest.fixture
def long_texts(tmp_path: Path) -> Path:
    """Eighty texts of each class, long enough to be cut and gone on with."""
    rng = random.Random(5)
    rows = [
        {"id": f"l{n}", "text": " ".join(human_text(rng, words=40) for _ in range(2)), "label": n % 2, "domain": "d"}
        | {"generator": "g" if n % 2 else "human", "attack": "none", "dataset": "toy", "split": "all"}
        | {"pair_id": str(n)}
        for n in range(160)
    ]
    return write_jsonl(tmp_path / "long.jsonl", rows)


def test_generators_are_tuned_against_the_newest_detector_and_judged_against_each(
    toy: Toy, long_texts: Path, pawn: Pawn
) -> None:
    options = ("--redteam", "critic", "--hold-out-redteam", "dpo-human", "--rounds", 2, "--redteam-prompts", 8)
    result = harden(pawn, toy, long_texts, *options, name="gltr-buckets")
    assert result.code == 0, result.err
    tuned = re.findall(r"Tuning a generator: (.*)", result.err)
    assert tuned == ["critic against before", "critic against round 1", "critic against after", "dpo-human"]
    assert re.search(r"Training round 1: 160 texts, 16 attacked", result.err)  # 8 of the generator, 8 human ends
    assert re.search(r"Training after: 160 texts, 24 attacked", result.err)  # the human ends are the same
    report = long_texts.parent / "hard-report"
    rows = pl.read_csv(report / "hardening.csv").filter(pl.col("name") != "mean")
    assert rows.select("texts", "name").unique(maintain_order=True).rows() == [
        ("clean", "-"),
        ("seen in training", "critic"),
        ("held out", "dpo-human"),
    ]
    assert rows["detector"].to_list() == ["before", "round 1", "after"] * 3
    scored = pl.read_parquet(report / "scores.parquet")
    own = scored.filter(attack="critic", target="after", detector="after")
    human, machine = (own.filter(label=label)["score"].to_list() for label in (0, 1))
    assert len(human) == len(machine) == 8
    expected = naive_auroc([0] * len(human) + [1] * len(machine), human + machine)
    (found,) = rows.filter(name="critic", detector="after")["auroc_attacked_human"]
    assert found == pytest.approx(expected)
    crossed = scored.filter(attack="critic", target="before", detector="after")
    assert len(crossed) == 16  # what was tuned against another one is judged as well
    text = (report / "hardening.md").read_text()
    assert "| critic against round 1 |" in text.partition("## Texts of tuned generators")[2]


def test_a_generators_texts_stay_on_the_side_of_the_text_that_they_go_on_with(
    toy: Toy, long_texts: Path, pawn: Pawn
) -> None:
    options = ("--redteam", "critic", "--hold-out-redteam", "dpo-human", "--redteam-prompts", 8)
    assert harden(pawn, toy, long_texts, *options, name="gltr-buckets").code == 0
    documents = [
        Document(row["id"], row["text"], row["label"], group=f"toy/all/{row['pair_id']}")
        for row in pl.read_ndjson(long_texts).rows(named=True)
    ]
    part_of = dict(zip([d.group for d in documents], split_groups(documents, SPLIT, 0), strict=True))
    for part, expected in (("train", {"train", "validation"}), ("heldout", {"test"})):
        for path in (long_texts.parent / "hard-report" / "redteam").glob(f"*/texts/{part}-*.parquet"):
            groups = pl.read_parquet(path).select(pl.format("toy/all/{}", "pair_id"))["pair_id"].to_list()
            assert {part_of[group] for group in groups} <= expected


def test_a_repeated_hardening_tunes_no_generator_again(toy: Toy, long_texts: Path, pawn: Pawn) -> None:
    options = ("--redteam", "critic", "--hold-out-redteam", "dpo-human", "--redteam-prompts", 8)
    assert harden(pawn, toy, long_texts, *options, name="gltr-buckets").code == 0
    text = (long_texts.parent / "hard-report" / "hardening.md").read_text()
    again = harden(pawn, toy, long_texts, *options, name="gltr-buckets")
    assert again.code == 0, again.err
    assert "Tuning a generator: " not in again.err
    assert again.err.count("Tuning a generator is done already") == 3
    assert (long_texts.parent / "hard-report" / "hardening.md").read_text() == text


def test_too_few_texts_for_a_generator_are_refused_with_what_is_missing(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    result = harden(pawn, toy, labelled, "--redteam", "critic", "--hold-out-attacks", "number", name="gltr-buckets")
    assert (result.code, "a generator needs at least 8 human texts of 80 tokens" in result.err) == (1, True), result.err
    assert "Training before" not in result.err  # before anything slow


def write_outputs(path: Path, attack: str) -> Path:
    rows = [
        {
            "id": f"o{n}",
            "text": f"Output {n} of generator {n}, tuned {n} times by {attack} against {n} detectors, number {n}.",
            "label": 1,
        }
        | {"attack": attack, "dataset": "toy", "split": "all", "pair_id": str(n)}
        for n in range(100)
    ]
    return write_jsonl(path, rows)


def test_outputs_of_attackers_are_learnt_from_and_judged_apart(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    path = write_outputs(labelled.parent / "outputs.jsonl", "dpo")
    result = harden(pawn, toy, labelled, *SEEN, "--outputs", path)
    assert result.code == 0, result.err
    rows = pl.read_csv(labelled.parent / "hard-report" / "hardening.csv")
    found = rows.filter(texts="attackers' outputs")
    assert found["name"].to_list() == ["outputs", "outputs"]
    before, after = found["auroc"]
    assert after >= before
    assert re.search(r"Training before: 200 texts, 0 attacked", result.err)
    assert re.search(r"Training after: 300 texts, \d+ attacked", result.err)
    scored = pl.read_parquet(labelled.parent / "hard-report" / "scores.parquet")
    judged = scored.filter(attack="outputs", detector="after")
    assert 0 < len(judged) < 30  # those of the test part


def test_outputs_of_held_out_attackers_are_judged_and_never_learnt_from(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    learnt = write_outputs(labelled.parent / "learnt.jsonl", "dpo")
    held_out = write_outputs(labelled.parent / "held-out.jsonl", "critic")
    result = harden(pawn, toy, labelled, *SEEN, "--outputs", learnt, "--hold-out-outputs", held_out)
    assert result.code == 0, result.err
    assert re.search(r"Training before: 200 texts, 0 attacked", result.err)
    assert re.search(r"Training after: 300 texts, \d+ attacked", result.err)
    rows = pl.read_csv(labelled.parent / "hard-report" / "hardening.csv")
    for texts, name in (("attackers' outputs", "outputs"), ("held-out attackers' outputs", "held-out outputs")):
        assert rows.filter(texts=texts)["name"].to_list() == [name, name]
    scored = pl.read_parquet(labelled.parent / "hard-report" / "scores.parquet").filter(detector="after")
    sources = {name: set(scored.filter(attack=name)["source"]) for name in ("outputs", "held-out outputs")}
    assert sources["outputs"] == sources["held-out outputs"]  # the same prompts, and those of the test part alone
    assert 0 < len(sources["outputs"]) < 30


def test_outputs_alone_are_enough_to_harden_and_to_judge_by(toy: Toy, labelled: Path, pawn: Pawn) -> None:
    learnt = write_outputs(labelled.parent / "learnt.jsonl", "dpo")
    held_out = write_outputs(labelled.parent / "held-out.jsonl", "critic")
    result = harden(pawn, toy, labelled, "--outputs", learnt, "--hold-out-outputs", held_out)
    assert result.code == 0, result.err
    assert re.search(r"Training after: 300 texts, 0 attacked", result.err)
    rows = pl.read_csv(labelled.parent / "hard-report" / "hardening.csv").filter(detector="after")
    assert rows["texts"].to_list() == ["clean", "attackers' outputs", "held-out attackers' outputs"]
    assert rows["auroc"].is_not_null().all()


def test_each_training_and_each_attack_is_a_run_below_that_of_the_hardening(
    run_store: str, toy: Toy, labelled: Path, pawn: Pawn
) -> None:
    assert harden(pawn, toy, labelled, *SEEN, "--track", "--tracking-uri", run_store).code == 0
    client = MlflowClient(tracking_uri=run_store)
    (experiment,) = (found for found in client.search_experiments() if found.name == "pawn-detect")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    names = {run.info.run_name for run in runs if run is not parent}
    assert names == {"before", "after", "homoglyph 1", "number 0.5", "upper_lower 0.05"}
    assert "after/clean/auroc" in parent.data.metrics
    assert len(parent.outputs.model_outputs) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--attacks", "number", "--hold-out-attacks", "number"), "attack number is to be learnt from and held out"),
        (("--attacks", "number", "--hold-out-attacks", ""), "nobody can tell robustness from memory"),
        (("--attacks", "nmber", "--hold-out-attacks", "homoglyph"), "did you mean number"),
        (("--redteam", "critic"), "nobody can tell robustness from memory"),
        (("--outputs", "some.parquet"), "--hold-out-redteam or --hold-out-outputs to judge by"),
        (("--outputs", "a.parquet", "--hold-out-outputs", "b.parquet", "--rounds", 2), "nothing among --outputs that"),
        (("--redteam", "critic", "--hold-out-redteam", "critic"), "attack critic is to be learnt from and held out"),
        ((*SEEN, "--redteam", "actor"), "no method 'actor'; expected one of critic, dpo, dpo-human"),
        ((*SEEN, "--redteam", "dpo-human", "--rounds", 2), "number, dpo-human that asks the detector"),
        ((*SEEN, "--rounds", 2), "2 rounds, and nothing among homoglyph, number that asks the detector"),
        ((*SEEN, "--set", "vocabulary"), "expected NAME=VALUE such as epochs=4, got 'vocabulary'"),
        ((*SEEN, "--set", "colour=3"), "detector tfidf cannot be trained like that"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_slow(
    toy: Toy, labelled: Path, pawn: Pawn, options: tuple[object, ...], expected: str
) -> None:
    result = harden(pawn, toy, labelled, *options)
    assert (result.code, expected in " ".join(result.err.split())) == (2, True), result.err
    assert not (labelled.parent / "hard-report").exists()
