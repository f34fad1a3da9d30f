"""`pawn evaluate` and `pawn benchmark`: figures that the written scores give again, thresholds from other texts."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from sklearn.metrics import average_precision_score, roc_auc_score

from detect.calibration import Calibration
from detect.catalog import ENTRIES
from pipelines.benchmark_config import BenchmarkConfig
from pipelines.protocols import PROTOCOLS
from tests.e2e.conftest import Pawn
from tests.e2e.runs import REPOSITORY, Result, Toy, labelled_rows, write_jsonl

OWN = """
import numpy as np
from features.token_features import METRIC_NAMES

class Surprise:
    name = "surprise"
    needs_hidden = False

    def fit(self, train, validation):
        return self

    def score(self, features):
        column = METRIC_NAMES.index("log_prob")
        return np.array([-document.metrics[:, column].mean(dtype=np.float64) for document in features])

    def save(self, directory):
        pass

    @classmethod
    def load(cls, directory):
        return cls()
"""


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Forty texts of two domains, and one that cannot be scored."""
    rows = labelled_rows(21)[:40]
    for number, row in enumerate(rows):
        row |= {"domain": "odd" if number // 2 % 2 else "even", "generator": "g1" if number % 4 == 1 else "g2"}
        row["text"] += f" {number}"
    rows.append({"id": "short", "text": "No.", "label": 0, "domain": "odd", "generator": "human"})
    return write_jsonl(tmp_path / "labelled.jsonl", rows)


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Two hundred texts of the session's corpus that are not among the labelled ones."""
    return write_jsonl(tmp_path / "others.jsonl", labelled_rows()[40:])


def only_run(uri: str) -> tuple[Any, Any]:
    """A client of a store, and the one run in it that is no part of another."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = (found for found in client.search_experiments() if found.name == "pawn-detect")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    return client, run


def evaluate(pawn: Pawn, toy: Toy, labelled: Path, output: Path, *more: object) -> Result:
    shared = ("--cache", toy.cache, "--backbone", toy.model, "--no-progress", "--resamples", 100)
    return pawn("evaluate", "--data", labelled, "-o", output, *shared, *more)


def test_figures_are_those_of_the_written_scores(toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn) -> None:
    out = tmp_path / "report"
    result = evaluate(
        pawn, toy, labelled, out, "--detector", toy.detector, "--detector", "log-likelihood", "--fpr", 0.2
    )
    assert result.code == 3, result.err  # one row has no score
    assert "1 rows have no score: {'too_short': 1}" in result.err
    judged = pl.read_parquet(out / "judgements.parquet")
    figures = pl.read_csv(out / "figures.csv")
    calibration = Calibration.load(toy.detector)
    for name in ("toy-pawn", "log-likelihood"):
        test = judged.filter(detector=name, part="test")
        assert len(test) == 40
        (row,) = figures.filter(detector=name, slice="all").rows(named=True)
        assert row["auroc"] == pytest.approx(roc_auc_score(test["label"], test["score"]))
        assert row["average_precision"] == pytest.approx(average_precision_score(test["label"], test["score"]))
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        if name == "log-likelihood":
            assert row["real_fpr@20%"] is None
            continue
        human = test.filter(label=0)["score"].to_numpy()
        assert row["real_fpr@20%"] == pytest.approx(np.mean(calibration.p_values(human) <= 0.2))
        # The thresholds of `pawn score`: a calibration that knows no domains is as sure of itself here as there.
        expected = calibration.thresholds(0.2, test["n_tokens"].to_numpy())
        assert test["threshold@20%"].to_list() == expected.tolist()
    assert "log-likelihood has no calibration: give --calibrate-on" in result.err
    assert set(figures["slice"]) == {"all", "domain", "generator", "attack", "length"}
    assert (out / "report.md").read_text().count("![") >= 3
    assert "AUROC" in result.out


def test_thresholds_can_be_fixed_on_other_texts(
    toy: Toy, labelled: Path, others: Path, tmp_path: Path, pawn: Pawn
) -> None:
    out = tmp_path / "report"
    more = ("--detector", "log-likelihood", "--calibrate-on", others, "--fpr", 0.05)
    result = evaluate(pawn, toy, labelled, out, *more)
    assert result.code == 3, result.err
    judged = pl.read_parquet(out / "judgements.parquet")
    human = judged.filter(part="calibration", label=0)["score"].to_numpy()
    assert len(human) == 100
    assert "Warning" not in result.err + (out / "report.md").read_text()
    threshold = Calibration(human, {}).threshold(0.05)
    (row,) = pl.read_csv(out / "figures.csv").filter(slice="all").rows(named=True)
    test = judged.filter(part="test")
    for label, name in ((0, "real_fpr@5%"), (1, "real_tpr@5%")):
        assert row[name] == pytest.approx((test.filter(label=label)["score"] >= threshold).mean())
    assert "real_fpr@1%" not in row


def test_no_threshold_is_fixed_on_texts_that_share_a_source_with_judged_ones(
    toy: Toy, labelled: Path, others: Path, tmp_path: Path, pawn: Pawn
) -> None:
    mixed = tmp_path / "mixed.jsonl"
    rows = [json.loads(line) for line in labelled.read_text().splitlines()[:6]]
    rows[0]["text"] = "Beginning otherwise: " + rows[0]["text"]  # a near-duplicate
    mixed.write_text(others.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "report"
    more = ("--detector", "log-likelihood", "--fpr", 0.05, "--calibrate-on")
    result = evaluate(pawn, toy, labelled, out, *more, mixed)
    told = "Warning: 6 of 206 texts of --calibrate-on share a source with a judged text"
    assert told in result.err
    assert f"**{told.replace(':', ':**')}" in (out / "report.md").read_text()
    judged = pl.read_parquet(out / "judgements.parquet")
    assert judged["part"].value_counts(sort=True).rows() == [("calibration", 200), ("test", 40)]
    result = evaluate(pawn, toy, labelled, tmp_path / "none", *more, labelled)
    assert result.code == 1
    assert " of --calibrate-on share a source with a judged text" in result.err
    assert "the 0 human texts left fix none at 5%; give --calibrate-on human texts of other sources" in result.err


def test_a_file_that_a_detector_was_trained_on_and_texts_that_come_twice_are_told(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    again = write_jsonl(tmp_path / "again.jsonl", labelled_rows()[:2] + labelled_rows()[:1])
    out = tmp_path / "report"
    result = evaluate(pawn, toy, toy.data, out, "--detector", toy.detector, "--detector", "rank", "--data", again)
    assert result.code == 0, result.err
    for told in (
        "toy-pawn was trained on train.jsonl (the same SHA-256): its figures are of texts that it knows",
        "3 rows of --data hold the text of an earlier row (3 of them that of another file)",
    ):
        assert f"Warning: {told}" in result.err
        assert f"**Warning:** {told}" in (out / "report.md").read_text()
    assert "rank was trained" not in result.err
    unseen = write_jsonl(tmp_path / "unseen.jsonl", labelled_rows(140)[240:])
    result = evaluate(pawn, toy, unseen, out, "--detector", toy.detector, "--calibrate-on", toy.data, "--fpr", 0.05)
    assert "toy-pawn was trained on train.jsonl (the same SHA-256): thresholds are of texts that it knows" in result.err


def test_a_detector_of_ones_own_is_evaluated(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "surprise_of_mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    names = ("--detector", "surprise_of_mine:Surprise", "--detector", "log-likelihood")
    assert evaluate(pawn, toy, labelled, tmp_path / "report", *names).code == 3
    figures = pl.read_csv(tmp_path / "report" / "figures.csv").filter(slice="all")
    assert figures["auroc"].sum() == pytest.approx(1)  # one is the other's negative


WRONG = """

class Listed(Surprise):
    name = "listed"

    def score(self, features):
        return super().score(features).tolist()

class Column(Surprise):
    name = "column"

    def score(self, features):
        return super().score(features)[:, None]

class Broken(Surprise):
    name = "broken"

    def score(self, features):
        return features[0].no_such_thing

class Endless(Surprise):
    name = "endless"

    def score(self, features):
        return [float("-inf"), *super().score(features)[1:]]
"""


def test_a_detector_of_ones_own_may_give_a_list_and_one_that_fails_is_named_while_the_others_are_judged(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "several_of_mine.py").write_text(OWN + WRONG)
    monkeypatch.chdir(tmp_path)
    names = [f"several_of_mine:{name}" for name in ("Broken", "Column", "Endless", "Listed", "Surprise")]
    options = [word for name in names for word in ("--detector", name)]
    result = evaluate(pawn, toy, labelled, tmp_path / "report", *options)
    assert result.code == 1
    for told in (
        "broken is left out: detector broken failed on 40 documents: AttributeError: ",
        "column is left out: the scores of detector column have the wrong shape",
        "endless is left out: detector endless gives 1 of 40 texts no finite number, the first -inf for h0",
    ):
        assert told in result.err
    figures = pl.read_csv(tmp_path / "report" / "figures.csv").filter(slice="all")
    assert figures["detector"].to_list() == ["listed", "surprise"]
    assert figures["auroc"].n_unique() == 1
    alone = evaluate(pawn, toy, labelled, tmp_path / "nothing", "--detector", names[0])
    assert (alone.code, "every detector failed: detector broken failed on" in alone.err) == (1, True)


def test_scores_of_a_detector_of_ones_own_that_fails_are_refused_in_words(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scored_by_mine.py").write_text(OWN + WRONG)
    monkeypatch.chdir(tmp_path)
    shared = ("--backbone", toy.model, "--cache", toy.cache, "--no-progress", "--detector")
    assert pawn("score", labelled, "-o", tmp_path / "scored.csv", *shared, "scored_by_mine:Listed").code == 3
    result = pawn("score", labelled, "-o", tmp_path / "none.csv", *shared, "scored_by_mine:Broken")
    assert (result.code, "Error: detector broken failed on 40 documents: AttributeError" in result.err) == (1, True)


def test_an_observer_is_for_those_detectors_that_compare_two_models(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    names = ("--detector", "binoculars", "--detector", "log-likelihood", "--observer", "@1")
    own_cache = ("--cache", tmp_path / "cache")  # features of two models are of another kind than the session's
    result = evaluate(pawn, toy, labelled, tmp_path / "report", *names, *own_cache)
    assert result.code == 3, result.err
    judged = pl.read_parquet(tmp_path / "report" / "judgements.parquet")
    assert judged["detector"].value_counts(sort=True).rows() == [("binoculars", 40), ("log-likelihood", 40)]


def test_texts_without_both_classes_and_unknown_detectors_are_refused(
    toy: Toy, tmp_path: Path, pawn: Pawn, labelled: Path
) -> None:
    unknown = evaluate(pawn, toy, labelled, tmp_path / "out", "--detector", "log-likelyhood")
    assert (unknown.code, "did you mean log-likelihood?" in unknown.err) == (2, True)
    untrained = evaluate(pawn, toy, labelled, tmp_path / "out", "--detector", "lightgbm")
    assert (untrained.code, "must be trained first" in untrained.err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def config(toy: Toy, tmp_path: Path) -> Path:
    """Two corpora of the session's texts, cheap detectors, a curve and left-out domains."""
    rows = labelled_rows()
    for number, row in enumerate(rows):
        row |= {"domain": ("a", "b", "c")[number // 2 % 3], "generator": "g" if row["label"] else "human"}
    write_jsonl(tmp_path / "one.jsonl", rows[:160])
    write_jsonl(tmp_path / "two.jsonl", rows[160:])
    content = {
        "corpora": {"one": "one.jsonl", "two": ["two.jsonl"]},
        "detectors": ["log-likelihood", {"name": "gltr-buckets", "label": "buckets"}],
        "protocols": ["in-domain", "domain", "length"],
        "backbone": str(toy.model),
        "resamples": 100,
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def benchmark(pawn: Pawn, toy: Toy, config: Path, *more: object) -> Result:
    return pawn("benchmark", config, "-o", config.parent / "out", "--cache", toy.cache, "--no-progress", *more)


def test_a_benchmark_judges_every_detector_by_every_protocol_and_keeps_it(toy: Toy, config: Path, pawn: Pawn) -> None:
    first = benchmark(pawn, toy, config)
    assert first.code == 0, first.err
    out = config.parent / "out"
    judged = pl.read_parquet(out / "judgements.parquet")
    cells = judged.select("detector", "protocol", "held_out").unique()
    assert len(cells) == 2 * (1 + 3 + 6)
    for domain in "abc":
        left_out = judged.filter(protocol="domain", held_out=domain)
        assert set(left_out.filter(part="test")["domain"]) == {domain}
        assert domain not in set(left_out.filter(part="calibration")["domain"])
    assert judged.filter(protocol="length", held_out="16 tokens", part="test")["n_tokens"].max() == 16
    means = pl.read_csv(out / "means.csv")
    assert set(means["detector"]) == {"log-likelihood", "buckets"}

    again = benchmark(pawn, toy, config)
    assert again.code == 0, again.err
    assert "20 of 20 are judged already and kept" in again.err
    assert pl.read_parquet(out / "judgements.parquet").equals(judged)

    (out / "judgements").joinpath(next((out / "judgements").glob("*buckets*-0-????????????????.parquet")).name).unlink()
    third = benchmark(pawn, toy, config)
    assert "19 of 20 are judged already and kept" in third.err
    assert pl.read_parquet(out / "judgements.parquet").equals(judged)


def test_a_benchmark_of_a_share_judges_that_share(toy: Toy, config: Path, pawn: Pawn) -> None:
    content = yaml.safe_load(config.read_text()) | {"protocols": ["domain"], "detectors": ["log-likelihood"]}
    config.write_text(yaml.safe_dump(content))
    benchmark(pawn, toy, config)
    whole = pl.read_parquet(config.parent / "out" / "judgements.parquet")
    config.write_text(yaml.safe_dump(content | {"share": 0.5}))
    result = benchmark(pawn, toy, config)
    assert result.code == 0, result.err
    part = pl.read_parquet(config.parent / "out" / "judgements.parquet")
    assert set(part["id"]) < set(whole["id"])
    config.write_text(yaml.safe_dump(content | {"share": 2}))
    assert "share: expected a number above 0, at most 1, got 2" in benchmark(pawn, toy, config).err


def test_a_benchmark_judges_detectors_of_two_models_and_of_several_layers(toy: Toy, config: Path, pawn: Pawn) -> None:
    detectors = ["binoculars", "log-likelihood", {"name": "pawn-layers", "settings": {"epochs": 1}}, "logistic"]
    more = {"protocols": ["in-domain"], "detectors": detectors, "observer": "@1", "layers": [1, 2]}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | more))
    own_cache = ("--cache", config.parent / "kinds")  # features of other kinds than the session's
    result = benchmark(pawn, toy, config, *own_cache)
    assert result.code == 0, result.err
    assert "Features of observer @1" in result.err
    assert "Features of hidden states of layers 1, 2" in result.err
    judged = pl.read_parquet(config.parent / "out" / "judgements.parquet")
    ids = {name: frame["id"].to_list() for (name,), frame in judged.group_by("detector")}
    assert set(ids) == {"binoculars", "log-likelihood", "pawn-layers", "logistic"}
    assert len({tuple(found) for found in ids.values()}) == 1  # the same documents for all

    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"layers": [2]}))
    again = benchmark(pawn, toy, config, *own_cache)
    assert "3 of 4 are judged already and kept" in again.err  # other layers, another detector


