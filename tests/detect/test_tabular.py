"""The detectors on pooled features, boosted and linear: what holds for both, then what each computes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cache.loader import LabelledCorpus
from detect.boosted import BoostedDetector, BoostingConfig
from detect.catalog import new_detector, read_detector
from detect.linear import LinearConfig, LinearDetector
from detect.measures import auroc
from detect.pooled import POOLINGS, prefix_lengths
from detect.protocol import Detector, needs_hidden
from detect.tabular import balanced_weights
from detect.trained import DetectorCard, TrainableDetector, sha256, streamed_scores
from features.errors import DetectorError
from features.token_features import TokenFeatures
from tests.cache.feature_makers import HIDDEN_SIZE
from tests.conftest import REPOSITORY
from tests.detect.made_up import document, labelled

SETTINGS: dict[str, dict[str, Any]] = {
    "lightgbm": {"rounds": 30},
    "diveye": {"rounds": 30},
    "profile": {"rounds": 30},
    "gltr-buckets": {},
    "logistic": {},
    "bilinear": {},
    "covariance": {},
}
NAMES = sorted(SETTINGS)
OF_HIDDEN_STATES = {"logistic", "bilinear", "covariance"}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpus:
    return labelled(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpus:
    return labelled(tmp_path_factory.mktemp("validation"), 120, first=1000)


def fitted(name: str, train: LabelledCorpus, validation: LabelledCorpus, seed: int = 0) -> TrainableDetector:
    return new_detector(name, hidden_size=HIDDEN_SIZE, seed=seed, **SETTINGS[name]).fit(train, validation)


@pytest.fixture(scope="module")
def detectors(train: LabelledCorpus, validation: LabelledCorpus) -> dict[str, TrainableDetector]:
    return {name: fitted(name, train, validation) for name in NAMES}


@pytest.fixture(scope="module")
def others() -> list[TokenFeatures]:
    return [document(5000 + number, number % 2) for number in range(60)]


@pytest.mark.parametrize("name", NAMES)
def test_machine_documents_score_higher(name: str, detectors, others) -> None:
    scores = detectors[name].score(others)
    assert scores.shape == (60,)
    assert scores.dtype == np.float64
    assert auroc(np.arange(60) % 2, scores) > {"gltr-buckets": 0.65}.get(name, 0.85)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_company_and_no_documents_have_none(name: str, detectors, others) -> None:
    together = detectors[name].score(others)
    assert np.concatenate([detectors[name].score([item]) for item in others]).tolist() == together.tolist()
    assert detectors[name].score([]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(name: str, detectors, train, validation, tmp_path: Path) -> None:
    detectors[name].save(tmp_path / "one")
    fitted(name, train, validation).save(tmp_path / "again")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_another_seed_gives_other_trees(detectors, train, validation) -> None:
    assert fitted("lightgbm", train, validation, seed=1).weights_sha256() != detectors["lightgbm"].weights_sha256()


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_detector_scores_as_before(name: str, detectors, others, tmp_path: Path) -> None:
    detector = detectors[name]
    detector.save(tmp_path / "new" / "folder")
    loaded = read_detector(tmp_path / "new" / "folder")
    assert type(loaded) is type(detector)
    assert isinstance(loaded, Detector)
    assert isinstance(loaded, TrainableDetector)
    assert loaded.score(others).tolist() == detector.score(others).tolist()
    assert loaded.name == name
    assert json.loads(json.dumps(loaded.card.training)) == json.loads(json.dumps(detector.card.training))
    weights = "model.txt" if isinstance(detector, BoostedDetector) else "model.safetensors"
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(["detector.json", weights])
    assert loaded.weights_sha256() == sha256((tmp_path / "new" / "folder" / weights).read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_says_whether_it_reads_hidden_states(name: str, detectors, others) -> None:
    assert needs_hidden(detectors[name]) == (name in OF_HIDDEN_STATES)
    wider = [document(1, 0)]
    wider[0] = replace(wider[0], hidden=np.zeros((wider[0].n_tokens, 11), np.float16))
    if name in OF_HIDDEN_STATES:
        with pytest.raises(DetectorError, match="reads hidden states of size 5, the features have 11"):
            detectors[name].score(wider)
    else:
        assert np.isfinite(detectors[name].score(wider)).all()


@pytest.mark.parametrize("name", NAMES)
def test_features_that_cannot_be_scored_are_refused(name: str, detectors) -> None:
    item = document(1, 0, 5)
    fewer = replace(item, metrics=item.metrics[:, :5])
    with pytest.raises(DetectorError, match=f"detector {name} reads 6 metrics a token, the features have 5"):
        detectors[name].score([fewer])
    short = replace(item, key="abc", token_ids=item.token_ids[:1], kinds=item.kinds[:1], metrics=item.metrics[:0])
    with pytest.raises(ValueError, match="document abc has no scored token"):
        detectors[name].score([short])


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_that_was_never_trained_says_so(name: str, others, tmp_path: Path) -> None:
    detector = new_detector(name, hidden_size=HIDDEN_SIZE)
    with pytest.raises(DetectorError, match=f"detector {name} is not trained yet; fit it first"):
        detector.score(others)
    with pytest.raises(DetectorError, match="not trained yet"):
        detector.save(tmp_path)


def edit_card(folder: Path, change: Any) -> None:
    card = json.loads((folder / "detector.json").read_text())
    change(card)
    (folder / "detector.json").write_text(json.dumps(card))


@pytest.mark.parametrize("name", ["lightgbm", "logistic"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(kind="pawn"), "kind 'pawn', expected"),
        (lambda card: card.update(format_version=9), "format version 9, this program reads 1"),
        (lambda card: card.pop("weights"), "does not describe a (boosted|linear) detector .KeyError.'weights'"),
        (lambda card: card["training"]["config"].update(depth_of=3), "does not describe a .*'depth_of'"),
        (
            lambda card: card.update(pooling="max"),
            "names pooling 'max', expected one of metrics, profile, metric-profile",
        ),
        (lambda card: card.update(columns=["a"]), "other columns than this program's pooling '(metrics|mean-hidden)'"),
        (lambda card: card.update(metric_version=99), r"\(version 99\), this program computes"),
        (lambda card: card["weights"].update(sha256="0" * 64), "detector.json says 0000"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(name: str, change, message: str, detectors, tmp_path: Path) -> None:
    detectors[name].save(tmp_path)
    edit_card(tmp_path, change)
    with pytest.raises(DetectorError, match=message):
        type(detectors[name]).load(tmp_path)


@pytest.mark.parametrize("name", ["lightgbm", "logistic"])
def test_weights_that_are_missing_changed_or_something_else_are_refused(name: str, detectors, tmp_path: Path) -> None:
    detectors[name].save(tmp_path)
    (weights,) = (path for path in tmp_path.iterdir() if path.name.startswith("model."))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(DetectorError, match=f"{weights.name} has SHA-256 {sha256(bytes(content))}, detector.json says"):
        type(detectors[name]).load(tmp_path)
    weights.write_bytes(b"something else")
    edit_card(tmp_path, lambda card: card["weights"].update(sha256=sha256(b"something else")))
    with pytest.raises(DetectorError, match=r"is not a LightGBM model|holds no linear weights"):
        type(detectors[name]).load(tmp_path)
    weights.unlink()
    with pytest.raises(DetectorError, match=f"cannot read .*{weights.name} .No such file"):
        type(detectors[name]).load(tmp_path)


def test_boosting_stops_at_the_round_with_the_best_validation_auroc(train, validation) -> None:
    told: list[dict[str, float]] = []

    def listen(event: str, values: Any) -> None:
        if event == "round":
            told.append(dict(values))

    detector = new_detector("lightgbm", hidden_size=HIDDEN_SIZE, rounds=200, patience=7, prefixes=0)
    detector.fit(train, validation, listen)
    course = detector.card.training
    best = int(np.argmax(course["validation_auroc"])) + 1
    assert course["best_round"] == best < 200
    assert len(course["validation_auroc"]) == best + 7 == len(told)
    assert told[0] == {"round": 1, "rounds": 200, "validation_auroc": course["validation_auroc"][0]}
    scores = streamed_scores(detector.score, validation.corpus)
    assert auroc(validation.labels, scores) == pytest.approx(course["validation_auroc"][best - 1])


def test_leaves_are_no_larger_than_a_small_table_allows() -> None:
    config = BoostingConfig(leaf_documents=200)
    found = {rows: config.parameters(rows)["min_data_in_leaf"] for rows in (100, 2_500, 20_000, 50_000)}
    assert found == {100: 20, 2_500: 25, 20_000: 200, 50_000: 200}
    assert BoostingConfig(leaf_documents=5).parameters(50_000)["min_data_in_leaf"] == 5


def test_boosted_scores_are_lightgbms_own_log_odds(detectors, others, tmp_path: Path) -> None:
    detectors["diveye"].save(tmp_path)
    booster = lightgbm.Booster(model_file=tmp_path / "model.txt")
    table = np.stack([POOLINGS["surprisal-diversity"].vector(item) for item in others]).astype(np.float32)
    probabilities = booster.predict(table)
    np.testing.assert_allclose(1 / (1 + np.exp(-detectors["diveye"].score(others))), probabilities, rtol=1e-12)


def test_what_rounding_leaves_of_columns_changes_no_split(detectors, train, validation, others, tmp_path: Path) -> None:
    plain = detectors["profile"]
    rng = np.random.default_rng(0)

    def vector(item: TokenFeatures) -> np.ndarray:
        exact = plain.pooling.vector(item)
        return exact * (1 + 1e-15 * rng.standard_normal(len(exact)))

    pooling = replace(plain.pooling, name="added up in another order", vector=vector)
    other = BoostedDetector(DetectorCard(name="profile", backbone=plain.card.backbone), pooling, plain.config)
    other.fit(train, validation).save(tmp_path / "other")
    plain.save(tmp_path / "plain")
    both = [(tmp_path / name / "model.txt").read_text().splitlines() for name in ("other", "plain")]
    first, second = ([line for line in lines if line.startswith("split_feature")] for lines in both)
    assert first == second
    np.testing.assert_allclose(other.score(others), plain.score(others), rtol=1e-6)


def test_a_detector_from_before_profiles_read_tokens_still_scores(train, validation, others, tmp_path: Path) -> None:
    card = DetectorCard(name="profile", backbone={"hidden_size": HIDDEN_SIZE})
    before = BoostedDetector(card, POOLINGS["metric-profile"], BoostingConfig(rounds=20)).fit(train, validation)
    before.save(tmp_path / "before")
    np.testing.assert_array_equal(read_detector(tmp_path / "before").score(others), before.score(others))


def test_trees_are_asked_about_the_rounded_columns_that_they_learnt_from(
    detectors, others, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    predict = lightgbm.Booster.predict
    monkeypatch.setattr(
        lightgbm.Booster, "predict", lambda self, table, **more: asked.append(table) or predict(self, table, **more)
    )
    detectors["profile"].score(others)
    (table,) = asked
    assert (table.dtype, len(table)) == (np.float32, len(others))


def with_prefixes(corpus: LabelledCorpus, pooling: str, prefixes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of whole documents and of their prefixes, and the labels, one document after another."""
    rows, labels = [], []
    for index, item in corpus.corpus.documents():
        lengths = [item.n_tokens, *prefix_lengths(item.key, item.n_tokens, prefixes, seed=0)]
        rows += [POOLINGS[pooling].vector(item.prefix(length)) for length in lengths]
        labels += [corpus.labels[index]] * len(lengths)
    return np.stack(rows), np.array(labels)


