import json
from pathlib import Path

import polars as pl
import pytest

from detect.adversarial.attack import AttackedText
from detect.adversarial.catalog import ENTRIES
from features.documents import Document
from pipelines.attack_run import attack_names, headline
from pipelines.attack_samples import chosen_samples, originals, sample_section
from pipelines.attacked_texts import TextSet, attacked_frame
from pipelines.hardening_report import grouped, side_by_side, write_hardening_report
from pipelines.robustness_figures import robustness_table
from pipelines.robustness_report import detector_table, shown, worst_cases, worst_first, write_robustness_report
from tests.pipelines.attack_rows import scored_rows

FPRS = (0.1, 0.3)
NAMES = {"swap": "number"}  # the report explains attacks of the catalog


@pytest.fixture(scope="module")
def scored() -> pl.DataFrame:
    return scored_rows().with_columns(pl.col("attack").replace(NAMES))


@pytest.fixture(scope="module")
def table(scored: pl.DataFrame) -> pl.DataFrame:
    return robustness_table(scored, fprs=FPRS, resamples=50)


def test_a_row_is_shown_by_attack_strength_and_target(table: pl.DataFrame):
    named = table.with_columns(shown=shown())
    assert named["shown"].unique(maintain_order=True).to_list() == [
        "clean",
        "number 0.5",
        "number 1",
        "adaptive 0.1 against one",
    ]


def test_attacks_stand_in_the_order_of_their_lowest_auroc_of_the_two_after_the_clean_texts(table: pl.DataFrame):
    named = table.with_columns(shown=shown())
    order = worst_first(named)
    assert order[0] == "clean"
    plain = named.filter(defence="none")
    names = ("auroc", "auroc_attacked_human")
    lowest = [min(plain.filter(shown=one)[name].min() for name in names) for one in order[1:]]
    assert lowest == sorted(lowest)


def test_the_worst_cases_are_the_extremes_of_the_attacks(table: pl.DataFrame):
    named = table.with_columns(shown=shown())
    cases = worst_cases(named, "10%")
    assert cases["texts"].to_list() == ["as they come", "normalised before scoring"] * 2
    found = cases.filter(detector="one").row(0, named=True)
    own = named.filter(pl.col("shown") != "clean", detector="one", defence="none")
    worst = own.sort("auroc").row(0, named=True)
    clean = named.filter(shown="clean", detector="one", defence="none")["auroc"].item()
    assert found["AUROC"] == f"{clean:.3f} → {worst['auroc']:.3f} ({worst['shown']})"
    assert f"→ {own['real_tpr@10%'].min():.3f} (" in found["real TPR @ 10%"]


def test_what_no_attack_makes_worse_is_said_to_be_so(table: pl.DataFrame):
    named = table.with_columns(shown=shown())
    clean = pl.col("shown") == "clean"
    harmless = named.with_columns(
        pl.when(clean).then(0.5).otherwise(0.4).alias("real_fpr@10%"),
        pl.when(clean).then(0.5).otherwise(0.5).alias("real_tpr@10%"),
    )
    found = worst_cases(harmless, "10%").row(0, named=True)
    assert (found["real FPR @ 10%"], found["real TPR @ 10%"]) == ("0.500 → no worse", "0.500 → no worse")


def test_the_table_of_a_detector_has_the_defence_beside_each_attack(table: pl.DataFrame):
    own = table.with_columns(shown=shown()).filter(detector="two")
    found = detector_table(own, FPRS)
    assert found["attack"][0] == "clean"
    assert len(found) == 4
    after = own.filter(defence="normalised", shown="number 1")["auroc"].item()
    assert found.filter(attack="number 1")["normalised: AUROC"].item() == f"{after:.3f}"
    assert found.filter(attack="clean")["edits"].item() == "-"


