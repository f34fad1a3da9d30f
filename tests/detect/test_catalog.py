"""Names, folders and classes of one's own -> detectors, each with what it was made from."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.codec import FLOAT16
from detect.calibrated import CalibratedDetector
from detect.calibration import Calibration
from detect.catalog import (
    DEFAULT_BACKBONE,
    DEFAULT_DETECTOR,
    ENTRIES,
    KINDS,
    PRETRAINED,
    TEXT,
    catalog,
    load_detector,
    maker,
    new_detector,
    trainable_names,
    untrained_names,
)
from detect.ensemble import EnsembleDetector
from detect.pawn import PawnDetector
from detect.protocol import Detector, needs_hidden, needs_observer
from detect.trained import DetectorCard, TrainableDetector
from detect.two_models import TWO_MODELS
from detect.zero_shot import ZERO_SHOT
from features.errors import DetectorError, UsageError
from pipelines.commands.train import OPTIONS, command
from tests.cache.feature_makers import FINGERPRINT, HIDDEN_SIZE
from tests.detect.made_up import document, labelled

BACKBONE = {
    "name": "some/model",
    "hidden_size": HIDDEN_SIZE,
    "codec": "int8",
    "fingerprint": FINGERPRINT.to_dict(),
}
QUICK: dict[str, dict[str, Any]] = {
    "pawn": {"epochs": 1, "network": {"width": 8, "gates": 4}},
    "boosted": {"rounds": 5},
    "ensemble": {"members": ("rank", "diveye", "logistic"), "recipes": {"diveye": {"rounds": 5}}},
    "pawn-ensemble": {"recipes": {"pawn": {"epochs": 1}, "profile": {"rounds": 5}}},
}


def test_every_detector_has_one_line_that_says_what_it_costs_and_where_it_is_from() -> None:
    entries = catalog()
    assert entries[0].name == DEFAULT_DETECTOR
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.kind in KINDS
        assert entry.cost.endswith("; training") == entry.trainable
        assert entry.source
        assert "\n" not in entry.summary


def test_the_catalog_names_every_zero_shot_detector_and_every_one_that_can_be_trained() -> None:
    assert {entry.name for entry in ENTRIES if entry.kind == "zero-shot"} == set(ZERO_SHOT)
    assert {entry.name for entry in ENTRIES if entry.kind == "zero-shot-pair"} == set(TWO_MODELS)
    assert untrained_names() == [entry.name for entry in ENTRIES if entry.kind.startswith("zero-shot")]
    assert set(trainable_names()).isdisjoint(untrained_names())
    assert set(command.commands) == set(trainable_names())
    assert set(OPTIONS) <= set(trainable_names())


@pytest.mark.parametrize("name", sorted(ZERO_SHOT | TWO_MODELS))
def test_a_zero_shot_detector_is_ready_by_name_and_from_its_folder(name: str, tmp_path: Path) -> None:
    found = load_detector(name)
    assert (found.detector.name, found.calibration, found.codec) == (name, None, None)
    assert (found.backbone, found.fingerprint) == (DEFAULT_BACKBONE, {})
    kind = "zero-shot" if name in ZERO_SHOT else "zero-shot-pair"
    assert found.identity == {"name": name, "kind": kind}
    assert needs_observer(found.detector) == (name in TWO_MODELS)
    assert not needs_hidden(found.detector)
    found.detector.save(tmp_path)
    Calibration(np.arange(5.0), {"from": "a test"}).save(tmp_path)
    restored = load_detector(str(tmp_path))
    assert type(restored.detector) is type(found.detector)
    assert restored.calibration is not None
    assert restored.calibration.provenance == {"from": "a test"}
    assert restored.identity == {"name": name, "kind": kind, "calibration_scores": 5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trained detector of each name, saved, and what it scored before."""
    train = labelled(tmp_path_factory.mktemp("train"), 64)
    validation = labelled(tmp_path_factory.mktemp("validation"), 32, first=500)
    found = {}
    for entry in ENTRIES:
        if entry.trainable and entry.reads != TEXT:
            settings = dict(QUICK.get(entry.name, QUICK.get(entry.kind, {})))
            if "no-" in entry.name:
                settings.pop("network", None)
            card = DetectorCard(name=f"my {entry.name}", backbone=BACKBONE)
            detector = new_detector(entry.name, hidden_size=HIDDEN_SIZE, card=card, **settings).fit(train, validation)
            folder = tmp_path_factory.mktemp("saved")
            detector.save(folder)
            Calibration(np.arange(7.0), {"detector": entry.name}).save(folder)
            np.save(folder / "scores.npy", detector.score([document(9, 0), document(8, 1)]))
            found[entry.name] = folder
    return found


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if entry.trainable and entry.reads != TEXT], ids=lambda entry: entry.name
)
def test_a_trained_folder_comes_back_with_all_that_scoring_needs(entry, folders: dict[str, Path]) -> None:
    found = load_detector(str(folders[entry.name]))
    assert isinstance(found, CalibratedDetector)
    assert isinstance(found.detector, Detector)
    assert isinstance(found.detector, TrainableDetector)
    assert found.calibration is not None
    assert found.calibration.provenance == {"detector": entry.name}
    assert (found.backbone, found.fingerprint) == ("some/model", FINGERPRINT.to_dict())
    assert found.codec is not None
    assert found.codec.name == "int8"
    assert found.identity == {
        "name": f"my {entry.name}",
        "kind": entry.kind,
        "weights_sha256": found.detector.weights_sha256(),
        "calibration_scores": 7,
    }
    scores = found.detector.score([document(9, 0), document(8, 1)])
    assert scores.tolist() == np.load(folders[entry.name] / "scores.npy").tolist()
    assert needs_hidden(found.detector) == ("hidden states" in entry.reads or entry.kind == "ensemble")
    with pytest.raises(DetectorError, match=r"trained on features with weights_id 'weights', these have 'x'"):
        found.check_features(FINGERPRINT.to_dict() | {"weights_id": "x"})


