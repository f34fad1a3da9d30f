"""The command that `pawn reproduce` repeats: where it writes, and where its data and detectors are now."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from detect.catalog import DEFAULT_DETECTOR, PRETRAINED, load_detector
from features.errors import TrackingError, UsageError
from pipelines.repeated_command import CommandLine, Repetition, files_now

THERE = Path("/d")
"""The folder that every recorded run here ran in."""


def repeated(
    command: list[str] | None,
    folder: Path,
    data: Mapping[Path, Path] | None = None,
    *,
    detectors: Sequence[Path] = (),
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the repetition of a command is given, by parameter."""
    repetition = Repetition(folder, THERE, data or {}, detectors, "sqlite:////s.db", "e")
    record = {"command": command, "folder": str(THERE), "settings": settings or {}}
    return CommandLine.parse(repetition.words(record)).given


def test_a_command_line_survives_being_taken_apart() -> None:
    words = ["train", "pawn", "--data", "a.csv", "--data=b.csv", "-o", "out", "--no-progress", "--epochs", "2"]
    line = CommandLine.parse(words)
    assert line.path == ("train", "pawn")
    assert line.given == {"inputs": ["a.csv", "b.csv"], "output": "out", "shown": False, "epochs": "2"}
    assert CommandLine.parse(line.words()) == line
    extract = CommandLine.parse(["extract", "--cache", "c", "--", "-odd.csv", "b.csv"])
    assert extract.given == {"cache": "c", "inputs": ("-odd.csv", "b.csv")}
    assert extract.words() == ["extract", "--cache", "c", "--", "-odd.csv", "b.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "pawn"], "does not understand the recorded command 'pawn trian pawn': no command 'trian'"),
        (["train", "pawn", "--magic", "1"], "No such option.*--magic.*install the version that recorded it"),
    ],
)
def test_a_command_of_another_version_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        CommandLine.parse(words)


def test_a_repetition_writes_elsewhere_is_tracked_and_registers_nothing(tmp_path: Path) -> None:
    words = ["train", "lightgbm", "--data", "a.csv", "-o", "runs/mine", "--no-track", "--seed", "7"]
    words += ["--register-as", "m"]
    assert repeated(words, tmp_path, {THERE / "a.csv": THERE / "a.csv"}) == {
        "inputs": ["a.csv"],
        "output": str(tmp_path / "mine"),
        "seed": "7",
        "track": True,
        "tracking_uri": "sqlite:////s.db",
        "experiment": "e",
    }


def test_data_that_moved_replace_those_of_the_command(tmp_path: Path) -> None:
    moved = {THERE / "b.csv": THERE / "b.csv", THERE / "a.csv": Path("/n/x.csv")}  # the store keeps no order
    assert repeated(["extract", "a.csv", "b.csv"], tmp_path, moved)["inputs"] == ("/n/x.csv", "/d/b.csv")


def test_data_that_moved_stay_what_the_run_used_them_for(tmp_path: Path) -> None:
    words = ["evaluate", "--detector", "rank", "--data", "a.csv", "--calibrate-on", "../c.csv", "-o", "out"]
    given = repeated(words, tmp_path, {Path("/c.csv"): Path("/n/c.csv"), THERE / "a.csv": Path("/n/a.csv")})
    assert (given["inputs"], given["calibrate_on"]) == (["/n/a.csv"], ["/n/c.csv"])
    submission = ["evaluate", "--detector", "rank", "--raid", "test.csv", "-o", "out"]
    assert repeated(submission, tmp_path, {THERE / "test.csv": Path("/n/t.csv")})["raid"] == "/n/t.csv"


def test_relative_data_are_those_that_were_checked_wherever_the_command_runs(tmp_path: Path) -> None:
    elsewhere = Repetition(tmp_path, tmp_path, {THERE / "a.csv": THERE / "a.csv"}, [], "s", "e")
    words = elsewhere.words({"command": ["extract", "a.csv"], "folder": str(THERE)})
    assert CommandLine.parse(words).given["inputs"] == ("/d/a.csv",)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("t", ["a.csv", "b.txt", "deep/c.csv"]),
        ("/d/t/", ["a.csv", "b.txt", "deep/c.csv"]),
        ("t/deep", ["deep/c.csv"]),
        ("t/*.csv", ["a.csv"]),
        ("./t/../t/?.txt", ["b.txt"]),
        ("t/**/*.csv", ["a.csv", "deep/c.csv"]),
    ],
)
def test_a_folder_or_glob_becomes_the_files_that_were_read_of_it(word: str, expected: list[str]) -> None:
    moved = {THERE / "t" / name: Path("/n") / name for name in ("deep/c.csv", "b.txt", "a.csv")}
    moved[Path("/d/other.csv")] = Path("/n/other.csv")
    assert files_now([word], THERE, moved) == [f"/n/{name}" for name in expected]