def test_a_report_without_a_threshold_is_written_and_says_why(tmp_path: Path, scored: pl.DataFrame):
    few = robustness_table(scored, fprs=(0.001,), resamples=0)
    told = {"two": {"detector": "2"}}
    written = write_robustness_report(told, scored, few, "# Samples\n", tmp_path, "Few", (0.001,))
    assert all(path.is_file() for path in written)
    report = (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "detectors.json").read_text()) == told
    assert "no threshold at 0.1%: 30 human calibration texts" in report
    assert "20 human and 20 machine texts were attacked; 30 other human ones fix thresholds." in report


def test_the_headline_holds_clean_and_worst_figures(table: pl.DataFrame):
    found = headline(table, FPRS)
    own = table.filter(pl.col("attack") != "none", detector="two", defence="none")
    assert found["two/worst/auroc"] == own["auroc"].min()
    assert found["two/worst/real_fpr@10%"] == own["real_fpr@10%"].max()
    clean = table.filter(attack="none", detector="two", defence="none")
    assert found["two/clean/real_tpr@30%"] == clean["real_tpr@30%"].item()


def test_all_is_every_attack_and_a_name_comes_once():
    assert attack_names(["all", "number"]) == [entry.name for entry in ENTRIES]
    assert attack_names(["number", "homoglyph", "number"]) == ["number", "homoglyph"]


def test_side_by_side_an_attack_with_queries_is_each_detectors_own(tmp_path: Path):
    both = scored_rows().with_columns(pl.col("attack").replace(NAMES))
    against_two = both.filter(target="one").with_columns(target=pl.lit("two"), score=pl.col("score") - 0.3)
    table = robustness_table(pl.concat([both, against_two]), fprs=FPRS, resamples=0)
    rows = grouped(table, ["number"], ["adaptive"])
    own = rows.filter(attack="adaptive")
    assert own.select("detector", "target").rows() == [("one", "one"), ("two", "two")]
    text = side_by_side(rows, ["auroc"])
    assert text["texts"].to_list() == ["clean", *["seen in training"] * 3, *["held out"] * 2]
    assert text["attack"].to_list() == ["-", "number 0.5", "number 1", "mean", "adaptive 0.1", "mean"]
    expected = own.filter(detector="two")["auroc"].item()
    assert text.filter(attack="adaptive 0.1")["AUROC, two"].item() == f"{expected:.3f}"
    written = write_hardening_report(table, ["number"], ["adaptive"], tmp_path, "Hardening", FPRS)
    assert {path.name for path in written} == {"hardening.md", "hardening.csv", "hardening.svg", "hardening.png"}


DOCUMENTS = [
    Document("h1", "A human text. " * 30, 0),
    Document("m1", "A machine text. " * 40, 1),
    Document("h2", "Short.", 0),
    Document("m2", "A machine text, shorter. " * 12, 1),
]


def test_samples_are_the_shortest_texts_that_say_something():
    assert chosen_samples(DOCUMENTS) == [3, 0]


def test_a_sample_shows_where_the_change_begins_and_makes_the_invisible_visible():
    after = [AttackedText(one.text[:200] + "\u200b" + one.text[200:]) for one in DOCUMENTS]
    text_set = TextSet("zero_width_space", 0.5)
    texts = attacked_frame(DOCUMENTS, after, text_set)
    scored = scored_rows().head(0)
    found = sample_section(text_set, DOCUMENTS, texts, scored)
    assert found.startswith("## zero_width_space 0.5\n\nmachine, edit distance 0.00")
    assert "<U+200B>" in found
    assert "\u200b" not in found
    assert "A machine text, shorter." in originals(DOCUMENTS)


def test_an_unchanged_sample_says_so():
    text_set = TextSet("number", 0.5)
    texts = attacked_frame(DOCUMENTS, [AttackedText(one.text) for one in DOCUMENTS], text_set)
    assert sample_section(text_set, DOCUMENTS, texts, scored_rows().head(0)).count("(unchanged)") == 2