def test_a_detector_of_ones_own_is_judged_anew_when_its_source_changes(
    toy: Toy, config: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    more = {"protocols": ["in-domain"], "detectors": ["changing:Surprise"]}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | more))
    scores = []
    for source in (OWN, OWN.replace("-document", "document")):
        (config.parent / "changing.py").write_text(source)
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        result = benchmark(pawn, toy, config)
        assert result.code == 0, result.err
        scores.append(pl.read_parquet(config.parent / "out" / "judgements.parquet")["score"].to_list())
    assert scores[1] == [-score for score in scores[0]]


def test_a_benchmark_refuses_an_observer_that_is_not_there_before_it_extracts(
    toy: Toy, config: Path, pawn: Pawn, tmp_path: Path
) -> None:
    more = {"detectors": ["binoculars"], "observer": "@99"}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | more))
    result = pawn("benchmark", config, "-o", tmp_path / "out", "--cache", tmp_path / "fresh", "--no-progress")
    assert (result.code, "no early exit @99" in result.err) == (2, True)
    assert not list((tmp_path / "fresh").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("faulty", "told"),
    [
        ("return 1 / 0 + np.array([", "left out: detector surprise failed on"),
        ("return np.nan * np.array([", "scores are missing"),
    ],
)
def test_a_detector_of_ones_own_that_fails_leaves_the_others_their_folds(
    toy: Toy, config: Path, pawn: Pawn, monkeypatch: pytest.MonkeyPatch, faulty: str, told: str
) -> None:
    monkeypatch.chdir(config.parent)
    name = f"faulty_{len(faulty)}"  # a module of its own: Python keeps those that it has read
    (config.parent / f"{name}.py").write_text(OWN.replace("return np.array([", faulty))
    more = {"protocols": ["in-domain"], "detectors": [f"{name}:Surprise", "rank"]}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | more))
    result = benchmark(pawn, toy, config)
    assert result.code == 3, result.err
    assert told in result.err
    assert told in (config.parent / "out" / "report.md").read_text()
    assert set(pl.read_parquet(config.parent / "out" / "judgements.parquet")["detector"]) == {"rank"}