@pytest.mark.parametrize(
    ("name", "pooling", "prefixes"),
    [("logistic", "mean-hidden", 4), ("gltr-buckets", "rank-buckets", 0), ("bilinear", "hidden-covariance", 4)],
)
def test_linear_scores_are_scikit_learns_decision_function(
    name: str, pooling: str, prefixes: int, detectors, train, others
) -> None:
    penalty = detectors[name].card.training["inverse_penalty"] / (1 + prefixes)  # a document counts as one
    rows, labels = with_prefixes(train, pooling, prefixes)
    scaler = StandardScaler().fit(rows)
    twin = LogisticRegression(C=penalty, class_weight="balanced", max_iter=5000).fit(scaler.transform(rows), labels)
    expected = twin.decision_function(scaler.transform(np.stack([POOLINGS[pooling].vector(item) for item in others])))
    np.testing.assert_allclose(detectors[name].score(others), expected, rtol=1e-5)


def test_the_penalty_is_the_best_on_validation_and_the_strongest_of_equals(train, validation) -> None:
    detector = new_detector("logistic", hidden_size=HIDDEN_SIZE, inverse_penalties=(1.0, 1e-9, 1e-3), prefixes=2)
    course = detector.fit(train, validation).card.training
    values = dict(zip((1.0, 1e-9, 1e-3), course["validation_auroc"], strict=True))
    assert course["inverse_penalty"] == min(penalty for penalty in values if values[penalty] == max(values.values()))
    scores, labels = [], []
    for index, item in validation.corpus.documents():
        lengths = [item.n_tokens, *prefix_lengths(item.key, item.n_tokens, 2, seed=0)]
        scores += detector.score([item.prefix(length) for length in lengths]).tolist()
        labels += [validation.labels[index]] * len(lengths)
    assert auroc(np.array(labels), np.array(scores)) == pytest.approx(max(values.values()), abs=1e-12)


