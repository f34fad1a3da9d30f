import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from cache.loader import CachedCorpus, LabelledCorpus
from cache.store import FeatureStore
from detect.pawn import PawnDetector
from detect.pawn_network import Pawn
from detect.pawn_scoring import score_network
from detect.trained import DetectorCard
from detect.training import TrainingConfig, fit_pawn
from features.errors import DetectorError, UsageError
from features.token_features import METRIC_NAMES, TokenFeatures
from tests.cache.feature_makers import FINGERPRINT

HIDDEN, METRICS = 7, len(METRIC_NAMES)


def make_detector(seed: int = 0, **arguments) -> PawnDetector:
    torch.manual_seed(seed)
    network = Pawn(hidden_size=HIDDEN, metric_count=METRICS, width=10, gates=5, **arguments)
    network.set_standardisation(
        metric_mean=torch.randn(METRICS),
        metric_std=torch.rand(METRICS) + 0.5,
        hidden_mean=torch.randn(HIDDEN),
        hidden_std=torch.rand(HIDDEN) + 0.5,
        likelihood_mean=torch.randn(1),
        likelihood_std=torch.rand(1) + 0.5,
    )
    card = DetectorCard(
        name="tiny", backbone={"weights_id": "abc"}, training={"seed": seed}, calibration="calibration.json"
    )
    return PawnDetector(network, card)