def test_a_word_without_data_on_record_is_refused() -> None:
    with pytest.raises(TrackingError, match=r"no file of 'b.csv' on record.*repeat the run where it was, in /d, with"):
        files_now(["a.csv", "b.csv"], THERE, {THERE / "a.csv": Path("/n/a.csv")})


def test_a_benchmark_is_repeated_from_its_record_with_its_files_where_they_are(tmp_path: Path) -> None:
    settings = {
        "name": "small",
        "corpora": {"one": ["x/../one.csv"], "two": ["/d/two.csv"]},
        "only_learnt": {},
        "detectors": [{"label": "buckets", "name": "gltr-buckets", "settings": {"iterations": 5}}],
        "fprs": [0.01],
        "codec": "auto",
        "features": {"codec": "pca64"},
    }
    moved = {THERE / "one.csv": Path("/n/1.csv"), THERE / "two.csv": THERE / "two.csv"}
    given = repeated(["benchmark", "gone.yaml", "-o", "report"], tmp_path / "again", moved, settings=settings)
    assert given["config"] == str(tmp_path / "again" / "benchmark.yaml")
    written = yaml.safe_load(Path(given["config"]).read_text())
    assert written == {
        "name": "small",
        "corpora": {"one": ["/n/1.csv"], "two": ["/d/two.csv"]},
        "detectors": settings["detectors"],
        "fprs": [0.01],
        "codec": "auto",
    }


@pytest.fixture
def judged() -> dict[str, Any]:
    """What a run says of two detectors that it judged: the one that ships, from a folder of its own, and rank."""
    shipped = load_detector(DEFAULT_DETECTOR).identity
    return {"detectors": {"own": {"detector": json.dumps(shipped)}, "rank": {"detector": '{"name": "rank"}'}}}


JUDGING = ["evaluate", "--detector", "runs/x", "--detector", "rank", "--data", "a.csv", "-o", "out"]


def test_a_detector_that_moved_is_known_by_its_weights(judged: dict[str, Any], tmp_path: Path) -> None:
    now = shutil.copytree(PRETRAINED / DEFAULT_DETECTOR, tmp_path / "now")
    given = repeated(JUDGING, tmp_path, detectors=[now], settings=judged)
    assert given["detectors"] == [str(now), "rank"]


def test_a_detector_that_is_gone_is_asked_for(judged: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        TrackingError,
        match=rf"judged detector {DEFAULT_DETECTOR} with weights \w{{12}} in /d/runs/x, which is not there. Say with "
        "--detector.*'mlflow artifacts download -u models:/ID -d DIR'",
    ):
        repeated(JUDGING, tmp_path, settings=judged)


def test_a_detector_that_the_run_did_not_judge_is_refused(judged: dict[str, Any], tmp_path: Path) -> None:
    judged["detectors"]["own"]["detector"] = '{"name": "own", "weights_sha256": "00", "calibration_scores": 5}'
    with pytest.raises(UsageError, match=f"none of the detectors of the run; it is detector {DEFAULT_DETECTOR} with w"):
        repeated(JUDGING, tmp_path, detectors=[PRETRAINED / DEFAULT_DETECTOR], settings=judged)
    with pytest.raises(UsageError, match="--detector rank is not there; give the folder of a detector"):
        repeated(JUDGING, tmp_path, detectors=[Path("rank")], settings=judged)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (None, "the run was not made by a command of pawn"),
        (["detectors"], "pawn detectors records no runs in this version"),
    ],
)
def test_what_was_no_recording_command_is_not_repeated(command: list[str] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=message):
        repeated(command, tmp_path)


def test_a_file_that_the_store_knows_by_another_folder_is_found_by_its_name() -> None:
    assert files_now(["now/a.csv"], THERE, {Path("/old/a.csv"): Path("/n/a.csv")}) == ["/n/a.csv"]


def test_a_detector_is_not_looked_for_in_a_run_that_trained_its_own(tmp_path: Path) -> None:
    record = {
        "command": ["benchmark", "small.yaml", "-o", "out"],
        "folder": str(tmp_path),
        "settings": {"detectors": [{"label": "rank", "name": "rank"}], "corpora": {}},
    }
    again = Repetition(tmp_path / "again", tmp_path, {}, [tmp_path], "sqlite://", "pawn-detect")
    with pytest.raises(UsageError, match="for runs that judged detectors which were ready"):
        again.words(record)
    assert not (tmp_path / "again").exists()
