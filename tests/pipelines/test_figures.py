import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, f1_score, roc_auc_score

from detect.calibration import Calibration
from detect.measures import expected_calibration_error, tpr_at_fpr
from detect.probability import PlattScaling
from features.errors import InputError, UsageError
from pipelines.bootstrap import draw_sources
from pipelines.figures import LENGTH_BANDS, figure_names, figures_table, slices_of, with_fixed_rules
from tests.pipelines.judgement_rows import make_judgements

RATES = (0.05, 0.1)


def part(judgements, name, label=None):
    chosen = judgements.filter(part=name)
    return chosen if label is None else chosen.filter(label=label)


def naive_figures(calibration, test):
    """The figures of test rows by scikit-learn and plain means, in the order of `figure_names(RATES)`."""
    human = Calibration(calibration.filter(label=0)["score"].to_numpy(), {})
    platt = PlattScaling.fit(calibration["label"], calibration["score"])
    label, score = test["label"].to_numpy(), test["score"].to_numpy()
    figures = [roc_auc_score(label, score), average_precision_score(label, score)]
    figures += [tpr_at_fpr(label, score, rate) for rate in RATES]
    for rate in RATES:
        flagged = human.p_values(score) <= rate
        figures += [flagged[label == 0].mean(), flagged[label == 1].mean()]
    decided = human.p_values(score) <= 0.01
    probability = platt.probabilities(score)
    return [
        *figures,
        f1_score(label, decided),
        accuracy_score(label, decided),
        brier_score_loss(label, probability),
        expected_calibration_error(label, probability),
    ]


def values(row, end=""):
    return [row[name + end] for name in figure_names(RATES)]


@pytest.mark.parametrize("ties", [False, True])
def test_figures_are_those_of_scikit_learn_and_of_the_measures(ties):
    judgements = make_judgements(400, 260, ties=ties)
    row = figures_table(judgements, fprs=RATES, slices=(), resamples=2).row(0, named=True)
    expected = naive_figures(part(judgements, "calibration"), part(judgements, "test"))
    np.testing.assert_allclose(values(row), expected, atol=1e-12)
    counts = [part(judgements, "test", label).height for label in (0, 1)]
    assert [row["humans"], row["machines"]] == counts
    assert row["sources"] == part(judgements, "test")["source"].n_unique()


def test_intervals_are_percentiles_of_a_naive_loop_over_drawn_sources():
    judgements = make_judgements(400, 260, ties=True)
    calibration, test = part(judgements, "calibration"), part(judgements, "test")
    row = figures_table(judgements, fprs=RATES, slices=(), resamples=50, seed=5).row(0, named=True)
    sources = sorted(test["source"].unique())
    texts = {source: test.filter(source=source) for source in sources}
    found = []
    for drawn in draw_sources(len(sources), 50, seed=5):
        times = zip(sources, drawn.astype(int), strict=True)
        found.append(naive_figures(calibration, pl.concat([texts[source] for source, n in times for _ in range(n)])))
    low, high = np.quantile(np.array(found), [0.025, 0.975], axis=0)
    # The ECE has other bins in every resample of the loop: it is tested below.
    np.testing.assert_allclose(values(row, "_low")[:-1], low[:-1], atol=1e-12)
    np.testing.assert_allclose(values(row, "_high")[:-1], high[:-1], atol=1e-12)


def test_intervals_of_sources_are_wider_than_those_of_documents_that_repeat_each_other():
    judgements = make_judgements(400, 260)
    fourfold = pl.concat([judgements] * 4)  # each source four times: no more is known than from one
    by_source = figures_table(fourfold, slices=()).row(0, named=True)
    single = figures_table(judgements, slices=()).row(0, named=True)
    alone = fourfold.with_columns(source=pl.int_range(pl.len(), dtype=pl.Int64))
    by_document = figures_table(alone, slices=()).row(0, named=True)
    width = {
        name: row["auroc_high"] - row["auroc_low"]
        for name, row in {"source": by_source, "single": single, "document": by_document}.items()
    }
    assert width["source"] == pytest.approx(width["single"], rel=1e-9)
    assert width["document"] < 0.7 * width["single"]


def test_the_interval_of_the_ece_holds_its_value_and_of_perfect_probabilities_is_near_zero():
    rng = np.random.default_rng(0)
    score = rng.normal(size=8000) * 2
    label = rng.random(8000) < 1 / (1 + np.exp(-score))
    judgements = make_judgements(4000, 4000).with_columns(
        score=pl.Series(score), label=pl.Series(label.astype(np.int8)), source=pl.int_range(8000, dtype=pl.Int64)
    )
    row = figures_table(judgements, slices=(), resamples=200).row(0, named=True)
    assert 0 <= row["ece_low"] <= row["ece"] <= row["ece_high"] < 0.05


