import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from detect.calibration import Calibration
from pipelines.robustness_figures import CELL, robustness_figures, robustness_table
from tests.pipelines.attack_rows import CELLS, row, scored_rows

FPRS = (0.1, 0.3)


def naive_cell(scored: pl.DataFrame, detector: str, cell: tuple, column: str, fpr: float) -> dict[str, float | None]:
    """Each figure written out, a text at a time."""
    rows = [found for found in scored.rows(named=True) if found["detector"] == detector]
    fixing = [found[column] for found in rows if found["part"] == "calibration"]
    threshold = Calibration(np.array(fixing), {}).threshold(fpr)
    judged = [found for found in rows if found["part"] == "judged"]
    clean = {found["id"]: found for found in judged if found["attack"] == "none"}
    after = [found for found in judged if (found["attack"], found["strength"], found["target"]) == cell]
    machine = [found for found in after if found["label"] == 1]
    human = [found for found in after if found["label"] == 0]
    caught = [found for found in machine if clean[found["id"]][column] >= threshold]
    clean_human = [found[column] for found in clean.values() if found["label"] == 0]

    def auroc(others: list[float]) -> float:
        scores = [*others, *(found[column] for found in machine)]
        return roc_auc_score([0] * len(others) + [1] * len(machine), scores)

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return {
        "auroc": auroc(clean_human),
        "auroc_attacked_human": auroc([found[column] for found in human]),
        f"real_tpr@{100 * fpr:g}%": mean([found[column] >= threshold for found in machine]),
        f"real_fpr@{100 * fpr:g}%": mean([found[column] >= threshold for found in human]),
        f"success@{100 * fpr:g}%": mean([found[column] < threshold for found in caught]),
        "edit_distance": mean([found["edit_distance"] for found in machine if found["edit_distance"] is not None]),
        "edit_distance_human": mean([found["edit_distance"] for found in human if found["edit_distance"] is not None]),
        "queries": mean([found["queries"] for found in machine if found["queries"] is not None]),
    }


@pytest.mark.parametrize("fpr", FPRS)
@pytest.mark.parametrize(("defence", "column"), [("none", "score"), ("normalised", "score_normalised")])
def test_every_figure_is_that_of_its_naive_twin(fpr, defence, column):
    scored = scored_rows()
    table = robustness_table(scored, fprs=FPRS, resamples=0).filter(defence=defence)
    assert table.select("detector", "attack", "strength", "target").rows() == [
        (detector, *cell) for detector in ("one", "two") for cell in CELLS
    ]
    for found in table.rows(named=True):
        cell = (found["attack"], found["strength"], found["target"])
        expected = naive_cell(scored, found["detector"], cell, column, fpr)
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        assert (found["humans"], found["machines"], found["unscored"]) == (20, 20, 0)


def test_success_is_of_texts_that_were_caught_before():
    # Three human texts score 0, 1 and 2: at 25% only what is above all of them is flagged.
    cells = (("none", None, None), ("swap", 1.0, None))
    before, after = {"a": 9.0, "b": 9.0, "c": -9.0, "d": -9.0}, {"a": 9.0, "b": -9.0, "c": 9.0, "d": -9.0}
    rows = [row("one", cells[0], f"c{n}", 90 + n, 0, n, "calibration") for n in range(3)]
    rows += [row("one", cells[0], name, 1, 1, score, "judged") for name, score in before.items()]
    rows += [row("one", cells[1], name, 1, 1, score, "judged") for name, score in after.items()]
    rows += [row("one", cell, "h", 2, 0, -9.0, "judged") for cell in cells]
    table = robustness_table(pl.DataFrame(rows, schema=scored_rows().schema), fprs=(0.25,), resamples=0)
    found = table.filter(attack="swap", defence="none").row(0, named=True)
    assert found["success@25%"] == 0.5  # of a and b, b; that d was missed before and after is no success
    assert found["real_tpr@25%"] == 0.5
    assert table.filter(attack="none", defence="none")["success@25%"].to_list() == [0.0]


def test_intervals_hold_the_figure_and_are_the_same_again():
    table = robustness_table(scored_rows(), fprs=FPRS, resamples=200)
    assert table.equals(robustness_table(scored_rows(), fprs=FPRS, resamples=200))
    for name in robustness_figures(FPRS):
        known = table.drop_nulls(name)
        assert len(known) > 0
        assert (known[f"{name}_low"] <= known[name] + 1e-12).all()
        assert (known[f"{name}_high"] >= known[name] - 1e-12).all()
    assert (table["auroc_high"] - table["auroc_low"]).min() > 0.01


def test_an_interval_is_of_sources_not_of_texts():
    scored = scored_rows()
    alone = scored.with_columns(source=pl.when(pl.col("part") == "judged").then(5).otherwise("source"))
    table = robustness_table(alone, fprs=FPRS, resamples=200)
    assert table["auroc_low"].null_count() == len(table)  # one source: nothing to draw
    assert table["auroc"].null_count() == 0


def test_a_text_without_a_score_is_counted_and_in_no_figure():
    scored = scored_rows()
    gone = (pl.col("attack") == "swap") & (pl.col("strength") == 1) & pl.col("id").is_in(["t0", "t1"])
    holes = scored.with_columns(score=pl.when(gone).then(None).otherwise("score"))
    place = {"detector": "one", "attack": "swap", "strength": 1.0, "defence": "none"}
    found = robustness_table(holes, fprs=FPRS, resamples=0).filter(**place)
    expected = robustness_table(scored.filter(~gone), fprs=FPRS, resamples=0).filter(**place)
    assert found["unscored"].item() == 2
    assert found.drop("unscored").equals(expected.drop("unscored"))


def test_a_rate_finer_than_the_calibration_has_no_threshold_and_the_note_says_so():
    table = robustness_table(scored_rows(calibration=19), fprs=(0.01, 0.3), resamples=0)
    assert table["real_tpr@1%"].null_count() == len(table)
    assert table["real_fpr@1%"].null_count() == len(table)
    assert table["success@1%"].null_count() == len(table)
    assert table["real_tpr@30%"].null_count() == 0
    assert set(table["note"]) == {"no threshold at 1%: 19 human calibration texts"}


def test_texts_of_one_class_without_a_clean_version_have_the_figures_that_they_can():
    foreign = [row("one", ("outputs", None, None), f"x{n}", 50 + n, 1, n, "judged") for n in range(5)]
    both = pl.concat([scored_rows(), pl.DataFrame(foreign, schema=scored_rows().schema)])
    found = robustness_table(both, fprs=FPRS, resamples=100).filter(attack="outputs", defence="none").row(0, named=True)
    assert (found["humans"], found["machines"]) == (0, 5)
    assert found["auroc"] is not None
    assert found["real_tpr@10%"] is not None
    absent = ("auroc_attacked_human", "real_fpr@10%", "success@10%", "edit_distance", "queries")
    assert [found[name] for name in absent] == [None] * len(absent)


def test_a_cell_is_named_by_detector_attack_strength_and_target():
    table = robustness_table(scored_rows(), fprs=FPRS, resamples=0)
    assert table.select(*CELL, "defence").is_unique().all()