def test_weights_of_another_size_are_refused(detectors, tmp_path: Path) -> None:
    detectors["logistic"].save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"mean": np.zeros(3)}, tmp_path / "model.safetensors")
    edit_card(
        tmp_path, lambda card: card["weights"].update(sha256=sha256((tmp_path / "model.safetensors").read_bytes()))
    )
    with pytest.raises(DetectorError, match=r"'mean': \(3,\).*expected .*'mean': \(5,\)"):
        LinearDetector.load(tmp_path)


def test_scoring_with_a_linear_detector_needs_no_scikit_learn(detectors, tmp_path: Path) -> None:
    detectors["logistic"].save(tmp_path)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from detect.linear import LinearDetector\n"
        "from tests.detect.made_up import document\n"
        f"print(LinearDetector.load(Path({str(tmp_path)!r})).score([document(1, 0)])[0])\n"
        "print({'sklearn', 'lightgbm'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    score, imported = run.stdout.splitlines()
    assert float(score) == detectors["logistic"].score([document(1, 0)])[0]
    assert imported == "set()"


def test_balanced_weights_give_both_classes_the_same_total() -> None:
    weights = balanced_weights(np.array([0, 1, 1, 1, 0, 1]))
    assert weights[[0, 4]].sum() == pytest.approx(weights[[1, 2, 3, 5]].sum())
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "expected rounds of at least 1, got 0"),
        ({"leaves": 1}, "expected at least 2 leaves, got 1"),
        ({"learning_rate": 0.0}, "expected 0 < learning_rate <= 1, got 0.0"),
        ({"row_share": 1.5}, "expected 0 < row_share <= 1, got 1.5"),
    ],
)
def test_settings_of_boosting_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoostingConfig(**settings)