def test_a_rate_of_zero_is_not_certain():
    # 60 human texts of 60 sources, none flagged: Clopper-Pearson's upper bound is 1 - 0.025^(1/60).
    judgements = make_judgements(400, 60).with_columns(source=pl.int_range(460, dtype=pl.Int64))
    test_human = (pl.col("part") == "test") & (pl.col("label") == 0)
    judgements = judgements.with_columns(score=pl.when(test_human).then(-9.0).otherwise("score"))
    row = figures_table(judgements, fprs=(0.1,), slices=(), resamples=20).row(0, named=True)
    assert (row["real_fpr@10%"], row["real_fpr@10%_low"]) == (0.0, 0.0)
    assert row["real_fpr@10%_high"] == pytest.approx(1 - 0.025 ** (1 / row["humans"]))
    assert (row["tpr@10%"], row["tpr@10%_high"]) == (1.0, 1.0)
    assert row["tpr@10%_low"] == pytest.approx(0.025 ** (1 / row["machines"]))


def test_test_rows_move_no_threshold_and_no_probability():
    judgements = make_judgements(400, 260)
    shifted = judgements.with_columns(
        score=pl.when(pl.col("part") == "test").then(pl.col("score") + 100).otherwise("score")
    )
    row = figures_table(shifted, fprs=RATES, slices=(), resamples=2).row(0, named=True)
    assert row["real_fpr@5%"] == row["real_tpr@5%"] == 1.0
    assert row["brier"] == pytest.approx(row["humans"] / (row["humans"] + row["machines"]))


def test_written_thresholds_and_probabilities_give_the_figures_again():
    judgements = make_judgements(400, 260, ties=True)
    row = figures_table(judgements, fprs=RATES, slices=(), resamples=2).row(0, named=True)
    written = with_fixed_rules(judgements, RATES)
    assert written.select(judgements.columns).equals(judgements)
    assert (
        part(written, "calibration").select("probability", "threshold@5%").null_count().row(0)
        == (part(judgements, "calibration").height,) * 2
    )
    test = part(written, "test")
    for rate in ("5%", "10%"):
        flagged = test["score"] >= test[f"threshold@{rate}"]
        assert row[f"real_fpr@{rate}"] == pytest.approx(flagged.filter(test["label"] == 0).mean())
        assert row[f"real_tpr@{rate}"] == pytest.approx(flagged.filter(test["label"] == 1).mean())
    assert row["f1@1%"] == pytest.approx(f1_score(test["label"], test["score"] >= test["threshold@1%"]))
    assert row["brier"] == pytest.approx(brier_score_loss(test["label"], test["probability"]))
    only_human = judgements.filter((pl.col("part") == "test") | (pl.col("label") == 0))
    assert with_fixed_rules(only_human, RATES)["probability"].null_count() == only_human.height


def test_a_rate_finer_than_the_calibration_texts_is_null_and_said():
    judgements = make_judgements(150, 130)
    humans = part(judgements, "calibration", 0).height
    row = figures_table(judgements, slices=(), resamples=2).row(0, named=True)
    assert humans < 99
    for name in ("real_fpr@0.1%", "real_tpr@1%", "real_fpr@1%_low", "f1@1%", "accuracy@1%", "accuracy@1%_high"):
        assert row[name] is None, name
    assert row["real_fpr@5%"] is not None
    assert f"no threshold at 0.1%: {humans} human calibration texts; no threshold at 1%: {humans} human" in row["note"]
    assert f"tpr@0.1%, 1% is at no false positive: {row['humans']} human texts" in row["note"]


def test_without_calibration_texts_only_ranking_figures_remain():
    judgements = part(make_judgements(), "test")
    row = figures_table(judgements, slices=(), resamples=2).row(0, named=True)
    assert row["auroc"] is not None
    assert row["real_fpr@5%"] is row["brier"] is row["ece"] is row["ece_low"] is row["f1@1%"] is None
    assert "no threshold at 5%: 0 human calibration texts" in row["note"]
    assert "no probabilities: the calibration part lacks a class" in row["note"]