def test_a_fold_with_nothing_to_judge_is_told_and_left_out(toy: Toy, config: Path, pawn: Pawn) -> None:
    write_jsonl(config.parent / "one.jsonl", labelled_rows()[:6])
    more = {"protocols": ["in-domain", "domain"], "detectors": ["rank"], "corpora": {"one": "one.jsonl"}}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | more))
    result = benchmark(pawn, toy, config)
    assert "left out: no text is left to judge" in result.err


def test_a_benchmark_is_a_run_with_a_child_for_each_cell(toy: Toy, config: Path, pawn: Pawn, run_store: str) -> None:
    from mlflow import MlflowClient

    content = yaml.safe_load(config.read_text()) | {"protocols": ["in-domain"]}
    config.write_text(yaml.safe_dump(content))
    result = benchmark(pawn, toy, config, "--track", "--tracking-uri", run_store)
    assert result.code == 0, result.err
    client = MlflowClient(run_store)
    (experiment,) = [found for found in client.search_experiments() if found.name == "pawn-detect"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert (len(parents), len(runs)) == (1, 3)
    benchmark(pawn, toy, config, "--track", "--tracking-uri", run_store)  # all of it is kept, and still in the new run
    assert len(client.search_runs([experiment.experiment_id])) == 2 * 3
    assert any(name.startswith("in-domain/buckets/auroc") for name in parents[0].data.metrics)
    kept = {item.path for item in client.list_artifacts(parents[0].info.run_id)}
    assert {"report.md", "judgements.parquet", "figures.csv", "plots"} <= kept


def test_the_benchmark_of_this_repository_names_every_detector_and_protocol() -> None:
    path = REPOSITORY / "benchmarks" / "quality.yaml"
    if not (path.parent / "../../shared/data").is_dir():
        pytest.skip("the corpora are not beside this checkout")
    config = BenchmarkConfig.read(path)
    assert set(config.protocols) == set(PROTOCOLS)
    assert {contender.name for contender in config.detectors} == {entry.name for entry in ENTRIES}


@pytest.mark.parametrize(
    ("name", "detector"), [("ablation", "pawn-ensemble"), ("rivals", "pawn-ensemble"), ("codecs", "covariance")]
)
def test_the_other_benchmarks_of_this_repository_name_detectors_that_there_are(
    name: str, detector: str, tmp_path: Path
) -> None:
    path = tmp_path / "benchmarks" / f"{name}.yaml"
    config = yaml.safe_load((REPOSITORY / "benchmarks" / path.name).read_text())
    path.parent.mkdir()
    for files in (config["corpora"], config.get("only_learnt", {})):
        for corpus, file in files.items():
            files[corpus] = Path(file).name
            (path.parent / files[corpus]).touch()
    path.write_text(yaml.safe_dump(config))
    assert detector in {contender.name for contender in BenchmarkConfig.read(path).detectors}


def test_everything_that_is_wrong_with_a_configuration_is_said_at_once(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    content = {
        "corpora": {"mine": "nowhere.parquet"},
        "detectors": [
            "binoculars",
            "lightgbmm",
            {"name": "pawn", "settings": {"epoch": 3}},
            str(toy.detector),
            {"name": "rank", "settings": [1]},
        ],
        "protocols": ["in-domian"],
        "fprs": [0.1, 0.1],
        "seeds": 0,
        "sizes": [1],
    }
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps(content))
    result = pawn("benchmark", path, "-o", tmp_path / "out", "--cache", toy.cache)
    assert result.code == 2
    for line in (
        f"- corpora: mine: no file {tmp_path / 'nowhere.parquet'}",
        "did you mean lightgbm?",
        "binoculars compares two language models: name the second as observer",
        "detector pawn cannot be trained like that",
        "was trained already, perhaps on the texts that it would be judged on",
        "- protocols: expected a list of in-domain, corpus, domain",
        "- seeds: expected a list of whole numbers from 0, each once, got 0",
        "- fprs: expected a list of rates between 0 and 1, each once, got [0.1, 0.1]",
        "- detectors: settings of rank: expected names with values, got [1]",
        "- unknown field 'sizes'",
    ):
        assert line in result.err, line


def test_raid_writes_a_submission_of_one_detector(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    texts = toy.texts["text"].to_list()[:6]
    path = tmp_path / "test.csv"
    pl.DataFrame({"id": [f"r{place}" for place in range(6)], "generation": texts}).write_csv(path)
    shared = ("--raid", path, "-o", tmp_path / "mine", "--cache", toy.cache, "--backbone", toy.model, "--no-progress")
    anonymous = pawn("evaluate", "--detector", toy.detector, *shared)
    assert (anonymous.code, "the leaderboard asks for a contact_info" in anonymous.err) == (2, True)
    two = pawn("evaluate", "--detector", toy.detector, "--detector", "rank", *shared)
    assert (two.code, "a submission is of one detector, got 2" in two.err) == (2, True)
    done = pawn("evaluate", "--detector", toy.detector, "--contact", "me@example.org", *shared)
    assert done.code == 0, done.err
    predictions = json.loads((tmp_path / "mine" / "predictions.json").read_text())
    assert [row["id"] for row in predictions] == [f"r{place}" for place in range(6)]


def test_a_submission_is_a_run_with_its_files_that_can_be_reproduced(
    toy: Toy, tmp_path: Path, pawn: Pawn, run_store: str
) -> None:
    path = tmp_path / "test.csv"
    pl.DataFrame({"id": [f"r{place}" for place in range(6)], "generation": toy.texts["text"][:6]}).write_csv(path)
    shared = ("--cache", toy.cache, "--backbone", toy.model, "--contact", "me", "--track", "--tracking-uri", run_store)
    result = pawn("evaluate", "--detector", toy.detector, "--raid", path, "-o", tmp_path / "mine", *shared)
    assert result.code == 0, result.err
    client, run = only_run(run_store)
    assert (run.data.tags["pawn.kind"], run.info.run_name) == ("evaluate", "mine")
    assert run.data.params["scoring.detector"] == str(toy.detector)
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["test.csv"]
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {"run.json", "predictions.json", "metadata.json", "scores.parquet"}
    scores = pl.read_parquet(tmp_path / "mine" / "scores.parquet")["score"]
    assert run.data.metrics["cost/wall_seconds"] > 0
    assert run.data.metrics["score mean"] == pytest.approx(scores.mean())
    path.rename(tmp_path / "moved.csv")
    where = ("--data", tmp_path / "moved.csv", "-o", tmp_path / "again", "--tracking-uri", run_store)
    again = pawn("reproduce", run.info.run_id, *where)
    assert again.code == 0, again.err + again.out
    assert "all 4 agree" in again.out


@pytest.mark.parametrize("option", ["--fpr=0.1", "--calibrate-on=x", "--label-column=x", "--resamples=100"])
def test_what_means_nothing_for_a_submission_is_refused(toy: Toy, tmp_path: Path, pawn: Pawn, option: str) -> None:
    shared = ("evaluate", "--detector", toy.detector, "-o", tmp_path / "out")
    result = pawn(*shared, "--raid", "test.csv", option)
    assert (result.code, f"{option.partition('=')[0]} does nothing with --raid" in result.err) == (2, True)
    result = pawn(*shared, "--data", "x.csv", "--contact", "me")
    assert (result.code, "--contact is of a submission" in result.err) == (2, True)


def test_an_output_that_is_a_file_is_refused_before_the_work(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn
) -> None:
    (tmp_path / "file").write_text("mine")
    result = evaluate(pawn, toy, labelled, tmp_path / "file", "--detector", "log-likelihood")
    assert (result.code, "is a file; choose another folder with -o" in result.err) == (2, True)
    result = evaluate(pawn, toy, labelled, tmp_path / "out", "--detector", "log-likelihood", "--fpr", "nan")
    assert (result.code, "nan is no number" in result.err) == (2, True)


def test_one_of_data_and_raid_is_needed(toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    result = pawn("evaluate", "--detector", toy.detector, "-o", tmp_path / "out")
    assert (result.code, "give labelled texts with --data, or RAID's test file with --raid" in result.err) == (2, True)


def test_an_evaluation_is_a_run_that_can_be_reproduced(
    toy: Toy, labelled: Path, others: Path, tmp_path: Path, pawn: Pawn, run_store: str
) -> None:
    tracked = ("--track", "--tracking-uri", run_store)
    names = ("--detector", toy.detector, "--detector", "rank", "--calibrate-on", others)
    first = evaluate(pawn, toy, labelled, tmp_path / "first", *names, *tracked)
    assert first.code == 3, first.err
    _, run = only_run(run_store)
    assert run.data.tags["mlflow.runName"] == "first"
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"labelled.jsonl", "others.jsonl"}
    again = pawn("reproduce", run.info.run_id, "-o", tmp_path / "again", "--tracking-uri", run_store)
    assert again.code == 0, again.err + again.out
    written = [
        pl.read_parquet(path / "judgements.parquet") for path in (tmp_path / "first", tmp_path / "again" / "first")
    ]
    assert written[0].equals(written[1])


def test_an_evaluation_is_reproduced_where_data_detector_and_store_have_moved(
    toy: Toy, labelled: Path, tmp_path: Path, pawn: Pawn, run_store: str
) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    (before / "texts").mkdir(parents=True)
    lines = labelled.read_text().splitlines(keepends=True)
    for name, part in (("one", lines[:20]), ("two", lines[20:])):
        (before / "texts" / f"{name}.jsonl").write_text("".join(part))
    shutil.copy(toy.data, before / "fixing.jsonl")
    shutil.copytree(toy.detector, before / "detector")
    options = ("--detector", before / "detector", "--calibrate-on", before / "fixing.jsonl")
    tracked = ("--track", "--tracking-uri", run_store)
    first = evaluate(pawn, toy, before / "texts", tmp_path / "first", *options, *tracked)
    assert first.code == 3, first.err
    _, run = only_run(run_store)
    used = {item.dataset.name: item.tags[0].value for item in run.inputs.dataset_inputs}
    assert used == {"one.jsonl": "evaluation", "two.jsonl": "evaluation", "fixing.jsonl": "calibration"}

    before.rename(now)
    store = f"sqlite:///{(tmp_path / 'runs').rename(tmp_path / 'copied')}/mlflow.db"
    (now / "fixing.jsonl").rename(now / "renamed.jsonl")
    again = ("reproduce", run.info.run_id, "--tracking-uri", store, "--data", now, "-o", tmp_path / "again")
    lost = pawn(*again)
    assert (lost.code, f"in {before / 'detector'}, which is not there. Say with --detector" in lost.err) == (1, True)
    found = pawn(*again, "--detector", now / "detector")
    assert found.code == 0, found.err + found.out
    assert f"the repetition is in sqlite:///{tmp_path / 'again' / 'mlflow.db'}" in found.err
    written = [
        pl.read_parquet(folder / "judgements.parquet") for folder in (tmp_path / "first", tmp_path / "again/first")
    ]
    assert written[0].drop("corpus").equals(written[1].drop("corpus"))
    assert not (tmp_path / "runs").exists()


def test_a_benchmark_is_reproduced_where_its_data_have_moved(
    toy: Toy, config: Path, pawn: Pawn, run_store: str, tmp_path: Path
) -> None:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"protocols": ["in-domain"]}))
    assert benchmark(pawn, toy, config, "--track", "--tracking-uri", run_store).code == 0
    _, run = only_run(run_store)
    (tmp_path / "now").mkdir()
    (tmp_path / "one.jsonl").rename(tmp_path / "now" / "1.jsonl")
    (tmp_path / "two.jsonl").rename(tmp_path / "now" / "2.jsonl")
    config.unlink()
    where = ("--data", tmp_path / "now", "-o", tmp_path / "again", "--tracking-uri", run_store)
    again = pawn("reproduce", run.info.run_id, *where)
    assert again.code == 0, again.err + again.out
    assert again.out.splitlines()[-1].endswith(" agree")
    written = [pl.read_parquet(folder / "judgements.parquet") for folder in (tmp_path / "out", tmp_path / "again/out")]
    assert written[0].drop("id").equals(written[1].drop("id"))
