"""Recipes of detectors that read texts, and their folders by the catalog."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.calibration import Calibration
from detect.catalog import load_detector, text_names
from detect.finetuning import FineTuningConfig
from detect.noise import NoiseConfig
from detect.protocol import TextDetector, reads_text
from detect.text_reading import Reading, readings
from detect.text_recipes import text_recipe
from detect.tfidf import TfidfConfig, TfidfDetector
from detect.trained import TrainableTextDetector
from features.errors import DetectorError, UsageError
from tests.detect.labelled_texts import make_texts
from tests.features.tiny_models import write_tiny_encoder, write_tiny_model

TEXTS = make_texts(9, seed=3).texts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TrainableTextDetector, Path]]:
    folder = tmp_path_factory.mktemp("trained")
    bases = {"encoder": write_tiny_encoder(folder / "e"), "lora": write_tiny_model(folder / "l")}
    found = {}
    for name in text_names():
        settings: dict[str, Any] = {}
        if name in bases:
            settings = {"base": str(bases[name]), "max_length": 20, "device": "cpu", "epochs": 1}
        recipe = text_recipe(name, seed=5, **settings)
        detector = recipe.new(f"my {name}")
        recipe.fit(detector, make_texts(32), make_texts(16, seed=1))
        detector.save(folder / name)
        found[name] = detector, folder / name
    return found


each_name = pytest.mark.parametrize("name", text_names())


@each_name
def test_a_folder_comes_back_with_its_calibration_and_no_backbone(trained: dict[str, Any], name: str) -> None:
    detector, folder = trained[name]
    Calibration(np.arange(7.0), {"detector": name}).save(folder)
    found = load_detector(str(folder), device="cpu")
    assert isinstance(found.detector, TextDetector)
    assert reads_text(found.detector)
    assert (found.backbone, found.fingerprint, found.codec) == ("", {}, None)
    assert found.calibration is not None
    assert found.identity == {
        "name": f"my {name}",
        "kind": name,
        "weights_sha256": detector.weights_sha256(),
        "calibration_scores": 7,
    }
    np.testing.assert_array_equal(found.detector.score(TEXTS), detector.score(TEXTS))
    assert detector.training["config"]["seed"] == 5


def test_what_is_read_of_a_text_is_counted_by_its_own_tokenizer(trained: dict[str, Any]) -> None:
    detector, _ = trained["lora"]
    short, exact, long = "a", "a b c d e f g h i j", "word " * 500
    found = readings(detector, [short, exact, long])
    tokens = [len(ids) for ids in detector.classifier.encode([short, exact, long])]
    assert [reading.n_tokens for reading in found] == tokens
    assert [reading.truncated for reading in found] == [False, False, True]
    assert [reading.too_short for reading in found] == [True, False, False]
    assert tokens[2] == 20


def test_a_detector_without_tokens_needs_64_characters_of_one_space_each() -> None:
    texts = ["x" * 63, "x" * 64, "x" * 32 + " \n " * 40 + "x" * 30]
    assert readings(TfidfDetector("t"), texts) == [Reading(None, None, short) for short in (True, False, True)]


def test_settings_are_those_of_the_recipe_and_the_model() -> None:
    assert text_recipe("tfidf", seed=2, vocabulary=7).config == TfidfConfig(vocabulary=7, seed=2)
    encoder = text_recipe("encoder", seed=2, noise=True, epochs=4)
    assert encoder.config == FineTuningConfig(epochs=4, seed=2, noise=NoiseConfig())
    assert (encoder.model["base"], encoder.model["seed"]) == ("all-minilm-l6-v2", 2)
    lora = text_recipe("lora", shape={"rank": 3}, noise={"layers": 1})
    assert lora.config == FineTuningConfig(learning_rate=2e-4, noise=NoiseConfig(layers=1))
    assert (lora.model["base"], lora.model["shape"].rank) == ("smollm2-135m", 3)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pawn", {}, "no detector named 'pawn' reads texts; expected one of tfidf, encoder, lora"),
        ("tfidf", {"vocabulary": 0}, "tfidf cannot be trained like that: expected vocabulary of at least 1, got 0"),
        ("tfidf", {"epochs": 1}, "tfidf cannot be trained like that: .*'epochs'"),
        ("encoder", {"epochs": 0}, "encoder cannot be trained like that: expected epochs of at least 1, got 0"),
        ("encoder", {"max_length": 0}, "expected a max_length of at least 1, got 0"),
        ("encoder", {"shape": {}}, "encoder cannot be trained like that: .*'shape'"),
        ("lora", {"shape": {"rank": 0}}, "lora cannot be trained like that: expected a rank and an alpha"),
        ("lora", {"noise": {"layers": 0}}, "at least 1 layer"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        text_recipe(name, **settings)


def test_a_folder_that_is_damaged_is_refused(trained: dict[str, Any], tmp_path: Path) -> None:
    _, folder = trained["tfidf"]
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    vocabulary = json.loads((tmp_path / "vocabulary.json").read_text())
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary | {"more": []}))
    with pytest.raises(DetectorError, match=r"vocabulary.json has SHA-256"):
        load_detector(str(tmp_path))
