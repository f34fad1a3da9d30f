from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import polars as pl
import pytest

from features.documents import Document
from features.errors import InputError
from pipelines.figures import figures_table
from pipelines.redteam_judging import AnyScorer, Compared, detection


@dataclass
class Written:
    """A scorer whose scores are the texts themselves."""

    def score(self, texts: Sequence[str]) -> pl.DataFrame:
        return pl.DataFrame(
            {"score": [None if text == "-" else float(text) for text in texts]}, schema={"score": pl.Float64}
        )


SCORER = cast(AnyScorer, Written())


def documents(label: int, *scores: Any) -> list[Document]:
    return [Document(id=str(i), text=str(score), label=label, generator="g") for i, score in enumerate(scores)]


def compared(after: list[Document]) -> Compared:
    return Compared(
        calibration=documents(0, *range(-99, 1)),
        human=documents(0, 0, 1, 2, 3),
        before=documents(1, 10, 11, 12, 13),
        after=after,
    )


def figures(after: list[Document]) -> dict[str, dict[str, Any]]:
    judgements, _ = detection("d", SCORER, compared(after))
    table = figures_table(judgements, fprs=(0.01, 0.05), slices=(), resamples=100)
    return {row["held_out"]: row for row in table.iter_rows(named=True)}


def test_before_and_after_are_judged_against_the_same_human_texts():
    found = figures(documents(1, -5, -6, 12, 13))
    assert found["before"]["auroc"] == 1.0
    assert found["after"]["auroc"] == 0.5
    assert found["before"]["humans"] == found["after"]["humans"] == 4


def test_thresholds_come_from_the_calibration_texts():
    # At 1%: above all 100 calibration scores, so above 0; at 5%: above -4.
    found = figures(documents(1, -3, -3, -9, 0.5))
    assert found["after"]["real_tpr@1%"] == 0.25
    assert found["after"]["real_tpr@5%"] == 0.75
    assert found["after"]["real_fpr@1%"] == 0.75


def test_texts_of_one_prompt_are_one_source():
    judgements, _ = detection("d", SCORER, compared(documents(1, 1, 2, 3, 4)))
    test = judgements.filter(part="test", held_out="after")
    assert test["source"].to_list() == [0, 1, 2, 3] * 2
    assert set(judgements.filter(part="calibration")["source"]).isdisjoint(range(4))


def test_texts_without_a_score_are_left_out_and_counted():
    judgements, share = detection("d", SCORER, compared(documents(1, "-", "-", "-", 9)))
    assert share == 0.75
    test = judgements.filter(part="test", held_out="after", label=1)
    assert test["score"].to_list() == [9.0]
    assert test["source"].to_list() == [3]


def test_a_detector_that_scores_nothing_is_an_error():
    empty = Compared(documents(0, "-"), documents(0, 1), documents(1, 1), documents(1, 1))
    with pytest.raises(InputError, match="detector d scores none of the calibration texts"):
        detection("d", SCORER, empty)