def test_a_detector_older_than_codecs_reads_float16(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["logistic"], tmp_path / "old")
    card = json.loads((tmp_path / "old" / "detector.json").read_text())
    del card["backbone"]["codec"]
    (tmp_path / "old" / "detector.json").write_text(json.dumps(card))
    assert load_detector(str(tmp_path / "old")).codec is FLOAT16


def test_a_folder_of_an_unknown_kind_is_refused_and_never_imported(tmp_path: Path) -> None:
    card = {"format_version": 1, "kind": "antigravity:fly"}
    (tmp_path / "detector.json").write_text(json.dumps(card))
    with pytest.raises(
        DetectorError, match="kind 'antigravity:fly', expected one of zero-shot, zero-shot-pair, pawn, boosted"
    ):
        load_detector(str(tmp_path))
    assert "antigravity" not in sys.modules


def test_a_name_that_nobody_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no detector named 'lasted' and no such folder; did you mean lastde"):
        load_detector("lasted")


def test_a_detector_that_must_be_trained_first_says_how() -> None:
    with pytest.raises(UsageError, match="detector lightgbm must be trained first: 'pawn train lightgbm --data"):
        load_detector("lightgbm")


def test_what_ships_is_loaded_by_name() -> None:
    found = load_detector()
    assert isinstance(found.detector, EnsembleDetector)
    assert isinstance(found.detector.members[0], PawnDetector)
    assert found.identity["kind"] == "ensemble"
    assert found.backbone == DEFAULT_BACKBONE
    assert found.calibration is not None
    assert (PRETRAINED / DEFAULT_DETECTOR).is_dir()


def test_new_detectors_of_one_maker_share_nothing_and_follow_the_seed() -> None:
    make = maker("pawn", seed=3, network={"width": 8, "gates": 4})
    card = DetectorCard(name="a", backbone={"hidden_size": HIDDEN_SIZE})
    one, other = make(card), make(card)
    assert isinstance(one, PawnDetector)
    assert isinstance(other, PawnDetector)
    assert one.network is not other.network
    assert one.weights_sha256() == other.weights_sha256()
    assert one.weights_sha256() != maker("pawn", seed=4, network={"width": 8, "gates": 4})(card).weights_sha256()