def test_a_higher_penalty_of_means_is_scikit_learns_on_smaller_columns(train, validation, others) -> None:
    settings = {"inverse_penalties": (0.01,), "mean_penalty": 9.0, "prefixes": 0}
    found = new_detector("covariance", hidden_size=HIDDEN_SIZE, **settings).fit(train, validation).score(others)
    rows, labels = with_prefixes(train, "hidden-covariance-6", 0)
    scaler = StandardScaler().fit(rows)
    smaller = np.array([1 / 3] * HIDDEN_SIZE + [1.0] * (6 * HIDDEN_SIZE))
    twin = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000)
    twin.fit(scaler.transform(rows) * smaller, labels)
    pooled = np.stack([POOLINGS["hidden-covariance-6"].vector(item) for item in others])
    np.testing.assert_allclose(found, twin.decision_function(scaler.transform(pooled) * smaller), rtol=1e-5)
    plain = new_detector("covariance", hidden_size=HIDDEN_SIZE, **settings | {"mean_penalty": 1.0})
    assert np.abs(plain.fit(train, validation).score(others) - found).max() > 0.01


def test_a_penalty_of_means_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a penalty of means above 0, got 0"):
        LinearConfig(mean_penalty=0)


@pytest.mark.parametrize("penalties", [(), (0.1, 0.0)])
def test_penalties_that_cannot_be_are_refused(penalties: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected inverse penalties above 0, got"):
        LinearConfig(inverse_penalties=penalties)