def make_features(lengths=(5, 2, 11, 3), hidden: int = HIDDEN, metrics: int = METRICS, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [
        TokenFeatures(
            key=f"document-{index}",
            token_ids=np.arange(n, dtype=np.int32),
            kinds=np.zeros(n, dtype=np.uint8),
            offsets=np.zeros((n, 2), dtype=np.int32),
            metrics=rng.normal(size=(n - 1, metrics)).astype(np.float32),
            hidden=rng.normal(size=(n, hidden)).astype(np.float16),
            truncated=False,
        )
        for index, n in enumerate(lengths)
    ]


def edit_card(directory, change) -> None:
    path = directory / "detector.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_score_of_a_document_is_the_same_alone_and_in_any_batch():
    detector, features = make_detector(), make_features()
    alone = np.concatenate([detector.score([document]) for document in features])
    assert alone.dtype == np.float64
    assert len(np.unique(alone)) == len(features)
    for token_budget in (1, 9, 10_000):
        detector.token_budget = token_budget
        # float32: another batch shape may sum in another order
        np.testing.assert_allclose(detector.score(features), alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(detector.score(features[::-1]), alone[::-1], rtol=1e-5, atol=1e-6)


def test_no_documents_no_scores():
    assert make_detector().score([]).shape == (0,)


def test_scoring_in_the_middle_of_training_has_no_dropout_and_leaves_training_on():
    detector, features = make_detector(token_dropout=0.9), make_features()
    expected = detector.score(features)
    detector.network.train()
    np.testing.assert_array_equal(score_network(detector.network, features), expected)
    assert detector.network.training
    np.testing.assert_array_equal(detector.score(features), expected)


def test_bfloat16_scores_are_near_the_float32_ones():
    detector, features = make_detector(), make_features()
    expected = detector.score(features)
    detector.precision = "bfloat16"
    found = detector.score(features)
    assert not np.array_equal(found, expected)
    # bfloat16 keeps 8 bits, 2^-8 = 0.004 relative a rounding; measured over 30 seeds: at most 0.012
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("arguments", [{}, {"use_hidden": False}, {"use_metrics": False}, {"likelihood_weight": 0.7}])
def test_saved_and_loaded_detector_gives_the_same_scores(tmp_path, arguments):
    detector, features = make_detector(**arguments), make_features()
    detector.save(tmp_path / "new" / "detector")
    loaded = PawnDetector.load(tmp_path / "new" / "detector", precision="float32", token_budget=100)
    np.testing.assert_array_equal(loaded.score(features), detector.score(features))
    assert loaded.card == detector.card
    assert loaded.name == "tiny"
    assert loaded.network.arguments == detector.network.arguments
    assert sorted(path.name for path in (tmp_path / "new" / "detector").iterdir()) == [
        "detector.json",
        "model.safetensors",
    ]


def test_float16_weights_halve_the_file_and_keep_scores_and_hash(tmp_path):
    detector, features = make_detector(), make_features()
    detector.save(tmp_path / "float32")
    detector.save(tmp_path / "float16", dtype="float16")
    sizes = [(tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("float16", "float32")]
    parameters = sum(parameter.numel() for parameter in detector.network.parameters())
    assert abs(sizes[1] - sizes[0] - 2 * parameters) < 64  # the header names the dtypes
    loaded = PawnDetector.load(tmp_path / "float16")
    assert {tensor.dtype for tensor in loaded.network.state_dict().values()} == {torch.float32}
    # float16 keeps 11 bits, 2^-11 = 0.0005 relative a weight; measured over 30 seeds: at most 0.0011
    np.testing.assert_allclose(loaded.score(features), detector.score(features), atol=2e-3)
    recorded = json.loads((tmp_path / "float16" / "detector.json").read_text())["weights"]
    assert recorded["dtype"] == "float16"
    assert loaded.weights_sha256() == detector.weights_sha256("float16") == recorded["sha256"]
    assert detector.weights_sha256() != recorded["sha256"]
    loaded.save(tmp_path / "again")
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (tmp_path / "float16" / "model.safetensors").read_bytes()


def test_standardisation_is_saved_in_float32_beside_float16_weights(tmp_path):
    detector = make_detector()
    detector.network.hidden_std[0] = 1e-9  # 0 in float16
    detector.save(tmp_path, dtype="float16")
    assert PawnDetector.load(tmp_path).network.hidden_std[0] == detector.network.hidden_std[0]


@pytest.mark.parametrize("name", ["detector.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    make_detector().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DetectorError, match=f"cannot read .*{name} .No such file"):
        PawnDetector.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(kind="pooled"), "kind 'pooled', expected 'pawn'"),
        (lambda card: card.update(format_version=2), "format version 2, this program reads 1"),
        (lambda card: card.pop("format_version"), "format version None, this program reads 1"),
        (lambda card: card.pop("network"), "does not describe a PAWN detector .KeyError.'network'"),
        (lambda card: card["weights"].update(dtype="int8"), "PAWN detector .*unknown weights dtype 'int8'"),
        (lambda card: card["network"].update(depth=3), "does not describe a PAWN detector .*'depth'"),
        (lambda card: card["network"].update(hidden_size=-1), "does not describe a PAWN detector .*negative"),
        (lambda card: card["network"].update(gates=3), "got 3 gates and width 10"),
        (lambda card: card.update(metric_version=99), r"\(version 99\), this program computes"),
        (lambda card: card["metric_names"].reverse(), "trained on metrics log_prob_variance, top_p"),
        (
            lambda card: card["network"].update(hidden_size=8),
            r"hidden_mean is \(7,\), the card's network needs \(8,\)",
        ),
        (
            lambda card: card["network"].update(use_hidden=False),
            r"gate_input.weight is missing, the card's network needs \(10, 7\)",
        ),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path, change, message):
    make_detector(token_dropout=0.0).save(tmp_path)
    edit_card(tmp_path, change)
    with pytest.raises(DetectorError, match=message):
        PawnDetector.load(tmp_path)


def test_weights_that_the_network_lacks_are_named(tmp_path):
    make_detector().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(save({**load(weights.read_bytes()), "extra": torch.zeros(1)}))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    edit_card(tmp_path, lambda card: card["weights"].update(sha256=sha256))
    with pytest.raises(DetectorError, match="holds extra, which the card's network lacks"):
        PawnDetector.load(tmp_path)


def test_a_flipped_bit_in_the_weights_is_refused(tmp_path):
    detector = make_detector()
    detector.save(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DetectorError, match=f"detector.json says {detector.weights_sha256()}"):
        PawnDetector.load(tmp_path)


def test_weights_of_another_detector_are_refused(tmp_path):
    other = make_detector(seed=1)
    make_detector(seed=0).save(tmp_path / "a")
    other.save(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(DetectorError, match=f"has SHA-256 {other.weights_sha256()}"):
        PawnDetector.load(tmp_path / "a")


def test_a_hashed_file_that_is_not_safetensors_is_refused(tmp_path):
    make_detector().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing
    edit_card(tmp_path, lambda card: card["weights"].update(sha256=empty))
    with pytest.raises(DetectorError, match=r"model.safetensors is not a safetensors file"):
        PawnDetector.load(tmp_path)


def test_features_of_another_backbone_are_refused_with_both_sizes():
    with pytest.raises(DetectorError, match=r"tiny reads hidden states of size 7, the features have 11"):
        make_detector().score(make_features(hidden=11))
    make_detector(use_hidden=False).score(make_features(hidden=11))  # reads none
    assert make_detector().needs_hidden
    assert make_detector(use_metrics=False).needs_hidden
    assert not make_detector(use_hidden=False).needs_hidden


def test_features_with_another_number_of_metrics_are_refused_with_both():
    with pytest.raises(DetectorError, match="reads 6 metrics a token, the features have 5"):
        make_detector().score(make_features(metrics=5))


def test_a_document_without_a_scored_token_is_refused():
    with pytest.raises(ValueError, match=r"rows \[1\] have no scored position"):
        make_detector().score(make_features(lengths=(1, 3)))


def test_unknown_precision_is_refused():
    detector = make_detector()
    with pytest.raises(UsageError, match="one of float32, bfloat16, got 'float8'"):
        PawnDetector(detector.network, detector.card, precision="float8")
    with pytest.raises(UsageError, match="got 'float64'"):
        score_network(detector.network, [], precision="float64")


def test_card_with_another_number_of_metrics_is_refused():
    card = DetectorCard(name="tiny", backbone={}, metric_names=("entropy",))
    with pytest.raises(ValueError, match="the network reads 6 metrics, the card names 1"):
        PawnDetector(make_detector().network, card)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_crop": 1}, "at least 2 for min_crop and max_tokens, got 1 and None"),
        ({"max_tokens": 1}, "at least 2 for min_crop and max_tokens, got 16 and 1"),
        ({"learning_rate": 0.0}, r"expected learning_rate above 0, got 0\.0"),
        ({"token_budget": -5}, "expected token_budget above 0, got -5"),
        ({"gradient_clip": -1.0}, r"expected gradient_clip above 0, got -1\.0"),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_a_training_that_diverges_says_so(tmp_path):
    store = FeatureStore(tmp_path, FINGERPRINT)
    documents = make_features(lengths=range(20, 44), hidden=HIDDEN)
    store.write(documents)
    labelled = LabelledCorpus(CachedCorpus(store, [document.key for document in documents]), np.arange(24) % 2)
    config = TrainingConfig(epochs=1, batch_size=4, learning_rate=1e30, likelihood_weight=0.0)
    network = Pawn(hidden_size=HIDDEN, metric_count=METRICS, width=10, gates=5)
    with pytest.raises(DetectorError, match=r"diverged in epoch 1: .* ask for a learning_rate below 1e\+30"):
        fit_pawn(network, labelled, labelled, config)