def test_the_pawn_recipes_are_the_papers_and_its_ablations() -> None:
    made = {name: new_detector(name, hidden_size=HIDDEN_SIZE) for name in trainable_names() if name.startswith("pawn")}
    found = {
        name: (
            detector.network.arguments["use_hidden"],
            detector.network.arguments["use_metrics"],
            detector.network.arguments["likelihood_weight"],
            detector.config.crop_probability,
        )
        for name, detector in made.items()
        if isinstance(detector, PawnDetector)
    }
    assert found == {
        "pawn": (True, True, 0.5, 0.5),
        "pawn-paper": (True, True, 0.0, 0.0),
        "pawn-no-hidden": (False, True, 0.0, 0.5),
        "pawn-no-metrics": (True, False, 0.0, 0.5),
        "pawn-layers": (True, True, 0.5, 0.5),
    }


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lastde", {}, "no detector named 'lastde' can be trained; expected one of pawn, pawn-paper"),
        ("lightgbm", {"rounds": 0}, "lightgbm cannot be trained like that: expected rounds of at least 1, got 0"),
        ("logistic", {"rounds": 3}, "logistic cannot be trained like that: .*'rounds'"),
        ("tfidf", {}, "tfidf reads the text itself .*: 'pawn train tfidf' makes one, and 'pawn train ensemble' one"),
        ("ensemble", {"members": ("lora", "rank"), "recipes": {"lora": {"epochs": 0}}}, "lora cannot be trained like"),
        ("pawn", {"epochs": 0}, "pawn cannot be trained like that: expected at least 1 of each, got epochs 0"),
        ("pawn-paper", {"likelihood_weight": 0.5}, "pawn-paper settles likelihood_weight; train 'pawn' to choose"),
        ("binoculars", {}, "no detector named 'binoculars' can be trained"),
    ],
)
def test_what_cannot_be_trained_is_refused(name: str, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        new_detector(name, hidden_size=HIDDEN_SIZE, **settings)


def trained_on(name: str, **fields: Any) -> CalibratedDetector:
    """A detector that remembers features of a fingerprint with these fields."""
    fingerprint = FINGERPRINT.to_dict() | fields
    card = DetectorCard(name=name, backbone={"hidden_size": 6, "fingerprint": fingerprint})
    return CalibratedDetector(maker(name)(card), None, "some/model", fingerprint, FLOAT16, {}, observer="the/other")


@pytest.mark.parametrize(
    ("layers", "found", "message"),
    [
        ([1, 2], [1, 3], "pawn-layers reads hidden states of layers 1, 2, these features have layers 1, 3; extract"),
        ([1, 2], [], "reads hidden states of layers 1, 2, these features have the last layer"),
        ([], [1, 2], "reads hidden states of the last layer, these features have layers 1, 2"),
    ],
)
def test_features_of_other_layers_are_refused(layers: list[int], found: list[int], message: str) -> None:
    fields = {"layers": layers} if layers else {}
    detector = trained_on("pawn-layers", **fields)
    detector.check_features(FINGERPRINT.to_dict() | fields)
    with pytest.raises(DetectorError, match=message):
        detector.check_features(FINGERPRINT.to_dict() | ({"layers": found} if found else {}))


def test_a_detector_without_hidden_states_takes_features_of_any_layers() -> None:
    detector = trained_on("lightgbm", layers=[1, 2])
    assert detector.layers == []
    detector.check_features(FINGERPRINT.to_dict())


def test_an_observer_is_needed_by_those_that_compare_two_models_and_by_no_other() -> None:
    pair, one = load_detector("binoculars"), load_detector("entropy")
    assert (pair.check_observer("@3"), one.check_observer(None)) == ("@3", None)
    with pytest.raises(UsageError, match="binoculars compares two language models: name the second with --observer"):
        pair.check_observer(None)
    with pytest.raises(UsageError, match="entropy reads one language model; leave --observer out"):
        one.check_observer("@3")


def test_an_ensemble_with_a_member_of_two_models_keeps_to_its_observer() -> None:
    fingerprint = FINGERPRINT.to_dict() | {"observer": "layer 1"}
    card = DetectorCard(name="both", backbone={"hidden_size": HIDDEN_SIZE, "fingerprint": fingerprint})
    ensemble = maker("ensemble", members=("binoculars", "rank"))(card)
    detector = CalibratedDetector(ensemble, None, "some/model", fingerprint, FLOAT16, {}, observer="@1")
    assert detector.check_observer(None) == "@1"
    detector.check_features(fingerprint)
    with pytest.raises(
        DetectorError, match="trained with observer 'layer 1', these features have None; use --observer @1"
    ):
        detector.check_features(FINGERPRINT.to_dict())


def test_pawn_layers_mixes_as_many_layers_as_its_features_hold() -> None:
    detector = trained_on("pawn-layers", layers=[1, 3]).detector
    assert isinstance(detector, PawnDetector)
    assert detector.network.arguments["layers"] == 2
    assert detector.network.layer_weights == [0.5, 0.5]
    plain = trained_on("pawn", layers=[1, 3]).detector
    assert isinstance(plain, PawnDetector)
    assert plain.network.arguments["layers"] == 1
