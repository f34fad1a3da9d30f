"""`pawn train NAME`: repeatable, on record, and clear about data that cannot be learnt from."""

import hashlib
import json
import random
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from detect.calibration import BAND_STARTS, Calibration
from detect.catalog import load_detector, text_names, trainable_names
from detect.splits import split_groups
from features.documents import Document
from features.errors import PawnError
from pipelines.fitting import SPLIT, TrainedDetector
from pipelines.text_training import TextLearner
from tests.e2e.conftest import Pawn
from tests.e2e.runs import (
    REPOSITORY,
    Toy,
    human_text,
    labelled_rows,
    naive_auroc,
    parse_csv,
    read_results,
    shards,
    write_jsonl,
)
from tests.features.tiny_models import write_tiny_model


@pytest.fixture
def train(toy: Toy, tmp_path: Path) -> tuple[object, ...]:
    """All but the data: the session's model and its cache, so that nothing is computed twice."""
    return (
        "train",
        "pawn",
        "--backbone",
        toy.model,
        "--cache",
        toy.cache,
        "--epochs",
        2,
        "--likelihood-weight",
        0,
        "-o",
        tmp_path / "out",
    )


def card(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "detector.json").read_text())
    return content


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    toy: Toy, train: tuple[object, ...], tmp_path: Path, pawn: Pawn
) -> None:
    before = shards(toy.cache)
    again = pawn(*train, "--data", toy.data, "--name", "toy-pawn", "--progress")
    assert again.code == 0, again.err
    assert shards(toy.cache) == before
    for name in ("model.safetensors", "calibration.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (toy.detector / name).read_bytes()
    assert card(tmp_path / "out") == card(toy.detector)
    assert "epoch 2  loss 0." in again.err
    assert "epoch 2: loss " in again.err
    assert "validation AUROC " in again.err
    assert pawn(*train, "--data", toy.data, "--seed", 1).code == 0
    assert card(tmp_path / "out")["weights"]["sha256"] != card(toy.detector)["weights"]["sha256"]


def test_a_detector_is_safetensors_and_json_that_say_what_it_was_made_from(toy: Toy) -> None:
    names = ["calibration.json", "calibration.safetensors", "detector.json", "model.safetensors"]
    assert sorted(path.name for path in toy.detector.iterdir()) == names
    record = card(toy.detector)
    assert record["weights"]["sha256"] == hashlib.sha256((toy.detector / "model.safetensors").read_bytes()).hexdigest()
    corpora = [{"file": "train.jsonl", "sha256": hashlib.sha256(toy.data.read_bytes()).hexdigest()}]
    assert record["training"]["corpora"] == corpora
    assert record["training"]["config"]["seed"] == 0
    assert record["training"]["config"]["epochs"] == 2
    (folder,) = toy.cache.iterdir()
    assert record["backbone"]["fingerprint"] == json.loads((folder / "fingerprint.json").read_text())
    assert record["backbone"]["name"] == str(toy.model)  # whole, although a relative path was typed
    assert "Saved to toy-pawn; score with --detector toy-pawn" in toy.training_stderr


def test_the_calibration_holds_the_human_texts_of_its_part(toy: Toy) -> None:
    documents = [Document(row["id"], row["text"], row["label"]) for row in toy.texts.to_dicts()]
    parts = split_groups(documents, SPLIT, seed=0)
    human = sum(part == "calibration" and d.label == 0 for part, d in zip(parts, documents, strict=True))
    record = json.loads((toy.detector / "calibration.json").read_text())
    arrays = load_file(toy.detector / "calibration.safetensors")
    assert record["count"] == len(arrays["scores"])
    assert (arrays["n_tokens"] < BAND_STARTS[1]).sum() == human  # each text, or a prefix of it, once in the first band
    assert record["provenance"]["weights_sha256"] == card(toy.detector)["weights"]["sha256"]
    assert card(toy.detector)["training"]["texts"] == {part: parts.count(part) for part in SPLIT}


def test_rows_that_cannot_be_learnt_from_are_counted(toy: Toy, train: tuple[object, ...], pawn: Pawn) -> None:
    rows = labelled_rows()
    both = human_text(random.Random(99))
    strange = [rows[0], {"id": "a", "text": both, "label": "human"}, {"id": "b", "text": both, "label": "machine"}]
    data = write_jsonl(toy.data.parent / "strange.jsonl", [*rows, *strange, {"text": "short", "label": 1}])
    result = pawn(*train, "--data", data)
    assert result.code == 3
    assert (
        "240 texts to train on; 1 rows cannot be used, 2 repeat an earlier text, 1 texts have both labels and are "
        "left out" in result.err
    )


@pytest.mark.parametrize(
    ("rows", "options", "code", "message"),
    [
        (labelled_rows(2), (), 1, "has [01] human and [01] machine texts; at least one of each is needed: give more"),
        ([r for r in labelled_rows(20) if r["label"]], (), 1, "has 0 human and [0-9]+ machine texts"),
        ([{"text": "short", "label": 1}], (), 1, "none of the 1 rows can be trained on: .*too_short.*: 1"),
        ([{"text": "some", "kind": 1}], (), 2, r"no column 'label' in .*\['text', 'kind'\]: choose .* --label-column"),
        ([{"text": "some", "label": 7}], (), 2, "row 1 of .* column 'label' holds 7; expected 0 or 'human'"),
        ([{"text": "some", "label": None}], (), 2, "row 1 of .* column 'label' holds None"),
        (labelled_rows(2), ("--text-column", "body"), 2, "no column 'body' in .* choose one with --text-column"),
        (labelled_rows(2), ("--crop-probability", 2), 2, "2.0 is not in the range 0<=x<=1"),
        (labelled_rows(2), ("--learning-rate", 0), 2, "0.0 is not in the range x>0"),
        (labelled_rows(2), ("--device", "abacus"), 2, "expected cpu or cuda, got 'abacus'"),
        (labelled_rows(2), ("--epochs", 0), 2, "0 is not in the range x>=1"),
    ],
)
def test_data_and_settings_that_cannot_be_right_are_refused(
    toy: Toy,
    train: tuple[object, ...],
    tmp_path: Path,
    pawn: Pawn,
    rows: list[dict[str, Any]],
    options: tuple[object, ...],
    code: int,
    message: str,
) -> None:
    result = pawn(*train, "--data", write_jsonl(tmp_path / "data.jsonl", rows), *options)
    assert result.code == code
    with pytest.raises(RuntimeError, match=message):
        raise RuntimeError(result.err)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_refused_before_the_work(
    toy: Toy, train: tuple[object, ...], tmp_path: Path, pawn: Pawn
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = pawn(*train[:-1], tmp_path / "file", "--data", toy.data)
    assert result.code == 2
    assert f"cannot write to folder {tmp_path / 'file'}: " in result.err
    assert "epoch" not in result.err


def test_a_detector_is_named_after_its_folder(
    toy: Toy, train: tuple[object, ...], tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert pawn(*train[:-1], ".", "--data", toy.data).code == 0
    assert card(tmp_path / "mine")["name"] == "mine"


def test_a_detector_takes_the_codec_it_was_trained_on_along(
    toy: Toy, train: tuple[object, ...], tmp_path: Path, pawn: Pawn
) -> None:
    assert pawn("cache", "fit-codec", toy.cache, "-o", tmp_path / "my.codec").code == 0
    moved = [tmp_path / "cache" if part == toy.cache else part for part in train]
    assert pawn(*moved, "--data", toy.data, "--codec", tmp_path / "my.codec").code == 0
    (folder,) = (tmp_path / "cache").iterdir()
    codec = card(tmp_path / "out")["backbone"]["codec"]
    assert folder.name.endswith(codec)
    assert codec.startswith("pca")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "my.codec").unlink()
    command = ("score", toy.data, "--detector", tmp_path / "out", "--fpr", 0.5)
    assert pawn(*command, "--cache", "none", "-o", tmp_path / "none.csv").code == 0
    assert pawn(*command, "--cache", tmp_path / "again", "-o", tmp_path / "cached.csv").code == 0
    assert (tmp_path / "none.csv").read_bytes() == (tmp_path / "cached.csv").read_bytes()
    assert [path.name for path in (tmp_path / "again").iterdir()] == [folder.name]


def test_a_codec_that_is_not_there_is_refused(toy: Toy, train: tuple[object, ...], pawn: Pawn) -> None:
    result = pawn(*train, "--data", toy.data, "--codec", "int5")
    assert (result.code, "no codec 'int5': expected one of auto, float16, int8, int4" in result.err) == (2, True)


OWN_OPTIONS = {
    "pawn": ("--epochs", 2, "--likelihood-weight", 0),
    "pawn-paper": ("--epochs", 1),
    "pawn-no-hidden": ("--epochs", 1, "--crop-probability", 0),
    "pawn-no-metrics": ("--epochs", 1, "--batch-size", 32),
    "pawn-layers": ("--epochs", 2, "--likelihood-weight", 0),
    "lightgbm": ("--rounds", 20, "--learning-rate", 0.1),
    "profile": ("--rounds", 20, "--learning-rate", 0.1),
    "diveye": ("--rounds", 20),
    "ensemble": ("--members", "lightgbm, logistic,fast-detect-gpt"),
}


@pytest.mark.parametrize("name", [name for name in trainable_names() if name not in text_names()])
def test_every_trainable_detector_of_features_is_trained_calibrated_and_scores(
    name: str, toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "out"
    shared = ("--backbone", toy.model, "--cache", toy.cache, "--data", toy.data, "--progress")
    result = pawn("train", name, *shared, "-o", out, *OWN_OPTIONS.get(name, ()))
    assert result.code == 0, result.err
    assert "validation AUROC " in result.err
    record = card(out)
    assert record["training"]["corpora"] == card(toy.detector)["training"]["corpora"]
    assert record["training"]["texts"] == card(toy.detector)["training"]["texts"]
    expected = card(toy.detector)["backbone"]
    if name == "pawn-layers":  # of a model of two layers
        layers = expected["fingerprint"] | {"layers": [1, 2]}
        expected |= {"hidden_size": 2 * expected["hidden_size"], "fingerprint": layers}
        assert sum(record["training"]["layer_weights"].values()) == pytest.approx(1)
        assert list(record["training"]["layer_weights"]) == ["1", "2"]
    assert record["backbone"] == expected
    assert record["training"]["test"]["auroc"] > 0.8  # of 21 texts
    calibration = json.loads((out / "calibration.json").read_text())
    assert calibration["count"] == json.loads((toy.detector / "calibration.json").read_text())["count"]
    command = ("score", toy.data, "--detector", out, "--fpr", 0.5, "--carry", "label")
    assert pawn(*command, "--cache", toy.cache, "-o", tmp_path / "cached.csv").code == 0
    assert pawn(*command, "--cache", "none", "-o", tmp_path / "none.csv").code == 0
    rows = parse_csv((tmp_path / "cached.csv").read_text())
    assert naive_auroc([row["label"] for row in rows], [row["score"] for row in rows]) > 0.9
    assert {row["is_machine"] for row in rows} == {True, False}
    # Extracted in other batches than in training: the tiny model computes in bfloat16 where the processor can.
    fresh = [row["score"] for row in parse_csv((tmp_path / "none.csv").read_text())]
    assert naive_auroc([row["label"] for row in rows], fresh) > 0.9
    other = write_tiny_model(tmp_path / "other", seed=1)
    refused = pawn(*command, "--backbone", other)
    assert (refused.code, "trained on features with weights_id" in refused.err) == (1, True)


def test_left_out_domains_work_for_detectors_without_epochs(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    rows = [row | {"domain": f"domain {number // 2 % 3}"} for number, row in enumerate(labelled_rows())]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    shared = ("--backbone", toy.model, "--cache", toy.cache, "--data", data, "-o", tmp_path / "out")
    result = pawn("train", "gltr-buckets", *shared, "--calibration", "left-out-domains")
    assert result.code == 0, result.err
    record = card(tmp_path / "out")["training"]["left_out_domains"]
    assert [row["held_out"] for row in record] == ["domain 0", "domain 1", "domain 2"]
    calibration = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert calibration["domains"] == ["domain 0", "domain 1", "domain 2"]
    n_tokens = load_file(tmp_path / "out" / "calibration.safetensors")["n_tokens"]
    assert (n_tokens < BAND_STARTS[1]).sum() == sum(row["label"] == 0 for row in rows)
    assert "each scored by a detector trained by the same recipe" in calibration["provenance"]["texts"]


@pytest.mark.parametrize("name", ["gltr-buckets", "tfidf"])
def test_texts_that_are_only_learnt_neither_judge_nor_calibrate(
    name: str, toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    rows = [row | {"domain": f"domain {number // 2 % 3}"} for number, row in enumerate(labelled_rows())]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    rng = random.Random(8)
    made = [{"id": f"n{n}", "text": human_text(rng), "label": n % 2, "domain": f"domain {n % 4}"} for n in range(200)]
    both = write_jsonl(tmp_path / "made.jsonl", [*made, rows[0]])  # a text that is judged as well stays so
    shared = () if name == "tfidf" else ("--backbone", toy.model, "--cache", toy.cache)
    records, calibrations = [], []
    for more in ((), ("--only-learnt", both)):
        out = tmp_path / f"out{len(records)}"
        options = (*shared, "--data", data, *more, "--calibration", "left-out-domains", "-o", out)
        result = pawn("train", name, *options)
        assert "Saved to" in result.err, result.err  # some rows are too short
        records.append(card(out)["training"])
        calibrations.append(json.loads((out / "calibration.json").read_text()))
    alone, helped = records
    for figure in ("human", "machine"):
        assert alone["test"][figure] == helped["test"][figure]
    for before, after in zip(alone["left_out_domains"], helped["left_out_domains"], strict=True):
        assert [before[key] for key in ("held_out", "human", "machine")] == [
            after[key] for key in ("held_out", "human", "machine")
        ]
    assert calibrations[0]["count"] == calibrations[1]["count"]
    assert alone["texts"]["calibration"] == helped["texts"]["calibration"]
    learnt = sum(helped["texts"][part] - alone["texts"][part] for part in ("train", "validation"))
    assert "only_learnt" not in alone
    assert 0 < learnt == helped["only_learnt"] < 200
    assert [entry["file"] for entry in helped["corpora"]] == ["data.jsonl", "made.jsonl"]


def test_texts_made_of_judged_ones_are_not_learnt(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    rows = [row | {"domain": f"domain {number // 2 % 3}"} for number, row in enumerate(labelled_rows())]
    rows = [row | {"dataset": "toy", "split": "all", "pair_id": str(number)} for number, row in enumerate(rows)]
    rng = random.Random(9)
    made = [row | {"id": f"made {row['id']}", "text": human_text(rng), "label": 1} for row in rows]
    elsewhere = [row | {"id": f"elsewhere {row['id']}", "text": human_text(rng), "domain": "another"} for row in made]
    data, helping = write_jsonl(tmp_path / "data.jsonl", rows), write_jsonl(tmp_path / "made.jsonl", made + elsewhere)
    shown: list[dict[str, list[Document]]] = []
    fit = TextLearner.fit

    def seen(learner: TextLearner, detector: Any, parts: Any, *rest: Any) -> None:
        shown.append({part: [learner.documents[index] for index in members] for part, members in parts.items()})
        fit(learner, detector, parts, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextLearner, "fit", seen)
        options = (
            "--data",
            data,
            "--only-learnt",
            helping,
            "--calibration",
            "left-out-domains",
            "-o",
            tmp_path / "out",
        )
        assert "Saved to" in pawn("train", "tfidf", *options).err
    whole, *folds = shown
    made_of = {document.group for part in ("train", "validation") for document in whole[part] if "made" in document.id}
    assert len(made_of) > 100
    assert not made_of & {document.group for part in ("calibration", "test") for document in whole[part]}
    for number, own in enumerate(folds):
        learnt = {document.domain for part in ("train", "validation") for document in own[part]}
        assert learnt == {f"domain {n}" for n in range(3) if n != number}  # nothing of "another" either


def test_texts_of_standard_input_cannot_be_told_from_those_only_learnt(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    result = pawn("train", "tfidf", "--data", "-", "--only-learnt", toy.data, "-o", tmp_path / "out")
    assert (result.code, "save the texts of standard input to a file" in result.err) == (2, True), result.err


def test_the_readmes_own_detector_scores(toy: Toy, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n([^`]*class EvenSurprisal[^`]*)```", readme)
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 20
    (tmp_path / "my_detector.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = ("score", toy.data, "--detector", "my_detector:EvenSurprisal", "--backbone", toy.model)
    try:
        result = pawn(*command, "-o", "scored.parquet")
    finally:
        sys.modules.pop("my_detector", None)
    assert result.code == 0, result.err
    scores = [row["score"] for row in read_results(tmp_path / "scored.parquet")]
    assert len(scores) == 240
    assert len(set(scores)) > 100
    assert max(scores) < 0


def test_a_training_that_fails_midway_leaves_no_calibration_of_other_weights(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(toy.detector, tmp_path / "detector")
    ready = load_detector(str(folder))
    assert ready.calibration is not None

    def full(self: Calibration, directory: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Calibration, "save", full)
    with pytest.raises(PawnError, match="No space left on device"):
        TrainedDetector(ready.detector, ready.calibration).save(folder)  # type: ignore[arg-type]  # it is trainable
    assert load_detector(str(folder)).calibration is None  # scores, and no decisions by a wrong one


def test_a_name_that_mlflow_would_refuse_is_refused_before_the_work(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    for name in ("team/detector", "", "a:b"):
        result = pawn("train", "lightgbm", "--data", toy.data, "-o", tmp_path / "out", "--register-as", name)
        assert (result.code, "expected a name without '/' and ':'" in result.err) == (2, True)