def test_a_slice_of_one_class_keeps_only_what_that_class_tells():
    judgements = make_judgements(400, 260).filter((pl.col("label") == 0) | (pl.col("domain") == "news"))
    table = figures_table(judgements, fprs=RATES, slices=("domain",), resamples=20)
    row = table.row(by_predicate=pl.col("value") == "poems", named=True)
    assert row["machines"] == 0
    human = part(judgements, "test").filter(domain="poems")["score"]
    threshold = Calibration(part(judgements, "calibration", 0)["score"].to_numpy(), {}).threshold(0.1)
    assert row["real_fpr@10%"] == (human >= threshold).mean()
    assert row["real_fpr@10%_low"] <= row["real_fpr@10%"] <= row["real_fpr@10%_high"]
    others = [name for name in figure_names(RATES) if not name.startswith("real_fpr")]
    assert [row[name + end] for name in others for end in ("", "_low", "_high")] == [None] * 3 * len(others)
    assert row["note"] == "no machine texts"


def test_one_source_gives_no_intervals():
    judgements = make_judgements(400, 260).with_columns(source=pl.lit(3, dtype=pl.Int64))
    row = figures_table(judgements, slices=(), resamples=20).row(0, named=True)
    assert row["auroc"] is not None
    assert row["auroc_low"] is row["accuracy@1%_high"] is row["ece_low"] is None
    assert row["note"].endswith("no intervals: one source")


def test_slices_are_in_order_and_hold_their_texts():
    test = part(make_judgements(400, 260), "test")
    found = {
        (kind, value): texts for kind, value, texts in slices_of(test, ("domain", "generator", "attack", "length"))
    }
    assert list(found) == [
        ("all", "all"),
        *(("domain", value) for value in ("news", "poems")),
        *(("generator", value) for value in ("g", "h")),
        *(("attack", value) for value in ("a", "none")),
        *(("length", value) for value in LENGTH_BANDS),
    ]
    assert set(found["domain", "news"]["id"]) == set(test.filter(domain="news")["id"])
    human = test.filter(label=0)
    assert set(found["generator", "g"]["id"]) == {*human["id"], *test.filter(generator="g")["id"]}
    assert set(found["attack", "a"]["id"]) == {*human["id"], *test.filter(attack="a")["id"]}
    bands = [found["length", value] for value in LENGTH_BANDS]
    assert [texts["n_tokens"].min() >= start for texts, start in zip(bands, LENGTH_BANDS.values(), strict=True)]
    assert sum(texts.height for texts in bands) == test.height


def test_lengths_at_the_edge_of_a_band_belong_to_the_band_that_begins_there():
    lengths = [16, 63, 64, 127, 128, 255, 256, 511, 512, 4000]
    test = make_judgements(5, 5).with_columns(n_tokens=pl.Series(lengths, dtype=pl.Int32))
    found = {value: texts["n_tokens"].to_list() for kind, value, texts in slices_of(test, ("length",)) if kind != "all"}
    assert found == {
        "<64": [16, 63],
        "64-127": [64, 127],
        "128-255": [128, 255],
        "256-511": [256, 511],
        ">=512": [512, 4000],
    }


def test_a_generator_is_judged_against_human_texts_of_its_own_domains():
    judgements = make_judgements(400, 260).with_columns(
        generator=pl.when(pl.col("label") == 1).then(
            pl.when(pl.col("domain") == "news").then(pl.lit("g")).otherwise(pl.lit("h"))
        )
    )
    found = {value: texts for _, value, texts in slices_of(part(judgements, "test"), ("generator",))}
    assert found["g"]["domain"].unique().to_list() == ["news"]
    assert found["g"].filter(label=0).height == part(judgements, "test", 0).filter(domain="news").height


def test_texts_without_a_domain_are_a_domain_of_their_own_for_generators():
    test = make_judgements(20, 20).with_columns(domain=pl.lit(None, dtype=pl.String))
    found = {value: texts for _, value, texts in slices_of(test, ("domain", "generator"))}
    assert list(found) == ["all", "g", "h"]
    assert found["g"].filter(label=0).height == 20


def test_judgements_that_cannot_be_measured_are_refused():
    judgements = make_judgements(50, 50)
    with pytest.raises(InputError, match="no column 'source'; expected detector, protocol"):
        figures_table(judgements.drop("source"))
    with pytest.raises(UsageError, match="no slice 'language'; choose from domain, generator, attack, length"):
        figures_table(judgements, slices=("language",))
    with pytest.raises(UsageError, match="between 0 and 1, got 5; try"):
        figures_table(judgements, fprs=(5,))
    broken = judgements.with_columns(
        score=pl.when(pl.col("id").is_in(["7", "9"])).then(float("nan")).otherwise("score")
    )
    with pytest.raises(
        InputError, match="2 of 100 scores are missing, NaN or infinite, the first from detector one for 7"
    ):
        figures_table(broken)
