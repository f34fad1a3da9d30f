"""What `pawn reproduce` decides: the data that may be used, what is told, figures that agree."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from features.errors import TrackingError, UsageError
from pipelines.layouts.files import file_sha256
from pipelines.provenance import code_version, package_versions
from pipelines.recorded_runs import RecordedData, RecordedRun
from pipelines.reproduction import (
    changed_circumstances,
    changed_settings,
    check_data,
    compare,
    reproduction_folder,
    working_folder,
)


def recorded(*data: RecordedData) -> RecordedRun:
    return RecordedRun("0123456789abcdef", "train", "mine", "FINISHED", datetime.now(UTC), {}, {}, list(data))


def test_data_are_the_same_to_the_byte_or_refused(tmp_path: Path) -> None:
    data = tmp_path / "a.csv"
    data.write_text("text,label\n")
    digest = file_sha256(data)
    run = recorded(RecordedData(data, digest, "training"))
    assert check_data(run) == {data: data}
    data.write_text("text,label\nx,1\n")
    with pytest.raises(TrackingError, match=rf"a.csv \({digest}\) now has SHA-256 {file_sha256(data)}. Say where"):
        check_data(run)
    data.unlink()
    with pytest.raises(TrackingError, match=rf"a.csv \({digest}\) is not there"):
        check_data(run)


def test_data_are_found_elsewhere_by_their_hash(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    other = tmp_path / "deep" / "er" / "renamed.csv"
    other.write_text("text,label\n")
    before = tmp_path / "a.csv"
    run = recorded(RecordedData(before, file_sha256(other), "training"))
    assert check_data(run, [tmp_path / "deep"]) == {before: other}
    assert check_data(run, [other]) == {before: other}
    other.write_text("changed")
    with pytest.raises(TrackingError, match=r"none of the 1 files of --data has the SHA-256 of .*a.csv"):
        check_data(run, [tmp_path / "deep"])
    with pytest.raises(UsageError, match=r"--data .*nowhere is not there"):
        check_data(run, [tmp_path / "nowhere"])


def test_figures_agree_within_the_tolerance_counts_exactly_and_costs_are_left_out() -> None:
    before = {"auroc": 0.9, "loss": 200.5, "rows": 1000.0, "none": math.nan, "gone": 1.0, "cost/wall_seconds": 5.0}
    after = {"auroc": 0.9005, "loss": 200.6, "rows": 1001.0, "none": math.nan, "fold/new": 1.0, "fold/cost/x": 1.0}
    found = {one.name: one.agrees for one in compare(before, after, 1e-3)}
    assert found == {"auroc": True, "loss": True, "rows": False, "none": True, "gone": False, "fold/new": False}
    assert [one.agrees for one in compare({"auroc": 0.9}, {"auroc": 0.9011}, 1e-3)] == [False]
    assert [one.agrees for one in compare({"auroc": 0.9}, {"auroc": math.nan}, 1e-3)] == [False]
    assert [one.agrees for one in compare({"documents": 5.0}, {"documents": 6.0}, 1.0)] == [False]
    (exact,) = compare({"auroc": 0.9}, {"auroc": 0.9}, 0)
    assert (exact.agrees, exact.difference) == (True, 0)


def test_what_changed_since_is_told() -> None:
    here: dict[str, Any] = {
        "code": {"commit": code_version().commit, "dirty": False},
        "versions": package_versions(),
        "machine": {},
    }
    told = [line for line in changed_circumstances(here) if not line.startswith("code: changed files")]
    assert told == []
    other = here | {"code": {"commit": "abc", "dirty": True}, "versions": here["versions"] | {"torch": "1.0"}}
    told = changed_circumstances(other)
    assert told[0] == f"code: commit abc then, {code_version().commit or 'unknown'} now"
    assert "code: changed files that were not committed then" in told
    assert f"torch: 1.0 then, {here['versions']['torch']} now" in told


def test_settings_that_differ_are_told_but_those_that_must() -> None:
    before = {"seed": "1", "detector.sha256": "aa", "output": "a", "version.torch": "1"}
    after = {"seed": "1", "detector.sha256": "bb", "output": "b", "version.torch": "2", "new": "x"}
    expected = ["setting detector.sha256: aa then, bb now", "setting new: none then, x now"]
    assert changed_settings(before, after) == expected


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert reproduction_folder(None, recorded()) == tmp_path / "reproduced-01234567"
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is not empty; give a new folder with -o"):
        reproduction_folder(str(tmp_path), recorded())


def test_relative_paths_are_looked_up_where_the_run_was_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    (tmp_path / "there").mkdir()
    assert working_folder({"folder": str(tmp_path / "there")}, None, said.append) == tmp_path / "there"
    assert said == []
    assert working_folder({"folder": "/gone/long/ago"}, None, said.append) == tmp_path
    assert said == ["The folder of the run, /gone/long/ago, is gone: its relative paths are looked up here"]
