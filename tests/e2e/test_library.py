"""The README's five lines: a detector, a list of strings, a Polars frame."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.errors import UsageError
from pipelines import Scorer, ScoringSettings
from tests.e2e.conftest import Pawn
from tests.e2e.runs import COLUMNS, Toy, read_results, shards

DTYPES = [pl.String, pl.String, pl.Int32, pl.Boolean, pl.Float64, pl.Float64, pl.Boolean]


@pytest.fixture(scope="module")
def scorer(toy: Toy) -> Scorer:
    return Scorer.load(ScoringSettings(detector=str(toy.detector), backbone=str(toy.model)))


def test_a_list_of_strings_gives_a_frame_in_its_order(scorer: Scorer, toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    texts = toy.texts["text"].to_list()
    frame = scorer.score(texts)
    assert dict(zip(COLUMNS, DTYPES, strict=True)) == dict(frame.schema)
    assert frame["id"].to_list() == [str(i) for i in range(len(texts))]
    assert scorer.score([]).schema == frame.schema
    assert pawn("score", toy.data, "--detector", toy.detector, "-o", tmp_path / "out.parquet").code == 0
    from_file = read_results(tmp_path / "out.parquet")
    assert frame.drop("id").to_dicts() == [{name: row[name] for name in COLUMNS[1:]} for row in from_file]
    # In other batches bfloat16 rounds otherwise: 0.002 at most here, where scores span 3.
    assert scorer.score(texts[::-1])["score"].to_list() == pytest.approx(frame["score"].to_list()[::-1], abs=0.01)


def test_what_cannot_be_scored_gets_a_status_and_no_score(scorer: Scorer, toy: Toy) -> None:
    good = toy.texts["text"][0]
    texts: list[Any] = [
        good,
        None,
        "",
        " \n",
        "too short",
        "nul \0" * 9,
        "half \ud83d" * 9,
        float("nan"),
        b"bytes",
        good,
    ]
    frame = scorer.score(texts)
    expected = ["ok", "null", "empty", "empty", "too_short", "nul_character", "lone_surrogate"]
    assert frame["status"].to_list() == [*expected, "not_text", "not_text", "ok"]
    unscored = frame.filter(pl.col("status") != "ok").select("truncated", "score", "p_value", "is_machine")
    assert unscored.null_count().row(0) == (8, 8, 8, 8)
    assert frame["score"][0] == frame["score"][-1]


def test_one_string_is_refused(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match=r"got one string of 8 characters; give \[text\]"):
        scorer.score("one text")


def test_the_settings_are_those_of_the_command_line(scorer: Scorer, toy: Toy, tmp_path: Path) -> None:
    settings = ScoringSettings(detector=str(toy.detector), fpr=0.5, max_length=32, cache=tmp_path / "cache")
    short = Scorer.load(settings)
    text = " ".join(toy.texts["text"].to_list()[:2])
    frame = short.score([text])
    assert frame.row(0, named=True)["truncated"]
    assert frame["n_tokens"].to_list() == [32]
    assert frame["is_machine"].to_list() == [frame["p_value"][0] <= 0.5]
    assert len(shards(tmp_path / "cache")) == 1
    assert short.score([text]).equals(frame)
    with pytest.raises(UsageError, match="1e-09 cannot be promised from"):
        Scorer.load(ScoringSettings(detector=str(toy.detector), fpr=1e-9))
